"""TOML and JSON to typed values by msgspec, with its errors as this program's errors."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from patcher.errors import UsageError

T = TypeVar("T")


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a TOML file: an unknown key is an error."""


def load(path: Path, kind: type[T], hint: str = "") -> T:
    """The value in a TOML file. Raises UsageError, with the file, the key and what was expected there."""
    return convert(read(path), kind, where=str(path), hint=hint)


def read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UsageError where it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"not TOML: {error}", where=str(path)) from None


def convert(value: object, kind: type[T], *, where: str, hint: str = "") -> T:
    """A parsed value as a typed one. Raises UsageError as ``load`` does."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, key = str(error).partition(" - at `")
        key = key.removesuffix("`").removeprefix("$").removeprefix(".")
        what = what[:1].lower() + what[1:]
        raise UsageError(f"{key}: {what}" if key else what, where=where, hint=hint) from None
