"""The errors of every stage, each with its exit status (docs/contract.md). The command line shows them."""

from __future__ import annotations


def reason(error: OSError) -> str:
    """What the system says of an error, as the end of a line."""
    return (error.strerror or str(error)).lower()


class CiPatcherError(Exception):
    """An error that the command line shows as one line, with what to do next below it.

    ``status`` is the exit status of docs/contract.md; ``where`` is ``file``, ``file:line:col`` or empty.
    """

    status = 2

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class UsageError(CiPatcherError):
    """The options do not fit the input, or a recipe is broken."""


class RefusedError(CiPatcherError):
    """No place for the change was found, or more than one and the choice is not clear."""

    status = 3


class NoBuildError(RefusedError):
    """There is no image build at all, so there is nothing that the change could be made to."""


class InputError(CiPatcherError):
    """A file or a revision cannot be read or parsed."""

    status = 4
