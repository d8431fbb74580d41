"""What the review found, as text for the terminal, below the ``---`` line, in Markdown and as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from patcher.errors import CiPatcherError, NoBuildError
from patcher.model import Finding, Patch, Plan, Recipe, State, Verdict


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


def options(done: Patch) -> str:
    """``recipe (option=value)``."""
    values = ", ".join(f"{name}={value}" for name, value in done.values.items())
    return f"{done.recipe.name} ({values})" if values else done.recipe.name


def summary(done: Patch) -> list[str]:
    """The review in a few lines: what was there, what was changed, what was checked and what was not."""
    found = done.plan
    lines = [
        f"ci-patcher: recipe {options(done)}",
        f"Before: {found.state}"
        + (f" ({found.foreign.name})" if found.foreign else "")
        + f"; the build is at {found.where}",
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
        shown = ranges(held) or "none"
        lines.append(f"Contract, with a stub engine and no real build: {len(scenarios)} scenarios, rows held: {shown}")
        reasons = dict.fromkeys((f.verdict, f.detail) for f in scenarios if f.verdict is not Verdict.HELD)
        for verdict, detail in reasons:
            named = [f for f in scenarios if f.verdict is verdict and f.detail == detail]
            lines.append(f"Contract, {verdict}: rows {ranges(sorted({f.row for f in named}))}: {detail}")
    return [*lines, *done.notes]


_SHOWN = 2
_TO_ADD = {State.NO_CACHE, State.ABSENT, State.HOOK}


def table(found: Sequence[Finding]) -> list[str]:
    """Row, scenario and verdict, the evidence below the first that did not hold, and a line that counts them."""
    lines: list[str] = []
    width = max((len(finding.check) for finding in found), default=0)
    broken = 0
    for finding in sorted(found, key=lambda finding: finding.row):
        detail = f"  {finding.detail}" if finding.detail and finding.verdict is not Verdict.HELD else ""
        lines.append(f"{finding.row:>3}  {finding.check:<{width}}  {finding.verdict}{detail}")
        if finding.verdict is Verdict.BROKEN:
            broken += 1
            if broken <= _SHOWN:
                lines += [f"       {line}" for line in finding.evidence.splitlines()]
    if broken > _SHOWN:
        lines.append(f"What was seen is shown for the first {_SHOWN} that did not hold; --json has it for all.")
    counts = ", ".join(f"{sum(f.verdict is verdict for f in found)} {verdict}" for verdict in Verdict)
    return [*lines, counts]


def verified(plan: Plan) -> str:
    """What `verify` looks at, in one line."""
    about = "; what does not hold below is what a patch would add" if plan.state in _TO_ADD else ""
    return f"{plan.script.path}: {plan.state}{about}"


def text(done: Patch) -> str:
    """The review for the terminal, with the evidence of what did not hold."""
    lines = summary(done)
    for finding in done.broken:
        row = f"row {finding.row}, " if finding.row else ""
        lines.append(f"{row}{finding.check}: {finding.detail}")
        lines += [f"    {line}" for line in finding.evidence.splitlines()]
    return "\n".join(lines) + "\n"


def data(done: Patch) -> dict[str, Any]:
    """The review as data."""
    found = done.plan
    return {
        "file": found.script.path,
        "state": str(found.state),
        "foreign": found.foreign.name if found.foreign else None,
        "build": found.where if found.anchor else None,
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


def markdown(done: Patch, diff: str) -> str:
    """The review and the diff for a pull request."""
    fence = "```"
    while fence in diff:
        fence += "`"
    lines = [f"### {done.recipe.subject}", ""]
    base = [f"Base: {done.source.name}, commit {done.source.revision}"] if done.source.revision else []
    lines += [f"- {line}" for line in [*summary(done), *base]]
    return "\n".join([*lines, "", f"{fence}diff", diff.rstrip("\n"), fence]) + "\n"


def nothing(done: Patch, reverse: bool) -> str:
    """Why there is nothing to do, in one line."""
    found = done.plan
    if reverse:
        return f"{found.script.path}: nothing to do: no block of ours to take out ({found.state})"
    if found.state is State.CURRENT:
        return f"{found.script.path}: nothing to do: the block is there and current"
    return f"{found.script.path}: nothing to do: {found.state}"


_WOULD = {
    State.NO_CACHE: "put the block before the build",
    State.ABSENT: "make the change",
    State.HOOK: "put the block before the build, and keep the hook beside it",
    State.FOREIGN: "take that block out, and put ours before the build",
    State.CURRENT: "change nothing",
    State.OLDER: "bring the block up to date",
}


def inspected(
    plan: Plan | None, problem: CiPatcherError | None, recipe: Recipe, values: Mapping[str, str]
) -> list[str]:
    """For `inspect`: file, state, place and advice, as lines."""
    if plan is None:
        assert problem is not None
        state = State.NO_BUILD if isinstance(problem, NoBuildError) else "refused, a patch is not possible"
        return [f"State: {state}", str(problem), *(f"  {line}" for line in problem.hint.splitlines())]
    lines = [f"File:  {plan.script.path}", f"State: {plan.state}" + (f" ({plan.foreign.name})" if plan.foreign else "")]
    lines += [f"Build: {plan.where}", *picture(plan), f"A patch would: {_WOULD[plan.state]}"]
    return [*lines, *(f"Note: {note}" for note in [*kept(plan, values), *advice(plan, recipe)])]


def kept(plan: Plan, values: Mapping[str, str]) -> list[str]:
    """The options with which a block of ours stands, where others are asked for."""
    there = plan.values if plan.values is not None and plan.state is State.OLDER else {}
    return [
        f"The block there has {name}={value}; `--set {name}={value}` keeps that, else it becomes {values[name]}."
        for name, value in there.items()
        if name in values and value != values[name]
    ]


def picture(plan: Plan, context: int = 2) -> list[str]:
    """The build's place: some lines around it, and a caret below the words that name it."""
    assert plan.anchor is not None
    lines = plan.script.text.split("\n")
    shown: list[str] = []
    for start, end in plan.anchor.verbs:
        at = plan.script.text.count("\n", 0, start)
        column = start - (plan.script.text.rfind("\n", 0, start) + 1)
        width = len(str(at + context + 1))
        for number in range(max(0, at - context), min(len(lines), at + context + 1)):
            shown.append(f"  {number + 1:>{width}} | {lines[number].rstrip()}")
            if number == at:
                shown.append(
                    f"  {'':>{width}} | {' ' * column}{'^' * max(1, min(end - start, len(lines[at]) - column))}"
                )
    return shown


def advice(plan: Plan, recipe: Recipe) -> list[str]:
    """What whoever asks for this change should know, from the recipe."""
    hook = recipe.advice.get("hook", ()) if plan.state is State.HOOK else ()
    return [*hook, *recipe.advice.get("patch", ())]


def inspection(
    plan: Plan | None, problem: CiPatcherError | None, recipe: Recipe, values: Mapping[str, str]
) -> dict[str, Any]:
    """For `inspect --json`."""
    if plan is None:
        assert problem is not None
        state = str(State.NO_BUILD) if isinstance(problem, NoBuildError) else "refused"
        return {"file": None, "state": state, "problem": str(problem), "hint": problem.hint}
    return {
        "file": plan.script.path,
        "state": str(plan.state),
        "foreign": plan.foreign.name if plan.foreign else None,
        "options": dict(plan.values) if plan.values is not None else None,
        "builds": [plan.script.where(start) for start, _ in plan.anchor.verbs] if plan.anchor else [],
        "would": _WOULD[plan.state],
        "advice": [*kept(plan, values), *advice(plan, recipe)],
    }
