"""A git repository, read: nothing is written, fetched or run that the repository's configuration names."""

from __future__ import annotations

import os
import re
import select
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, Popen, TimeoutExpired, run

from patcher.errors import InputError, UsageError, reason
from patcher.model import Commit, Script

# Upstream's scripts have 5 to 15 KiB; nobody reads a script of 1 MiB.
LARGEST = 1 << 20
# How many seconds git may take to answer. A FIFO in a repository blocks it for ever.
PATIENCE = 30.0

# What git sets for its hooks, and what selects another repository than the named one.
_ELSEWHERE = re.compile(
    "GIT_(DIR|WORK_TREE|INDEX_FILE|COMMON_DIR|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|NAMESPACE|PREFIX)"
)
# No program that a repository's configuration names is run, and no missing object is fetched.
_HARMLESS = {
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_NO_PROGRAMS = ("-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false")


def git(
    repository: Path, arguments: Sequence[str], *, check: bool = True, data: bytes = b"", alone: bool = False
) -> CompletedProcess[bytes]:
    """Run git in a repository; ``alone`` without anyone's configuration and without a repository around the folder.
    Raises InputError where it fails, cannot be run or does not answer."""
    environment = _alone(repository) if alone else _environment()
    command = ["git", *_NO_PROGRAMS, "-C", str(repository), *arguments]
    try:
        done = run(command, input=data, capture_output=True, env=environment, check=False, timeout=PATIENCE)
    except TimeoutExpired:
        raise _no_answer(repository) from None
    except OSError as error:
        raise InputError(f"git cannot be run: {reason(error)}", hint="Install git.") from None
    if check and done.returncode:
        raise InputError(said(done), where="" if alone else str(repository))
    return done


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not _ELSEWHERE.fullmatch(name)} | _HARMLESS


def _alone(folder: Path) -> dict[str, str]:
    return _HARMLESS | {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }


def said(done: CompletedProcess[bytes]) -> str:
    """The first line of a failed git's error."""
    lines = [line for line in done.stderr.decode("utf8", "replace").split("\n") if line.strip()]
    return lines[0].removeprefix("fatal: ") if lines else f"git failed with status {done.returncode}"


def _no_answer(repository: Path) -> InputError:
    hint = "Look for a FIFO in its .git folder, or for a network drive that does not answer."
    return InputError(f"git gave no answer in {PATIENCE:.0f} seconds", where=str(repository), hint=hint)


