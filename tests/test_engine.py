"""The scenarios on a real Docker engine, and what tells our records there from the user's."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from patcher import data, pipeline, sources
from patcher import recipe as recipes
from patcher.errors import UsageError
from patcher.model import Finding, Source, Verdict
from patcher.review import behaviour, engine
from patcher.review.engine import Engine
from patcher.review.harness import engine_shim
from tests.conftest import FIXTURES

BASE = os.environ.get("CI_PATCHER_BASE_IMAGE", "ci-base:latest")
BRANCHES = ["25.x", "27.x", "28.x", "30.x", "master"]
RECIPE = recipes.load("docker-build-cache", [recipes.bundled()])
CASES = data.load(RECIPE.folder / "engine.toml", engine.Cases)

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
    return {kind: set(found.call(*words).split()) for kind, words in asked.items()} | {"records": set(found.records())}


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
    scenarios = behaviour.load_scenarios(RECIPE.folder)
    return engine.run(CASES, scenarios, change.plan.reference, patched, found, BASE, options=change.values)


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
    assert done.stderr.splitlines() == list(found.lines)
    findings = json.loads(done.stdout)
    assert findings[0]["seconds"] > 0
    assert findings[0]["size"] == 0
    assert [(f["row"], f["verdict"]) for f in findings if f["verdict"] != "not run"] == [
        (1, "held"),
        (3, "broken"),
        (None, "held"),
    ]


@on_an_engine
def test_the_structure_of_the_merged_block_breaks(found: Engine, unharmed: dict[str, set[str]]) -> None:
    assert unharmed
    plan = pipeline.examine(sources.tree(FIXTURES / "29.1"), RECIPE, RECIPE.values({}))
    scenarios = behaviour.load_scenarios(RECIPE.folder)
    findings = engine.run(CASES, scenarios, plan.reference, plan.script, found, BASE, options={})
    held = {finding.row for finding in findings if finding.verdict is Verdict.HELD}
    # It leaves its temporary directory behind in every run.
    assert held == {0, 1}
    broken = {finding.row: finding.detail for finding in findings if finding.verdict is Verdict.BROKEN}
    assert "/tree/" in broken[3]
    assert "CACHED" in broken[10]
    assert "not old" in broken[16]


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


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts a docker into PATH that names a host, and says this of its engine or fails."""

    def put(host: str, info: str) -> None:
        says = f"echo '{info}'" if info else "{ echo no answer >&2; exit 1; }"
        (tmp_path / "docker").write_text(f'#!/bin/sh\n[ "$1" = info ] && {says} || echo {host}\n')
        (tmp_path / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


RECORDS = {
    "base": "Size:\t\t2.226MB",
    "top": "Parent:\t\tbase",
    "user": "Parent:\t\ttop\nDescription:\tmount / from exec /bin/sh -c echo user",
    "one": "Parent:\t\ttop\nSize:\t\t8.304kB\nDescription:\tmount / from exec /bin/sh -c : needle > /1",
    "two": "Parent:\t\tother\nDescription:\timported sha256:cafe",
    "other": "Size:\t\t1kB",
    "foreign": "Parent:\t\tbase\nDescription:\timported sha256:beef",
    "sent": "Size:\t\t1.012MB\nDescription:\tlocal source for dockerfile",
    "small": "Size:\t\t8.192kB\nDescription:\tlocal source for dockerfile",
    "large": "Size:\t\t1.5GB\nDescription:\tlocal source for context",
}


def test_only_our_records_are_ours(answers: Callable[[str, str], None]) -> None:
    text = "\n\n".join(f"ID:\t\t{identity}\n{shown}" for identity, shown in RECORDS.items())
    answers(f"'{text}\n\nShared:\t\t50.27MB\n'", "")
    found = Engine("docker", "socket", "buildx", exports=True, lines=()).records()
    assert found.keys() == RECORDS.keys()
    assert engine.ours(found, "needle", ["cafe"]) == ({"one", "two"}, {"base", "top", "other", "sent"})


PASSED_ON = {
    "build": ("build --tag=a --file x/f --label=l .", "build --file x/f --label=l . OURS"),
    "buildx build": ("buildx build -t a -f x --cache-to b .", "buildx build -f x --cache-to b . OURS"),
}


@pytest.mark.parametrize(("words", "wanted"), PASSED_ON.values(), ids=PASSED_ON)
def test_a_build_gets_our_file_and_tag(words: str, wanted: str) -> None:
    assert engine_shim.passed_on(words.split(), ["OURS"]) == wanted.split()


@pytest.mark.parametrize("words", ["image prune --force", "run image", "buildx prune", "volume create v", ""])
def test_nothing_but_a_build_is_passed_on(tmp_path: Path, words: str) -> None:
    shim = tmp_path / "docker"
    shim.symlink_to(Path(engine_shim.__file__))
    # There is no engine to pass it on to.
    asked = [sys.executable, "-IS", str(shim), *words.split()]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


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
    manifest = blob(b'{"manifests":[{"digest":"%s"},{"digest":"%s"}]}' % (layer.encode(), config.encode()))
    (folder / "index.json").write_text(f'{{"manifests":[{{"digest":"{manifest}"}}]}}')
    return folder


def test_what_is_wrong_with_a_cache_is_named(tmp_path: Path) -> None:
    whole, one, two, three, four = (cache(tmp_path / str(number)) for number in range(5))
    blobs = Path("blobs", "sha256")
    layer = blobs / hashlib.sha256(b"layer").hexdigest()
    (one / layer).unlink()
    (two / layer).write_bytes(b"other")
    (three / blobs / "stale").touch()
    (four / "nested").mkdir()
    assert engine.incomplete(whole) == ""
    assert engine.incomplete(one) == "1 blobs are missing, 0 are of another cache"
    assert "is not what its name says" in engine.incomplete(two)
    assert engine.incomplete(three) == "0 blobs are missing, 1 are of another cache"
    assert engine.incomplete(four) == "nested in the cache"
    assert "No such file" in engine.incomplete(tmp_path / "none")


def test_layers_from_a_cache_are_counted() -> None:
    output = "#6 [2/4] RUN echo a\n#6 CACHED\n\n#7 [3/4] RUN echo b\n#7 DONE 0.1s\n#8 [1/4] FROM x\n#8 CACHED\n"
    assert engine.cached(output) == 1


def test_an_engine_that_cannot_export_is_told_how(answers: Callable[[str, str], None]) -> None:
    answers("unix:///s", "26.1|overlay2|[[x y]]|/plugin|0.13")
    shown = "\n".join(engine.find().lines)
    assert shown.startswith(
        "engine: Docker 26.1\nimage store: classic (overlay2)\nbuildx: 0.13\ncan export local caches: no"
    )
    assert "containerd-snapshotter" in shown


NO_ENGINE = {
    "not a socket": ("tcp://localhost:1", "", "not behind a socket of this machine"),
    "nobody there": ("unix:///s", "", "docker: no answer"),
    "an empty answer": ("unix:///s", "||[]", "no engine answers"),
    "no buildx": ("unix:///s", "26.1|overlayfs|[]", "docker has no buildx"),
}


@pytest.mark.parametrize(("host", "info", "said"), NO_ENGINE.values(), ids=NO_ENGINE)
def test_no_engine_is_an_error(answers: Callable[[str, str], None], host: str, info: str, said: str) -> None:
    answers(host, info)
    with pytest.raises(UsageError, match=said):
        engine.find()


def test_no_docker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/none")
    with pytest.raises(UsageError, match="no docker in PATH"):
        engine.find()


REFUSED = {
    "no image": (["--engine", "docker"], "--engine docker needs --base-image"),
    "a stub": (["--base-image", "busybox"], "--base-image is for --engine docker"),
    "everywhere": (["--engine", "docker", "--base-image", "busybox", "--exhaustive"], "--exhaustive needs the stub"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_options_that_do_not_fit(options: list[str], said: str) -> None:
    asked = [sys.executable, "-m", "patcher", "verify", *options, str(FIXTURES / "28.x")]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
