"""``ci-patcher backport``: the same change for every release branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from patcher import backport as core
from patcher import pipeline, sources
from patcher import recipe as recipes
from patcher.cli import show
from patcher.cli.options import RECIPE, Wanted, branch_names, emits, takes_a_recipe, write
from patcher.cli.terminal import counter, say, say_json, this_call, write_out
from patcher.emit import branches, pull_request, report
from patcher.errors import CiPatcherError, UsageError
from patcher.model import Outcome, Recipe, Result, Target
from patcher.revisions import default_branch
from patcher.sources import Objects

# The files below -o, by their names in the data of --json.
_FILES = {"pull_request": "pull-request.md", "page": "review.html"}


@dataclass(slots=True)
class _Call:
    """One call: its options, and what came of it so far.

    ``places`` says where each patch is, by the branch's name: ``patch_file``, ``created`` or the ``patch`` itself.
    """

    recipe: Recipe
    values: Mapping[str, str]
    wanted: Wanted
    check: bool
    prefix: str | None
    force: bool
    pr_body: bool
    as_json: bool
    outcomes: list[Outcome] = field(default_factory=list)
    places: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def to_stdout(self) -> bool:
        """Whether the patches go to standard output."""
        return not (self.wanted.output or self.prefix or self.pr_body or self.as_json or self.check)

    def prepare(self, objects: Objects) -> None:
        """Find out the author. Raises UsageError where options do not go together, or an author is needed."""
        if self.prefix == "":
            raise UsageError("--branch needs a prefix", hint="For example: --branch docker-cache-")
        if self.force and not self.prefix:
            raise UsageError("--force is for --branch")
        if self.check and (self.wanted.output or self.prefix or self.pr_body):
            raise UsageError("--check emits nothing", hint="Leave out -o, --branch and --pr-body.")
        if self.wanted.form == "html" and not (self.to_stdout or self.as_json or self.wanted.output):
            raise UsageError("the page has no place to go: stdout has something else", hint="Give -o DIR.")
        author = self.wanted.author or sources.author_of(objects.repository)
        if self.prefix and not author:
            raise UsageError("--branch needs an author", hint="Give --author, or set user.name and user.email in git.")
        self.wanted = self.wanted.known(author, self.wanted.date or sources.set_date(), dated=True)
        if self.wanted.note and not self.check:
            say(self.wanted.note, err=True)
        sources.known_commits(objects, self.wanted.rebased_from)

    def run(self, objects: Objects, targets: Sequence[Target]) -> None:
        """Make, review and emit the patches, and create the branches. Where that ends early, report what is done."""
        if self.to_stdout and self.wanted.form == "diff" and len(targets) > 1:
            raise UsageError("on stdout the diffs of several branches cannot be told apart", hint="Give -o DIR.")
        options = {"reverse": self.wanted.reverse, "verify": not self.wanted.no_verify, "strict": self.wanted.strict}
        count = counter("branches")
        try:
            work = core.run(objects, targets, self.recipe, self.values, check=self.check, **options)
            with closing(work):
                for outcome in work:
                    self.outcomes.append(self._emitted(outcome))
                    if not self.to_stdout:
                        count(len(self.outcomes), len(targets))
            if self.prefix:
                self._create_branches(objects, self.prefix)
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

    def _create_branches(self, objects: Objects, prefix: str) -> None:
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
        branches.create(commits, tips, self.force)

    def report(self, *, err: bool) -> None:
        """Print the errors, failed reviews and reasons behind the short words of the summary, then the summary."""
        for outcome in self.outcomes:
            name, error, done = outcome.target.name, outcome.error, outcome.change
            if outcome.result is Result.SKIPPED and self.outcomes[1:]:
                continue  # the summary says why
            if error:
                where = f"{name}: {error.where}" if error.where else name
                show(CiPatcherError(error.what, where=where, hint=error.hint))
            elif done and outcome.result is Result.NOTHING:
                say(f"{name}: {report.nothing(done, self.wanted.reverse)}", err=True)
            elif done and outcome.result is Result.FAILED:
                say(f"{name}: {report.failed(done)}, so there is no patch:", err=True)
                say("\n".join(f"  {line}" for line in report.review(done)), err=True)
        if self.outcomes:
            rows = [pull_request.row(outcome, reverse=self.wanted.reverse) for outcome in self.outcomes]
            say(pull_request.table(rows), err=err)

    def texts(self, default: str) -> dict[str, str]:
        """The texts for all branches together, by their names in ``_FILES``. ``default`` is the default branch."""
        texts: dict[str, str] = {}
        if self.pr_body:
            # The options with which a reader gets the same patches, without a path of this machine.
            again = [] if self.recipe.name == RECIPE else ["--recipe", self.recipe.name]
            for name, value in self.values.items():
                again += ["--set", f"{name}={value}"] if value != self.recipe.options[name].default else []
            folder = self.recipe.folder.parent
            again += [] if folder == recipes.bundled() else ["--recipes", folder.name]
            place, contract = next(iter(self.places.values()), {}), pipeline.contract(self.recipe)
            about = (self.outcomes, place, self.wanted.github_pull, default, again, contract)
            texts["pull_request"] = pull_request.body(*about, reverse=self.wanted.reverse)
        if self.wanted.form == "html" and not self.check:
            texts["page"] = self.wanted.page(self.outcomes, self.recipe, self.values).decode("utf8")
        return texts

    def data(self) -> dict[str, object]:
        """The summary as data."""
        listed = [
            pull_request.data(outcome, self.places.get(outcome.target.name, {}), reverse=self.wanted.reverse)
            for outcome in self.outcomes
        ]
        about = {"recipe": self.recipe.name, "options": dict(self.values), "status": core.status(self.outcomes)}
        return about | {"branches": listed}


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
    call = _Call(recipe, values, wanted, check, prefix, force, pr_body, as_json)
    with Objects(repo) as objects:
        call.prepare(objects)
        targets, left_out = core.select(objects, names, recipe)
        if left_out:
            say(left_out, err=True)
        call.run(objects, targets)
        texts = call.texts(default_branch(objects))
    busy = call.to_stdout or as_json or (pr_body and not wanted.output)
    call.report(err=busy)
    if call.to_stdout and len(call.places) > 1:
        say("Each patch is for its own branch, not all for one git am: -o DIR writes files", err=True)
    for name, text in texts.items():
        if wanted.output:
            write(wanted.output / _FILES[name], text.encode("utf8"))
        elif not as_json:
            write_out(text.encode("utf8"), paged=False)
    if as_json:
        say_json(call.data() | texts)
    written = [place["patch_file"] for place in call.places.values() if "patch_file" in place]
    for file in [*written, *(_FILES[name] for name in texts)] if wanted.output else ():
        say(f"{wanted.output}/{file}", err=busy)
    for place in call.places.values() if prefix else ():
        say(f"branch {place['created']}", err=busy)
    if check and any(outcome.result is Result.NEEDED for outcome in call.outcomes):
        say(f"Next: {this_call('--check')}", err=True)
    return core.status(call.outcomes)
