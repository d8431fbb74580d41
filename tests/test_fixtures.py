"""The miniature trees run as they stand, and call the engine as their rows in fixtures/README.md say."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

FIXTURES = Path(__file__).parents[1] / "fixtures"

# Answers as an engine would and keeps a list of what it was asked, one shell-quoted line a call.
# The first FAILING_BUILDS builds fail.
ENGINE = """#!/usr/bin/env bash
printf -v line '%q ' "${0##*/}" "$@"
printf '%s\\n' "${line% }" >> "$ENGINE_LOG"
case "$1 $2" in
  "build "* | "buildx build")
    builds=$(grep -cE '^(docker|podman) (buildx )?build ' "$ENGINE_LOG")
    [ "$builds" -gt "${FAILING_BUILDS:-0}" ] || exit 1
    ;;
  "run "*) echo 0123456789ab ;;
esac
"""


class Tree(NamedTuple):
    """The file of a fixture that builds, and the words of each build that a run makes."""

    name: str
    main: str
    builds: tuple[str, ...]


SHELL = "ci/test/02_run_container.sh"
PYTHON = "ci/test/02_run_container.py"
SOURCED = "ci/test/04_install.sh"
BUILD = "docker build"
BUILDX = "docker buildx build"
TREES = [
    Tree("no-build", SOURCED, ()),
    Tree("25.x", SOURCED, (BUILD,)),
    Tree("two-builds", SHELL, (BUILDX, BUILDX)),
    *(Tree(name, SHELL, (BUILD,)) for name in ("26.x", "27.x", "29.1", "pr-variable", "pr-size-report")),
    *(Tree(name, SHELL, (BUILD,)) for name in ("retry-group", "podman-beside-docker")),
    *(Tree(name, SHELL, (BUILD,)) for name in ("engine-variable", "here-document")),
    *(Tree(name, SHELL, (BUILDX,)) for name in ("28.x", "29.x", "30.x", "unknown-cache", "constructs")),
    *(Tree(name, SHELL, (BUILDX,)) for name in ("exported-function", "own-trap", "crlf", "no-final-newline")),
    *(Tree(name, PYTHON, (BUILDX,)) for name in ("31.x", "master", "python-helper", "python-no-hook", "python-decoys")),
]
by_name = {tree.name: tree for tree in TREES}
every_tree = pytest.mark.parametrize("tree", TREES, ids=by_name)


class Run(NamedTuple):
    """How a run ended and what it asked of the engine."""

    done: subprocess.CompletedProcess[str]
    calls: list[list[str]]
    root: Path

    @property
    def builds(self) -> list[list[str]]:
        return [call for call in self.calls if call[1] == "build" or call[1:3] == ["buildx", "build"]]

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(" ".join(call[: call.index("build") + 1]) for call in self.builds)


def without_carriage_returns(tree: Tree) -> bytes:
    return (FIXTURES / tree.name / tree.main).read_bytes().replace(b"\r\n", b"\n")


def run(tree: Tree, tmp: Path, **settings: str) -> Run:
    """Run a copy of the tree with stub engines and nothing of the caller's environment."""
    root, stubs, log = tmp / "tree", tmp / "stubs", tmp / "engine.log"
    shutil.copytree(FIXTURES / tree.name, root)
    (root / tree.main).write_bytes(without_carriage_returns(tree))
    for folder in (stubs, tmp / "tmp"):
        folder.mkdir()
    python = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n'
    programs = {"docker": ENGINE, "podman": ENGINE, "sleep": "#!/bin/sh\n", "python3": python}
    for name, text in programs.items():
        (stubs / name).write_text(text)
        (stubs / name).chmod(0o755)
    (stubs / "sitecustomize.py").write_text("import time\ntime.sleep = lambda _: None\n")
    log.touch()
    environment = {"PATH": f"{stubs}:/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(stubs), "ENGINE_LOG": str(log)}
    environment |= {"HOME": str(tmp), "TMPDIR": str(tmp / "tmp"), **settings}
    command = ["bash", "ci/test_run_all.sh"]
    done = subprocess.run(
        command, cwd=root, env=environment, input="", capture_output=True, text=True, timeout=30, check=False
    )
    calls = [shlex.split(line) for line in log.read_text().splitlines()]
    return Run(done, calls, root)


def test_each_folder_has_a_row_here_and_in_the_readme() -> None:
    readme = (FIXTURES / "README.md").read_text()
    folders = {path.name for path in FIXTURES.iterdir() if path.is_dir()}
    assert folders == set(by_name)
    assert [name for name in sorted(folders) if f"| `{name}` |" not in readme] == []


@every_tree
def test_scripts_are_executable_and_parse(tree: Tree) -> None:
    main = FIXTURES / tree.name / tree.main
    for path in (path for path in (FIXTURES / tree.name).rglob("*") if path.is_file()):
        assert os.access(path, os.X_OK) == (path.name != "test_imagefile"), path
        text = without_carriage_returns(tree) if path == main else path.read_bytes()
        if path.suffix == ".py":
            compile(text, str(path), "exec")
        elif path.name != "test_imagefile":
            checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, check=False)
            assert (checked.returncode, checked.stderr) == (0, b""), path
    lines = main.read_bytes().split(b"\n")
    assert {line.endswith(b"\r") for line in lines[:-1]} == {tree.name == "crlf"}
    assert bool(lines[-1]) == (tree.name == "no-final-newline")


