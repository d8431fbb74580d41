"""One script on the stage: what a scenario is to the driver, how it is run, and what came of it."""

from __future__ import annotations

import difflib
import json
import marshal
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from patcher.model import Script
from patcher.review import sandbox
from patcher.review.scenarios import Entry, Scenario, Scenarios, fill

HOME = "/home/ci"
TREE = f"{HOME}/tree"
WORK = "/run/ci-patcher"  # the driver's, in the sandbox
PATH = "/usr/local/bin:/usr/bin:/bin"
ENGINES = ("buildah", "docker", "nerdctl", "podman")  # never the machine's own, whatever a recipe has stubs for

_START = "import marshal, sys; load = marshal.load; names = load(sys.stdin.buffer); exec(load(sys.stdin.buffer), names)"
_HARNESS = resources.files("patcher.review") / "harness"
# Names that steer the shell, the linker or Python itself, and so say nothing about the block.
_SPARED = re.compile(r"PATH|IFS|HOME|(OLD)?PWD|ENV|PS\d|E?UID|PPID|TMPDIR|(BASH|SHELL|LD_|PYTHON|LC_|LANG|GIT_).*")
_READ = re.compile(
    r"""\$(?:\{[#!]?)?([A-Za-z_]\w*)|(?:environ\[|environ\.get\(|getenv\()["'](\w+)|\s-v\s+([A-Za-z_]\w*)"""
)

STOOD_STILL = "stood still"
"""Said by the driver of a run that waits for another, which it holds at a point."""

FOR_EVER = "tries for ever"
"""Said by the driver of a run that starts a program again and again."""

OUTPUT = 4 << 20
"""Bytes of one scenario's result, at most."""

BATCH = 9
"""How many scenarios share a sandbox."""

