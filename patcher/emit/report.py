"""One change and its review: as lines of text, in Markdown and as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from patcher.emit import git, text
from patcher.lines import count
from patcher.model import Finding, Outcome, Patch, Plan, Result, Verdict


def rows(findings: Sequence[Finding]) -> dict[int, Verdict]:
    """Each row of the contract with the worst verdict of its scenarios."""
    order = [Verdict.HELD, Verdict.NOT_RUN, Verdict.BROKEN]
    worst_last = sorted(findings, key=lambda finding: order.index(finding.verdict))
    return dict(sorted({finding.row: finding.verdict for finding in worst_last if finding.row}.items()))


def ranges(numbers: Sequence[int]) -> str:
    """``1-4, 6`` for 1, 2, 3, 4, 6."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if part[1:] else str(part[0]) for part in parts)


def state(plan: Plan) -> str:
    """What the script holds before the change."""
    return f"{plan.state} ({plan.foreign.name})" if plan.foreign else str(plan.state)


def label(outcome: Outcome) -> str:
    """What came of a revision, in a word or two."""
    removed = outcome.change and outcome.change.reverse and outcome.result is Result.PATCHED
    return "removed" if removed else str(outcome.result)


def lines(done: Patch) -> str:
    """How many lines are added and removed: ``+35 -1``."""
    counts = [count(old.text, new.text) for old, new in done.pairs]
    return f"+{sum(added for added, _ in counts)} -{sum(removed for _, removed in counts)}"


def summary(done: Patch, quote: Callable[[str], str] = str) -> list[str]:
    """What was there and what the review showed, as a few lines. ``quote`` is applied to text from the tree."""
    values = ", ".join(f"{name}={value}" for name, value in done.values.items())
    said = [
        f"ci-patcher: recipe {done.recipe.name}" + (f" ({values})" if values else ""),
        f"Before: {state(done.plan)}; build at {quote(done.plan.where)}",
    ]
    if done.source.revision:
        said.append(f"Base: {quote(done.source.name)}, commit {done.source.revision}")
    return said + checks(done, quote)


def checks(done: Patch, quote: Callable[[str], str] = str) -> list[str]:
    """What was checked and what was not, as a few lines."""
    static = [finding for finding in done.findings if not finding.row]
    held = [finding.check for finding in static if finding.verdict is Verdict.HELD]
    said = [f"Static review, held: {', '.join(held)}"] if held else []
    unlike = [finding for finding in static if finding.verdict is not Verdict.HELD]
    said += [f"Static review, {finding.verdict}: {finding.check}: {quote(finding.detail)}" for finding in unlike]
    scenarios = [finding for finding in done.findings if finding.row]
    if scenarios:
        shown = ranges([row for row, verdict in rows(scenarios).items() if verdict is Verdict.HELD]) or "none"
        said.append(f"Contract, with a stub engine: {len(scenarios)} scenarios, rows held: {shown}")
    reasons: dict[tuple[Verdict, str], list[int]] = {}
    for finding in scenarios:
        if finding.verdict is not Verdict.HELD:
            reasons.setdefault((finding.verdict, finding.detail), []).append(finding.row)
    said += [f"Contract, {verdict}: rows {ranges(of)}: {quote(why)}" for (verdict, why), of in reasons.items()]
    cr = any("\r\n" in script.text for pair in done.pairs for script in pair)
    return [*said, *done.notes, *(["The lines end with CR LF: git am needs --keep-cr."] if cr else [])]


def below(done: Patch) -> list[str]:
    """The summary for a mail, in short lines.

    Text from the tree is never broken: GNU patch takes a diff of several lines also where it is indented.
    """
    import textwrap  # an mbox alone needs it

    wrapper = textwrap.TextWrapper(70, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    unbroken = summary(done, lambda text: re.sub(r"\s", "\0", text))
    return [line.replace("\0", " ") for said in unbroken for line in wrapper.wrap(said)]


def review(done: Patch) -> list[str]:
    """The summary, with the evidence of what did not hold."""
    said = summary(done)
    for finding in done.broken:
        row = f"row {finding.row}, " if finding.row else ""
        said.append(f"{row}{finding.check}: {finding.detail}")
        said += [f"    {line}" for line in finding.evidence.splitlines()]
    return said


def failed(done: Patch) -> str:
    """Why there is no patch."""
    return "the review failed" if done.broken else "--strict: a check was skipped"


def markdown(done: Patch) -> str:
    """The review and the diff for a pull request."""
    said = summary(done, text.code)
    diff = text.fenced(git.diff(done.pairs).decode("utf8", "surrogateescape"), "diff")
    return "\n".join([f"### {done.recipe.subject}", "", *(f"- {line}" for line in said), "", diff, ""])


def nothing(done: Patch) -> str:
    """Why there is nothing to do, in one line."""
    why = f"no block of ours to remove ({done.plan.state})" if done.reverse else "the block is there and current"
    return f"{done.plan.script.path}: nothing to do: {why}"


def kept(plan: Plan, values: Mapping[str, str]) -> list[str]:
    """The options with which a block of ours stands, where others are asked for."""
    there = plan.values if plan.values is not None and plan.ours else {}
    return [
        f"The block has {name}={value}; `--set {name}={value}` keeps that, without it the block gets {values[name]}."
        for name, value in there.items()
        if name in values and value != values[name]
    ]


def data(done: Patch) -> dict[str, Any]:
    """The change and its review as data."""
    return place(done.plan) | {
        "build": done.plan.where,
        "recipe": done.recipe.name,
        "options": dict(done.values),
        "changed": [new.path for _, new in done.pairs],
        "findings": findings(done.findings),
        "notes": list(done.notes),
    }


def place(plan: Plan) -> dict[str, Any]:
    """Where the build is and what is there, as data."""
    foreign = plan.foreign.name if plan.foreign else None
    return {"file": plan.script.path, "state": str(plan.state), "foreign": foreign}


def findings(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings as data."""
    return [asdict(finding) | {"row": finding.row or None} for finding in found]
