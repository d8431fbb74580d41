"""Backport: which revisions, what is written and where, and that nothing else is touched."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from patcher import backport, pipeline, recipe, revisions
from patcher.model import Finding, Patch, Verdict
from patcher.parse import python, shell
from patcher.repository import Objects
from tests import command
from tests.command import Done, state_of
from tests.conftest import FIXTURES

PARSERS = (python, shell)  # imported here, so that the processes that are forked need not do so each time
BRANCHES = ("25.x", "26.x", "27.x", "28.x", "29.x", "30.x", "31.x", "master")
WHO = ("--author", "A U Thor <author@example.org>")
PATCH = "0001-ci-optionally-cache-docker-build-layers-on-the-CI-ho.patch"
DATE = 1_700_000_000
RECIPE = recipe.load("docker-build-cache", [recipe.bundled()])


def git(cwd: Path, *arguments: str, date: int = DATE, check: bool = True) -> str:
    return command.git(cwd, *arguments, date=f"{date} +0200", check=check).decode().strip()


def run(repo: Path, *arguments: str | Path) -> Done:
    """The command in this process, without what takes long."""
    return command.here(Path(), "backport", "--repo", repo, *arguments, "--no-verify")


def commit(repo: Path, branch: str, tree: Path, date: int = DATE) -> None:
    """A branch whose one commit holds a tree."""
    git(repo, "checkout", "--quiet", "--orphan", branch)
    git(repo, "rm", "-r", "--quiet", "--cached", "--ignore-unmatch", ".")
    shutil.rmtree(repo / "ci", ignore_errors=True)
    shutil.copytree(tree / "ci", repo / "ci")
    git(repo, "add", "--force", "ci")
    git(repo, "commit", "--quiet", "--message", f"The state of {branch}", date=date)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All release branches, each a miniature tree, and the master branch checked out."""
    repo = tmp_path_factory.mktemp("backport") / "bitcoin"
    repo.mkdir()
    git(repo, "init", "--quiet", "--initial-branch=first")
    for number, branch in enumerate(BRANCHES):
        commit(repo, branch, FIXTURES / branch, DATE + number)
    git(repo, "tag", "v29.0", "29.x")
    git(repo, "branch", "wip/29.x", "29.x")
    return repo


@pytest.fixture
def repo(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "bitcoin", symlinks=True)
    return tmp_path / "bitcoin"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# which revisions


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (["nonsuch"], ["nonsuch: nonsuch, unknown"]),
        (["z*"], ["z*: z*, unknown"]),
        (["--all"], ["--all: --all, unknown"]),
        (["29.x\nmaster"], ["29.x\nmaster: 29.x\nmaster, unknown"]),
        (["a" * 300], [f"{'a' * 300}: {'a' * 300}, unknown"]),
        ([""], [": , unknown"]),
        (["master:ci"], ["master:ci: master:ci, unknown"]),
        ([], [f"{name}: {name}" for name in (*BRANCHES[:-1], "wip/29.x", "master")]),
        (["*.x"], [f"{name}: {name}" for name in BRANCHES[:-1]]),
        (["3?.x"], ["30.x: 30.x", "31.x: 31.x"]),
        (["*/29.x"], ["wip/29.x: wip/29.x"]),
        (["v*"], ["v29.0: v29.0"]),
        (["v29.0", "HEAD", "28.x^{}"], ["v29.0: v29.0", "HEAD: HEAD", "28.x^{}: 28.x^{}"]),
        (["29.x", "2?.x", "29.x"], [f"{name}: {name}" for name in ("29.x", "25.x", "26.x", "27.x", "28.x")]),
        (["refs/heads/29.x"], ["refs/heads/29.x: 29.x"]),
    ],
)
def test_the_revisions_of_a_repository(original: Path, asked: Sequence[str], wanted: Sequence[str]) -> None:
    assert selected(original, asked) == wanted


def selected(repo: Path, asked: Sequence[str]) -> list[str]:
    with Objects(repo) as objects:
        targets, _ = revisions.select(objects, asked, RECIPE)
    return [f"{one.name}: {one.revision}{'' if one.commit else ', unknown'}" for one in targets]


