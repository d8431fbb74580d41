"""``--branch``: commits on top of the real ones, and their branches, in the repository itself.

The commits are made in a repository of their own. Nothing refers to what is written of them until ``git update-ref``
has created all branches in one transaction.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from patcher.emit.git import Pair, commit, imported
from patcher.errors import InputError, UsageError
from patcher.model import Commit
from patcher.sources import Objects, git


class Commits:
    """Commits that are not written yet: each as a pack, by its hash."""

    def __init__(self, objects: Objects) -> None:
        self.repository = objects.repository
        self.packs: dict[str, bytes] = {}

    def add(self, base: Commit, pairs: Sequence[Pair], message: str, author: str, date: str) -> str:
        """The hash of the commit that changes these files of its base. Raises InputError where a tree of the
        base is not in this clone."""
        who = f"{author} {date}"
        stream = commit([new for _, new in pairs], message, who, who, base.name)
        objects = _path(self.repository, "objects")
        with tempfile.TemporaryDirectory(prefix="ci-patcher-") as name:
            folder = Path(name)
            try:
                made = imported(folder, stream, objects)
            except InputError as error:
                raise InputError(error.what, hint="Use a full clone for --branch.") from None
            self.packs[made] = b"".join(pack.read_bytes() for pack in (folder / "objects/pack").glob("*.pack"))
        return made


def create(commits: Commits, wanted: Mapping[str, str], force: bool) -> None:
    """Write the commits and point these branches at theirs, all or none.

    A branch that stands at its commit already is left alone. Raises UsageError, before anything is written, for
    one that exists and is not to be moved, that is checked out, or whose name git refuses; InputError where git
    cannot write.
    """
    repository = commits.repository
    existing = _branches(repository)
    busy = _rebasing(repository)
    problems: list[str] = []
    updates: list[str] = []
    for branch, made in wanted.items():
        ref = f"refs/heads/{branch}"
        old, checked_out = existing.get(ref, ("", False))
        if branch.startswith("-") or git(repository, ["check-ref-format", ref], check=False).returncode:
            problems.append(f"{branch!r} is no name for a branch")
        elif old == made:
            continue
        elif old and not force:
            problems.append(f"{branch} exists already")
        elif checked_out or ref in busy:
            problems.append(f"{branch} is checked out or being rebased")
        # With the old value, so that a branch that somebody moves right now is not lost.
        updates.append(f"option no-deref\nupdate {ref} {made} {old or '0' * len(made)}\n")
    if problems:
        hint = "No branch was created. Use another prefix" + ("." if force else ", or --force to move what exists.")
        raise UsageError("; ".join(problems), where=str(repository), hint=hint)
    if not updates:
        return
    for pack in commits.packs.values():
        git(repository, ["unpack-objects", "-q"], data=pack)
    arguments = ["update-ref", "-m", "ci-patcher backport", "--stdin"]
    done = git(repository, arguments, check=False, data="".join(updates).encode())
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
