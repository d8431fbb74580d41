"""The real branches, in a clone that BITCOIN_REPO names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from patcher import pipeline
from patcher import recipe as recipes
from patcher.model import Script, State

BRANCHES = ["25.x", "26.x", "27.x", "28.x", "29.x", "30.x", "31.x", "master"]
RECIPE = recipes.load("docker-build-cache", [recipes.bundled()])
# PR #32989 took the block of #31545 out by hand and kept the hook.
REMOVAL = "18f6be09d02bf0f398f28a86cf3de5bc573f7bc1"


def git(folder: Path, *arguments: str, data: bytes = b"") -> bytes:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def command(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "patcher", *map(str, arguments)], capture_output=True, check=False)


def revision(repository: Path, branch: str) -> str:
    for name in (branch, f"origin/{branch}", f"upstream/{branch}"):
        asked = ["git", "-C", str(repository), "rev-parse", "--quiet", "--verify", name]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            return name
    pytest.skip(f"BITCOIN_REPO has no branch {branch}")


@pytest.mark.parametrize("branch", BRANCHES)
def test_each_branch_takes_its_patch_once_and_gives_it_back(bitcoin_repo: Path, tmp_path: Path, branch: str) -> None:
    rev = revision(bitcoin_repo, branch)
    author = ["--author", "A <a@example.org>"]
    made = command("patch", "--repo", bitcoin_repo, "--rev", rev, *author)
    assert made.returncode == 0, made.stderr.decode()
    assert b"broken" not in made.stderr
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", "--no-checkout", bitcoin_repo, clone], check=True)
    git(clone, "checkout", "--quiet", git(bitcoin_repo, "rev-parse", f"{rev}^{{commit}}").decode().strip())
    git(clone, "am", data=made.stdout)
    assert git(clone, "show", "--numstat", "--format=", "HEAD").count(b"\n") == 1
    again = command("patch", clone, *author)
    assert (again.returncode, again.stdout) == (0, b"")
    assert b"nothing to do" in again.stderr
    reverse = command("patch", clone, "--reverse", "--no-verify", *author)
    git(clone, "am", data=reverse.stdout)
    assert git(clone, "diff", "HEAD~2") == b""
    git(clone, "reset", "--quiet", "--hard", "HEAD~1")
    git(clone, "revert", "--no-edit", "HEAD")
    assert git(clone, "diff", "HEAD~2") == b""


def test_the_reference_of_a_foreign_block_is_what_its_removal_by_hand_gave(bitcoin_repo: Path) -> None:
    path = "ci/test/02_run_container.sh"
    try:
        before, after = (git(bitcoin_repo, "show", f"{commit}:{path}").decode() for commit in (f"{REMOVAL}^", REMOVAL))
    except subprocess.CalledProcessError:
        pytest.skip(f"BITCOIN_REPO lacks {REMOVAL}")
    syntax = pipeline.parse(Script(path, before))
    plan = pipeline.planned(syntax, RECIPE, RECIPE.values({}))
    assert plan.state is State.FOREIGN
    assert plan.reference.text == after


def test_every_version_in_the_history_gets_the_patch_that_the_table_has(bitcoin_repo: Path) -> None:
    program = Path(__file__).resolve().parent.parent / "bench" / "hashes.py"
    done = subprocess.run([sys.executable, str(program), bitcoin_repo], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as before" in done.stdout


def test_nothing_of_the_clone_is_written(bitcoin_repo: Path) -> None:
    def listing() -> list[tuple[str, int, int]]:
        found = []
        for folder, _, files in os.walk(bitcoin_repo):
            for name in files:
                status = os.lstat(os.path.join(folder, name))
                found.append((os.path.join(folder, name), status.st_size, status.st_mtime_ns))
        return sorted(found)

    before = listing()
    assert command("inspect", "--repo", bitcoin_repo, "--rev", revision(bitcoin_repo, "29.x")).returncode == 0
    assert listing() == before
