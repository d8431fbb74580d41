"""One folder for all temporary files of a run, so that none is left behind by a signal."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from patcher import signals


@contextmanager
def folder() -> Iterator[None]:
    """Temporary files go into a folder of their own while the context lasts, and are removed with it.

    A signal waits while the folder is made, and is ignored while it is removed: the run is at its end then.
    """
    before = tempfile.tempdir
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)
    try:
        tempfile.tempdir = tempfile.mkdtemp(prefix="ci-patcher-")
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield
    finally:
        with signals.ignored():
            if tempfile.tempdir != before:
                shutil.rmtree(tempfile.tempdir or "", ignore_errors=True)
            tempfile.tempdir = before
