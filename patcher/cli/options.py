"""The options that commands share, as values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from patcher import pipeline, repository, sources
from patcher import recipe as recipes
from patcher.emit import git, report
from patcher.errors import InputError, UsageError, reason
from patcher.model import Outcome, Patch, Recipe

RECIPE = "docker-build-cache"
_SUFFIXES = {"mbox": ".patch", "diff": ".diff", "markdown": ".md", "html": ".html"}
_PATH = click.Path(path_type=Path)
_HOW_TO_KNOW = {
    "author": "give --author, or set user.name and user.email in git",
    "date": "give --date, or set SOURCE_DATE_EPOCH",
}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
recipes_option = click.option("--recipes", "folders", multiple=True, type=_PATH, help="A folder with more recipes.")


def _recipe_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """For the shell's completion."""
    names = recipes.names([recipes.bundled(), *ctx.params.get("folders", ())])
    return [name for name in names if name.startswith(incomplete)]


def branch_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """The branches and tags of the clone, a remote's branches without the remote: for the shell's completion."""
    # Where an option without its value is last, click has not taken TREE from the arguments yet.
    clone = ctx.params.get("repo") or next(map(Path, ctx.args), None) or ctx.params.get("tree") or Path()
    listing = ["for-each-ref", "--format=%(refname:lstrip=2)"]
    here, remote = (
        repository.git(clone, [*listing, *kinds], check=False).stdout.decode("utf8", "replace").split("\n")
        for kinds in (["refs/heads", "refs/tags"], ["refs/remotes"])
    )
    names = [*here, *(name.partition("/")[2] for name in remote if not name.endswith("/HEAD"))]
    return [name for name in dict.fromkeys(names) if name and name.startswith(incomplete)]


def takes_a_recipe(function: Callable[..., int | None]) -> Any:
    """Give a command the options that name a recipe. It is called with ``recipe`` and its ``values``."""

    @click.option(
        "--recipe",
        default=RECIPE,
        show_default=True,
        shell_complete=_recipe_names,
        help="The change to make.",
    )
    @click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="An option of the recipe.")
    @recipes_option
    @wraps(function)
    def command(recipe: str, settings: Sequence[str], folders: Sequence[Path], **others: Any) -> int | None:
        chosen: dict[str, str] = {}
        for setting in settings:
            key, separator, value = setting.partition("=")
            if not separator:
                raise UsageError(f"--set {setting}: the form is OPTION=VALUE")
            if key in chosen:
                raise UsageError(f"--set {key} is given twice")
            chosen[key] = value
        loaded = recipes.load(recipe, [recipes.bundled(), *folders])
        return function(recipe=loaded, values=loaded.values(chosen), **others)

    return command


