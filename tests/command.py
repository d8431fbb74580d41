"""The program as a user calls it: a process of its own, in the sealed environment of the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from patcher.cli import main
from tests.conftest import FIXTURES

SCRIPT = "ci/test/02_run_container.sh"
WHO = ("--author", "A U Thor <author@example.org>", "--date", "1700000000 +0100")
BUILD = b"#!/usr/bin/env bash\ndocker build .\n"


@dataclass(frozen=True)
class Done:
    """How a call ended."""

    status: int
    out: bytes
    error: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def first(self) -> str:
        return self.error.split("\n", 1)[0]


def call(cwd: Path, *arguments: str | Path | bytes, env: Mapping[str, str] | None = None, data: bytes = b"") -> Done:
    """Run ci-patcher. Whatever the input, there is no traceback, and no output beside an error."""
    done = subprocess.run(
        command(*arguments), cwd=cwd, env=os.environ | dict(env or {}), input=data, capture_output=True, check=False,
        timeout=60,
    )  # fmt: skip
    error = done.stderr.decode("utf8", "backslashreplace")
    assert "Traceback" not in error, error
    assert "Exception" not in error, error
    return Done(done.returncode, done.stdout, error)


def here(cwd: Path, *arguments: str | Path | bytes, env: Mapping[str, str] | None = None) -> Done:
    """The same in this process, which takes a third of the time."""
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(main, [os.fsdecode(argument) for argument in arguments], env=env)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Done(done.exit_code, done.stdout_bytes, done.stderr)


def command(*arguments: str | Path | bytes) -> list[str | Path | bytes]:
    return [sys.executable, "-P", "-m", "patcher", *arguments]


def script(root: Path, content: bytes = BUILD, path: str = SCRIPT, mode: int = 0o755) -> Path:
    """A file of a tree, its folders with it."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(mode)
    return file


def git(cwd: Path, *arguments: str | Path, data: bytes = b"", check: bool = True, date: str = "") -> bytes:
    """What git prints. ``date`` is that of the commits that it makes."""
    identity = ["-c", "user.name=C O Mitter", "-c", "user.email=committer@example.org"]
    sealed = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}  # also in a fixture of the session
    dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date} if date else {}
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=cwd, env=os.environ | sealed | dates, input=data, capture_output=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stderr.decode()
    return done.stdout


def repository(root: Path, fixture: str = "29.x") -> Path:
    """A repository with one commit, which holds a fixture's tree."""
    shutil.copytree(FIXTURES / fixture, root)
    return committed(root)


def committed(root: Path) -> Path:
    """A folder as a repository with one commit, which holds what is in it."""
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=base", "--date=2024-05-06T07:08:09+0000")
    return root


def state_of(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below a folder, with the time of its last change: to tell whether a call wrote there."""
    found: dict[str, tuple[int, int, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        regular = path.is_file() and not path.is_symlink() and status.st_size < 1 << 22
        found[str(path.relative_to(folder))] = status.st_mode, status.st_mtime_ns, path.read_bytes() if regular else b""
    return found
