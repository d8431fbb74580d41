"""The outcomes of many revisions: the summary as a table and as data, and the text of the pull request."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from patcher.emit import git, report
from patcher.emit.text import code, fenced, joined
from patcher.lines import count, hunks, split
from patcher.model import Outcome, Patch, Result, State, Target, Verdict

T = TypeVar("T")

COLUMNS = ("Branch", "Before", "Build", "Lines", "Review", "Result")


def row(outcome: Outcome, quote: Callable[[str], str] = str) -> tuple[str, ...]:
    """One line of the summary, in the order of ``COLUMNS``. ``quote`` is applied to text of others."""
    target, done, error = outcome.target, outcome.change, outcome.error
    name = quote(target.name) + ("" if target.revision == target.name else f" ({quote(target.revision)})")
    if done is None:
        why = str(State.NO_BUILD) if outcome.result is Result.SKIPPED else quote(str(error))
        return name, "", "", "", "", f"{outcome.result}: {why}"
    lines = report.lines(done) if done.pairs else ""
    review = _review(done) if done.pairs and outcome.result is not Result.NEEDED else ""
    return name, report.state(done.plan), quote(done.plan.where), lines, review, report.label(outcome)


def _review(done: Patch) -> str:
    """The review in a few words."""
    if done.broken:
        return f"{len(done.broken)} of {len(done.findings)} broken"
    held = sum(finding.verdict is Verdict.HELD for finding in done.findings)
    missing = [*dict.fromkeys(finding.check for finding in done.not_run)]
    missing += ["linters, scenarios"] if done.notes else []
    shown = ", ".join(missing) if len(missing) < 4 else len(missing)
    return f"{held} held" + (f"; not run: {shown}" if missing else "")


def table(rows: Sequence[Sequence[str]]) -> str:
    """An aligned table, which is Markdown as well."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in (COLUMNS, *rows)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(COLUMNS))]
    cells.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def data(outcome: Outcome) -> dict[str, Any]:
    """An outcome as data."""
    target, error = outcome.target, outcome.error
    made: dict[str, Any] = {
        "branch": target.name,
        "revision": target.revision,
        "commit": target.commit.name if target.commit else None,
        "result": report.label(outcome),
    }
    if error:
        made["error"] = {"status": error.status, "where": error.where, "what": error.what, "hint": error.hint}
    return made | (report.data(outcome.change) if outcome.change else {}) | dict(outcome.place)


def body(
    outcomes: Sequence[Outcome], pulls: Sequence[str], default: str, options: Sequence[str], contract: Mapping[int, str]
) -> str:
    """The text of the pull request, in Markdown.

    ``pulls`` are what is backported (``#31545``), to all branches but the ``default`` one. ``options`` are those with
    which a reader gets the same patches, ``contract`` has the rows that the review names.
    """
    summary = table([row(outcome, code) for outcome in outcomes])
    patched = [outcome for outcome in outcomes if outcome.result is Result.PATCHED]
    done = [(outcome.target, outcome.change) for outcome in patched if outcome.change]
    if not done:
        return f"No branch needs a patch.\n\n{summary}\n"
    first = done[0][1]
    recipe, reverse = first.recipe, first.reverse
    backports = [code(target.name) for target, _ in done if pulls and target.name != default]
    others = [code(target.name) for target, _ in done if code(target.name) not in backports]
    about = [f"Backport of {joined(pulls)} to {joined(backports)}."] if backports else []
    about += [f"For {joined(others)}."] if others else []
    message = git.message(recipe, first.values, reverse=reverse).partition("\n\n")[2].strip()
    differences = _shared((target, said) for target, change in done for said in _differences(change))
    reviews = _shared((target, tuple(report.checks(change, code))) for target, change in done)
    parts = [
        re.sub(r"(?<=\S)\n(?=\S)", " ", message),
        " ".join(about),
        f"### What was found and done\n\n{summary}",
        "### How the branches differ\n\n" + "\n".join(f"- {who}: {said}" for (said, _), who in differences.items()),
        "### What the review showed",
        *(f"{who}:\n\n" + "\n".join(f"- {line}" for line in said) for said, who in reviews.items()),
    ]
    if contract and any(finding.row for _, change in done for finding in change.findings):
        titles = "\n".join(f"{number}. {title}" for number, title in contract.items())
        parts.append(f"<details><summary>The rows of the contract</summary>\n\n{titles}\n\n</details>")
    parts.append(_how_to_check(patched, options, reverse))
    by_hand = recipe.folder / "try.md"
    if by_hand.is_file() and not reverse:
        parts.append(f"### How to try it by hand\n\n{by_hand.read_text(encoding='utf8').strip()}")
    notes = recipe.advice.get("patch")
    if notes and not reverse:
        parts.append("### Notes for reviewers\n\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _shared(pairs: Iterable[tuple[Target, T]]) -> dict[T, str]:
    """Everything that is said of a branch, each once, with the names of all branches of which it is said."""
    names: dict[T, list[str]] = {}
    for target, said in pairs:
        names.setdefault(said, []).append(code(target.name))
    return {said: joined(of) for said, of in names.items()}


def _differences(done: Patch) -> Iterator[tuple[str, object]]:
    """What is changed, as sentences. Beside each stands what two branches must share for it to be the same change."""
    plan = done.plan
    if done.reverse:
        yield "the block is removed", None
        return
    if plan.ours:
        yield f"the block that is there is brought up to date, {report.lines(done)}", None
        return
    changed = hunks(split(plan.reference.text), split(plan.result.text))
    # The lines of the block may stand directly before the line of the build.
    added = [line.strip() for hunk in changed for line in hunk.new[: len(hunk.new) - len(hunk.old)]]
    if added:
        yield f"{len(added)} lines are added", tuple(filter(None, added))
    for hunk in changed:
        for before, after in zip(hunk.old, hunk.new[-len(hunk.old) :], strict=False):
            yield f"{code(before.strip())} becomes {code(after.strip())}", None
    if plan.foreign:
        removed = count(plan.script.text, plan.reference.text)[1]
        yield f"{removed} lines of {plan.foreign.name} are removed first", None


def _how_to_check(patched: Sequence[Outcome], options: Sequence[str], reverse: bool) -> str:
    """The commands that make the patches again, and that try the first of them."""
    first, place = patched[0].target, patched[0].place
    words = "".join(f" {shlex.quote(word)}" for word in options)
    take = f"git switch --detach {shlex.quote(place.get('created', first.revision))}"
    if "created" not in place:
        take += f" && git am out/{place.get('patch_file', first.label + '/*.patch')}"
    branches = shlex.join(outcome.target.name for outcome in patched)
    commands = [
        f"ci-patcher backport --repo .{words}{' --reverse' if reverse else ''} {branches} -o out",
        take if reverse else f"{take} && ci-patcher verify{words}",
    ]
    about = "The first command makes and reviews the patches again. The second takes the first of them"
    about += "." if reverse else " and runs the scenarios of the contract on it."
    return f"### How to check\n\n{about}\n\n" + fenced("\n".join(commands), "sh")
