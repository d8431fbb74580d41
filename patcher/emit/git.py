"""Patches by git's own plumbing, so that modes, odd paths and missing final newlines are right.

Nothing of the machine counts: no configuration, no attributes, no clock, no repository around. The commits
are made in a repository of their own that holds only the files that change; their blobs are the real ones.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from patcher.emit.text import visible
from patcher.errors import InputError
from patcher.model import Plan, Recipe, Script
from patcher.repository import git, said

Pair = tuple[Script, Script]

_BRANCH = "refs/heads/patch"
_DIFF = [
    "--full-index", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv", "--text", "--diff-algorithm=myers",
    "--unified=3", "--inter-hunk-context=0", "--src-prefix=a/", "--dst-prefix=b/",
]  # fmt: skip


def _write(folder: Path, script: Script) -> None:
    path = folder / script.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(script.data)
    path.chmod(int(script.mode, 8) & 0o777)


@lru_cache(maxsize=8)  # the review and the output ask for the same one
def diff(pairs: tuple[Pair, ...]) -> bytes:
    """The change as ``git apply`` takes it at the tree's root, with ``a/`` and ``b/`` paths."""
    with tempfile.TemporaryDirectory(prefix="ci-patcher-") as name:
        folder = Path(name)
        for old, new in pairs:
            _write(folder / "a", old)
            _write(folder / "b", new)
        options = [option for option in _DIFF if "-prefix" not in option]
        command = ["diff", "--no-index", "--no-prefix", *options, "--"]
        made: list[bytes] = []
        for old, new in pairs:
            done = git(folder, [*command, f"a/{old.path}", f"b/{new.path}"], check=False, alone=True)
            if done.returncode > 1:  # 1 says that they differ
                raise InputError(f"git diff failed: {said(done)}")
            made.append(done.stdout)
    return b"".join(made)


def mbox(pairs: Sequence[Pair], message: str, author: str, date: str, below: Sequence[str]) -> bytes:
    """The change as ``git am`` takes it. ``author`` is ``Name <mail>``, ``date`` as git takes it
    (``SECONDS ZONE``), the lines ``below`` stand under the ``---`` line, where ``git am`` drops them."""
    who = f"{author} {date}"
    with tempfile.TemporaryDirectory(prefix="ci-patcher-") as name:
        folder = Path(name)
        base = commit([old for old, _ in pairs], "base", who, who)
        imported(folder, base + commit([new for _, new in pairs], message, who, who))
        arguments = ["format-patch", "--stdout", "--no-signature", "-1", *_DIFF, _BRANCH]
        made = git(folder, arguments, alone=True).stdout
    head, rule, tail = made.partition(b"\n---\n")
    # Indented, so that none begins a diff or a mail; GNU patch takes an indented diff, but not one on one line.
    notes = "".join(f"  {visible(line)}\n" for line in below)
    return head + rule + notes.encode() + b"\n" + tail


def commit(scripts: Sequence[Script], message: str, author: str, committer: str, base: str = "") -> bytes:
    """The commit that changes these files, as ``git fast-import`` reads it. It goes on top of ``base``, by default of
    the commit before it. ``author`` and ``committer`` are ``Name <mail> SECONDS ZONE``."""
    lines = [f"commit {_BRANCH}", "mark :1", f"author {author}", f"committer {committer}"]
    stream = _raw("\n".join([*lines, ""])) + _data(message) + _raw(f"from {base}\n" if base else "")
    for script in scripts:
        path = script.path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        stream += _raw(f'M {script.mode} inline "{path}"\n') + _data(script.text)
    return stream


def _data(text: str) -> bytes:
    return b"data %d\n%b\n" % (len(_raw(text)), _raw(text))


def _raw(text: str) -> bytes:
    return text.encode("utf8", "surrogateescape")


def imported(folder: Path, stream: bytes, objects: Path | None = None) -> str:
    """The hash of the last commit of a stream, which is made in a new repository in an empty folder: one that knows
    no configuration and no hook. ``objects`` is the folder of another repository's objects, for the commits' base."""
    (folder / "refs").mkdir()
    (folder / "objects" / "info").mkdir(parents=True)
    (folder / "HEAD").write_text(f"ref: {_BRANCH}\n", encoding="ascii")
    if objects:
        (folder / "objects" / "info" / "alternates").write_bytes(os.fsencode(objects) + b"\n")
    arguments = ["-c", "fastimport.unpackLimit=0", "fast-import", "--quiet"]  # one pack, no single objects
    return git(folder, arguments, data=stream + b"get-mark :1\n", alone=True).stdout.decode().strip()


def refused(pairs: Sequence[Pair], patch: bytes) -> str:
    """Why ``git apply --check`` refuses a patch on the original files, or empty where it takes it."""
    with tempfile.TemporaryDirectory(prefix="ci-patcher-") as name:
        folder = Path(name)
        for old, _ in pairs:
            _write(folder, old)
        done = git(folder, ["apply", "--check", "-"], check=False, data=patch, alone=True)
    return said(done) if done.returncode else ""


def message(
    recipe: Recipe,
    values: Mapping[str, str],
    trailers: Sequence[str] = (),
    *,
    before: Plan | None = None,
    reverse: bool = False,
) -> str:
    """The commit message: subject, body, trailers. ``before`` tells what the change replaces."""
    if reverse:
        again = f'This takes out again what "{recipe.subject}" put in.'
        parts = [f'Revert "{recipe.subject}"', _wrapped(again)]
    else:
        older = before is not None and before.ours
        parts = [recipe.update if older else recipe.subject, recipe.body]
        parts += [_wrapped(said) for name, option in recipe.options.items() if (said := option.says(values[name]))]
        if before and before.foreign:
            parts.append(_wrapped(f"This replaces {before.foreign.name}."))
        elif before and older:
            other = before.values is not None and dict(before.values) != dict(values)
            parts.append(f"This replaces {'the same with other options' if other else 'an incomplete form of it'}.")
    if trailers:
        parts.append("\n".join(trailers))
    return "\n\n".join(parts) + "\n"


def _wrapped(text: str) -> str:
    import textwrap  # for a message that has such a sentence alone

    return textwrap.fill(text, 72, break_long_words=False, break_on_hyphens=False)
