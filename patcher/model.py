"""The frozen values that the stages hand to each other.

Offsets are counted in characters of ``Script.text``, lines and columns from 1, sizes in bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from patcher.errors import CiPatcherError, InputError, NoBuildError, RefusedError, UsageError


class State(StrEnum):
    """What a script holds already."""

    NO_BUILD = "no image build"
    NO_CACHE = "no cache"
    ABSENT = "not there"  # of a recipe that knows of nothing else that may stand in its place
    HOOK = "the hook only"
    FOREIGN = "a foreign cache block"
    CURRENT = "ours, current"
    OLDER = "ours, older"


@dataclass(frozen=True, slots=True)
class Script:
    """One file of the tree: ``path`` from the tree's root with ``/``, ``text`` with surrogate escapes for
    bytes that are not UTF-8 and with its line ends as they are, ``mode`` as git writes it (``100755``)."""

    path: str
    text: str
    mode: str = "100755"

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        return self.text.encode("utf8", "surrogateescape")

    def where(self, offset: int) -> str:
        """``path:line:col`` of an offset."""
        before = self.text[:offset]
        return f"{self.path}:{before.count(chr(10)) + 1}:{offset - (before.rfind(chr(10)) + 1) + 1}"

    @property
    def language(self) -> str:
        """``python`` or ``shell``, by the name and else by the first line."""
        first = self.text.split("\n", 1)[0]
        return "python" if self.path.endswith(".py") or (first.startswith("#!") and "python" in first) else "shell"

    def edited(self, edits: Iterable[Edit]) -> Script:
        """The script with the edits spliced in. They do not overlap; at one offset the given order holds."""
        text = self.text
        in_order = sorted(edits, key=lambda edit: (edit.start, edit.end))
        for edit in in_order[::-1]:
            text = text[: edit.start] + edit.text + text[edit.end :]
        return replace(self, text=text)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement: a whole and-or list in shell, a statement in Python, with everything inside it.

    ``end`` lies behind its last character, the bodies of its here-documents included. ``body`` numbers the
    list of statements in which it stands, ``parent`` is the index of the statement that holds this list,
    or -1 at the top level. ``defines`` is the name of the function that it defines, or empty.
    """

    start: int
    end: int
    body: int
    parent: int
    defines: str = ""

    def begins_line(self, text: str) -> bool:
        """Whether nothing but blanks stands before it on its line of the script's text."""
        return not text[text.rfind("\n", 0, self.start) + 1 : self.start].strip(" \t\f\ufeff")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command. ``text`` is its value, None where the source alone does not tell; ``variable`` is the
    variable's name where the word is nothing else (in shell)."""

    start: int
    end: int
    text: str | None
    variable: str = ""


