"""The command line: options, files, echo, exit status. Nothing else prints or exits."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from patcher import __version__, pipeline, recipe, sources
from patcher.emit import git, report
from patcher.model import CiPatcherError, UsageError
from patcher.recipe import Recipe
from patcher.sources import Source

_FORMATS = ("mbox", "diff", "markdown")


class _Group(click.Group):
    """Shows every error in one place, with its exit status, and never a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs["standalone_mode"] = False
        try:
            status = super().main(*args, **kwargs)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            status = 2
        except click.exceptions.Abort:
            click.echo("interrupted", err=True)
            status = 128 + signal.SIGINT
        except CiPatcherError as error:
            _show(error)
            status = error.status
        except BrokenPipeError:
            # The reader had enough, as `head -1` has. Keep Python from complaining while it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 0
        except OSError as error:
            click.echo(f"{error.filename or 'ci-patcher'}: {(error.strerror or str(error)).lower()}", err=True)
            status = 4
        sys.exit(status if isinstance(status, int) else 0)


def _show(error: CiPatcherError) -> None:
    click.echo(str(error), err=True)
    for line in error.hint.splitlines():
        click.echo(f"  {line}", err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ci-patcher")
def main() -> None:
    """Give the Bitcoin Core CI scripts an opt-in docker build cache, as a reviewed patch."""


def _decorated(function: Any, decorators: Sequence[Any]) -> Any:
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def _on_a_tree(function: Any) -> Any:
    """The options of every command that acts on a tree."""
    return _decorated(
        function,
        [
            click.argument("tree", type=click.Path(path_type=Path), default=Path()),
            click.option(
                "--repo", type=click.Path(path_type=Path), help="Read TREE's files out of this clone, with --rev."
            ),
            click.option("--rev", help="The revision to read, without a checkout."),
            *_RECIPE,
        ],
    )


_RECIPE = [
    click.option(
        "--recipe", "recipe_name", default="docker-build-cache", show_default=True, help="The change to make."
    ),
    click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="An option of the recipe."),
    click.option(
        "--recipes", "folders", multiple=True, type=click.Path(path_type=Path), help="A folder of more recipes."
    ),
]


def _emits(function: Any) -> Any:
    """The options of the commands that emit patches."""
    return _decorated(
        function,
        [
            click.option("--format", "form", type=click.Choice(_FORMATS), help="What to emit."),
            click.option(
                "-o", "output", type=click.Path(path_type=Path), help="Write into this folder, not to stdout."
            ),
            click.option("--author", default="", help="Name <mail>; else git's configuration."),
            click.option("--date", default="", help="Else SOURCE_DATE_EPOCH, else the base commit's."),
            click.option("--signoff", is_flag=True, help="Add Signed-off-by, as git does."),
            click.option("--github-pull", multiple=True, metavar="#N", help="Add a trailer Github-Pull."),
            click.option("--rebased-from", multiple=True, metavar="HASH", help="Add a trailer Rebased-From."),
            click.option("--reverse", is_flag=True, help="Take our block out again."),
            click.option("--no-verify", is_flag=True, help="Leave out the linters and the scenarios."),
            click.option("--strict", is_flag=True, help="What was not run counts as failed."),
        ],
    )


def _source(tree: Path, repo: Path | None, rev: str | None) -> Source:
    if repo is None and rev is None:
        return sources.tree(tree)
    if rev is None:
        raise UsageError("--repo needs --rev", hint="For all release branches at once: ci-patcher backport --repo R")
    return sources.revision(repo or tree, rev)


def _recipe(name: str, settings: Sequence[str], folders: Sequence[Path]) -> tuple[Recipe, dict[str, str]]:
    chosen: dict[str, str] = {}
    for setting in settings:
        key, found, value = setting.partition("=")
        if not found:
            raise UsageError(f"--set {setting}: the form is OPTION=VALUE")
        if key in chosen:
            raise UsageError(f"--set {key} is given twice")
        chosen[key] = value
    found_recipe = recipe.load(name, [recipe.bundled(), *folders])
    return found_recipe, found_recipe.values(chosen)


