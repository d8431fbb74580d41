"""The frozen values that the stages hand to each other.

Offsets are counted in characters of ``Script.text``, lines and columns from 1, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class CiPatcherError(Exception):
    """An error that the command line shows as one line, with what to do next below it.

    ``status`` is the exit status of design.md, section 4; ``where`` is ``file``, ``file:line:col`` or empty.
    """

    status = 2

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class UsageError(CiPatcherError):
    """The options do not fit the input, or a recipe is broken."""

    status = 2


class RefusedError(CiPatcherError):
    """No place for the change was found, or more than one and the choice is not clear."""

    status = 3


class NoBuildError(RefusedError):
    """There is no image build at all, so there is nothing that the change could be made to."""


class InputError(CiPatcherError):
    """A file or a revision cannot be read or parsed."""

    status = 4


class State(StrEnum):
    """What a script holds already (design.md, section 2)."""

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
class Name:
    """A variable's name where it is read or assigned."""

    offset: int
    name: str
    assigned: bool = False
    value: str | None = None  # what is assigned, where the text alone tells


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command. ``text`` is its value where the source alone tells, else None; ``variable`` is
    set where the word is nothing but one variable; ``room`` is whether other words can be put behind it."""

    start: int
    end: int
    text: str | None
    variable: str = ""
    room: bool = True


@dataclass(frozen=True, slots=True)
class Command:
    """A place where a program is run.

    ``head`` is the span that a wrapper replaces, and ``callee`` the text in it: empty in shell, where a
    wrapper is put before the first word; ``run(`` in Python, where it stands for ``run``. ``statement`` is
    the index of the innermost statement around it. ``after_failure`` holds the indices of the commands that
    must have failed for this one to be reached.
    """

    words: tuple[Word, ...]
    head: tuple[int, int]
    callee: str
    statement: int
    after_failure: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Syntax:
    """What a parser found in a script, in the terms that the later stages share for every language.

    ``forwarders`` are the functions of the script that run their own arguments. ``line_joins`` are the
    offsets of lines that begin inside a string or here-document, where nothing may be inserted.
    """

    script: Script
    language: str
    statements: tuple[Statement, ...]
    commands: tuple[Command, ...]
    names: tuple[Name, ...]  # by offset
    forwarders: frozenset[str] = frozenset()
    imports: Mapping[str, int] = field(default_factory=dict)  # Python: module -> offset of its statement
    imports_end: int = -1  # Python: where a line behind the last import goes


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a recipe's change goes: the tries of the one build, and the statement that holds them all.

    ``verbs`` are, for each try, the span of the words that name the build (``docker buildx build``). ``behind``
    are the offsets behind them where further words can be put, each once, however many tries share it.
    """

    commands: tuple[Command, ...]
    verbs: tuple[tuple[int, int], ...]
    statement: Statement
    behind: tuple[int, ...] = ()


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
