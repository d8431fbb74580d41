"""``ci-patcher backport``: the same change for every release branch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from patcher import backport as core
from patcher import pipeline, sources
from patcher.cli import common, show
from patcher.cli.common import (
    RECIPE,
    author_option,
    decorated,
    emits,
    emitted,
    file_name,
    folder_for,
    raw_date,
    recipe_of,
    review_page,
    trailers_of,
    write_beside,
)
from patcher.emit import branches, git, pull_request, report
from patcher.errors import CiPatcherError, UsageError
from patcher.model import Outcome, Result, Target
from patcher.sources import Objects

_BODY = "pull-request.md"
_PAGE = "review.html"


@dataclass
class _Emitter:
    """Where the patches of one call go, and where each went, by the name of its branch."""

    form: str
    author: str
    date: str
    trailers: Sequence[str]
    reverse: bool
    folder: Path | None
    to_stdout: bool
    patches: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    created: dict[str, str] = field(default_factory=dict)

    def date_of(self, outcome: Outcome) -> str:
        return self.date or (outcome.target.commit.date if outcome.target.commit else "")

    def emit(self, outcome: Outcome) -> Outcome:
        """Emit an outcome's patch, if it has one. What git refuses to make a patch of becomes its error."""
        if outcome.change is None or outcome.result is not Result.PATCHED or self.form == "html":
            return outcome
        date = self.date_of(outcome)
        try:
            patch = emitted(outcome.change, self.form, self.author, date, self.trailers, reverse=self.reverse)
        except CiPatcherError as error:
            return Outcome(outcome.target, error=error)
        name = outcome.target.name
        if self.folder:
            self.files[name] = f"{outcome.target.label}/{file_name(outcome.change.recipe, self.form)}"
            folder_for(self.folder / outcome.target.label)
            write_beside(self.folder / self.files[name], patch)
        elif self.to_stdout:
            click.echo(patch, nl=False)
        else:
            self.patches[name] = patch.decode("utf8", "replace")
        return outcome

    def branch(self, objects: Objects, outcomes: Sequence[Outcome], prefix: str, force: bool) -> list[Outcome]:
        """Create the branches. One whose commit cannot be made becomes an error, and the others are created."""
        commits = branches.Commits(objects)
        wanted: dict[str, str] = {}
        done: list[Outcome] = []
        for outcome in outcomes:
            change, commit = outcome.change, outcome.target.commit
            if change and commit and outcome.result is Result.PATCHED:
                message = git.message(
                    change.recipe, change.values, self.trailers, before=change.plan, reverse=self.reverse
                )
                try:
                    made = commits.add(commit, change.pairs, message, self.author, self.date_of(outcome))
                except CiPatcherError as error:
                    done.append(Outcome(outcome.target, error=error))
                    continue
                self.created[outcome.target.name] = prefix + outcome.target.label
                wanted[prefix + outcome.target.label] = made
            done.append(outcome)
        branches.create(commits, wanted, force)
        return done

    def places(self, name: str, *, patch: bool) -> dict[str, str]:
        """Where a branch's patch is, for the data."""
        found = {"patch_file": self.files.get(name), "created": self.created.get(name)}
        found |= {"patch": self.patches.get(name)} if patch else {}
        return {key: value for key, value in found.items() if value}


