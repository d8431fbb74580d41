"""The same change for many revisions, and the outcome of each. Nothing is written here."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from patcher import pipeline, signals
from patcher.errors import CiPatcherError, InputError
from patcher.model import Outcome, Patch, Recipe, Result, Script, Source, Target
from patcher.repository import Objects

_Made = Patch | CiPatcherError
_Change = Callable[[Source], Patch]


def status(outcomes: Sequence[Outcome]) -> int:
    """The exit status of all: the highest, where skipped revisions count only if nothing else was asked for."""
    counted = [outcome for outcome in outcomes if outcome.result is not Result.SKIPPED] or outcomes
    bad = {Result.FAILED, Result.NEEDED}
    return max((one.error.status if one.error else int(one.result in bad) for one in counted), default=0)


def run(
    objects: Objects,
    targets: Sequence[Target],
    recipe: Recipe,
    values: Mapping[str, str],
    *,
    reverse: bool = False,
    verify: bool = True,
    strict: bool = False,
    check: bool = False,
) -> Generator[Outcome, None, None]:
    """Make the change for each target, in order; what goes wrong with one is its outcome and stops no other.

    With ``check`` it is only told whether a patch is needed: nothing is reviewed that takes long.
    Targets with the same scripts are parsed and reviewed once. The work is done in processes that are forked with the
    first step of the iterator; closing it ends them.
    """
    held = {target.name: _source(objects, target, recipe) for target in targets if target.commit}
    first: dict[object, str] = {}
    leads = {name: first.setdefault(_same(source), name) for name, source in held.items()}
    processors = len(os.sched_getaffinity(0))
    workers = max(1, min(processors, len(first)))
    change = partial(
        pipeline.change,
        recipe=recipe,
        values=values,
        reverse=reverse,
        verify=verify and not check,
        jobs=processors // workers,
    )
    outcome = partial(Outcome, strict=strict and not check, check=check)
    with _started(workers, held, change, first.values()) as tasks:
        for target in targets:
            if target.commit is None:
                yield outcome(target, error=target.error)
                continue
            lead = leads[target.name]
            made = _result(tasks[lead])
            if isinstance(made, Patch):
                yield outcome(target, replace(made, source=held[target.name]))
            else:
                where = "" if made.where == lead else made.where
                yield outcome(target, error=type(made)(made.what, where=where, hint=made.hint))


def _result(task: Future[str]) -> _Made:
    try:
        made: _Made = pickle.loads(Path(task.result()).read_bytes())
    except BrokenProcessPool:
        return InputError("the process that worked on it was killed", hint="Is there enough memory?")
    return made


# the processes


class _Shared:
    """What a process inherits: in a queue, large tasks would block for ever if the process were killed."""

    held: Mapping[str, Source]
    change: _Change


@contextmanager
def _started(
    workers: int, held: Mapping[str, Source], change: _Change, names: Iterable[str]
) -> Iterator[dict[str, Future[str]]]:
    """A task for each name, in processes that are killed where the context ends."""
    pool = ProcessPoolExecutor(workers, initializer=_begin, initargs=(held, change))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals.ENDING)  # a new process cannot handle one yet
    try:
        tasks = {name: pool.submit(_make, name) for name in names}
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield tasks
    finally:
        for process in multiprocessing.active_children():
            process.kill()
        pool.shutdown(cancel_futures=True)


def _begin(held: Mapping[str, Source], change: _Change) -> None:
    """Begin a process: it leaves Ctrl-C to its parent, and does not outlive it."""
    _Shared.held, _Shared.change = held, change
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.ENDING)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)


def _make(name: str) -> str:
    """The path of a file with what is made of a source. A large result, sent itself, would block the parent for ever
    if its process were killed in the middle of it."""
    made: _Made
    try:
        made = _Shared.change(_Shared.held[name])
    except CiPatcherError as error:
        made = error
    except (OSError, subprocess.SubprocessError, MemoryError, RecursionError) as error:
        made = InputError(str(error) or "not enough memory")
    with tempfile.NamedTemporaryFile(prefix="ci-patcher-", delete=False) as file:
        pickle.dump(made, file)
    return file.name


# the sources


def _source(objects: Objects, target: Target, recipe: Recipe) -> Source:
    """The source of a target, with all scripts that the change can need."""
    assert target.commit is not None
    held: dict[str, Script | InputError | None] = {}
    for path in [*recipe.files, *recipe.callers, *(path for form in recipe.replaces for path in form.files)]:
        try:
            held[path] = objects.script(target.commit.name, path, path)
        except InputError as error:
            held[path] = error
    return Source(target.name, objects.repository, objects.repository, revision=target.commit.name, held=held)


def _same(source: Source) -> object:
    """What two revisions must share for one review to serve both."""
    return tuple(str(script) if isinstance(script, InputError) else script for script in source.held.values())