@dataclass(frozen=True, slots=True)
class Name:
    """A variable's name where it is read or assigned. ``value`` is what is assigned, where the source alone tells."""

    offset: int
    name: str
    assigned: bool = False
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A place where a program is run.

    ``head`` is the span that a wrapper replaces, and ``callee`` the text in it: empty in shell, where a
    wrapper is put before the first word; ``run(`` in Python, where it stands for ``run``. ``statement`` is
    the index of the innermost statement around it. ``bar`` says why its words cannot be changed, in a word that the
    anchor's kind explains; it is empty where they can.
    """

    words: tuple[Word, ...]
    head: tuple[int, int]
    callee: str
    statement: int
    bar: str = ""


@dataclass(frozen=True, slots=True)
class Syntax:
    """What a parser found in a script, in the terms that the later stages share for every language."""

    script: Script
    language: str
    statements: tuple[Statement, ...]
    commands: tuple[Command, ...]  # by offset
    names: tuple[Name, ...]  # by offset
    imports: Mapping[str, int] = field(default_factory=dict)  # Python: module -> offset of its statement
    imports_end: int = -1  # Python: where a line behind the last import goes

    def text(self, words: Sequence[Word]) -> str:
        """Words as the source has them, with one blank between two."""
        return " ".join(self.script.text[word.start : word.end] for word in words)

    def chain(self, index: int) -> Iterator[Statement]:
        """The statement of an index, and all those around it, the innermost first."""
        while index >= 0:
            yield self.statements[index]
            index = self.statements[index].parent

    def around(self, indices: Sequence[int]) -> Statement:
        """The innermost statement that begins its line and stands before or around all statements of the indices."""
        chains = [list(self.chain(index)) for index in indices]
        bodies = [{statement.body for statement in chain} for chain in chains]
        for statement in chains[0]:
            if all(statement.body in others for others in bodies) and statement.begins_line(self.script.text):
                return statement
        return chains[0][-1]


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a recipe's change goes: the tries of the one build, and the statement that holds them all.

    ``verbs`` are, for each try, the span of the words that name the build (``docker buildx build``). ``behind``
    are the offsets behind them where further words can be put, each once, however many tries share it. ``barred``
    says why nothing that adds words at the end can be put before them, None where it can.
    """

    commands: tuple[Command, ...]
    verbs: tuple[tuple[int, int], ...]
    statement: Statement
    behind: tuple[int, ...] = ()
    barred: RefusedError | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace ``text[start:end]`` by ``text``; ``reason`` says what for, for the review."""

    start: int
    end: int
    text: str
    reason: str = ""


class Verdict(StrEnum):
    """What came of a check."""

    HELD = "held"
    BROKEN = "broken"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of the review found.

    ``check`` is its name, ``row`` the row of the contract that it stands for (0 for the static review),
    ``detail`` one line, ``evidence`` as many lines as it takes to believe it.
    """

    check: str
    verdict: Verdict
    detail: str = ""
    row: int = 0
    evidence: str = ""


# what is to be done

OPTION_LINE = re.compile(r"(?P<indent>[ \t]*)# option: (?P<option>[a-z][a-z0-9-]*)")
"""The line of a block at which an option's lines stand, if it has any."""

_END = r"(?:\r?\n|\Z)"


def _whole(words: Iterable[str]) -> str:
    """A regular expression for any of these words, where it is no part of a longer one."""
    return rf"\b(?:{'|'.join(map(re.escape, words))})\b"


@dataclass(frozen=True, slots=True)
class Option:
    """A choice that the user has: ``default``, or a value of the form ``form``.

    ``parts`` are the words of ``form`` that stand for something, each with a regular expression of what; the
    same words, each whole, stand in ``snippets``, the lines that such a value adds in each language, at the line
    ``# option: NAME`` of the block. ``body`` is what the commit message says of such a value.
    """

    name: str
    default: str
    help: str
    form: str
    body: str
    parts: Mapping[str, str]
    snippets: Mapping[str, tuple[str, ...]]

    def split(self, value: str) -> dict[str, str] | None:
        """The parts of a value, or None where it does not have the form."""
        match = re.fullmatch(self._pattern(self.form, "", set()), value)
        return match.groupdict() if match else None

    def join(self, parts: Mapping[str, str]) -> str:
        """The value that has these parts."""
        return self.fill(self.form, parts)

    def fill(self, line: str, parts: Mapping[str, str]) -> str:
        """A line of a snippet with the parts of a value in it."""
        if not parts:
            return line
        # In one pass: a value may hold another part's word.
        return re.sub(_whole(parts), lambda match: parts[match[0]], line)

    def words(self, value: str) -> dict[str, str]:
        """The parts of a value under their names in lower case, as scenarios call them; none of the default."""
        parts = self.split(value) if value != self.default else None
        return {part.lower(): text for part, text in (parts or {}).items()}

    def says(self, value: str) -> str:
        """What the commit message says of a value, empty for the default."""
        parts = self.split(value) if value != self.default else None
        return self.fill(self.body, parts) if parts else ""

    def _pattern(self, text: str, prefix: str, taken: set[str]) -> str:
        """A regular expression for a text in which the parts' words stand for any of their values."""
        pieces = []
        for piece in re.split(f"({_whole(self.parts)})", text):
            if piece not in self.parts:
                pieces.append(re.escape(piece))
            elif piece in taken:
                pieces.append(f"(?P={prefix}{piece})")
            else:
                pieces.append(f"(?P<{prefix}{piece}>{self.parts[piece]})")
                taken.add(piece)
        return "".join(pieces)

    @property
    def group(self) -> str:
        """The option's name as a group of a regular expression."""
        return self.name.replace("-", "_")

    def lines_pattern(self, language: str) -> str:
        """A regular expression for the lines that a value adds, or for none."""
        taken: set[str] = set()
        lines = (self._pattern(line, f"{self.group}__", taken) for line in self.snippets[language])
        return f"(?P<{self.group}>" + "".join(f"[ \\t]*{line}{_END}" for line in lines) + ")?"


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to the build in one language.

    ``before`` are the lines that go before the build, ``place`` says how far before: ``body``, in the list
    of statements in which the build stands, or ``module``, at the top level. ``wrap`` is put before the
    build's words (in Python, in place of the call's ``callee(``), ``insert``, which begins with what separates
    words, behind those that name the build. ``imports`` are the Python modules that all this needs,
    ``directive`` a comment line for the linter, put above a build whose first word is a variable without
    quotes: as an argument it would be reported.
    """

    before: tuple[str, ...] = ()
    place: str = "body"
    wrap: str = ""
    insert: str = ""
    imports: tuple[str, ...] = ()
    directive: str = ""

    def render(self, options: Mapping[str, Option], values: Mapping[str, str], language: str) -> list[str]:
        """The lines of the block for these values, without indentation of their own."""
        lines: list[str] = []
        for line in self.before:
            place = OPTION_LINE.fullmatch(line)
            if place is None:
                lines.append(line)
                continue
            option = options[place["option"]]
            value = values.get(option.name, option.default)
            parts = option.split(value) if value != option.default else None
            if parts:
                lines += [place["indent"] + option.fill(extra, parts) for extra in option.snippets[language]]
        return lines

    def standing(
        self, options: Mapping[str, Option], language: str, text: str, start: int
    ) -> tuple[int, dict[str, str]] | None:
        """Where the block that begins at the offset ends, and the options with which it was written.

        None where it is not this block. Any indentation, line ends and options are allowed.
        """
        values = {option.name: option.default for option in options.values()}
        at = start
        for line in self.before:
            place = OPTION_LINE.fullmatch(line)
            if place:
                option = options[place["option"]]
                found = re.compile(option.lines_pattern(language)).match(text, at)
                if found and found[option.group]:
                    values[option.name] = option.join({part: found[f"{option.group}__{part}"] for part in option.parts})
                    at = found.end()
                continue
            end = text.find("\n", at)
            here = text[at : end if end >= 0 else len(text)].removesuffix("\r")
            if not here.endswith(line) or here[: len(here) - len(line)].strip(" \t"):
                return None
            at = end + 1 if end >= 0 else len(text)
        return at, values


@dataclass(frozen=True, slots=True)
class Foreign:
    """A block of another origin that is taken out before ours goes in.

    Statements are removed that assign or read at least one of ``variables`` and else nothing but ``reads``
    and the hook, in the recipe's files and in ``files``; ``variables[0]`` is what tells the forms apart.
    """

    name: str
    variables: tuple[str, ...]
    reads: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A change as data: where, what, the commit message, the options. ``update`` is the subject where an earlier
    form of the change is replaced.

    ``older`` holds, for each release whose text differs, the changes and options of that release.
    ``seen`` are regular expressions: text in the build's statement that belongs to a block of an unknown form.
    """

    name: str
    folder: Path
    summary: str
    anchor: str
    files: tuple[str, ...]
    subject: str
    update: str
    body: str
    defines: str
    hook: str
    changes: Mapping[str, Change]
    options: Mapping[str, Option]
    replaces: tuple[Foreign, ...]
    seen: tuple[re.Pattern[str], ...]
    advice: Mapping[str, tuple[str, ...]]
    older: tuple[tuple[Mapping[str, Change], Mapping[str, Option]], ...] = field(default=())

    def values(self, chosen: Mapping[str, str]) -> dict[str, str]:
        """All options with their values, from what ``--set`` gave.

        Raises UsageError for an option that the recipe does not have and a value that does not fit.
        """
        for name, value in chosen.items():
            option = self.options.get(name)
            if option is None:
                known = ", ".join(self.options) or "none"
                raise UsageError(f"the recipe {self.name} has no option {name!r}", hint=f"It has: {known}.")
            if value != option.default and option.split(value) is None:
                raise UsageError(f"--set {name}={value}: the form is {option.form}", hint=f"{name}: {option.help}")
        return {name: chosen.get(name, option.default) for name, option in self.options.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done to one script.

    ``reference`` is the script without any block, the hook kept; ``result`` the script
    as it shall be. Both are the script itself where nothing is to be done. ``anchor`` is the build in
    ``syntax``, the syntax of ``script``; ``foreign`` the form that was found, if one was; ``values`` the
    options with which a block of ours stands.
    """

    syntax: Syntax
    state: State
    anchor: Anchor | None
    reference: Script
    result: Script
    edits: tuple[Edit, ...] = ()
    foreign: Foreign | None = None
    values: Mapping[str, str] | None = None

    @property
    def script(self) -> Script:
        return self.syntax.script

    @property
    def where(self) -> str:
        """``path:line:col`` of the build, or the path where there is none."""
        return self.script.where(self.anchor.verbs[0][0]) if self.anchor else self.script.path


# where it comes from, and what came of it


@dataclass(frozen=True, slots=True)
class Source:
    """Where scripts come from: ``name`` for messages, ``repository`` if git has it, ``revision`` if not the
    work tree but a commit is read (its full hash), ``only`` the one path if a lone script was named. ``held``
    are the scripts that were read before, by path: None where there is none, an error where it cannot be read."""

    name: str
    root: Path
    repository: Path | None = None
    revision: str = ""
    only: str = ""
    held: Mapping[str, Script | InputError | None] = field(default_factory=dict, compare=False, repr=False)

    def where(self, path: str) -> str:
        return f"{self.name}:{path}" if self.revision else path


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: its full hash, its tree's, and the committer's date as ``SECONDS ZONE``."""

    name: str
    tree: str
    date: str
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Patch:
    """A recipe applied to a source: what is changed in which file, and what the review found.

    ``pairs`` are the files before and after, empty where there is nothing to do. ``findings`` are those of
    the static review, then those of the scenarios.
    """

    source: Source
    recipe: Recipe
    values: Mapping[str, str]
    plan: Plan
    pairs: tuple[tuple[Script, Script], ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def broken(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.verdict is Verdict.BROKEN)

    @property
    def not_run(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.verdict is Verdict.NOT_RUN)


@dataclass(frozen=True, slots=True)
class Target:
    """A revision to work on: ``name`` as it was asked for or a branch's short name, ``label`` the same as a
    file's or branch's name and unlike all others, ``revision`` what git calls it, ``commit`` None where git
    does not know it."""

    name: str
    label: str
    revision: str
    commit: Commit | None


class Result(StrEnum):
    """What came of a revision."""

    PATCHED = "patched"
    NOTHING = "nothing to do"
    SKIPPED = "skipped"
    FAILED = "review failed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A revision and its change, or the error that stood in the way. ``strict`` as in the option."""

    target: Target
    change: Patch | None = None
    error: CiPatcherError | None = None
    strict: bool = False

    @property
    def result(self) -> Result:
        if self.error is not None or self.change is None:
            return Result.SKIPPED if isinstance(self.error, NoBuildError) else Result.ERROR
        if not self.change.pairs:
            return Result.NOTHING
        incomplete = self.strict and (self.change.not_run or self.change.notes)
        return Result.FAILED if self.change.broken or incomplete else Result.PATCHED
