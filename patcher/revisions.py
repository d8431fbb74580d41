"""The names on the command line -> the revisions of a repository."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import chain, count

from patcher import anchors, sources
from patcher.errors import InputError, UsageError
from patcher.model import Recipe, Target
from patcher.repository import Objects, git

# 29.x, 29.0.0, elements-29.x, 29.x-knots, v29.0; without a dot only release-28 and v28.
_RELEASE = re.compile(
    r"(?:(?:[A-Za-z]+[-_/])*v?(?:0|[1-9][0-9]*)(?:\.[0-9]+)*\.(?:x|[0-9]+)|(?:release[-_/]?|v)[0-9]+)(?:[-+_/].*)?"
)
_GLOB = re.compile(r"[*?\[]")


def select(objects: Objects, names: Sequence[str], recipe: Recipe) -> tuple[list[Target], str]:
    """The revisions that names, globs and tags stand for, each once, in the given order; and a line on the branches
    that are left out.

    Without a name: the release branches that may hold an image build, then the default branch. A name that git does
    not know becomes a target without a commit. Raises UsageError where nothing is named and nothing found.
    """
    refs = _refs(objects)
    branches, remotes, tags = _by_name(refs)
    if not names:
        return _default(objects, recipe, refs, branches, tags)
    wanted: dict[str, str] = {}
    for name in names:
        if _GLOB.search(name):
            matches = next(filter(None, (_matching(known, name) for known in (branches, remotes, tags))), {name: ""})
            wanted |= {match: ref for match, ref in matches.items() if match not in wanted}
        else:
            wanted.setdefault(name, branches.get(name) or tags.get(name, name))
    return _targets(objects, wanted), ""


def _refs(objects: Objects) -> dict[str, str]:
    """All branches, remotes' branches and tags, each with the ref that it stands for if it is symbolic."""
    arguments = ["for-each-ref", "--format=%(refname)%00%(symref)", "refs/heads", "refs/remotes", "refs/tags"]
    listed = git(objects.repository, arguments).stdout.decode("utf8", "surrogateescape")
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


def _default(
    objects: Objects, recipe: Recipe, refs: Mapping[str, str], branches: Mapping[str, str], tags: Mapping[str, str]
) -> tuple[list[Target], str]:
    remote, head = _head(objects, refs)
    pool = [name for name in branches if not remote or f"refs/remotes/{remote}/{name}" in refs]
    names = sorted((name for name in pool if _RELEASE.fullmatch(name) and name != head), key=_natural)
    names += [head] if head in pool or head == "HEAD" else []
    labels = {_label(name) for name in (*branches, *tags)}
    found = _targets(objects, {name: branches.get(name, name) for name in names})
    taken = [target for target in found if not _made_here(target, recipe, labels)]
    taken = [target for target in taken if target.name == head or _may_build(objects, target, recipe)]
    if not taken:
        what = "neither a release branch with an image build nor a default branch is here"
        raise UsageError(what, where=str(objects.repository), hint="Name the branches, tags or revisions.")
    return taken, _left_out(objects, sorted(set(pool) - {target.name for target in taken}, key=_natural))


def default_branch(objects: Objects) -> str:
    """The default branch, as a remote or else HEAD names it."""
    return _head(objects, _refs(objects))[1]


def _left_out(objects: Objects, names: Sequence[str]) -> str:
    """How many branches are left out, two examples, and the words to add them."""
    if not names:
        return ""
    examples = [*dict.fromkeys([names[0], names[-1]])]
    call = shlex.join(["ci-patcher", "backport", "--repo", str(objects.repository), *examples])
    others = "1 other branch is" if len(names) == 1 else f"{len(names)} other branches are"
    return f"{others} left out, such as {' and '.join(examples)}. To add some, name them: {call}"


def _head(objects: Objects, refs: Mapping[str, str]) -> tuple[str, str]:
    """The remote that names a default branch, and that branch; else no remote, and HEAD's branch or HEAD itself."""
    pairs = (re.fullmatch(r"refs/remotes/(.+)/HEAD\0refs/remotes/\1/(.+)", f"{ref}\0{to}") for ref, to in refs.items())
    heads = {found[1]: found[2] for found in pairs if found}
    for remote in (*sources.REMOTES, *sorted(heads)):
        if remote in heads:
            return remote, heads[remote]
    said = git(objects.repository, ["symbolic-ref", "--quiet", "HEAD"], check=False).stdout
    return "", said.decode("utf8", "surrogateescape").removesuffix("\n").removeprefix("refs/heads/") or "HEAD"


def _may_build(objects: Objects, target: Target, recipe: Recipe) -> bool:
    """Whether a build can be in one of the recipe's files. What cannot be read is not left out in silence."""
    if target.commit is None:
        return True
    try:
        scripts = [objects.script(target.commit.name, path, path) for path in recipe.files]
    except InputError:
        return True
    return any(anchors.may_hold(recipe.anchor, script) for script in scripts if script)


def _made_here(target: Target, recipe: Recipe, labels: set[str]) -> bool:
    """Whether --branch made it: the commit has the recipe's message, and the name is another branch's with a prefix."""
    ours = {recipe.subject, recipe.update, f'Revert "{recipe.subject}"'}
    if target.commit is None or target.commit.subject not in ours:
        return False
    rests = (target.label[at:] for at in range(1, len(target.label)) if not target.label[at - 1].isdigit())
    return any(rest in labels for rest in rests)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts 9.x before 10.x."""
    return [(len(part) if part.isdecimal() else 0, part) for part in re.split(r"([0-9]+)", name)]


def _targets(objects: Objects, wanted: Mapping[str, str]) -> list[Target]:
    """The targets of names and what git calls them. No two labels differ in case alone."""
    targets: dict[str, Target] = {}
    for name, ref in wanted.items():
        labels = chain([_label(name)], (f"{_label(name)}-{number}" for number in count(2)))
        label = next(label for label in labels if label.lower() not in targets)
        revision = re.sub(r"^refs/(heads|remotes|tags)/", "", ref) or name
        try:
            commit = objects.commit(ref)
            error = None if commit else _unknown(name)
        except InputError as odd:
            commit, error = None, odd
        targets[label.lower()] = Target(name, label, revision, commit, error)
    return list(targets.values())


def _unknown(name: str) -> InputError:
    if os.path.isdir(name):
        return InputError("a folder, not a branch", hint=f"Is it the clone? ci-patcher backport --repo {name}")
    what = "no branch or tag matches" if _GLOB.search(name) else "no such branch, tag or revision here"
    return InputError(what, hint=sources.WHAT_THERE_IS)


def _label(name: str) -> str:
    """A name for a folder or a branch: no slash, no leading dot or dash, nothing that git refuses."""
    return re.sub(r"[^A-Za-z0-9._+]+|\.\.+", "-", name)[:100].strip("-.").removesuffix(".lock") or "revision"