def _backport(
    names: Sequence[str],
    repo: Path,
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
    prefix: str | None,
    force: bool,
    pr_body: bool,
    as_json: bool,
) -> int:
    """Emit one reviewed patch for each BRANCH: a branch, a glob ('*.x'), a tag or another revision of a clone.

    Without one, all release branches (N.x) and the default branch. A local branch is taken before a remote's of
    the same name, upstream's before origin's. Nothing is fetched, checked out or changed.

    The patches go into a folder for each branch below -o, else to stdout as one mbox, of which each message is for
    its own branch (`git mailsplit` takes it apart). --format html is one page for all branches, review.html
    below -o. The summary goes to stdout, or to stderr where stdout has something else.

    \b
    Examples:
      ci-patcher backport --repo ~/bitcoin 28.x 29.x -o out --github-pull '#31545' --pr-body
      ci-patcher backport --repo ~/bitcoin --format html > review.html
    """
    if prefix == "":
        raise UsageError("--branch needs a prefix", hint="For example: --branch docker-cache-")
    if force and not prefix:
        raise UsageError("--force is for --branch")
    date = raw_date(date) or sources.set_date()
    recipe, values = recipe_of(recipe_name, settings, folders)
    with Objects(repo) as objects:
        author = author_option(author) or sources.author_of(repo)
        trailers = trailers_of(github_pull, rebased_from, signoff, author)
        if prefix and not author:
            raise UsageError("--branch needs an author", hint="Give --author, or set user.name and user.email in git.")
        if form is None:
            form = "mbox" if author else "diff"
            if form == "diff":
                click.echo(common.for_git_apply("author"), err=True)
        sources.known_commits(objects, rebased_from)
        targets, left_out = core.select(objects, names, recipe)
        if left_out:
            click.echo(left_out, err=True)
        to_stdout = not (output or prefix or pr_body or as_json)
        if to_stdout and form == "diff" and len(targets) > 1:
            raise UsageError("on stdout the diffs of several branches cannot be told apart", hint="Give -o DIR.")
        if form == "html" and not (to_stdout or output or as_json):
            raise UsageError("the page has no place to go: stdout has something else", hint="Give -o DIR.")
        folder = folder_for(output) if output else None
        emitter = _Emitter(form, author, date, trailers, reverse, folder, to_stdout)
        outcomes: list[Outcome] = []
        complete = False
        try:
            found = core.run(objects, targets, recipe, values, reverse=reverse, verify=not no_verify, strict=strict)
            with closing(found), _progress(targets) as advance:
                for outcome in found:
                    outcomes.append(emitter.emit(outcome))
                    advance()
            if prefix:
                outcomes = emitter.branch(objects, outcomes, prefix, force)
            complete = True
            if to_stdout and form == "mbox" and sum(one.result is Result.PATCHED for one in outcomes) > 1:
                click.echo("Each patch is for its own branch, not all for one git am: -o DIR writes files", err=True)
        except BrokenPipeError:  # the reader had enough, as `head -1` has
            outcomes, targets = [], []
            raise
        finally:
            if len(outcomes) < len(targets):
                click.echo(f"Not finished. Done are {len(outcomes)} of {len(targets)}:", err=True)
            _explain(outcomes, reverse)
            if outcomes and not (as_json and complete):
                _summary(outcomes, err=to_stdout or not complete or (pr_body and not folder))
    body = ""
    if pr_body:
        options = [] if recipe_name == "docker-build-cache" else ["--recipe", recipe_name]
        options += [word for setting in settings for word in ("--set", setting)]
        options += [word for folder in folders for word in ("--recipes", folder.name)]  # not a path of this machine
        contract = pipeline.contract(recipe)
        body = pull_request.body(
            outcomes, emitter.files, emitter.created, github_pull, options, contract, reverse=reverse
        )
        if folder:
            write_beside(folder / _BODY, body.encode("utf8", "surrogateescape"))
        elif not as_json:
            click.echo(body.encode("utf8", "surrogateescape"), nl=False)
    page = review_page(outcomes, recipe, values, trailers, reverse=reverse) if form == "html" else b""
    if page and folder:
        write_beside(folder / _PAGE, page)
    elif to_stdout:
        click.echo(page, nl=False)
    status = core.status(outcomes)
    if as_json:
        data: dict[str, Any] = {"recipe": recipe.name, "options": values, "status": status}
        data["branches"] = [
            pull_request.data(outcome, **emitter.places(outcome.target.name, patch=not folder)) for outcome in outcomes
        ]
        data |= {"pull_request": body} if pr_body else {}
        data |= {"page": page.decode("utf8")} if page and not folder else {}
        click.echo(json.dumps(data, indent=2))
    else:
        beside = {_BODY: body, _PAGE: page} if folder else {}
        written = [*emitter.files.values(), *(name for name, content in beside.items() if content)]
        for path in written:
            click.echo(f"{folder}/{path}", err=pr_body and not folder)
        for branch in emitter.created.values():
            click.echo(f"branch {branch}", err=pr_body and not folder)
    return status


def _explain(outcomes: Sequence[Outcome], reverse: bool) -> None:
    """What stands behind the short words of the summary: errors, failed reviews, nothing to do."""
    for outcome in outcomes:
        name = outcome.target.name
        if outcome.result is Result.SKIPPED and len(outcomes) > 1:
            continue  # the table says it all
        if outcome.error:
            error = outcome.error
            shown = CiPatcherError(error.what, where=f"{name}: {error.where}" if error.where else name, hint=error.hint)
            show(shown)
        elif outcome.change and outcome.result is Result.NOTHING:
            click.echo(f"{name}: {report.nothing(outcome.change, reverse)}", err=True)
        elif outcome.change and outcome.result is Result.FAILED:
            why = "the review failed" if outcome.change.broken else "--strict: not all was run"
            click.echo(f"{name}: {why}, so there is no patch:", err=True)
            for line in report.text(outcome.change).splitlines():
                click.echo(f"  {line}", err=True)


def _summary(outcomes: Sequence[Outcome], err: bool) -> None:
    """The table: rich's on a terminal, else aligned text that is Markdown as well."""
    rows = [pull_request.row(outcome) for outcome in outcomes]
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        click.echo(pull_request.table(rows), err=err, nl=False)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colors = {Result.PATCHED: "green", Result.FAILED: "red", Result.ERROR: "red"}
    table = Table()
    for column in pull_request.COLUMNS:
        table.add_column(column, overflow="fold")
    for outcome, cells in zip(outcomes, rows, strict=True):
        # Text, since a branch's name may look like rich's markup. What an error says stands above already.
        result = Text(str(outcome.result), colors.get(outcome.result, "yellow"))
        table.add_row(*(Text(cell) for cell in cells[:-1]), result)
    Console(file=stream).print(table)


@contextmanager
def _progress(targets: Sequence[Target]) -> Iterator[Callable[[], None]]:
    """A bar over the branches while the context lasts, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    waiting = iter([*(escape(target.name) for target in targets[1:]), "done"])
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(targets[0].name), total=len(targets))
        yield lambda: bar.update(task, advance=1, description=next(waiting))


backport = decorated(
    _backport,
    [
        click.command("backport"),
        click.argument("names", nargs=-1, metavar="[BRANCH]..."),
        click.option(
            "--repo", type=click.Path(path_type=Path), default=Path(), help="The clone; else the folder here."
        ),
        *RECIPE,
        emits,
        click.option("--branch", "prefix", metavar="PREFIX", help="Create PREFIX25.x and so on in the clone."),
        click.option("--force", is_flag=True, help="Let --branch move branches that exist."),
        click.option("--pr-body", is_flag=True, help=f"The pull request's text: {_BODY} below -o, else on stdout."),
        click.option("--json", "as_json", is_flag=True, help="The summary, and without -o the patches, as JSON."),
    ],
)
