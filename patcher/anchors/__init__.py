"""Syntax to anchors: each kind of anchor is a module with ``find``, ``may_hold`` and ``mention``."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from patcher.errors import UsageError
from patcher.model import Anchor, Script, Syntax


def kinds() -> list[str]:
    """The names of all kinds. Each is the name of its module, which is not imported for that."""
    return sorted(p.stem.replace("_", "-") for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")


@cache
def _kind(name: str) -> Any:
    if name not in kinds():
        raise UsageError(f"there is no kind of anchor {name!r}", hint=f"There are: {', '.join(kinds())}.")
    return import_module(f"{__name__}.{name.replace('-', '_')}")


def find(name: str, syntax: Syntax) -> Anchor:
    """The one anchor of a kind in a script.

    Raises RefusedError (NoBuildError where there is none at all), and UsageError for a kind that does not exist.
    """
    return cast(Anchor, _kind(name).find(syntax))


def may_hold(name: str, script: Script) -> bool:
    """Whether the text of a script may have an anchor of a kind. A script that has not need not be parsed."""
    return cast(bool, _kind(name).may_hold(script))


def mention(name: str, script: Script) -> int | None:
    """The offset of words that look like an anchor of a kind, comments left out, or None."""
    return cast(int | None, _kind(name).mention(script))
