"""Shell text to syntax: a scanner for the words, bashlex for the grammar.

bashlex 0.18 refuses a whole script for one ``[[ ]]``, ``case``, array, ``$(( ))``, ``for ((``, ``select`` or
``coproc``. So the scanner reads the words itself (quoting, expansions, here-documents, comments) and hands
bashlex a text of the same length in which each word is neutral (``____``) and each such construct is replaced
by one of the same shape that bashlex knows, a group or a loop. Every offset that comes back points into the
original. Commands inside a substitution are handed over on their own.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import bashlex

from patcher.errors import InputError
from patcher.model import Command, Forward, Name, Script, Statement, Syntax, Word

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\[[^\]\n]*\])?\+?=")
_LITERAL = re.compile(r"(?:[^ \t\n\r;&|<>()'\"\\$`]|\r(?!\n))+")
_IN_DOUBLE = re.compile(r"[^\"\\$`]+")
_IN_HERE_DOCUMENT = re.compile(r"[^\\$`]+")
_SPACE = re.compile(r"(?:[ \t]|\r(?=\n)|\\\r?\n)+")
_REDIRECTION = re.compile(r"&>>|&>|<<<|<<-|<<|<>|<&|>>|>&|>\||<(?!\()|>(?!\()")
_DEFAULT = re.compile(r":?[-=]")
_BLANKS = re.compile(r"[ \t\n]+")
_DECLARES = frozenset({"export", "local", "declare", "readonly", "typeset"})
_OPENS = frozenset({"if", "then", "else", "elif", "while", "until", "do", "{", "!"})
_CLOSES = frozenset({"fi", "done", "}"})
_ARGUMENTS = re.compile(r'"?\$(?:[@*]|\{[@*](?::(?P<first>[1-9][0-9]*))?\})"?')


class _ShellSyntaxError(Exception):
    def __init__(self, what: str, offset: int) -> None:
        super().__init__(what)
        self.offset = offset


@dataclass(slots=True)
class _Frame:
    """Commands that bashlex parses in one go: the script, or what stands in one substitution. ``late`` are those
    that bash reads only when it runs them, in a here-document's body."""

    start: int
    end: int = 0
    late: bool = False
    pieces: list[tuple[int, str]] = field(default_factory=list)

    def emit(self, offset: int, text: str) -> None:
        self.pieces.append((offset, text))

    def text(self) -> str:
        """The neutral text: blanks but for what was emitted. No piece overlaps another."""
        parts: list[str] = []
        at = self.start
        for offset, piece in sorted(self.pieces):
            parts += (" " * (offset - at), piece)
            at = offset + len(piece)
        parts.append(" " * (self.end - at))
        return "".join(parts)


class _Piece:
    """What the text of a word is worth: its parts, each with its value where known and the variable that it is.

    ``elements`` are the words of an array's value.
    """

    __slots__ = ("elements", "parts")

    def __init__(self, text: str | None = "", variable: str = "") -> None:
        self.parts: list[tuple[str | None, str]] = [(text, variable)] if text != "" or variable else []
        self.elements: tuple[Word, ...] | None = None

    @property
    def text(self) -> str | None:
        known = [text for text, _ in self.parts if text is not None]
        return "".join(known) if len(known) == len(self.parts) else None

    @property
    def variable(self) -> str:
        return self.parts[0][1] if len(self.parts) == 1 else ""

    def add(self, other: _Piece) -> None:
        self.parts += other.parts

    def become(self, text: str | None, variable: str = "") -> None:
        self.parts = [(text, variable)]

    def word(self, start: int, end: int) -> Word:
        return Word(start, end, self.text, self.variable)

    def split(self, start: int, end: int) -> tuple[Word, ...]:
        """The words that the value has when it is used without quotes."""
        if self.elements is not None:
            return self.elements
        words: list[_Piece] = [_Piece()]
        for text, variable in self.parts:
            first, *others = [text] if text is None or variable else _BLANKS.split(text)
            words[-1].add(_Piece(first, variable))
            words += map(_Piece, others)
        return tuple(word.word(start, end) for word in words if word.parts)


