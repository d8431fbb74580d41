"""The lines in which two texts differ. Every stage that compares two texts asks here."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hunk:
    """One difference: the lines ``old`` from index ``old_at`` on stand as ``new`` from index ``new_at`` on.

    Indices count from 0. Either side may be empty.
    """

    old_at: int
    old: tuple[str, ...]
    new_at: int
    new: tuple[str, ...]


def split(text: str) -> list[str]:
    """The lines with their ends. Only a newline ends a line, as in git: a form feed does not."""
    lines = text.split("\n")
    last = lines.pop()
    return [*(f"{line}\n" for line in lines), *([last] if last else [])]


def hunks(old: Sequence[str], new: Sequence[str]) -> list[Hunk]:
    """The differences between two lists of lines, in order."""
    top = 0
    while top < min(len(old), len(new)) and old[top] == new[top]:
        top += 1
    bottom = 0
    while bottom < min(len(old), len(new)) - top and old[-1 - bottom] == new[-1 - bottom]:
        bottom += 1
    middle = difflib.SequenceMatcher(None, old[top : len(old) - bottom], new[top : len(new) - bottom], autojunk=False)
    return [
        Hunk(top + i1, tuple(old[top + i1 : top + i2]), top + j1, tuple(new[top + j1 : top + j2]))
        for tag, i1, i2, j1, j2 in middle.get_opcodes()
        if tag != "equal"
    ]


def count(old: str, new: str) -> tuple[int, int]:
    """How many lines of a text are added and how many are removed."""
    found = hunks(split(old), split(new))
    return sum(len(hunk.new) for hunk in found), sum(len(hunk.old) for hunk in found)


def added(old: str, new: str) -> tuple[int, ...]:
    """The numbers, from 1, of the lines of ``new`` that ``old`` does not have."""
    found = hunks(split(old), split(new))
    return tuple(hunk.new_at + number for hunk in found for number in range(1, len(hunk.new) + 1))
