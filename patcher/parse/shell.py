"""Shell text to syntax: tree-sitter-bash finds what bashlex cannot read, bashlex reads everything else.

bashlex 0.18 refuses a whole script for one ``[[ ]]``, ``case``, array, ``$(( ))``, ``for ((``, ``select`` or ``time``,
and for ``a || b`` inside ``$( )``. Each of them is replaced by neutral text of the same length, so that all offsets
stay. Outside of these constructs both parsers must see the same commands, else the script is refused.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import count, dropwhile
from typing import Any

import bashlex
import tree_sitter
import tree_sitter_bash

from patcher.errors import InputError
from patcher.model import Command, Name, Script, Statement, Syntax, Word
from patcher.parse import limits

_PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))
# One byte a character, so that the offsets of both parsers are those of the script.
_NOT_PLAIN = re.compile(r"[^\t\n -~]")
_VARIABLE = re.compile(r'"?\$(?:(\w+)|\{(\w+)(?:\[@\])?\})"?')
_NOT_LITERAL = re.compile(r"[\\$`(]")
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
_COMMANDS = frozenset({"command", "declaration_command", "test_command", "unset_command"})
# Constructs that become the command `:`, each with its first word: some kinds have others as well.
_STATEMENTS = {
    "c_style_for_statement": "for",
    "case_statement": "case",
    "compound_statement": "((",
    "for_statement": "select",
    "test_command": "[[",
}
# Constructs that become part of a word.
_VALUES = frozenset(
    ["ansi_c_string", "arithmetic_expansion", "array", "command_substitution", "expansion", "process_substitution"]
)
# What is left out: bashlex reads a here-document, but not where it ends.
_BLANKS = frozenset({"<<", "<<-", "file_descriptor", "heredoc_body", "heredoc_end", "heredoc_start"})
_HINT = "Check the script with `bash -n`. Report a script that bash accepts."


class _Layout:
    """What tree-sitter tells: the text for bashlex, where commands begin, and the names."""

    def __init__(self, script: Script) -> None:
        limits.check(script)
        self.script = script
        self.source = _NOT_PLAIN.sub(".", script.text.replace("\\\r\n", " \\\n").replace("\r\n", " \n"))
        self.starts: set[int] = set()  # of commands
        self.timed: dict[int, int] = {}  # where `time` stands before a command
        self.neutral: set[int] = set()  # where a construct became `:`
        self.extents: list[tuple[int, int]] = []  # of constructs of which bashlex sees only the beginning
        self.hidden: list[tree_sitter.Node] = []  # commands inside constructs
        self.names: list[Name] = []
        self._masks: list[tuple[int, int, str]] = []
        root = _PARSER.parse(self.source.encode("ascii")).root_node
        if root.has_error:
            raise self._broken(root)
        nodes = [(root, False, 0)]
        while nodes:
            node, hidden, depth = nodes.pop()
            if depth > limits.MOST_NESTED:
                raise limits.refused(
                    script, f"more than {limits.MOST_NESTED} constructs inside each other", node.start_byte
                )
            inside = self._construct(node) or hidden
            if node.type in _COMMANDS and node.start_byte not in self.neutral:
                self._command(node, hidden)
            elif node.type in {"special_variable_name", "variable_name"}:
                self._name(node)
            nodes += ((child, inside, depth + 1) for child in reversed(node.children))
        self.chunks = list(_chunks(root))

    def error(self, offset: int, what: str) -> InputError:
        return InputError(what, where=self.script.where(offset), hint=_HINT)

    def _broken(self, node: tree_sitter.Node) -> InputError:
        """The first error in a tree, at the word or sign that opens what is not closed, if there is one."""
        while not (node.is_error or node.is_missing):
            node = next(child for child in node.children if child.has_error)
        if node.is_missing and node.parent is not None:
            return self.error(node.parent.start_byte, f"unexpected end: {node.type!r} is missing for what begins here")
        signs = (child for child in node.children if not (child.is_named or child.type.isspace() or child.type == ";"))
        offset = next(signs, node).start_byte
        offset += len(self.source[offset:]) - len(self.source[offset:].lstrip())
        return self.error(offset, "unexpected text, or unexpected end of what begins here")

    def text(self) -> str:
        """The source with every construct replaced; the masks of constructs inside others come later."""
        characters = list(self.source)
        for start, end, neutral in reversed(self._masks):
            characters[start:end] = neutral.ljust(end - start)
        return "".join(characters)

    def word(self, start: int, end: int) -> Word:
        variable = _VARIABLE.fullmatch(self.source, start, end)
        return Word(start, end, _literal(self.source[start:end]), (variable[1] or variable[2]) if variable else "")

    def _construct(self, node: tree_sitter.Node) -> bool:
        """Mask a construct that bashlex cannot read. Returns whether it hides commands."""
        start, end, kind = node.start_byte, node.end_byte, node.type
        statement = kind in _STATEMENTS and self.source.startswith(_STATEMENTS[kind], start)
        if statement:
            self.neutral.add(start)
            self.extents.append((start, end))
        elif kind == "heredoc_redirect" and node.parent is not None:
            self.extents.append((node.parent.start_byte, end))
        if statement or kind in _VALUES or kind in _BLANKS:
            self._masks.append((start, end, ":" if statement else "_" * (end - start) if kind in _VALUES else ""))
        return statement or kind in _VALUES or kind in _BLANKS

    def _command(self, node: tree_sitter.Node, hidden: bool) -> None:
        name = node.child_by_field_name("name") or node
        start = name.start_byte
        if name.text == b"time":
            words = [word.start_byte for word in node.children_by_field_name("argument") if word.text != b"-p"]
            start = words[0] if words else node.end_byte
            self._masks.append((name.start_byte, start, ""))
            self.timed[start] = name.start_byte
        if hidden:
            self.hidden.append(node)
        else:
            self.starts.add(start)

    def _name(self, node: tree_sitter.Node) -> None:
        start, end, parent = node.start_byte, node.end_byte, node.parent
        assigned = parent is not None and parent.type == "variable_assignment" and parent.start_byte == start
        value = self.source[end : parent.end_byte] if assigned and parent is not None else ""
        known = _literal(value[1:]) if value.startswith("=") else None
        self.names.append(Name(start, self.source[start:end], assigned, known))


def _literal(source: str) -> str | None:
    """The value of a word, or None where it depends on more than its text."""
    return None if _NOT_LITERAL.search(source) else _QUOTED.sub(r"\1\2", source)


def _chunks(root: tree_sitter.Node) -> Iterator[tuple[int, int]]:
    """The spans of the lines at the top level. What goes on behind a line end keeps its lines together."""
    start = end = last_row = -1
    for node in root.children:
        if node.start_point.row > last_row and start >= 0:
            yield start, end
            start = -1
        if node.type != "comment":
            start = node.start_byte if start < 0 else start
            end, last_row = node.end_byte, node.end_point.row
    if start >= 0:
        yield start, end


class _Builder:
    """From bashlex's nodes to statements and commands."""

    def __init__(self, layout: _Layout) -> None:
        self.layout, self.text = layout, layout.text()
        self.statements: list[Statement] = []
        self.commands: list[Command] = []
        self._extents = sorted(layout.extents)
        self._bodies = count()
        top = next(self._bodies)
        for start, end in layout.chunks:
            self._body(list(_flat([self._parsed(start, end)])), start, -1, "", top)
        self.commands = [command for command in self.commands if command.words[0].start not in layout.neutral]
        for start in layout.starts ^ {command.words[0].start for command in self.commands}:
            raise layout.error(start, "the two parsers see different commands here")
        for node in layout.hidden:
            self._hidden(node)

    def _parsed(self, start: int, end: int) -> Any:
        if not self.text[start:end].strip():  # `time` alone
            raise self.layout.error(start, "a command is missing")
        try:
            return bashlex.parsesingle(self.text[start:end])  # type: ignore[no-untyped-call]
        except RecursionError:
            raise
        except Exception as error:  # AssertionError and NotImplementedError are among bashlex's own
            position = getattr(error, "position", None)
            what = str(getattr(error, "message", "") or "bashlex cannot read this").replace("\n", " ")
            raise self.layout.error(start + (position if isinstance(position, int) else 0), what) from None

    def _body(self, nodes: list[Any], at: int, parent: int, bar: str, number: int) -> None:
        """The statements of a list with this number. ``nodes`` are bashlex's, operators among them, from ``at`` on."""
        segment: list[Any] = []
        for node in [*nodes, None]:
            operator = node.op if node is not None and node.kind == "operator" else ""
            if segment and (node is None or operator not in {"", "&&", "||"}):
                self._statement(segment, at, parent, "background" if operator == "&" else bar, number)
                segment = []
            elif node is not None and not operator:
                segment.append(node)

    def _statement(self, nodes: list[Any], at: int, parent: int, bar: str, number: int) -> None:
        start, end = at + nodes[0].pos[0], at + nodes[-1].pos[1]
        for inner, inner_end in self._extents[bisect_left(self._extents, (start, 0)) :]:
            if inner >= end:
                break
            end = max(end, inner_end)
        start = self.layout.timed.get(start, start)
        index = len(self.statements)
        defines = nodes[0].name.word if nodes[0].kind == "function" else ""
        self.statements.append(Statement(start, end, number, parent, defines))
        for node in nodes:
            self._node(node, at, index, bar)

    def _node(self, node: Any, at: int, statement: int, bar: str) -> None:
        match node.kind:
            case "command":
                parts = dropwhile(lambda part: part.kind != "word", node.parts)
                spans = [part.pos for part in parts if part.kind in {"assignment", "word"}]
                words = tuple(self.layout.word(at + start, at + end) for start, end in spans)
                if words:
                    self.commands.append(Command(words, (words[0].start, words[0].start), "", statement, bar))
            case "pipeline":
                for part in node.parts:
                    self._node(part, at, statement, bar)
            case "function":
                self._node(node.body, at, statement, bar)
            case "compound" | "if" | "while" | "until" | "for":
                self._sections(node.list if node.kind == "compound" else node.parts, at, statement, bar)

    def _sections(self, parts: list[Any], at: int, statement: int, bar: str) -> None:
        """The lists between the reserved words of a compound command."""
        section: list[Any] = []
        for part in [*_flat(parts), None]:
            if part is None or part.kind == "reservedword":
                self._body(section, at, statement, bar, next(self._bodies))
                section = []
            elif part.kind in {"if", "while", "until", "for"}:
                self._node(part, at, statement, bar)
            elif part.kind != "word":
                section.append(part)

    def _hidden(self, node: tree_sitter.Node) -> None:
        """A command inside a construct, as a statement of its own inside the statement around it."""
        start, end = node.start_byte, node.end_byte
        parent = max(i for i, around in enumerate(self.statements) if around.start <= start < around.end)
        named = node.child_by_field_name("name")
        children = [child for child in node.children if not child.type.endswith(("assignment", "redirect"))]
        words = tuple(self.layout.word(c.start_byte, c.end_byte) for c in (children if named else [node]))
        place = words[0].start
        self.commands.append(Command(words, (place, place), "", len(self.statements), "construct"))
        self.statements.append(Statement(start, end, next(self._bodies), parent))


def _flat(nodes: Sequence[Any]) -> Iterator[Any]:
    """Statements, operators and reserved words in one list.

    bashlex nests statements where newlines are among the separators, and bashlex 0.18 puts a second ``elif`` and what
    follows into a reserved word.
    """
    for node in nodes:
        if node.kind == "list":
            yield from _flat(node.parts)
        elif node.kind == "reservedword" and isinstance(node.word, list):
            yield from _flat(node.word)
        else:
            yield node


def parse(script: Script) -> Syntax:
    """The syntax of a shell script.

    Raises InputError with ``path:line:col`` where the text is no shell, or shell that the two parsers do not know.
    """
    try:
        layout = _Layout(script)
        builder = _Builder(layout)
    except RecursionError:
        raise InputError("nested too deeply to be parsed", where=script.path) from None
    commands = sorted(builder.commands, key=lambda command: command.head)
    return Syntax(script, tuple(builder.statements), tuple(commands), tuple(layout.names))
