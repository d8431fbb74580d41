"""A tree, a file or a git revision -> Scripts. Nothing is written and nothing of the tree is executed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

from patcher.errors import InputError, UsageError, reason
from patcher.model import Script, Source
from patcher.repository import LARGEST, Objects, git, script, too_large

# Upstream's ci folder has some 50 files.
MOST = 300
# A clone of a fork may have both remotes. Changes are backported to upstream's branches.
REMOTES = ("upstream", "origin")
WHAT_THERE_IS = "`git branch --all` and `git tag` list what there is; nothing is fetched."


def read(source: Source, path: str) -> Script | None:
    """The script at a path from the source's root, None where there is none. Raises InputError where it is no text."""
    if path in source.held:
        held = source.held[path]
        if isinstance(held, InputError):
            raise held
        return held
    if source.revision and source.repository:
        with Objects(source.repository) as objects:
            return objects.script(source.revision, path, f"{source.name}:{path}")
    return _from_disk(source, path)


def _from_disk(source: Source, path: str) -> Script | None:
    file = source.root / path
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(source.root)):
        raise InputError("a link that leads out of the tree", where=path)
    try:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError("a folder stands where a script is expected", where=path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError("not a regular file", where=path)
        if status.st_size > LARGEST:
            raise too_large(status.st_size, path)
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if file.is_symlink():
            raise InputError("a symbolic link that leads nowhere", where=path) from None
        return None
    except OSError as error:
        raise InputError(reason(error), where=path, hint="Check the file's mode and its links.") from None
    return script(path, data, status.st_mode & stat.S_IXUSR, path)


def listing(source: Source, folder: str) -> tuple[str, ...]:
    """The paths of at most ``MOST`` regular files below a folder of a tree, sorted. No link is followed. Raises
    InputError where git cannot read the tree."""
    if source.revision and source.repository:
        with Objects(source.repository) as objects:
            return _files(folder, partial(objects.modes, source.revision))
    root = os.path.realpath(source.root)
    through_link = os.path.realpath(f"{root}/{folder}") != f"{root}/{folder}"
    return () if through_link else _files(folder, partial(_modes, root))


def _files(folder: str, modes: Callable[[str], Mapping[str, int]]) -> tuple[str, ...]:
    files: list[str] = []
    folders = [folder]
    for here in folders:  # which grows meanwhile
        for name, mode in modes(here).items():
            if stat.S_ISDIR(mode):
                folders.append(f"{here}/{name}")
            elif stat.S_ISREG(mode):
                files.append(f"{here}/{name}")
        if max(len(folders), len(files)) > MOST:
            break
    return tuple(sorted(files)[:MOST])


def _modes(root: str, folder: str) -> dict[str, int]:
    """The modes of what is in a folder, by name. A folder that cannot be read is empty."""
    try:
        with os.scandir(f"{root}/{folder}") as entries:
            return {entry.name: entry.stat(follow_symlinks=False).st_mode for entry in entries}
    except OSError:
        return {}


def tree(path: Path) -> Source:
    """The source at a path, the root of a tree or one script. Raises InputError where there is nothing, UsageError
    where a lone script's place in its tree is unknown."""
    where, hint = str(path), "Name the root of a source tree, or one script."
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(reason(error), where=where, hint=hint) from None
    if stat.S_ISDIR(mode):
        return Source(where, path, _toplevel(path))
    if not stat.S_ISREG(mode):
        raise InputError("neither a folder nor a file", where=where, hint=hint)
    file = Path(os.path.abspath(path))
    top = _toplevel(file.parent)
    only = file.relative_to(top).as_posix() if top else _below_ci(file)
    return Source(where, Path(str(file)[: -len(only)]), top, only=only)


def _toplevel(folder: Path) -> Path | None:
    """The work tree around a folder, None if it is in no repository."""
    here = Path(os.path.abspath(folder))
    return next((candidate for candidate in (here, *here.parents) if (candidate / ".git").exists()), None)


def _below_ci(file: Path) -> str:
    """The path of a lone script in its tree: from its innermost folder named ci on."""
    for folder in file.parents:
        if folder.name == "ci":
            return file.relative_to(folder.parent).as_posix()
    hint = "Name the root of its tree instead, or keep it below a folder named ci."
    raise UsageError("a lone script, and nothing tells its path in the tree", where=str(file), hint=hint)


def revision(repository: Path, rev: str) -> Source:
    """The source at a revision of a repository, without a checkout. A branch that is not here is a remote's. Raises
    InputError where git cannot read the repository or does not know the revision."""
    with Objects(repository) as objects:
        if rev.startswith("-"):
            raise InputError(f"not a revision: {rev!r}", where=str(repository))
        for name in (rev, *(f"{remote}/{rev}" for remote in REMOTES if rev)):
            if commit := objects.commit(name):
                return Source(name, repository, repository, revision=commit.name)
    raise InputError(f"the revision {rev!r} is unknown here", where=str(repository), hint=WHAT_THERE_IS)


def inside(source: Source) -> str:
    """The path of the root in its repository, empty where it is the repository's root or there is none."""
    path = os.path.relpath(os.path.abspath(source.root), os.path.abspath(source.repository or source.root))
    return "" if path == "." else path


def is_committed(source: Source, scripts: Sequence[Script]) -> bool:
    """Whether a work tree's files are those of HEAD; also where there is no HEAD to differ from."""
    if source.revision or source.repository is None:
        return True
    with suppress(InputError), Objects(source.repository) as objects:
        for script in scripts:
            path = PurePosixPath(inside(source), script.path).as_posix()
            if _lines(objects.script("HEAD", path, path)) != _lines(script):
                return False
    return True


def _lines(script: Script | None) -> list[str] | None:
    """The lines of a script without their ends, which git may have converted."""
    return script.text.replace("\r\n", "\n").split("\n") if script else None


def author_of(folder: Path) -> str:
    """``Name <mail>`` from git's configuration for a folder, or empty."""
    said = (git(folder, ["config", "--get", key], check=False).stdout for key in ("user.name", "user.email"))
    name, mail = (re.sub(r"[<>\r\n]", "", text.decode("utf8", "replace").strip()) for text in said)
    return f"{name} <{mail}>" if name and mail else ""


def set_date() -> str:
    """The date of ``SOURCE_DATE_EPOCH`` as ``SECONDS ZONE``, or empty."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch and not re.fullmatch(r"[0-9]{1,11}", epoch):
        raise UsageError(f"SOURCE_DATE_EPOCH={epoch}: not a number of seconds")
    return f"{epoch} +0000" if epoch else ""


def identity(source: Source, author: str, date: str) -> tuple[str, str]:
    """The author (``Name <mail>``) and date (``SECONDS ZONE``) of the patch: what is given, else what git's
    configuration, ``SOURCE_DATE_EPOCH`` and the base commit say. Each is empty where unknown."""
    author = author or author_of(source.repository or source.root)
    date = date or set_date()
    if not date and source.repository:
        with suppress(InputError), Objects(source.repository) as objects:
            commit = objects.commit(source.revision or "HEAD")
            date = commit.date if commit else ""
    return author, date
