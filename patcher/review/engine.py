"""The scenarios on a real engine: a script's build goes through to docker, everything else it asks for does not.

The script runs in the sandbox as it does with the stub engine, with the engine's socket bound and a shim in place of
docker (``harness/engine_shim.py``). The image is a miniature one whose layers carry a name of this run, a nonce. To
make a build cold, and to leave nothing behind, only the images with our label and the cache records of our layers
are removed from the engine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from patcher.errors import UsageError
from patcher.model import Finding, Script, Verdict
from patcher.review import sandbox
from patcher.review.scenarios import Scenario, Scenarios, fill
from patcher.review.stage import WORK, Result, Run, Stage, _result

BOUND = "/run/engine"  # in the sandbox; harness/engine_driver.py has it as well
LABEL = "ci-patcher.run"
LAYERS = 3
SECONDS = 120
PATIENCE = 30
"""Seconds until an engine must have let go of what a killed build used."""

_HARNESS = resources.files("patcher.review") / "harness"
_START = (
    "import json, sys, types; parts = json.load(sys.stdin); module = types.ModuleType('driver');"
    "exec(compile(parts['driver'], 'driver.py', 'exec'), module.__dict__); sys.modules['driver'] = module;"
    "exec(compile(parts['engine'], 'engine_driver.py', 'exec'), {'__name__': '__main__', 'job': parts['job']})"
)
_IMAGE = """FROM {base}
RUN echo {nonce} > /ci-patcher-1
RUN echo {nonce} > /ci-patcher-2
ARG CI_PATCHER_PLAN
RUN : {nonce}; eval "$CI_PATCHER_PLAN" && echo "$CI_PATCHER_PLAN" > /ci-patcher-3
"""
# What the last layer does. The driver knows by "begun 42" that it runs.
_OK = "true"
_BEGUN = "echo begun $((40 + 2)); "
_LONG = _BEGUN + "sleep 10"
_SHORT = _BEGUN + "sleep 2"
_LATER = (_BEGUN + "sleep 4", _BEGUN + "sleep 6")
_LARGE = "head -c 16000000 /dev/urandom > /large"

HOW = """To turn the containerd image store on, put {"features": {"containerd-snapshotter": true}} into the engine's
/etc/docker/daemon.json and restart it. In Docker Desktop it is a switch under Settings, General.
It needs Docker 24 or later. Images of the classic store are not shown while it is on, and come back with it off."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that docker reaches, with what is needed to reach it from the sandbox."""

    docker: str
    buildx_plugin: str
    socket: Path
    version: str
    store: str
    driver: str
    buildx: str
    exports: bool

    @property
    def lines(self) -> list[str]:
        """What it is and whether it can do what the block needs."""
        shown = [
            f"engine: {self.version}",
            f"image store: {self.store}",
            f"driver: {self.driver}",
            f"buildx: {self.buildx}",
            f"can export local caches: {'yes' if self.exports else 'no'}",
        ]
        return shown if self.exports else [*shown, *HOW.splitlines()]

    def call(self, *words: str, check: bool = True) -> str:
        """What a docker command writes to standard output. Raises UsageError where it fails and ``check`` is set."""
        steering = ("DOCKER_CONTEXT", "DOCKER_TLS", "BUILDX_BUILDER")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
        return _docker(self.docker, words, {**environment, "DOCKER_HOST": f"unix://{self.socket}"}, check)


