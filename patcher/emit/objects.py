"""Git's objects made here, without a process of git for each."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path

from patcher.model import Script


class Made:
    """Objects that are in no repository yet: kind and content, by name. ``sha256`` is how a repository of that
    kind names them."""

    def __init__(self, *, sha256: bool = False) -> None:
        self._make = hashlib.sha256 if sha256 else hashlib.sha1
        self.made: dict[str, tuple[str, bytes]] = {}

    def add(self, kind: str, content: bytes) -> str:
        """The name of an object with this content, which is a ``blob``, ``tree`` or ``commit``."""
        name = self._make(_head(kind, content) + content).hexdigest()
        self.made[name] = kind, content
        return name

    def tree(self, files: Mapping[str, Script]) -> str:
        """The name of a tree that holds only these files, by their paths."""
        entries: dict[bytes, tuple[str, str]] = {}
        folders: dict[str, dict[str, Script]] = {}
        for path, script in files.items():
            name, inside, rest = path.partition("/")
            if inside:
                folders.setdefault(name, {})[rest] = script
            else:
                entries[_raw(name)] = script.mode, self.add("blob", script.data)
        for name, within in folders.items():
            entries[_raw(name) + b"/"] = "40000", self.tree(within)
        # Git sorts as if a folder's name ended in a slash.
        rows = [
            b"%b %b\0%b" % (mode.encode(), name.rstrip(b"/"), bytes.fromhex(blob))
            for name, (mode, blob) in sorted(entries.items())
        ]
        return self.add("tree", b"".join(rows))

    def commit(self, tree: str, parents: tuple[str, ...], who: str, message: str) -> str:
        """The name of a commit; ``who`` is author and committer with the date, ``Name <mail> SECONDS ZONE``."""
        lines = [f"tree {tree}", *(f"parent {name}" for name in parents), f"author {who}", f"committer {who}"]
        return self.add("commit", _raw("\n".join([*lines, "", message])))

    def write(self, folder: Path) -> None:
        """Store all of them as git stores single objects, in a repository's empty ``objects`` folder."""
        for name, (kind, content) in self.made.items():
            file = folder / name[:2] / name[2:]
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(zlib.compress(_head(kind, content) + content, 1))


def _head(kind: str, content: bytes) -> bytes:
    return b"%b %d\0" % (kind.encode(), len(content))


def _raw(text: str) -> bytes:
    return text.encode("utf8", "surrogateescape")
