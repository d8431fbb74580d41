"""The patch of every fixture, as a file that a person reads.

``pytest tests/test_snapshots.py --snapshot-update`` writes them anew.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from patcher.cli import main
from tests.conftest import FIXTURES

REFUSED = {"no-build": 3, "two-builds": 3, "unknown-cache": 3}
PATCHED = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir() and path.name not in REFUSED)
ARGUMENTS = ["--author", "Satoshi Nakamoto <satoshi@gmx.com>", "--date", "1231006505 +0000", "--no-verify"]


class PatchFile(SingleFileSnapshotExtension):
    """One ``.patch`` file a snapshot, its bytes as they are."""

    file_extension = "patch"
    _write_mode = WriteMode.BINARY


@pytest.fixture
def patches(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(PatchFile)


def emitted(name: str, *arguments: str) -> bytes:
    done = CliRunner().invoke(main, ["patch", *ARGUMENTS, *arguments, str(FIXTURES / name)])
    assert done.exit_code == REFUSED.get(name, 0), done.stderr
    return done.stdout_bytes


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_is_emitted_for_what_is_refused(name: str) -> None:
    assert emitted(name) == b""


@pytest.mark.parametrize("name", PATCHED)
def test_the_patch(name: str, patches: SnapshotAssertion) -> None:
    assert emitted(name) == patches


@pytest.mark.parametrize("name", ["25.x", "29.x", "master"])
def test_the_patch_with_the_option(name: str, patches: SnapshotAssertion) -> None:
    assert emitted(name, "--set", "cache-to=CIRRUS_BRANCH=master") == patches


@pytest.mark.parametrize("name", PATCHED)
def test_the_patch_applies_and_then_nothing_is_left_to_do(name: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(FIXTURES / name, tree)
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}

    def git(*arguments: str, data: bytes = b"") -> None:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", tree, *identity, *arguments], input=data, check=True, capture_output=True)

    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message=base")
    git("am", "--keep-cr", data=emitted(name))
    arguments = ["patch", *ARGUMENTS]
    again = CliRunner().invoke(main, [*arguments, str(tree)])
    assert (again.exit_code, again.stdout_bytes) == (0, b"")
    assert "nothing to do" in again.stderr
    git("revert", "--no-edit", "HEAD")
    assert {path: path.read_bytes() for path in before} == before
