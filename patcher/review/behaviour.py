"""The behavioural review: runs a recipe's scenarios on a script in the sandbox and says what held.

Nothing here knows what the recipe changes. A scenario (``patcher.review.scenarios``) says what is there before, how
the script's environment and the programs it calls behave, which steps the driver leads it through and what must
hold; the unpatched script, run in the same way, is the reference.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import marshal
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from patcher.model import Finding, Script, Verdict
from patcher.review import sandbox
from patcher.review.scenarios import Entry, Expect, Scenario, Scenarios, fill, load

HOME = "/home/ci"
TREE = f"{HOME}/tree"
WORK = "/run/ci-patcher"  # the driver's, in the sandbox
PATH = "/usr/local/bin:/usr/bin:/bin"
SECONDS = 30
"""Wall time of one scenario, in seconds; a whole run of a script takes a tenth of one."""

_START = "import marshal, sys; load = marshal.load; names = load(sys.stdin.buffer); exec(load(sys.stdin.buffer), names)"
_HARNESS = resources.files("patcher.review") / "harness"
# Names that steer the shell, the linker or Python itself, and so say nothing about the block.
_SPARED = re.compile(r"PATH|IFS|HOME|PWD|OLDPWD|ENV|PS\d|UID|EUID|PPID|TMPDIR|BASH.*|SHELL.*|LD_.*|PYTHON.*|LC_.*|LANG.*")
_READ = re.compile(r"""\$\{?([A-Za-z_]\w*)|(?:environ\[|environ\.get\(|getenv\()["'](\w+)""")

OUTPUT = 4 << 20
"""Bytes of one scenario's result, at most."""

BATCH = 6
"""How many scenarios share a sandbox."""

Listing = Mapping[str, tuple[str, str, str]]
"""A directory tree: path -> kind, mode and content."""

load_scenarios = load


@dataclass(frozen=True, slots=True)
class Trace:
    """A signal at a point inside the block: before its ``point``-th command or line; 0 counts them."""

    lines: tuple[int, ...]
    point: int = 0
    signal: str = "KILL"
    whom: str = "group"


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the script left: status (negative for a signal), output, recorded calls."""

    status: int | None
    output: str
    calls: tuple[tuple[str, ...], ...]
    exits: str
    points: tuple[str, ...]

    def tagged(self) -> list[tuple[str, ...]]:
        """The calls that the stub engine took for the one at issue, without its tag."""
        return [call[1:] for call in self.calls if call[0] == "build"]

    def plain(self) -> list[tuple[str, ...]]:
        """All calls; of the tag only its first word, which is the same on every run."""
        return [(call[0].split(" ")[0], *call[1:]) for call in self.calls]

    def dispositions(self) -> list[str]:
        """Which signals are ignored and caught at each call after the one at issue.

        Not whether SIGINT is caught: bash does so itself while it waits, from a moment after the call began.
        """
        masks = [call[0].split()[1:] for call in self.calls if call[0].startswith("after ")]
        return [f"{ignored} {int(caught, 16) & ~2:x}" for ignored, caught in masks]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one scenario: its runs by number, the tree before, at each ``look`` and at the end."""

    runs: Mapping[str, Run]
    before: Listing
    looks: tuple[Listing, ...]
    trouble: tuple[str, ...] = ()


Event = tuple[Scenario, Script, Trace | None]


def language(script: Script) -> str:
    """``py`` or ``sh``, from the first line, else from the suffix."""
    first = script.text.partition("\n")[0]
    if first.startswith("#!"):
        return "py" if "python" in first else "sh"
    return "py" if script.path.endswith(".py") else "sh"


def added_lines(original: str, patched: str) -> tuple[int, ...]:
    """The numbers of the lines of ``patched`` that ``original`` has not, from 1."""
    matcher = difflib.SequenceMatcher(None, original.splitlines(), patched.splitlines(), autojunk=False)
    return tuple(
        number + 1
        for tag, _, _, start, end in matcher.get_opcodes()
        if tag in {"insert", "replace"}
        for number in range(start, end)
    )


def _harness(name: str) -> str:
    return (_HARNESS / name).read_text(encoding="utf8")


class Review:
    """One script and its reference, ready to be put through scenarios."""

    def __init__(
        self,
        scenarios: Scenarios,
        original: Script,
        patched: Script,
        options: Mapping[str, str],
        companions: Mapping[str, Script],
        keep: Path | None,
    ) -> None:
        self.scenarios, self.original, self.patched, self.companions = scenarios, original, patched, companions
        self.language = language(patched)
        self.keep = keep
        self.conditions = {}
        for name, value in options.items():
            variable, equals, wanted = value.partition("=")
            if equals:
                self.conditions[name] = (variable, wanted)
        self.driver = marshal.dumps(compile(_harness("driver.py"), "driver.py", "exec"))
        self.harness = {name: _harness(name) for name in ("stub.sh", "wrap.sh", "trace.sh", "sitecustomize.py")}
        known = set(_READ_NAMES(original.text))
        added = "\n".join(patched.text.splitlines()[n - 1] for n in added_lines(original.text, patched.text))
        self.poison = {
            **{name: f"{HOME}/survivors/{name}" for name in re.findall(r"\b[A-Za-z_]\w*\b", added)},
            **dict.fromkeys(known, ""),
        }

    def words(self, scenario: Scenario, script: Script) -> dict[str, str]:
        words = {"home": HOME, "tree": TREE, "script": f"{TREE}/{script.path}", **self.scenarios.words, **scenario.words}
        if scenario.option:
            words["variable"], words["value"] = self.conditions[scenario.option]
        return words

    def job(self, scenario: Scenario, script: Script, trace: Trace | None) -> dict[str, Any]:
        """What the driver is told (see ``harness/driver.py``)."""
        words = self.words(scenario, script)
        environment: dict[str, str | None] = {
            "PATH": "",
            "HOME": HOME,
            "USER": "ci",
            "LC_ALL": "C.UTF-8",
            **dict(self.conditions.values()),
        }
        environment.update(self.scenarios.environment)
        files = [[f"{WORK}/lib/{name}", "file", "755", text] for name, text in self.programs().items()]
        if scenario.poison:
            taken = {*environment, *scenario.environment}
            for name, value in self.poison.items():
                if name not in taken and not _SPARED.fullmatch(name):
                    environment[name] = value
                    if value:
                        files.append([f"{value}/precious", "file", "644", name])
        environment.update({fill(name, words): value for name, value in scenario.environment.items()})
        for folder in (HOME, TREE, f"{HOME}/scratch"):
            files.append([folder, "directory", "755", ""])
        for path, text in self.scenarios.tree.items():
            files.append([f"{TREE}/{path}", "file", "755", text])
        for path, companion in {**self.companions, script.path: script}.items():
            files.append([f"{TREE}/{path}", "file", "755", companion.text])
        for entry in scenario.before:
            files += self.entry(entry, words)
        runs = {}
        for name in sorted({step.split()[1] for step in scenario.steps if step != "look"}):
            folder = f"{WORK}/run{name}"
            runs[name] = {
                "folder": folder,
                "cwd": TREE,
                "argv": self.argv(scenario, script, words),
                "environment": {
                    key: fill(value, words)
                    for key, value in {**environment, **self.switches(folder)}.items()
                    if value is not None
                },
            }
            runs[name]["environment"]["PATH"] = f"{folder}/bin:{PATH}"
            files += self.run_files(folder, name, scenario, words, trace if name == "1" else None, script)
        return fill(
            {
                "root": HOME,
                "files": files,
                "runs": runs,
                "clean": ["/home", "/tmp", WORK],
                "steps": list(scenario.steps),
                "seconds": SECONDS,
                "limits": dict(sandbox.LIMITS),
            },
            {},
        )

    def programs(self) -> dict[str, str]:
        """The programs and helpers in the sandbox's ``lib``, by name."""
        return {
            "stub.sh": self.harness["stub.sh"],
            "wrap.sh": self.harness["wrap.sh"],
            "quiet.sh": "#!/bin/sh\nexit 0\n",
            "python/sitecustomize.py": self.harness["sitecustomize.py"],
            **{f"program.{name}": text for name, text in self.scenarios.programs.items()},
        }

    def switches(self, folder: str) -> dict[str, str]:
        """The variables by which the harness gets into the script's own process."""
        inside = {"CI_PATCHER_RUN": folder}
        if self.language == "py":
            return {**inside, "PYTHONPATH": f"{WORK}/lib/python", "PYTHONDONTWRITEBYTECODE": "1"}
        return {**inside, "BASH_ENV": f"{folder}/prelude.sh"}

    def argv(self, scenario: Scenario, script: Script, words: Mapping[str, str]) -> list[str]:
        how = scenario.how or self.scenarios.files.get(script.path, "") or next(iter(self.scenarios.how))
        argv = [fill(word, words) for word in self.scenarios.how[how]]
        if argv == [words["script"]] and not script.text.startswith("#!"):
            argv.insert(0, "python3" if self.language == "py" else "bash")
        return argv

    def entry(self, entry: Entry, words: Mapping[str, str]) -> list[list[str]]:
        path = fill(entry.path, words)
        if entry.link:
            return [[path, "link", "", fill(entry.link, words)]]
        if entry.text:
            return [[path, "file", "644", entry.text]]
        tree = self.scenarios.trees[entry.tree]
        files = [[f"{path}/{name}", "file", "644", text] for name, text in tree.items() if name != "."]
        return [[path, "directory", tree.get(".", "755"), ""], *files]

    def run_files(
        self, folder: str, name: str, scenario: Scenario, words: Mapping[str, str], trace: Trace | None, script: Script
    ) -> list[list[str]]:
        """The control directory of one run."""
        kinds = self.scenarios.wrap
        preludes = "\n".join(self.scenarios.preludes[p].get(self.language, "") for p in scenario.preludes)
        settings = {"kinds": kinds, "watched": f"{fill(self.scenarios.root, words)}/", "trace": None}
        shell = "unset BASH_ENV\n" + preludes + "\n"
        if trace is not None:
            at = {"script": words["script"], "lines": trace.lines, "point": trace.point}
            settings["trace"] = {**at, "signal": trace.signal, "whom": trace.whom}
            shell += (
                f"ci_patcher_script={words['script']}\nci_patcher_lines=' {' '.join(map(str, trace.lines))} '\n"
                f"ci_patcher_point={trace.point}\nci_patcher_signal={trace.signal}\nci_patcher_whom={trace.whom}\n"
                + self.harness["trace.sh"]
            )
        files = [
            [f"{folder}/at", "pipe", "600", ""],
            [f"{folder}/go", "pipe", "600", ""],
            [f"{folder}/log", "file", "644", ""],
            [f"{folder}/path", "file", "644", f"{PATH}\n"],
            [f"{folder}/watched", "file", "644", f"{settings['watched']}\n"],
            [f"{folder}/watch.json", "file", "644", json.dumps(settings)],
            [f"{folder}/prelude.sh", "file", "644", shell],
        ]
        if preludes and self.language == "py":
            files.append([f"{folder}/prelude.py", "file", "644", preludes])
        for program in self.scenarios.programs:
            files.append([f"{folder}/bin/{program}", "link", "", f"{WORK}/lib/program.{program}"])
        for program in self.scenarios.quiet:
            files.append([f"{folder}/bin/{program}", "link", "", f"{WORK}/lib/quiet.sh"])
        for program, kind in kinds.items():
            if "." not in program:
                files.append([f"{folder}/bin/{program}", "link", "", f"{WORK}/lib/wrap.sh"])
                files.append([f"{folder}/wrap/{program}", "file", "644", f"{kind}\n"])
        for key, plans in scenario.plan.items():
            for number, word in enumerate(plans, 1):
                files.append([f"{folder}/plan/{key}.{number}", "file", "644", f"{word}\n"])
            files.append([f"{folder}/plan/{key}", "file", "644", f"{plans[-1]}\n"])
        for step in scenario.steps:
            verb, *rest = step.split()
            if verb == "wait" and rest[0] == name:
                files.append([f"{folder}/arm/{rest[1]}", "file", "644", ""])
        return files

    def play(self, events: Sequence[Event]) -> list[Result]:
        """Runs events one after another in one sandbox, emptied between them; one that has mounts runs alone."""
        jobs = [self.job(*event) for event in events]
        with tempfile.TemporaryDirectory(prefix="ci-patcher-") as folder:
            binds = [bind for event, job in zip(events, jobs, strict=True) for bind in self.binds(event, job, Path(folder))]
            # Compiled here, once: compiling it takes the sandbox's Python longer than running it. Nothing is ever
            # unmarshalled on this side.
            outcome = sandbox.run(
                [sandbox.python(), "-I", "-S", "-c", _START],
                stdin=marshal.dumps({"__name__": "__main__", "jobs": jobs}) + self.driver,
                binds=binds,
                seconds=SECONDS * len(jobs) + 15,
                output=OUTPUT * len(jobs),
            )
        lines = outcome.stdout.splitlines()
        return [_result(lines[index] if index < len(lines) else b"", outcome) for index in range(len(jobs))]

    def binds(self, event: Event, job: dict[str, Any], folder: Path) -> list[sandbox.Bind]:
        """Makes the directories that the sandbox mounts, and takes what lies in them out of the job."""
        scenario, script, _ = event
        words = self.words(scenario, script)
        binds = []
        for number, mount in enumerate(scenario.mounts):
            source, at = folder / str(number), fill(mount.at, words)
            source.mkdir(mode=0o755)
            for file in [file for file in job["files"] if file[0] == at or file[0].startswith(f"{at}/")]:
                job["files"].remove(file)
                target = source / os.path.relpath(file[0], at)
                if file[1] == "directory":
                    target.mkdir(parents=True, exist_ok=True)
                    target.chmod(int(file[2], 8))
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(file[3], encoding="utf8")
            binds.append(sandbox.Bind(source, at, mount.read_only))
        if self.keep is not None:
            for name in ("home", "run", "tmp"):
                kept = self.keep / re.sub(r"[^\w.-]+", "-", f"{scenario.row}-{scenario.name or 'unpatched'}") / name
                kept.mkdir(parents=True, exist_ok=True)
                binds.insert(0, sandbox.Bind(kept, f"/{name}"))
        return binds

    def batches(self, events: Sequence[Event]) -> list[list[Event]]:
        """The events in the groups that share a sandbox."""
        groups: list[list[Event]] = [[]]
        for event in events:
            alone = bool(event[0].mounts) or self.keep is not None
            if alone:
                groups.insert(-1, [event])
            else:
                groups[-1].append(event)
                if len(groups[-1]) == BATCH:
                    groups.append([])
        return [group for group in groups if group]


def _READ_NAMES(text: str) -> Iterable[str]:  # noqa: N802
    for match in _READ.finditer(text):
        yield match[1] or match[2]


def _listing(entries: Iterable[list[str]]) -> Listing:
    return {path: (kind, mode, content) for path, kind, mode, content in entries}


def _calls(log: str) -> tuple[tuple[str, ...], ...]:
    words = log.split("\0")
    calls, index = [], 0
    while index < len(words) and words[index].isdigit():
        count = int(words[index])
        calls.append(tuple(words[index + 1 : index + 1 + count]))
        index += 1 + count
    return tuple(call for call in calls if call)


def _result(line: bytes, outcome: sandbox.Outcome) -> Result:
    """Reads what the driver wrote; a script may have tampered with it, so nothing in it is trusted to fit."""
    try:
        value = json.loads(line)
        trouble = [what for what in (value["stopped"], *value["missed"]) if what]
        return Result(
            runs={
                name: Run(
                    status=run["status"],
                    output=str(run["output"]),
                    calls=_calls(run["log"]),
                    exits=str(run["exits"]),
                    points=tuple(run["points"].splitlines()),
                )
                for name, run in value["runs"].items()
            },
            before=_listing(value["before"]),
            looks=tuple(_listing(entries) for entries in value["looks"]),
            trouble=tuple(trouble),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        lines = outcome.stderr.decode("utf8", "replace").strip().splitlines()
        what = outcome.trouble or f"the sandbox ended with status {outcome.status}"
        return Result({}, {}, (), (f"{what}{': ' if lines else ''}{' '.join(lines[-1:])}",))


def _below(listing: Listing, root: str) -> dict[str, tuple[str, str, str]]:
    return {path[len(root) + 1 :]: entry for path, entry in listing.items() if path.startswith(f"{root}/")}


def _outside(listing: Listing, root: str) -> dict[str, tuple[str, str, str]]:
    return {path: entry for path, entry in listing.items() if path != root and not path.startswith(f"{root}/")}


def _changed(result: Result, root: str) -> set[str]:
    """The paths outside of ``root`` that a scenario made, changed or removed; a directory's own entry is not one."""
    before, after = _outside(result.before, root), _outside(result.looks[-1], root)
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


class Judge:
    """Compares what came of a scenario with what it expects."""

    def __init__(self, review: Review, plain: Result) -> None:
        self.review = review
        self.scenarios = review.scenarios
        self.plain = plain

    def leaves(
        self, scenario: Scenario, listing: Listing, wanted: tuple[Mapping[str, str], ...], litter: Iterable[str]
    ) -> str:
        """What is wrong with ``root`` in a listing, or nothing."""
        words = self.review.words(scenario, self.review.patched)
        root = fill(self.scenarios.root, words)
        found: dict[str, dict[str, tuple[str, str, str]]] = {}
        for path, entry in sorted(_below(listing, root).items()):
            top, _, rest = path.partition("/")
            found.setdefault(top, {})[rest or "."] = entry
        for alternative in wanted:
            named = {fill(path, words): self.scenarios.trees[tree] for path, tree in alternative.items()}
            rest = [
                top
                for top, entries in found.items()
                if top not in named
                and not (
                    any(fnmatch.fnmatchcase(top, fill(pattern, words)) for pattern in litter)
                    and not any(top == fill(path, words) for table in wanted for path in table)
                )
            ]
            if not rest and all(self.same(found.get(top), tree) for top, tree in named.items()):
                return ""
        return f"{self.scenarios.root.strip('{}')} holds what it must not"

    @staticmethod
    def same(found: Mapping[str, tuple[str, str, str]] | None, tree: Mapping[str, str]) -> bool:
        """Whether a listing is a tree: its files with their contents, nothing else, and the mode of its top."""
        if found is None or found["."][0] != "directory" or found["."][1] != tree.get(".", found["."][1]):
            return False
        files = {path: entry[2] for path, entry in found.items() if entry[0] != "directory"}
        return files == {path: text for path, text in tree.items() if path != "."}

    def problems(self, scenario: Scenario, result: Result, reference: Result | None) -> list[str]:
        """What did not hold, each as one line."""
        expect = scenario.expect
        allowed_trouble = reference.trouble if reference and "reference" in expect.exit.values() else ()
        problems = [what for what in result.trouble if what not in allowed_trouble]
        if not result.looks:
            return problems or ["there is no result"]
        words = self.review.words(scenario, self.review.patched)
        root = fill(self.scenarios.root, words)
        for name, run in result.runs.items():
            wanted, same = expect.exit.get(name, ""), reference.runs.get(name) if reference else None
            if wanted == "reference" and same:
                wanted = str(same.status)
            if wanted and not (run.status not in {0, None} if wanted == "failure" else str(run.status) == wanted):
                problems.append(f"run {name} ended with {run.status}, not {wanted}")
            if same and "reference" in expect.exit.values() and run.exits != same.exits:
                problems.append(f"the EXIT trap wrote {run.exits!r}, not {same.exits!r}")
            if same and expect.calls == "reference" and run.plain() != same.plain():
                problems.append("the calls are not those of the unpatched script")
            if same and expect.calls == "added":
                problems += self.added(expect.added, run, same, words)
            if expect.tagged is not None and len(run.tagged()) != expect.tagged:
                problems.append(f"{len(run.tagged())} builds, not {expect.tagged}")
            if same and expect.dispositions and run.dispositions() != same.dispositions():
                problems.append("the signals' dispositions after the build are not those of the unpatched script")
            lines = [line for line in run.output.splitlines() if not line.startswith("+")]
            for pattern in expect.says:
                if sum(re.search(fill(pattern, words), line) is not None for line in lines) != 1:
                    problems.append(f"not one line of the output says {fill(pattern, words)}")
        if expect.look:
            for listing in result.looks[:-1]:
                if what := self.leaves(scenario, listing, expect.look, (*scenario.keep, *expect.litter)):
                    problems.append(f"{what}, on the way")
        if expect.leaves and (what := self.leaves(scenario, result.looks[-1], expect.leaves, scenario.keep)):
            problems.append(what)
        if expect.before:
            before = {path: entry for path, entry in result.before.items() if f"{path}/".startswith(f"{root}/")}
            after = {path: entry for path, entry in result.looks[-1].items() if f"{path}/".startswith(f"{root}/")}
            if before != after:
                problems.append(f"{self.scenarios.root.strip('{}')} is not as it was")
        allowed = _changed(self.plain, root) | (_changed(reference, root) if reference and reference.looks else set())
        for path in sorted(_changed(result, root) - allowed)[:3]:
            problems.append(f"outside of {self.scenarios.root.strip('{}')}, {path} was made, changed or removed")
        return problems

    def added(
        self, pairs: Iterable[tuple[str, str]], run: Run, same: Run, words: Mapping[str, str]
    ) -> list[str]:
        """Whether the tagged calls are the reference's with each pair once more, as two words or with ``=``."""
        wanted = [(option, fill(value, words)) for option, value in pairs]
        calls = []
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
            calls.append((left, missing))
        if [left for left, _ in calls] != [list(call) for call in same.tagged()] or any(missing for _, missing in calls):
            return ["the build's words are not those of the unpatched script and the added ones"]
        return []

    def evidence(self, scenario: Scenario, result: Result, reference: Result | None) -> str:
        """The tagged calls and the tree beside the expected ones, and the end of the output."""
        words = self.review.words(scenario, self.review.patched)
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
            lines += [f"output of run {name}:", *(f"  {line}" for line in run.output.splitlines()[-15:])]
        return "\n".join(lines)

    def judge(self, scenario: Scenario, result: Result, reference: Result | None) -> Finding:
        """The finding of one scenario."""
        if scenario.needs and reference and not (
            reference.looks and all(str(run.status) == scenario.needs for run in reference.runs.values())
        ):
            return Finding(scenario.name, Verdict.HELD, "does not arise in this script", scenario.row)
        problems = self.problems(scenario, result, reference)
        if not problems:
            return Finding(scenario.name, Verdict.HELD, "", scenario.row)
        evidence = self.evidence(scenario, result, reference)
        return Finding(scenario.name, Verdict.BROKEN, "; ".join(problems), scenario.row, evidence)


def _wants_reference(scenario: Scenario) -> bool:
    expect = scenario.expect
    return bool(scenario.needs or expect.calls or expect.dispositions or "reference" in expect.exit.values())


def _cannot_run(result: Result) -> str:
    """Why the unpatched script does not do in the harness; empty where it does."""
    if result.trouble or "1" not in result.runs:
        return "; ".join(result.trouble) or "there is no result"
    run = result.runs["1"]
    if run.status != 0:
        last = [line for line in run.output.splitlines() if line.strip() and not line.startswith("+")][-1:]
        return f"unpatched, it ends with {run.status}{''.join(f' ({line.strip()})' for line in last)}"
    return "" if run.tagged() else "unpatched, it builds nothing"


def applicable(review: Review) -> tuple[Scenario, ...]:
    """The scenarios for the script's language and the chosen options."""
    return tuple(
        scenario
        for scenario in review.scenarios.scenarios
        if (not scenario.languages or review.language in scenario.languages)
        and (not scenario.option or scenario.option in review.conditions)
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

    ``options`` are the recipe's as chosen; ``companions`` are other files of the tree, by path. ``exhaustive`` adds
    a finding for each signal at every point inside the block. ``jobs`` run at once (default: the processors).
    ``keep`` is a directory that gets every scenario's files. ``progress`` is called with the number done and the
    number of all. ``first`` stops at the first scenario that does not hold.

    Where there is no sandbox, or the original itself cannot run in it, every finding is "not run" with the reason.
    """
    review = Review(scenarios, original, patched, options, companions, keep)
    wanted = applicable(review)
    if why := sandbox.missing():
        return tuple(Finding(s.name, Verdict.NOT_RUN, why, s.row) for s in wanted)
    unpatched = Scenario("", 0, before=scenarios.before)
    plain = review.play([(unpatched, original, None)])[0]
    if why := _cannot_run(plain):
        return tuple(Finding(s.name, Verdict.NOT_RUN, why, s.row) for s in wanted)
    judge = Judge(review, plain)
    # Scenarios that differ only in what they expect share an event.
    events: dict[str, Event] = {}
    keys = []
    for scenario in wanted:
        event = replace(scenario, row=0, needs="", keep=(), expect=Expect(), name=scenario.name if keep else "")
        pair = []
        for script in (patched, *([original] if _wants_reference(scenario) else [])):
            key = f"{script is original} {event}"
            events.setdefault(key, (event, script, None))
            pair.append(key)
        keys.append(pair)
    findings: list[Finding] = []
    results: dict[str, Result] = {}
    names = {id(event): key for key, event in events.items()}
    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        groups = review.batches(list(events.values()))
        for group, future in [(group, pool.submit(review.play, group)) for group in groups]:
            results.update(zip((names[id(event)] for event in group), future.result(), strict=True))
            for scenario, pair in zip(wanted[len(findings) :], keys[len(findings) :], strict=True):
                if any(key not in results for key in pair):
                    break
                findings.append(judge.judge(scenario, results[pair[0]], results[pair[1]] if pair[1:] else None))
                if first and findings[-1].verdict is Verdict.BROKEN:
                    pool.shutdown(cancel_futures=True)
                    return tuple(findings)
            if progress:
                progress(len(findings), len(wanted))
    return tuple(findings)
