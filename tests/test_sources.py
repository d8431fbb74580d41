"""What is read of a tree, on disk and in git: nothing outside it, and nothing that a repository says runs."""

from __future__ import annotations

import os
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from patcher import sources
from patcher.errors import InputError
from tests.command import SCRIPT, WHO, call, committed, git, repository, script

LISTED = ("ci/README.md", "ci/lint/a.sh", "ci/test/02_run_container.sh")


def odd_tree(root: Path) -> Path:
    """A tree with files, and with links in it and out of it."""
    (root / "secret").mkdir(parents=True)
    (root / "secret" / "key").write_text("key\n")
    for path in LISTED:
        script(root / "tree", path=path)
    links = {"key": "../../secret/key", "secret": "../../secret", "within.sh": "test/02_run_container.sh"}
    for link, target in links.items():
        (root / "tree/ci" / link).symlink_to(target)
    return root / "tree"


def test_the_files_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = odd_tree(tmp_path)
    os.mkfifo(tree / "ci/fifo")
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer/ci").symlink_to(tree / "ci")
    on_disk, in_git = sources.tree(tree), sources.revision(committed(tree), "main")
    expected = {"ci": LISTED, "ci/lint": LISTED[1:2], "gone": (), "ci/README.md": (), "ci/secret": ()}
    for folder, listed in expected.items():
        assert (sources.listing(on_disk, folder), sources.listing(in_git, folder)) == (listed, listed)
    assert sources.listing(sources.tree(tmp_path / "outer"), "ci") == ()
    monkeypatch.setattr(sources, "MOST", 2)
    assert max(len(sources.listing(source, "ci")) for source in (on_disk, in_git)) <= 2


