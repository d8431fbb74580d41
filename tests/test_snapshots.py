"""The patch of every fixture, as a file that a person reads.

``pytest tests/test_snapshots.py --snapshot-update`` writes them anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from tests.command import git, here, repository
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
    done = here(FIXTURES, "patch", *ARGUMENTS, *arguments, FIXTURES / name)
    assert done.status == REFUSED.get(name, 0), done.error
    return done.out


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
    tree = repository(tmp_path / "tree", name)
    before = {path: path.read_bytes() for path in tree.rglob("*") if ".git" not in path.parts and path.is_file()}
    git(tree, "am", "--keep-cr", data=emitted(name))
    again = here(tree, "patch", *ARGUMENTS)
    assert (again.status, again.out) == (0, b"")
    assert "nothing to do" in again.error
    git(tree, "revert", "--no-edit", "HEAD")
    assert {path: path.read_bytes() for path in before} == before
