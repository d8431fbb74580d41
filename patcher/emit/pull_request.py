"""What came of all revisions together: the summary as a table and as data, and the text of the pull request."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from patcher.emit import git, report
from patcher.model import Edit, Outcome, Patch, Plan, Result, Script, State, Verdict

COLUMNS = ("Branch", "Before", "Build", "Lines", "Review", "Result")


def row(outcome: Outcome) -> tuple[str, ...]:
    """One line of the summary, in the order of ``COLUMNS``."""
    target = outcome.target
    name = target.name if target.revision == target.name else f"{target.name} ({target.revision})"
    done = outcome.change
    if done is None:
        return name, "", "", "", "", f"{outcome.result}: {outcome.error}"
    if not done.pairs:
        return name, _before(done), done.plan.where, "", "", str(outcome.result)
    return name, _before(done), done.plan.where, lines(done), review(done), str(outcome.result)


def _before(done: Patch) -> str:
    return f"{done.plan.state}" + (f" ({done.plan.foreign.name})" if done.plan.foreign else "")


def lines(done: Patch) -> str:
    """How many lines are added and taken out: ``+35 -1``."""
    counts = [_count(old, new) for old, new in done.pairs]
    return f"+{sum(added for added, _ in counts)} -{sum(gone for _, gone in counts)}"


def _count(old: Script, new: Script) -> tuple[int, int]:
    before, after = old.text.splitlines(), new.text.splitlines()
    changed = [
        (j2 - j1, i2 - i1)
        for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        if tag != "equal"
    ]
    return sum(added for added, _ in changed), sum(gone for _, gone in changed)


def review(done: Patch) -> str:
    """The review in a word or two."""
    if done.broken:
        return f"{len(done.broken)} of {len(done.findings)} broken"
    held = sum(finding.verdict is Verdict.HELD for finding in done.findings)
    missing = [*dict.fromkeys(finding.check for finding in done.not_run)]
    if done.notes:
        missing.append("linters, scenarios")
    return f"{held} held" + (
        f"; not run: {', '.join(missing) if len(missing) < 4 else len(missing)}" if missing else ""
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """An aligned table that is Markdown as well, so that it can be pasted into the pull request."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in (COLUMNS, *rows)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(COLUMNS))]
    cells.insert(1, ["-" * width for width in widths])
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in cells
    )


def data(outcome: Outcome, **extra: str) -> dict[str, Any]:
    """An outcome as data. ``extra`` says where the patch is."""
    target, error = outcome.target, outcome.error
    found: dict[str, Any] = {
        "branch": target.name,
        "revision": target.revision,
        "commit": target.commit.name if target.commit else None,
        "result": str(outcome.result),
    }
    if error:
        found["error"] = {"status": error.status, "where": error.where, "what": error.what, "hint": error.hint}
    return found | (report.data(outcome.change) if outcome.change else {}) | extra