class _Scanner:
    """One pass over the text. Each ``_scan…`` takes an offset and returns the one behind what it read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.frames: list[_Frame] = []
        self.words: dict[int, Word] = {}
        self.assignments: dict[int, Name] = {}
        self.names: list[Name] = []
        self.here_documents: list[tuple[int, int]] = []  # offset of the operator, end of the body
        self._pending: list[tuple[int, str, bool, bool]] = []
        self._backquote = -1  # where the backquoted commands end that are being read

    def scan(self) -> None:
        self._frame(0, closer="")

    # commands

    def _frame(self, start: int, closer: str) -> int:
        frame = _Frame(start)
        self.frames.append(frame)
        frame.end = self._commands(start, frame, closer)
        return frame.end

    def _commands(self, i: int, frame: _Frame, closer: str) -> int:
        text, size = self.text, len(self.text)
        depth = 0
        cases: list[int] = []  # where each `case` began
        command = True  # a command may begin here, so reserved words count
        empty = True  # nothing stands here yet since the last separator
        loop = ""  # "name" behind for or select, "in" behind its name
        line = -1  # the index of the piece that ended the last line with something on it
        while i < size:
            c = text[i]
            if c in " \t\r\\" and (space := _SPACE.match(text, i)):
                i = space.end()
            elif c == "\n":
                if not empty:
                    line = len(frame.pieces)
                frame.emit(i, "\n")
                i = self._bodies(i + 1)
                command = empty = True
                loop = ""
            elif c == "#":
                i = self._comment(i)
            elif c == closer and depth == 0:
                return i
            elif c == ";":
                loop, line = "", -1
                command, was_empty, empty = True, empty, True
                if text.startswith((";;", ";&"), i):
                    if not cases:
                        raise _ShellSyntaxError(f"unexpected {text[i : i + 2]!r}", i)
                    frame.emit(i, ":;" if was_empty else ";")
                    i = self._pattern(i + (3 if text.startswith(";;&", i) else 2), frame, cases[-1])
                else:
                    frame.emit(i, ";")
                    i += 1
            elif redirection := _REDIRECTION.match(text, i):
                operator = redirection[0]
                frame.emit(i, "<" if operator[0] == "<" else ">")
                i = self._redirection(i, operator, frame)
                empty = False
            elif c in "&|":
                operator = text[i : i + 2] if text[i : i + 2] in {"&&", "||", "|&"} else c
                frame.emit(i, "|" if operator == "|&" else operator)
                i += len(operator)
                command = empty = True
                line = -1
            elif c == "(":
                if text.startswith("((", i) and command and (end := self._arithmetic_end(i + 2)) > 0:
                    self._arithmetic(i + 2, end - 2)
                    frame.emit(i, "{ :;")
                    frame.emit(end - 1, "}")
                    i = end
                    command = True
                else:
                    depth += 1
                    frame.emit(i, "(")
                    i += 1
                    command = empty = True
                    continue
                empty = False
            elif c == ")":
                if depth == 0:
                    raise _ShellSyntaxError("unexpected ')'", i)
                depth -= 1
                frame.emit(i, ")")
                i += 1
                command, empty = True, False
            else:
                start = i
                value = _Piece()
                i = self._word(i, value, first=command)
                if i == start:
                    raise _ShellSyntaxError(f"unexpected {c!r}", i)
                source = text[start:i]
                if loop:
                    if loop == "in" and source in {"in", "do"}:
                        frame.emit(start, source)
                        command = empty = source == "do"
                        loop = ""
                    else:
                        self._emit_word(start, i, value, frame)
                        loop = "in"
                    continue
                if command and source == "!" and text[self._skip(i) : self._skip(i) + 1] in {"", "\n", ";", "#"}:
                    frame.emit(start, ":")  # as in bash, the opposite of nothing
                    command = empty = False
                elif command and source in _OPENS:
                    if source == "do" and empty and line >= 0:
                        # bashlex 0.18 refuses a condition that only a line end closes.
                        frame.pieces[line] = (frame.pieces[line][0], ";")
                    frame.emit(start, source)
                    command = empty = True
                elif command and source in _CLOSES:
                    frame.emit(start, source)
                    command, empty = True, False
                elif command and source in {"for", "select"}:
                    i, loop = self._loop(start, i, frame)
                    command, empty = not loop, not loop
                elif command and source == "case":
                    i = self._case(start, i, frame)
                    cases.append(start)
                    command = empty = True
                elif command and source == "esac" and cases:
                    cases.pop()
                    frame.emit(start, "}")
                    command, empty = True, False
                elif command and source == "function":
                    frame.emit(start, source)
                    i = self._skip(i)
                    name, i = i, self._word(i, _Piece())
                    self._emit_word(name, i, _Piece(text[name:i]), frame)
                    i = self._parentheses(i, frame)
                    command = empty = True
                elif command and source == "[[":
                    end = self._test_end(i)
                    frame.emit(start, "{ :;")
                    frame.emit(end - 1, "}")
                    i = end
                    command, empty = True, False
                elif command and source == "time":
                    i = self._skip(i)
                    if text.startswith(("-p ", "-- "), i):
                        i = self._skip(i + 2)
                    if i >= size or text[i] in "\n;&|)":
                        frame.emit(start, ":")
                elif command and source == "coproc":
                    i = self._coprocess_name(self._skip(i))
                elif text[i : i + 1] in {"<", ">"} and source.isdigit():
                    frame.emit(start, source)
                elif text[i : i + 1] in {"<", ">"} and re.fullmatch(r"\{\w+\}", source):
                    pass  # the shell assigns the new descriptor's number: part of the redirection
                else:
                    assignment = self._emit_word(start, i, value, frame)
                    empty = False
                    if command and not assignment:
                        behind = self._parentheses(i, frame)
                        command = empty = behind > i
                        i = behind
        if closer or depth:
            raise _ShellSyntaxError("unexpected end of file: a parenthesis is not closed", frame.start)
        if self._pending:
            self._bodies(size)
        return size

    def _emit_word(self, start: int, end: int, value: _Piece, frame: _Frame) -> bool:
        """Hand a word over, and say whether it has the form of an assignment."""
        self.words[start] = value.word(start, end)
        match = _ASSIGNMENT.match(self.text, start, end)
        if match is None:
            frame.emit(start, "_" * (end - start))
            return False
        frame.emit(start, match[1] + "_" * (match.end() - 1 - match.end(1)) + "=" + "_" * (end - match.end()))
        # Where there is a subscript with more than plain text in it, the value cannot be told from it.
        before = match[0]
        known = bool(value.parts) and (value.parts[0][0] or "").startswith(before)
        assigned = _Piece(None)
        if known:
            (text, variable), *others = value.parts
            assigned = _Piece((text or "")[len(before) :], variable)
            assigned.parts += others
            assigned.elements = value.elements
        words = assigned.split(start, end)
        if before.endswith("+="):
            words = (Word(start, start, None, match[1]), *words)
        self.assignments[start] = Name(start, match[1], assigned=True, value=assigned.text, words=words)
        return True

    def _skip(self, i: int) -> int:
        space = _SPACE.match(self.text, i)
        return space.end() if space else i

    def _comment(self, i: int) -> int:
        """The offset of what ends a comment: the line's end, or the backquote that closes the commands around."""
        end = self.text.find("\n", i)
        end = len(self.text) if end < 0 else end
        return min(end, self._backquote) if self._backquote >= i else end

    def _skip_lines(self, i: int) -> int:
        while True:
            j = self._skip(i)
            if self.text.startswith("\n", j):
                j = self._bodies(j + 1)
            elif self.text.startswith("#", j):
                j = self._comment(j)
            if j == i:
                return i
            i = j

    def _parentheses(self, i: int, frame: _Frame) -> int:
        """Read the ``()`` of a function's definition, if it stands here."""
        opened = self._skip(i)
        if not self.text.startswith("(", opened):
            return i
        closed = self._skip(opened + 1)
        if not self.text.startswith(")", closed):
            return i
        frame.emit(opened, "(")
        frame.emit(closed, ")")
        return closed + 1

    def _loop(self, start: int, i: int, frame: _Frame) -> tuple[int, str]:
        """Read what follows ``for`` or ``select``: nothing of a list loop, all of ``(( ))``."""
        opened = self._skip(i)
        if not self.text.startswith("((", opened):
            frame.emit(start, "for")
            return i, "name"
        end = self._arithmetic_end(opened + 2)
        if end < 0:
            raise _ShellSyntaxError("unexpected end of file: '((' is not closed", opened)
        self._arithmetic(opened + 2, end - 2)
        i = self._skip(end)
        if self.text.startswith(";", i):
            i += 1
        if not self.text.startswith("{", self._skip_lines(i)):
            frame.emit(start, "while :;")
        return i, ""

    def _case(self, start: int, i: int, frame: _Frame) -> int:
        """Read ``case WORD in`` and the first pattern. It becomes a group, its arms a list in it."""
        i = self._word(self._skip(i), _Piece())
        i = self._skip_lines(i)
        if not re.compile(r"in(?!\w)").match(self.text, i):
            raise _ShellSyntaxError("expected 'in' behind 'case'", i)
        frame.emit(start, "{ :")
        frame.emit(i + 1, ";")
        return self._pattern(i + 2, frame, start)

    def _pattern(self, i: int, frame: _Frame, case: int) -> int:
        """Read the pattern of an arm, or nothing where ``esac`` follows."""
        i = start = self._skip_lines(i)
        if re.compile(r"esac(?!\w)").match(self.text, i):
            return i
        if self.text.startswith("(", i):
            i += 1
        while i < len(self.text):
            c = self.text[i]
            if c == ")":
                frame.emit(start, ":")
                frame.emit(i, ";")
                return i + 1
            if c in "|[]" or c.isspace():
                i += 1
            else:
                behind = self._word(i, _Piece())
                if behind == i:
                    raise _ShellSyntaxError("a pattern of 'case' cannot be read", i)
                i = behind
        raise _ShellSyntaxError("unexpected end of file: 'case' is not closed", case)

    def _coprocess_name(self, i: int) -> int:
        name = _NAME.match(self.text, i)
        if name and name[0] not in {"if", "while", "until", "for", "case", "select"}:
            behind = self._skip(name.end())
            if behind > name.end() and re.compile(r"[{(]|(if|while|until|for|case|select)\s").match(self.text, behind):
                return behind
        return i

    def _test_end(self, i: int) -> int:
        """Read the inside of ``[[ ]]`` and return the offset behind it."""
        start = i
        while i < len(self.text):
            i = self._skip_lines(i)
            if self.text.startswith("]]", i) and self.text[i - 1].isspace():
                return i + 2
            if self.text[i : i + 1] in {"&", "|", "<", ">", "(", ")", ";"} and not self.text.startswith(
                ("<(", ">("), i
            ):
                i += 1
            else:
                behind = self._word(i, _Piece())
                if behind == i:
                    break
                i = behind
        raise _ShellSyntaxError("unexpected end of file: '[[' is not closed", start - 2)

    # redirections

    def _redirection(self, i: int, operator: str, frame: _Frame) -> int:
        at, i = i, self._skip(i + len(operator))
        start, value = i, _Piece()
        i = self._word(i, value)
        if i == start:
            raise _ShellSyntaxError(f"a word is missing behind {operator!r}", at)
        frame.emit(start, "_" * (i - start))
        if operator in {"<<", "<<-"}:
            source = self.text[start:i]
            quoted = any(c in source for c in "'\"\\")
            self._pending.append((at, _unquoted(source), operator == "<<-", quoted))
        return i

    def _bodies(self, i: int) -> int:
        """Read the bodies of the here-documents whose operators stand on the line that ended."""
        pending, self._pending = self._pending, []
        for at, delimiter, tabs, quoted in pending:
            start = i
            while True:
                if i >= len(self.text):
                    raise _ShellSyntaxError(f"the here-document {delimiter!r} is not closed", at)
                end = self.text.find("\n", i)
                end = len(self.text) if end < 0 else end
                line = self.text[i:end].removesuffix("\r")
                stop, i = i, min(end + 1, len(self.text))
                if (line.lstrip("\t") if tabs else line) == delimiter:
                    break
            if not quoted:
                self._body(start, stop)
            self.here_documents.append((at, min(end, len(self.text))))
        return i

    def _body(self, start: int, stop: int) -> None:
        """Read a here-document's expansions, which bash does only when it comes to them."""
        frames, names = len(self.frames), len(self.names)
        try:
            self._quoted(start, stop, _IN_HERE_DOCUMENT)
        except _ShellSyntaxError:
            del self.frames[frames:], self.names[names:]
            self._pending.clear()
        for frame in self.frames[frames:]:
            frame.late = True

    # words

    def _word(self, i: int, value: _Piece, *, first: bool = False) -> int:
        """Read a word. Where it is the ``first`` of a command, ``!(`` is a negated subshell, no pattern."""
        text, size = self.text, len(self.text)
        start = i
        while i < size:
            c = text[i]
            literal = _LITERAL.match(text, i)
            if literal:
                i = literal.end()
                value.add(_Piece(literal[0]))
                if text.startswith("(", i) and text[i - 1] in "?*+@!" and not (first and text[start:i] == "!"):
                    i = self._extended_pattern(i)
                    value.add(_Piece(None))
                elif text.startswith("(", i) and text[i - 1] == "=":
                    match = _ASSIGNMENT.match(text, start)
                    if match and match.end() == i:
                        i = self._array(i + 1, value)
            elif c == "'":
                end = text.find("'", i + 1)
                if end < 0:
                    raise _ShellSyntaxError("unexpected end of file: a single quote is not closed", i)
                value.add(_Piece(text[i + 1 : end]))
                i = end + 1
            elif c == '"':
                i = self._double(i, value)
            elif c == "\\":
                if text.startswith(("\\\n", "\\\r\n"), i):
                    i += 2 if text[i + 1] == "\n" else 3
                else:
                    value.add(_Piece(text[i + 1 : i + 2]))
                    i += 2
            elif c == "$":
                if text.startswith("$'", i):
                    i = self._ansi(i, value)
                elif text.startswith('$"', i):
                    i = self._double(i + 1, value)
                else:
                    piece = _Piece()
                    i = self._dollar(i, piece)
                    value.add(piece)
            elif c == "`" and i != self._backquote:
                i = self._backquoted(i)
                value.add(_Piece(None))
            elif c in "<>" and text.startswith("(", i + 1):
                i = self._frame(i + 2, ")") + 1
                value.add(_Piece(None))
            else:
                break
        return min(i, size)

    def _double(self, i: int, value: _Piece) -> int:
        end = self._quoted(i + 1, len(self.text), _IN_DOUBLE, value)
        if not self.text.startswith('"', end):
            raise _ShellSyntaxError("unexpected end of file: a double quote is not closed", i)
        return end + 1

    def _quoted(self, i: int, end: int, literals: re.Pattern[str], value: _Piece | None = None) -> int:
        """Read the inside of double quotes, or of a here-document: expansions, and nothing else, count."""
        value = value if value is not None else _Piece()
        while i < end:
            c = self.text[i]
            if literal := literals.match(self.text, i, end):
                value.add(_Piece(literal[0]))
                i = literal.end()
            elif c == "\\":
                escaped = self.text[i + 1 : i + 2]
                value.add(_Piece("" if escaped == "\n" else escaped if escaped in '"\\$`' else "\\" + escaped))
                i += 2
            elif c == "$":
                piece = _Piece()
                i = self._dollar(i, piece)
                value.add(piece)
            elif c == "`" and i != self._backquote:
                i = self._backquoted(i)
                value.add(_Piece(None))
            else:
                return i
        return min(i, end)

    def _ansi(self, i: int, value: _Piece) -> int:
        start = i
        i += 2
        while i < len(self.text):
            if self.text[i] == "'":
                inside = self.text[start + 2 : i]
                value.add(_Piece(None if "\\" in inside else inside))
                return i + 1
            i += 2 if self.text[i] == "\\" else 1
        raise _ShellSyntaxError("unexpected end of file: $' is not closed", start)

    def _dollar(self, i: int, value: _Piece) -> int:
        """Read ``$…``: a parameter, a command substitution or arithmetic."""
        text = self.text
        if text.startswith("$((", i):
            end = self._arithmetic_end(i + 3)
            if end > 0:
                self._arithmetic(i + 3, end - 2)
                value.become(None)
                return end
        if text.startswith("$(", i):
            value.become(None)
            return self._frame(i + 2, ")") + 1
        if text.startswith("${", i):
            return self._braces(i, value)
        if text.startswith("$[", i):
            end = text.find("]", i)
            if end < 0:
                raise _ShellSyntaxError("unexpected end of file: $[ is not closed", i)
            self._arithmetic(i + 2, end)
            value.become(None)
            return end + 1
        parameter = _PARAMETER.match(text, i + 1)
        if parameter is None:
            value.become("$")
            return i + 1
        self.names.append(Name(i + 1, parameter[0]))
        value.become(None, parameter[0])
        return parameter.end()

    def _braces(self, i: int, value: _Piece) -> int:
        text, start = self.text, i
        value.become(None)
        i += 2
        if text[i : i + 1] in {"#", "!"} and _PARAMETER.match(text, i + 1):
            i += 1
            plain = False
        else:
            plain = True
        parameter = _PARAMETER.match(text, i)
        if parameter:
            self.names.append(Name(parameter.start(), parameter[0]))
            i = parameter.end()
        rest = i
        operator = _DEFAULT.match(text, i) if parameter and plain else None
        i = operator.end() if operator else i
        default = _Piece()
        while i < len(text):
            c = text[i]
            if c == "}":
                if parameter and plain and text[rest:i] in {"", "[@]", "[*]"}:
                    value.become(None, parameter[0])
                elif parameter and operator:
                    value.become(default.text, parameter[0])
                    if operator[0].endswith("="):
                        words = default.split(rest, i)
                        self.names.append(Name(parameter.start(), parameter[0], True, default.text, words))
                return i + 1
            if c == "'" and not self._inside_double(start):
                end = text.find("'", i + 1)
                if end < 0:
                    break
                default.add(_Piece(text[i + 1 : end]))
                i = end + 1
            elif c == '"':
                i = self._double(i, default)
            elif c == "\\":
                default.add(_Piece(text[i + 1 : i + 2]))
                i += 2
            elif c == "$":
                piece = _Piece()
                i = self._dollar(i, piece)
                default.add(piece)
            elif c == "`":
                i = self._backquoted(i)
                default.add(_Piece(None))
            else:
                default.add(_Piece(c))
                i += 1
        raise _ShellSyntaxError("unexpected end of file: ${ is not closed", start)

    def _inside_double(self, i: int) -> bool:
        """Whether an apostrophe inside ``${ }`` is plain text: it is between double quotes on its line."""
        line = self.text[self.text.rfind("\n", 0, i) + 1 : i]
        return line.count('"') % 2 == 1

    def _backquoted(self, i: int) -> int:
        """Read `` `commands` ``. Commands that are escaped once more (``\\```) are text to us."""
        end = i + 1
        while end < len(self.text) and self.text[end] != "`":
            end += 2 if self.text[end] == "\\" else 1
        if end >= len(self.text):
            raise _ShellSyntaxError("unexpected end of file: a backquote is not closed", i)
        if "\\" not in self.text[i:end]:
            outer, self._backquote = self._backquote, end
            self._frame(i + 1, "`")
            self._backquote = outer
        return end + 1

    def _array(self, i: int, value: _Piece) -> int:
        """Read the words of ``name=( )`` up to behind the parenthesis."""
        start = i
        elements: list[Word] = []
        while True:
            i = self._skip_lines(i)
            if i >= len(self.text):
                raise _ShellSyntaxError("unexpected end of file: an array is not closed", start - 1)
            if self.text[i] == ")":
                known = [word.text for word in elements if word.text is not None]
                value.add(_Piece(" ".join(known) if len(known) == len(elements) else None))
                value.elements = tuple(elements)
                return i + 1
            piece = _Piece()
            behind = self._word(i, piece)
            if behind == i:
                raise _ShellSyntaxError("an array cannot be read", i)
            elements.append(piece.word(i, behind))
            i = behind

    def _extended_pattern(self, i: int) -> int:
        start, depth = i, 0
        while i < len(self.text):
            c = self.text[i]
            if c in "()":
                depth += 1 if c == "(" else -1
                i += 1
                if depth == 0:
                    return i
            elif c in "|&;<>" or c.isspace():
                i += 1
            else:
                i = max(self._word(i, _Piece()), i + 1)
        raise _ShellSyntaxError("unexpected end of file: a pattern is not closed", start)

    # arithmetic

    def _arithmetic_end(self, i: int) -> int:
        """The offset behind the ``))`` that closes the ``((`` before ``i``, or -1 where it is two subshells."""
        depth = 0
        text = self.text
        while i < len(text):
            c = text[i]
            if c == "(":
                depth += 1
            elif c == ")":
                if depth == 0:
                    return i + 2 if text.startswith("))", i) else -1
                depth -= 1
            elif c == "'":
                end = text.find("'", i + 1)
                if end < 0:
                    return -1
                i = end
            elif c == "\\":
                i += 1
            i += 1
        return -1

    def _arithmetic(self, i: int, end: int) -> None:
        while i < end:
            c = self.text[i]
            if c == "$":
                i = self._dollar(i, _Piece())
            elif c == "`":
                i = self._backquoted(i)
            elif name := _NAME.match(self.text, i):
                self.names.append(Name(i, name[0]))
                i = name.end()
            else:
                i += 1


