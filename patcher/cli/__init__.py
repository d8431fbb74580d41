"""The command line: options, files, echo, exit status. Nothing else prints or exits.

Each command is a module of its own that is imported when it is called: start-up time is a feature.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import signal
import sys
from importlib import import_module
from typing import Any, NoReturn

import click

from patcher import __version__
from patcher.errors import CiPatcherError, InputError

_COMMANDS = {
    "inspect": "Say what a tree's CI script holds and what a patch would do.",
    "patch": "Emit the reviewed patch for a tree.",
    "backport": "Emit one reviewed patch for each of many revisions.",
    "verify": "Run the contract's scenarios on a tree as it stands.",
    "recipes": "List the changes that can be made.",
}


# Building syntax trees makes many objects that all live to the end: looking for garbage among them is for nothing, at
# the end as well.
gc.set_threshold(100_000)
atexit.register(gc.freeze)


class _Ended(KeyboardInterrupt):
    """A signal that ends the program as Ctrl-C does: what it made for itself is removed first."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _end(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    raise _Ended(number)


class _Group(click.Group):
    """Shows every error in one place, with its exit status, and never a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"patcher.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        from patcher.cli.temporary import folder  # not for --version

        with folder():
            return super().invoke(ctx)

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        kwargs["standalone_mode"] = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a path need not be text in this locale, or in any
                stream.reconfigure(errors="backslashreplace")
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
        try:
            if sys.stdout is None:
                raise InputError("standard output is closed", hint="`> /dev/null` drops what comes out.")
            status = super().main(*args, **kwargs)
            sys.stdout.flush()
        except click.ClickException as error:
            error.show()
            status = 2
        except (click.exceptions.Abort, KeyboardInterrupt) as error:
            click.echo("interrupted", err=True)
            cause = error.__cause__ or error  # click makes an Abort of it
            status = 128 + (cause.number if isinstance(cause, _Ended) else signal.SIGINT)
        except CiPatcherError as error:
            show(error)
            status = error.status
        except (BrokenPipeError, SystemExit):  # which click makes of it
            # The reader had enough, as `head -1` has.
            _drop_output()
            status = 0
        except OSError as error:
            where = error.filename or "standard output or a temporary file"
            click.echo(f"{where}: {(error.strerror or str(error)).lower()}", err=True)
            _drop_output()
            status = 4
        sys.exit(status if isinstance(status, int) else 0)


def _drop_output() -> None:
    """Keep Python from flushing at its end what could not be written, and from complaining about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def show(error: CiPatcherError) -> None:
    """An error on standard error: where, what, and below it what to do next."""
    click.echo(str(error), err=True)
    for line in error.hint.splitlines():
        click.echo(f"  {line}", err=True)


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