def test_a_local_branch_comes_before_a_remotes_and_upstream_before_origin(original: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(original), str(clone))
    git(clone, "remote", "add", "a-fork", str(original))
    git(clone, "fetch", "--quiet", "a-fork")
    releases = [f"{name}: origin/{name}" for name in (*BRANCHES[:-1], "wip/29.x")]
    assert selected(clone, []) == [*releases, "master: master"]
    git(clone, "branch", "--quiet", "27.x", "origin/27.x")
    git(clone, "remote", "add", "upstream", str(original))
    git(clone, "fetch", "--quiet", "upstream", "29.x")
    assert selected(clone, ["27.x", "28.x", "29.x"]) == ["27.x: 27.x", "28.x: origin/28.x", "29.x: upstream/29.x"]
    full = ["origin/29.x", "a-fork/30.x", "a-fork/31.x"]
    assert selected(clone, ["origin/29.x", "a-fork/3*"]) == [f"{name}: {name}" for name in full]


def test_the_default_branch_is_the_remotes_or_head(original: Path, tmp_path: Path) -> None:
    renamed, clone = tmp_path / "renamed", tmp_path / "clone"
    shutil.copytree(original, renamed)
    git(renamed, "branch", "--move", "master", "trunk")
    assert selected(renamed, [])[-1] == "trunk: trunk"
    git(tmp_path, "clone", "--quiet", "--origin=fork", str(renamed), str(clone))
    git(clone, "switch", "--quiet", "--create", "topic-1.0")
    assert selected(clone, [])[-1] == "trunk: trunk"
    git(renamed, "switch", "--quiet", "--detach", "29.x")
    assert selected(renamed, [])[-1] == "HEAD: HEAD"


RELEASES = (
    *("29.x", "29.0.0", "0.21", "v29.1", "v28", "release-28", "release/28", "elements-29.x", "elements-23.2.x"),
    *("29.x-knots", "29.x-knots+bip", "a/b-29.x"),
)
NO_RELEASES = ("230512-23.x-deadlock", "cmake/0606.10", "27_tapi", "clang_22_ci", "31545", "0.9", "x")


def test_what_looks_like_a_release(repo: Path) -> None:
    for name in ("topic", *RELEASES, *NO_RELEASES):
        git(repo, "update-ref", f"refs/remotes/fork/{name}", "28.x")
    commit(repo, "old", FIXTURES / "no-build")
    (repo / "ci/test/04_install.sh").write_text("echo\n")
    git(repo, "commit", "--quiet", "--all", "--message=no engine at all")
    git(repo, "update-ref", "refs/remotes/fork/0.9", "old")
    git(repo, "symbolic-ref", "refs/remotes/fork/HEAD", "refs/remotes/fork/topic")
    with Objects(repo) as objects:
        targets, left_out = revisions.select(objects, [], RECIPE)
    assert sorted(target.name for target in targets) == sorted([*RELEASES, "topic"])
    assert left_out.startswith(f"{len(NO_RELEASES)} other branches are left out, such as 0.9 and x. To add some, name")
    assert left_out.endswith(f"ci-patcher backport --repo {repo} 0.9 x")


