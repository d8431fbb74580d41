"""Syntax to anchors: each kind of anchor is a small module that registers itself here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from patcher.errors import UsageError
from patcher.model import Anchor, Syntax

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
    import_module(f"{__name__}.{name.replace('-', '_')}")
    return _kinds[name](syntax)