class Objects:
    """The objects of a repository, by one ``git cat-file`` while the context lasts. What is missing is not fetched.
    Raises InputError where git cannot read the repository."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self._process: Popen[bytes] | None = None
        self._silent = False

    def __enter__(self) -> Objects:
        where, hint = str(self.repository), "--repo takes the path of a clone."
        if not self.repository.exists():
            raise InputError("there is no such repository", where=where, hint=hint)
        done = git(self.repository, ["rev-parse", "--git-dir"], check=False)
        if done.returncode:
            if "dubious ownership" in said(done):
                hint = f"If you trust it: git config --global --add safe.directory {self.repository.absolute()}"
            raise InputError(said(done), where=where, hint=hint)
        return self

    def _end(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    __exit__ = _end

    def get(self, name: str, kind: str, where: str) -> tuple[str, bytes] | None:
        """The hash and content of an object of this kind, under any name that git knows. None where this clone does
        not have it. Raises InputError where it is larger than anything that is read here, before it is read."""
        if not name or "\n" in name or "\0" in name:
            return None
        if self._process is None:
            command = ["git", *_NO_PROGRAMS, "-C", str(self.repository), "cat-file", "--batch"]
            self._process = Popen(command, env=_environment(), stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None
        assert answers is not None
        with suppress(BrokenPipeError):
            questions.write(f"{name}^{{{kind}}}\n".encode("utf8", "surrogateescape"))
            questions.flush()
        self._silent = self._silent or not select.select([answers], [], [], PATIENCE)[0]
        if self._silent:  # which is not waited for again
            self._end()
            raise _no_answer(self.repository)
        head = answers.readline().split()
        if not head:  # some versions of git end in a partial clone, where they may not fetch the object
            self._end()
        if not head or head[-1] in {b"missing", b"ambiguous"}:
            return None
        size = int(head[2])
        if size > LARGEST:
            self._end()
            raise too_large(size, where)
        return head[0].decode(), answers.read(size + 1)[:size]

    def commit(self, revision: str) -> Commit | None:
        """The commit that a revision names, or None. Raises InputError where it has no valid committer's date."""
        found = self.get(revision, "commit", revision)
        if found is None:
            return None
        head, _, message = found[1].decode("utf8", "replace").partition("\n\n")
        date = re.search(r"^committer .*> ([0-9]{1,11} [+-](?:0[0-9]|1[0-3])[0-5][0-9])$", head, re.MULTILINE)
        if date is None:
            what = "the commit has no committer with a valid date"
            raise InputError(what, where=found[0], hint="`git cat-file -p` shows it.")
        return Commit(found[0], date[1], message.partition("\n")[0])

    def _entries(self, tree: str, where: str) -> dict[str, tuple[int, str]]:
        """The mode and hash of each entry of a tree, or of a commit's tree, by name."""
        found = self.get(tree, "tree", where)
        if found is None:
            raise _missing("tree", tree, where)
        rows = re.findall(rb"([0-7]+) ([^\0]+)\0(.{%d})" % (len(found[0]) // 2), found[1], re.DOTALL)
        return {name.decode("utf8", "surrogateescape"): (int(mode, 8), to.hex()) for mode, name, to in rows}

    def _at(self, commit: str, path: str, where: str) -> tuple[int, str]:
        """The mode and hash of what is at a path of a commit, 0 and empty where there is nothing."""
        mode, name = stat.S_IFDIR, commit
        for part in path.split("/"):
            mode, name = self._entries(name, where).get(part, (0, "")) if stat.S_ISDIR(mode) else (0, "")
        return mode, name

    def modes(self, commit: str, folder: str) -> dict[str, int]:
        """The modes of what is in a folder of a commit, by name; empty where there is no such folder. Raises
        InputError where a tree is not in this clone."""
        mode, name = self._at(commit, folder, folder)
        entries = self._entries(name, folder) if stat.S_ISDIR(mode) else {}
        # Git refuses such a name where it checks a tree out, but it can be in the object.
        return {name: mode for name, (mode, _) in entries.items() if "/" not in name and name not in {".", ".."}}

    def script(self, commit: str, path: str, where: str) -> Script | None:
        """The script at a path of a commit, None where there is none. Raises InputError where it cannot be read."""
        mode, name = self._at(commit, path, where)
        if not mode:
            return None
        if not stat.S_ISREG(mode):
            raise InputError("not a file but a link or a folder", where=where)
        found = self.get(name, "blob", where)
        if found is None:
            raise _missing("blob", name, where)
        return script(path, found[1], mode, where)


def _missing(kind: str, name: str, where: str) -> InputError:
    hint = "A partial clone lacks it. Run `git fetch --refetch`, or use a full clone."
    return InputError(f"its {kind} {name} is not in this clone", where=where, hint=hint)


def too_large(size: int, where: str) -> InputError:
    """The error for what is too large to be a script."""
    return InputError(f"{size:,} bytes are too many for a script", where=where)


def script(path: str, data: bytes, mode: int, where: str) -> Script:
    """The script with this content and mode. Raises InputError where it is no text."""
    if b"\0" in data:
        before = data[: data.index(b"\0")]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise InputError("a NUL byte: this is no script", where=f"{where}:{line}:{column}")
    return Script(path, data.decode("utf8", "surrogateescape"), "100755" if mode & 0o111 else "100644")


def known_commits(objects: Objects, hashes: Sequence[str]) -> None:
    """Raise UsageError for a commit that the repository has not. A shallow clone does not have all: any is believed."""
    missing = [name for name in hashes if objects.get(name, "commit", name) is None]
    shallow = ["rev-parse", "--is-shallow-repository"]
    if missing and git(objects.repository, shallow, check=False).stdout.strip() != b"true":
        what = f"--rebased-from {missing[0]}: this repository has no such commit"
        hint = "Fetch it first, or leave the trailer out: it is for readers who look the commit up."
        raise UsageError(what, where=str(objects.repository), hint=hint)
