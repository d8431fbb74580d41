"""Kill it anywhere: each signal at every point inside what the patch added, not at a few that were thought of.

The points are those before each command (each line, in Python) of the added lines and of what they call, and those
before and after the effect of each program that the harness stands in for. A first run counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from msgspec.structs import replace

from patcher.lines import added
from patcher.model import Finding, Verdict
from patcher.review.judge import Judge
from patcher.review.scenarios import Expect, Scenario
from patcher.review.stage import Event, Stage, Trace

_SHOWN = 5  # points named in a finding
_BATCH = 25  # scenarios that share a sandbox


def strike(stage: Stage, scenario: Scenario, lines: tuple[int, ...], point: str) -> Event:
    """The event in which the signal of the scenario's step ``strike WHOM SIGNAL`` is sent at ``point``."""
    index = next(number for number, step in enumerate(scenario.steps) if step.startswith("strike "))
    _, whom, signal = scenario.steps[index].split()
    steps, trace = [f"wait 1 {point}", f"signal 1 {whom} {signal}"], None
    if point.startswith("line "):
        steps, trace = [], Trace(lines, int(point.split()[1]), signal, whom)
    changed = replace(scenario, steps=(*scenario.steps[:index], *steps, *scenario.steps[index + 1 :]), expect=Expect())
    return changed, stage.patched, trace


def found(stage: Stage, scenario: Scenario, lines: tuple[int, ...]) -> list[str]:
    """The points of the scenario's first run, counted; a later step's, which has no number, is none of the block."""
    alone = replace(scenario, steps=("start 1", "end 1"), expect=Expect())
    run = stage.play([(alone, stage.patched, Trace(lines))])[0].runs.get("1")
    return [point for point in (run.points.splitlines() if run else ()) if point.startswith("line ") or "." in point]


def run(
    stage: Stage,
    judge: Judge,
    scenarios: Iterable[Scenario],
    pool: Executor,
    progress: Callable[[int, int], None] | None,
) -> list[Finding]:
    """One finding for each scenario, over all of its points; the number of points is in it."""
    lines = added(stage.original.text, stage.patched.text)
    counted: dict[str, list[str]] = {}
    work = []
    for scenario in scenarios:
        key = f"{scenario.plan} {scenario.environment}"
        if key not in counted:
            counted[key] = found(stage, scenario, lines)
        events = [strike(stage, scenario, lines, point) for point in counted[key]]
        size = 1 if stage.alone(scenario) else _BATCH
        batches = [events[at : at + size] for at in range(0, len(events), size)]
        work.append((scenario, counted[key], [pool.submit(stage.play, batch) for batch in batches]))
    findings = []
    for number, (scenario, names, futures) in enumerate(work, 1):
        broken, evidence = [], ""
        observations = [observation for future in futures for observation in future.result()]
        for point, observation in zip(names, observations, strict=True):
            if problems := judge.problems(scenario, observation, None):
                broken.append(f"{point}: {'; '.join(problems)}")
                evidence = evidence or f"{point}\n{judge.story(scenario, observation, judge.plain)}"
        verdict = Verdict.BROKEN if broken or not names else Verdict.HELD
        detail = f"{len(names)} points"
        if broken:
            shown = " | ".join(broken[:_SHOWN])
            detail = f"{len(broken)} of {detail}: {shown}{' | ...' if broken[_SHOWN:] else ''}"
        findings.append(Finding(scenario.name, verdict, detail, scenario.row, evidence))
        if progress:
            progress(number, len(work))
    return findings
