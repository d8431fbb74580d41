"""Compares what came of a scenario with what it expects."""

from __future__ import annotations

import fnmatch
import re
import signal
from collections.abc import Iterable, Mapping

from patcher.model import Finding, Verdict
from patcher.review.scenarios import Scenario, fill, pattern
from patcher.review.stage import FOR_EVER, Listing, Result, Run, Stage

_LINES = 150  # of evidence, each with at most so many characters
_WIDTH = 1000


def _below(listing: Listing, root: str) -> dict[str, tuple[str, str, str]]:
    return {path[len(root) + 1 :]: entry for path, entry in listing.items() if path.startswith(f"{root}/")}


def _outside(listing: Listing, root: str) -> dict[str, tuple[str, str, str]]:
    return {path: entry for path, entry in listing.items() if path != root and not path.startswith(f"{root}/")}


def _changed(result: Result, root: str) -> dict[str, str]:
    """The paths outside of ``root`` that a scenario made, changed or removed, each also without process ids."""
    before, after = _outside(result.before, root), _outside(result.looks[-1], root)
    changed = {path: path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    for run in result.runs.values():
        changed = {path: _anonymous(other, run.pid) for path, other in changed.items()}
    return changed


def _anonymous(text: str, pid: int) -> str:
    """``text`` with ``$$`` for the script's process id, where it stands as a number of its own, and without the
    random part of the names that mktemp gives."""
    return re.sub(rf"(?<!\d){pid}(?!\d)", "$$", re.sub(r"\btmp\.[A-Za-z0-9]{10}\b", "tmp.", text))


def _written(result: Result, run: Run) -> dict[str, str]:
    """What a run wrote, by place: its two streams, and the files that were made or changed, without process ids."""
    after = result.looks[-1] if result.looks else {}
    files = {path: entry for path, entry in after.items() if result.before.get(path) != entry}
    return {
        **{_anonymous(path, run.pid): entry[2] for path, entry in {**files, **result.scratch}.items()},
        "errors": run.errors,
        "output": run.output,
    }


def _places(failing: Result) -> list[tuple[str, str]]:
    """Where a script has the messages of its build appear, and, as a pattern, what it puts before each."""
    run = failing.runs.get("1")
    if run is None or not run.said:
        return [("errors", "")]
    places = []
    for place, text in _written(failing, run).items():
        line = next((line for line in text.splitlines() if line.endswith(run.said[-1])), None)
        if line is not None:
            places.append((place, re.sub(r"\d+", r"\\d+", re.escape(line.removesuffix(run.said[-1])))))
    return places


def _source(text: str) -> set[str]:
    """Pieces of a script by which a line that quotes it is told from one that it writes itself."""
    expansions = re.findall(r'"\$\w+"|\$\{[^}]*\}', text)
    commands = [part.strip() for part in re.split(r"\|\||&&|[;{}\n]", text)]
    return {*expansions, *(part for part in commands if re.search(r"""\s\S*["']""", part))}


def _alike(calls: list[tuple[str, ...]], run: Run, others: list[tuple[str, ...]], other: Run) -> bool:
    """Whether the calls of two runs are the same, but for the scripts' process ids and temporary names."""
    if [len(call) for call in calls] != [len(call) for call in others]:
        return False
    return all(
        one == two or _anonymous(one, run.pid) == _anonymous(two, other.pid)
        for call, same in zip(calls, others, strict=True)
        for one, two in zip(call, same, strict=True)
    )


def _sent(scenario: Scenario, run: str) -> set[int]:
    """The statuses of a run that ends by a signal that was sent to it."""
    steps = [step.split() for step in scenario.steps]
    return {-getattr(signal, f"SIG{step[3]}") for step in steps if step[:2] == ["signal", run]}


def _by_pipe(run: Run, same: Run) -> bool:
    """Whether signals ended both runs, and one of them was SIGPIPE."""
    statuses = {run.status or 0, same.status or 0}
    return max(statuses) < 0 and -signal.SIGPIPE in statuses


def _shown(entry: tuple[str, str, str]) -> str:
    """An entry as a suffix of its path: a slash, a link's target, a file's first words."""
    kind, _, content = entry
    if kind == "directory":
        return "/"
    first = content.split("\n", 1)[0]
    return f" -> {content}" if kind == "link" else f"  {first}".rstrip()


class Judge:
    """Compares what came of a scenario with what it expects."""

    def __init__(self, stage: Stage, plain: Result, failing: Result) -> None:
        self.stage = stage
        self.scenarios = stage.scenarios
        self.plain = plain
        self.place = name[1] if (name := re.fullmatch(r"\{(\w+)\}", self.scenarios.root)) else self.scenarios.root
        # A script without errexit goes on when its build has failed; nothing that stands for the build can end it.
        self.heedless = all(run.status == 0 for run in failing.runs.values())
        # One that tries again until it succeeds has no end where nothing can succeed.
        self.endless = any(FOR_EVER in what for what in failing.trouble)
        # A script may send the messages of its build elsewhere, and those of what stands for it.
        places = _places(failing)
        self.mute = not places and stage.language == "sh"
        # In Python, and where a function of the script takes the build's words, it speaks in the script's own place.
        self.places = places if "errors" in dict(places) else [*places, ("errors", "")]
        self.source = _source(stage.added)

    def leaves(self, scenario: Scenario, listing: Listing, *, look: bool) -> str:
        """What is wrong with ``root`` at a step ``look`` or at the end, or nothing."""
        words = self.stage.words(scenario, self.stage.patched)
        root = fill(self.scenarios.root, words)
        expect = scenario.expect
        wanted, litter, most = (expect.look, expect.litter, expect.most) if look else (expect.leaves, (), 0)
        alternatives = [{fill(path, words): tree for path, tree in table.items()} for table in wanted]
        named = {path for table in alternatives for path in table}
        found: dict[str, dict[str, tuple[str, str, str]]] = {}
        for path, entry in sorted(_below(listing, root).items()):
            top, _, rest = path.partition("/")
            found.setdefault(top, {})[rest or "."] = entry

        def matches(top: str, patterns: Iterable[str]) -> bool:
            return any(fnmatch.fnmatchcase(top, fill(pattern, words)) for pattern in patterns)

        others = [top for top in found if top not in named and not matches(top, scenario.keep)]
        if [top for top in others if not matches(top, litter)]:
            return f"{self.place} holds what it must not"
        if most is not None and len(others) > most:
            return f"{self.place} holds {len(others)} temporary directories, not {most}"
        for table in alternatives:
            absent = [path for path in named - set(table) if path in found]
            trees = {path: self.scenarios.trees[tree] for path, tree in table.items()}
            if not absent and all(self.same(found.get(path), tree) for path, tree in trees.items()):
                return ""
        return f"{self.place} holds what it must not"

    @staticmethod
    def same(found: Mapping[str, tuple[str, str, str]] | None, tree: Mapping[str, str]) -> bool:
        """Whether a listing is a tree: its files with their contents, nothing else, and the mode of its top."""
        top = found.get(".") if found else None
        if not found or not top or top[0] != "directory" or top[1] != tree.get(".", top[1]):
            return False
        files = {path: entry[2] for path, entry in found.items() if entry[0] != "directory"}
        return files == {path: text for path, text in tree.items() if path != "."}

    def problems(self, scenario: Scenario, result: Result, reference: Result | None) -> list[str]:
        """What did not hold, each as one line."""
        expect = scenario.expect
        allowed_trouble = reference.trouble if reference and "reference" in expect.exit.values() else ()
        problems = [what for what in result.trouble if what not in allowed_trouble]
        if self.hopeless(scenario):
            problems = [what for what in problems if FOR_EVER not in what and not what.startswith("did not end")]
        if not result.looks:
            return problems or ["there is no result"]
        words = self.stage.words(scenario, self.stage.patched)
        root = fill(self.scenarios.root, words)
        for name, run in result.runs.items():
            wanted, same = expect.exit.get(name, ""), reference.runs.get(name) if reference else None
            # Where what a script writes to ends by the same signal, a closed pipe may end the script before its trap.
            piped = same is not None and _by_pipe(run, same)
            if wanted == "reference" and same:
                wanted = "" if piped else str(same.status)
                # A build in a group of its own is not told, so bash may ignore the signal; to end by it is no worse.
                if same.aside and run.aside and same.status == 0 and run.status in _sent(scenario, name):
                    wanted = ""
            if wanted == "refused":
                # A script that heeds no failure goes on, and one that tries again may succeed then.
                wanted = "" if self.heedless or self.hopeless(scenario) or len(run.tagged()) > 1 else "failure"
            if wanted and not (run.status not in {0, None} if wanted == "failure" else str(run.status) == wanted):
                problems.append(f"run {name} ended with {run.status}, not {wanted}")
            # What a trap finds in $? when a signal ends the script is the status of the command before the build.
            ended = (run.status or 0) < 0 and run.exits.count("\n") == same.exits.count("\n") if same else False
            if same and "reference" in expect.exit.values() and run.exits != same.exits and not (ended or piped):
                problems.append(f"the EXIT trap wrote {run.exits!r}, not {same.exits!r}")
            heard = any(self.stage.language in self.scenarios.preludes[prelude] for prelude in scenario.preludes)
            if expect.exits is not None and heard and run.status != -9 and run.exits.count("\n") != expect.exits:
                problems.append(f"the EXIT trap of run {name} ran {run.exits.count(chr(10))} times")
            if same and expect.calls == "reference" and not _alike(run.plain(), run, same.plain(), same):
                problems.append("the calls are not those of the unpatched script")
            if same and expect.calls == "added":
                problems += self.added(expect.added, run, same, words)
            if expect.tagged is not None and len(run.tagged()) != expect.tagged:
                problems.append(f"{len(run.tagged())} builds, not {expect.tagged}")
            if same and expect.dispositions and run.dispositions() != same.dispositions():
                problems.append("the signals' dispositions after the build are not those of the unpatched script")
            lines = [line for line in run.errors.splitlines() if not line.startswith("+")]
            if same and expect.quiet:
                known = {re.sub(r"\d+", "0", line) for line in same.errors.splitlines()}  # `time` never says the same
                new = [line for line in lines if re.sub(r"\d+", "0", line) not in known]
                problems += [f"standard error has {line!r}" for line in new][:1]
            for text in expect.says:
                # Each try of a build says the same.
                said = len(self.says(pattern(text, words), result, run))
                if said != 1 and not (self.mute and said == 0):
                    where = " or ".join("standard error" if at == "errors" else at for at, _ in self.places)
                    problems.append(f"not one line of {where} says {fill(text, words)}")
        if expect.look:
            problems += [
                f"{what}, on the way"
                for listing in result.looks[:-1]
                if (what := self.leaves(scenario, listing, look=True))
            ]
        if expect.leaves and (what := self.leaves(scenario, result.looks[-1], look=False)):
            problems.append(what)
        if expect.before:
            before = {path: entry for path, entry in result.before.items() if f"{path}/".startswith(f"{root}/")}
            after = {path: entry for path, entry in result.looks[-1].items() if f"{path}/".startswith(f"{root}/")}
            if before != after:
                problems.append(f"{self.place} is not as it was")
        usual = [_changed(one, root) for one in (self.plain, reference) if one and one.looks]
        allowed = {name for changed in usual for pair in changed.items() for name in pair}
        unusual = [path for path, other in _changed(result, root).items() if not {path, other} & allowed]
        problems += [f"outside of {self.place}, {path} was made, changed or removed" for path in sorted(unusual)[:3]]
        return problems

    def hopeless(self, scenario: Scenario) -> bool:
        """Whether the script tries for ever what is refused each time."""
        return self.endless and "refused" in scenario.expect.exit.values() and scenario.expect.tagged == 0

    def says(self, said: re.Pattern[str], result: Result, run: Run) -> set[str]:
        """The different lines that match, where the script has the messages of its build appear.

        Without those that a trace or a trap on ERR made of the script's own text.
        """
        written = _written(result, run)
        lines = [
            line[match.end() :]
            for place, before in self.places
            for line in written.get(place, "").splitlines()
            if (match := re.match(before, line)) and not line.startswith("+", match.end())
        ]
        return {line for line in lines if said.search(line) and not any(one in line for one in self.source)}

    def added(self, pairs: Iterable[tuple[str, str]], run: Run, same: Run, words: Mapping[str, str]) -> list[str]:
        """Whether the tagged calls are the reference's with each pair once more, as two words or with ``=``."""
        wanted = [(option, fill(value, words)) for option, value in pairs]
        calls: list[tuple[str, ...]] = []
        for call in run.tagged():
            left, missing = list(call), list(wanted)
            for option, value in wanted:
                for index, word in enumerate(left):
                    following = left[index + 1] if index + 1 < len(left) else ""
                    if word == option and fnmatch.fnmatchcase(following, value):
                        del left[index : index + 2]
                    elif fnmatch.fnmatchcase(word, f"{option}={value}"):
                        del left[index]
                    else:
                        continue
                    missing.remove((option, value))
                    break
            calls.append(tuple(left))
            if missing:
                return [f"the build's words lack {option} {value}" for option, value in missing]
        if not _alike(calls, run, same.tagged(), same):
            return ["the build's words are not those of the unpatched script and the added ones"]
        return []

    def evidence(self, scenario: Scenario, result: Result, reference: Result | None) -> str:
        """The tagged calls and the tree beside the expected ones, and the end of the output."""
        words = self.stage.words(scenario, self.stage.patched)
        root = fill(self.scenarios.root, words)
        lines = [f"steps: {', '.join(scenario.steps)}"]
        for name, run in result.runs.items():
            lines.append(f"run {name}: status {run.status}")
            lines += [f"  called {' '.join(call)}" for call in run.tagged()]
            if reference and name in reference.runs:
                lines += [f"  unpatched, {' '.join(call)}" for call in reference.runs[name].tagged()]
        for alternative in scenario.expect.leaves:
            shown = ", ".join(f"{fill(path, words)} = {tree}" for path, tree in alternative.items())
            lines.append(f"expected in {root}: {shown or 'nothing'}")
        for number, listing in enumerate(result.looks, 1):
            lines.append(f"found in {root}{' on the way' if number < len(result.looks) else ''}:")
            lines += [f"  {path} {' '.join(entry)}".rstrip() for path, entry in sorted(_below(listing, root).items())]
        for name, run in result.runs.items():
            lines += [f"output of run {name}:", *(f"  {line}" for line in run.output.splitlines()[-8:])]
            lines += [f"errors of run {name}:", *(f"  {line}" for line in run.errors.splitlines()[-25:])]
        if len(lines) > _LINES:
            lines[_LINES:] = [f"... and {len(lines) - _LINES} lines more"]
        return "\n".join(line[:_WIDTH] for line in lines)

    def happened(self, scenario: Scenario, result: Result) -> str:
        """The steps, the tagged calls, and the tree before and after, for a scenario that held.

        The same on every run: ``…`` stands for an entry of the tree that nothing here has named.
        """
        words = self.stage.words(scenario, self.stage.patched)
        root = fill(self.scenarios.root, words)
        named = {
            fill(path, words) for path in (*scenario.keep, *(name for one in scenario.expect.leaves for name in one))
        }
        named |= {path.partition("/")[0] for path in _below(result.before, root)}

        def steady(text: str) -> str:
            entry = re.compile(rf"({re.escape(root)}/)([^/,\s]+)")
            return entry.sub(lambda match: match[1] + (match[2] if match[2] in named else "…"), text)

        lines = [f"steps: {', '.join(scenario.steps)}"]
        for name, run in result.runs.items():
            lines += [f"run {name} called {steady(' '.join(call))}" for call in run.tagged()]
            lines.append(f"run {name} ended with {run.status}")
        for when, listing in (("before", result.before), ("after", result.looks[-1])):
            tree = [steady(f"{root}/{path}{_shown(entry)}") for path, entry in sorted(_below(listing, root).items())]
            lines.append(f"{when}, in {root}{':' if tree else ': nothing'}")
            lines += [f"  {line.removeprefix(f'{root}/')}" for line in tree]
        return "\n".join(line[:_WIDTH] for line in lines[:_LINES])

    def judge(self, scenario: Scenario, result: Result, reference: Result | None) -> Finding:
        """The finding of one scenario."""
        if (
            scenario.needs
            and reference
            and not (
                reference.looks
                and all(run.status == 0 and len(run.tagged()) >= scenario.needs for run in reference.runs.values())
            )
        ):
            return Finding(scenario.name, Verdict.HELD, "does not arise in this script", scenario.row)
        if reference and result.trouble == reference.trouble and any(FOR_EVER in what for what in result.trouble):
            return Finding(scenario.name, Verdict.HELD, "the script itself tries for ever", scenario.row)
        exits = scenario.expect.exit.values()
        problems = self.problems(scenario, result, reference)
        if not problems:
            note = "the script itself goes on after a failed build" if self.heedless and "refused" in exits else ""
            if self.hopeless(scenario):
                note = "the script itself tries for ever"
            if scenario.expect.says and self.mute:
                note = "the script itself shows no message of its build"
            return Finding(scenario.name, Verdict.HELD, note, scenario.row, self.happened(scenario, result))
        evidence = self.evidence(scenario, result, reference)
        return Finding(scenario.name, Verdict.BROKEN, "; ".join(problems), scenario.row, evidence)
