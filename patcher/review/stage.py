"""One script on the stage: what the driver is told of a scenario, how it is run, and what was observed."""

from __future__ import annotations

import dataclasses
import json
import marshal
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from patcher import lines
from patcher.model import Script
from patcher.review import sandbox
from patcher.review.scenarios import Entry, Language, Scenario, Scenarios, fill

HOME = "/home/ci"
TREE = f"{HOME}/tree"
WORK = "/run/ci-patcher"  # the driver's, in the sandbox
LIBRARY = "/ci-patcher/lib"  # what all runs share, read-only
PATH = "/usr/local/bin:/usr/bin:/bin"

SECONDS = 120  # wall time of a whole review
EXHAUSTIVE = 1800  # the same for one that tries every point
OVERTIME = "the time of the whole review was over"
_OUTPUT = 4 << 20  # bytes of one scenario's result, at most
_START = """import marshal, sys
names = marshal.load(sys.stdin.buffer)
for code in marshal.load(sys.stdin.buffer):
    exec(code, names)
"""
_HARNESS = resources.files("patcher.review") / "harness"
_MOUNTED = 16 << 20
_USUAL = re.compile(r"#! ?/usr/bin/env (bash|python3)\r?\n")  # as it is said here, without env in between
# Names that steer the shell, the linker or Python itself, and so say nothing about the block.
_SPARED = re.compile(r"PATH|IFS|HOME|(OLD)?PWD|ENV|PS\d|E?UID|PPID|TMPDIR|(BASH|SHELL|LD_|PYTHON|LC_|LANG|GIT_).*")
_READ = re.compile(
    r"""\$(?:\{[#!]?)?([A-Za-z_]\w*)|(?:environ\[|environ\.get\(|getenv\()["'](\w+)|\s-v\s+([A-Za-z_]\w*)"""
)
_TEMPORARY = re.compile(r"(/tmp/(?:[\w.-]*[.-])?)\w{8,10}(?=/|$)")  # of mktemp and of Python's tempfile