def _unquoted(source: str) -> str:
    """The delimiter of a here-document as the shell compares it."""
    return re.sub(r"\\(.)|['\"]", r"\1", source)


@dataclass(slots=True)
class _Outcome:
    """The commands that must have failed where a list failed, and where it succeeded."""

    failed: frozenset[int] = frozenset()
    succeeded: frozenset[int] = frozenset()


class _Builder:
    """From bashlex's nodes to statements and commands."""

    def __init__(self, scanner: _Scanner) -> None:
        self.scanner = scanner
        self.statements: list[Statement] = []
        self.commands: list[Command] = []
        self.names: list[Name] = []
        self.forwards: dict[str, list[Forward]] = {}
        self._taken: dict[str, int | None] = {}  # arguments that a function has shifted away so far
        self._inside = ""  # the function around the commands of a substitution
        self._bodies = 0
        self._here_documents = sorted(scanner.here_documents)

    def frame(self, frame: _Frame, parts: Sequence[_Part]) -> None:
        parent = self._around(frame.start)
        self._bodies += 1
        body = self._bodies
        self._inside = self._function(parent)
        for node, at in parts:
            self._body([node], at, parent, frozenset(), "", body)

    def _function(self, statement: int) -> str:
        """The name of the function in which a statement stands, if it does."""
        while statement >= 0 and not self.statements[statement].defines:
            statement = self.statements[statement].parent
        return self.statements[statement].defines if statement >= 0 else ""

    def _around(self, offset: int) -> int:
        """The innermost statement, of those that are known, around an offset."""
        best = -1
        for index, statement in enumerate(self.statements):
            if statement.start <= offset < statement.end:
                best = index
        return best

    def _end(self, start: int, end: int) -> int:
        documents = self._here_documents
        for at, stop in documents[bisect_left(documents, (start, 0)) :]:
            if at >= end:
                break
            end = max(end, stop)
        return end

    def _body(
        self, nodes: list[Any], at: Sequence[int], parent: int, after: frozenset[int], function: str, body: int = 0
    ) -> _Outcome:
        """A list of statements. ``nodes`` are bashlex's, their operators among them; ``at`` says where each of
        their positions lies in the script. A list that goes on has the number ``body``."""
        if not body:
            self._bodies += 1
            body = self._bodies
        outcome = _Outcome()
        segment: list[Any] = []
        for node in [*_flat(nodes), None]:
            joins = node is not None and node.kind == "operator" and node.op in {"&&", "||"}
            if segment and not joins and segment[-1].kind != "operator":
                outcome = self._statement(segment, at, body, parent, after, function)
                segment = []
            if joins or (node is not None and node.kind != "operator"):
                segment.append(node)
        return outcome

    def _statement(
        self, nodes: list[Any], at: Sequence[int], body: int, parent: int, after: frozenset[int], function: str
    ) -> _Outcome:
        start = at[nodes[0].pos[0]]
        end = self._end(start, at[nodes[-1].pos[1]])
        index = len(self.statements)
        defines = ""
        if nodes[0].kind == "function":
            defines = self._word_at(at[nodes[0].name.pos[0]]).text or ""
        self.statements.append(Statement(start, end, body, parent, defines))
        outcome = self._node(nodes[0], at, index, after, function)
        for operator, node in zip(nodes[1::2], nodes[2::2], strict=True):
            left = outcome
            if operator.op == "||":
                right = self._node(node, at, index, after | left.failed, function)
                outcome = _Outcome(left.failed | right.failed, left.succeeded & (left.failed | right.succeeded))
            else:
                right = self._node(node, at, index, after | left.succeeded, function)
                outcome = _Outcome(left.failed & (left.succeeded | right.failed), left.succeeded | right.succeeded)
        return outcome

    def _word_at(self, offset: int) -> Word:
        return self.scanner.words.get(offset) or Word(offset, offset, None)

    def _node(self, node: Any, at: Sequence[int], statement: int, after: frozenset[int], function: str) -> _Outcome:
        kind = node.kind
        if kind == "command":
            return self._command(node, at, statement, after, function)
        if kind == "pipeline":
            parts = [part for part in node.parts if part.kind not in {"pipe", "reservedword"}]
            outcomes = [self._node(part, at, statement, after, function) for part in parts]
            # With pipefail any of them may be what failed.
            outcome = _Outcome(frozenset().union(*(o.failed for o in outcomes)), outcomes[-1].succeeded)
            if sum(part.kind == "reservedword" for part in node.parts) % 2:
                return _Outcome(outcome.succeeded, outcome.failed)
            return outcome
        if kind == "function":
            name = self.statements[statement].defines
            self._node(node.body, at, statement, frozenset(), name)
            return _Outcome()
        if kind == "compound":
            inner = node.list
            if inner and inner[0].kind == "reservedword":
                return self._body(inner[1:-1], at, statement, after, function)
            return self._node(inner[0], at, statement, after, function) if inner else _Outcome()
        if kind == "if":
            return self._if(node, at, statement, after, function)
        if kind in {"while", "until"}:
            lists = _sections(node.parts)
            condition = self._body(lists[0][1], at, statement, after, function)
            reached = condition.succeeded if kind == "while" else condition.failed
            self._body(lists[1][1], at, statement, after | reached, function)
            return _Outcome()
        if kind == "for":
            name = node.parts[1]
            source = self.scanner.text[at[name.pos[0]] : at[name.pos[1]]]
            self.names.append(Name(at[name.pos[0]], source, assigned=True))
            for word, nodes in _sections(node.parts):
                if word == "do":
                    self._body(nodes, at, statement, after, function)
            return _Outcome()
        if kind == "list":
            return self._body([node], at, statement, after, function)
        return _Outcome()

    def _if(self, node: Any, at: Sequence[int], statement: int, after: frozenset[int], function: str) -> _Outcome:
        condition = _Outcome()
        failed: list[frozenset[int]] = []
        succeeded: list[frozenset[int]] = []
        complete = False
        for word, nodes in _sections(node.parts):
            if word in {"if", "elif"}:
                after = after | condition.failed if word == "elif" else after
                condition = self._body(nodes, at, statement, after, function)
            else:
                reached = condition.succeeded if word == "then" else condition.failed
                complete = complete or word == "else"
                outcome = self._body(nodes, at, statement, after | reached, function)
                failed.append(reached | outcome.failed)
                succeeded.append(reached | outcome.succeeded)
        if not complete:
            succeeded.append(condition.failed)
        return _Outcome(frozenset.intersection(*failed), frozenset.intersection(*succeeded))

    def _command(self, node: Any, at: Sequence[int], statement: int, after: frozenset[int], function: str) -> _Outcome:
        words: list[Word] = []
        for part in node.parts:
            offset = at[part.pos[0]]
            if part.kind == "assignment" and not words and offset in self.scanner.assignments:
                self.names.append(self.scanner.assignments[offset])
            elif part.kind in {"word", "assignment"} and offset in self.scanner.words:
                words.append(self.scanner.words[offset])
        if not words:
            return _Outcome()
        if words[0].text in _DECLARES:
            self.names += [
                self.scanner.assignments[word.start] for word in words[1:] if word.start in self.scanner.assignments
            ]
        own = function or self._inside
        words = [replace(word, variable=f"{own}@") if word.variable in {"@", "*"} else word for word in words]
        if function:
            self._forward(words, statement, function)
        if words[0].text == "set" and len(words) > 1 and words[1].text == "--":
            self.names.append(Name(words[1].start, f"{own}@", assigned=True, words=tuple(words[2:])))
        index = len(self.commands)
        start = words[0].start
        self.commands.append(Command(tuple(words), (start, start), "", statement, after, start))
        return _Outcome(failed=frozenset({index}))

    def _forward(self, words: list[Word], statement: int, function: str) -> None:
        """Note what a command does with the arguments of the function that it stands in."""
        if words[0].text == "shift":
            amount = words[1].text if len(words) > 1 else "1"
            around = self.statements[statement]
            always = around.start == words[0].start and self.statements[around.parent].defines == function
            taken = self._taken.get(function, 0)
            if always and taken is not None and re.fullmatch(r"[0-9]{1,3}", amount or ""):
                self._taken[function] = taken + int(amount or 0)
            else:
                self._taken[function] = None
        elif words[0].text == "set":
            if len(words) > 2 and words[1].text == "--":
                self._taken[function] = None
                self.forwards.setdefault(function, []).append(Forward((replace(words[0], text=None),), None))
        else:
            for index, word in enumerate(words):
                if arguments := _ARGUMENTS.fullmatch(self.scanner.text, word.start, word.end):
                    taken = self._taken.get(function, 0)
                    if taken is not None:
                        taken += int(arguments["first"] or 1) - 1
                    self.forwards.setdefault(function, []).append(Forward(tuple(words[:index]), taken))
                    break


