"""The scenarios on a real Docker engine, and what tells our records there from the user's."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from patcher import pipeline, sources
from patcher import recipe as recipes
from patcher.errors import UsageError
from patcher.model import Finding, Source, Verdict
from patcher.review import behaviour, engine
from patcher.review.engine import Engine, Record
from patcher.review.harness import engine_shim
from tests.conftest import FIXTURES

BASE = os.environ.get("CI_PATCHER_BASE_IMAGE", "ci-base:latest")
BRANCHES = ["25.x", "27.x", "28.x", "30.x", "master"]
RECIPE = recipes.load("docker-build-cache", [recipes.bundled()])

on_an_engine = pytest.mark.engine


@pytest.fixture(scope="session")
def found() -> Engine:
    """The engine. Where none answers the test is skipped; in CI, where DOCKER_HOST says that one does, it fails."""
    try:
        reached = engine.find()
        if not reached.call("image", "ls", "--quiet", BASE).strip():
            raise UsageError(f"the engine has no image {BASE}, CI_PATCHER_BASE_IMAGE names another")
    except UsageError as error:
        if os.environ.get("CI") and os.environ.get("DOCKER_HOST"):
            pytest.fail(f"no engine to test on: {error.what}")
        pytest.skip(f"no engine to test on: {error.what}")
    return reached


def state(found: Engine) -> dict[str, set[str]]:
    """All that an engine holds, by kind."""
    asked = {
        "images": ("image", "ls", "--all", "--quiet", "--no-trunc"),
        "volumes": ("volume", "ls", "--quiet"),
        "networks": ("network", "ls", "--quiet"),
        "containers": ("container", "ls", "--all", "--quiet"),
    }
    records = engine.records(found.call("buildx", "--builder", "default", "du", "--verbose"))
    return {kind: set(found.call(*words).split()) for kind, words in asked.items()} | {"records": set(records)}


@pytest.fixture
def unharmed(found: Engine, tmp_path: Path) -> Iterator[dict[str, set[str]]]:
    """A user's image, which the scripts' own prune would take, volume and cache records; they must be all there is."""
    folder, name = tmp_path / "user", f"user-of-ci-patcher-tests-{os.getpid()}"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
    (folder / "file").write_text(name)
    before = state(found)
    found.call("buildx", "--builder", "default", "build", "--label=ci-fixture", f"--label={name}", str(folder))
    found.call("volume", "create", name)
    with_users = state(found)
    assert {kind for kind in before if with_users[kind] - before[kind]} == {"images", "volumes", "records"}
    yield with_users
    try:
        assert state(found) == with_users
    finally:
        found.call("volume", "rm", name)
        for image in with_users["images"] - before["images"]:
            found.call("image", "rm", "--force", image)
        mine = "|".join(with_users["records"] - before["records"])
        found.call("buildx", "--builder", "default", "prune", "--all", "--force", "--filter", f"id={mine}")


def review(source: Source, found: Engine) -> tuple[Finding, ...]:
    """What comes of the patched script of a source."""
    change = pipeline.change(source, RECIPE, RECIPE.values({}), verify=False)
    assert not change.broken
    (patched,) = [after for _, after in change.pairs if after.path == change.plan.script.path]
    scenarios = behaviour.load_scenarios(RECIPE.folder, RECIPE.name)
    return engine.run(scenarios, change.plan.reference, patched, found, BASE, options=change.values)


def assert_all_held(findings: tuple[Finding, ...]) -> None:
    assert [(f.row, f.check, f.detail, f.evidence) for f in findings if f.verdict is not Verdict.HELD] == []
    assert {finding.row for finding in findings} == {0, 1, 3, 5, 7, 8, 10, 12, 14, 15, 16, 17}


@on_an_engine
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_patched_fixture_holds_on_docker(found: Engine, unharmed: dict[str, set[str]], branch: str) -> None:
    assert unharmed
    assert_all_held(review(sources.tree(FIXTURES / branch), found))


@on_an_engine
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_patched_real_script_holds_on_docker(bitcoin_repo: Path, found: Engine, branch: str) -> None:
    names = [branch, f"origin/{branch}", f"upstream/{branch}"]
    for name in names:
        asked = ["git", "-C", str(bitcoin_repo), "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}"]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            assert_all_held(review(sources.revision(bitcoin_repo, name), found))
            return
    pytest.skip(f"BITCOIN_REPO has no branch {branch}")


def command(*arguments: str | Path) -> list[str]:
    words = ["verify", "--engine", "docker", "--base-image", BASE, *map(str, arguments)]
    return [sys.executable, "-m", "patcher", *words]


@on_an_engine
def test_an_unpatched_tree_fails_the_command(found: Engine, unharmed: dict[str, set[str]]) -> None:
    assert unharmed
    done = subprocess.run(command("--json", FIXTURES / "28.x"), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines() == found.lines
    findings = json.loads(done.stdout)
    assert [(f["row"], f["verdict"]) for f in findings if f["verdict"] != "not run"] == [
        (1, "held"),
        (3, "broken"),
        (None, "held"),
    ]


@on_an_engine
def test_the_structure_of_the_merged_block_breaks(found: Engine, unharmed: dict[str, set[str]]) -> None:
    assert unharmed
    plan = pipeline.examine(sources.tree(FIXTURES / "29.1"), RECIPE, RECIPE.values({}))
    scenarios = behaviour.load_scenarios(RECIPE.folder, RECIPE.name)
    findings = engine.run(scenarios, plan.reference, plan.script, found, BASE, options={})
    held = {finding.row for finding in findings if finding.verdict is Verdict.HELD}
    # It leaves its temporary directory behind in every run.
    assert held == {0, 1}
    broken = {finding.row: finding.detail for finding in findings if finding.verdict is Verdict.BROKEN}
    assert "outside of H" in broken[3]
    assert "CACHED" in broken[10]
    assert "the old cache is not as it was" in broken[16]


@on_an_engine
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(
    found: Engine, unharmed: dict[str, set[str]], tree: Path, number: signal.Signals
) -> None:
    running = subprocess.Popen(
        command(tree), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        # In the middle of the scenarios: the first cache is there, and more builds have begun.
        while len(state(found)["images"] - unharmed["images"]) < 2 and running.poll() is None:
            assert time.monotonic() < deadline
        os.killpg(running.pid, number)
        _, errors = running.communicate(timeout=60)
        assert (running.returncode, errors.splitlines()[-1]) == (128 + number, "interrupted")
    finally:
        if running.poll() is None:
            running.kill()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A patched tree."""
    change = pipeline.change(sources.tree(FIXTURES / "28.x"), RECIPE, RECIPE.values({}), verify=False)
    for _, after in change.pairs:
        path = tmp_path / "tree" / after.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(after.data)
    return tmp_path / "tree"


