"""A tree, a file or a git revision -> Scripts. Nothing is written and nothing of the tree is executed."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from patcher.errors import InputError, UsageError
from patcher.model import Commit, Script, Source

# Upstream's scripts have 5 to 15 KiB; one of 1 MiB is not a script that anyone reads.
_LARGEST = 1 << 20
# Where a clone of a fork has both, upstream's branches are the ones to which a change is backported.
REMOTES = ("upstream", "origin")


def read(source: Source, path: str) -> Script | None:
    """The script at a path from the source's root, or None where there is none.

    Raises InputError where it cannot be read or is no text.
    """
    if path in source.held:
        found = source.held[path]
        if isinstance(found, InputError):
            raise found
        return found
    if source.revision:
        return _from_revision(source, path)
    return _from_disk(source, path)


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
    """The source at a revision of a repository, without a checkout. A branch that is not here is a remote's.

    Raises InputError where git cannot read the repository or does not know the revision.
    """
    if not repository.exists():
        raise InputError("there is no such repository", where=str(repository), hint="--repo takes the path of a clone.")
    if rev.startswith("-"):
        raise InputError(f"not a revision: {rev!r}", where=str(repository))
    for name in (rev, *(f"{remote}/{rev}" for remote in REMOTES if rev)):
        wanted = f"{name}^{{commit}}"
        found = git(repository, ["rev-parse", "--verify", "--quiet", "--end-of-options", wanted], check=False)
        if not found.returncode:
            break
    else:
        _refuse_unreadable(repository)
        raise InputError(
            f"the revision {rev!r} is unknown here",
            where=str(repository),
            hint="`git branch --all` and `git tag` list what there is; nothing is fetched.",
        )
    return Source(name, repository, repository, revision=found.stdout.decode().strip())


def git(
    repository: Path, arguments: Sequence[str], *, check: bool = True, data: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run git in a repository, never letting it fetch what is missing. Raises InputError where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments], input=data, capture_output=True, env=_environment(), check=False
        )
    except OSError as error:
        raise InputError(f"git cannot be run: {_reason(error)}", hint="Install git.") from None
    if check and done.returncode:
        raise InputError(_git_says(done.stderr), where=str(repository))
    return done


# What git sets for its hooks, and what would lead it to another repository than the one that was named.
_ELSEWHERE = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE",
    "GIT_PREFIX",
)  # fmt: skip


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    return environment | {
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


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
        raise _missing("blob", blob.decode(), where)
    return _script(path, done.stdout, mode.decode(), where)


def _missing(kind: str, name: str, where: str) -> InputError:
    return InputError(
        f"its {kind} {name} is not in this clone",
        where=where,
        hint="A partial clone lacks it. Run `git fetch --refetch`, or use a full clone.",
    )


class Objects:
    """The objects of a repository, by one ``git cat-file`` for all of them, while the context lasts.

    Raises InputError where git cannot read the repository. What is missing is not fetched.
    """

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self._process: subprocess.Popen[bytes] | None = None
        self._trees: dict[str, dict[str, tuple[str, str]] | None] = {}

    def __enter__(self) -> Objects:
        if not self.repository.exists():
            raise InputError(
                "there is no such repository", where=str(self.repository), hint="--repo takes the path of a clone."
            )
        _refuse_unreadable(self.repository)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._process:
            self._process.communicate()
            self._process = None

    def get(self, name: str) -> tuple[str, str, bytes | None] | None:
        """The hash, kind and content of an object under any name that git knows, the content None where it is
        larger than anything that is read here; None where there is no such object in this clone."""
        if not name or "\n" in name or "\0" in name:
            return None
        if self._process is None:
            self._process = subprocess.Popen(
                ["git", "-C", str(self.repository), "cat-file", "--batch"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment(),
            )  # fmt: skip
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        try:
            to.write(name.encode("utf8", "surrogateescape") + b"\n")
            to.flush()
            head = back.readline()
        except BrokenPipeError:
            head = b""
        if not head:  # in a partial clone some versions of git end here, since they may not fetch the object
            self._process.wait()
            to.close()
            back.close()
            self._process = None
            return None
        words = head.split()
        if words[-1] in {b"missing", b"ambiguous"}:
            return None
        size = int(words[2])
        content: bytes | None = None
        if size <= _LARGEST:
            content = back.read(size)
        else:
            for start in range(0, size, _LARGEST):
                back.read(min(_LARGEST, size - start))
        back.read(1)
        return words[0].decode(), words[1].decode(), content

    def commit(self, revision: str) -> Commit | None:
        """The commit that a revision names, or None."""
        found = self.get(f"{revision}^{{commit}}")
        if found is None or not found[2]:
            return None
        lines = found[2].split(b"\n\n", 1)[0].decode("utf8", "replace").split("\n")
        headers = [(key, value) for key, _, value in (line.partition(" ") for line in lines)]
        first = dict(reversed(headers))
        return Commit(
            found[0],
            first["tree"],
            " ".join(first["committer"].rsplit(" ", 2)[1:]),
            tuple(value for key, value in headers if key == "parent"),
        )

    def tree(self, name: str) -> dict[str, tuple[str, str]] | None:
        """The mode and hash of each entry of a tree, in git's order; None where it is not in this clone."""
        if name not in self._trees:
            found = self.get(name)
            self._trees[name] = None if found is None or found[2] is None else _entries(found[2], len(name) // 2)
        return self._trees[name]

    def script(self, commit: Commit, path: str, where: str) -> Script | InputError | None:
        """The script at a path of a commit, None where there is none, an error where it cannot be read."""
        tree = commit.tree
        *folders, name = path.split("/")
        for folder in folders:
            entries = self.tree(tree)
            if entries is None:
                return _missing("tree", tree, where)
            mode, tree = entries.get(folder, ("", ""))
            if mode != "40000":
                return None
        entries = self.tree(tree)
        if entries is None:
            return _missing("tree", tree, where)
        if name not in entries:
            return None
        mode, blob = entries[name]
        if not mode.startswith("100"):
            return InputError("not a file but a link or a folder", where=where)
        found = self.get(blob)
        if found is None:
            return _missing("blob", blob, where)
        if found[2] is None:
            return InputError("too large for a script", where=where)
        try:
            return _script(path, found[2], "100755" if int(mode, 8) & 0o111 else "100644", where)
        except InputError as error:
            return error


def known_commits(objects: Objects, hashes: Sequence[str]) -> None:
    """Check that the repository has these commits, where it can be told: a shallow or a partial clone does not
    have them all. Raises UsageError for one that is missing."""
    missing = [name for name in hashes if objects.commit(name) is None]
    if not missing:
        return
    shallow = git(objects.repository, ["rev-parse", "--is-shallow-repository"], check=False).stdout
    promises = r"^(remote\..*\.promisor|extensions\.partialclone)$"
    partial = git(objects.repository, ["config", "--get-regexp", promises], check=False).stdout
    if shallow.strip() == b"false" and not partial.strip():
        raise UsageError(
            f"--rebased-from {missing[0]}: this repository has no such commit",
            where=str(objects.repository),
            hint="Fetch it first, or leave the trailer out: it is for readers who look the commit up.",
        )


def _entries(data: bytes, width: int) -> dict[str, tuple[str, str]]:
    entries: dict[str, tuple[str, str]] = {}
    at = 0
    while at < len(data):
        end = data.index(b"\0", at)
        mode, _, name = data[at:end].partition(b" ")
        at = end + 1 + width
        entries[name.decode("utf8", "surrogateescape")] = mode.decode(), data[end + 1 : at].hex()
    return entries


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


def is_committed(source: Source, scripts: Sequence[Script]) -> bool:
    """Whether a work tree's files are those of HEAD; also where there is no HEAD to differ from."""
    if source.revision or source.repository is None:
        return True
    head = replace(source, revision="HEAD", held={})
    try:
        return all(_alike(script, _from_revision(head, script.path)) for script in scripts)
    except InputError:
        return True


def _alike(script: Script, committed: Script | None) -> bool:
    """Whether a file is the committed one; git may have converted the ends of its lines."""
    return committed is not None and script.text.replace("\r\n", "\n") == committed.text.replace("\r\n", "\n")


def author_of(folder: Path) -> str:
    """``Name <mail>`` from git's configuration for a folder, or empty."""
    name, mail = (
        git(folder, ["config", "--get", key], check=False).stdout.decode("utf8", "replace").strip()
        for key in ("user.name", "user.email")
    )
    name, mail = (re.sub(r"[<>\r\n]", "", text) for text in (name, mail))
    return f"{name} <{mail}>" if name and mail else ""


def set_date() -> str:
    """The date of ``SOURCE_DATE_EPOCH`` as ``SECONDS ZONE``, or empty."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch and not re.fullmatch(r"[0-9]{1,11}", epoch):
        raise UsageError(f"SOURCE_DATE_EPOCH={epoch}: not a number of seconds")
    return f"{epoch} +0000" if epoch else ""


def identity(source: Source, author: str, date: str) -> tuple[str, str]:
    """The author (``Name <mail>``) and date (``SECONDS ZONE``) of the patch, each empty where unknown.

    What is given wins; then git's configuration for the author; ``SOURCE_DATE_EPOCH``, then the base commit,
    for the date.
    """
    author = author or author_of(source.repository or source.root)
    date = date or set_date()
    if not date and source.repository:
        shown = git(
            source.repository, ["show", "-s", "--format=%cd", "--date=raw", source.revision or "HEAD"], check=False
        )
        date = shown.stdout.decode().strip()
    return author, date
