"""``ci-patcher patch``: the main job."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from patcher import pipeline, sources
from patcher.cli import terminal
from patcher.cli.options import Wanted, emits, on_a_tree, write
from patcher.cli.terminal import say, say_json, this_call
from patcher.emit import git, report
from patcher.errors import UsageError
from patcher.model import Outcome, Recipe, Result, Source, Target
from patcher.repository import Objects, known_commits


@click.command()
@on_a_tree
@emits
@click.option("--check", is_flag=True, help="Emit nothing; exit 1 if a patch is needed.")
@click.option("--interactive", is_flag=True, help="Show the review and the diff, and ask before anything is emitted.")
@click.option("--json", "as_json", is_flag=True, help="The review as JSON on stdout, and without -o the patch in it.")
@terminal.color_option
def patch(
    source: Source,
    recipe: Recipe,
    values: Mapping[str, str],
    wanted: Wanted,
    check: bool,
    interactive: bool,
    as_json: bool,
    color: str,
) -> int:
    """Emit the reviewed patch for TREE: on stdout, the review on stderr.

    On a terminal the patch is shown in colour and through PAGER, by default less.

    \b
    Example:
      ci-patcher patch ~/bitcoin | git -C ~/bitcoin am
    """
    if interactive and check:
        raise UsageError("--interactive and --check are both given", hint="--check emits nothing, so it asks nothing.")
    if interactive and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("--interactive needs a terminal", hint="Without --interactive the review is printed too.")
    if not check:
        wanted = _known(source, wanted)
    verify = not (wanted.no_verify or check)
    done = pipeline.change(source, recipe, values, reverse=wanted.reverse, verify=verify)
    kept = [] if wanted.reverse else report.kept(done.plan, values)
    if not done.pairs:
        say(report.nothing(done), err=True)
        return 0
    if check:
        needed = f"{done.plan.where}: a patch is needed: {report.state(done.plan)}"
        say("\n  ".join([needed, *kept, f"Next: {this_call('--check')}"]), err=True)
        return 1
    say("\n".join([*report.review(done), *kept]), err=True)
    revision = done.source.revision
    name = done.source.name if revision else done.plan.script.path  # no folder of this machine
    outcome = Outcome(Target(name, "tree", revision or name, None), done, strict=wanted.strict)
    failed = outcome.result is Result.FAILED
    if failed:
        say(f"{report.failed(done).capitalize()}, so there is no patch.", err=True)
    if failed and wanted.form != "html":  # the page is for readers, and shows what failed
        return 1
    if wanted.note:
        say(wanted.note, err=True)
    emitted = wanted.page([outcome], recipe, values) if wanted.form == "html" else wanted.emitted(done)
    shown = emitted if wanted.form in {"mbox", "diff"} else git.diff(done.pairs)
    if interactive and not terminal.agreed(shown, color):
        say("Nothing was emitted.", err=True)
        return 1
    path = wanted.output / wanted.file_name(recipe) if wanted.output else None
    if path:
        write(path, emitted)
        say(str(path), err=True)
    if as_json:
        place = {"file": str(path)} if path else {"patch": emitted.decode("utf8", "replace")}
        say_json(report.data(done) | place)
    elif path is None:
        terminal.write_out(emitted, color, paged=not interactive)
    if wanted.form == "mbox" and not sources.is_committed(source, [old for old, _ in done.pairs]):
        hint = (
            "commit it first" if sources.inside(source) else "commit it first, or patch what is committed: --rev HEAD"
        )
        say(f"The file differs from HEAD, to which git am applies a patch: {hint}", err=True)
    if wanted.form in {"mbox", "diff"} and (path or (sys.stdout.isatty() and not as_json)):
        _say_what_is_next(source, wanted.form, path)
    return int(failed)


def _known(source: Source, wanted: Wanted) -> Wanted:
    """What is wanted, with the author and date that git knows. What cannot be emitted is refused here, because the
    review takes long."""
    if wanted.rebased_from and source.repository:
        with Objects(source.repository) as objects:
            known_commits(objects, wanted.rebased_from)
    if wanted.form in {"", "mbox"} or wanted.signoff:  # the other forms need no git
        return wanted.known(*sources.identity(source, wanted.author, wanted.date))
    return wanted


def _say_what_is_next(source: Source, form: str, path: Path | None) -> None:
    """A command that applies the patch, and works where this one was typed."""
    top, inside = source.repository or source.root, sources.inside(source)
    words = ["git", *([] if os.path.samefile(top, ".") else ["-C", str(top)]), "am" if form == "mbox" else "apply"]
    git = shlex.join([*words, *([f"--directory={inside}"] if inside else [])])
    call = f"{git} {shlex.quote(os.path.abspath(path))}" if path else f"{this_call('--interactive')} | {git}"
    say(f"Next{f', with {source.name} checked out' if source.revision else ''}: {call}", err=True)
