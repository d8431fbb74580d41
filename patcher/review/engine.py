"""The scenarios on a real engine: a script's build goes through to docker, everything else it asks for does not.

The script runs in the sandbox as it does with the stub engine, with the engine's socket bound and a shim in place of
docker (``harness/engine_shim.py``). A recipe's ``engine.toml`` has the scenarios and describes every key of them.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from patcher import data, signals
from patcher.errors import UsageError
from patcher.model import Finding, Script, Verdict
from patcher.review import sandbox
from patcher.review.scenarios import Expect, Scenario, Scenarios, fill
from patcher.review.stage import Observation, Stage, below, observed

ENGINE = "/run/engine"  # in the sandbox, as in harness/engine_shim.py
LABEL = "ci-patcher.run"
SECONDS = 120
PATIENCE = 30  # tries, and at least so many seconds, to remove what a killed build used

# Every layer's command has the nonce, and so has the description of its cache record.
IMAGE = """FROM {base}
RUN echo {nonce} > /ci-patcher-1
RUN echo {nonce} > /ci-patcher-2
ARG CI_PATCHER_PLAN
RUN : {nonce}; eval "$CI_PATCHER_PLAN" && echo "$CI_PATCHER_PLAN" > /ci-patcher-3
"""
# An image file with an ignore file of its own is all that the engine reads. The cache record of the two has no mark of
# ours, but nobody else's are as large.
PADDING = 1 << 20
SENT = re.compile(
    r"^Size:\s*(\d{3}(\.\d+)?kB|[\d.]+MB)$(?s:.*)^Description:\s*local source for dockerfile$", re.MULTILINE
)

INFO = (
    "{{.ServerVersion}}|{{.Driver}}|{{.DriverStatus}}"
    '{{range .ClientInfo.Plugins}}{{if eq .Name "buildx"}}|{{.Path}}|{{.Version}}{{end}}{{end}}'
)
HOW = """To turn the containerd image store on, put {"features": {"containerd-snapshotter": true}} into the engine's
/etc/docker/daemon.json and restart it. In Docker Desktop it is a switch under Settings, General.
It needs Docker 24 or later. Images of the classic store are not shown while it is on, and come back with it off."""


class Case(data.Table, frozen=True):
    """A scenario of ``engine.toml``."""

    row: int
    name: str
    steps: tuple[str, ...] = ("start 1", "end 1")
    unset: tuple[str, ...] = ()
    words: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    cached: int | None = None
    index: str | None = None
    room: int = 0
    plans: tuple[str, ...] = ("ok",)
    fails: tuple[int, ...] = ()
    leaves: tuple[Literal["old", "new", "nothing"], ...] = ("new",)


class Cases(data.Table, frozen=True):
    """An ``engine.toml``."""

    programs: tuple[str, ...]
    cache: str
    plans: dict[str, str]
    scenario: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that docker reaches: what the sandbox needs of it, and what it is, in lines."""

    docker: str
    socket: str
    buildx: str
    exports: bool
    lines: tuple[str, ...]

    def call(self, *words: str, check: bool = True) -> str:
        """The standard output of a docker command, whatever engine the environment names."""
        return run_docker(self.docker, "--host", f"unix://{self.socket}", *words, check=check)

    def records(self) -> dict[str, str]:
        """What docker shows of each record of the builder's cache, by the record's identity."""
        shown = self.call("buildx", "--builder", "default", "du", "--verbose")
        blocks = re.split(r"^(?=ID:)", shown, flags=re.MULTILINE)
        return {block.split(maxsplit=2)[1]: block for block in blocks if block.startswith("ID:")}


def run_docker(*words: str, check: bool = True) -> str:
    """The standard output of a command. Raises UsageError if it does not end, or fails and ``check`` is set."""
    try:
        # Ctrl-C must not end the cleanup, so the command has a session of its own.
        done = subprocess.run(words, capture_output=True, check=False, start_new_session=True, timeout=60)
    except subprocess.TimeoutExpired:
        raise UsageError("docker did not answer within 60 s", hint="Is the engine alive?") from None
    if check and done.returncode:
        said = done.stderr.decode("utf8", "replace").strip().splitlines() or [f"status {done.returncode}"]
        raise UsageError(f"docker: {said[-1]}", hint="`docker info` tells whether an engine answers.")
    return done.stdout.decode("utf8", "replace").strip()


