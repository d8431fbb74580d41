"""What is shown to a person: messages, colours, the pager, a question. A pipe gets a patch's plain bytes."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TextIO

import click

from patcher.emit.text import visible

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


def say_in_color(lines: Iterable[str], colors: Mapping[str, str], when: str) -> None:
    """Print lines on standard output. What a regular expression matches first in a line gets its colour."""
    on = _colored(when, sys.stdout)
    for line in lines:
        shown = visible(line)
        for pattern, color in colors.items() if on else ():
            if match := re.search(pattern, shown):
                start, end = match.span()
                shown = shown[:start] + click.style(match[0], fg=color, bold=True) + shown[end:]
        click.echo(shown, color=on)


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
    from pygments import highlight  # slow to import
    from pygments.formatters.terminal import TerminalFormatter
    from pygments.lexers.diff import DiffLexer
    from pygments.token import Generic, Token

    scheme = {
        Token: "",
        Generic.Heading: "**",
        Generic.Subheading: "cyan",
        Generic.Inserted: "green",
        Generic.Deleted: "red",
    }
    formatter = TerminalFormatter(colorscheme={kind: (color, color) for kind, color in scheme.items()})
    diff = highlight(shown[start.start() :], DiffLexer(stripnl=False, ensurenl=False), formatter)
    return shown[: start.start()] + str(diff)


def agreed(patch: bytes, when: str) -> bool:
    """Show a patch and ask for a yes. The answer is read from the terminal also where standard output is a pipe."""
    show(patch, when, sys.stdout if sys.stdout.isatty() else sys.stderr)
    return bool(click.confirm("Emit this patch?", default=False, err=True))


def this_call(without: str) -> str:
    """The command as it was typed, without one option."""
    return shlex.join(["ci-patcher", *(word for word in sys.argv[1:] if word != without)])
