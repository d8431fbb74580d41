"""What the review found, as text for the terminal, below the ``---`` line, in Markdown and as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patcher.model import Finding, State, Verdict
from patcher.pipeline import Change, where


def rows(findings: Sequence[Finding]) -> dict[int, Verdict]:
    """Each row of the contract with the worst that its scenarios gave."""
    order = [Verdict.BROKEN, Verdict.NOT_RUN, Verdict.HELD]
    found: dict[int, Verdict] = {}
    for finding in findings:
        if finding.row:
            found[finding.row] = min(found.get(finding.row, Verdict.HELD), finding.verdict, key=order.index)
    return dict(sorted(found.items()))


def ranges(numbers: Sequence[int]) -> str:
    """``1-4, 6`` for 1, 2, 3, 4, 6."""
    parts: list[str] = []
    for number in sorted(numbers):
        last = parts[-1].split("-") if parts else []
        if last and int(last[-1]) == number - 1:
            parts[-1] = f"{last[0]}-{number}"
        else:
            parts.append(str(number))
    return ", ".join(parts)


def options(done: Change) -> str:
    """``recipe (option=value)``."""
    values = ", ".join(f"{name}={value}" for name, value in done.values.items())
    return f"{done.recipe.name} ({values})" if values else done.recipe.name


def summary(done: Change) -> list[str]:
    """The review in a few lines: what was there, what was changed, what was checked and what was not."""
    found = done.plan
    lines = [
        f"ci-patcher: recipe {options(done)}",
        f"Before: {found.state}"
        + (f" ({found.foreign.name})" if found.foreign else "")
        + f"; the build is at {where(found)}",
    ]
    static = [finding for finding in done.findings if not finding.row]
    scenarios = [finding for finding in done.findings if finding.row]
    for verdict in Verdict:
        named = [finding for finding in static if finding.verdict is verdict]
        if named and verdict is Verdict.HELD:
            lines.append(f"Static review, {verdict}: " + ", ".join(finding.check for finding in named))
        lines += [f"Static review, {verdict}: {f.check}: {f.detail}" for f in named if verdict is not Verdict.HELD]
    if scenarios:
        by_row = rows(done.findings)
        held = [row for row, verdict in by_row.items() if verdict is Verdict.HELD]
        lines.append(f"Contract, with a stub engine: {len(scenarios)} scenarios, rows held: {ranges(held) or 'none'}")
        reasons = dict.fromkeys((f.verdict, f.detail) for f in scenarios if f.verdict is not Verdict.HELD)
        for verdict, detail in reasons:
            named = [f for f in scenarios if f.verdict is verdict and f.detail == detail]
            lines.append(f"Contract, {verdict}: rows {ranges(sorted({f.row for f in named}))}: {detail}")
    return [*lines, *done.notes]


def text(done: Change) -> str:
    """The review for the terminal, with the evidence of what did not hold."""
    lines = summary(done)
    for finding in done.broken:
        row = f"row {finding.row}, " if finding.row else ""
        lines.append(f"{row}{finding.check}: {finding.detail}")
        lines += [f"    {line}" for line in finding.evidence.splitlines()]
    return "\n".join(lines) + "\n"


def data(done: Change) -> dict[str, Any]:
    """The review as data."""
    found = done.plan
    return {
        "file": found.script.path,
        "state": str(found.state),
        "foreign": found.foreign.name if found.foreign else None,
        "build": where(found) if found.anchor else None,
        "recipe": done.recipe.name,
        "options": dict(done.values),
        "changed": [new.path for _, new in done.pairs],
        "findings": [findings(finding) for finding in done.findings],
        "notes": list(done.notes),
    }


def findings(finding: Finding) -> dict[str, Any]:
    """One finding as data."""
    return {
        "check": finding.check,
        "row": finding.row or None,
        "verdict": str(finding.verdict),
        "detail": finding.detail,
        "evidence": finding.evidence,
    }


def markdown(done: Change, diff: str) -> str:
    """The review and the diff for a pull request."""
    fence = "```"
    while fence in diff:
        fence += "`"
    lines = [f"### {done.plan.script.path}", ""]
    lines += [f"- {line}" for line in summary(done)]
    return "\n".join([*lines, "", f"{fence}diff", diff.rstrip("\n"), fence]) + "\n"


def nothing(done: Change, reverse: bool) -> str:
    """Why there is nothing to do, in one line."""
    found = done.plan
    if reverse:
        return f"{found.script.path}: nothing to do: no block of ours to take out ({found.state})"
    if found.state is State.CURRENT:
        return f"{found.script.path}: nothing to do: the block is there and current"
    return f"{found.script.path}: nothing to do: {found.state}"
