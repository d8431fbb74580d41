"""The command line: options, files, messages, exit status. Nothing else prints or exits.

Each command is a module that is imported when the command is called, because start-up time is a feature.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from patcher import __version__
from patcher.cli.terminal import say
from patcher.errors import CiPatcherError, InputError, reason

COMMANDS = {
    "inspect": "Show what a tree's CI script holds and what a patch would do.",
    "patch": "Emit the reviewed patch for a tree.",
    "backport": "Emit one reviewed patch for each of many revisions.",
    "verify": "Run the contract's scenarios on a tree as it stands.",
    "recipes": "List the changes that can be made.",
}

# Most objects are parts of syntax trees and live to the end, so that searching for garbage costs time and finds none.
gc.set_threshold(100_000)
atexit.register(gc.freeze)


def _end(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    """End as Ctrl-C does: temporary files are removed first."""
    raise KeyboardInterrupt(number)


class _Group(click.Group):
    """The commands. Every error is shown here, with its exit status and without a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"patcher.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        from patcher.cli.temporary import folder  # not for --version

        with folder():
            return super().invoke(ctx)

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # the locale's encoding may lack a character
                stream.reconfigure(errors="backslashreplace")
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
        try:
            status = self._status(*args, **kwargs)
        except (BrokenPipeError, SystemExit):  # click exits on a broken pipe: the reader stopped, as `head -1` does
            _drop_output()
            status = 0
        except OSError as error:
            where = error.filename or "standard output or a temporary file"
            with suppress(OSError):
                say(f"{where}: {reason(error)}", err=True)
            _drop_output()
            status = 4
        sys.exit(status)

    def _status(self, *args: Any, **kwargs: Any) -> int:
        try:
            if sys.stdout is None:
                raise InputError("standard output is closed", hint="`> /dev/null` drops the output.")
            status = super().main(*args, **kwargs | {"standalone_mode": False})
            sys.stdout.flush()
        except click.ClickException as error:
            shown = io.StringIO()
            error.show(shown)
            say(shown.getvalue().rstrip(), err=True)
            return 2
        except (click.exceptions.Abort, KeyboardInterrupt) as error:
            say("interrupted", err=True)
            cause = error.__cause__ or error  # click turns a KeyboardInterrupt into an Abort
            return 128 + (cause.args[0] if cause.args else signal.SIGINT)
        except CiPatcherError as error:
            show(error)
            return error.status
        return status if isinstance(status, int) else 0


def _drop_output() -> None:
    """Keep Python from writing at exit what could not be written before, and from complaining about it."""
    null = os.open(os.devnull, os.O_WRONLY)
    for handle in (1, 2):
        os.dup2(null, handle)


def show(error: CiPatcherError) -> None:
    """Print an error: where, what, and below it what to do next."""
    say("\n  ".join([str(error), *error.hint.splitlines()]), err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ci-patcher")
def main() -> None:
    """Give the Bitcoin Core CI scripts an opt-in docker build cache, as a reviewed patch.

    \b
    Example:
      ci-patcher inspect ~/bitcoin
      ci-patcher patch ~/bitcoin | git -C ~/bitcoin am

    \b
    Completions, for your shell's start-up file:
      bash:  eval "$(_CI_PATCHER_COMPLETE=bash_source ci-patcher)"
      zsh:   eval "$(_CI_PATCHER_COMPLETE=zsh_source ci-patcher)"
      fish:  _CI_PATCHER_COMPLETE=fish_source ci-patcher | source
    """
