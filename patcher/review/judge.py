"""Compares what was observed of a scenario with what it expects."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping

from patcher.model import ABSENT, Finding, Verdict
from patcher.review.scenarios import Scenario, fill, pattern
from patcher.review.stage import Listing, Observation, Run, Stage, below

_LINES = 150  # of evidence, each with at most so many characters
_WIDTH = 1000
_Tables = tuple[Mapping[str, str], ...]


def _changed(observation: Observation, root: str) -> set[str]:
    """The paths outside of ``root`` that a scenario made, changed or removed."""
    before, after = observation.before, observation.looks[-1]
    paths = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return {path for path in paths if not f"{path}/".startswith(f"{root}/")}


def _shown(entry: tuple[str, str, str]) -> str:
    """An entry as a suffix of its path: a slash, a link's target, a file's first words."""
    kind, _, content = entry
    if kind == "directory":
        return "/"
    first = content.split("\n", 1)[0]
    return f" -> {content}" if kind == "link" else f"  {first}".rstrip()


def _messages(run: Run) -> list[str]:
    """The lines of standard error, without those of a trace."""
    return [line for line in run.errors.splitlines() if not line.startswith("+")]


def _is(found: Listing, tree: Mapping[str, str]) -> bool:
    """Whether a listing is a tree: its files with their contents, nothing else, and the mode of its top."""
    kind, mode, _ = found.get("", ("", "", ""))
    files = {path: content for path, (kind, _, content) in found.items() if kind != "directory"}
    return kind == "directory" and {".": mode, **files} == {".": mode, **tree}


class Judge:
    """Compares what was observed of a scenario with what it expects."""

    def __init__(self, stage: Stage, plain: Observation) -> None:
        self.stage, self.plain, self.scenarios = stage, plain, stage.scenarios
        name = re.fullmatch(r"\{(\w+)\}", self.scenarios.root)
        self.place = name[1] if name else self.scenarios.root

    def judge(self, scenario: Scenario, seen: Observation, reference: Observation | None) -> Finding:
        """The finding of one scenario."""
        if scenario.needs and reference:
            runs = reference.runs.values()
            if not runs or any(run.status != 0 or len(run.tagged()) < scenario.needs for run in runs):
                return Finding(scenario.name, Verdict.HELD, ABSENT, scenario.row)
        if problems := self.problems(scenario, seen, reference):
            evidence = self.story(scenario, seen, reference or self.plain)
            return Finding(scenario.name, Verdict.BROKEN, "; ".join(problems), scenario.row, evidence)
        return Finding(scenario.name, Verdict.HELD, "", scenario.row, self.story(scenario, seen))

    def problems(self, scenario: Scenario, seen: Observation, reference: Observation | None) -> list[str]:
        """What did not hold, each as one line."""
        if not seen.looks:
            return list(seen.trouble) or ["there is no result"]
        problems = list(seen.trouble)
        words = self.stage.words(scenario)
        for name, run in seen.runs.items():
            same = reference.runs.get(name) if reference else None
            problems += self._run(scenario, name, run, same, words)
        return [*problems, *self._places(scenario, seen, reference, fill(self.scenarios.root, words))]

    def _run(
        self, scenario: Scenario, name: str, run: Run, same: Run | None, words: Mapping[str, str]
    ) -> Iterable[str]:
        """What did not hold of one run; ``same`` is that of the unpatched script."""
        expect = scenario.expect
        wanted = expect.status(name)
        if wanted == "reference" and same:
            wanted = str(same.status)
            # What a trap finds in $? when a signal ends the script is the status of the command before the build.
            ended = (run.status or 0) < 0 and run.exits.count("\n") == same.exits.count("\n")
            if run.exits != same.exits and not ended:
                yield f"the EXIT trap wrote {run.exits!r}, not {same.exits!r}"
        if wanted == "refused":  # a script that tries again may succeed then
            wanted = "" if len(run.tagged()) > 1 else "failure"
        if wanted and not (run.status not in {0, None} if wanted == "failure" else str(run.status) == wanted):
            yield f"run {name} ended with {run.status}, not {wanted}"
        heard = any(self.stage.language in self.scenarios.preludes[prelude] for prelude in scenario.preludes)
        if expect.exits is not None and heard and run.status != -9 and run.exits.count("\n") != expect.exits:
            yield f"the EXIT trap of run {name} ran {run.exits.count(chr(10))} times"
        if expect.tagged is not None and len(run.tagged()) != expect.tagged:
            yield f"{len(run.tagged())} builds, not {expect.tagged}"
        if same:
            yield from self._compared(scenario, run, same, words)
        for text in expect.says:
            said = {line for line in _messages(run) if pattern(text, words).search(line)}
            if len(said) != 1:  # each try of a build says the same
                yield f"not one line of standard error says {fill(text, words)}"

    def _compared(self, scenario: Scenario, run: Run, same: Run, words: Mapping[str, str]) -> Iterable[str]:
        """What differs from the unpatched script and must not."""
        expect = scenario.expect
        if expect.calls == "reference" and run.plain() != same.plain():
            yield "the calls are not those of the unpatched script"
        if expect.calls == "added":
            yield from _added([(option, fill(value, words)) for option, value in expect.added], run, same)
        if expect.dispositions and run.dispositions() != same.dispositions():
            yield "the signals' dispositions after the build are not those of the unpatched script"
        if expect.quiet:
            known = {re.sub(r"\d+", "0", line) for line in _messages(same)}  # `time` never says the same
            new = [line for line in _messages(run) if re.sub(r"\d+", "0", line) not in known]
            yield from [f"standard error has {line!r}" for line in new][:1]

    def _places(self, scenario: Scenario, seen: Observation, reference: Observation | None, root: str) -> Iterable[str]:
        """What is wrong with the files."""
        expect = scenario.expect
        for listing in seen.looks[:-1] if expect.look else ():
            if what := self._leaves(scenario, listing, expect.look, look=True):
                yield f"{what}, on the way"
        if expect.leaves == "before":
            if below(seen.before, root) != below(seen.looks[-1], root):
                yield f"{self.place} is not as it was"
        elif expect.leaves and (what := self._leaves(scenario, seen.looks[-1], expect.leaves, look=False)):
            yield what
        usual = [_changed(one, root) for one in (self.plain, reference) if one and one.looks]
        for path in sorted(_changed(seen, root).difference(*usual))[:3]:
            yield f"outside of {self.place}, {path} was made, changed or removed"

    def _leaves(self, scenario: Scenario, listing: Listing, wanted: _Tables, *, look: bool) -> str:
        """What is wrong with ``root``, or nothing: it must be as one of ``wanted``, at a step ``look`` with litter."""
        expect, words = scenario.expect, self.stage.words(scenario)
        alternatives = fill(wanted, words)
        named = {path for table in alternatives for path in table}
        inside = below(listing, fill(self.scenarios.root, words))
        found = [path for path in inside if path and "/" not in path]

        def matches(top: str, patterns: Iterable[str]) -> bool:
            return any(fnmatch.fnmatchcase(top, fill(pattern, words)) for pattern in patterns)

        others = [top for top in found if top not in named and not matches(top, scenario.keep)]
        if [top for top in others if not (look and matches(top, expect.litter))]:
            return f"{self.place} holds what it must not"
        if expect.most is not None and len(others) > expect.most:
            return f"{self.place} holds {len(others)} temporary directories, not {expect.most}"
        for table in alternatives:
            absent = [path for path in named - set(table) if path in found]
            if not absent and all(_is(below(inside, path), self.scenarios.trees[tree]) for path, tree in table.items()):
                return ""
        return f"{self.place} holds what it must not"

    def story(self, scenario: Scenario, seen: Observation, reference: Observation | None = None) -> str:
        """The steps, the tagged calls and the tree before and after; with a reference also what it called, every
        look and the end of the output.

        Without one the text is the same on every run: ``…`` stands for an entry of the tree that nothing has named.
        """
        words = self.stage.words(scenario)
        root = fill(self.scenarios.root, words)
        tables = [fill(table, words) for table in scenario.expect.leaves if isinstance(table, Mapping)]
        named = {*fill(scenario.keep, words), *(path for table in tables for path in table)}
        named |= {path.partition("/")[0] for path in below(seen.before, root)}
        inside = re.compile(rf"({re.escape(root)}/)([^/,\s]+)")

        def steady(text: str) -> str:
            return inside.sub(lambda match: match[1] + (match[2] if reference or match[2] in named else "…"), text)

        lines = [f"steps: {', '.join(scenario.steps)}"]
        for name, run in seen.runs.items():
            lines += [f"run {name} called {steady(' '.join(call))}" for call in run.tagged()]
            lines.append(f"run {name} ended with {run.status}")
        between = [("on the way", look) for look in seen.looks[:-1] if reference]
        for when, listing in (("before", seen.before), *between, ("after", seen.looks[-1] if seen.looks else {})):
            entries = sorted(below(listing, root).items())
            tree = [steady(f"{root}/{path}{_shown(entry)}") for path, entry in entries if path]
            lines.append(f"{when}, in {root}{':' if tree else ': nothing'}")
            lines += [f"  {line.removeprefix(f'{root}/')}" for line in tree]
        if reference:
            lines += [f"expected: {', '.join(f'{path} = {tree}' for path, tree in one.items())}" for one in tables]
            for name, run in reference.runs.items():
                lines += [f"unpatched, run {name} called {' '.join(call)}" for call in run.tagged()]
            for name, run in seen.runs.items():
                lines += [f"output of run {name}:", *(f"  {line}" for line in run.output.splitlines()[-8:])]
                lines += [f"errors of run {name}:", *(f"  {line}" for line in run.errors.splitlines()[-25:])]
        return "\n".join(line[:_WIDTH] for line in lines[:_LINES])


def _added(wanted: list[tuple[str, str]], run: Run, same: Run) -> Iterable[str]:
    """What tells the tagged calls from the reference's with each pair once more, as two words or with ``=``."""
    calls = run.tagged()
    for number in range(len(calls)):
        for option, value in wanted:
            call = calls[number]
            for index, (word, following) in enumerate(zip(call, (*call[1:], ""), strict=True)):
                two = word == option and fnmatch.fnmatchcase(following, value)
                if two or fnmatch.fnmatchcase(word, f"{option}={value}"):
                    calls[number] = call[:index] + call[index + 1 + two :]
                    break
            else:
                yield f"the build's words lack {option} {value}"
                return
    if calls != same.tagged():
        yield "the build's words are not those of the unpatched script and the added ones"
