"""``ci-patcher backport``: the same change for every release branch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from patcher import backport as core
from patcher import pipeline, sources
from patcher import recipe as recipes
from patcher.cli import show
from patcher.cli.options import RECIPE, Wanted, emits, takes_a_recipe, write
from patcher.cli.terminal import counter, say, write_out
from patcher.emit import branches, pull_request, report
from patcher.errors import CiPatcherError, UsageError
from patcher.model import Outcome, Recipe, Result, Target
from patcher.sources import Objects

# The files below -o, by their names in the data of --json.
_FILES = {"pull_request": "pull-request.md", "page": "review.html"}


@dataclass(slots=True)
class _Call:
    """One call: what is wanted, and what came of it so far.

    ``places`` says where each patch is, by the branch's name: ``patch_file``, ``created`` or the ``patch`` itself.
    """

    recipe: Recipe
    values: Mapping[str, str]
    wanted: Wanted
    to_stdout: bool
    outcomes: list[Outcome] = field(default_factory=list)
    places: dict[str, dict[str, str]] = field(default_factory=dict)

    def run(self, objects: Objects, targets: Sequence[Target], prefix: str | None, force: bool) -> None:
        """Make, review and emit the patches, and create the branches. Where that ends early, report what is done."""
        wanted, count = self.wanted, counter("branches")
        options = {"reverse": wanted.reverse, "verify": not wanted.no_verify, "strict": wanted.strict}
        try:
            with closing(core.run(objects, targets, self.recipe, self.values, **options)) as work:
                for outcome in work:
                    self.outcomes.append(self._emitted(outcome))
                    count(len(self.outcomes), len(targets))
            if prefix:
                self._create_branches(objects, prefix, force)
        except BrokenPipeError:  # the reader stopped, as `head -1` does
            raise
        except BaseException:
            if len(self.outcomes) < len(targets):
                say(f"Not finished. Done are {len(self.outcomes)} of {len(targets)}:", err=True)
            self.report(err=True)
            raise

    def _dated(self, outcome: Outcome) -> Wanted:
        """What is wanted, with a date: where none is known, that of the commit for which the patch is made."""
        commit = outcome.target.commit
        return replace(self.wanted, date=self.wanted.date or (commit.date if commit else ""))

    def _emitted(self, outcome: Outcome) -> Outcome:
        """Emit the patch of an outcome, if it has one. Where git makes no patch of it, that becomes its error."""
        if outcome.change is None or outcome.result is not Result.PATCHED or self.wanted.form == "html":
            return outcome
        try:
            patch = self._dated(outcome).emitted(outcome.change)
        except CiPatcherError as error:
            return Outcome(outcome.target, error=error)
        place: dict[str, str] = {}
        if self.wanted.output:
            place["patch_file"] = f"{outcome.target.label}/{self.wanted.file_name(self.recipe)}"
            write(self.wanted.output / place["patch_file"], patch)
        elif self.to_stdout:
            write_out(patch, paged=False)
        else:
            place["patch"] = patch.decode("utf8", "replace")
        self.places[outcome.target.name] = place
        return outcome

    def _create_branches(self, objects: Objects, prefix: str, force: bool) -> None:
        """Create the branches, all or none. Where no commit can be made of an outcome, that becomes its error."""
        commits = branches.Commits(objects)
        tips: dict[str, str] = {}
        for number, outcome in enumerate(self.outcomes):
            change, commit = outcome.change, outcome.target.commit
            if not change or not commit or outcome.result is not Result.PATCHED:
                continue
            name, wanted = prefix + outcome.target.label, self._dated(outcome)
            message = wanted.message(change.recipe, change.values, change)
            try:
                tips[name] = commits.add(commit, change.pairs, message, wanted.author, wanted.date)
            except CiPatcherError as error:
                self.outcomes[number] = Outcome(outcome.target, error=error)
            else:
                self.places.setdefault(outcome.target.name, {})["created"] = name
        branches.create(commits, tips, force)

    def report(self, *, err: bool) -> None:
        """Print the errors, failed reviews and reasons behind the short words of the summary, then the summary."""
        for outcome in self.outcomes:
            name, error, done = outcome.target.name, outcome.error, outcome.change
            if error:
                where = f"{name}: {error.where}" if error.where else name
                show(CiPatcherError(error.what, where=where, hint=error.hint))
            elif done and outcome.result is Result.NOTHING:
                say(f"{name}: {report.nothing(done, self.wanted.reverse)}", err=True)
            elif done and outcome.result is Result.FAILED:
                say(f"{name}: {report.failed(done)}, so there is no patch:", err=True)
                say("\n".join(f"  {line}" for line in report.review(done)), err=True)
        if self.outcomes:
            say(pull_request.table([pull_request.row(outcome) for outcome in self.outcomes]), err=err)

    def body(self) -> str:
        """The text of the pull request."""
        # The options with which a reader gets the same patches, without a path of this machine.
        again = [] if self.recipe.name == RECIPE else ["--recipe", self.recipe.name]
        for name, value in self.values.items():
            again += ["--set", f"{name}={value}"] if value != self.recipe.options[name].default else []
        folder = self.recipe.folder.parent
        again += [] if folder == recipes.bundled() else ["--recipes", folder.name]
        place, pulls = next(iter(self.places.values()), {}), self.wanted.github_pull
        contract = pipeline.contract(self.recipe)
        return pull_request.body(self.outcomes, place, pulls, again, contract, reverse=self.wanted.reverse)


@click.command()
@click.argument("names", nargs=-1, metavar="[BRANCH]...")
@click.option("--repo", type=click.Path(path_type=Path), default=Path(), help="The clone (default: this folder).")
@takes_a_recipe
@emits
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
    prefix: str | None,
    force: bool,
    pr_body: bool,
    as_json: bool,
) -> int:
    """Emit one reviewed patch for each BRANCH: a branch, a glob ('*.x'), a tag or another revision of a clone.

    Without BRANCH, all release branches (N.x) and the default branch. A local branch is preferred to a remote's of
    the same name, upstream's to origin's. Nothing is fetched, checked out or changed.

    The patches go into one folder per branch below -o, else to stdout as one mbox, one message per branch
    (`git mailsplit` splits it). --format html is one page for all branches, review.html below -o. The summary goes
    to stdout, or to stderr where stdout has something else.

    \b
    Examples:
      ci-patcher backport --repo ~/bitcoin 28.x 29.x -o out --github-pull '#31545' --pr-body
      ci-patcher backport --repo ~/bitcoin --format html > review.html
    """
    if prefix == "":
        raise UsageError("--branch needs a prefix", hint="For example: --branch docker-cache-")
    if force and not prefix:
        raise UsageError("--force is for --branch")
    to_stdout = not (wanted.output or prefix or pr_body or as_json)
    busy = to_stdout or as_json or (pr_body and not wanted.output)
    with Objects(repo) as objects:
        author = wanted.author or sources.author_of(repo)
        if prefix and not author:
            raise UsageError("--branch needs an author", hint="Give --author, or set user.name and user.email in git.")
        wanted = wanted.known(author, wanted.date or sources.set_date(), dated=True)
        if wanted.note:
            say(wanted.note, err=True)
        sources.known_commits(objects, wanted.rebased_from)
        targets = core.select(objects, names)
        if to_stdout and wanted.form == "diff" and len(targets) > 1:
            raise UsageError("on stdout the diffs of several branches cannot be told apart", hint="Give -o DIR.")
        if wanted.form == "html" and not (to_stdout or as_json or wanted.output):
            raise UsageError("the page has no place to go: stdout has something else", hint="Give -o DIR.")
        call = _Call(recipe, values, wanted, to_stdout)
        call.run(objects, targets, prefix, force)
    call.report(err=busy)
    if to_stdout and len(call.places) > 1:
        say("Each patch is for its own branch, not all for one git am: -o DIR writes files", err=True)
    texts = {"pull_request": call.body()} if pr_body else {}
    if wanted.form == "html":
        texts["page"] = wanted.page(call.outcomes, recipe, values).decode("utf8")
    written = [place["patch_file"] for place in call.places.values() if "patch_file" in place]
    for name, text in texts.items():
        if wanted.output:
            write(wanted.output / _FILES[name], text.encode("utf8"))
            written.append(_FILES[name])
        elif not as_json:
            write_out(text.encode("utf8"), paged=False)
    status = core.status(call.outcomes)
    if as_json:
        listed = [pull_request.data(one, call.places.get(one.target.name, {})) for one in call.outcomes]
        data = {"recipe": recipe.name, "options": dict(values), "status": status, "branches": listed}
        click.echo(json.dumps(data | texts, indent=2))
    for file in written:
        say(f"{wanted.output}/{file}", err=busy)
    for place in call.places.values() if prefix else ():
        say(f"branch {place['created']}", err=busy)
    return status
