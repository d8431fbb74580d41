"""The behavioural review: runs a recipe's scenarios on a script in the sandbox and says what held.

Nothing here knows what the recipe changes. A scenario (``patcher.review.scenarios``) says what is there before, how
the script's environment and the programs it calls behave, which steps the driver leads it through and what must
hold; the unpatched script, run in the same way, is the reference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from patcher.model import Finding, Script, Verdict
from patcher.review import points, sandbox
from patcher.review.judge import Judge
from patcher.review.scenarios import Expect, Scenario, Scenarios, load
from patcher.review.stage import BATCH, STOOD_STILL, Event, Result, Stage, Trace, added_lines

load_scenarios = load

NO_BUILD = "unpatched, it builds nothing"


def _wants_reference(scenario: Scenario) -> bool:
    expect = scenario.expect
    compared = expect.calls or expect.dispositions or expect.quiet or "reference" in expect.exit.values()
    return bool(scenario.needs or compared)


def _cannot_run(result: Result) -> str:
    """Why the unpatched script does not do in the harness; empty where it does."""
    if result.trouble or "1" not in result.runs:
        return "; ".join(result.trouble) or "there is no result"
    run = result.runs["1"]
    if run.status != 0:
        said = (run.errors or run.output).splitlines()
        last = [line for line in said if line.strip() and not line.startswith("+")][-1:]
        return f"unpatched, it ends with {run.status}{''.join(f' ({line.strip()})' for line in last)}"
    return "" if run.tagged() else NO_BUILD


def _elsewhere(stage: Stage, unpatched: Scenario, plain: Result) -> str:
    """Why nothing can be judged where the script, unpatched, builds by another program than the patched command.

    The commands on the lines that the patch replaces name one program of the recipe, the build that came of it was
    by another, and none of these commands was run.
    """
    lines = added_lines(stage.patched.text, stage.original.text)
    texts = stage.original.text.splitlines()
    words = {word for line in lines for word in re.findall(r"[\w-]+", texts[line - 1])}
    called = {call[0] for call in plain.runs["1"].tagged()}
    if stage.language != "sh" or called & words or not words & set(stage.scenarios.programs):
        return ""
    (traced,) = stage.play([(unpatched, stage.original, Trace(lines))])
    if any(point.startswith("line ") for point in traced.runs["1"].points):
        return ""
    return f"unpatched, it builds with {', '.join(sorted(called))}, and not by the command that the patch changes"


def _held_up(stage: Stage, scenario: Scenario, result: Result) -> str:
    """Why two runs can't be led through a scenario, where the unpatched script can't be either: a lock of its own."""
    if not any(STOOD_STILL in what for what in result.trouble):
        return ""
    (unpatched,) = stage.play([(scenario, stage.original, None)])
    return f"unpatched as well, {'; '.join(unpatched.trouble)}" if unpatched.trouble == result.trouble else ""


def applicable(stage: Stage, scenarios: tuple[Scenario, ...]) -> tuple[Scenario, ...]:
    """Those for the script's language and the chosen options."""
    return tuple(
        scenario
        for scenario in scenarios
        if (not scenario.languages or stage.language in scenario.languages)
        and (not scenario.option or scenario.option in stage.chosen)
    )


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
    ``jobs`` sandboxes run at once (by default two more than there are processors: each waits at times).
    ``keep`` is a directory that gets every scenario's files. ``progress`` is called with the number done and the
    number of all. ``first`` stops at the first scenario that does not hold.

    Where there is no sandbox, or the original itself cannot run in it, every finding is "not run" with the reason.
    """
    stage = Stage(scenarios, original, patched, options, companions, keep)
    wanted = applicable(stage, scenarios.scenarios)
    if why := sandbox.missing():
        return tuple(Finding(s.name, Verdict.NOT_RUN, why, s.row) for s in wanted)
    unpatched = Scenario("", 0, before=scenarios.before)
    failing = replace(unpatched, plan=scenarios.failing)
    both: list[Event] = [(unpatched, original, None), (failing, original, None)]
    plain, failed = stage.play(both)
    if _cannot_run(plain) and not plain.trouble:  # under `set -u` a fork's own variables may be missing
        stage.define_all()
        plain, failed = stage.play(both)
    if _cannot_run(plain) == NO_BUILD:
        stage.withhold()
        plain, failed = stage.play(both)
    if why := _cannot_run(plain):
        return tuple(Finding(s.name, Verdict.NOT_RUN, why, s.row) for s in wanted)
    judge = Judge(stage, plain, failed)
    stage.endless = judge.endless
    if why := _elsewhere(stage, unpatched, plain):
        return tuple(Finding(s.name, Verdict.NOT_RUN, why, s.row) for s in wanted)
    # Scenarios that differ only in what they expect share an event.
    events: dict[str, Event] = {}
    keys = []
    for scenario in wanted:
        expect = Expect(tagged=0) if judge.hopeless(scenario) else Expect()
        event = replace(scenario, row=0, needs=0, keep=(), expect=expect, name=scenario.name if keep else "")
        pair = []
        for script in (patched, *([original] if _wants_reference(scenario) else [])):
            key = f"{script is original} {event}"
            events.setdefault(key, (event, script, None))
            pair.append(key)
        keys.append(pair)
    findings: list[Finding] = []
    results: dict[str, Result] = {}
    names = {id(event): key for key, event in events.items()}
    with ThreadPoolExecutor(jobs or (os.cpu_count() or 1) + 2) as pool:
        groups = stage.batches(list(events.values()))
        for group, future in [(group, pool.submit(stage.play, group)) for group in groups]:
            results.update(zip((names[id(event)] for event in group), future.result(), strict=True))
            for scenario, pair in zip(wanted[len(findings) :], keys[len(findings) :], strict=True):
                if any(key not in results for key in pair):
                    break
                finding = judge.judge(scenario, results[pair[0]], results[pair[1]] if pair[1:] else None)
                if finding.verdict is Verdict.BROKEN and (why := _held_up(stage, scenario, results[pair[0]])):
                    finding = Finding(scenario.name, Verdict.NOT_RUN, why, scenario.row)
                if finding.verdict is Verdict.BROKEN and pair[1:] and any(" group " in one for one in scenario.steps):
                    # Where a script writes to a process of its own group, which of the two ends first is chance.
                    for other in stage.play([(events[pair[1]][0], original, None)] * BATCH):
                        again = judge.judge(scenario, results[pair[0]], other)
                        finding = again if again.verdict is Verdict.HELD else finding
                findings.append(finding)
                if first and findings[-1].verdict is Verdict.BROKEN:
                    pool.shutdown(cancel_futures=True)
                    return tuple(findings)
            if progress:
                progress(len(findings), len(wanted))
        if exhaustive:
            findings += points.run(stage, judge, applicable(stage, scenarios.exhaustive), pool, progress)
    return tuple(findings)
