"""``--branch``: commits on top of the real ones, and their branches, in the repository itself.

``git hash-object`` writes the objects; until ``git update-ref`` has created all branches in one transaction,
nothing refers to them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from patcher.emit.git import Pair
from patcher.emit.objects import Made
from patcher.errors import InputError, UsageError
from patcher.model import Commit
from patcher.sources import Objects, git

_KINDS = ("blob", "tree", "commit")


class Commits:
    """Commits that are not written yet."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.made: Made | None = None

    def add(self, base: Commit, pairs: Sequence[Pair], message: str, author: str, date: str) -> str:
        """The hash of the commit that changes these files of its base. Raises InputError where a tree of the
        base is not in this clone."""
        made = self.made = self.made or Made(sha256=len(base.name) == 64)
        tree = base.tree
        for _, new in pairs:
            tree = self._spliced(made, tree, new.path.split("/"), made.add("blob", new.data))
        return made.commit(tree, (base.name,), f"{author} {date}", message)

    def _spliced(self, made: Made, tree: str, path: Sequence[str], blob: str) -> str:
        """The hash of a tree in which the file at a path is another; modes stay."""
        if tree in made.made:
            content: bytes | None = made.made[tree][1]
        else:
            found = self.objects.get(tree)
            content = found[2] if found else None
        if content is None:
            raise InputError(f"the tree {tree} is not in this clone", hint="Use a full clone for --branch.")
        name = path[0].encode("utf8", "surrogateescape")
        end = content.index(b" " + name + b"\0") + len(name) + 2
        width = len(tree) // 2
        old = content[end : end + width].hex()
        new = self._spliced(made, old, path[1:], blob) if path[1:] else blob
        return made.add("tree", content[:end] + bytes.fromhex(new) + content[end + width :])

    def write(self) -> None:
        """Write all objects that were made. Raises InputError where git cannot."""
        with tempfile.TemporaryDirectory(prefix="ci-patcher-") as folder:
            for kind in _KINDS:
                paths: list[str] = []
                for name, (its_kind, content) in self.made.made.items() if self.made else ():
                    if its_kind == kind:
                        paths.append(f"{folder}/{name}")
                        Path(paths[-1]).write_bytes(content)
                git(
                    self.objects.repository,
                    ["hash-object", "-w", "-t", kind, "--no-filters", "--stdin-paths"],
                    data="".join(f"{path}\n" for path in paths).encode(),
                )


def create(commits: Commits, wanted: Mapping[str, str], force: bool) -> None:
    """Write the commits and point these branches at theirs, all or none.

    A branch that stands at its commit already is left alone. Raises UsageError, before anything is written, for
    one that exists and is not to be moved, that is checked out, or whose name git refuses; InputError where git
    cannot write.
    """
    repository = commits.objects.repository
    listing = ["for-each-ref", "--format=%(refname)%00%(objectname)%00%(worktreepath)", "refs/heads"]
    lines = _text(git(repository, listing).stdout).splitlines()
    existing = {ref: (commit, bool(worktree)) for ref, commit, worktree in (line.split("\0") for line in lines)}
    busy = _rebasing(repository)
    problems: list[str] = []
    updates: list[str] = []
    for branch, commit in wanted.items():
        ref = f"refs/heads/{branch}"
        old, checked_out = existing.get(ref, ("", False))
        if branch.startswith("-") or git(repository, ["check-ref-format", ref], check=False).returncode:
            problems.append(f"{branch!r} is no name for a branch")
        elif old == commit:
            continue
        elif old and not force:
            problems.append(f"{branch} exists already")
        elif checked_out or ref in busy:
            problems.append(f"{branch} is checked out or being rebased")
        # With the old value, so that a branch that somebody moves right now is not lost.
        updates.append(f"option no-deref\nupdate {ref} {commit} {old or '0' * len(commit)}\n")
    if problems:
        hint = "No branch was created. Use another prefix" + ("." if force else ", or --force to move what exists.")
        raise UsageError("; ".join(problems), where=str(repository), hint=hint)
    if not updates:
        return
    commits.write()
    arguments = ["update-ref", "-m", "ci-patcher backport", "--stdin"]
    done = git(repository, arguments, check=False, data="".join(updates).encode())
    if done.returncode:
        what = _text(done.stderr).strip().removeprefix("fatal: ")
        raise UsageError(what, where=str(repository), hint="No branch was created. Use another prefix.")


def _rebasing(repository: Path) -> set[str]:
    """The branches that a rebase in any worktree will move when it ends: HEAD is detached until then."""
    common = repository / _text(git(repository, ["rev-parse", "--git-common-dir"]).stdout).rstrip("\n")
    places = (*common.glob("rebase-*/head-name"), *common.glob("worktrees/*/rebase-*/head-name"))
    return {place.read_text(encoding="utf8", errors="replace").strip() for place in places}


def _text(output: bytes) -> str:
    return output.decode("utf8", "surrogateescape")
