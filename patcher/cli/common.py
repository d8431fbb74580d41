"""What the commands share: their options, and how these become values."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from patcher import pipeline, recipe, sources
from patcher.emit import git, report
from patcher.errors import InputError, UsageError
from patcher.model import Patch, Recipe, Source

if TYPE_CHECKING:
    from patcher.model import Outcome

FORMATS = ("mbox", "diff", "markdown", "html")


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """The recipes' names, for the shell."""
    folders = [recipe.bundled(), *ctx.params.get("folders", ())]
    return [name for name in recipe.names(folders) if name.startswith(incomplete)]


RECIPES = [
    click.option(
        "--recipes", "folders", multiple=True, type=click.Path(path_type=Path), help="A folder of more recipes."
    ),
]
RECIPE = [
    click.option(
        "--recipe",
        "recipe_name",
        default="docker-build-cache",
        show_default=True,
        help="The change to make.",
        shell_complete=_names,
    ),
    click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="An option of the recipe."),
    *RECIPES,
]


def decorated(function: Any, decorators: Sequence[Any]) -> Any:
    """A function under these decorators, the first outermost."""
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def on_a_tree(function: Any) -> Any:
    """The options of every command that acts on a tree."""
    return decorated(
        function,
        [
            click.argument("tree", type=click.Path(path_type=Path), default=Path()),
            click.option(
                "--repo", type=click.Path(path_type=Path), help="Read TREE's files out of this clone, with --rev."
            ),
            click.option("--rev", help="The revision to read, without a checkout."),
            *RECIPE,
        ],
    )


def emits(function: Any) -> Any:
    """The options of the commands that emit patches."""
    return decorated(
        function,
        [
            click.option("--format", "form", type=click.Choice(FORMATS), help="What to emit."),
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


def source_of(tree: Path, repo: Path | None, rev: str | None) -> Source:
    if repo is None and rev is None:
        return sources.tree(tree)
    if repo is not None and tree != Path():
        raise UsageError("TREE and --repo are both given", hint="One of them is meant: TREE --rev REV works as well.")
    if rev is None:
        raise UsageError("--repo needs --rev", hint="For all release branches at once: ci-patcher backport --repo R")
    return sources.revision(repo or tree, rev)


def recipe_of(name: str, settings: Sequence[str], folders: Sequence[Path]) -> tuple[Recipe, dict[str, str]]:
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


def trailers_of(github_pull: Sequence[str], rebased_from: Sequence[str], signoff: bool, author: str) -> list[str]:
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


def author_option(author: str) -> str:
    """An author as git takes it. Raises UsageError where the form is another."""
    if author and not re.fullmatch(r"[^<>\s\0]([^<>\r\n\0]*[^<>\s\0])? <[^<>\s\0]+>", author):
        raise UsageError(f"--author {author}: the form is 'Name <mail>'", hint="Quote it: the shell knows < and >.")
    return author


def raw_date(date: str) -> str:
    """A date as git's raw form. Raises UsageError for what is neither that nor ISO 8601, or not in git's range."""
    if not date:
        return ""
    from datetime import UTC, datetime  # takes its time to be imported

    raw = f"{date.lstrip('@')} +0000" if re.fullmatch(r"@?[0-9]+", date) else date
    if not re.fullmatch(r"[0-9]+ [+-][0-9]{4}", raw):
        try:
            parsed = datetime.fromisoformat(date)
        except ValueError:
            raw = ""
        else:
            parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
            raw = f"{int(parsed.timestamp())} {parsed.strftime('%z')}"
    if not re.fullmatch(r"[0-9]{1,11} [+-](0[0-9]|1[0-3])[0-5][0-9]", raw):
        raise UsageError(
            f"--date {date}: not a date that git takes", hint="Use 2024-12-31T23:59:59+00:00, or SECONDS ZONE."
        )
    return raw


def for_git_apply(missing: str) -> str:
    """Why there is a diff where an mbox would be the default."""
    return (
        f"--format diff, since the {missing} of a commit is unknown: it is for git apply\n"
        "  For git am, give --author and --date, or set user.name and user.email in git."
    )


KEEP_CR = "The lines end with CR LF: git am needs --keep-cr."


def keeps_cr(done: Patch) -> bool:
    """Whether the patch, as a mail, would lose its carriage returns."""
    return any("\r\n" in script.text for pair in done.pairs for script in pair)


def emitted(done: Patch, form: str, author: str, date: str, trailers: Sequence[str], *, reverse: bool = False) -> bytes:
    """The change in one of the forms. Raises UsageError where that needs an author and a date that are unknown."""
    if form == "mbox":
        if not author or not date:
            raise UsageError("an mbox needs an author and a date", hint="Give --author 'Name <mail>' and --date.")
        source = done.source
        base = [f"Base: {source.name}, commit {source.revision}"] if source.revision else []
        message = git.message(done.recipe, done.values, trailers, before=done.plan, reverse=reverse)
        below = [*report.summary(done), *base, *([KEEP_CR] if keeps_cr(done) else [])]
        return git.mbox(done.pairs, message, author, date, below)
    diff = git.diff(done.pairs)
    return report.markdown(done, diff.decode("utf8", "replace")).encode() if form == "markdown" else diff


def review_page(
    outcomes: Sequence[Outcome],
    recipe: Recipe,
    values: Mapping[str, str],
    trailers: Sequence[str],
    *,
    reverse: bool = False,
) -> bytes:
    """One page for all outcomes."""
    from patcher.emit import page  # Pygments takes its time

    plans = [outcome.change.plan for outcome in outcomes if outcome.change]
    before = plans[0] if len(outcomes) == len(plans) == 1 else None
    message = git.message(recipe, values, trailers, before=before, reverse=reverse)
    return page.page(outcomes, recipe, values, message, pipeline.contract(recipe))


def file_name(found: Recipe, form: str) -> str:
    """What ``git format-patch`` would call the file."""
    suffix = {"mbox": ".patch", "diff": ".diff", "markdown": ".md", "html": ".html"}[form]
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", found.subject).strip("-")[:52].rstrip("-.")
    return f"0001-{slug}{suffix}"


def write_beside(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: beside its place, then by a rename. Raises InputError."""
    try:
        _write_beside(path, content)
    except OSError as error:
        raise InputError((error.strerror or str(error)).lower(), where=str(path), hint="It was not written.") from None


def _write_beside(path: Path, content: bytes) -> None:
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


def must_be_a_folder(output: Path) -> None:
    """Raise UsageError where a file stands in the way of a folder. Nothing is made yet."""
    there = next((path for path in (output, *output.parents) if path.exists()), None)
    if there and not there.is_dir():
        raise UsageError(
            "-o names a file, a folder is needed", where=str(there), hint="For a file of that name: > FILE"
        )


def folder_for(output: Path) -> Path:
    """The folder, made where it is not there. Raises UsageError or InputError."""
    must_be_a_folder(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError((error.strerror or str(error)).lower(), where=str(output), hint="-o names a folder.") from None
    return output
