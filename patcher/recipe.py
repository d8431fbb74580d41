"""A folder under snippets/ -> a typed, frozen Recipe, checked once."""

from __future__ import annotations

import ast
import keyword
import re
import sysconfig
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from patcher.anchors import kinds
from patcher.errors import InputError, UsageError
from patcher.model import OPTION_LINE, Change, Foreign, Option, Recipe, Script

_DESCRIBED = "docs/recipes.md describes every key."
_PLACES = frozenset({"body", "module"})
_TABLES = ("shell", "python", "options")
_SEPARATORS = {"shell": " ", "python": ", "}
_KEYS = {
    "shell": {"before", "place", "wrap", "insert", "directive"},
    "python": {"before", "place", "wrap", "insert", "imports"},
}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_PART = re.compile(r"\b[A-Z][A-Z0-9_]*\b")
# The functions that a block defines, of those at its own indentation.
_DEFINED = {
    "shell": re.compile(r"(?:function[ \t]+(?=[\w-]+[ \t]*(?:[({]|$))|(?=[\w-]+[ \t]*\([ \t]*\)))(?P<name>[\w-]+)"),
    "python": re.compile(r"(?:async[ \t]+)?def[ \t]+(?P<name>\w+)"),
}
# Where `git am` takes a line for the end of the message or for a header, or drops it from a subject.
_CUT = re.compile(r"---(?:\s*$| \S)|diff -|Index: |From ")
_HEADER = re.compile(r"(?:from|subject|date|mime-version|content-[a-z-]+):|\[PATCH\]|>From\s", re.IGNORECASE)
_DROPPED = re.compile(r"\[|re:|:", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# What is plain without these needs no parser, which takes a tenth of a second to import.
_SPLITS = re.compile(
    r"[;&|<>()#\\`'\n]|^(?:if|then|elif|else|fi|while|until|for|select|do|done|case|esac|function|coproc|time|!)[ \t]"
    r"|^\w+\+?="
)


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
        if (folder / "recipe.toml").is_file():
            raise UsageError(
                "a recipe, not a folder of recipes",
                where=str(folder),
                hint=f"Name the folder above it: --recipes {folder.resolve().parent}",
            )
        for path in sorted(folder.iterdir()):
            if (path / "recipe.toml").is_file():
                if not _NAME.fullmatch(path.name):
                    raise UsageError(
                        f"{path.name!r} cannot be a recipe's name",
                        where=str(path),
                        hint="Name the folder with small letters, digits and hyphens.",
                    )
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
    reader = _Reader(folder)
    table = reader.table
    recipe = Recipe(
        name=folder.name,
        folder=folder,
        summary=reader.string(table, "summary"),
        anchor=reader.string(table, "anchor"),
        files=reader.paths(table, "files"),
        subject=(subject := reader.subject("subject")),
        update=reader.subject("update", subject),
        body=reader.message(table, "body"),
        defines=reader.string(table, "defines", ""),
        hook=reader.string(table, "hook", ""),
        changes=reader.changes(table),
        options=reader.options(table),
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
    if recipe.anchor not in kinds():
        raise reader.error("anchor", f"one of {', '.join(kinds())} is needed")
    if not recipe.files:
        raise reader.error("files", "at least one file is needed")
    if not recipe.changes:
        raise reader.error("shell", "neither [shell] nor [python] is given")
    reader.fit(recipe.changes, recipe.options, recipe.defines)
    return replace(recipe, older=tuple(_older(path, table, recipe.defines) for path in _releases(folder / "older")))


def _releases(folder: Path) -> list[Path]:
    """The folders of the earlier releases."""
    found = [path for path in sorted(folder.iterdir()) if path.name[0] != "."] if folder.exists() else []
    for path in found:
        if not path.is_dir():
            raise UsageError(
                "a file, where a folder for each earlier release is meant", where=str(path), hint=_DESCRIBED
            )
    return found


def _older(folder: Path, today: Mapping[str, Any], defines: str) -> tuple[Mapping[str, Change], Mapping[str, Option]]:
    """An earlier release: its files, of the same names as today's, and its tables where they differ."""
    reader = _Reader(folder, optional=True)
    own = reader.table
    reader.unknown(own, set(_TABLES), "")
    changes, options = reader.changes(own), reader.options(own)
    tables = {**today, **own}
    named = {tables[language].get("before", "") for language in _SEPARATORS if language in tables}
    named |= {entry.get(language, "") for entry in tables.get("options", {}).values() for language in _SEPARATORS}
    there = {path.name for path in folder.iterdir()}
    for name in sorted(there - {"recipe.toml", *named}):
        if name.endswith((".sh", ".py", ".toml")):
            raise UsageError("no table of the recipe names this file", where=str(folder / name), hint=_DESCRIBED)
    if not there & {"recipe.toml", *named}:
        raise UsageError("an earlier release without a file", where=str(folder), hint=_DESCRIBED)
    # Of today's tables, those whose files lie here.
    for language in _SEPARATORS:
        if language in today and language not in own and today[language].get("before") in {None, *there}:
            changes |= reader.changes({language: today[language]})
    for name, entry in today.get("options", {}).items() if "options" not in own else ():
        left = {key: value for key, value in entry.items() if key not in _SEPARATORS or value in there}
        if left.keys() & _SEPARATORS.keys():
            options[name] = reader.option(name, left)
    if not changes:
        raise reader.error("shell", "neither a table nor a file says what this release put in")
    reader.fit(changes, options, defines)
    return changes, options


class _Reader:
    """Typed access to one recipe.toml. Every error names the file and the key."""

    def __init__(self, folder: Path, *, optional: bool = False) -> None:
        self.folder = folder
        path = folder / "recipe.toml"
        missing = optional and not path.exists()
        self.path = folder if missing else path
        self.table = {} if missing else self.read(path)

    def read(self, path: Path) -> dict[str, Any]:
        try:
            return tomllib.loads(path.read_text(encoding="utf8"))
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"not TOML: {error}", where=str(path)) from None

    def error(self, key: str, what: str) -> UsageError:
        return UsageError(f"{key}: {what}", where=str(self.path), hint=_DESCRIBED)

    def unknown(self, table: Mapping[str, Any], known: set[str], at: str) -> None:
        for key in table:
            if key not in known:
                raise self.error(at + key, "unknown key")

    def string(self, table: Mapping[str, Any], key: str, default: str | None = None, at: str = "") -> str:
        value = table.get(key, default)
        if not isinstance(value, str) or (default is None and not value.strip()):
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

    def line(self, table: Mapping[str, Any], key: str, at: str) -> str:
        """A string that may be missing, without a line's end in it."""
        value = self.string(table, key, "", at=at)
        if "\n" in value:
            raise self.error(at + key, "one line is needed")
        return value

    def paths(
        self, table: Mapping[str, Any], key: str, default: tuple[str, ...] | None = None, at: str = ""
    ) -> tuple[str, ...]:
        """Paths of files inside of the tree."""
        found = self.strings(table, key, default, at)
        for path in found:
            if {"", ".", ".."} & set(path.split("/")):
                raise self.error(at + key, f"{path!r} is not a path from the tree's root, like ci/test/script.sh")
        return found

    def subject(self, key: str, default: str | None = None) -> str:
        value = self.string(self.table, key, default)
        if value.strip() != value or _CONTROL.search(value) or "\n" in value:
            raise self.error(key, "one line is needed, without blanks around it")
        if not value or _DROPPED.match(value):
            raise self.error(key, "`git am` drops what it begins with")
        return value

    def message(self, table: Mapping[str, Any], key: str, default: str | None = None, at: str = "") -> str:
        """Text for a commit message."""
        text = self.string(table, key, default, at).strip("\n")
        if _CONTROL.search(text):
            raise self.error(at + key, "it has a control character")
        for number, line in enumerate(text.split("\n")):
            if _CUT.match(line) or (number == 0 and _HEADER.match(line)):
                raise self.error(at + key, f"`git am` does not take the line {line!r} for a part of the message")
        return text

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

    def lines(self, name: str, key: str) -> tuple[str, ...]:
        try:
            text = (self.folder / name).read_text(encoding="utf8")
        except (OSError, ValueError) as error:
            raise self.error(key, f"{name!r} cannot be read: {error}") from None
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
            self.paths(entry, "files", (), at=at),
        )

    def options(self, table: Mapping[str, Any]) -> dict[str, Option]:
        options = table.get("options", {})
        if not isinstance(options, dict):
            raise self.error("options", "a table is missing here")
        return {name: self.option(name, entry) for name, entry in options.items()}

    def option(self, name: str, entry: Any) -> Option:
        at = f"options.{name}."
        if not isinstance(entry, dict):
            raise self.error(f"options.{name}", "a table is missing here")
        if not _OPTION.fullmatch(name):
            raise self.error(
                f"options.{name}", "a name has small letters, digits and hyphens, and begins with a letter"
            )
        self.unknown(entry, {"default", "help", "form", "body", "parts", "shell", "python"}, at)
        form = self.string(entry, "form", at=at)
        parts = self.parts(entry, form, at)
        snippets: dict[str, tuple[str, ...]] = {}
        for language in _SEPARATORS:
            if language in entry:
                file = self.string(entry, language, at=at)
                snippets[language] = self.lines(file, at + language)
                words = set(_PART.findall("\n".join(snippets[language])))
                for part in sorted(parts.keys() - words):
                    raise self.error(at + language, f"{part} is missing in {file}, so the value could not be read back")
        return Option(
            name,
            self.string(entry, "default", at=at),
            self.string(entry, "help", at=at),
            form,
            self.message(entry, "body", "", at=at),
            parts,
            snippets,
        )

    def parts(self, entry: Mapping[str, Any], form: str, at: str) -> dict[str, str]:
        """The words of an option's form, each with its regular expression; nothing but these stands in capitals."""
        table = entry.get("parts", {})
        if not isinstance(table, dict) or not table:
            raise self.error(at + "parts", "a regular expression for each word in capitals of form is missing here")
        words = _PART.findall(form)
        parts = {part: self.string(table, part, at=at + "parts.") for part in table}
        for part, pattern in parts.items():
            # It becomes a part of a longer one, where a group of its own would shift others.
            if self.pattern(f"(?:{pattern})", f"{at}parts.{part}").groups:
                raise self.error(f"{at}parts.{part}", "a group must be one that counts for nothing: (?:...)")
            if words.count(part) != 1:
                raise self.error(f"{at}parts.{part}", f"not once a word in capitals of form, {form!r}")
        for word in words:
            if word not in parts:
                raise self.error(at + "form", f"{word} has no regular expression in parts")
        return parts

    def changes(self, table: Mapping[str, Any]) -> dict[str, Change]:
        return {language: self.change(table[language], language) for language in _SEPARATORS if language in table}

    def change(self, entry: Any, language: str) -> Change:
        at = f"{language}."
        if not isinstance(entry, dict):
            raise self.error(language, "a table is missing here")
        self.unknown(entry, _KEYS[language], at)
        before = self.string(entry, "before", "", at=at)
        place = self.string(entry, "place", "body", at=at)
        insert, wrap = self.line(entry, "insert", at), self.line(entry, "wrap", at)
        directive = self.line(entry, "directive", at)
        if place not in _PLACES:
            raise self.error(at + "place", f"one of {', '.join(sorted(_PLACES))} is needed")
        if not (before or wrap or insert):
            raise self.error(language, "before, wrap or insert is needed")
        if wrap and (what := _wrong_wrap(wrap, language)):
            raise self.error(at + "wrap", what)
        if insert and (what := _wrong_insert(insert, language)):
            raise self.error(at + "insert", what)
        if directive and not directive.startswith("#"):
            raise self.error(at + "directive", "a comment is needed, a line that begins with #")
        imports = self.strings(entry, "imports", (), at=at)
        for module in imports:
            # A dotted name could not be told from the script's own use of the package when it is taken out again.
            if not module.isidentifier() or keyword.iskeyword(module):
                raise self.error(at + "imports", f"{module!r} is not the name of a module, without a dot")
        return Change(
            self.lines(before, at + "before") if before else (),
            place,
            wrap,
            _SEPARATORS[language] + insert if insert else "",
            imports,
            directive,
        )

    def fit(self, changes: Mapping[str, Change], options: Mapping[str, Option], defines: str) -> None:
        """Whether each block defines what it must, and has a place for every option and a snippet for every place."""
        defined = {
            language: {found["name"] for line in change.before if (found := _DEFINED[language].match(line))}
            for language, change in changes.items()
        }
        for language, change in changes.items():
            if defines and not change.before:
                raise self.error("defines", f"nothing is put before the build in {language} that could define it")
            if defines and defines not in defined[language]:
                raise self.error("defines", f"the lines of {language}.before define no function {defines!r}")
            places = [place["option"] for line in change.before if (place := OPTION_LINE.fullmatch(line))]
            for name in places:
                if name not in options or language not in options[name].snippets:
                    raise self.error(f"{language}.before", f"the option {name!r} has no snippet for it")
            for name in options:
                if places.count(name) != 1:
                    what = f"one line `# option: {name}` in {language}.before must say where its lines go"
                    raise self.error(f"options.{name}", what)
        if not defines and all(defined.values()):
            names = ", ".join(sorted(set[str]().union(*defined.values())))
            raise self.error("defines", f"a function of the lines of before is missing here (there is: {names})")


