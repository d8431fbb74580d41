"""``ci-patcher inspect``: what is there, and what a patch would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from patcher import pipeline
from patcher.cli import terminal
from patcher.cli.options import json_option, on_a_tree
from patcher.emit import report
from patcher.errors import NoBuildError, RefusedError
from patcher.model import Plan, Recipe, Source, State

_WOULD = {
    State.NO_CACHE: "put the block before the build",
    State.ABSENT: "make the change",
    State.HOOK: "put the block before the build, and keep the hook beside it",
    State.FOREIGN: "take that block out, and put ours before the build",
    State.CURRENT: "change nothing",
    State.OPTIONS: "change the options of the block",
    State.PARTIAL: "complete the block",
}


@click.command()
@on_a_tree
@json_option
@terminal.color_option
def inspect(source: Source, recipe: Recipe, values: Mapping[str, str], as_json: bool, color: str) -> None:
    """Show which file of TREE builds the image, what it holds already, and what a patch would do.

    \b
    Example:
      ci-patcher inspect --repo ~/bitcoin --rev 29.x
    """
    try:
        plan = pipeline.examine(source, recipe, values)
    except RefusedError as problem:
        data, lines = _problem(problem)
    else:
        data, lines = _plan(plan, [*pipeline.advice(source, recipe, plan), *report.kept(plan, values)])
    if as_json:
        terminal.say_json(data)
    else:
        terminal.say_in_color(lines, {r"\^+$": {"fg": "green", "bold": True}}, color)


def _problem(problem: RefusedError) -> tuple[dict[str, Any], list[str]]:
    """Why there can be no patch, as data and as text."""
    no_build = isinstance(problem, NoBuildError)
    state = str(State.NO_BUILD) if no_build else "refused"
    data = {"file": None, "state": state, "problem": str(problem), "hint": problem.hint}
    shown = state if no_build else "refused, a patch is not possible"
    return data, [f"State: {shown}", str(problem), *(f"  {line}" for line in problem.hint.splitlines())]


def _plan(plan: Plan, notes: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What is there and what a patch would do, as data and as text."""
    verbs = sorted(set(plan.anchor.verbs))  # in Python a retry uses the words of the first try
    data = report.place(plan) | {
        "options": dict(plan.values) if plan.values is not None else None,
        "builds": [plan.script.where(start) for start, _ in verbs],
        "would": _WOULD[plan.state],
        "advice": list(notes),
    }
    lines = [f"File:  {plan.script.path}", f"State: {report.state(plan)}", f"Build: {plan.where}"]
    for start, end in verbs:
        lines += _picture(plan.script.text, start, end)
    return data, [*lines, f"A patch would: {_WOULD[plan.state]}", *(f"Note: {note}" for note in notes)]


def _picture(text: str, start: int, end: int) -> list[str]:
    """The lines around a place, with carets below it."""
    lines = text.split("\n")
    at = text.count("\n", 0, start)
    column = start - (text.rfind("\n", 0, start) + 1)
    first, last = max(0, at - 2), min(len(lines), at + 3)
    width = len(str(last))
    shown = [f"  {number + 1:>{width}} | {lines[number].rstrip()}" for number in range(first, last)]
    carets = "^" * max(1, min(end - start, len(lines[at]) - column))
    shown.insert(at - first + 1, f"  {'':>{width}} | {' ' * column}{carets}")
    return shown
