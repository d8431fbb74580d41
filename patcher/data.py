"""TOML and JSON to typed values by msgspec, with its errors as this program's errors."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from patcher.errors import UsageError

T = TypeVar("T")
# What turns a plain value into one of a kind that msgspec does not know. Raises ValueError with what was expected.
Decoder = Callable[[Any, Any], Any]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a TOML file: an unknown key is an error."""


def load(path: Path, kind: type[T], hint: str = "", decode: Decoder | None = None) -> T:
    """The value in a TOML file. Raises UsageError, with the file, the key and what was expected there."""
    return convert(read(path), kind, where=str(path), hint=hint, decode=decode)


def read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UsageError where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"not TOML: {error}", where=str(path)) from None


def convert(value: object, kind: type[T], *, where: str, hint: str = "", decode: Decoder | None = None) -> T:
    """A parsed value as a typed one. Raises UsageError as ``load`` does. The value may be changed then."""

    def problem() -> str:
        try:
            msgspec.convert(value, kind, str_keys=True, dec_hook=decode)
        except msgspec.ValidationError as error:
            return str(error)
        return ""

    try:
        return msgspec.convert(value, kind, str_keys=True, dec_hook=decode)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `")
        key = _key(path.removeprefix("key` in `").removeprefix("$").removesuffix("`"), value, problem)
        for field, ours in {"contains unknown": "unknown key", "missing required": "a value is needed"}.items():
            if f" {field} field " in what:
                key, what = f"{key}.{what.split('`')[1]}", ours
        key, what = key.removeprefix("."), what[:1].lower() + what[1:]
        raise UsageError(f"{key}: {what}" if key else what, where=where, hint=hint) from None


def _key(path: str, value: Any, problem: Callable[[], str]) -> str:
    """The path of a problem with the names of all keys: msgspec writes ``[...]`` for the name of a table's entry.

    An entry is the one at fault if the same problem is left without all others.
    """
    said = problem()
    *tables, last = path.split("[...]")
    key = ""
    for steps in tables:
        for step in re.findall(r"[^.\[\]]+", steps):
            value = value[int(step)] if isinstance(value, list) else value[step]
        every = dict(value)
        for name, entry in every.items():
            value.clear()
            value[name] = entry
            if problem() == said:
                break
        key += f"{steps}.{name}"
        value = entry
    return key + last
