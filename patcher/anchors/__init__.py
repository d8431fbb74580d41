"""Syntax to anchors: each kind of anchor is a small module that registers itself here."""

from __future__ import annotations

from collections.abc import Callable

from patcher.model import Anchor, Syntax, UsageError

Finder = Callable[[Syntax], Anchor]

_kinds: dict[str, Finder] = {}


def kind(name: str) -> Callable[[Finder], Finder]:
    """Register the function that finds anchors of this kind; recipes name it under ``anchor``."""

    def register(finder: Finder) -> Finder:
        _kinds[name] = finder
        return finder

    return register


def find(name: str, syntax: Syntax) -> Anchor:
    """The one anchor of a kind in a script.

    Raises RefusedError (NoBuildError where there is none at all) and names all candidates; UsageError for a
    kind that does not exist.
    """
    from patcher.anchors import image_build  # noqa: F401 (registers itself)

    if name not in _kinds:
        raise UsageError(f"there is no kind of anchor {name!r}", hint=f"There are: {', '.join(sorted(_kinds))}.")
    return _kinds[name](syntax)
