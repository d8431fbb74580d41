"""Text of others: names, paths, lines of scripts, what a program said. A person sees it only through this module."""

from __future__ import annotations

import re
from collections.abc import Sequence


def visible(text: str) -> str:
    """The text with what would command a terminal, hide or reorder made visible: ``␛``, ``<U+202E>``, ``\\xff``.

    Newlines and tabs stay.
    """
    return re.sub(r"[^\n\t -~]", _shown, text)


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 32:
        return chr(0x2400 + code)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return match[0] if match[0].isprintable() else f"<U+{code:04X}>"


def code(text: str) -> str:
    """The text as one line of code in Markdown, in which no character has a meaning."""
    line = visible(text.replace("\n", " "))
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    blank = " " if len(fence) > 1 else ""
    return f"{fence}{blank}{line}{blank}{fence}" if line else ""


def fenced(text: str, language: str) -> str:
    """The text as a block of code in Markdown."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{visible(text.rstrip(chr(10)))}\n{fence}"


def joined(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