@every_tree
def test_runs_as_it_stands(tree: Tree, tmp_path: Path) -> None:
    result = run(tree, tmp_path, CONTAINER_NAME="a_task")
    assert result.done.returncode == 0, result.done.stderr
    assert result.words == tree.builds
    for build in result.builds:
        # The build's last word is its context, and the image is that of the task.
        assert build[-1] == str(result.root)
        assert any(word.startswith("--tag=a_task") for word in build) or build[build.index("--tag") + 1] == "a_task"
    assert any(call[:2] == ["docker", "run"] for call in result.calls)


@pytest.mark.parametrize("tree", [tree for tree in TREES if tree.builds], ids=lambda tree: tree.name)
def test_builds_nothing_else_and_goes_no_further_when_the_build_fails(tree: Tree, tmp_path: Path) -> None:
    result = run(tree, tmp_path, FAILING_BUILDS="99")
    assert result.done.returncode != 0
    assert len({tuple(build) for build in result.builds}) == 1
    after = result.calls[result.calls.index(result.builds[-1]) + 1 :]
    assert [call for call in after if call[1] in {"run", "exec"}] == []


@pytest.mark.parametrize("name", ["25.x", "31.x", "master", "python-no-hook", "python-decoys", "retry-group"])
def test_tries_a_failed_build_once_more(name: str, tmp_path: Path) -> None:
    result = run(by_name[name], tmp_path, FAILING_BUILDS="1")
    assert result.done.returncode == 0, result.done.stderr
    first, second = result.builds
    assert first == second


@pytest.mark.parametrize(
    ("name", "setting", "words"),
    [
        ("podman-beside-docker", {"CI_ENGINE": "podman"}, "podman build"),
        ("engine-variable", {"USE_BUILDX": "1"}, BUILDX),
    ],
)
def test_the_engine_can_be_chosen(name: str, setting: dict[str, str], words: str, tmp_path: Path) -> None:
    assert run(by_name[name], tmp_path, **setting).words == (words,)


HOOKED = {
    *("28.x", "29.x", "30.x", "31.x", "master"),
    *("crlf", "engine-variable", "exported-function", "own-trap", "python-decoys", "python-helper"),
}


@every_tree
def test_the_hook_reaches_the_build_where_there_is_one(tree: Tree, tmp_path: Path) -> None:
    # The foreign blocks overwrite it.
    result = run(tree, tmp_path, DOCKER_BUILD_CACHE_ARG="--progress plain")
    hooked = [build for build in result.builds if "--progress plain" in shlex.join(build)]
    assert hooked == (result.builds if tree.name in HOOKED else [])


@pytest.mark.parametrize(
    ("name", "variable", "left_behind"),
    [
        ("29.1", "DANGER_DOCKER_BUILD_CACHE_HOST_DIR", 1),
        ("pr-variable", "DOCKER_BUILD_CACHE_HOST_DIR", 0),
        ("pr-size-report", "DOCKER_BUILD_CACHE_HOST_DIR", 0),
    ],
)
def test_a_foreign_block_caches_and_leaves_its_directory_as_upstreams_does(
    name: str, variable: str, left_behind: int, tmp_path: Path
) -> None:
    host = tmp_path / "caches"
    (host / "a_task").mkdir(parents=True)
    result = run(by_name[name], tmp_path, CONTAINER_NAME="a_task", **{variable: str(host)})
    (build,) = result.builds
    assert build[build.index("--cache-from") + 1] == f"type=local,src={host}/a_task"
    assert build[build.index("--cache-to") + 1].endswith("/a_task,mode=max")
    assert len(list(result.root.glob("ci-docker-build-cache-*"))) == left_behind
    assert list(tmp_path.glob("tmp/tmp.*")) == []
