"""The frozen values that the stages hand to each other.

Offsets are counted in characters of ``Script.text``, lines and columns from 1, sizes in bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from patcher.data import Table
from patcher.errors import CiPatcherError, InputError, NoBuildError, RefusedError, UsageError


class State(StrEnum):
    """What a script holds already."""

    NO_BUILD = "no image build"
    NO_CACHE = "no cache"
    ABSENT = "not there"  # of a recipe that knows of nothing else that may stand in its place
    HOOK = "the hook only"
    FOREIGN = "a foreign cache block"
    CURRENT = "ours, current"
    OPTIONS = "ours, other options"
    PARTIAL = "ours, incomplete"  # not at every retry of the build


@dataclass(frozen=True, slots=True)
class Script:
    """One file of the tree: ``path`` from the tree's root with ``/``, ``text`` with surrogate escapes for
    bytes that are not UTF-8 and with its line ends as they are, ``mode`` as git writes it (``100755``)."""

    path: str
    text: str
    mode: str = "100755"

    @property
    def data(self) -> bytes:
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
        for edit in sorted(edits, key=lambda edit: (edit.start, edit.end))[::-1]:
            text = text[: edit.start] + edit.text + text[edit.end :]
        return replace(self, text=text)


@dataclass(frozen=True, slots=True)
class Statement:
    """A whole and-or list in shell, a statement in Python. ``end`` lies behind the bodies of its here-documents.
    ``body`` numbers the list of statements in which it stands, ``parent`` is the index of the statement around this
    list, or -1. ``defines`` is the function that it defines."""

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
    """A place where a program is run. ``head`` is the span that a wrapper replaces: empty in shell; in Python ``run(``,
    for which ``callee`` is ``run``. ``statement`` is the index of the innermost statement around it. ``bar`` says why
    its words cannot be changed, in a word that the anchor's kind explains."""

    words: tuple[Word, ...]
    head: tuple[int, int]
    callee: str
    statement: int
    bar: str = ""


@dataclass(frozen=True, slots=True)
class Syntax:
    """What a parser found in a script, in the terms that the later stages share for every language."""

    script: Script
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

    def around(self, indices: Sequence[int]) -> Statement | None:
        """The innermost statement that begins its line and stands before or around all statements of the indices."""
        chains = [list(self.chain(index)) for index in indices]
        bodies = [{statement.body for statement in chain} for chain in chains]
        for statement in chains[0]:
            if all(statement.body in others for others in bodies) and statement.begins_line(self.script.text):
                return statement
        return None


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a recipe's change goes: the tries of the one build, and the statement that holds them all. ``verbs`` are,
    for each try, the span of the words that name the build, ``behind`` the offsets where further words can be put.
    ``barred`` says why the build cannot be wrapped."""

    commands: tuple[Command, ...]
    verbs: tuple[tuple[int, int], ...]
    statement: Statement
    behind: tuple[int, ...] = ()
    barred: RefusedError | None = None


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace ``text[start:end]`` by ``text``."""

    start: int
    end: int
    text: str


class Verdict(StrEnum):
    """What came of a check."""

    HELD = "held"
    BROKEN = "broken"
    NOT_RUN = "not run"


# The detail of a scenario that held because a script gives no occasion for it.
ABSENT = "does not arise in this script"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of the review found: ``detail`` in one line, ``evidence`` in as many as it takes to believe it.

    ``row`` is the row of the contract that the check stands for, 0 for the static review.
    """

    check: str
    verdict: Verdict
    detail: str = ""
    row: int = 0
    evidence: str = ""


# what is to be done: a recipe's tables as msgspec reads them; docs/recipes.md describes every key

Pattern = re.Pattern[str]


class Lines(tuple[str, ...]):
    """The lines of a file. In a recipe's table, the file's name stands for them."""

    __slots__ = ()


class Option(Table, frozen=True):
    """A choice of the user: ``default``, or a value of the form ``form``.

    ``parts`` has a regular expression for each word in capitals of ``form``. The same words stand in ``body`` and in
    the lines that such a value adds to the block in ``shell`` or ``python``.
    """

    default: str
    help: str
    form: str
    parts: Annotated[dict[str, Pattern], Meta(min_length=1)]
    body: str = ""
    shell: Lines = Lines()
    python: Lines = Lines()

    def lines(self, language: str) -> Lines:
        """The lines that a value other than the default adds."""
        return self.python if language == "python" else self.shell

    def split(self, value: str) -> dict[str, str] | None:
        """The parts of a value by their words, none for the default. None if the value does not have the form."""
        match = re.fullmatch(self.pattern(re.escape(self.form)), value)
        return {} if value == self.default else match and match.groupdict()

    def fill(self, text: str, parts: Mapping[str, str]) -> str:
        """A text with the parts of a value in the place of their words."""
        return self._word.sub(lambda word: parts[word[0]], text)

    def pattern(self, escaped: str) -> str:
        """A regular expression for an escaped text with a value's parts in it, each a group with the word's name."""
        groups = {word: f"(?P<{word}>{part.pattern})" for word, part in self.parts.items()}
        return self._word.sub(lambda word: groups.pop(word[0], f"(?P={word[0]})"), escaped)

    @property
    def _word(self) -> Pattern:
        return re.compile(rf"\b(?:{'|'.join(self.parts)})\b")

    def words(self, value: str) -> dict[str, str]:
        """The parts of a value as scenarios use them: by their words in lower case."""
        return {word.lower(): part for word, part in (self.split(value) or {}).items()}

    def says(self, value: str) -> str:
        """What the commit message says of a value, empty for the default."""
        parts = self.split(value)
        return self.fill(self.body, parts) if parts else ""


class Change(Table, frozen=True):
    """What is done to the build in one language; docs/recipes.md describes the keys."""

    before: Lines = Lines()
    place: Annotated[str, Meta(pattern=r"^(body|module)\Z")] = "body"
    wrap: str = ""
    insert: str = ""
    imports: tuple[Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z")], ...] = ()
    directive: Annotated[str, Meta(pattern=r"^#[^\n]*\Z")] = ""


class Foreign(Table, frozen=True):
    """A block of another origin, which is taken out before the recipe's own is put in."""

    name: str
    variables: Annotated[tuple[str, ...], Meta(min_length=1)]
    reads: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Note(Table, frozen=True):
    """Advice for trees that have a file at ``path``."""

    path: str
    text: str


class Recipe(Table, frozen=True):
    """A change as data: where, what, the commit message, the options."""

    summary: str
    anchor: str
    files: Annotated[tuple[str, ...], Meta(min_length=1)]
    subject: str
    body: str
    callers: tuple[str, ...] = ()
    update: str = ""
    defines: str = ""
    hook: str = ""
    shell: Change | None = None
    python: Change | None = None
    options: dict[str, Option] = msgspec.field(default_factory=dict)
    replaces: tuple[Foreign, ...] = ()
    seen: tuple[Pattern, ...] = ()
    advice: dict[Literal["about", "hook", "patch"], tuple[str, ...]] = msgspec.field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    folder: Path = Path()

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def changes(self) -> dict[str, Change]:
        """The change in each language that the recipe knows."""
        return {name: change for name, change in (("shell", self.shell), ("python", self.python)) if change}

    def values(self, chosen: Mapping[str, str]) -> dict[str, str]:
        """All options with their values, from what ``--set`` gave. Raises UsageError for what does not fit."""
        for name, value in chosen.items():
            option = self.options.get(name)
            if option is None:
                known = ", ".join(self.options) or "none"
                raise UsageError(f"the recipe {self.name} has no option {name!r}", hint=f"It has: {known}.")
            if option.split(value) is None:
                raise UsageError(f"--set {name}={value}: the form is {option.form}", hint=f"{name}: {option.help}")
        return {name: chosen.get(name, option.default) for name, option in self.options.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done to one script.

    ``reference`` is the script without any block, the hook kept; ``result`` the script as it shall be. ``anchor`` is
    the build in ``syntax``; ``before`` the one in ``reference``, if a block is put in. ``values`` are ours there.
    """

    syntax: Syntax
    state: State
    anchor: Anchor
    reference: Script
    result: Script
    foreign: Foreign | None = None
    values: Mapping[str, str] | None = None
    before: Anchor | None = None

    @property
    def script(self) -> Script:
        return self.syntax.script

    @property
    def ours(self) -> bool:
        """Whether a block of ours stands in the script."""
        return self.state in {State.CURRENT, State.OPTIONS, State.PARTIAL}

    @property
    def where(self) -> str:
        """``path:line:col`` of the build."""
        return self.script.where(self.anchor.verbs[0][0])


# where it comes from, and what came of it


@dataclass(frozen=True, slots=True)
class Source:
    """Where scripts come from: ``name`` for messages, ``repository`` if git has it, ``revision`` the full hash if a
    commit is read, ``only`` the path of a lone script. ``held`` has what was read before, by path."""

    name: str
    root: Path
    repository: Path | None = None
    revision: str = ""
    only: str = ""
    held: Mapping[str, Script | InputError | None] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: its full hash, the committer's date as ``SECONDS ZONE``, and the first line of its message."""

    name: str
    date: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Patch:
    """A recipe applied to a source, or taken out (``reverse``): ``pairs`` are the changed files before and after,
    ``findings`` the review's."""

    source: Source
    recipe: Recipe
    values: Mapping[str, str]
    plan: Plan
    pairs: tuple[tuple[Script, Script], ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    reverse: bool = False

    @property
    def broken(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.verdict is Verdict.BROKEN)

    @property
    def not_run(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.verdict is Verdict.NOT_RUN)


@dataclass(frozen=True, slots=True)
class Target:
    """A revision to work on: ``name`` as it was asked for, ``label`` as a file's or branch's name that no other target
    has, ``revision`` as git calls it. ``error`` says why there is no ``commit``."""

    name: str
    label: str
    revision: str
    commit: Commit | None
    error: InputError | None = None


class Result(StrEnum):
    """What came of a revision."""

    PATCHED = "patched"
    NEEDED = "patch needed"
    NOTHING = "nothing to do"
    SKIPPED = "skipped"
    FAILED = "review failed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A revision and its change, or the error that stood in the way. ``strict`` and ``check`` as in the options.

    ``place`` says where the patch is: ``patch_file``, the branch ``created`` or the ``patch`` itself.
    """

    target: Target
    change: Patch | None = None
    error: CiPatcherError | None = None
    strict: bool = False
    check: bool = False
    place: Mapping[str, str] = field(default_factory=dict)

    @property
    def result(self) -> Result:
        if self.error is not None or self.change is None:
            return Result.SKIPPED if isinstance(self.error, NoBuildError) else Result.ERROR
        if not self.change.pairs:
            return Result.NOTHING
        incomplete = self.strict and (self.change.not_run or self.change.notes)
        if self.change.broken or incomplete:
            return Result.FAILED
        return Result.NEEDED if self.check else Result.PATCHED
