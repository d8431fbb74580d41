"""Where things stand in the text of a script: what putting in and taking out have in common."""

from __future__ import annotations

import re

from patcher.model import Command, Name, Syntax, Word

_QUOTED_INSIDE = re.compile(r'\$\{\w+:?\+"')
_OPENS = re.compile(r"(^|[\s;])(then|do|else|\{|\()$|[):]$|\bin$")


def line_start(text: str, at: int) -> int:
    """Where the line of an offset begins."""
    return text.rfind("\n", 0, at) + 1


def next_line(text: str, at: int) -> int:
    """Where the line behind that of an offset begins, or the text ends."""
    return text.find("\n", at) + 1 or len(text)


def code(text: str, at: int) -> int:
    """Where the blanks from an offset on end."""
    return len(text) - len(text[at:].lstrip(" \t"))


def line_end(syntax: Syntax) -> str:
    """How the script's first line ends, and so every line that is put in."""
    text = syntax.script.text
    return "\r\n" if text[: next_line(text, 0)].endswith("\r\n") else "\n"


def lead(syntax: Syntax, start: int) -> int:
    """Where the lines of a statement begin: with the comment lines directly above it, which stay with it."""
    text = syntax.script.text
    at = line_start(text, start)
    while at > 0:
        above = line_start(text, at - 1)
        line = text[above : at - 1].strip()
        if not line.startswith("#") or line.startswith("#!"):
            break
        if any(statement.start < above < statement.end <= start for statement in syntax.statements):
            break  # the last line of a string
        at = above
    return at


def first(syntax: Syntax) -> int:
    """Where the first line begins: behind a byte order mark, which bash takes for a part of the first word."""
    return int(syntax.script.language == "python" and syntax.script.text.startswith("\ufeff"))


def begins_paragraph(text: str, at: int) -> bool:
    """Whether no line stands above, or a blank one, or one that opens a list of statements."""
    above = text[line_start(text, at - 1) : at - 1] if at > 0 else ""
    code = re.sub(r"\s#.*", "", above).rstrip()
    return not above.strip() or bool(_OPENS.search(code) and not code.endswith(";;"))


def unquoted(command: Command, text: str) -> list[Word]:
    """The words that begin with a variable without quotes, but for ``${NAME:+"..."}``, which is quoted inside."""
    found = [word for word in command.words if text.startswith("$", word.start)]
    return [word for word in found if not _QUOTED_INSIDE.match(text, word.start, word.end)]


def users(syntax: Syntax, module: str) -> list[Name]:
    """Where a name is read or assigned, but for the import of the module of this name."""
    at = syntax.imports.get(module, -1)
    end = next_line(syntax.script.text, at) if at >= 0 else -1
    return [name for name in syntax.names if name.name == module and not at <= name.offset < end]


def without_comments(text: str) -> str:
    """The text with its full-line comments blanked, offsets unchanged."""
    return re.sub(r"(?m)^[ \t]*#.*$", lambda match: " " * len(match[0]), text)