Listing = Mapping[str, tuple[str, str, str]]
"""A directory tree: kind, mode and content of each entry by its path."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trace:
    """A signal at a point inside the block: before its ``point``-th command or line; 0 counts them."""

    lines: tuple[int, ...]
    point: int = 0
    signal: str = "KILL"
    whom: str = "group"


class Run(msgspec.Struct, frozen=True):
    """What one run of the script left: process id, status (negative for a signal), output, recorded calls.

    ``log`` are the calls as the stubs record them, ``exits`` what the EXIT traps of preludes wrote, ``points`` the
    points that the run passed, a line each.
    """

    pid: int
    status: int | None
    output: str
    errors: str
    log: str
    exits: str
    points: str

    @property
    def calls(self) -> list[tuple[str, ...]]:
        """The recorded calls, each with its tag first; of temporary names what is the same on every run."""
        words = [_TEMPORARY.sub(r"\1", word) for word in self.log.split("\0")]
        calls, index = [], 0
        while index < len(words) and re.fullmatch("[0-9]{1,6}", words[index]):
            count = int(words[index])
            calls.append(tuple(words[index + 1 : index + 1 + count]))
            index += 1 + count
        return [call for call in calls if call]

    def tagged(self) -> list[tuple[str, ...]]:
        """The calls that the stub engine took for the build, without its tag."""
        return [call[1:] for call in self.calls if call[0] == "build"]

    def plain(self) -> list[tuple[str, ...]]:
        """All calls; of the tag only its first word, which is the same on every run."""
        return [(call[0].split(" ")[0], *call[1:]) for call in self.calls]

    def dispositions(self) -> list[str]:
        """Which signals are ignored and caught at each call after the build.

        Not whether SIGINT is caught: bash catches it itself while it waits, from a moment after the call began.
        """
        found = (re.fullmatch("after ([0-9a-f]{1,16}) ([0-9a-f]{1,16})", call[0]) for call in self.calls)
        return [f"{masks[1]} {int(masks[2], 16) & ~2:x}" for masks in found if masks]


class Observation(msgspec.Struct, frozen=True):
    """What was observed of one scenario: its runs by number, the tree before, at each ``look`` and at the end.

    ``trouble`` says why it was not led to its end, ``kept`` is what lay in the sandbox then, where it is kept.
    """

    runs: Mapping[str, Run] = {}
    before: Listing = {}
    looks: tuple[Listing, ...] = ()
    trouble: tuple[str, ...] = ()
    kept: Listing = {}


Event = tuple[Scenario, Script, Trace | None]


@cache
def _harness(name: str) -> str:
    """A file of the harness; read once, so that a long run is not mixed with a version that is installed meanwhile."""
    return (_HARNESS / name).read_text(encoding="utf8")


@cache
def _driver() -> bytes:
    """The driver, compiled once: that takes the sandbox's Python longer than running it."""
    return marshal.dumps([compile(_harness(name), name, "exec") for name in ("tools.py", "driver.py")])


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
        self.companions, self.keep = companions, keep
        self.language: Language = "python" if patched.language == "python" else "shell"
        # The parts of each option's value, where that is not the default.
        self.chosen = {
            name: words
            for name, option in scenarios.chosen.items()
            if (words := option.words(options.get(name, option.default)))
        }
        added = "\n".join(lines.split(patched.text)[n - 1] for n in lines.added(original.text, patched.text))
        # What the original reads is its own to choose its build by, and no name that the block brings along.
        own = {match[1] or match[2] or match[3] for match in _READ.finditer(original.text)}
        brought = set(re.findall(r"\b[A-Za-z_]\w*\b", added)) - own
        self.poison = {name: f"{HOME}/survivors/{name}" for name in sorted(brought) if not _SPARED.fullmatch(name)}
        self.define = {name: "" for name in own if not _SPARED.fullmatch(name)}
        self.deadline = time.monotonic() + SECONDS
        self.stop = threading.Event()

    def text(self, script: Script) -> str:
        """A script as it is run: whoever runs one with CR LF has the CRs taken out first."""
        return script.text.replace("\r\n", "\n") if "\r\n" in self.original.text else script.text

    def words(self, scenario: Scenario) -> dict[str, str]:
        """What the words in braces of a scenario stand for."""
        words = {"home": HOME, "tree": TREE, "script": f"{TREE}/{self.patched.path}"}
        return {**words, **self.scenarios.words, **scenario.words, **self.chosen.get(scenario.option, {})}

    def unpatched(self, scenario: Scenario) -> Scenario:
        """The scenario for the unpatched script, which knows nothing of what lies in ``root``: so more can share it."""
        words = self.words(scenario)
        root = fill(self.scenarios.root, words)
        outside = [one for one in scenario.before if not fill(f"{one.path}/", words).startswith(f"{root}/")]
        name = f"{scenario.name} unpatched" if self.keep else ""
        return msgspec.structs.replace(scenario, name=name, before=tuple(outside), mounts=())

    def job(self, scenario: Scenario, script: Script, trace: Trace | None) -> dict[str, Any]:
        """What the driver is told (see ``harness/driver.py``)."""
        words = self.words(scenario)
        files = [[folder, "directory", "755", ""] for folder in (HOME, TREE, f"{HOME}/scratch")]
        texts = {path: self.text(companion) for path, companion in self.companions.items()}
        texts |= {**self.scenarios.tree, script.path: self.text(script)}
        files += [[f"{TREE}/{path}", "file", "755", text] for path, text in texts.items()]
        for entry in scenario.before:
            files += self._entry(entry, words)
        if scenario.poison:
            files += [[f"{path}/precious", "file", "644", name] for name, path in self.poison.items()]
        runs = {}
        for name in scenario.runs():
            folder = f"{WORK}/run{name}"
            runs[name] = {
                "folder": folder,
                "cwd": TREE,
                "argv": self._argv(scenario, script, words),
                "environment": self._environment(scenario, words, folder),
            }
            if runs[name]["argv"] == ["python3", words["script"]]:
                runs[name]["source"] = self.text(script)  # the driver forks: a new interpreter takes ten times as long
            files += self._run_files(folder, name, scenario, words, trace if name == "1" else None)
        return {
            "site": _harness("sitecustomize.py"),
            "root": HOME,
            "files": files,
            "runs": runs,
            "clean": ["/home", "/tmp", WORK],
            "systems": ["/home", "/tmp", "/run", "/dev/shm", *(fill(mount.at, words) for mount in scenario.mounts)],
            "keep": ["/home", WORK, "/tmp"] if self.keep else [],
            "steps": list(scenario.steps),
            "seconds": self.scenarios.seconds,
            "limits": dict(sandbox.LIMITS),
        }

    def _environment(self, scenario: Scenario, words: Mapping[str, str], folder: str) -> dict[str, str]:
        """The variables of one run; the last ones get the harness into the script's own process."""
        variables: dict[str, str | bool] = {}
        variables |= {**(self.poison if scenario.poison else {}), **(self.define if scenario.define else {})}
        variables |= {"HOME": HOME, "USER": "ci", "LC_ALL": "C.UTF-8", **self.scenarios.environment}
        for name, parts in self.chosen.items():
            variables |= fill(self.scenarios.options[name].get("environment", {}), parts)
        variables |= {fill(name, words): value for name, value in scenario.environment.items()}
        variables |= {"CI_PATCHER_RUN": folder, "PATH": f"{folder}/wrap:{folder}/bin:{PATH}"}
        if self.language == "python":
            variables |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": f"{LIBRARY}/python"}
        else:
            variables["BASH_ENV"] = f"{folder}/prelude.sh"
        return {name: fill(value, words) for name, value in variables.items() if isinstance(value, str)}

    def _library(self) -> Iterator[list[str]]:
        """The programs and helpers that all runs share."""
        texts = {
            "stub.sh": _harness("stub.sh"),
            "wrap.sh": _harness("wrap.sh"),
            "python/sitecustomize.py": _harness("sitecustomize.py"),
            **{f"bin/{name}": text for name, text in self.scenarios.programs.items()},
            **{f"bin/{name}": "#!/bin/sh\nexit 0\n" for name in self.scenarios.quiet},
            **{f"kinds/{name}": f"{kind}\n" for name, kind in self.scenarios.wrap.items()},
        }
        for path in ("/ci-patcher", LIBRARY, f"{LIBRARY}/bin", f"{LIBRARY}/python", f"{LIBRARY}/kinds"):
            yield [path, "directory", "755", ""]
        for name, text in texts.items():
            yield [f"{LIBRARY}/{name}", "file", "755", text]

    def _kinds(self, scenario: Scenario, trace: Trace | None) -> set[str]:
        """The kinds of calls that a scenario looks at: only these calls are made by programs that report them."""
        if trace or scenario.expect.calls == "reference":
            return {*self.scenarios.wrap.values(), "other"}
        points = [step.split()[2] for step in scenario.steps if step.startswith("wait ")]
        return {*(key.rpartition(".")[2] for key in scenario.plan), *(point.split(".")[0] for point in points)}

    def _argv(self, scenario: Scenario, script: Script, words: Mapping[str, str]) -> list[str]:
        how = scenario.how or self.scenarios.files.get(script.path, "") or next(iter(self.scenarios.how))
        argv = [fill(word, words) for word in self.scenarios.how[how]]
        if argv == [words["script"]] and (_USUAL.match(script.text) or not script.text.startswith("#!")):
            argv.insert(0, "python3" if self.language == "python" else "bash")
        return argv

    def _entry(self, entry: Entry, words: Mapping[str, str]) -> list[list[str]]:
        path = fill(entry.path, words)
        if entry.link:
            return [[path, "link", "", fill(entry.link, words)]]
        if entry.text is not None:
            return [[path, "file", "644", entry.text]]
        tree = self.scenarios.trees[entry.tree]
        files = [[f"{path}/{name}", "file", "644", text] for name, text in tree.items() if name != "."]
        return [[path, "directory", tree.get(".", "755"), ""], *files]

    def _run_files(
        self, folder: str, name: str, scenario: Scenario, words: Mapping[str, str], trace: Trace | None
    ) -> Iterator[list[str]]:
        """The control directory of one run."""
        preludes = [self.scenarios.preludes[name].get(self.language, "") for name in scenario.preludes]
        events = [f"{name} {kind}\n" for name, kind in self.scenarios.wrap.items() if "." in name]
        kinds = self._kinds(scenario, trace)
        if not kinds - {"build", *self.scenarios.wrap.values()}:
            preludes.append(self.scenarios.later.get(self.language, ""))
        prelude = "\n".join(preludes)
        shell = f"unset BASH_ENV\nexport CI_PATCHER_PID=$$\n{prelude}\n"
        if trace is not None:
            settings = {"script": words["script"], **dataclasses.asdict(trace)}
            yield [f"{folder}/trace.json", "file", "644", json.dumps(settings)]
            settings["lines"] = f"' {' '.join(map(str, trace.lines))} '"
            shell += "".join(f"ci_patcher_{key}={value}\n" for key, value in settings.items()) + _harness("trace.sh")
        # A program finds its run by the name that it is called by.
        yield [f"{folder}/bin", "link", "", f"{LIBRARY}/bin"]
        for program, kind in self.scenarios.wrap.items():
            if kind in kinds and "." not in program:
                yield [f"{folder}/wrap/{program}", "link", "", f"{LIBRARY}/wrap.sh"]
        yield from ([f"{folder}/{name}", "pipe", "600", ""] for name in ("at", "go"))
        yield [f"{folder}/log", "file", "644", ""]
        # The first line is for all, the others are for Python.
        yield [f"{folder}/watched", "file", "644", f"{fill(self.scenarios.root, words)}/\n{''.join(events)}"]
        yield [f"{folder}/prelude.sh", "file", "644", shell]
        yield [f"{folder}/prelude.py", "file", "644", prelude if self.language == "python" else ""]
        for key, value in scenario.plan.items():
            run, _, kind = key.rpartition(".")
            if run not in {"", name}:
                continue
            plans = [value] if isinstance(value, str) else value
            for number, word in enumerate(plans, 1):
                yield [f"{folder}/plan/{kind}.{number}", "file", "644", f"{word}\n"]
            yield [f"{folder}/plan/{kind}", "file", "644", f"{plans[-1]}\n"]
        for step in scenario.steps:
            verb, *rest = step.split()
            if verb == "wait" and rest[0] == name:
                yield [f"{folder}/arm/{rest[1]}", "file", "644", ""]

    def play(self, events: Sequence[Event]) -> list[Observation]:
        """Runs events one after another in one sandbox, emptied between them; one that has mounts runs alone."""
        seconds = min(self.deadline - time.monotonic(), self.scenarios.seconds * len(events) + 15)
        if seconds <= 0:
            return [Observation(trouble=(OVERTIME,)) for _ in events]
        jobs = [self.job(*event) for event in events]
        binds = [bind for event, job in zip(events, jobs, strict=True) for bind in self._binds(event[0], job)]
        done = self.perform(jobs, binds, seconds)
        if time.monotonic() > self.deadline:
            done = dataclasses.replace(done, trouble=OVERTIME, stderr=b"")
        told = [*done.stdout.splitlines(), *([b""] * len(jobs))]
        seen = [observed(line, done) for line in told[: len(jobs)]]
        if self.keep:
            _keep(self.keep, events[0][0], seen[0].kept)
        return seen

    def perform(
        self, jobs: Sequence[dict[str, Any]], binds: Sequence[sandbox.Bind], seconds: float, *, drop: bool = True
    ) -> sandbox.Completed:
        """Has the driver lead the jobs, one after another, in one sandbox."""
        # The machine's own programs that a script must not reach, by whatever path.
        unreachable = installed(*self.scenarios.unreachable, *self.scenarios.programs)
        masks = [[path, "mask", "755", _harness("launch.sh")] for path in unreachable]
        return sandbox.run(
            [sandbox.python(), "-I", "-S", "-c", _START],
            stdin=marshal.dumps({"__name__": "__main__", "jobs": jobs}) + _driver(),
            binds=binds,
            entries=[*self._library(), [WORK, "directory", "777", ""], *masks],
            seconds=seconds,
            output=_OUTPUT * len(jobs),
            drop=drop,
            stop=self.stop,
        )

    def _binds(self, scenario: Scenario, job: dict[str, Any]) -> Iterator[sandbox.Bind]:
        """The file systems that a scenario mounts; what lies on them is taken out of the job."""
        for mount in scenario.mounts:
            at = fill(mount.at, self.words(scenario))
            inside = [file for file in job["files"] if f"{file[0]}/".startswith(f"{at}/")]
            job["files"] = [file for file in job["files"] if file not in inside]
            entries = [[path, kind, "666" if kind == "file" else mode, text] for path, kind, mode, text in inside]
            # So that a script that may not rename what is mounted may still delete what lies in it.
            folders = {str(PurePosixPath(entry[0]).parent) for entry in entries} - {at, str(PurePosixPath(at).parent)}
            entries = [*([folder, "directory", "777", ""] for folder in sorted(folders)), *entries]
            yield sandbox.Bind(Path(), at, mount.read_only, _MOUNTED, [one for one in entries if one[0] != at])

    def alone(self, scenario: Scenario) -> bool:
        """Whether a scenario needs a sandbox of its own: its mounts are made with it, or its files are kept."""
        return bool(scenario.mounts or self.keep)

    def batches(self, events: Sequence[Event], count: int) -> list[list[Event]]:
        """The events in groups that share a sandbox: ``count`` of them, and one for each event that has it alone."""
        alone = [[event] for event in events if self.alone(event[0])]
        together = [event for event in events if not self.alone(event[0])]
        return [*alone, *(together[number::count] for number in range(min(count, len(together))))]