Listing = Mapping[str, tuple[str, str, str]]
"""A directory tree: path -> kind, mode and content."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A signal at a point inside the block: before its ``point``-th command or line; 0 counts them."""

    lines: tuple[int, ...]
    point: int = 0
    signal: str = "KILL"
    whom: str = "group"


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the script left: process id, status (negative for a signal), what it wrote, recorded calls.

    ``said`` are the lines that the programs of the recipe wrote to their standard error by ``say``. ``aside`` tells
    that a process of it was in a group of its own when a signal was sent to the script's.
    """

    pid: int
    status: int | None
    output: str
    errors: str
    calls: tuple[tuple[str, ...], ...]
    exits: str
    points: tuple[str, ...]
    said: tuple[str, ...] = ()
    aside: bool = False

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
    """What came of one scenario: its runs by number, the tree before, at each ``look`` and at the end.

    ``scratch`` is what lies in ``/tmp`` at the end.
    """

    runs: Mapping[str, Run]
    before: Listing
    looks: tuple[Listing, ...]
    trouble: tuple[str, ...] = ()
    scratch: Listing = field(default_factory=dict)


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


@cache
def _harness(name: str) -> str:
    """A file of the harness; read once, so that a long run is not mixed with a version that is installed meanwhile."""
    return (_HARNESS / name).read_text(encoding="utf8")


class Stage:
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
        self.scenarios, self.original, self.patched = scenarios, original, patched
        self.companions = {path: one for path, one in companions.items() if path not in scenarios.tree}
        self.language = language(patched)
        self.keep = keep
        # The parts of each option's value, where that is not the default.
        self.chosen = {
            name: words
            for name, choice in scenarios.options.items()
            if (words := choice.option.words(options.get(name, choice.option.default)))
        }
        self.driver = marshal.dumps(compile(_harness("driver.py"), "driver.py", "exec"))
        names = ("stub.sh", "wrap.sh", "trace.sh", "sitecustomize.py", "sudo.sh", "launch.sh")
        self.harness = {name: _harness(name) for name in names}
        self.lib = self.library()
        lines = patched.text.splitlines()
        self.added = "\n".join(lines[n - 1] for n in added_lines(original.text, patched.text))
        # What the original reads is its own to choose its build by, and no name that the block brings along.
        own = set(_names(original.text))
        brought = sorted(set(re.findall(r"\b[A-Za-z_]\w*\b", self.added)) - own)
        self.poison = {name: f"{HOME}/survivors/{name}" for name in brought}
        self.define = dict.fromkeys(own, "")
        self.always_define = False
        self.withheld = False
        self.endless = False
        # Whoever runs a script with CR LF has the CRs taken out first, as the static review does.
        self.crlf = "\r\n" in original.text

    def define_all(self) -> None:
        """From now on every name that the script or a companion reads is defined, empty, in all scenarios."""
        self.define |= dict.fromkeys((name for one in self.companions.values() for name in _names(one.text)), "")
        self.always_define = True

    def withhold(self) -> None:
        """From now on nothing is there that a script may look for before it builds: `plan guard` says fail."""
        self.withheld = True

    def text(self, script: Script) -> str:
        return script.text.replace("\r\n", "\n") if self.crlf else script.text

    def seconds(self, scenario: Scenario) -> int:
        """The wall time of a scenario; short where no build is to come of it, and a script that tries for ever."""
        return 2 if self.endless and scenario.expect.tagged == 0 else self.scenarios.seconds

    def words(self, scenario: Scenario, script: Script) -> dict[str, str]:
        words = {"home": HOME, "tree": TREE, "script": f"{TREE}/{script.path}"}
        words |= {**self.scenarios.words, **scenario.words}
        if scenario.option:
            words |= self.chosen[scenario.option]
        return words

    def job(self, scenario: Scenario, script: Script, trace: Trace | None) -> dict[str, Any]:
        """What the driver is told (see ``harness/driver.py``)."""
        words = self.words(scenario, script)
        environment: dict[str, str | None] = {"HOME": HOME, "USER": "ci", "LC_ALL": "C.UTF-8"}
        environment.update(self.scenarios.environment)
        for name, parts in self.chosen.items():
            environment.update(fill(self.scenarios.options[name].environment, parts))
        files: list[list[str]] = []
        taken = {*environment, *scenario.environment}
        extra = {
            **(self.poison if scenario.poison else {}),
            **(self.define if scenario.define or self.always_define else {}),
        }
        for name, value in extra.items():
            if name not in taken and not _SPARED.fullmatch(name):
                environment[name] = value
                if value:
                    files.append([f"{value}/precious", "file", "644", name])
        environment.update({fill(name, words): value for name, value in scenario.environment.items()})
        files += [[folder, "directory", "755", ""] for folder in (HOME, TREE, f"{HOME}/scratch")]
        files += [[f"{TREE}/{path}", "file", "755", text] for path, text in self.scenarios.tree.items()]
        for path, companion in {**self.companions, script.path: script}.items():
            files.append([f"{TREE}/{path}", "file", "755", self.text(companion)])
        for entry in scenario.before:
            files += self.entry(entry, words)
        runs = {}
        for name in sorted({step.split()[1] for step in scenario.steps if step != "look"}):
            folder = f"{WORK}/run{name}"
            variables = {**environment, **self.switches(folder), "PATH": f"{folder}/bin:{PATH}"}
            runs[name] = {
                "folder": folder,
                "cwd": TREE,
                "argv": self.argv(scenario, script, words),
                "environment": {key: fill(value, words) for key, value in variables.items() if value is not None},
            }
            files += self.run_files(folder, name, scenario, words, trace if name == "1" else None)
        return {
            "root": HOME,
            "lib": self.lib,
            "files": files,
            "runs": runs,
            "clean": ["/home", "/tmp", *(run["folder"] for run in runs.values())],
            "steps": list(scenario.steps),
            "seconds": self.seconds(scenario),
            "limits": dict(sandbox.LIMITS),
        }

    def library(self) -> list[list[str]]:
        """The programs and helpers that all runs in a sandbox share."""
        texts = {
            "stub.sh": self.harness["stub.sh"],
            "wrap.sh": self.harness["wrap.sh"],
            "quiet.sh": "#!/bin/sh\nexit 0\n",
            "sudo.sh": self.harness["sudo.sh"],
            "python/sitecustomize.py": self.harness["sitecustomize.py"],
            **{f"program.{name}": text for name, text in self.scenarios.programs.items()},
        }
        wrapped = {name: kind for name, kind in self.scenarios.wrap.items() if "." not in name}
        links = dict.fromkeys(("sudo", "doas"), "sudo.sh")
        links |= {name: f"program.{name}" for name in self.scenarios.programs}
        links |= {**dict.fromkeys(self.scenarios.quiet, "quiet.sh"), **dict.fromkeys(wrapped, "wrap.sh")}
        return [
            *([f"{WORK}/lib/{name}", "file", "755", text] for name, text in texts.items()),
            *([f"{WORK}/lib/bin/{name}", "link", "", f"../{target}"] for name, target in links.items()),
            *([f"{WORK}/lib/wrap/{name}", "file", "644", f"{kind}\n"] for name, kind in wrapped.items()),
        ]

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
        if entry.text is not None:
            return [[path, "file", "644", entry.text]]
        tree = self.scenarios.trees[entry.tree]
        files = [[f"{path}/{name}", "file", "644", text] for name, text in tree.items() if name != "."]
        return [[path, "directory", tree.get(".", "755"), ""], *files]

    def run_files(
        self, folder: str, name: str, scenario: Scenario, words: Mapping[str, str], trace: Trace | None
    ) -> list[list[str]]:
        """The control directory of one run."""
        preludes = "\n".join(self.scenarios.preludes[name].get(self.language, "") for name in scenario.preludes)
        events = [f"{name} {kind}\n" for name, kind in self.scenarios.wrap.items() if "." in name]
        shell = f"unset BASH_ENV\n{preludes}\n"
        files = []
        if trace is not None:
            at = {"script": words["script"], "lines": trace.lines, "point": trace.point}
            settings = {**at, "signal": trace.signal, "whom": trace.whom}
            files.append([f"{folder}/trace.json", "file", "644", json.dumps(settings)])
            shell += (
                f"ci_patcher_script={words['script']}\nci_patcher_lines=' {' '.join(map(str, trace.lines))} '\n"
                f"ci_patcher_point={trace.point}\nci_patcher_signal={trace.signal}\nci_patcher_whom={trace.whom}\n"
                + self.harness["trace.sh"]
            )
        files += [
            # A program finds its run by the name that it is called by.
            [f"{folder}/bin", "link", "", f"{WORK}/lib/bin"],
            [f"{folder}/at", "pipe", "600", ""],
            [f"{folder}/go", "pipe", "600", ""],
            [f"{folder}/log", "file", "644", ""],
            [f"{folder}/path", "file", "644", f"{PATH}\n"],
            # The first line is for all, the others are for Python.
            [f"{folder}/watched", "file", "644", f"{fill(self.scenarios.root, words)}/\n{''.join(events)}"],
            [f"{folder}/prelude.sh", "file", "644", shell],
        ]
        if preludes and self.language == "py":
            files.append([f"{folder}/prelude.py", "file", "644", preludes])
        for key, plans in {**({"guard": ("fail",)} if self.withheld else {}), **scenario.plan}.items():
            run, _, key = key.rpartition(".")
            if run not in {"", name}:
                continue
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
            binds = self.masks(Path(folder))
            for event, job in zip(events, jobs, strict=True):
                binds += self.binds(event, job, Path(folder))
            # Compiled here, once: compiling it takes the sandbox's Python longer than running it. Nothing is ever
            # unmarshalled on this side.
            outcome = sandbox.run(
                [sandbox.python(), "-I", "-S", "-c", _START],
                stdin=marshal.dumps({"__name__": "__main__", "jobs": jobs}) + self.driver,
                binds=binds,
                seconds=self.scenarios.seconds * len(jobs) + 15,
                output=OUTPUT * len(jobs),
            )
        lines = outcome.stdout.splitlines()
        return [_result(lines[index] if index < len(lines) else b"", outcome) for index in range(len(jobs))]

    def masks(self, folder: Path) -> list[sandbox.Bind]:
        """What lies over the machine's own engines, and over what has the name of a stub, wherever in the system."""
        launch = folder / "launch.sh"
        launch.write_text(self.harness["launch.sh"], encoding="utf8")
        launch.chmod(0o755)
        return [sandbox.Bind(launch, path, read_only=True) for path in _installed(*ENGINES, *self.scenarios.programs)]

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