def record(identity: str, parent: str = "", description: str = "", kind: str = "regular", size: str = "1kB") -> Record:
    return Record(identity, (parent,) if parent else (), description, kind, size)


RECORDS = [
    record("base"),
    record("user", "base", "mount / from exec /bin/sh -c echo user"),
    record("newuser", "base", "mount / from exec /bin/sh -c echo newuser"),
    record("one", "base", "mount / from exec /bin/sh -c echo needle > /1"),
    record("two", "one", "imported sha256:beef"),
    record("three", "newbase", "imported sha256:cafe"),
    record("four", "three", "imported sha256:beef"),
    record("foreign", "base", "imported sha256:beef"),
    record("newbase"),
    record("context", description="local source for context", kind="source.local", size="4kB"),
    record("users", description="local source for context", kind="source.local", size="1.5GB"),
    record("old", description="local source for context", kind="source.local", size="4kB"),
]


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        (None, ["four", "two", "one", "three"]),
        (frozenset({"4kB"}), ["context", "four", "two", "one", "three", "newbase"]),
    ],
)
def test_only_our_records_are_ours_and_children_come_first(sent: frozenset[str] | None, wanted: list[str]) -> None:
    table = {one.identity: one for one in RECORDS}
    before = frozenset({"base", "user", "old"})
    assert engine.ours(table, before, "needle", frozenset({"cafe"}), sent) == wanted


def test_records_are_read() -> None:
    shown = """ID:\t\tabc
Parent:\t\tdef
Created at:\t2026-11-24 13:01:44.665315874 +0000 UTC
Shared:\t\ttrue
Size:\t\t8.304kB
Description:\tmount / from exec /bin/sh -c : a: b
Type:\t\tregular

ID:\t\tdef
Size:\t\t2.226MB
Type:\t\tregular

Shared:\t\t50.27MB
Total:\t\t50.29MB
"""
    assert engine.records(shown) == {
        "abc": record("abc", "def", "mount / from exec /bin/sh -c : a: b", size="8.304kB"),
        "def": record("def", size="2.226MB"),
    }