def _flat(nodes: list[Any]) -> list[Any]:
    """Statements and operators in one list: bashlex nests them where newlines are among the separators."""
    flat: list[Any] = []
    for node in nodes:
        if node.kind == "list":
            flat += _flat(node.parts)
        else:
            flat.append(node)
    return flat


def _sections(parts: list[Any]) -> list[tuple[str, list[Any]]]:
    """The parts of a compound command under the reserved word that opens each."""
    sections: list[tuple[str, list[Any]]] = []
    for part in parts:
        if part.kind == "reservedword" and isinstance(part.word, list):
            sections += _sections(part.word)  # bashlex 0.18 puts the second elif and what follows in the word itself
        elif part.kind == "reservedword":
            sections.append((part.word, []))
        elif sections:
            sections[-1][1].append(part)
    return sections


def parse(script: Script) -> Syntax:
    """The syntax of a shell script.

    Raises InputError with ``path:line:col`` where the text is not shell, or is shell that bashlex does not
    know: never a guess.
    """
    scanner = _Scanner(script.text)
    try:
        scanner.scan()
        builder = _Builder(scanner)
        for frame in sorted(scanner.frames, key=lambda frame: frame.start):
            text = frame.text()
            if text.strip():
                try:
                    nodes = _parse_frame(text, frame.start)
                except _ShellSyntaxError:
                    if not frame.late:
                        raise
                else:
                    builder.frame(frame, nodes)
    except _ShellSyntaxError as problem:
        raise InputError(
            str(problem),
            where=script.where(min(problem.offset, len(script.text))),
            hint="Check the script with `bash -n`; a script that bash takes and this tool does not is a bug to report.",
        ) from None
    except RecursionError:
        raise InputError("nested too deeply to be parsed", where=script.path) from None
    names = sorted([*scanner.names, *builder.names], key=lambda name: name.offset)
    return Syntax(
        script,
        "shell",
        tuple(builder.statements),
        tuple(builder.commands),
        tuple(names),
        frozenset(name for name, ways in builder.forwards.items() if any(not way.words for way in ways)),
        {name: tuple(dict.fromkeys(ways)) for name, ways in builder.forwards.items()},
    )


