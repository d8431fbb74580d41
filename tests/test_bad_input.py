"""Bad input: a clear first line, the exit status of the contract, nothing written, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.command import BUILD, SCRIPT, WHO, call, command, git, here, repository, script, state_of
from tests.conftest import FIXTURES

Argument = str | Path | bytes


class Row(NamedTuple):
    """``make`` writes the input into an empty folder and gives the arguments. ``first`` begins the first line of
    standard error, ``hint`` is somewhere below it."""

    name: str
    make: Callable[[Path], list[Argument]]
    status: int
    first: str
    hint: str = "  "


def tree(content: bytes) -> Callable[[Path], list[Argument]]:
    return lambda root: [script(root, content).parents[2]]


def link(target: str) -> Callable[[Path], list[Argument]]:
    return odd(lambda path: path.symlink_to(target))


def odd(make: Callable[[Path], object]) -> Callable[[Path], list[Argument]]:
    def made(root: Path) -> list[Argument]:
        script(root).unlink()
        make(root / SCRIPT)
        return [root]

    return made


def revision(*arguments: str) -> Callable[[Path], list[Argument]]:
    def make(root: Path) -> list[Argument]:
        repository(root / "clone")
        return list(arguments)

    return make


def loop(root: Path) -> list[Argument]:
    (root / "loop").symlink_to("loop")
    return [root / "loop"]


def bare(root: Path) -> list[Argument]:
    git(root, "init", "--quiet", "--bare", "bare")
    return ["bare"]


def plain(*arguments: str) -> Callable[[Path], list[Argument]]:
    def make(root: Path) -> list[Argument]:
        script(root)
        return list(arguments)

    return make


def lone(root: Path) -> list[Argument]:
    return [script(root, BUILD, "scripts/build.sh")]


def undecodable(root: Path) -> list[Argument]:
    return [os.fsencode(root) + b"/\xff\n"]


NO_BUILD = "no image build found"
ROWS = [
    Row("a missing path", plain("nowhere"), 4, "nowhere: no such file or directory"),
    Row("a missing path with an odd name", undecodable, 4, "{root}/"),
    Row("a folder without CI scripts", lambda root: [root], 3, "{root}: " + NO_BUILD),
    Row("an empty file", tree(b""), 3, "{root}: " + NO_BUILD, SCRIPT),
    Row("comments only", tree(b"#!/bin/bash\n# docker build .\n\n#\n"), 3, "{root}: " + NO_BUILD, SCRIPT),
    Row("no final newline, one comment", tree(b"# docker build ."), 3, "{root}: " + NO_BUILD, SCRIPT),
    Row("a binary", tree(b"\x7fELF\2\1\1\0" + bytes(range(256))), 4, SCRIPT + ":1:8: a NUL byte", ""),
    Row("a binary without a NUL", tree(b"docker build\n" + bytes(range(1, 256))), 4, SCRIPT + ":3:"),
    Row("a NUL byte", tree(b"#!/bin/bash\ndocker \0build .\n"), 4, SCRIPT + ":2:8: a NUL byte", ""),
    Row("20 MB", tree(b"docker build .\n" * 1400000), 4, SCRIPT + ": 21,000,000 bytes", ""),
    Row("cut off in a quote", tree(b"docker build .\necho 'cut"), 4, SCRIPT + ":2:6: unexpected", "bash -n"),
    Row("cut off in double quotes", tree(b'docker build "cut\n'), 4, SCRIPT + ":1:14: unexpected", "bash -n"),
    Row("cut off in a here-document", tree(b"docker build - << E\nFROM\n"), 4, SCRIPT + ":1:16: "),
    Row("cut off in an if", tree(b"if true; then\n  docker build .\n"), 4, SCRIPT + ":"),
    Row("a symlink loop", link("02_run_container.sh"), 4, SCRIPT + ": too many levels of symbolic links"),
    Row("a symlink loop as TREE", loop, 4, "{root}/loop: too many levels of symbolic links"),
    Row("a symlink that leads nowhere", link("gone"), 4, SCRIPT + ": a symbolic link that leads nowhere", ""),
    Row("a link out of the tree", link("/dev/zero"), 4, SCRIPT + ": a link that leads out of the tree", ""),
    Row("a fifo", odd(os.mkfifo), 4, SCRIPT + ": not a regular file", ""),
    Row("a folder in the script's place", odd(Path.mkdir), 4, SCRIPT + ": a folder stands where", ""),
    Row("a device as TREE", plain("/dev/null"), 4, "/dev/null: neither a folder nor a file"),
    Row("a lone script outside ci", lone, 2, "{root}/scripts/build.sh: a lone script"),
    Row("two builds", lambda _: [FIXTURES / "two-builds"], 3, SCRIPT + ": 2 image builds", SCRIPT + ":"),
    Row("a cache block of an unknown form", lambda _: [FIXTURES / "unknown-cache"], 3, SCRIPT + ":", "by hand"),
    Row("no such revision", revision("--repo", "clone", "--rev", "29.9"), 4, "clone: the revision '29.9'", "git tag"),
    Row("a revision that is an option", revision("--repo", "clone", "--rev=--all"), 4, "clone: not a revision", ""),
    Row("a revision that is a folder", revision("--repo", "clone", "--rev", "HEAD:ci"), 4, "clone: the revision"),
    Row("an empty revision", revision("--repo", "clone", "--rev", ""), 4, "clone: the revision ''"),
    Row("no such repository", plain("--repo", "nowhere", "--rev", "HEAD"), 4, "nowhere: there is no such repository"),
    Row("a folder that is no repository", plain("--repo", "ci", "--rev", "HEAD"), 4, "ci: not a git repository"),
    Row("a repository without a revision", revision("--repo", "clone"), 2, "--repo needs --rev"),
    Row("a tree and a repository", revision("clone", "--repo", "clone", "--rev", "main"), 2, "TREE and --repo"),
    Row("an empty bare repository", bare, 3, "bare: " + NO_BUILD),
    Row("an unknown option", plain("--nonsense"), 2, "Usage:", "No such option"),
    Row("an unknown recipe", plain("--recipe", "nonsense"), 2, "there is no recipe 'nonsense'"),
    Row("a missing folder of recipes", plain("--recipes", "nowhere"), 2, "nowhere: not a folder of recipes"),
    Row("a setting without a value", plain("--set", "cache-to"), 2, "--set cache-to: the form is", ""),
    Row("a setting that does not fit", plain("--set", "cache-to=a b"), 2, "--set cache-to=a b: the form"),
    Row("an unknown setting", plain("--set", "cache=always"), 2, "the recipe docker-build-cache has no option"),
]
# What only `patch` can be asked for.
OF_PATCH = [
    Row("an unknown format", plain("--format", "pdf"), 2, "Usage:", "Invalid value"),
    Row("a date that is none", plain("--date", "yesterday"), 2, "--date yesterday: not a date"),
    Row("a date that git does not know", plain("--date", "1969-12-31"), 2, "--date 1969-12-31: not a date"),
    Row("a date without end", plain("--date", "9" * 40), 2, "--date 999"),
    Row("an author without mail", plain("--author", "Me"), 2, "--author Me: the form is"),
    Row("an author of two lines", plain("--author", "A\nFrom: <a@b>"), 2, "--author A"),
    Row("a pull request that is no number", plain("--github-pull", "31545a"), 2, "--github-pull 31545a"),
    Row("a short hash", plain("--rebased-from", "e87429a2d0"), 2, "--rebased-from e87429a2d0: a full hash"),
    Row(
        "a commit that is not here", revision("clone", "--rebased-from", "e" * 40), 2, "{root}/clone: --rebased-from e"
    ),
    Row("an mbox without an author", plain("--format", "mbox"), 2, "an mbox needs an author and a date,"),
    Row("a signature of nobody", plain("--signoff"), 2, "--signoff needs an author"),
    Row("-o onto a file", plain("-o", SCRIPT), 2, SCRIPT + ": -o names a file"),
    Row("-o below a file", plain("-o", SCRIPT + "/patches"), 2, SCRIPT + ": -o names a file"),
]


@pytest.fixture(autouse=True)
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files in which nothing may be left."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))  # of this process
    yield folder
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("row", [*ROWS, *OF_PATCH], ids=lambda row: row.name)
def test_patch(row: Row, tmp_path: Path) -> None:
    arguments = row.make(tmp_path)
    before = state_of(tmp_path)
    done = here(tmp_path, "patch", "--no-verify", *arguments)
    assert (done.status, done.out) == (row.status, b""), done.error
    _says(row, tmp_path, done.error)
    assert state_of(tmp_path) == before


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_inspect(row: Row, tmp_path: Path) -> None:
    done = here(tmp_path, "inspect", *row.make(tmp_path))
    if row.status == 3:  # to report just that is what it is for
        assert (done.status, done.error) == (0, "")
        _says(row, tmp_path, done.text.partition("\n")[2].removeprefix("  "))
    else:
        assert (done.status, done.out) == (row.status, b"")
        _says(row, tmp_path, done.error)


def _says(row: Row, root: Path, said: str) -> None:
    first, _, rest = said.partition("\n")
    assert first.startswith(row.first.format(root=root)), said
    assert row.hint.strip() in rest, said
    assert rest or not row.hint, said


# repositories of other kinds


def bare_clone(root: Path) -> None:
    git(root, "clone", "--quiet", "--bare", "clone", "other")


def shallow_clone(root: Path) -> None:
    git(root / "clone", "commit", "--quiet", "--allow-empty", "--message=second")
    git(root, "clone", "--quiet", "--depth=1", (root / "clone").as_uri(), "other")


def worktree(root: Path) -> None:
    git(root / "clone", "worktree", "add", "--quiet", "--detach", "../other")


@pytest.mark.parametrize(
    ("make", "first", "others"),
    [
        (bare_clone, f"other: {NO_BUILD}", [["other", "--rev", "main"]]),
        (shallow_clone, "other: the revision 'HEAD~1' is unknown here", [["other"]]),
        (worktree, "other: the revision 'HEAD~1' is unknown here", [["other"], [f"other/{SCRIPT}"]]),
    ],
)
def test_a_repository_of_another_kind(
    make: Callable[[Path], None], first: str, others: list[list[str]], tmp_path: Path
) -> None:
    repository(tmp_path / "clone")
    make(tmp_path)
    before = state_of(tmp_path)
    refused = here(tmp_path, "patch", "--no-verify", "other", *([] if make is bare_clone else ["--rev", "HEAD~1"]))
    assert (refused.status, refused.first) == (3 if make is bare_clone else 4, first)
    for arguments in (["--repo", "other", "--rev", "HEAD"], *others):
        done = here(tmp_path, "patch", "--no-verify", *WHO, *arguments)
        assert (done.status, done.out.count(b"\n+++ b/" + SCRIPT.encode())) == (0, 1), done.error
    assert state_of(tmp_path) == before


def test_a_repository_of_somebody_else(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("chown needs root")
    root = repository(tmp_path / "clone")
    for path in (root, *root.rglob("*")):
        os.chown(path, 65534, 65534)
    done = call(tmp_path, "patch", "--no-verify", "--repo", "clone", "--rev", "HEAD")
    assert (done.status, done.out) == (4, b"")
    assert done.first.startswith("clone: detected dubious ownership"), done.error
    assert f"--add safe.directory {root}" in done.error
    plain = call(tmp_path, "patch", "--no-verify", *WHO[:2], "clone")
    assert (plain.status, plain.out[:5]) == (0, b"diff "), plain.error
    assert "the date of the commit is unknown" in plain.error


def test_git_is_missing(tmp_path: Path) -> None:
    script(tmp_path)
    done = call(tmp_path, "patch", "--no-verify", env={"PATH": str(tmp_path)})
    assert (done.status, done.out) == (4, b"")
    assert done.first == "git cannot be run: no such file or directory"


# outputs that fail


def test_a_full_disk_behind_stdout(tmp_path: Path) -> None:
    script(tmp_path)
    with open("/dev/full", "wb") as full:
        for arguments in (["patch", "--no-verify"], ["inspect"]):
            done = subprocess.run(
                command(*arguments, tmp_path), stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
            )
            assert done.returncode == 4
            assert done.stderr.endswith(b"standard output or a temporary file: no space left on device\n"), done.stderr


def test_stdout_closed_early(tmp_path: Path) -> None:
    script(tmp_path, BUILD + b"# " + b"x" * 80 + b"\n")
    for arguments in (
        ["patch", tmp_path, "--no-verify", *WHO],
        ["patch", tmp_path, "--no-verify", "--json"],
        ["inspect", tmp_path],
        ["recipes"],
        ["backport", "--repo", repository(tmp_path / "clone"), "main", "--no-verify", *WHO],
    ):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(command(*arguments), stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60)
        os.close(writer)
        assert (done.returncode, b"roken" in done.stderr, b"Traceback" in done.stderr) == (0, False, False), done.stderr


def test_no_stdout_at_all(tmp_path: Path) -> None:
    script(tmp_path)
    program = [str(part) for part in command("patch", "--no-verify", *WHO)]
    done = subprocess.run(
        ["bash", "-c", '"$@" >&-', "-", *program], cwd=tmp_path, capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr.split(b"\n")[0]) == (4, b"standard output is closed")


def test_control_c_while_a_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile.TemporaryDirectory, "_rmtree", interrupted)
    assert here(tmp_path, "patch", "--no-verify", *WHO).status == 128 + signal.SIGINT  # nothing is left: `temporary`


# locales


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii:strict"}],
    ids=["C", "ascii"],
)
def test_the_locale_does_not_count(environment: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "a \u00e4\u2603"
    script(root, "# \u2603\ndocker build . # \u00e4 \n".encode() + b"# \xff\n")
    who = ["--author", "J\u00f6rg \u2603 <j@example.org>", *WHO[2:]]
    expected = call(tmp_path, "patch", "--no-verify", *who, root)
    assert (expected.status, expected.out[:5]) == (0, b"From ")
    assert "a \u00e4".encode() not in expected.out
    assert call(tmp_path, "patch", "--no-verify", *who, root, env=environment).out == expected.out
    for arguments in (["inspect"], ["inspect", "--json"], ["patch", "--no-verify", "--json"]):
        assert call(tmp_path, *arguments, root, env=environment).status == 0
    missing = call(tmp_path, "patch", os.fsencode(root) + b"/\xff", env=environment)
    assert (missing.status, missing.first.endswith(": no such file or directory")) == (4, True)
