"""A tree, a file or a git revision -> Scripts. Nothing is written and nothing of the tree is executed."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from patcher.model import InputError, Script, UsageError

# Upstream's scripts have 5 to 15 KiB; one of 1 MiB is not a script that anyone reads.
_LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where scripts come from: ``name`` for messages, ``repository`` if git has it, ``revision`` if not the
    work tree but a commit is read (its full hash), ``only`` the one path if a lone script was named."""

    name: str
    root: Path
    repository: Path | None = None
    revision: str = ""
    only: str = ""

    def read(self, path: str) -> Script | None:
        """The script at a path from the root, or None where there is none.

        Raises InputError where it cannot be read or is no text.
        """
        if self.revision:
            return _from_revision(self, path)
        return _from_disk(self, path)

    def where(self, path: str) -> str:
        return f"{self.name}:{path}" if self.revision else path


def tree(path: Path) -> Source:
    """The source at a path: the root of a tree, or one script.

    Raises InputError where there is nothing, UsageError where a lone script's place in its tree is unknown.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(
            _reason(error), where=str(path), hint="Name the root of a source tree, or one script."
        ) from None
    if stat.S_ISDIR(mode):
        return Source(str(path), path, _toplevel(path))
    if not stat.S_ISREG(mode):
        raise InputError("neither a folder nor a file", where=str(path), hint="Name the root of a tree, or one script.")
    file = Path(os.path.abspath(path))
    top = _toplevel(file.parent)
    if top is not None:
        return Source(
            str(path), top, top, only=file.relative_to(top).as_posix() if file.is_relative_to(top) else _ci(file)
        )
    only = _ci(file)
    return Source(str(path), Path(str(file)[: -len(only)]), None, only=only)


def _ci(file: Path) -> str:
    parts = file.parts
    if "ci" not in parts[:-1]:
        raise UsageError(
            "a lone script, and nothing tells its path in the tree",
            where=str(file),
            hint="Name the root of its tree instead, or keep it below a folder named ci.",
        )
    at = len(parts) - 1 - parts[::-1].index("ci", 1)
    return PurePosixPath(*parts[at:]).as_posix()


def revision(repository: Path, rev: str) -> Source:
    """The source at a revision of a repository, without a checkout.

    Raises InputError where git cannot read the repository or does not know the revision.
    """
    if not repository.exists():
        raise InputError("there is no such repository", where=str(repository), hint="--repo takes the path of a clone.")
    if rev.startswith("-"):
        raise InputError(f"not a revision: {rev!r}", where=str(repository))
    found = git(repository, ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}"], check=False)
    if found.returncode:
        _refuse_unreadable(repository)
        raise InputError(
            f"the revision {rev!r} is unknown here",
            where=str(repository),
            hint="`git branch --all` and `git tag` list what there is; nothing is fetched.",
        )
    return Source(rev, repository, repository, revision=found.stdout.decode().strip())


def git(
    repository: Path, arguments: Sequence[str], *, check: bool = True, data: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run git in a repository, never letting it fetch what is missing. Raises InputError where it fails."""
    environment = os.environ | {
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environment.pop(name, None)
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments], input=data, capture_output=True, env=environment, check=False
        )
    except OSError as error:
        raise InputError(f"git cannot be run: {_reason(error)}", hint="Install git.") from None
    if check and done.returncode:
        raise InputError(_git_says(done.stderr), where=str(repository))
    return done


def _git_says(stderr: bytes) -> str:
    lines = [line for line in stderr.decode("utf8", "replace").splitlines() if line.strip()]
    return lines[0].removeprefix("fatal: ") if lines else "git failed without a word"


def _refuse_unreadable(repository: Path) -> None:
    done = git(repository, ["rev-parse", "--git-dir"], check=False)
    if done.returncode:
        says = _git_says(done.stderr)
        hint = "--repo takes the path of a clone."
        if "dubious ownership" in says:
            hint = f"If you trust it: git config --global --add safe.directory {repository.absolute()}"
        raise InputError(says, where=str(repository), hint=hint)


def _toplevel(folder: Path) -> Path | None:
    """The work tree around a folder. A folder in no repository, or in one that git refuses, is a plain folder."""
    here = Path(os.path.abspath(folder))
    for candidate in (here, *here.parents):
        if (candidate / ".git").exists():
            return candidate
    return None


def _from_revision(source: Source, path: str) -> Script | None:
    assert source.repository is not None
    listed = git(source.repository, ["ls-tree", "-z", "--full-tree", source.revision, "--", path]).stdout
    entry = listed.split(b"\0", 1)[0]
    if not entry:
        return None
    mode, kind, blob = entry.split(b"\t", 1)[0].split()
    where = f"{source.name}:{path}"
    if kind != b"blob" or mode == b"120000":
        raise InputError("not a file but a link or a folder", where=where)
    done = git(source.repository, ["cat-file", "blob", blob.decode()], check=False)
    if done.returncode:
        raise InputError(
            f"its blob {blob.decode()} is not in this clone",
            where=where,
            hint="A partial clone lacks it. Run `git fetch --refetch`, or use a full clone.",
        )
    return _script(path, done.stdout, mode.decode(), where)


def _from_disk(source: Source, path: str) -> Script | None:
    file = source.root / path
    try:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError("a folder stands where a script is expected", where=path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError("not a regular file", where=path)
        if status.st_size > _LARGEST:
            raise InputError(f"{status.st_size:,} bytes are too many for a script", where=path)
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if file.is_symlink():
            raise InputError("a symbolic link that leads nowhere", where=path) from None
        return None
    except OSError as error:
        raise InputError(_reason(error), where=path, hint="Check the file's mode and its links.") from None
    return _script(path, data, "100755" if status.st_mode & stat.S_IXUSR else "100644", path)


def _script(path: str, data: bytes, mode: str, where: str) -> Script:
    if len(data) > _LARGEST:
        raise InputError(f"{len(data):,} bytes are too many for a script", where=where)
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        column = data.index(b"\0") - (data.rfind(b"\n", 0, data.index(b"\0")) + 1) + 1
        raise InputError("a NUL byte: this is no script", where=f"{where}:{line}:{column}")
    return Script(path, data.decode("utf8", "surrogateescape"), mode)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def identity(source: Source, author: str, date: str) -> tuple[str, str]:
    """The author (``Name <mail>``) and date (``SECONDS ZONE``) of the patch, each empty where unknown.

    What is given wins; then git's configuration for the author; ``SOURCE_DATE_EPOCH``, then the base commit,
    for the date.
    """
    if not author:
        where = source.repository or source.root
        name, mail = (
            git(where, ["config", "--get", key], check=False).stdout.decode("utf8", "replace").strip()
            for key in ("user.name", "user.email")
        )
        author = f"{name} <{mail}>" if name and mail else ""
    if not date:
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        if epoch.isdigit():
            date = f"{epoch} +0000"
        elif source.repository:
            shown = git(
                source.repository, ["show", "-s", "--format=%cd", "--date=raw", source.revision or "HEAD"], check=False
            )
            date = shown.stdout.decode().strip()
    return author, date
