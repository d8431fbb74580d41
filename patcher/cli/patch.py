"""``ci-patcher patch``: the main job."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from patcher import pipeline, sources
from patcher.cli import common, terminal
from patcher.cli.common import (
    author_option,
    emits,
    file_name,
    folder_for,
    must_be_a_folder,
    on_a_tree,
    raw_date,
    recipe_of,
    source_of,
    trailers_of,
    write_beside,
)
from patcher.emit import git, report
from patcher.errors import UsageError
from patcher.model import Patch


@click.command()
@on_a_tree
@emits
@click.option("--check", is_flag=True, help="Emit nothing; exit 1 where a patch is due.")
@click.option("--interactive", is_flag=True, help="Show the review and the diff, and ask before anything is emitted.")
@click.option("--json", "as_json", is_flag=True, help="The review as JSON on stdout, and without -o the patch in it.")
@terminal.color_option
def patch(
    tree: Path,
    repo: Path | None,
    rev: str | None,
    recipe_name: str,
    settings: Sequence[str],
    folders: Sequence[Path],
    form: str | None,
    output: Path | None,
    author: str,
    date: str,
    signoff: bool,
    github_pull: Sequence[str],
    rebased_from: Sequence[str],
    reverse: bool,
    no_verify: bool,
    strict: bool,
    check: bool,
    interactive: bool,
    as_json: bool,
    color: str,
) -> int:
    """Emit the reviewed patch for TREE: on stdout, the review on stderr.

    On a terminal the patch is shown in colour and through the pager, as git shows a diff.

    \b
    Example:
      ci-patcher patch ~/bitcoin | git -C ~/bitcoin am
    """
    if interactive and check:
        raise UsageError("--interactive and --check are both given", hint="--check emits nothing, so it asks nothing.")
    if interactive:
        terminal.must_be_there()
    date = raw_date(date)
    source = source_of(tree, repo, rev)
    found_recipe, values = recipe_of(recipe_name, settings, folders)
    # What cannot be emitted in the end is refused before the review, which takes long.
    author = author_option(author)
    if form in {None, "mbox"} or signoff:  # git is asked only where its answer counts
        author, date = sources.identity(source, author, date)
    trailers = trailers_of(github_pull, rebased_from, signoff, author)
    if rebased_from and source.repository:
        with sources.Objects(source.repository) as objects:
            sources.known_commits(objects, rebased_from)
    if output:
        must_be_a_folder(output)
    missing = " and ".join(name for name, known in (("author", author), ("date", date)) if not known)
    if form == "mbox" and missing and not check:
        raise UsageError(
            f"an mbox needs an author and a date, and the {missing} is unknown",
            hint="Give --author 'Name <mail>' and --date.",
        )
    done = pipeline.change(source, found_recipe, values, reverse=reverse, verify=not (no_verify or check))
    if not done.pairs:
        click.echo(report.nothing(done, reverse), err=True)
        return 0
    kept = [] if reverse else report.kept(done.plan, values)
    if check:
        click.echo("\n  ".join([f"{done.plan.where}: a patch is due: {done.plan.state}", *kept]), err=True)
        click.echo(f"  Next: {_this_call('--check')}", err=True)
        return 1
    failed = bool(done.broken) or (strict and (no_verify or bool(done.not_run)))
    click.echo("".join([report.text(done), *(f"{line}\n" for line in kept)]), err=True, nl=False)
    if failed:
        why = "The review failed" if done.broken else "--strict: not all was run"
        click.echo(f"{why}, so there is no patch.", err=True)
        if form != "html":  # which is for readers, and shows what failed
            return 1
    if form is None:
        form = "diff" if missing else "mbox"
        if missing:
            click.echo(common.for_git_apply(missing), err=True)
    if form == "mbox" and common.keeps_cr(done):
        click.echo(common.KEEP_CR, err=True)
    if form == "html":
        emitted = _page(done, trailers, reverse, strict)
    else:
        emitted = common.emitted(done, form, author, date, trailers, reverse=reverse)
    if interactive:
        shown = emitted if form in {"mbox", "diff"} else git.diff(done.pairs)
        if not terminal.agreed(shown, color):
            click.echo("Nothing was emitted.", err=True)
            return 1
    path = folder_for(output) / file_name(found_recipe, form) if output else None
    if path:
        write_beside(path, emitted)
        click.echo(str(path), err=True)
    if as_json:
        import json  # its scanner takes longer to import than all the rest of the output

        place = {"file": str(path)} if path else {"patch": emitted.decode("utf8", "replace")}
        click.echo(json.dumps(report.data(done) | place, indent=2))
    elif path is None and sys.stdout.isatty() and not interactive:
        terminal.show(emitted, color, sys.stdout)
    elif path is None:
        click.echo(terminal.painted(emitted) if color == "always" else emitted, nl=False)
    if form == "mbox" and not sources.is_committed(source, [old for old, _ in done.pairs]):
        click.echo("The file differs from HEAD: git am takes a patch of what is committed (--rev HEAD).", err=True)
    if form in {"mbox", "diff"} and (path or (sys.stdout.isatty() and not as_json)):
        apply = "git am" if form == "mbox" else "git apply"
        call = f"{apply} {shlex.quote(os.path.abspath(path))}" if path else f"{_this_call('--interactive')} | {apply}"
        click.echo(f"  Next, in the clone: {call}", err=True)
    return int(failed)


def _page(done: Patch, trailers: Sequence[str], reverse: bool, strict: bool) -> bytes:
    from patcher.model import Outcome, Target

    revision = done.source.revision
    name = done.source.name if revision else done.plan.script.path  # no folder of this machine
    outcome = Outcome(Target(name, "tree", revision or name, None), done, strict=strict)
    return common.review_page([outcome], done.recipe, done.values, trailers, reverse=reverse)


def _this_call(without: str) -> str:
    """The command as it was typed, without one option."""
    return shlex.join(["ci-patcher", *(word for word in sys.argv[1:] if word != without)])
