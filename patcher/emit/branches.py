"""``--branch``: commits on top of the real ones, and their branches, in the repository itself.

The commits are made in a repository of their own. Nothing refers to what is written of them until ``git update-ref``
has created all branches in one transaction.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from patcher.emit.git import commit, imported
from patcher.errors import InputError, UsageError
from patcher.model import Outcome, Patch, Result
from patcher.repository import Objects, git
from patcher.sources import set_date


class Branches:
    """The branches to create, by name, each with the hash of a commit that is not written yet: the content of each
    commit, and a pack of all its objects, by its hash."""

    def __init__(
        self, objects: Objects, prefix: str, message: Callable[[Patch], str], author: str, date: str = ""
    ) -> None:
        """``date`` is the authors' date, by default that of the commit below each; the committer's is now or
        ``SOURCE_DATE_EPOCH``."""
        self._objects, self._prefix, self._message = objects, prefix, message
        self._author, self._date = author, date
        self._tips: dict[str, str] = {}
        self._made: dict[str, tuple[bytes, bytes]] = {}
        self._now = set_date() or f"{int(time.time())} {time.strftime('%z')}"

    def add(self, outcome: Outcome) -> Outcome:
        """The outcome with its branch, if it has a patch. Where no commit can be made of it, that becomes its error."""
        change, base = outcome.change, outcome.target.commit
        if not change or not base or outcome.result is not Result.PATCHED:
            return outcome
        author, committer = f"{self._author} {self._date or base.date}", f"{self._author} {self._now}"
        scripts, branch = [new for _, new in change.pairs], self._prefix + outcome.target.label
        try:
            self._tips[branch] = self._commit(commit(scripts, self._message(change), author, committer, base.name))
        except InputError as error:
            return Outcome(outcome.target, error=error)
        return replace(outcome, place={**outcome.place, "created": branch})

    def _commit(self, stream: bytes) -> str:
        """The hash of a commit. Raises InputError where a tree of its base is not in this clone."""
        objects = _path(self._objects.repository, "objects")
        with tempfile.TemporaryDirectory(prefix="ci-patcher-") as name:
            folder = Path(name)
            try:
                made = imported(folder, stream, objects)
            except InputError as error:
                raise InputError(error.what, hint="Use a full clone for --branch.") from None
            content = git(folder, ["cat-file", "commit", made], alone=True).stdout
            self._made[made] = content, b"".join(pack.read_bytes() for pack in folder.glob("objects/pack/*.pack"))
        return made

    def _stands(self, made: str, branch: str) -> bool:
        """Whether the commit of a branch differs from this one in nothing but the committer's date."""
        there = self._objects.get(branch, "commit", branch)
        both = [self._made[made][0], there[1] if there else b""]
        return len({re.sub(rb"\ncommitter [^\n]*", b"", content, count=1) for content in both}) == 1

    def create(self, force: bool) -> None:
        """Write the commits and point the branches at theirs, all or none.

        A branch whose commit differs in the committer's date alone is left as it is. Raises UsageError, before
        anything is written, for one that exists and is not to be moved, that is checked out, or whose name git
        refuses; InputError where git cannot write.
        """
        repository = self._objects.repository
        existing, busy = _existing(repository), _rebasing(repository)
        problems: list[str] = []
        updates: dict[str, str] = {}
        for branch, made in self._tips.items():
            ref = f"refs/heads/{branch}"
            old, checked_out = existing.get(ref, ("", False))
            if branch.startswith("-") or git(repository, ["check-ref-format", ref], check=False).returncode:
                problems.append(f"{branch!r} is no name for a branch")
            elif old and self._stands(made, old):
                continue
            elif old and not force:
                problems.append(f"{branch} exists already")
            elif checked_out or ref in busy:
                problems.append(f"{branch} is checked out or being rebased")
            # With the old value, so that a branch that somebody moves right now is not lost.
            updates[branch] = f"option no-deref\nupdate {ref} {made} {old or '0' * len(made)}\n"
        if problems:
            hint = "No branch was created. Use another prefix" + ("." if force else ", or --force to move what exists.")
            raise UsageError("; ".join(problems), where=str(repository), hint=hint)
        for branch in updates:
            git(repository, ["unpack-objects", "-q"], data=self._made[self._tips[branch]][1])
        arguments = ["update-ref", "-m", "ci-patcher backport", "--stdin"]
        done = git(repository, arguments, check=False, data="".join(updates.values()).encode())
        if done.returncode:
            what = _text(done.stderr).strip().removeprefix("fatal: ")
            raise UsageError(what, where=str(repository), hint="No branch was created. Use another prefix.")


def _existing(repository: Path) -> dict[str, tuple[str, bool]]:
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
