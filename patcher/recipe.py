"""A folder under snippets/ -> a typed, frozen Recipe, checked once."""

from __future__ import annotations

import re
import sysconfig
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from patcher.anchors import kinds
from patcher.errors import UsageError
from patcher.model import OPTION_LINE, Change, Foreign, Option, Recipe

_PLACES = frozenset({"body", "module"})
_SEPARATORS = {"shell": " ", "python": ", "}


def bundled() -> Path:
    """The folder of the recipes that come with the program: in the wheel inside the package, else beside it."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_snippets", package.parent / "snippets"):
        if folder.is_dir():
            return folder
    raise UsageError(
        f"the bundled recipes are missing from {sysconfig.get_path('purelib')}",
        hint="Install bitcoin-ci-patcher again.",
    )


def names(folders: list[Path]) -> dict[str, Path]:
    """The recipes in these folders by name. A name that two folders have is an error that names both."""
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError("not a folder of recipes", where=str(folder), hint="--recipes takes a folder of folders.")
        for path in sorted(folder.iterdir()):
            if (path / "recipe.toml").is_file():
                if path.name in found:
                    raise UsageError(
                        f"the recipe {path.name!r} exists twice", where=str(path), hint=f"{found[path.name]}"
                    )
                found[path.name] = path
    return found


def load(name: str, folders: list[Path]) -> Recipe:
    """Read and check one recipe. Raises UsageError that names the file and the key at fault."""
    found = names(folders)
    if name not in found:
        raise UsageError(f"there is no recipe {name!r}", hint=f"`ci-patcher recipes` lists them: {', '.join(found)}.")
    return read(found[name])


def read(folder: Path) -> Recipe:
    """The recipe in a folder. Raises UsageError that names the file and the key at fault."""
    reader = _Reader(folder, folder / "recipe.toml")
    table = reader.table
    recipe = Recipe(
        name=folder.name,
        folder=folder,
        summary=reader.string(table, "summary"),
        anchor=reader.string(table, "anchor"),
        files=reader.strings(table, "files"),
        subject=(subject := reader.string(table, "subject")),
        update=reader.string(table, "update", subject),
        body=reader.string(table, "body").strip("\n"),
        defines=reader.string(table, "defines", ""),
        hook=reader.string(table, "hook", ""),
        changes={},
        options={},
        replaces=tuple(reader.foreign(entry, i) for i, entry in enumerate(reader.tables(table, "replaces"))),
        seen=tuple(reader.pattern(text, "seen") for text in reader.strings(table, "seen", ())),
        advice={
            key: reader.strings(table.get("advice", {}), key, (), at="advice.")
            for key in reader.keys(table, "advice", {"hook", "patch"})
        },
    )
    known = {
        "summary", "anchor", "files", "subject", "update", "body", "defines", "hook", "replaces", "seen", "advice",
        "shell", "python", "options",
    }  # fmt: skip
    reader.unknown(table, known, "")
    options = {name: reader.option(name, entry, folder) for name, entry in table.get("options", {}).items()}
    changes: dict[str, Change] = {
        language: reader.change(table[language], language, folder)
        for language in ("shell", "python")
        if language in table
    }
    if recipe.anchor not in kinds():
        raise reader.error("anchor", f"one of {', '.join(kinds())} is needed")
    if not recipe.files:
        raise reader.error("files", "at least one file is needed")
    if not changes:
        raise reader.error("shell", "neither [shell] nor [python] is given")
    if recipe.defines and not all(change.before for change in changes.values()):
        raise reader.error("defines", "nothing is put before the build that could define it")
    reader.places(changes, options)
    older = tuple(reader.older(path, table) for path in sorted((folder / "older").glob("*/")))
    return replace(recipe, changes=changes, options=options, older=older)


class _Reader:
    """Typed access to one recipe.toml. Every error names the file and the key."""

    def __init__(self, folder: Path, path: Path) -> None:
        self.path = path
        self.table = self.read(path)
        self.folder = folder

    def read(self, path: Path) -> dict[str, Any]:
        try:
            return tomllib.loads(path.read_text(encoding="utf8"))
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"not TOML: {error}", where=str(path)) from None

    def error(self, key: str, what: str) -> UsageError:
        return UsageError(f"{key}: {what}", where=str(self.path), hint="docs/recipes.md describes every key.")

    def unknown(self, table: Mapping[str, Any], known: set[str], at: str) -> None:
        for key in table:
            if key not in known:
                raise self.error(at + key, "unknown key")

    def string(self, table: Mapping[str, Any], key: str, default: str | None = None, at: str = "") -> str:
        value = table.get(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise self.error(at + key, "a string is missing here")
        return value

    def strings(
        self, table: Mapping[str, Any], key: str, default: tuple[str, ...] | None = None, at: str = ""
    ) -> tuple[str, ...]:
        value = table.get(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) for entry in value):
            raise self.error(at + key, "a list of strings is missing here")
        if len(set(value)) != len(value):
            raise self.error(at + key, "the same entry stands here twice")
        return tuple(value)

    def tables(self, table: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.error(key, "a list of tables is missing here")
        return value

    def keys(self, table: Mapping[str, Any], key: str, known: set[str]) -> list[str]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "a table is missing here")
        self.unknown(value, known, key + ".")
        return list(value)

    def pattern(self, text: str, key: str) -> re.Pattern[str]:
        try:
            return re.compile(text)
        except re.error as error:
            raise self.error(key, f"not a regular expression: {error}") from None

    def lines(self, name: str, key: str, folder: Path) -> tuple[str, ...]:
        path = folder / name
        try:
            text = path.read_text(encoding="utf8")
        except (OSError, UnicodeDecodeError) as error:
            raise self.error(key, f"{name} cannot be read: {error}") from None
        return tuple(text.splitlines())

    def foreign(self, entry: dict[str, Any], index: int) -> Foreign:
        at = f"replaces[{index}]."
        self.unknown(entry, {"name", "variables", "reads", "files"}, at)
        variables = self.strings(entry, "variables", at=at)
        if not variables:
            raise self.error(at + "variables", "at least one variable is needed")
        return Foreign(
            self.string(entry, "name", at=at),
            variables,
            self.strings(entry, "reads", (), at=at),
            self.strings(entry, "files", (), at=at),
        )

    def option(self, name: str, entry: Any, folder: Path) -> Option:
        at = f"options.{name}."
        if not isinstance(entry, dict):
            raise self.error(f"options.{name}", "a table is missing here")
        self.unknown(entry, {"default", "help", "form", "body", "parts", "shell", "python"}, at)
        if not isinstance(entry.get("parts", {}), dict):
            raise self.error(at + "parts", "a table is missing here")
        parts = {part: self.string(entry["parts"], part, at=at + "parts.") for part in entry.get("parts", {})}
        for part, pattern in parts.items():
            self.pattern(pattern, f"{at}parts.{part}")
        return Option(
            name,
            self.string(entry, "default", at=at),
            self.string(entry, "help", at=at),
            self.string(entry, "form", at=at),
            self.string(entry, "body", "", at=at).strip("\n"),
            parts,
            {
                language: self.lines(self.string(entry, language, at=at), at + language, folder)
                for language in ("shell", "python")
                if language in entry
            },
        )

    def change(self, entry: Any, language: str, folder: Path) -> Change:
        at = f"{language}."
        if not isinstance(entry, dict):
            raise self.error(language, "a table is missing here")
        self.unknown(entry, {"before", "place", "wrap", "insert", "imports", "directive"}, at)
        before = self.string(entry, "before", "", at=at)
        place = self.string(entry, "place", "body", at=at)
        insert = self.string(entry, "insert", "", at=at)
        if "\n" in insert:
            raise self.error(at + "insert", "one line is needed")
        if place not in _PLACES:
            raise self.error(at + "place", f"one of {', '.join(sorted(_PLACES))} is needed")
        wrap = self.string(entry, "wrap", "", at=at)
        if language == "python" and wrap and "{callee}" not in wrap:
            raise self.error(at + "wrap", "{callee} is missing, which stands for the function that is called")
        if not (before or wrap or insert):
            raise self.error(language, "before, wrap or insert is needed")
        return Change(
            self.lines(before, at + "before", folder) if before else (),
            place,
            wrap,
            _SEPARATORS[language] + insert if insert else "",
            self.strings(entry, "imports", (), at=at),
            self.string(entry, "directive", "", at=at),
        )

    def places(self, changes: Mapping[str, Change], options: Mapping[str, Option]) -> None:
        for language, change in changes.items():
            for line in change.before:
                place = OPTION_LINE.fullmatch(line)
                if place and (place["option"] not in options or language not in options[place["option"]].snippets):
                    raise self.error(f"{language}.before", f"the option {place['option']!r} has no snippet for it")
        used = {
            found["option"] for c in changes.values() for line in c.before if (found := OPTION_LINE.fullmatch(line))
        }
        for name in options.keys() - used:
            raise self.error(f"options.{name}", f"no line `# option: {name}` says where its lines go")

    def older(self, folder: Path, table: Mapping[str, Any]) -> tuple[dict[str, Change], dict[str, Option]]:
        """An earlier release: its files, of the same names as today's, and its tables where they differ."""
        tables = {**table, **(self.read(folder / "recipe.toml") if (folder / "recipe.toml").is_file() else {})}

        def there(entry: Mapping[str, Any], key: str) -> bool:
            return (folder / str(entry.get(key, ""))).is_file()

        options = {
            name: self.option(name, {k: v for k, v in entry.items() if k not in _SEPARATORS or there(entry, k)}, folder)
            for name, entry in tables.get("options", {}).items()
        }
        changes = {
            language: self.change(tables[language], language, folder)
            for language in _SEPARATORS
            if language in tables and (there(tables[language], "before") or "before" not in tables[language])
        }
        self.places(changes, options)
        return changes, options
