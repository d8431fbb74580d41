"""What a script may be at most, so that parsing it ends in seconds and fits in memory.

The largest real version has 11,313 characters, 42 pipes, and 27 words in a row in a Python expression. The parsers take
more than linear time and memory for long chains and deep nesting, and libcst's native parser ends the process.
"""

from __future__ import annotations

import io
import token
import tokenize

from patcher.errors import InputError
from patcher.model import Script

MOST_CHARACTERS = 32_000
MOST_NESTED = 100
_MOST_SIGNS = {"|": 1000, "elif": 100}
_MOST_IN_A_ROW = 80  # tokens of an expression, without a comma between them
_BRACKET = 3  # what a bracket counts besides, as libcst's memory grows with the square of their depth
_LONGEST_STRING = 1000  # that can have expressions inside
_LAYOUT = frozenset({token.COMMENT, token.DEDENT, token.INDENT, token.NL})


def refused(script: Script, what: str, offset: int) -> InputError:
    return InputError(
        f"too large to be parsed: {what}",
        where=script.where(offset),
        hint="Move parts of the script to another file, or name the parts of a long expression.",
    )


def check(script: Script) -> None:
    """Raise InputError with the place where a script becomes too long, or has a byte that the shell ignores."""
    if "\0" in script.text:
        raise InputError("a null byte", where=script.where(script.text.index("\0")), hint="Remove it.")
    if len(script.text) > MOST_CHARACTERS:
        raise refused(script, f"more than {MOST_CHARACTERS} characters", MOST_CHARACTERS)
    for sign, most in _MOST_SIGNS.items():
        if script.text.count(sign) > most:
            offset = len(sign.join(script.text.split(sign, most + 1)[:-1]))
            raise refused(script, f"{sign!r} stands here more than {most} times", offset)


def check_python(script: Script, text: str) -> None:
    """Raise InputError with the place where an expression or the nesting of blocks becomes too deep.

    Brackets and tokens without a comma between them nest at most as deep as they are many, and each ``lambda`` and
    ``for`` may nest whatever stands between. Raises TokenError and SyntaxError where the text has no tokens.
    """
    levels, fixed, blocks = [0], 0, 0
    for found in tokenize.generate_tokens(io.StringIO(text, newline=None).readline):
        blocks += (found.type == token.INDENT) - (found.type == token.DEDENT)
        if found.type == token.NEWLINE:
            levels, fixed = [0], 0
        elif found.type not in _LAYOUT:
            if found.string in {")", "]", "}"} and len(levels) > 1:
                levels.pop()
            levels[-1] += 1
            if found.string in {"(", "[", "{"}:
                levels.append(levels[-1] + _BRACKET)
            elif found.string == "," and len(levels) > 1:
                levels[-1] = levels[-2]
            fixed += found.string in {"for", "lambda"}
        formatted = found.type == token.STRING and "f" in found.string[:2].lower()
        long = formatted and len(found.string) > _LONGEST_STRING
        if levels[-1] + fixed > _MOST_IN_A_ROW or blocks > _MOST_IN_A_ROW // 2 or long:
            row, column = found.start
            lines = io.StringIO(script.text, newline="").readlines()
            raise refused(script, "an expression that is too long or too deep", len("".join(lines[: row - 1])) + column)
