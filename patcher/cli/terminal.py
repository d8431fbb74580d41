"""What is shown to a person: messages, colours, the pager, a question. A pipe gets a patch's plain bytes."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

import click

from patcher.emit.text import visible

# The style, as click takes it, of what a regular expression matches in a line.
Colors = Mapping[str, Mapping[str, Any]]
_DIFF: Colors = {
    r"^diff .*": {"bold": True},
    r"^@.*": {"fg": "cyan"},
    r"^\+.*": {"fg": "green"},
    r"^-.*": {"fg": "red"},
}

color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours; auto: on a terminal, unless NO_COLOR is set.",
)


def say(text: str, *, err: bool = False) -> None:
    """Print a message. Text of others in it can do nothing to a terminal."""
    click.echo(visible(text), err=err)


def say_json(data: object) -> None:
    """Print data as JSON, in which no character can do anything to a terminal."""
    import json  # slow to import

    click.echo(json.dumps(data, indent=2))


def say_in_color(lines: Iterable[str], colors: Colors, when: str) -> None:
    """Print lines on standard output, in colour where that is wanted."""
    on = _colored(when, sys.stdout)
    for line in lines:
        shown = visible(line)
        click.echo(_painted(shown, colors) if on else shown, color=on)


def counter(what: str) -> Callable[[int, int], None]:
    """A function that shows on standard error how many are done, on a terminal only."""

    def count(done: int, of: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{done}/{of} {what}" + ("\r\x1b[K" if done == of else ""), err=True, nl=False)

    return count


def write_out(data: bytes, when: str = "auto", *, paged: bool = True) -> None:
    """Write a patch or a page to standard output: its bytes, or text for a person on a terminal or in colour."""
    if sys.stdout.isatty() and paged:
        show(data, when, sys.stdout)
    elif sys.stdout.isatty() or when == "always":
        click.echo(_shown(data, when, sys.stdout), nl=False, color=True)
    else:
        click.echo(data, nl=False)


def show(patch: bytes, when: str, stream: TextIO) -> None:
    """Show a patch on a terminal, in colour, and on standard output through the user's pager."""
    shown = _shown(patch, when, stream)
    if stream is sys.stdout:
        os.environ.setdefault("LESS", "FRX")  # as git sets it: text that fits on the screen needs no key to leave
        click.echo_via_pager(shown.removesuffix("\n"), color=_colored(when, stream))
    else:
        click.echo(shown, file=stream, nl=False, color=True)


def _colored(when: str, stream: TextIO) -> bool:
    if when == "auto":
        return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")
    return when == "always"


def _shown(patch: bytes, when: str, stream: TextIO) -> str:
    """A patch as text for a person. Its diff, which begins at ``diff --git``, may be in colour."""
    shown = visible(patch.decode("utf8", "surrogateescape"))
    start = re.search(r"^diff --git ", shown, re.MULTILINE)
    if not start or not _colored(when, stream):
        return shown
    diff = (_painted(line, _DIFF) for line in shown[start.start() :].split("\n"))
    return shown[: start.start()] + "\n".join(diff)


def _painted(line: str, colors: Colors) -> str:
    """A line with the style of the first regular expression that is in it on what that matches."""
    for pattern, style in colors.items():
        if match := re.search(pattern, line):
            return line[: match.start()] + click.style(match[0], **style) + line[match.end() :]
    return line


def agreed(patch: bytes, when: str) -> bool:
    """Show a patch and ask for a yes. The answer is read from the terminal also where standard output is a pipe."""
    show(patch, when, sys.stdout if sys.stdout.isatty() else sys.stderr)
    return bool(click.confirm("Emit this patch?", default=False, err=True))


def this_call(without: str) -> str:
    """The command as it was typed, without one option."""
    return shlex.join(["ci-patcher", *(word for word in sys.argv[1:] if word != without)])