def test_branches_that_it_made_are_left_out(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for branch in ("wip/29.x", *BRANCHES[:4], *BRANCHES[5:7]):
        git(repo, "branch", "--quiet", "-D", branch)
    git(repo, "tag", "v28.1", "29.x")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert run(repo, "29.x", "v28.1", "--branch", "my/cache-", *WHO).status == 0
    assert selected(repo, []) == ["29.x: 29.x", "master: master"]
    git(repo, "branch", "--force", "29.x", "my/cache-29.x")  # the patch was merged
    assert selected(repo, []) == ["29.x: 29.x", "master: master"]


def test_nothing_named_and_nothing_found(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=odd")
    result = run(tmp_path)
    assert (result.status, result.text) == (2, "")
    assert "Name the branches" in result.error


def test_labels_are_safe_and_unlike_each_other(repo: Path) -> None:
    git(repo, "update-ref", "refs/remotes/origin/27.x", "27.x")
    with Objects(repo) as objects:
        targets, _ = revisions.select(objects, ["origin/27.x", "Origin-27.x", "27.x~0", "@{0}", "../.x.lock"], RECIPE)
    assert [target.label for target in targets] == ["origin-27.x", "Origin-27.x-2", "27.x-0", "0", "x"]


# the patches


def test_every_patch_is_taken_by_git_am_on_its_branch(repo: Path, out: Path) -> None:
    pick = git(repo, "rev-parse", "v29.0")
    trailers = ("--github-pull", "#31545", "--rebased-from", pick, "--signoff")
    result = run(repo, *BRANCHES, "-o", out, *WHO, *trailers)
    assert result.status == 0, result.error
    assert names(out) == [f"{branch}/{PATCH}" for branch in BRANCHES]
    for branch in BRANCHES:
        git(repo, "checkout", "--quiet", "--detach", branch)
        git(repo, "am", "--quiet", str(out / branch / PATCH))
        assert git(repo, "log", "-1", "--format=%(trailers)").splitlines() == [
            "Github-Pull: #31545",
            f"Rebased-From: {pick}",
            "Signed-off-by: A U Thor <author@example.org>",
        ]
        assert git(repo, "log", "-1", "--format=%an <%ae>") == WHO[1]
        assert git(repo, "log", "-1", "--format=%ad", "--date=raw") == git(
            repo, "log", "-1", "--format=%cd", "--date=raw", branch
        )
        assert f"Base: {branch}, commit {git(repo, 'rev-parse', branch)}" in (out / branch / PATCH).read_text()
    assert run(repo, "HEAD", *WHO).error.startswith("HEAD: ci/test/02_run_container.py: nothing to do")


def test_the_same_bytes_again_and_on_stdout(repo: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(repo, "2[89].x", "-o", out, *WHO).status == 0
    result = run(repo, "2[89].x", *WHO)
    assert result.out == b"".join((out / name).read_bytes() for name in names(out))
    (repo / "mbox").write_bytes(result.out)
    assert git(repo, "mailsplit", "-o.git", "mbox") == "2"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert "\nDate: Fri, 2 Jan 1970 00:00:00 +0000\n" in run(repo, "29.x", *WHO).text


@pytest.mark.parametrize(("form", "name"), [("diff", "diff"), ("markdown", "md")])
def test_other_forms(repo: Path, out: Path, form: str, name: str) -> None:
    assert run(repo, "29.x", "-o", out, "--format", form).status == 0
    assert names(out) == [f"29.x/{PATCH.removesuffix('patch')}{name}"]


def test_without_an_author_it_is_a_diff_and_says_so(repo: Path, out: Path) -> None:
    assert "the author of the commit is unknown" in run(repo, "29.x", "-o", out).error
    git(repo, "checkout", "--quiet", "29.x")
    git(repo, "apply", "--check", str(out / "29.x" / PATCH.replace(".patch", ".diff")))
    assert run(repo, "29.x", "28.x").status == 2


def test_reverse_takes_it_out_again(repo: Path, out: Path) -> None:
    assert run(repo, "27.x", "31.x", "--branch", "with-", *WHO).status == 0
    result = run(repo, "with-27.x", "with-31.x", "29.x", "--reverse", "-o", out, *WHO, "--pr-body")
    assert "29.x: ci/test/02_run_container.sh: nothing to do" in result.error
    for branch in ("27.x", "31.x"):
        git(repo, "checkout", "--quiet", "--detach", f"with-{branch}")
        git(repo, "am", "--quiet", str(out / f"with-{branch}" / PATCH))
        assert git(repo, "rev-parse", "HEAD^{tree}") == git(repo, "rev-parse", f"{branch}^{{tree}}")
    body = (out / "pull-request.md").read_text()
    assert "\n- `with-27.x` and `with-31.x`: the block is removed\n" in body
    assert " becomes " not in body


def test_revisions_with_the_same_scripts_are_reviewed_once(
    repo: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repo, "branch", "28.1", "28.x")
    seen = tmp_path / "seen"
    change = pipeline.change

    def counted(source: Any, *arguments: Any, **options: Any) -> Patch:
        with seen.open("a") as file:  # by a process of its own
            file.write(f"{source.name}\n")
        return change(source, *arguments, **options)

    monkeypatch.setattr(pipeline, "change", counted)
    assert run(repo, "28.x", "28.1", "-o", out, *WHO).status == 0
    assert seen.read_text() == "28.x\n"
    assert "Base: 28.1, commit " in (out / "28.1" / PATCH).read_text()
    assert "Base: 28.x, commit " in (out / "28.x" / PATCH).read_text()


# what goes wrong with some


def test_one_failing_branch_stops_nothing(repo: Path, out: Path, tree: Callable[[str], Path]) -> None:
    script = tree("27.x") / "ci/test/02_run_container.sh"
    script.write_text(script.read_text(encoding="utf8")[:900] + '\necho "', encoding="utf8")
    for branch, folder in {"22.x": "no-build", "two-builds": "two-builds"}.items():
        commit(repo, branch, FIXTURES / folder)
    commit(repo, "cut", script.parents[2])
    result = run(repo, "22.x", "27.x", "two-builds", "cut", "nonsuch", "29.x", "-o", out, *WHO)
    assert (result.status, names(out)) == (4, [f"{branch}/{PATCH}" for branch in ("27.x", "29.x")])
    assert "cut: ci/test/02_run_container.sh:" in result.error
    assert "nonsuch: no such branch" in result.error
    assert "22.x: " not in result.error
    table = {line.split(" | ")[0].strip("| "): line for line in result.text.splitlines() if line.startswith("| ")}
    assert "| skipped: no image build " in table["22.x"]
    assert "| error: ci/test/02_run_container.sh:" in table["cut"]
    assert "| patched " in table["29.x"]
    assert len({len(line) for line in table.values()}) == 1


@pytest.mark.parametrize(
    ("branches", "status"),
    [
        (["29.x"], 0),
        (["22.x", "29.x"], 0),
        (["22.x"], 3),
        (["22.x", "21.x"], 3),
        (["two", "29.x"], 3),
        (["two", "nonsuch"], 4),
    ],
)
def test_the_exit_status(repo: Path, out: Path, branches: Sequence[str], status: int) -> None:
    commit(repo, "22.x", FIXTURES / "no-build")
    git(repo, "branch", "21.x")
    commit(repo, "two", FIXTURES / "two-builds")
    assert run(repo, *branches, "-o", out, *WHO).status == status


def test_a_check_says_which_branches_need_a_patch(repo: Path) -> None:
    assert run(repo, "28.x", "31.x", "--branch", "x-", *WHO).status == 0
    commit(repo, "22.x", FIXTURES / "no-build")
    found: list[tuple[list[str], int]] = []
    for names in (["28.x", "x-31.x", "22.x"], ["x-28.x", "x-31.x", "22.x"], ["22.x"]):
        with Objects(repo) as objects:
            targets, _ = revisions.select(objects, names, RECIPE)
            outcomes = list(backport.run(objects, targets, RECIPE, RECIPE.values({}), strict=True, check=True))
        found.append(([str(outcome.result) for outcome in outcomes], backport.status(outcomes)))
    assert found == [
        (["patch needed", "nothing to do", "skipped"], 1),
        (["nothing to do", "nothing to do", "skipped"], 0),
        (["skipped"], 3),
    ]


def test_a_failed_review_gives_no_patch(repo: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patcher.review.static.second_run", lambda *_: Finding("a check", Verdict.BROKEN))
    result = run(repo, "28.x", "29.x", "-o", out, *WHO)
    assert (result.status, names(out)) == (1, [])
    assert "28.x: the review failed, so there is no patch:" in result.error
    monkeypatch.undo()
    result = run(repo, "28.x", "-o", out, *WHO, "--strict")
    assert (result.status, names(out)) == (1, [])
    assert "--strict: a check was skipped" in result.error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--github-pull", "31545a"], "the form is a number"),
        (["--rebased-from", "e87429a2d0"], "a full hash is needed"),
        (["--rebased-from", "0" * 40], "this repository has no such commit"),
        (["--signoff"], "--signoff needs an author"),
        (["--branch", ""], "--branch needs a prefix"),
        (["--branch", "x-"], "--branch needs an author"),
        (["--force"], "--force is for --branch"),
        (["--date", "yesterday"], "not a date"),
        (["--format", "mbox"], "an mbox needs an author"),
    ],
)
def test_wrong_options(original: Path, options: Sequence[str], says: str) -> None:
    result = run(original, "29.x", *options)
    assert (result.status, result.text) == (2, "")
    assert says in result.error


def test_a_commit_that_a_shallow_clone_cannot_know_is_believed(original: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--depth=1", original.as_uri(), "shallow")
    (tmp_path / "shallow/.git/shallow").write_text(git(original, "rev-parse", "master") + "\n")
    result = run(tmp_path / "shallow", "master", *WHO, "--rebased-from", "0" * 40)
    assert f"\nRebased-From: {'0' * 40}\n" in result.text


# what is written


def worktree(repo: Path) -> Path:
    git(repo, "worktree", "add", "--quiet", "--detach", str(repo.parent / "other"), "29.x")
    return repo.parent / "other"


def bare(repo: Path) -> Path:
    git(repo, "clone", "--quiet", "--bare", str(repo), str(repo.parent / "other"))
    return repo.parent / "other"


def dirty(repo: Path) -> Path:
    (repo / "ci/test/02_run_container.py").write_text("not what is committed\n")
    git(repo, "add", ".")
    (repo / "ci/test/00_setup_env.sh").unlink()
    return repo


def rebasing(repo: Path) -> Path:
    for branch in ("one", "other"):
        git(repo, "checkout", "--quiet", "-b", branch, "29.x")
        (repo / "ci/test/00_setup_env.sh").write_text(branch)
        git(repo, "commit", "--quiet", "--all", "--message", branch)
    git(repo, "rebase", "one", check=False)
    assert (repo / ".git/rebase-merge").is_dir()
    return repo


@pytest.mark.parametrize("kind", [worktree, bare, dirty, rebasing])
def test_the_repository_is_only_read(repo: Path, out: Path, tmp_path: Path, kind: Callable[[Path], Path]) -> None:
    there = kind(repo)
    before = state_of(tmp_path)
    branches = ("25.x", "29.x", "master")
    result = run(there, *branches, "-o", out, *WHO)
    assert result.status == 0, result.error
    assert names(out) == [f"{branch}/{PATCH}" for branch in branches]
    shutil.rmtree(out)
    assert state_of(tmp_path) == before


def test_a_partial_clone_names_what_it_lacks(repo: Path, out: Path, tmp_path: Path) -> None:
    git(repo, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", repo.as_uri(), "partial")
    before = state_of(tmp_path)
    result = run(tmp_path / "partial", "25.x", "27.x", "master", "-o", out, *WHO)
    assert (result.status, names(out)) == (4, [f"master/{PATCH}"])
    blob = git(repo, "rev-parse", "27.x:ci/test/02_run_container.sh")
    assert f"27.x: ci/test/02_run_container.sh: its blob {blob} is not in this clone" in result.error
    shutil.rmtree(out)
    assert state_of(tmp_path) == before


def test_branches_are_all_that_is_written(repo: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    branches = ("25.x", "master")
    assert run(repo, *branches, "-o", out, *WHO).status == 0
    before = state_of(repo)
    result = run(repo, *branches, "--branch", "cache/", *WHO)
    assert result.status == 0, result.error
    after = state_of(repo)
    new = {path for path in after if path not in before}
    assert all(
        path.startswith((".git/objects/", ".git/refs/heads/cache", ".git/logs/refs/heads/cache")) for path in new
    )
    assert {path: entry for path, entry in after.items() if path in before and (repo / path).is_file()} == {
        path: entry for path, entry in before.items() if (repo / path).is_file()
    }
    git(repo, "fsck", "--strict", "--no-dangling")
    for branch in branches:
        made = f"cache/{branch}"
        git(repo, "checkout", "--quiet", "--detach", branch)
        git(repo, "am", "--quiet", str(out / branch / PATCH))
        assert git(repo, "rev-parse", f"{made}^") == git(repo, "rev-parse", branch)
        assert git(repo, "rev-parse", f"{made}^{{tree}}") == git(repo, "rev-parse", "HEAD^{tree}")
        assert git(repo, "log", "-1", "--format=%B%an%ad", made) == git(repo, "log", "-1", "--format=%B%an%ad")
        assert abs(int(git(repo, "log", "-1", "--format=%ct", made)) - time.time()) < 300
    refs = git(repo, "for-each-ref")
    monkeypatch.setattr(time, "time", lambda: DATE)  # the same commits but for the committer's date
    assert run(repo, *branches, "--branch", "cache/", *WHO).status == 0
    assert git(repo, "for-each-ref") == refs


def test_no_branch_is_moved_without_force_and_none_that_is_checked_out(repo: Path, tmp_path: Path) -> None:
    git(repo, "branch", "x-28.x", "master")
    refs = git(repo, "for-each-ref")
    objects = state_of(repo / ".git/objects")
    result = run(repo, "27.x", "28.x", "--branch", "x-", *WHO)
    assert result.status == 2
    assert "x-28.x exists already" in result.error
    assert (git(repo, "for-each-ref"), state_of(repo / ".git/objects")) == (refs, objects)
    git(repo, "worktree", "add", "--quiet", str(tmp_path / "tree"), "x-28.x")
    assert "is checked out" in run(repo, "27.x", "28.x", "--branch", "x-", "--force", *WHO).error
    assert git(repo, "for-each-ref") == refs
    git(repo, "worktree", "remove", str(tmp_path / "tree"))
    result = run(repo, "27.x", "28.x", "--branch", "x-", "--force", *WHO)
    assert (result.status, git(repo, "rev-parse", "x-28.x^")) == (0, git(repo, "rev-parse", "28.x"))


@pytest.mark.parametrize("prefix", ["a b", "-x", "29.x/", "x.lock/../"])
def test_a_prefix_that_git_refuses(repo: Path, prefix: str) -> None:
    refs = git(repo, "for-each-ref")
    assert run(repo, "29.x", f"--branch={prefix}", *WHO).status == 2
    assert git(repo, "for-each-ref") == refs


def test_a_branch_under_rebase_is_not_moved(repo: Path) -> None:
    rebasing(repo)
    assert run(repo, "other", "--branch", "x-", *WHO).status == 0
    git(repo, "branch", "--force", "x-one", "other")
    (repo / ".git/rebase-merge/head-name").write_text("refs/heads/x-one\n")
    result = run(repo, "one", "--branch", "x-", "--force", *WHO)
    assert "x-one is checked out or being rebased" in result.error


# the folder


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 4, f"28.x/{PATCH}: no space left on device"),
        (KeyboardInterrupt(), 128 + signal.SIGINT, "interrupted"),
    ],
    ids=["a full disk", "Ctrl-C"],
)
def test_what_is_written_is_complete(
    repo: Path, out: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, says: str
) -> None:
    replace = os.replace

    def failing(source: Any, target: Any) -> None:
        if "28.x" in str(target):
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    result = run(repo, "2*.x", "-o", out, *WHO)
    assert result.status == status
    assert "Not finished. Done are 3 of 5:" in result.error
    assert says in result.error
    assert names(out) == [f"{branch}/{PATCH}" for branch in ("25.x", "26.x", "27.x")]
    for branch in ("25.x", "26.x", "27.x"):
        git(repo, "checkout", "--quiet", "--detach", branch)
        git(repo, "am", "--quiet", str(out / branch / PATCH))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_process_behind(repo: Path, out: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        command.command("backport", "--repo", repo, "-o", out, *WHO),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not children(process.pid) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(process.pid, number)
    process.communicate(timeout=20)  # ends when nobody has its output any more
    assert process.returncode == (-number if number is signal.SIGKILL else 128 + number)
    assert not [name for name in (names(out) if out.exists() else []) if not name.endswith(PATCH)]
    if number is not signal.SIGKILL:
        assert sorted(path.name for path in tmp_path.iterdir() if path != out) == ["bitcoin"]


def test_a_killed_process_is_an_error_for_its_branch(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = pipeline.change

    def killed(source: Any, *arguments: Any, **options: Any) -> Patch:
        if source.name == "29.x":
            os.kill(os.getpid(), signal.SIGKILL)
        return change(source, *arguments, **options)

    monkeypatch.setattr(pipeline, "change", killed)
    result = run(repo, "29.x", "28.x", *WHO)
    assert result.status == 4
    assert "29.x: the process that worked on it was killed\n  Is there enough memory?\n" in result.error


def children(parent: int) -> list[str]:
    return Path(f"/proc/{parent}/task/{parent}/children").read_text().split()


# what is said


def test_a_folder_among_the_branches_is_named(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repo.parent)
    hint = f"Is it the clone? ci-patcher backport --repo {repo.name}"
    assert f"{repo.name}: a folder, not a branch\n  {hint}\n" in run(repo, repo.name, "28.x", *WHO).error


def test_many_patches_on_stdout_are_not_for_one_git_am(repo: Path) -> None:
    said = "Each patch is for its own branch, not all for one git am: -o DIR writes files\n"
    assert said in run(repo, "27.x", "28.x", *WHO).error
    assert said not in run(repo, "28.x", *WHO).error


def test_the_summary_as_data(repo: Path, out: Path) -> None:
    result = run(repo, "28.x", "nonsuch", "--json", *WHO)
    data = json.loads(result.text)
    first, second = data["branches"]
    assert (result.status, data["status"]) == (4, 4)
    assert (first["branch"], first["result"], first["state"]) == ("28.x", "patched", "the hook only")
    assert (first["commit"], first["patch"][:5]) == (git(repo, "rev-parse", "28.x"), "From ")
    assert (second["result"], second["error"]["status"]) == ("error", 4)
    data = json.loads(run(repo, "28.x", "--json", "-o", out, "--pr-body", *WHO).text)
    assert data["branches"][0]["patch_file"] == f"28.x/{PATCH}"
    assert "patch" not in data["branches"][0]
    assert data["pull_request"] == (out / "pull-request.md").read_text()


def test_the_text_of_the_pull_request(repo: Path, out: Path, tmp_path: Path) -> None:
    commit(repo, "22.x", FIXTURES / "no-build")
    commit(repo, "29.1", FIXTURES / "29.1")
    git(repo, "checkout", "--quiet", "master")
    branches = ("22.x", "29.1", "27.x", "28.x", "master")
    result = run(repo, *branches, "-o", out, "--pr-body", "--github-pull", "#31545", *WHO)
    assert result.status == 0, result.error
    text = (out / "pull-request.md").read_text()
    for part in (
        "DANGER_DOCKER_BUILD_CACHE_HOST_DIR is set",
        "https://docs.docker.com/build/cache/backends/local/",
        "Backport of #31545 to `29.1`, `27.x` and `28.x`. For `master`.",
        "| skipped: no image build ",
        "lines of the block of #31545 are removed first",
        "` becomes `docker_build_cached docker buildx build",
        "--no-verify: the linters and the scenarios were not run",
        f"git switch --detach 29.1 && git am out/29.1/{PATCH} && ci-patcher verify",
        "Give each branch a host directory of its own",
        "must be able to export local caches",
    ):
        assert part in text, part
    assert str(tmp_path) not in text
    (tmp_path / "recipes").mkdir()
    on_stdout = run(repo, "28.x", "--pr-body", *WHO, "--recipes", tmp_path / "recipes")
    assert "ci-patcher backport --repo . 28.x -o out\n" in on_stdout.text
    assert on_stdout.text.startswith("If DANGER_DOCKER")
    assert on_stdout.error.startswith("| Branch")
