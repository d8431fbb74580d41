"""A folder under snippets/ -> a typed, frozen Recipe, checked once."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from patcher import data
from patcher.errors import UsageError
from patcher.model import Lines, Option, Pattern, Recipe

DESCRIBED = "docs/recipes.md describes every key."
# The line of a block in whose place an option's lines go.
OPTION_LINE = re.compile(r"(?P<indent>[ \t]*)# option: (?P<option>[a-z][a-z0-9-]*)")
_PART = re.compile(r"\b[A-Z][A-Z0-9_]*\b")
_DEFINED = {
    "shell": re.compile(r"(?:function[ \t]+)?(?P<name>[\w-]+)[ \t]*\([ \t]*\)"),
    "python": re.compile(r"(?:async[ \t]+)?def[ \t]+(?P<name>\w+)"),
}
# What `git am` drops from a subject, and the lines at which it ends a message.
_DROPPED = re.compile(r"\[|re:|:", re.IGNORECASE)
_CUT = re.compile(r"---(?:\s*$| \S)|diff -|Index: |From |(?:from|subject|date):", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def bundled() -> Path:
    """The folder of the recipes that come with the program: inside the package in a wheel, else beside it."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_snippets", package.parent / "snippets"):
        if folder.is_dir():
            return folder
    where = sysconfig.get_path("purelib")
    raise UsageError(f"the bundled recipes are missing from {where}", hint="Install bitcoin-ci-patcher again.")


def names(folders: list[Path]) -> dict[str, Path]:
    """The recipes in these folders by name. Raises UsageError for a name that two folders have."""
    found: dict[str, Path] = {}
    for folder in folders:
        if (folder / "recipe.toml").is_file():
            hint = f"Name the folder above it: --recipes {folder.resolve().parent}"
            raise UsageError("a recipe, not a folder of recipes", where=str(folder), hint=hint)
        if not folder.is_dir():
            raise UsageError("not a folder of recipes", where=str(folder), hint="--recipes takes a folder of folders.")
        for path in sorted(path for path in folder.iterdir() if (path / "recipe.toml").is_file()):
            if path.name in found:
                hint = f"The other one: {found[path.name]}"
                raise UsageError(f"the recipe {path.name!r} exists twice", where=str(path), hint=hint)
            found[path.name] = path
    return found


def load(name: str, folders: list[Path]) -> Recipe:
    """Read and check one recipe. Raises UsageError with the file and the key at fault."""
    found = names(folders)
    if name not in found:
        raise UsageError(f"there is no recipe {name!r}", hint=f"`ci-patcher recipes` lists them: {', '.join(found)}.")
    return read(found[name])


def read(folder: Path) -> Recipe:
    """The recipe in a folder. Raises UsageError with the file and the key at fault."""

    def decode(kind: Any, value: Any) -> Any:
        if kind not in {Lines, Pattern} or not isinstance(value, str):
            raise ValueError("Expected `str`" if kind in {Lines, Pattern} else "unknown key")
        try:
            return Lines((folder / value).read_text("utf8").splitlines()) if kind is Lines else re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        except (OSError, ValueError) as error:
            raise ValueError(f"{value!r} cannot be read: {error}") from None

    file = folder / "recipe.toml"
    recipe = data.load(file, Recipe, DESCRIBED, decode)
    recipe = msgspec.structs.replace(
        recipe, folder=folder, body=recipe.body.strip("\n"), update=recipe.update or recipe.subject
    )
    for key, problem in _problems(recipe):
        raise UsageError(f"{key}: {problem}", where=str(file), hint=DESCRIBED)
    return recipe


def narrowed(recipe: Recipe, path: str) -> Recipe:
    """The recipe for one file of the tree alone. Raises UsageError for a path that is none inside of a tree."""
    if _outside(path):
        hint = "Name it from the root of the tree: --file ci/test/script.sh"
        raise UsageError(f"--file {path}: not a path inside of the tree", hint=hint)
    return msgspec.structs.replace(recipe, files=(path,))


def _outside(path: str) -> bool:
    return bool({"", ".", ".."} & set(path.split("/")))


def _problems(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What msgspec cannot check: the key and what is wrong with it."""
    if not recipe.changes:
        yield "shell", "neither [shell] nor [python] is given"
    paths = {"files": recipe.files, "callers": recipe.callers}
    paths |= {f"notes[{i}].path": (note.path,) for i, note in enumerate(recipe.notes)}
    paths |= {f"replaces[{i}].files": form.files for i, form in enumerate(recipe.replaces)}
    for key, path in ((key, path) for key, some in paths.items() for path in some if _outside(path)):
        yield key, f"{path!r} is not a path from the tree's root, like ci/test/script.sh"
    for key, subject in (("subject", recipe.subject), ("update", recipe.update)):
        if not subject or subject.strip() != subject or _CONTROL.search(subject) or "\n" in subject:
            yield key, "one line is needed, without blanks around it"
        if _DROPPED.match(subject):
            yield key, "`git am` drops how it begins"
    bodies = {"body": recipe.body} | {f"options.{name}.body": option.body for name, option in recipe.options.items()}
    for key, body in bodies.items():
        if _CONTROL.search(body) or any(map(_CUT.match, body.split("\n"))):
            yield key, "`git am` would end the message at a line of it, or refuse it"
    for language, change in recipe.changes.items():
        if not (change.before or change.wrap or change.insert):
            yield language, "before, wrap or insert is needed"
        if change.imports and language == "shell":
            yield "shell.imports", "is for Python alone"
        if change.directive and language == "python":
            yield "python.directive", "is for shell alone"
        yield from _misplaced(recipe, language, change.before)
    for name, option in recipe.options.items():
        yield from ((f"options.{name}.{key}", problem) for key, problem in _wrong_parts(option))


def _misplaced(recipe: Recipe, language: str, lines: Lines) -> Iterator[tuple[str, str]]:
    """Whether a block defines the function by which it is recognized, and has one place for each option."""
    defined = {match["name"] for line in lines if (match := _DEFINED[language].match(line))}
    if recipe.defines and recipe.defines not in defined:
        yield "defines", f"{language}.before defines no function {recipe.defines!r}"
    if defined and not recipe.defines:
        yield "defines", f"{language}.before defines {', '.join(sorted(defined))}: name the function here"
    places = [place["option"] for line in lines if (place := OPTION_LINE.fullmatch(line))]
    for name in dict.fromkeys([*recipe.options, *places]):
        if name not in recipe.options or not recipe.options[name].lines(language):
            yield f"options.{name}.{language}", "a file with the lines for this language is needed"
        if places.count(name) != 1:
            yield f"options.{name}", f"one line `# option: {name}` in {language}.before must say where its lines go"


def _wrong_parts(option: Option) -> Iterator[tuple[str, str]]:
    """Whether the parts are the words in capitals of the form, and can be read back from the option's lines."""
    words = _PART.findall(option.form)
    for word in dict.fromkeys([*option.parts, *words]):
        if word not in option.parts:
            yield "form", f"{word} has no regular expression in parts"
        elif words.count(word) != 1:
            yield f"parts.{word}", f"not exactly once a word in capitals of form, {option.form!r}"
        elif option.parts[word].groups or option.parts[word].flags != re.UNICODE:
            yield f"parts.{word}", "it becomes a part of a longer one: write (?:...) and (?i:...), not (...) and (?i)"
        for language in ("shell", "python"):
            lines = option.lines(language)
            if lines and word not in _PART.findall("\n".join(lines)):
                yield language, f"{word} is missing in its lines, so the value could not be read back"
