"""What a terminal gets: colours, the user's pager, a question. A pipe gets plain bytes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click

from patcher import sources
from patcher.errors import UsageError

color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours; auto: on a terminal, unless NO_COLOR is set.",
)

# As git colours a diff.
_LINES = (
    (re.compile(rb"@@ .*? @@"), {"fg": "cyan"}),
    (re.compile(rb"(?:diff --git|index|---|\+\+\+|old mode|new mode) .*"), {"bold": True}),
    (re.compile(rb"\+.*"), {"fg": "green"}),
    (re.compile(rb"-.*"), {"fg": "red"}),
)


def colors(when: str, stream: TextIO) -> bool:
    """Whether a stream gets colours: ``when`` is the option's value."""
    if when == "auto":
        return _able(stream) and not os.environ.get("NO_COLOR")
    return when == "always"


def _able(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def painted(text: bytes) -> bytes:
    """A patch with the colours of its diff, which begins at ``diff --git``; what stands before has none."""
    lines = text.split(b"\n")
    first = next((number for number, line in enumerate(lines) if line.startswith(b"diff --git ")), len(lines))
    return b"\n".join([*lines[:first], *map(_painted, lines[first:])])


def _painted(line: bytes) -> bytes:
    for pattern, style in _LINES:
        if match := pattern.match(line):
            before, behind = (click.style("\0", **style).split("\0", 1)) if style else ("", "")
            return before.encode() + match[0] + behind.encode() + line[match.end() :]
    return line


def harmless(text: bytes) -> bytes:
    """Without what could make a terminal do something: a patch may hold any byte. Shown as ``^[``."""
    return re.sub(rb"[\x00-\x08\x0b-\x1f\x7f]", lambda match: b"^" + bytes((match[0][0] ^ 64,)), text)


def show(patch: bytes, when: str, stream: TextIO) -> None:
    """Show a patch on a terminal, in colour and through the pager as git would."""
    text = harmless(patch)
    text = painted(text) if colors(when, stream) else text
    command = _pager() if _able(stream) else ""
    if not command or not _paged(text, command, stream):
        click.echo(text, file=stream, nl=False, color=True)


def _pager() -> str:
    """The user's pager, found as git finds it, but not in a repository's own configuration."""
    found = os.environ.get("GIT_PAGER")
    if found is None:
        said = sources.git(Path("/"), ["config", "--global", "--get", "core.pager"], check=False)
        found = said.stdout.decode("utf8", "surrogateescape").strip() if said.returncode == 0 else None
    if found is None:
        found = os.environ.get("PAGER", "less")
    return "" if found == "cat" else found


def _paged(text: bytes, command: str, stream: TextIO) -> bool:
    """Whether the pager could be run. It may be left before it has read all."""
    stream.flush()
    environment = {"LESS": "FRX", "LV": "-c"} | dict(os.environ)
    # Ctrl-C is the pager's while it runs. Not SIG_IGN, which the pager would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        pager = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, stdout=stream, env=environment)
        try:
            pager.communicate(text)
        except BrokenPipeError:
            pager.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return pager.returncode not in {126, 127}


_STYLES = {"place": "green", "good": "green", "bad": "red", "odd": "yellow"}


def echo(lines: Sequence[str], pattern: str, when: str) -> None:
    """Print lines; where a line matches, the named groups of the pattern are in colour."""
    on = colors(when, sys.stdout)
    if sys.stdout.isatty():
        lines = [harmless(line.encode("utf8", "surrogateescape")).decode("utf8", "surrogateescape") for line in lines]
    for line in lines:
        found = re.search(pattern, line) if on else None
        for name, text in found.groupdict().items() if found else ():
            if found and text:
                start, end = found.span(name)
                line = line[:start] + click.style(text, _STYLES[name], bold=True) + line[end:]  # noqa: PLW2901
        click.echo(line, color=on)


def must_be_there() -> None:
    """Raises UsageError where nobody can be asked: standard output may go elsewhere, the answer may not."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("--interactive needs a terminal", hint="Without one, the review is on standard error anyway.")


def agreed(patch: bytes, when: str) -> bool:
    """Show a patch and ask for a yes."""
    show(patch, when, sys.stdout if sys.stdout.isatty() else sys.stderr)
    return bool(click.confirm("Emit this patch?", default=False, err=True))