def on_a_tree(function: Callable[..., int | None]) -> Any:
    """Give a command TREE and the options that go with it. It is called with ``source``, ``recipe`` and ``values``."""

    @click.argument("tree", type=_PATH, default=Path())
    @click.option("--repo", type=_PATH, help="Read a revision of this clone; needs --rev.")
    @click.option("--rev", shell_complete=branch_names, help="The revision to read, without a checkout.")
    @click.option("--file", metavar="PATH", help="The script to patch, from the root of the tree.")
    @takes_a_recipe
    @wraps(function)
    def command(
        tree: Path, repo: Path | None, rev: str | None, file: str | None, recipe: Recipe, **others: Any
    ) -> int | None:
        if repo is not None and tree != Path():
            raise UsageError("TREE and --repo are both given", hint="Give one of them: TREE --rev REV works as well.")
        if repo is not None and rev is None:
            raise UsageError("--repo needs --rev", hint="For all release branches: ci-patcher backport --repo R")
        source = sources.tree(tree) if rev is None else sources.revision(repo or tree, rev)
        if file and source.only:
            raise UsageError("TREE names a script, and --file another", hint="Name the root of the tree with --file.")
        return function(source=source, recipe=recipes.narrowed(recipe, file) if file else recipe, **others)

    return command


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be emitted, and how. ``author`` and ``date`` are in git's raw forms, empty where unknown.

    ``note`` says why the form is a diff where none was asked for.
    """

    form: str
    output: Path | None
    author: str
    date: str
    signoff: bool
    github_pull: tuple[str, ...]
    rebased_from: tuple[str, ...]
    reverse: bool
    no_verify: bool
    strict: bool
    note: str = ""

    def __post_init__(self) -> None:
        """Raise UsageError for a value without its form, and for a file where ``-o`` needs a folder."""
        if self.author and not re.fullmatch(r"[^<>\s\0]([^<>\r\n\0]*[^<>\s\0])? <[^<>\s\0]+>", self.author):
            raise UsageError(f"--author {self.author}: the form is 'Name <mail>'", hint="Quote it for the shell.")
        for pull in self.github_pull:
            if not re.fullmatch(r"#[0-9]+", pull):
                hint = "For example: --github-pull 31545"
                raise UsageError(f"--github-pull {pull[1:]}: the form is a number", hint=hint)
        for commit in self.rebased_from:
            if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
                raise UsageError(f"--rebased-from {commit}: a full hash is needed", hint="`git rev-parse` prints it.")
        for path in (self.output, *self.output.parents) if self.output else ():
            if path.exists():
                if not path.is_dir():
                    raise UsageError("-o names a file, a folder is needed", where=str(path), hint="Or use: > FILE")
                break

    def known(self, author: str, date: str, *, dated: bool = False) -> Wanted:
        """The same with the author and date that git knows, and with a form: a diff where one of them is missing.

        ``dated`` says that each commit has a date of its own. Raises UsageError where an author or a date is needed.
        """
        missing = [name for name, has in (("author", author), ("date", date or dated)) if not has]
        what, hint = " and ".join(missing), "; ".join(_HOW_TO_KNOW[name] for name in missing)
        if self.signoff and not author:
            raise UsageError("--signoff needs an author", hint=hint)
        if self.form == "mbox" and missing:
            raise UsageError(f"an mbox needs an author and a date, and the {what} is unknown", hint=hint)
        if self.form or not missing:
            return replace(self, form=self.form or "mbox", author=author, date=date)
        note = f"--format diff, for git apply: the {what} of the commit is unknown\n  For git am, {hint}"
        return replace(self, form="diff", author=author, date=date, note=note)

    @property
    def _trailers(self) -> list[str]:
        trailers = [f"Github-Pull: {pull}" for pull in self.github_pull]
        trailers += [f"Rebased-From: {commit}" for commit in self.rebased_from]
        return trailers + ([f"Signed-off-by: {self.author}"] if self.signoff else [])

    def message(self, done: Patch) -> str:
        """The commit message, which says what the change replaces."""
        return git.message(done.recipe, done.values, self._trailers, before=done.plan, reverse=done.reverse)

    def emitted(self, done: Patch) -> bytes:
        """The change in the form that is wanted, the page apart. Raises InputError where git makes no patch of it."""
        if self.form == "mbox":
            return git.mbox(done.pairs, self.message(done), self.author, self.date, report.below(done))
        return report.markdown(done).encode("utf8") if self.form == "markdown" else git.diff(done.pairs)

    def page(self, outcomes: Sequence[Outcome], recipe: Recipe, values: Mapping[str, str]) -> bytes:
        """One HTML page for all outcomes."""
        from patcher.emit import page  # slow to import

        # Only where there is one branch, the commit message says what is replaced.
        done = None if outcomes[1:] else outcomes[0].change
        message = self.message(done) if done else git.message(recipe, values, self._trailers, reverse=self.reverse)
        return page.page(outcomes, recipe, values, message, pipeline.contract(recipe))

    def file_name(self, recipe: Recipe) -> str:
        """What ``git format-patch`` would call the file."""
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", recipe.subject).strip("-")[:52].rstrip("-.")
        return f"0001-{slug}{_SUFFIXES[self.form]}"


def emits(function: Callable[..., int | None]) -> Any:
    """Give a command the options of a patch. It is called with ``wanted``."""

    @click.option("--format", "form", type=click.Choice([*_SUFFIXES]), help="What to emit.")
    @click.option("-o", "output", type=_PATH, help="Write files into this folder, not to stdout.")
    @click.option("--author", default="", help="Name <mail> (default: user.name and user.email in git).")
    @click.option("--date", default="", help="Commit date (default: SOURCE_DATE_EPOCH, then the base commit's).")
    @click.option("--signoff", is_flag=True, help="Add Signed-off-by, as git does.")
    @click.option("--github-pull", multiple=True, metavar="NUMBER", help="Add a trailer Github-Pull.")
    @click.option("--rebased-from", multiple=True, metavar="HASH", help="Add a trailer Rebased-From.")
    @click.option("--reverse", is_flag=True, help="Remove our block again.")
    @click.option("--no-verify", is_flag=True, help="Skip the linters and the scenarios.")
    @click.option("--strict", is_flag=True, help="Fail if a check was skipped.")
    @wraps(function)
    def command(form: str | None, date: str, github_pull: Sequence[str], **given: Any) -> int | None:
        pulls = tuple(f"#{pull.removeprefix('#')}" for pull in github_pull)
        given |= {"form": form or "", "date": _raw_date(date), "github_pull": pulls}
        wanted = Wanted(**{field.name: given.pop(field.name) for field in fields(Wanted) if field.name in given})
        return function(wanted=wanted, **given)

    return command


def _raw_date(date: str) -> str:
    """A date in git's raw form. Raises UsageError for what is neither that nor ISO 8601."""
    if not date:
        return ""
    from datetime import UTC, datetime  # slow to import

    raw = f"{date.lstrip('@')} +0000" if re.fullmatch(r"@?[0-9]+", date) else date
    if not re.fullmatch(r"[0-9]+ [+-][0-9]{4}", raw):
        with suppress(ValueError):
            parsed = datetime.fromisoformat(date)
            parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
            raw = f"{int(parsed.timestamp())} {parsed.strftime('%z')}"
    if not re.fullmatch(r"[0-9]{1,11} [+-](0[0-9]|1[0-3])[0-5][0-9]", raw):  # git reads no other
        hint = "Use 2024-12-31T23:59:59+00:00, or SECONDS ZONE."
        raise UsageError(f"--date {date}: not a date that git takes", hint=hint)
    return raw


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, its folder first. Raises InputError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "xb") as file:
                file.write(content)
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(reason(error), where=str(path), hint="It was not written.") from None