PASSED_ON = {
    "build": ("build --tag=a --file x/f --label=l .", "build OURS --label=l ."),
    "buildx build": ("buildx build -t a -f x --push --pull=true --cache-to b .", "buildx build OURS --cache-to b ."),
    "image build": ("image build --tag a .", "image build OURS ."),
}


@pytest.mark.parametrize(("words", "wanted"), PASSED_ON.values(), ids=PASSED_ON)
def test_a_build_gets_our_file_and_tag(words: str, wanted: str) -> None:
    assert engine_shim.passed_on(words.split(), {"words": ["OURS"]}) == wanted.split()


@pytest.mark.parametrize("words", ["image prune --force", "run image", "buildx prune", "volume create v", ""])
def test_nothing_but_a_build_is_passed_on(tmp_path: Path, words: str) -> None:
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "docker"
    shim.symlink_to(Path(engine_shim.__file__))
    # Without settings a build could not be passed on.
    asked = [sys.executable, "-IS", str(shim), *words.split()]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("container\n" if words.startswith("run") else "")
    assert (tmp_path / "log").read_text().split("\0")[1:-1] == ["other", "docker", *words.split()]


def cache(folder: Path) -> Path:
    """A cache as the engine writes it, with one layer."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        (blobs / name).write_bytes(content)
        return f"sha256:{name}"

    layer = blob(b"layer")
    config = blob(json.dumps({"layers": [{"blob": layer}]}).encode())
    manifest = blob(json.dumps({"manifests": [{"digest": layer}, {"digest": config}]}).encode())
    (folder / "index.json").write_text(json.dumps({"manifests": [{"digest": manifest}]}))
    return folder


def test_a_whole_cache_is_complete(tmp_path: Path) -> None:
    assert engine.incomplete(cache(tmp_path)) == ""


def layer_of(folder: Path) -> Path:
    return folder / "blobs" / "sha256" / hashlib.sha256(b"layer").hexdigest()


def test_what_is_missing_in_a_cache_is_named(tmp_path: Path) -> None:
    one, two, three, four = (cache(tmp_path / str(number)) for number in range(4))
    layer_of(one).unlink()
    assert engine.incomplete(one).endswith("is missing")
    layer_of(two).write_bytes(b"other")
    assert "is not what its name says" in engine.incomplete(two)
    (layer_of(three).parent / hashlib.sha256(b"stale").hexdigest()).write_bytes(b"stale")
    assert engine.incomplete(three) == "1 blobs of another cache"
    (four / "nested").mkdir()
    assert engine.incomplete(four) == "nested in the cache"
    assert engine.incomplete(tmp_path / "none").startswith("index.json: ")


def test_layers_from_a_cache_are_counted() -> None:
    output = "#6 [2/4] RUN echo a\n#6 CACHED\n\n#7 [3/4] RUN echo b\n#7 DONE 0.1s\n#8 [1/4] FROM x\n#8 CACHED\n"
    assert engine.cached(output) == 1


def test_an_engine_that_cannot_export_is_told_how(tmp_path: Path) -> None:
    classic = Engine("docker", "buildx", tmp_path, "Docker 26", "classic (overlay2)", "docker", "0.13", exports=False)
    assert "can export local caches: no" in classic.lines
    assert any("containerd-snapshotter" in line for line in classic.lines)


NO_ENGINE = {
    "no docker": ({"PATH": "/none"}, "no docker in PATH"),
    "not a socket": ({"DOCKER_HOST": "tcp://localhost:1"}, "not behind a socket of this machine"),
    "nobody there": ({"DOCKER_HOST": "unix:///none.sock"}, r"docker version: .*/none\.sock"),
}


@pytest.mark.parametrize(("environment", "said"), NO_ENGINE.values(), ids=NO_ENGINE)
def test_no_engine_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    stub = tmp_path / "docker"
    stub.write_text('#!/bin/sh\n[ "$1" != version ] || { echo "no answer at $DOCKER_HOST" >&2; exit 1; }\necho {}\n')
    stub.chmod(0o755)
    for name, value in {"PATH": f"{tmp_path}:/usr/bin:/bin", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        engine.find()
    assert re.search(said, caught.value.what)


REFUSED = {
    "no image": (["--engine", "docker"], "--engine docker needs --base-image"),
    "a stub": (["--base-image", "busybox"], "--base-image is for --engine docker"),
    "everywhere": (["--engine", "docker", "--base-image", "busybox", "--exhaustive"], "--exhaustive needs points"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_options_that_do_not_fit(options: list[str], said: str) -> None:
    asked = [sys.executable, "-m", "patcher", "verify", *options, str(FIXTURES / "28.x")]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
