"""What is read of a tree, on disk and in git: nothing outside it, and nothing that a repository says runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from patcher import sources
from patcher.errors import InputError
from tests.command import SCRIPT, git, script

LISTED = ("ci/README.md", "ci/lint/a.sh", "ci/test/02_run_container.sh")


def odd_tree(root: Path) -> Path:
    """A tree with files, and with links in it and out of it."""
    (root / "secret").mkdir(parents=True)
    (root / "secret" / "key").write_text("key\n")
    for path in LISTED:
        script(root / "tree", path=path)
    for link, target in {
        "key": "../../secret/key",
        "secret": "../../secret",
        "within.sh": "test/02_run_container.sh",
    }.items():
        (root / "tree/ci" / link).symlink_to(target)
    return root / "tree"


def committed(tree: Path) -> Path:
    git(tree, "init", "--quiet", "--initial-branch=main")
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--message=base")
    return tree


def test_the_files_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = odd_tree(tmp_path)
    os.mkfifo(tree / "ci/fifo")
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer/ci").symlink_to(tree / "ci")
    on_disk, in_git = sources.tree(tree), sources.revision(committed(tree), "main")
    for folder, listed in {
        "ci": LISTED,
        "ci/lint": LISTED[1:2],
        "gone": (),
        "ci/README.md": (),
        "ci/secret": (),
    }.items():
        assert (sources.listing(on_disk, folder), sources.listing(in_git, folder)) == (listed, listed)
    assert sources.listing(sources.tree(tmp_path / "outer"), "ci") == ()
    monkeypatch.setattr(sources, "MOST", 2)
    monkeypatch.setattr("patcher.repository.MOST", 2)
    assert max(len(sources.listing(source, "ci")) for source in (on_disk, in_git)) <= 2


@pytest.mark.parametrize("path", ["ci/key", "ci/secret/key", "../secret/key"])
def test_no_link_leads_out_of_a_tree(path: str, tmp_path: Path) -> None:
    source = sources.tree(odd_tree(tmp_path))
    with pytest.raises(InputError, match="a link that leads out of the tree"):
        sources.read(source, path)
    within = sources.read(source, "ci/within.sh")
    assert within is not None
    assert within.text == (tmp_path / "tree" / SCRIPT).read_text()
