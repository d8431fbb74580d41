"""Syntax to anchors: each kind of anchor is a small module that registers itself here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from patcher.errors import UsageError
from patcher.model import Anchor, Script, Syntax

Finder = Callable[[Syntax], Anchor]

_kinds: dict[str, Finder] = {}


def kind(name: str) -> Callable[[Finder], Finder]:
    """Register the function that finds anchors of this kind; recipes name it under ``anchor``."""

    def register(finder: Finder) -> Finder:
        _kinds[name] = finder
        return finder

    return register


def kinds() -> list[str]:
    """The names of all kinds. Each is the name of its module, which is not imported for that."""
    return sorted(p.stem.replace("_", "-") for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")


def find(name: str, syntax: Syntax) -> Anchor:
    """The one anchor of a kind in a script.

    Raises RefusedError (NoBuildError where there is none at all) and names all candidates; UsageError for a
    kind that does not exist.
    """
    if name not in kinds():
        raise UsageError(f"there is no kind of anchor {name!r}", hint=f"There are: {', '.join(kinds())}.")
    _module(name)
    return _kinds[name](syntax)


def may_hold(kind: str, script: Script) -> bool:
    """Whether an anchor of this kind can be in a script, by a quick look at its text."""
    return bool(_module(kind).may_hold(script))


def mention(kind: str, script: Script) -> int | None:
    """Where a script has the words of an anchor of this kind, if it may be one that was not found. None if nowhere."""
    at: int | None = _module(kind).mention(script)
    return at


def _module(kind: str) -> ModuleType:
    return import_module(f"{__name__}.{kind.replace('-', '_')}")