def _docker(docker: str, words: Sequence[str], environment: Mapping[str, str], check: bool = True) -> str:
    # In a session of its own, so that Ctrl-C does not end the cleanup.
    try:
        done = subprocess.run(
            [docker, *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf8",
            errors="replace",
            check=False,
            start_new_session=True,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"docker {words[0]} did not end within 60 s", hint="Is the engine alive?") from None
    if check and done.returncode:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise UsageError(f"docker {' '.join(words[:2])}: {said}", hint="`docker info` tells whether an engine answers.")
    return done.stdout


def find() -> Engine:
    """The engine that ``docker`` reaches. Raises UsageError where there is none, or none behind a socket."""
    docker = shutil.which("docker")
    if docker is None:
        raise UsageError("no docker in PATH", hint="Install the docker client, or leave --engine docker out.")
    environment = dict(os.environ)
    host = os.environ.get("DOCKER_HOST") or _docker(
        docker, ["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"], environment
    )
    if not host.strip().startswith("unix://"):
        raise UsageError(
            f"the engine is at {host.strip()}, not behind a socket of this machine",
            hint="The sandbox has no network. Set DOCKER_HOST=unix://... or leave --engine docker out.",
        )
    info: dict[str, Any] = json.loads(
        # It fails where no engine answers, and says so in its answer.
        _docker(docker, ["info", "--format", "{{json .}}"], environment, check=False) or "{}"
    )
    if not info.get("ServerVersion"):
        _docker(docker, ["version"], environment)  # raises, with the reason
        raise UsageError("no engine answers", hint="Start it, or set DOCKER_HOST.")
    plugins = [plugin for plugin in info["ClientInfo"].get("Plugins") or [] if plugin["Name"] == "buildx"]
    if not plugins or plugins[0].get("Err"):
        raise UsageError("docker has no buildx", hint="Install its plugin, docker-buildx.")
    containerd = ["driver-type", "io.containerd.snapshotter.v1"] in (info.get("DriverStatus") or [])
    name = info.get("Driver", "unknown")
    socket = Path(host.strip().removeprefix("unix://"))
    found = Engine(
        docker=os.path.realpath(docker),
        buildx_plugin=os.path.realpath(plugins[0]["Path"]),
        socket=socket,
        version=f"Docker {info['ServerVersion']}",
        store=f"{'containerd' if containerd else 'classic'} ({name})",
        driver="docker",  # until it was asked
        buildx=str(plugins[0]["Version"]),
        exports=containerd,
    )
    # The engine's own builder, whatever the user's current one is: the sandbox does not see the user's settings.
    inspected = found.call("buildx", "inspect", "default", check=False)
    driver = re.search(r"^Driver:\s*(\S+)", inspected, re.MULTILINE)
    return replace(found, driver=driver[1] if driver else "docker")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the builder's cache."""

    identity: str
    parents: tuple[str, ...]
    description: str
    kind: str
    size: str


def records(shown: str) -> dict[str, Record]:
    """The records that ``docker buildx du --verbose`` shows, by identity."""
    found = {}
    for block in re.split(r"\n\s*\n", shown):
        fields = dict(re.findall(r"^(\w[\w ]*):[ \t]*(.*)$", block, re.MULTILINE))
        if identity := fields.get("ID", "").strip():
            parents = re.findall(r"\w+", fields.get("Parent", "") + " " + fields.get("Parents", ""))
            rest = (fields.get(name, "") for name in ("Description", "Type", "Size"))
            found[identity] = Record(identity, tuple(parents), *rest)
    return found


def ours(
    found: Mapping[str, Record],
    before: frozenset[str],
    needle: str,
    blobs: frozenset[str],
    sent: frozenset[str] | None = None,
) -> list[str]:
    """The identities of our records, each before its parents, which the engine keeps as long as they have children.

    Ours carry the needle in their description, or were imported from a layer of a cache of ours, or are built on
    such a one; and none was there before. With ``sent``, the sizes of what our builds send to the engine, records of
    these sizes that hold what a build was sent are ours as well, and what ours are built on; none says whose it is.
    """
    new = {identity: record for identity, record in found.items() if identity not in before}
    mine: set[str] = set()
    for identity, record in new.items():
        imported = re.fullmatch(r"imported sha256:(\w+)", record.description)
        if needle in record.description or (imported and imported[1] in blobs):
            mine.add(identity)
        if sent is not None and record.kind == "source.local" and record.size in sent:
            mine.add(identity)
    grown = True
    while grown:
        more = {identity for identity, record in new.items() if mine.intersection(record.parents)}
        if sent is not None:
            more |= {parent for identity in mine for parent in found[identity].parents if parent in new}
        grown = not more <= mine
        mine |= more
    order: list[str] = []
    while mine:
        leaves = {i for i in mine if not any(i in found[child].parents for child in mine)} or set(mine)
        order += sorted(leaves)
        mine -= leaves
    return order


def incomplete(cache: Path) -> str:
    """What is wrong with an exported cache, or nothing: every blob that it names is there and whole, and no other."""
    try:
        waiting = [json.loads((cache / "index.json").read_bytes())]
    except (OSError, ValueError) as error:
        return f"index.json: {error}"
    names = {path.name for path in cache.iterdir()} - {"blobs", "index.json", "index.json.lock", "ingest", "oci-layout"}
    if names:
        return f"{', '.join(sorted(names))} in the cache"
    there = {path.name: path for path in (cache / "blobs" / "sha256").glob("*")}
    for name, path in there.items():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != name:
                return f"the blob {name} is not what its name says"
    seen: set[str] = set()
    while waiting:
        for digest in re.findall(r"sha256:([0-9a-f]{64})", json.dumps(waiting.pop())):
            if digest in seen:
                continue
            seen.add(digest)
            # A layer's config names the digest of its unpacked form as well, which is no blob.
            if digest in there and there[digest].stat().st_size < 1 << 16:
                with contextlib.suppress(ValueError):
                    waiting.append(json.loads(there[digest].read_bytes()))
    for manifest in _manifests(cache, there):
        for digest in manifest:
            if digest not in there:
                return f"the blob {digest} is missing"
    if left := there.keys() - seen:
        return f"{len(left)} blobs of another cache"
    return "" if there else "no blobs"


def _manifests(cache: Path, there: Mapping[str, Path]) -> Iterator[list[str]]:
    """The digests that the index names, then those that each manifest names."""
    index = json.loads((cache / "index.json").read_bytes())
    digests = [entry["digest"].removeprefix("sha256:") for entry in index.get("manifests", [])]
    yield digests
    for digest in digests:
        if digest in there:
            manifest = json.loads(there[digest].read_bytes())
            entries = [*manifest.get("manifests", []), *manifest.get("layers", [])]
            entries += [manifest["config"]] if "config" in manifest else []
            yield [entry["digest"].removeprefix("sha256:") for entry in entries]


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario: what lies in H before, what the build does in each run, the steps, what must hold.

    ``before`` is the cache in H: none, the seed, or the seed with an index that is none. ``leaves`` is the cache
    after: the old one, a new one or, as after a signal to the script alone, either. Where it is empty, a run that
    fails leaves the old one and one that succeeds a new one.
    """

    row: int
    name: str
    plans: tuple[str, ...] = (_OK,)
    steps: tuple[str, ...] = ("start 1", "end 1")
    before: str = "seed"
    exit: Mapping[str, str] = field(default_factory=lambda: {"1": "0", "2": "0"})
    leaves: str = ""
    says: str = ""
    directory: str = ""
    size: int = 0
    unset: bool = False


def _struck(signals: str, at: str = "running") -> tuple[str, ...]:
    return ("start 1", f"wait 1 {at}", f"signal 1 {signals}", "end 1")


_FAILS = {"1": "failure"}
_KILLED = {"1": "failure", "2": "0"}
_AGAIN = ("look", "start 2", "end 2")
CASES = (
    *(
        Case(7, f"SIG{name} to the group in the middle of the build", (_LONG,), _struck(f"group {name}"), exit=_FAILS)
        for name in ("TERM", "INT", "HUP")
    ),
    Case(
        8,
        "SIGTERM to the script alone while the build runs",
        (_SHORT,),
        _struck("script TERM"),
        exit=_FAILS,
        leaves="either",
    ),
    Case(
        14,
        "SIGKILL to the group in the middle of the build, then another run",
        (_LONG, _OK),
        (*_struck("group KILL"), *_AGAIN),
        exit=_KILLED,
    ),
    Case(
        17,
        "SIGKILL to the group in the middle of the export, then another run",
        (_LARGE, _OK),
        (*_struck("group KILL", "exporting"), *_AGAIN),
        exit=_KILLED,
    ),
    Case(5, "the build fails", ("exit 3",), exit=_FAILS),
    Case(15, "the index is unreadable: a warning, and healed", before="garbage", says="(?i)warn.*cache import"),
    Case(16, "the file system of the host directory is full", leaves="old", size=8 << 20),
    Case(
        12,
        "two runs at once for the same name",
        _LATER,
        ("start 1", "wait 1 running", "start 2", "wait 2 running", "end 1", "look", "end 2"),
    ),
)
UNSET = Case(1, "without the variable the build is cold and no cache is written", before="none", unset=True)
COLD = Case(3, "a cold build exports a cache", before="none")
WARM = Case(3, "a warm build takes its layers from the cache in H", before="own")
SPACE = Case(10, "the same from a host directory with spaces in its name", before="own", directory="the  host dir")


class _Bench:
    """One script on a real engine."""

    def __init__(self, stage: Stage, engine: Engine, base: str, folder: Path) -> None:
        self.stage, self.engine, self.base = stage, engine, base
        self.variable = _variable(stage.scenarios)
        self.run = f"ci-patcher-{secrets.token_hex(6)}"
        self.folder = folder / self.run
        self.started = 0
        self.lock = threading.Lock()
        self.seed = self.folder / "seed"
        self.known = frozenset(self.records())
        self.sizes: frozenset[str] = frozenset()
        self.usual: frozenset[str] | None = None
        self.stop = self.folder / "control" / "stop"
        self.stop.parent.mkdir(parents=True)

    def records(self) -> dict[str, Record]:
        return records(self.engine.call("buildx", "--builder", "default", "du", "--verbose"))

    def sent(self) -> frozenset[str]:
        """The sizes of what builds have sent to the engine since this run began."""
        found = self.records().values()
        return frozenset(r.size for r in found if r.kind == "source.local" and r.identity not in self.known)

    def imported(self) -> frozenset[str]:
        """The layers that the engine may have imported from a cache of ours: only those of the first are asked for."""
        return frozenset(path.name for path in self.seed.glob("blobs/sha256/*"))

    def remove(self, *identities: str) -> None:
        """Has the engine drop records, as far as it does not need them."""
        # --all, since the records that an image shares are spared without it.
        words = ("prune", "--all", "--force", "--filter", f"id={'|'.join(identities)}")
        if identities:
            self.engine.call("buildx", "--builder", "default", *words, check=False)

    def prune(self, needle: str) -> list[str]:
        """Removes our records from the engine's cache and returns those that it keeps."""
        deadline = time.monotonic() + PATIENCE
        together = True
        while left := ours(self.records(), self.known, needle, self.imported()):
            # buildx takes the identity for a regular expression, and the engine then finds the order itself. That is
            # no promise, so what is left goes one by one.
            for identities in [left] if together else [[identity] for identity in left]:
                self.remove(*identities)
            together = not together
            if time.monotonic() > deadline:
                break
        return left

    def clean(self) -> Finding:
        """Removes all that this run brought into the engine."""
        name = "nothing of the review is left in the engine"
        try:
            listed = ("image", "ls", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL}={self.run}")
            deadline = time.monotonic() + PATIENCE
            while images := self.engine.call(*listed).split():
                self.engine.call("image", "rm", "--force", *dict.fromkeys(images), check=False)
                if time.monotonic() > deadline:
                    break
            likely = ours(self.records(), self.known, self.run, self.imported(), self.sizes or self.sent())
            left = self.prune(self.run)
            # Another build may be using some of these, and then they are its own.
            self.remove(*likely)
            if rest := [identity for identity in likely if identity in self.records()]:
                time.sleep(1)
                self.remove(*rest)
        except UsageError as error:
            return Finding(name, Verdict.BROKEN, error.what)
        if images or left:
            hint = f"docker image ls --filter label={LABEL}={self.run}; docker buildx du --verbose"
            return Finding(name, Verdict.BROKEN, f"{len(images)} images, {len(left)} cache records", 0, hint)
        return Finding(name, Verdict.HELD)

    def play(self, case: Case, nonce: str = "", own: Path | None = None) -> tuple[Finding, str, Path]:
        """Runs a case and returns its finding, the output of its first run and where its cache is.

        ``own`` is the cache that ``before = "own"`` stands for.
        """
        with self.lock:
            self.started += 1
            number = self.started
        nonce = nonce or f"{self.run}-{number:04}"  # all of one length, and so all images of one size
        place = self.folder / str(number)
        config = place / "home" / "config"
        (config / "cli-plugins").mkdir(parents=True)
        (config / "cli-plugins" / "docker-buildx").symlink_to(f"{BOUND}/docker-buildx")
        words = {"H": f"{{home}}/{case.directory}"} if case.directory else {}
        scenario = Scenario(
            case.name,
            case.row,
            steps=case.steps,
            words=words,
            environment=dict.fromkeys([self.variable], None) if case.unset else {},
        )
        known = {**self.stage.words(scenario, self.stage.patched)}
        root, cache = fill(self.stage.scenarios.root, known), fill("{C}", known)
        host = place / root.removeprefix("/")  # /home is bound
        host.mkdir(parents=True)
        if case.before != "none":
            shutil.copytree(own or self.seed, host / cache)
        if case.before == "own":
            # So that the new cache, which is to be the same, can be told from the old one.
            (host / cache / "blobs" / "sha256" / hashlib.sha256(b"stale").hexdigest()).write_bytes(b"stale")
        if case.before == "garbage":
            (host / cache / "index.json").write_text("garbage\n", encoding="utf8")
        job = {
            **self.stage.job(scenario, self.stage.patched, None),
            "root": root,
            "known": [cache, f"{cache}~lock"],
            "fill": f"{root}/{cache}" if case.size else "",
            "seconds": SECONDS,
        }
        for name in job["runs"]:
            plan = case.plans[min(int(name), len(case.plans)) - 1]
            settings = self.settings(f"{self.run}-{number}-{name}", f"{WORK}/run{name}", plan)
            image = _IMAGE.format(base=self.base, nonce=nonce)
            job["files"] += [[f"{WORK}/run{name}/engine.json", "file", "644", json.dumps(settings)]]
            job["files"] += [[f"{WORK}/run{name}/imagefile", "file", "644", image]]
        binds = [
            sandbox.Bind(place / "home", "/home"),
            sandbox.Bind(self.folder / "control", f"{BOUND}/control", read_only=True),
            sandbox.Bind(Path(self.engine.docker), f"{BOUND}/docker", read_only=True),
            sandbox.Bind(Path(self.engine.buildx_plugin), f"{BOUND}/docker-buildx", read_only=True),
            sandbox.Bind(self.engine.socket, f"{BOUND}/docker.sock"),
        ]
        if case.size:
            held = sum(path.stat().st_size for path in self.seed.rglob("*"))
            binds += [sandbox.Bind(self.seed, f"{BOUND}/seed", read_only=True)]
            binds += [sandbox.Bind(Path(), root, size=max(case.size, held + (1 << 20)))]
        parts = {name: (_HARNESS / f"{file}.py").read_text(encoding="utf8") for name, file in _PARTS.items()}
        outcome = sandbox.run(
            [sandbox.python(), "-I", "-S", "-c", _START],
            stdin=json.dumps({**parts, "job": job}).encode(),
            binds=binds,
            seconds=SECONDS + PATIENCE,
        )
        result = _result((outcome.stdout.splitlines() or [b""])[-1], outcome)
        problems = self.problems(case, result, cache, None if case.size else host / cache)
        home = place / fill("{home}", known).removeprefix("/")
        outside = frozenset(
            str(path.relative_to(home)) for path in home.rglob("*") if path != host and host not in path.parents
        )
        if self.usual is None:
            self.usual = outside
        elif left := sorted(outside - self.usual):
            problems.append(f"outside of H, {left[0]} is left")
        output = _said(result.runs["1"]) if "1" in result.runs else ""
        verdict = Verdict.BROKEN if problems else Verdict.HELD
        evidence = _evidence(case, result) if problems else ""
        return Finding(case.name, verdict, "; ".join(problems), case.row, evidence), output, host / cache

    def settings(self, tag: str, folder: str, plan: str) -> dict[str, object]:
        """What the shim is told.

        Each run has a tag of its own: a tag that moves lets the engine collect layers that a build still unpacks.
        """
        return {
            "docker": f"{BOUND}/docker",
            "environment": {
                "DOCKER_HOST": f"unix://{BOUND}/docker.sock",
                "DOCKER_CONFIG": "/home/config",
                "BUILDKIT_PROGRESS": "plain",
            },
            "words": [
                f"--file={folder}/imagefile",
                f"--tag={tag}",
                f"--label={LABEL}={self.run}",
                f"--build-arg=CI_PATCHER_PLAN={plan}",
            ],
        }

    @staticmethod
    def problems(case: Case, result: Result, cache: str, place: Path | None) -> list[str]:
        """What did not hold, each as one line."""
        problems = list(result.trouble)
        if not result.looks:
            return problems
        for name, run in result.runs.items():
            wanted = case.exit[name]
            if run.status is None or (run.status != 0) != (wanted == "failure"):
                problems.append(f"run {name} ended with {run.status}, not {wanted}")
        before, after = _cache(result.before, cache), _cache(result.looks[-1], cache)
        problems += [
            "the old cache is not as it was, on the way" for look in result.looks[:-1] if _cache(look, cache) != before
        ]
        intact, new = after == before, False
        if place is not None and not intact:
            if what := incomplete(place):
                problems.append(f"the cache is not complete: {what}")
            elif after["."][1] != "755":
                problems.append(f"the cache has the mode {after['.'][1]}")
            else:
                new = True
        if case.unset:
            if result.looks[-1]:
                problems.append(f"{', '.join(sorted(result.looks[-1]))} in H")
            return problems
        leaves = case.leaves or ("old" if case.exit == _FAILS else "new")
        if case.row == 7 and len(result.runs["1"].tagged()) > 1:
            # The script's own retry does not take SIGINT for itself where the build caught it, and builds again.
            leaves = "either"
        if not {"old": intact, "new": new, "either": intact or new}[leaves] and not problems:
            problems.append("the old cache is not as it was" if leaves == "old" else "no new cache is in its place")
        names = {path.split("/")[0] for path in result.looks[-1]}
        if left := names - {cache, f"{cache}~lock", *(["filler"] if case.size else [])}:
            problems.append(f"{', '.join(sorted(left))} is left beside the cache")
        if case.says and not any(re.search(case.says, line) for line in _said(result.runs["1"]).splitlines()):
            problems.append(f"no line of the output says {case.says}")
        return problems


def _variable(scenarios: Scenarios) -> str:
    """The variable of the environment that names H."""
    names = [name for name, value in scenarios.environment.items() if value == scenarios.root]
    if not names or "C" not in scenarios.words:
        raise UsageError(
            f"the recipe {scenarios.recipe} keeps no docker build cache", hint="Leave --engine docker out."
        )
    return names[0]


_PARTS = {"driver": "driver", "engine": "engine_driver"}


def _cache(look: Mapping[str, tuple[str, str, str]], cache: str) -> dict[str, tuple[str, str, str]]:
    """One directory of a listing. The engine locks an index that it reads with a file beside it."""
    found = {path[len(cache) + 1 :] or ".": entry for path, entry in look.items() if f"{path}/".startswith(f"{cache}/")}
    return {path: entry for path, entry in found.items() if path != "index.json.lock"}


def _said(run: Run) -> str:
    """What a run wrote; builds report on standard error."""
    return f"{run.output}\n{run.errors}"


def _evidence(case: Case, result: Result) -> str:
    lines = [f"steps: {', '.join(case.steps)}"]
    for name, run in result.runs.items():
        lines.append(f"run {name}: status {run.status}")
        lines += [f"  called {' '.join(call)}" for call in run.tagged()]
    for number, look in enumerate(result.looks, 1):
        lines.append(f"found{' on the way' if number < len(result.looks) else ''}:")
        lines += [f"  {path} {' '.join(entry)}" for path, entry in look.items()]
    for name, run in result.runs.items():
        lines += [f"output of run {name}:", *(f"  {line}" for line in _said(run).splitlines()[-25:])]
    return "\n".join(line[:400] for line in lines[:150])


def cached(output: str) -> int:
    """How many of our layers a build reported as CACHED."""
    steps = set(re.findall(r"^#(\d+) \[.*\] RUN ", output, re.MULTILINE))
    return len(steps & set(re.findall(r"^#(\d+) CACHED", output, re.MULTILINE)))


def _layers(finding: Finding, output: str, wanted: int) -> Finding:
    """The finding, with whether as many layers as wanted came from a cache."""
    if (found := cached(output)) == wanted:
        return finding
    detail = "; ".join(filter(None, [finding.detail, f"{found} of {LAYERS} layers were CACHED, not {wanted}"]))
    evidence = finding.evidence or output[-4000:]
    return replace(finding, verdict=Verdict.BROKEN, detail=detail, evidence=evidence)


def _warmth(bench: _Bench, nonce: str) -> list[Finding]:
    """Warm, though the engine's own records of these layers are gone."""
    findings = []
    for case in (WARM, SPACE):
        if left := bench.prune(nonce):
            findings.append(Finding(case.name, Verdict.NOT_RUN, f"the engine keeps {len(left)} records", case.row))
            continue
        finding, output, _ = bench.play(case, nonce, bench.seed)
        findings.append(_layers(finding, output, LAYERS))
    return findings


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and its like wait until this has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run(
    scenarios: Scenarios,
    original: Script,
    patched: Script,
    engine: Engine,
    base: str,
    *,
    options: Mapping[str, str],
    companions: Mapping[str, Script] = {},
    jobs: int | None = None,
    keep: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Finding, ...]:
    """Puts ``patched`` through the scenarios on a real engine and returns one finding for each.

    ``base`` is the image that the miniature image is built from; it has sh, head and sleep, and the engine has it
    already. ``companions`` are other files of the tree, by path. ``keep`` is a directory that gets every
    scenario's files. Raises UsageError where the engine or the image can't be used. Whatever happens,
    KeyboardInterrupt included, what was made in the engine is removed.
    """
    every = (UNSET, COLD, WARM, SPACE, *CASES)
    why = sandbox.missing() or ("" if engine.exports else "this engine can't export local caches")
    if why:
        return tuple(Finding(case.name, Verdict.NOT_RUN, why, case.row) for case in every)
    if not engine.call("image", "ls", "--quiet", base).strip():
        raise UsageError(f"the engine has no image {base}", hint=f"Nothing is pulled for you: docker pull {base}")
    shim = (_HARNESS / "engine_shim.py").read_text(encoding="utf8")
    text = f"#!{sandbox.python()} -IS\n{shim}"
    engines = [name for name, program in scenarios.programs.items() if "lib/stub.sh" in program]
    # Without the wrappers that hold a run at its renames: here nothing stands between the block and the system.
    real = replace(scenarios, programs={**scenarios.programs, **dict.fromkeys(engines, text)}, wrap={})
    stage = Stage(real, original, patched, options, companions, None)
    with tempfile.TemporaryDirectory(prefix="ci-patcher-") as temporary:
        bench = _Bench(stage, engine, base, keep or Path(temporary))
        findings: list[Finding] = []
        pool = ThreadPoolExecutor(jobs or 2 * (os.cpu_count() or 1))  # for the most part they wait
        try:
            nonce = f"{bench.run}-cold"
            # Of the same layers, and the second cold as well: so the records of the first can be removed.
            for case in (UNSET, COLD):
                # Not from the pool: the others begin with the cache that it exports.
                finding, output, place = pool.submit(bench.play, case, nonce).result()
                findings.append(_layers(finding, output, 0))
                if case is UNSET:
                    bench.prune(nonce)
                    bench.sizes = bench.sent()
            if incomplete(place):
                why = "there is no cache to begin with"
                findings += [Finding(case.name, Verdict.NOT_RUN, why, case.row) for case in every[2:]]
            else:
                shutil.copytree(place, bench.seed)
                warmth = pool.submit(_warmth, bench, nonce)
                futures = [pool.submit(bench.play, case) for case in CASES]
                findings += warmth.result()
                for future in futures:
                    findings.append(future.result()[0])
                    if progress:
                        progress(len(findings), len(every))
        finally:
            with _undisturbed():
                bench.stop.touch()
                pool.shutdown(wait=True, cancel_futures=True)
                left = bench.clean()
    return (*findings, left)
