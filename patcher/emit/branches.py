"""``--branch``: commits on top of the real ones, and their branches, in the repository itself.

The commits are made in a repository of their own. Nothing refers to what is written of them until ``git update-ref``
has created all branches in one transaction.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from patcher.emit.git import Pair, commit, imported
from patcher.errors import InputError, UsageError
from patcher.model import Commit
from patcher.sources import Objects, git, set_date


class Commits:
    """Commits that are not written yet: the content of each, and a pack of all its objects, by its hash."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.made: dict[str, tuple[bytes, bytes]] = {}
        self._now = set_date() or f"{int(time.time())} {time.strftime('%z')}"

    def add(self, base: Commit, pairs: Sequence[Pair], message: str, author: str, date: str) -> str:
        """The hash of the commit that changes these files of its base. ``date`` is the author's date; the committer's
        is now or ``SOURCE_DATE_EPOCH``. Raises InputError where a tree of the base is not in this clone."""
        stream = commit([new for _, new in pairs], message, f"{author} {date}", f"{author} {self._now}", base.name)
        objects = _path(self.objects.repository, "objects")
        with tempfile.TemporaryDirectory(prefix="ci-patcher-") as name:
            folder = Path(name)
            try:
                made = imported(folder, stream, objects)
            except InputError as error:
                raise InputError(error.what, hint="Use a full clone for --branch.") from None
            content = git(folder, ["cat-file", "commit", made], alone=True).stdout
            self.made[made] = content, b"".join(pack.read_bytes() for pack in folder.glob("objects/pack/*.pack"))
        return made

    def stands(self, made: str, branch: str) -> bool:
        """Whether the commit of a branch differs from this one in nothing but the committer's date."""
        there = self.objects.get(branch, "commit", branch)
        both = [self.made[made][0], there[1] if there else b""]
        return len({re.sub(rb"\ncommitter [^\n]*", b"", content, count=1) for content in both}) == 1


def create(commits: Commits, wanted: Mapping[str, str], force: bool) -> None:
    """Write the commits and point these branches at theirs, all or none.

    A branch whose commit differs in the committer's date alone is left as it is. Raises UsageError, before anything
    is written, for one that exists and is not to be moved, that is checked out, or whose name git refuses; InputError
    where git cannot write.
    """
    repository = commits.objects.repository
    existing = _branches(repository)
    busy = _rebasing(repository)
    problems: list[str] = []
    updates: list[tuple[str, str]] = []
    for branch, made in wanted.items():
        ref = f"refs/heads/{branch}"
        old, checked_out = existing.get(ref, ("", False))
        if branch.startswith("-") or git(repository, ["check-ref-format", ref], check=False).returncode:
            problems.append(f"{branch!r} is no name for a branch")
        elif old and commits.stands(made, old):
            continue
        elif old and not force:
            problems.append(f"{branch} exists already")
        elif checked_out or ref in busy:
            problems.append(f"{branch} is checked out or being rebased")
        # With the old value, so that a branch that somebody moves right now is not lost.
        updates.append((made, f"option no-deref\nupdate {ref} {made} {old or '0' * len(made)}\n"))
    if problems:
        hint = "No branch was created. Use another prefix" + ("." if force else ", or --force to move what exists.")
        raise UsageError("; ".join(problems), where=str(repository), hint=hint)
    if not updates:
        return
    for made, _ in updates:
        git(repository, ["unpack-objects", "-q"], data=commits.made[made][1])
    arguments = ["update-ref", "-m", "ci-patcher backport", "--stdin"]
    done = git(repository, arguments, check=False, data="".join(update for _, update in updates).encode())
    if done.returncode:
        what = _text(done.stderr).strip().removeprefix("fatal: ")
        raise UsageError(what, where=str(repository), hint="No branch was created. Use another prefix.")


def _branches(repository: Path) -> dict[str, tuple[str, bool]]:
    """The commit of each branch, and whether it is checked out in a work tree."""
    listing = ["for-each-ref", "--format=%(refname)%00%(objectname)%00%(worktreepath)", "refs/heads"]
    rows = (line.split("\0") for line in _text(git(repository, listing).stdout).split("\n") if line)
    return {ref: (commit, bool(worktree)) for ref, commit, worktree in rows}


def _rebasing(repository: Path) -> set[str]:
    """The branches that a rebase in any worktree will move when it ends: HEAD is detached until then."""
    common = _path(repository, "")
    places = (*common.glob("rebase-*/head-name"), *common.glob("worktrees/*/rebase-*/head-name"))
    return {place.read_text(encoding="utf8", errors="replace").strip() for place in places if place.is_file()}


def _path(repository: Path, name: str) -> Path:
    """A path in the folder that all work trees of a repository share."""
    common = _text(git(repository, ["rev-parse", "--git-common-dir"]).stdout).removesuffix("\n")
    return (repository / common / name).absolute()


def _text(output: bytes) -> str:
    return output.decode("utf8", "surrogateescape")