_Part = tuple[Any, Sequence[int]]
_RUN = re.compile(r"([ _])\1*|.", re.DOTALL)


def _parse_frame(text: str, start: int) -> list[_Part]:
    """bashlex's nodes for the statements of a neutral text, each with the offsets of its positions.

    bashlex reads character by character, so runs of blanks and of what stands for a word are handed over as one.
    It is asked for one statement at a time: what it hides in a word (see ``_sections``) keeps its position so.
    """
    runs = list(_RUN.finditer(text))
    brief = "".join(run[0][0] for run in runs)
    places = [start + run.start() for run in runs] + [start + len(text)]
    parts: list[_Part] = []
    index = 0
    try:
        while index < len(brief):
            node: Any = bashlex.parsesingle(brief[index:])  # type: ignore[no-untyped-call]
            if not hasattr(node, "pos"):  # what stands behind the last statement
                break
            parts.append((node, places[index:]))
            index += node.pos[1] + 1
    except bashlex.errors.ParsingError as error:
        position = error.position if isinstance(error.position, int) else len(brief)
        what = str(error.message or error).replace("\n", " ")
        raise _ShellSyntaxError(what, places[min(index + position, len(brief))]) from None
    except RecursionError:
        raise
    except Exception as error:  # some of bashlex's own errors carry no position (AttributeError, NotImplementedError)
        raise _ShellSyntaxError(f"cannot be parsed ({type(error).__name__})", places[index]) from None
    return parts
