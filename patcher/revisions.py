"""The names on the command line -> the revisions of a repository."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

from patcher import sources
from patcher.errors import InputError, UsageError
from patcher.model import Target
from patcher.sources import Objects

_RELEASE = re.compile(r"[0-9]+\.x")
_GLOB = re.compile(r"[*?\[]")


def select(objects: Objects, names: Sequence[str]) -> list[Target]:
    """The revisions that names, globs, tags and other revisions stand for, each once, in the given order.

    Without a name: all branches ``N.x``, then the default branch. A local branch comes before a remote's of
    the same name. A name that git does not know becomes a target without a commit. Raises UsageError where
    nothing is named and nothing found.
    """
    refs = _refs(objects)
    branches, remotes, tags = _by_name(refs)
    wanted: dict[str, str] = {}
    for name in names or _default(refs, branches):
        if _GLOB.search(name):
            matches = next(filter(None, (_matching(known, name) for known in (branches, remotes, tags))), {name: ""})
            wanted |= {match: ref for match, ref in matches.items() if match not in wanted}
        else:
            wanted.setdefault(name, branches.get(name) or tags.get(name, name))
    if not wanted:
        raise UsageError(
            "neither a release branch (N.x) nor a default branch is here",
            where=str(objects.repository),
            hint="Name the branches, tags or revisions.",
        )
    targets: list[Target] = []
    for name, ref in wanted.items():
        targets.append(_target(objects, name, ref, {target.label.lower() for target in targets}))
    return targets


def _refs(objects: Objects) -> dict[str, str]:
    """All branches, remotes' branches and tags, each with the ref that it stands for if it is symbolic."""
    arguments = ["for-each-ref", "--format=%(refname)%00%(symref)", "refs/heads", "refs/remotes", "refs/tags"]
    listed = sources.git(objects.repository, arguments).stdout.decode("utf8", "surrogateescape")
    return dict(line.split("\0") for line in listed.split("\n") if line)


def _by_name(refs: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """The refs of branches by their short names (a remote's without the remote where that is free), of remotes'
    branches by ``remote/name``, and of tags."""
    branches, remotes, tags = (
        {ref.removeprefix(prefix): ref for ref, symref in refs.items() if ref.startswith(prefix) and not symref}
        for prefix in ("refs/heads/", "refs/remotes/", "refs/tags/")
    )
    order = {remote: index for index, remote in enumerate(sources.REMOTES)}
    for name in sorted(remotes, key=lambda name: (order.get(name.split("/")[0], len(order)), name)):
        branches.setdefault(name.partition("/")[2], remotes[name])
    return branches, remotes, tags


def _matching(known: Mapping[str, str], glob: str) -> dict[str, str]:
    """The known names that a glob stands for, and their refs. Its wildcards stand for no slash."""
    names = [name for name in known if fnmatch.fnmatchcase(name, glob) and name.count("/") == glob.count("/")]
    return {name: known[name] for name in sorted(names, key=_natural)}


def _default(refs: Mapping[str, str], branches: Mapping[str, str]) -> list[str]:
    releases = sorted((name for name in branches if _RELEASE.fullmatch(name)), key=_natural)
    heads = [refs.get(f"refs/remotes/{remote}/HEAD", "") for remote in sources.REMOTES]
    named = [head.removeprefix("refs/remotes/").partition("/")[2] for head in heads if head]
    default = [name for name in (*named, "master", "main") if name in branches]
    return [*releases, *default[:1]]


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts 9.x before 10.x."""
    return [(len(part) if part.isdecimal() else 0, part) for part in re.split(r"([0-9]+)", name)]


def _target(objects: Objects, name: str, ref: str, taken: set[str]) -> Target:
    """The target of a name. Its label has no slash, no leading dot or dash, nothing that git refuses in a branch."""
    safe = re.sub(r"[^A-Za-z0-9._+]+|\.\.+", "-", name)[:100].strip("-.").removesuffix(".lock") or "revision"
    labels = [safe, *(f"{safe}-{number}" for number in range(2, len(taken) + 2))]
    label = next(label for label in labels if label.lower() not in taken)
    revision = re.sub(r"^refs/(heads|remotes|tags)/", "", ref) or name
    try:
        return Target(name, label, revision, objects.commit(ref))
    except InputError as error:
        return Target(name, label, revision, None, error)