@cache
def _installed(*names: str) -> tuple[str, ...]:
    """The files of the system that a program of one of these names is, links followed."""
    folders = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
    found = {os.path.realpath(f"{folder}/{name}") for folder in folders for name in names}
    system = tuple(f"{folder}/" for folder in sandbox.SYSTEM)
    return tuple(sorted(path for path in found if path.startswith(system) and os.path.isfile(path)))


def _names(text: str) -> Iterator[str]:
    """The variables that a script reads from its environment, as far as its text tells."""
    for match in _READ.finditer(text):
        yield match[1] or match[2] or match[3]


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
                    pid=int(run["pid"]),
                    status=run["status"],
                    output=str(run["output"]),
                    errors=str(run["errors"]),
                    calls=_calls(run["log"]),
                    exits=str(run["exits"]),
                    points=tuple(run["points"].splitlines()),
                    said=tuple(run["said"].splitlines()),
                    aside=bool(run["aside"]),
                )
                for name, run in value["runs"].items()
            },
            before=_listing(value["before"]),
            looks=tuple(_listing(entries) for entries in value["looks"]),
            trouble=tuple(trouble),
            scratch=_listing(value["scratch"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        lines = outcome.stderr.decode("utf8", "replace").strip().splitlines()
        what = outcome.trouble or f"the sandbox ended with status {outcome.status}"
        return Result({}, {}, (), (f"{what}{': ' if lines else ''}{' '.join(lines[-1:])}",))