def _trailers(github_pull: Sequence[str], rebased_from: Sequence[str], signoff: bool, author: str) -> list[str]:
    for pull in github_pull:
        if not re.fullmatch(r"#[0-9]+", pull):
            raise UsageError(f"--github-pull {pull}: the form is # and digits", hint="Quote it: --github-pull '#31545'")
    for commit in rebased_from:
        if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
            raise UsageError(f"--rebased-from {commit}: a full hash is needed", hint="`git rev-parse` gives it.")
    if signoff and not author:
        raise UsageError("--signoff needs an author", hint="Give --author, or set user.name and user.email in git.")
    trailers = [f"Github-Pull: {pull}" for pull in github_pull] + [f"Rebased-From: {commit}" for commit in rebased_from]
    return [*trailers, *([f"Signed-off-by: {author}"] if signoff else [])]


def _date(date: str) -> str:
    """A date as git's raw form. Raises UsageError for what is neither that nor ISO 8601."""
    from datetime import UTC, datetime

    if not date or re.fullmatch(r"[0-9]+ [+-][0-9]{4}", date):
        return date
    if re.fullmatch(r"@?[0-9]+", date):
        return f"{date.lstrip('@')} +0000"
    try:
        parsed = datetime.fromisoformat(date)
    except ValueError:
        raise UsageError(f"--date {date}: not a date", hint="Use 2024-12-31T23:59:59+00:00, or SECONDS ZONE.") from None
    parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return f"{int(parsed.timestamp())} {parsed.strftime('%z')}"


def write_beside(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: beside its place, then by a rename. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _folder(output: Path) -> Path:
    if output.exists() and not output.is_dir():
        raise UsageError("-o names a file, a folder is needed", where=str(output))
    output.mkdir(parents=True, exist_ok=True)
    return output


@main.command()
@_on_a_tree
@_emits
@click.option("--check", is_flag=True, help="Emit nothing; exit 1 where a patch is due.")
@click.option(
    "--json", "as_json", is_flag=True, help="The review as JSON on stderr... and the patch inside it on stdout."
)
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
    as_json: bool,
) -> int:
    """Emit the reviewed patch for TREE: on stdout, the review on stderr.

    Example: ci-patcher patch ~/bitcoin | git -C ~/bitcoin am
    """
    source = _source(tree, repo, rev)
    found_recipe, values = _recipe(recipe_name, settings, folders)
    done = pipeline.change(source, found_recipe, values, reverse=reverse, verify=not (no_verify or check))
    if not done.pairs:
        click.echo(report.nothing(done, reverse), err=True)
        return 0
    if check:
        click.echo(f"{pipeline.where(done.plan)}: a patch is due: {done.plan.state}", err=True)
        return 1
    failed = bool(done.broken) or (strict and (no_verify or bool(done.not_run)))
    click.echo(report.text(done), err=True, nl=False)
    if failed:
        click.echo(
            "The review failed, so there is no patch." if done.broken else "--strict: not all was run.", err=True
        )
        return 1
    known_author, known_date = sources.identity(source, author, _date(date))
    if form is None:
        form = "mbox" if known_author and known_date else "diff"
        if form == "diff":
            missing = " and ".join(n for n, known in (("author", known_author), ("date", known_date)) if not known)
            click.echo(f"--format diff, since the {missing} of a commit is unknown: --author, --date", err=True)
    trailers = _trailers(github_pull, rebased_from, signoff, known_author)
    if form == "mbox":
        if not known_author or not known_date:
            raise UsageError("an mbox needs an author and a date", hint="Give --author 'Name <mail>' and --date.")
        below = "\n".join(report.summary(done))
        emitted = git.mbox(
            done.pairs, pipeline.message(found_recipe, trailers, reverse=reverse), known_author, known_date, below
        )
    else:
        emitted = git.diff(done.pairs)
        if form == "markdown":
            emitted = report.markdown(done, emitted.decode("utf8", "replace")).encode()
    if as_json:
        emitted = (
            json.dumps(report.data(done) | {"patch": emitted.decode("utf8", "replace")}, indent=2) + "\n"
        ).encode()
    if output is None:
        click.echo(emitted, nl=False)
    else:
        suffix = {"mbox": ".patch", "diff": ".diff", "markdown": ".md"}[form]
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", found_recipe.subject).strip("-")[:52].rstrip("-.")
        path = _folder(output) / f"0001-{slug}{suffix}"
        write_beside(path, emitted)
        click.echo(str(path), err=True)
    return 0


if __name__ == "__main__":
    main()