def test_a_tree_object_names_nothing_outside_it(tmp_path: Path) -> None:
    root = committed(odd_tree(tmp_path))
    blob, tree = git(root, "rev-parse", "main:ci/README.md", "main:ci/lint").split()
    rows = [(b"100644", b"..", blob), (b"40000", b"../..", tree), (b"100644", b"a", blob)]
    odd = b"".join(b"%b %b\0%b" % (mode, name, bytes.fromhex(to.decode())) for mode, name, to in rows)
    ci = git(root, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", data=odd).strip()
    top = git(root, "mktree", data=b"040000 tree %b\tci\n" % ci).decode().strip()
    made = git(root, "commit-tree", top, "-m", "odd").decode().strip()
    assert sources.listing(sources.revision(root, made), "ci") == ("ci/a",)


@pytest.mark.parametrize("path", ["ci/key", "ci/secret/key", "../secret/key"])
def test_no_link_leads_out_of_a_tree(path: str, tmp_path: Path) -> None:
    source = sources.tree(odd_tree(tmp_path))
    with pytest.raises(InputError, match="a link that leads out of the tree"):
        sources.read(source, path)
    within = sources.read(source, "ci/within.sh")
    assert within is not None
    assert within.text == (tmp_path / "tree" / SCRIPT).read_text()


def test_a_tree_below_the_root_of_its_repository_is_compared_with_head(tmp_path: Path) -> None:
    script(tmp_path / "clone/samples/29.x")
    committed(tmp_path / "clone")
    source = sources.tree(tmp_path / "clone/samples/29.x")
    held = sources.read(source, SCRIPT)
    assert held is not None
    assert sources.is_committed(source, [held])
    assert not sources.is_committed(source, [replace(held, text="other")])


# repositories that mean harm, or are only odd


def recommitted(root: Path, change: Callable[[bytes], bytes], branch: str = "main") -> None:
    """Put another commit object in place of a branch's own."""
    content = change(git(root, "cat-file", "commit", branch))
    made = git(root, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", data=content)
    git(root, "update-ref", f"refs/heads/{branch}", made.decode().strip())


def signed(content: bytes) -> bytes:
    head, _, message = content.partition(b"\n\n")
    lines = (b"gpgsig -----BEGIN PGP SIGNATURE-----", b" ", b" iQ==", b" -----END PGP SIGNATURE-----")
    return b"\n".join([head, *lines]) + b"\n\n" + message


def harmful(root: Path, ran: Path) -> None:
    """A repository that names a program wherever git has a setting for one; it leaves a file."""
    program = root / ".git" / "program"
    program.write_text(f'#!/bin/sh\necho "$0" "$@" >> {ran}\nexit 1\n')
    program.chmod(0o755)
    keys = [
        *("gpg.program", "core.fsmonitor", "core.sshCommand", "core.pager", "core.editor", "core.alternateRefsCommand"),
        *("diff.external", "diff.x.textconv", "filter.x.clean", "filter.x.smudge", "filter.x.process"),
        *("credential.helper", "remote.origin.uploadpack", "core.gitProxy", "uploadpack.packObjectsHook"),
        "merge.x.driver",
    ]
    lines = [f"[{key.rpartition('.')[0]}]\n{key.rpartition('.')[2]} = {program}\n" for key in keys]
    lines = [re.sub(r"^\[(\w+)\.(\w+)\]", r'[\1 "\2"]', line) for line in lines]
    more = "[log]\nshowSignature = true\n[extensions]\npartialClone = origin\n[core]\nrepositoryFormatVersion = 1\n"
    remote = f'[remote "origin"]\nurl = ext::{program}\npromisor = true\nfetch = +refs/heads/*:refs/remotes/origin/*\n'
    (root / ".git/included").write_text("".join(lines) + more + remote)
    with (root / ".git/config").open("a") as config:
        config.write("[include]\npath = included\n")
    (root / ".git/info/attributes").write_text("* diff=x filter=x merge=x\n")
    for hook in ("reference-transaction", "post-index-change", "pre-auto-gc", "post-checkout", "post-commit"):
        (root / ".git/hooks" / hook).symlink_to(program)


def test_no_program_that_a_repository_names_is_run(tmp_path: Path) -> None:
    root, ran = repository(tmp_path / "clone"), tmp_path / "ran"
    git(root, "branch", "28.x")
    git(root, "branch", "lacking")
    recommitted(root, lambda content: re.sub(rb"tree \w+", b"tree " + b"1" * 40, content), "lacking")
    recommitted(root, signed)
    harmful(root, ran)
    for arguments, status in {
        ("patch", "--no-verify"): 0,
        ("patch", "--check"): 1,
        ("patch", "--no-verify", "--rev", "HEAD", "--rebased-from", "HEAD"): 2,
        ("inspect",): 0,
        ("backport", "--no-verify", "28.x", "main", "lacking", "--branch", "x-"): 4,
    }.items():
        assert call(root, *arguments, *(() if arguments[0] == "inspect" else WHO[:2])).status == status, arguments
    assert not ran.exists(), ran.read_text()
    assert git(root, "rev-parse", "x-main^", "x-28.x^") == git(root, "rev-parse", "main", "28.x")


@pytest.mark.parametrize("setting", ["log.showSignature=true", "i18n.logOutputEncoding=UTF-16", "log.date=relative"])
def test_the_date_is_the_commits(setting: str, tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    recommitted(root, lambda content: signed(re.sub(rb"\d+ \+0000\n\n", b"1700000000 +0200\n\n", content)))
    git(root, "config", *setting.split("="))
    program = script(tmp_path, b"#!/bin/sh\necho 'gpg: Good signature' >&2\n", "gpg")
    git(root, "config", "gpg.program", program)
    done = call(root, "patch", "--no-verify", *WHO[:2])
    assert (done.status, done.out.split(b"\n")[2]) == (0, b"Date: Wed, 15 Nov 2023 00:13:20 +0200"), done.error


@pytest.mark.parametrize("committer", [b"", b"\ncommitter C <c@d> yesterday +0000", b"\ncommitter C <c@d> 17 +9999"])
def test_a_commit_without_a_valid_date_is_an_error_for_its_branch(committer: bytes, tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    git(root, "branch", "28.x")
    recommitted(root, lambda content: re.sub(rb"\ncommitter [^\n]*", lambda _: committer, content))
    done = call(root, "backport", "--no-verify", *WHO[:2], "main", "28.x")
    assert (done.status, done.out.count(b"\nFrom: ")) == (4, 1)
    main = git(root, "rev-parse", "main").decode().strip()
    assert done.first == f"main: {main}: the commit has no committer with a valid date"
    plain = call(root, "patch", "--no-verify", *WHO[:2])
    assert (plain.status, plain.out[:5]) == (0, b"diff "), plain.error
    assert "the date of the commit is unknown" in plain.error


def test_the_ends_of_lines_in_refs(tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    odd = "29.x-\u0085\u2028\u2029"
    for ref in (f"refs/heads/{odd}", f"refs/remotes/origin/{odd}", f"refs/tags/{odd}"):
        git(root, "update-ref", ref, "HEAD")
    done = call(root, "backport", "--no-verify", *WHO, "--branch", "x-", "main")
    assert done.status == 0, done.error
    assert call(root, "backport", "--no-verify", *WHO, odd).out[:5] == b"From "


def test_a_replaced_commit_is_read_as_it_is(tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    script(root)
    git(root, "commit", "--quiet", "--all", "--message=other")
    git(root, "replace", "HEAD~1", git(root, "commit-tree", "HEAD^{tree}", "-m", "false").decode().strip())
    expected = call(root, "backport", "--no-verify", *WHO, "HEAD~1", env={"GIT_NO_REPLACE_OBJECTS": "1"})
    assert call(root, "backport", "--no-verify", *WHO, "HEAD~1").out == expected.out
    assert call(root, "backport", "--no-verify", *WHO, "HEAD~1", "--branch", "x-").status == 0
    changed = git(root, "--no-replace-objects", "diff", "--name-only", "HEAD~1", "x-HEAD-1")
    assert changed.decode().split() == [SCRIPT]


def test_a_large_blob_is_not_read(tmp_path: Path) -> None:
    root = committed(script(tmp_path / "clone", bytes(1 << 24)).parents[2])
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="16,777,216 bytes are too many for a script"):
            sources.read(sources.revision(root, "main"), SCRIPT)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["HEAD", "config", "objects/info/alternates"])
def test_a_fifo_in_a_repository_is_no_endless_wait(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = repository(tmp_path / "clone")
    monkeypatch.setattr("patcher.repository.PATIENCE", 0.5)
    (root / ".git" / name).unlink(missing_ok=True)
    os.mkfifo(root / ".git" / name)
    with pytest.raises(InputError, match="git gave no answer in "):
        sources.revision(root, "main")
