"""The behavioural review: runs a recipe's scenarios on a script in the sandbox and says what held.

Nothing here knows what the recipe changes. A scenario (``patcher.review.scenarios``) says what is there before, how
the script's environment and the programs it calls behave, which steps the driver leads it through and what must
hold; the unpatched script, run in the same way, is the reference.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

from msgspec.structs import replace

from patcher.model import Finding, Script, Verdict
from patcher.review import points, sandbox
from patcher.review.judge import Judge
from patcher.review.scenarios import Expect, Scenario, Scenarios, load
from patcher.review.stage import EXHAUSTIVE, OVERTIME, Event, Observation, Stage

load_scenarios = load

# A scenario, and where the observations of the patched script and of its reference come from.
_Played = tuple[Scenario, list[tuple[Future[list[Observation]], int]]]
_FEW = 9  # events that share a sandbox where the first scenario that does not hold ends the review


def _wants_reference(scenario: Scenario) -> bool:
    expect = scenario.expect
    compared = expect.calls or expect.dispositions or expect.quiet
    statuses = {expect.status(run) for run in scenario.runs()}
    return bool(scenario.needs or compared or "reference" in statuses)


def _cannot_run(plain: Observation) -> str:
    """Why nothing can be judged, where the unpatched script does not run in the harness; empty where it does."""
    if plain.trouble or "1" not in plain.runs:
        return "; ".join(plain.trouble) or "there is no result"
    run = plain.runs["1"]
    if run.status != 0:
        said = (run.errors or run.output).splitlines()
        last = [line for line in said if line.strip() and not line.startswith("+")][-1:]
        return f"unpatched, it ends with {run.status}{''.join(f' ({line.strip()})' for line in last)}"
    return "" if run.tagged() else "unpatched, it builds nothing"


def applicable(stage: Stage, scenarios: tuple[Scenario, ...]) -> list[Scenario]:
    """Those for the script's language and the chosen options."""
    return [
        one for one in scenarios if stage.language in one.languages and (not one.option or one.option in stage.chosen)
    ]


def run(
    scenarios: Scenarios,
    original: Script,
    patched: Script,
    *,
    options: Mapping[str, str],
    companions: Mapping[str, Script] = {},
    exhaustive: bool = False,
    jobs: int | None = None,
    keep: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    first: bool = False,
) -> tuple[Finding, ...]:
    """Puts ``patched`` through the scenarios, with ``original`` as the reference, and returns one finding for each.

    ``options`` are the recipe's as chosen, by name; ``companions`` are other files of the tree, by path, for where the
    scenarios have none of their own. ``exhaustive`` adds a finding for each signal at every point inside the block.
    ``jobs`` sandboxes run at once (by default one more than there are processors: each waits at times).
    ``keep`` is a directory that gets every scenario's files. ``progress`` is called with the number done and the
    number of all. ``first`` stops at the first scenario that does not hold.

    Where there is no sandbox, or the original itself cannot run in it, every finding is "not run" with the reason.
    """
    stage = Stage(scenarios, original, patched, options, companions, keep)
    wanted = applicable(stage, scenarios.scenarios)
    if why := sandbox.missing():
        return _not_run(wanted, why)
    jobs = jobs or (os.cpu_count() or 1) + 1
    pool = ThreadPoolExecutor(jobs)
    try:
        plain: Event = (Scenario(name="", row=0, before=scenarios.before, expect=Expect()), original, None)
        reference = pool.submit(stage.play, [plain])
        work = _submitted(stage, wanted, pool, 0 if first else jobs)
        (seen,) = reference.result()
        if why := _cannot_run(seen):
            return _not_run(wanted, why)
        judge = Judge(stage, seen)
        findings: list[Finding] = []
        for scenario, places in work:
            findings.append(_finding(stage, judge, scenario, [future.result()[at] for future, at in places]))
            if first and findings[-1].verdict is Verdict.BROKEN:
                return tuple(findings)
            if progress:
                progress(len(findings), len(wanted))
        if exhaustive:
            stage.deadline = time.monotonic() + EXHAUSTIVE
            findings += points.run(stage, judge, applicable(stage, scenarios.exhaustive), pool, progress)
        return tuple(findings)
    finally:
        # Nothing outlives the review, whatever ended it.
        stage.stop.set()
        pool.shutdown(cancel_futures=True)


def _not_run(scenarios: Sequence[Scenario], why: str) -> tuple[Finding, ...]:
    return tuple(Finding(one.name, Verdict.NOT_RUN, why, one.row) for one in scenarios)


def _submitted(stage: Stage, wanted: Sequence[Scenario], pool: Executor, count: int) -> list[_Played]:
    """The scenarios, under way in ``count`` sandboxes; 0 is a sandbox for every few of them, in their order.

    Scenarios that differ only in what they expect share an event.
    """
    events: dict[str, Event] = {}
    keys: list[list[str]] = []
    for one in wanted:
        name = one.name if stage.keep else ""
        compared = Expect(calls="reference" if one.expect.calls == "reference" else "")
        event = replace(one, name=name, row=0, needs=0, keep=(), languages=(), expect=compared)
        pair: list[Event] = [(event, stage.patched, None)]
        if _wants_reference(one):
            pair.append((stage.unpatched(event), stage.original, None))
        keys.append([f"{script is stage.original} {event}" for event, script, _ in pair])
        events |= dict(zip(keys[-1], pair, strict=True))
    every = list(events.values())
    places: dict[int, tuple[Future[list[Observation]], int]] = {}
    for part in [every] if count else [every[at : at + _FEW] for at in range(0, len(every), _FEW)]:
        for group in stage.batches(part, count or 1):
            future = pool.submit(stage.play, group)
            places |= {id(event): (future, number) for number, event in enumerate(group)}
    return [(one, [places[id(events[key])] for key in pair]) for one, pair in zip(wanted, keys, strict=True)]


def _finding(stage: Stage, judge: Judge, scenario: Scenario, seen: Sequence[Observation]) -> Finding:
    """The finding of a scenario, by what was observed of the patched script and of its reference."""
    finding = judge.judge(scenario, seen[0], seen[1] if seen[1:] else None)
    if finding.verdict is Verdict.HELD or not seen[0].trouble:
        return finding
    if OVERTIME in seen[0].trouble:
        return Finding(scenario.name, Verdict.NOT_RUN, OVERTIME, scenario.row)
    (reference,) = seen[1:] or stage.play([(scenario, stage.original, None)])
    if seen[0].trouble == reference.trouble:
        why = f"unpatched as well, {'; '.join(reference.trouble)}"
        return Finding(scenario.name, Verdict.NOT_RUN, why, scenario.row)
    return finding