def find() -> Engine:
    """The engine that ``docker`` reaches. Raises UsageError if there is none, or none behind a socket."""
    docker = shutil.which("docker")
    if docker is None:
        raise UsageError("no docker in PATH", hint="Install the docker client, or leave --engine docker out.")
    host = run_docker(docker, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    if not host.startswith("unix://"):
        raise UsageError(
            f"the engine is at {host}, not behind a socket of this machine",
            hint="The sandbox has no network. Set DOCKER_HOST=unix://... or leave --engine docker out.",
        )
    version, driver, status, *plugin = run_docker(docker, "info", "--format", INFO).split("|")
    if not version or len(plugin) != 2:
        what = "docker has no buildx" if version else "no engine answers"
        raise UsageError(what, hint="`docker info` tells about the engine and the plugin buildx.")
    exports = "io.containerd.snapshotter.v1" in status  # only the containerd image store can
    lines = [f"engine: Docker {version}", f"image store: {'containerd' if exports else 'classic'} ({driver})"]
    lines += [f"buildx: {plugin[1]}", f"can export local caches: {'yes' if exports else 'no'}"]
    how = [] if exports else HOW.splitlines()
    return Engine(docker, host.removeprefix("unix://"), plugin[0], exports, (*lines, *how))


def ours(found: Mapping[str, str], needle: str, blobs: Iterable[str]) -> tuple[set[str], set[str]]:
    """The records of our layers, and those that came with them and may be another build's as well.

    A layer's command has the needle, or the layer was imported from a cache of ours: it is one of the blobs. With
    the layers came what they are built on, which their records name, and what was sent for the build.
    """
    marks = (needle, *(f"imported sha256:{blob}" for blob in blobs))
    layers = {identity for identity, shown in found.items() if any(mark in shown for mark in marks)}
    others = {identity for identity, shown in found.items() if SENT.search(shown)} - layers
    children = layers
    while children:
        rest = found.keys() - layers - others
        children = {identity for identity in rest if any(identity in found[child] for child in children)}
        others |= children
    return layers, others


def incomplete(cache: Path) -> str:
    """What is wrong with an exported cache, or nothing: every blob that it names is there and whole, and no other."""
    folder = cache / "blobs" / "sha256"

    def named(path: Path) -> set[str]:
        return set(re.findall(r'"digest":"sha256:(\w+)"', path.read_text(encoding="utf8", errors="replace")))

    try:
        manifests = named(cache / "index.json")
        wanted = manifests.union(*(named(folder / manifest) for manifest in manifests))
        blobs = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    except OSError as error:
        return str(error)
    if not wanted or wanted != blobs.keys():
        return f"{len(wanted - blobs.keys())} blobs are missing, {len(blobs.keys() - wanted)} are of another cache"
    if wrong := [name for name, digest in blobs.items() if name != digest]:
        return f"the blob {wrong[0]} is not what its name says"
    known = {"blobs", "index.json", "index.json.lock", "ingest", "oci-layout"}
    return "; ".join(f"{path.name} in the cache" for path in cache.iterdir() if path.name not in known)


def cached(output: str) -> int:
    """How many layers a build reported as CACHED."""
    steps = set(re.findall(r"^#(\d+) \[.*\] RUN ", output, re.MULTILINE))
    return len(steps & set(re.findall(r"^#(\d+) CACHED", output, re.MULTILINE)))


@dataclass(frozen=True, slots=True)
class Measured(Finding):
    """A finding with the seconds that the script took, and the bytes of the cache that it left."""

    seconds: float = 0
    size: int = 0


class Bench:
    """One script on a real engine."""

    def __init__(self, stage: Stage, cases: Cases, engine: Engine, base: str, folder: Path) -> None:
        self.stage, self.cases, self.engine, self.base = stage, cases, engine, base
        self.run = f"ci-patcher-{secrets.token_hex(6)}"
        self.folder = folder / self.run
        self.seed = self.folder / "seed"
        self.seed.mkdir(parents=True)
        self.ignore = "".join(f"# {secrets.token_hex(500)}\n" for _ in range(PADDING // 1000))
        self.known = self.engine.records().keys()
        self.others: set[str] = set()
        self.usual: set[str] | None = None

    def forget(self, *, everything: bool = False) -> str:
        """Removes the records of our layers, or everything that this run brought. Returns what is left, or nothing."""
        # Images stay until the end: with one, the engine drops blobs that a build beside it is about to export.
        mine = ("--filter", f"label={LABEL}={self.run}")
        # Our layers are tiny. Those of the base are not, and another build may have imported them as well.
        blobs = [path.name for path in self.seed.glob("blobs/sha256/*") if path.stat().st_size < 10_000]
        for tries in range(PATIENCE):
            time.sleep(min(tries, 1))
            images = self.engine.call("image", "ls", "--quiet", *mine).split() if everything else []
            found = {identity: shown for identity, shown in self.engine.records().items() if identity not in self.known}
            layers, others = ours(found, self.run, blobs)
            self.others |= others
            removed = layers | (self.others & found.keys() if everything else set())
            if not (images or removed) or (tries > 2 and not (images or layers)):  # another build may need the others
                return ""
            if images:
                self.engine.call("image", "prune", "--all", "--force", *mine, check=False)
            # Without --all, records that an image shares are spared.
            words = ("prune", "--all", "--force", "--filter", f"id=^({'|'.join(removed)})$")
            self.engine.call("buildx", "--builder", "default", *words, check=False)
        return f"{len(images)} images, {len(layers)} cache records"

    def all(self, pool: ThreadPoolExecutor) -> Iterator[Finding]:
        """Runs all cases and yields their findings."""
        yield from (self.play(case) for case in self.cases.scenario if case.cached is not None)
        yield from pool.map(self.play, (case for case in self.cases.scenario if case.cached is None))

    def play(self, case: Case) -> Finding:
        """Runs a case. What the engine holds of the ones before is removed where layers must come from the cache."""
        left = self.forget() if case.cached is not None else ""
        why = f"the engine keeps {left}" if left else ""
        if case.cached != 0 and not any(self.seed.iterdir()):
            why = "there is no cache to begin with"
        if why:
            return Finding(case.name, Verdict.NOT_RUN, why, case.row)
        key = secrets.token_hex(4)
        scenario = Scenario(name=case.name, row=case.row, steps=case.steps, words=case.words, expect=Expect())
        words = self.stage.words(scenario)
        root, name = fill(self.stage.scenarios.root, words), fill(self.cases.cache, words)
        place = self.folder / key
        place.mkdir()
        if case.cached != 0:
            shutil.copytree(self.seed, place / name)
        if case.index is not None:
            (place / name / "index.json").write_text(case.index, encoding="utf8")
        job, binds = self.job(case, scenario, key), self.binds(case, place, root)
        started = time.monotonic()
        done = self.stage.perform([job], binds, SECONDS + PATIENCE, drop=False)
        seconds = time.monotonic() - started
        seen = observed((done.stdout.splitlines() or [b""])[0], done)
        problems = self.problems(case, seen, root, f"{root}/{name}", place / name)
        said = [f"run {name} ended with {run.status}:\n{run.output}\n{run.errors}" for name, run in seen.runs.items()]
        if case.cached == 0 and not incomplete(place / name):
            shutil.copytree(place / name, self.seed, dirs_exist_ok=True)
            (self.seed / "blobs" / "sha256" / "old").touch()  # no new cache equals it
        if problems or case.cached is None:
            verdict = Verdict.BROKEN if problems else Verdict.HELD
            return Finding(case.name, verdict, "; ".join(problems), case.row, "\n".join(said) if problems else "")
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        detail = f"{seconds:.1f} s, {size} bytes of cache"
        return Measured(case.name, Verdict.HELD, detail, case.row, seconds=round(seconds, 1), size=size)

    def job(self, case: Case, scenario: Scenario, key: str) -> dict[str, Any]:
        """What the driver is told (see ``harness/driver.py``), with an image file for each run."""
        job = self.stage.job(scenario, self.stage.patched, None)
        image = IMAGE.format(base=self.base, nonce=f"{self.run}-{key if case.cached is None else 'shared'}")
        for name, run in job["runs"].items():
            run["environment"] = {key: text for key, text in run["environment"].items() if key not in case.unset}
            plan = case.plans[min(int(name), len(case.plans)) - 1]
            ours = [f"--file={run['folder']}/image/file", f"--tag={self.run}-{key}-{name}"]
            plan = self.cases.plans.get(plan, plan)
            ours += [f"--label={LABEL}={self.run}", f"--build-arg=CI_PATCHER_PLAN={plan}", "--progress=plain"]
            texts = {"words": "\n".join(ours), "image/file": image, "image/file.dockerignore": self.ignore}
            job["files"] += [[f"{run['folder']}/{path}", "file", "644", text] for path, text in texts.items()]
        return {**job, "limits": {}, "seconds": SECONDS}

    def binds(self, case: Case, place: Path, root: str) -> list[sandbox.Bind]:
        """What the sandbox has of the machine: the engine, and the directory with the caches."""
        engine = [
            sandbox.Bind(Path(self.engine.docker), f"{ENGINE}/docker", read_only=True),
            sandbox.Bind(Path(self.engine.buildx), f"{ENGINE}/config/cli-plugins/docker-buildx", read_only=True),
            sandbox.Bind(Path(self.engine.socket), f"{ENGINE}/docker.sock"),
        ]
        if not case.room:
            return [*engine, sandbox.Bind(place, root)]
        held = {f"{root}/{path.relative_to(place)}": path.read_bytes() for path in place.rglob("*") if path.is_file()}
        entries = [(path, "file", "644", text.decode("utf8", "surrogateescape")) for path, text in held.items()]
        return [*engine, sandbox.Bind(place, root, size=case.room + sum(map(len, held.values())), entries=entries)]

    def problems(self, case: Case, seen: Observation, root: str, cache: str, host: Path) -> list[str]:
        """What did not hold, each as one line."""
        problems = list(seen.trouble)
        if not seen.looks:
            return problems
        for name, run in seen.runs.items():
            if run.status is None or (run.status != 0) != (int(name) in case.fails):
                problems.append(f"run {name} ended with {run.status}")
        before, *between, after = [below(look, cache) for look in (seen.before, *seen.looks)]
        for look in (before, *between, after):
            look.pop("index.json.lock", None)  # of the engine, on an index that it reads
        if any(look != before for look in between):
            problems.append("the old cache is not as it was, on the way")
        beside = {path.split("/")[0] for path in below(seen.looks[-1], root) if path}
        state = "nothing" if not beside else "old" if after == before else "new"
        if state not in case.leaves:
            problems.append(f"what lies there is {state}, not {' or '.join(case.leaves)}")
        elif state == "new" and (what := incomplete(host)):
            problems.append(f"the cache is not complete: {what}")
        elif state == "new" and after[""][1] != "755":
            problems.append(f"the cache has the mode {after[''][1]}")
        left = beside - {host.name, *fill(self.stage.scenarios.keep, self.stage.scenarios.words)}
        outside = {path for path in seen.looks[-1] if not f"{path}/".startswith(f"{root}/")}
        self.usual = outside if self.usual is None else self.usual
        problems += [f"{path} is left" for path in sorted(left | (outside - self.usual))[:3]]
        if case.cached is not None and (found := cached(seen.runs["1"].output + seen.runs["1"].errors)) != case.cached:
            problems.append(f"{found} layers were CACHED, not {case.cached}")
        return problems


def run(
    cases: Cases,
    scenarios: Scenarios,
    original: Script,
    patched: Script,
    engine: Engine,
    base: str,
    *,
    options: Mapping[str, str],
    companions: Mapping[str, Script] = {},
    keep: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Finding, ...]:
    """Puts ``patched`` through the cases and returns one finding for each, and one for what is left in the engine.

    ``base`` is an image that the engine has, with sh, head and sleep; ``companions`` are other files of the tree by
    path; ``keep`` is a directory that gets every case's caches. Raises UsageError if the engine or the image cannot
    be used. What was made in the engine is removed, also after KeyboardInterrupt.
    """
    if why := sandbox.missing() or ("" if engine.exports else "this engine can't export local caches"):
        return tuple(Finding(case.name, Verdict.NOT_RUN, why, case.row) for case in cases.scenario)
    if not engine.call("image", "ls", "--quiet", base):
        raise UsageError(f"the engine has no image {base}", hint=f"Nothing is pulled for you: docker pull {base}")
    shim = (Path(__file__).parent / "harness" / "engine_shim.py").read_text(encoding="utf8")
    programs = {**scenarios.programs, **dict.fromkeys(cases.programs, f"#!{sandbox.python()} -IS\n{shim}")}
    # Without wrappers: nothing stands between the block and the system.
    scenarios = msgspec.structs.replace(scenarios, programs=programs, wrap={})
    stage = Stage(scenarios, original, patched, options, companions, None)
    findings = []
    with tempfile.TemporaryDirectory(prefix="ci-patcher-") as temporary:
        bench = Bench(stage, cases, engine, base, keep or Path(temporary))
        pool = ThreadPoolExecutor(2 * (os.cpu_count() or 1))  # for the most part they wait
        try:
            for finding in bench.all(pool):
                findings.append(finding)
                if progress:
                    progress(len(findings), len(cases.scenario))
        finally:
            with signals.ignored():
                stage.stop.set()
                pool.shutdown(cancel_futures=True)
                left = bench.forget(everything=True)
    verdict = Verdict.BROKEN if left else Verdict.HELD
    return (*findings, Finding("nothing of the review is left in the engine", verdict, left))