def body(
    outcomes: Sequence[Outcome],
    files: Mapping[str, str],
    created: Mapping[str, str],
    pulls: Sequence[str],
    options: Sequence[str],
    contract: Mapping[int, str],
    *,
    reverse: bool = False,
) -> str:
    """The pull request's text. ``files`` are the patches by branch, ``created`` the branches that hold them,
    ``pulls`` the numbers that the change was made under before (``#31545``), ``options`` those of the recipe that a
    reader needs to get the same patches, ``contract`` the rows that the review speaks of."""
    done = [outcome for outcome in outcomes if outcome.change and outcome.result is Result.PATCHED]
    if not done:
        return "No branch needs a patch.\n\n" + table([row(outcome) for outcome in outcomes])
    first = next(outcome.change for outcome in done if outcome.change)
    recipe = first.recipe
    names = [outcome.target.name for outcome in done]
    text = [
        git.message(recipe, first.values, reverse=reverse).split("\n\n", 1)[1].rstrip("\n"),
        f"Backport of {_list(pulls)} to {_list(names)}." if pulls else f"For {_list(names)}.",
        "### What was found and done\n\n" + table([row(outcome) for outcome in outcomes]).rstrip("\n"),
        "### How the branches differ\n\n" + "\n".join(_differences(done, reverse)),
        _reviews(done, contract),
        "### How to check\n\n" + _commands(done, files, created, options, reverse),
    ]
    notes = recipe.advice.get("patch", ())
    if notes and not reverse:
        text.append("### Notes for reviewers\n\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(text) + "\n"


def _list(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _differences(done: Sequence[Outcome], reverse: bool) -> list[str]:
    """Which branches get the same block, how the line of the build changes, and what is taken out first."""
    if reverse:
        return ["The block is taken out again."]
    blocks: dict[tuple[str, ...], list[str]] = {}
    builds: dict[tuple[tuple[str, str], ...], list[str]] = {}
    gone: dict[str, list[str]] = {}
    for name, change in ((outcome.target.name, outcome.change) for outcome in done):
        assert change is not None
        found = change.plan
        if found.state is State.OLDER:
            gone.setdefault(f"the block that is there is brought up to date, {lines(change)}", []).append(name)
            continue
        block = "".join(edit.text for edit in found.edits if edit.reason == "the block")
        if block:
            blocks.setdefault(tuple(line.strip() for line in block.strip().splitlines()), []).append(name)
        build = tuple(_build(found))
        if build:
            builds.setdefault(build, []).append(name)
        if found.foreign:
            count = _count(found.script, found.reference)[1]
            gone.setdefault(f"{count} lines of {found.foreign.name} are taken out first", []).append(name)
    items = [
        f"- {_list(names)}: {'the same ' if names[1:] else ''}{len(block)} lines of block"
        for block, names in blocks.items()
    ]
    for pairs, names in builds.items():
        items += [f"- {_list(names)}: {_code(before)} becomes {_code(after)}" for before, after in pairs]
    items += [f"- {_list(names)}: {what}" for what, names in gone.items()]
    return items


def _build(found: Plan) -> list[tuple[str, str]]:
    """The build's lines before and after."""
    text = found.reference.text
    by_line: dict[int, list[Edit]] = {}
    for edit in found.edits:
        if edit.reason == "the build" and "\n" not in edit.text:
            by_line.setdefault(text.rfind("\n", 0, edit.start) + 1, []).append(edit)
    changed: list[tuple[str, str]] = []
    for start, edits in sorted(by_line.items()):
        before = text[start:].split("\n", 1)[0]
        moved = [replace(edit, start=edit.start - start, end=edit.end - start) for edit in edits]
        changed.append((before.strip(), Script("", before).edited(moved).text.strip()))
    return changed


def _code(line: str) -> str:
    fence = "``" if "`" in line else "`"
    return f"{fence}{line}{fence}"


def _reviews(done: Sequence[Outcome], contract: Mapping[int, str]) -> str:
    """What was checked, and what was not, for the branches on which it is the same."""
    by_review: dict[tuple[str, ...], list[str]] = {}
    for outcome in done:
        assert outcome.change is not None
        found = report.summary(outcome.change)[2:]
        by_review.setdefault(tuple(found), []).append(outcome.target.name)
    parts = ["### What the review showed"]
    for review_lines, names in by_review.items():
        parts.append(f"{_list(names)}:\n\n" + "\n".join(f"- {line}" for line in review_lines))
    if contract and any(finding.row for one in done if one.change for finding in one.change.findings):
        rows = "\n".join(f"{number}. {about}" for number, about in contract.items())
        parts.append(f"<details><summary>The rows of the contract</summary>\n\n{rows}\n\n</details>")
    return "\n\n".join(parts)


def _commands(
    done: Sequence[Outcome],
    files: Mapping[str, str],
    created: Mapping[str, str],
    options: Sequence[str],
    reverse: bool,
) -> str:
    words = "".join(f" {shlex.quote(word)}" for word in options)
    branches = " ".join(shlex.quote(one.target.name) for one in done)
    shown = [f"ci-patcher backport --repo .{words}{' --reverse' if reverse else ''} {branches} -o out"]
    verify = "" if reverse else f" && ci-patcher verify{words}"
    for one in done:
        revision = shlex.quote(one.target.revision)
        if one.target.name in created:
            shown.append(f"git switch --detach {shlex.quote(created[one.target.name])}{verify}")
            continue
        patch = f"out/{files[one.target.name]}" if one.target.name in files else f"out/{one.target.label}/*.patch"
        shown.append(f"git switch --detach {revision} && git am {patch}{verify}")
    return (
        "With ci-patcher, the first line makes and reviews the patches again. Each of the others "
        + (f"{'takes' if created else 'applies'} one")
        + ("" if reverse else " and runs the scenarios of the contract on the result")
        + ".\n\n```sh\n"
        + "\n".join(shown)
        + "\n```"
    )