def _wrong_wrap(wrap: str, language: str) -> str:
    """Why a text cannot stand before the build's words; empty where it can."""
    before, callee, after = wrap.partition("{callee}")
    if set("{}") & set(before + after):
        return "no braces can stand here but those of {callee}"
    if language == "shell":
        if callee:
            return "{callee} is for Python alone"
        if not wrap.endswith((" ", "\t")):
            return "a blank at its end is needed"
        return (
            ""
            if _one_command(wrap + "y")
            else "with a command behind it, it must be one command, without an assignment or a reserved word"
        )
    if not callee:
        return "{callee} is missing, which stands for the function that is called"
    try:
        call = ast.parse(f"{before}run{after}[])", mode="eval").body
    except SyntaxError:
        call = None
    if isinstance(call, ast.Call) and call.args and isinstance(call.args[-1], ast.List):
        return ""
    return "with the list of words and a parenthesis behind it, it must be a call, like cached({callee}, "


def _wrong_insert(insert: str, language: str) -> str:
    """Why a text cannot stand among the build's words; empty where it can."""
    if insert.strip() != insert:
        return "no blanks around it are needed"
    if language == "shell":
        return "" if _one_command(f"x {insert} y") else "words of one command are needed, nothing that ends it"
    try:
        words = ast.parse(f"[x, {insert}, y]", mode="eval").body
    except SyntaxError:
        words = None
    return "" if isinstance(words, ast.List) and len(words.elts) > 2 else "elements of a list are needed"


def _one_command(text: str) -> bool:
    """Whether a line of shell is one command, from its first letter to its last, which is a word of its own."""
    if not _SPLITS.search(text) and text.count('"') % 2 == 0 and text.count("{") == text.count("}"):
        return True
    from patcher.parse import shell  # see _SPLITS

    try:
        syntax = shell.parse(Script("", text + "\n"))
    except InputError:
        return False
    commands = [command for command in syntax.commands if syntax.statements[command.statement].parent < 0]
    inner = [statement for statement in syntax.statements if statement.parent < 0]
    ends = [(command.words[0].start, command.words[-1].start) for command in commands]
    return len(inner) == 1 and ends == [(0, len(text) - 1)]
