"""``ci-patcher backport``: the same change for every release branch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import click

from patcher import backport as core
from patcher import pipeline, sources
from patcher import recipe as recipes
from patcher.cli import show
from patcher.cli.options import RECIPE, Wanted, branch_names, emits, takes_a_recipe, write
from patcher.cli.terminal import counter, say, say_json, this_call, write_out
from patcher.emit import pull_request, report
from patcher.emit.branches import Branches
from patcher.errors import CiPatcherError, UsageError
from patcher.model import Outcome, Recipe, Result
from patcher.repository import Objects, known_commits
from patcher.revisions import default_branch, select

# The files below -o, by their names in the data of --json.
_FILES = {"pull_request": "pull-request.md", "page": "review.html"}


@click.command()
@click.argument("names", nargs=-1, metavar="[BRANCH]...", shell_complete=branch_names)
@click.option("--repo", type=click.Path(path_type=Path), default=Path(), help="The clone (default: this folder).")
@takes_a_recipe
@emits
@click.option("--check", is_flag=True, help="Emit nothing; exit 1 if any branch needs a patch.")
@click.option("--branch", "prefix", metavar="PREFIX", help="Create branches PREFIX25.x and so on in the clone.")
@click.option("--force", is_flag=True, help="Let --branch move branches that exist.")
@click.option("--pr-body", is_flag=True, help="The pull request's text: pull-request.md below -o, else on stdout.")
@click.option("--json", "as_json", is_flag=True, help="The summary, and without -o the patches, as JSON.")
def backport(
    names: Sequence[str],
    repo: Path,
    recipe: Recipe,
    values: Mapping[str, str],
    wanted: Wanted,
    check: bool,
    prefix: str | None,
    force: bool,
    pr_body: bool,
    as_json: bool,
) -> int:
    """Emit one reviewed patch for each BRANCH: a branch, a glob ('*.x'), a tag or another revision of a clone.

    Without BRANCH, the default branch and all release branches (29.x, v29.1, release-28 and the like) with an image
    build. A local branch is preferred to a remote's of the same name, upstream's to origin's. Nothing is fetched,
    checked out or changed.

    The patches go into one folder per branch below -o, else to stdout as one mbox, one message per branch
    (`git mailsplit` splits it). --format html is one page for all branches, review.html below -o. The summary goes
    to stdout, or to stderr where stdout has something else.

    \b
    Examples:
      ci-patcher backport --repo ~/bitcoin 28.x 29.x -o out --github-pull 31545 --pr-body
      ci-patcher backport --repo ~/bitcoin --format html > review.html
    """
    to_stdout = not (wanted.output or prefix or pr_body or as_json or check)
    busy = to_stdout or as_json or (pr_body and not wanted.output)
    with Objects(repo) as objects:
        wanted = _checked(objects, wanted, check, prefix, force, pr_body)
        if wanted.form == "html" and not (to_stdout or as_json or wanted.output):
            raise UsageError("the page has no place to go: stdout has something else", hint="Give -o DIR.")
        targets, left_out = select(objects, names, recipe)
        if left_out:
            say(left_out, err=True)
        if to_stdout and wanted.form == "diff" and len(targets) > 1:
            raise UsageError("on stdout the diffs of several branches cannot be told apart", hint="Give -o DIR.")
        options = {"reverse": wanted.reverse, "verify": not wanted.no_verify, "strict": wanted.strict, "check": check}
        with _reported(len(targets)) as outcomes:
            with closing(core.run(objects, targets, recipe, values, **options)) as work:
                _emit(work, outcomes, len(targets), wanted, to_stdout)
            if prefix:
                branches = Branches(objects, prefix, wanted.message, wanted.author, wanted.date)
                outcomes[:] = [branches.add(outcome) for outcome in outcomes]
                branches.create(force)
        texts: dict[str, str] = {}
        if pr_body:
            about = (wanted.github_pull, default_branch(objects), _again(recipe, values), pipeline.contract(recipe))
            texts["pull_request"] = pull_request.body(outcomes, *about)
        if wanted.form == "html" and not check:
            texts["page"] = wanted.page(outcomes, recipe, values).decode("utf8")
    _report(outcomes, err=busy)
    if to_stdout and not texts and sum(outcome.result is Result.PATCHED for outcome in outcomes) > 1:
        say("Each patch is for its own branch, not all for one git am: -o DIR writes files", err=True)
    written = _write_texts(texts, wanted.output, as_json)
    if as_json:
        data = {"recipe": recipe.name, "options": dict(values), "status": core.status(outcomes)}
        say_json(data | {"branches": [pull_request.data(outcome) for outcome in outcomes]} | texts)
    _say_places(outcomes, written, wanted.output, err=busy)
    if any(outcome.result is Result.NEEDED for outcome in outcomes):
        say(f"Next: {this_call('--check')}", err=True)
    return core.status(outcomes)


def _checked(objects: Objects, wanted: Wanted, check: bool, prefix: str | None, force: bool, pr_body: bool) -> Wanted:
    """What is wanted, with the author that git knows.

    Raises UsageError where options do not go together, or an author is needed.
    """
    if prefix == "":
        raise UsageError("--branch needs a prefix", hint="For example: --branch docker-cache-")
    if force and not prefix:
        raise UsageError("--force is for --branch")
    if check and (wanted.output or prefix or pr_body):
        raise UsageError("--check emits nothing", hint="Leave out -o, --branch and --pr-body.")
    author = wanted.author or sources.author_of(objects.repository)
    if prefix and not author:
        raise UsageError("--branch needs an author", hint="Give --author, or set user.name and user.email in git.")
    wanted = wanted.known(author, wanted.date or sources.set_date(), dated=True)
    if wanted.note and not check:
        say(wanted.note, err=True)
    known_commits(objects, wanted.rebased_from)
    return wanted


@contextmanager
def _reported(of: int) -> Iterator[list[Outcome]]:
    """A list for the outcomes, which are reported where the work on them ends early."""
    outcomes: list[Outcome] = []
    try:
        yield outcomes
    except BrokenPipeError:  # the reader stopped, as `head -1` does
        raise
    except BaseException:
        if len(outcomes) < of:
            say(f"Not finished. Done are {len(outcomes)} of {of}:", err=True)
        _report(outcomes, err=True)
        raise


def _emit(work: Iterable[Outcome], outcomes: list[Outcome], of: int, wanted: Wanted, to_stdout: bool) -> None:
    """Emit the patches as they are made, and add their outcomes to the list."""
    count = counter("branches")
    for outcome in work:
        outcomes.append(_emitted(outcome, wanted, to_stdout))
        if not to_stdout:
            count(len(outcomes), of)


def _emitted(outcome: Outcome, wanted: Wanted, to_stdout: bool) -> Outcome:
    """The outcome with the place of its patch. Where git makes no patch of it, that becomes its error."""
    if outcome.change is None or outcome.result is not Result.PATCHED or wanted.form == "html":
        return outcome
    base = outcome.target.commit
    try:
        patch = replace(wanted, date=wanted.date or (base.date if base else "")).emitted(outcome.change)
    except CiPatcherError as error:
        return Outcome(outcome.target, error=error)
    if to_stdout:
        write_out(patch, paged=False)
        return outcome
    if not wanted.output:
        return replace(outcome, place={"patch": patch.decode("utf8", "replace")})
    file = f"{outcome.target.label}/{wanted.file_name(outcome.change.recipe)}"
    write(wanted.output / file, patch)
    return replace(outcome, place={"patch_file": file})


def _report(outcomes: Sequence[Outcome], *, err: bool) -> None:
    """Print the errors, failed reviews and reasons behind the short words of the summary, then the summary."""
    for outcome in outcomes:
        name, error, done = outcome.target.name, outcome.error, outcome.change
        if outcome.result is Result.SKIPPED and outcomes[1:]:
            continue  # the summary says why
        if error:
            where = f"{name}: {error.where}" if error.where else name
            show(CiPatcherError(error.what, where=where, hint=error.hint))
        elif done and outcome.result is Result.NOTHING:
            say(f"{name}: {report.nothing(done)}", err=True)
        elif done and outcome.result is Result.FAILED:
            say(f"{name}: {report.failed(done)}, so there is no patch:", err=True)
            say("\n".join(f"  {line}" for line in report.review(done)), err=True)
    if outcomes:
        say(pull_request.table([pull_request.row(outcome) for outcome in outcomes]), err=err)


def _write_texts(texts: Mapping[str, str], output: Path | None, as_json: bool) -> list[str]:
    """Emit the texts for all branches together, which are in the JSON else. The names of the files below -o."""
    for name, text in texts.items():
        if output:
            write(output / _FILES[name], text.encode("utf8"))
        elif not as_json:
            write_out(text.encode("utf8"), paged=False)
    return [_FILES[name] for name in texts] if output else []


def _say_places(outcomes: Sequence[Outcome], written: Sequence[str], output: Path | None, *, err: bool) -> None:
    """Print which files and branches were made."""
    patches = [outcome.place["patch_file"] for outcome in outcomes if "patch_file" in outcome.place]
    for file in [*patches, *written]:
        say(f"{output}/{file}", err=err)
    for outcome in outcomes:
        if "created" in outcome.place:
            say(f"branch {outcome.place['created']}", err=err)


def _again(recipe: Recipe, values: Mapping[str, str]) -> list[str]:
    """The options with which a reader gets the same patches, without a path of this machine."""
    again = [] if recipe.name == RECIPE else ["--recipe", recipe.name]
    for name, value in values.items():
        again += ["--set", f"{name}={value}"] if value != recipe.options[name].default else []
    folder = recipe.folder.parent
    return again + ([] if folder == recipes.bundled() else ["--recipes", folder.name])