@cache
def installed(*names: str) -> tuple[str, ...]:
    """The files of the system that a program of one of these names is, links followed."""
    folders = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
    found = {os.path.realpath(f"{folder}/{name}") for folder in folders for name in names}
    system = tuple(f"{folder}/" for folder in sandbox.SYSTEM)
    return tuple(sorted(path for path in found if path.startswith(system) and os.path.isfile(path)))


def below(listing: Listing, folder: str) -> dict[str, tuple[str, str, str]]:
    """The entries of a folder by their paths in it, the folder's own as an empty path."""
    return {path[len(folder) + 1 :]: entry for path, entry in listing.items() if f"{path}/".startswith(f"{folder}/")}


def observed(line: bytes, done: sandbox.Completed) -> Observation:
    """Reads what the driver wrote. Where it wrote nothing that fits, that is the trouble."""
    try:
        return msgspec.json.decode(line, type=Observation)
    except msgspec.MsgspecError:
        said = done.stderr.decode("utf8", "replace").strip().splitlines()[-1:]
        what = done.trouble or f"the sandbox ended with status {done.status}"
        return Observation(trouble=(": ".join([what, *said]),))


def _keep(folder: Path, scenario: Scenario, kept: Listing) -> None:
    """Writes down what lay in the sandbox at the end: plain files only, with modes of our own."""
    target = folder / re.sub(r"[^\w.-]+", "-", f"{scenario.row}-{scenario.name or 'unpatched'}")
    for path, (kind, _, content) in kept.items():
        place = target / path.removeprefix("/")
        if kind == "file" and ".." not in place.parts:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content, encoding="utf8", errors="surrogateescape")
