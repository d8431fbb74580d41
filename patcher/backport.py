"""The same change for many revisions: which ones, and what came of each. Nothing is written here."""

from __future__ import annotations

import fnmatch
import multiprocessing
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

from patcher import pipeline, sources
from patcher.errors import CiPatcherError, InputError, UsageError
from patcher.model import Outcome, Patch, Recipe, Result, Script, Source, Target
from patcher.sources import Objects

_RELEASE = re.compile(r"[0-9]+\.x")


def status(outcomes: Sequence[Outcome]) -> int:
    """The exit status of all: the highest, where a skipped revision counts only if it was the only one."""
    found = [0]
    for outcome in outcomes:
        if outcome.result is Result.FAILED:
            found.append(1)
        elif outcome.error is not None and (outcome.result is Result.ERROR or len(outcomes) == 1):
            found.append(outcome.error.status)
    return max(found)


def select(objects: Objects, names: Sequence[str]) -> list[Target]:
    """The revisions that names, globs, tags and other revisions stand for, each once, in the given order.

    Without a name: all branches ``N.x``, then the default branch. A local branch comes before a remote's of
    the same name. A name that git does not know becomes a target without a commit. Raises UsageError where
    nothing is named and nothing found.
    """
    listed = sources.git(
        objects.repository,
        ["for-each-ref", "--format=%(refname)%00%(symref)", "refs/heads", "refs/remotes", "refs/tags"],
    ).stdout.decode("utf8", "surrogateescape")
    symrefs = dict(line.split("\0") for line in listed.splitlines())
    branches, remotes, tags = _by_name(symrefs)
    wanted: dict[str, str] = {}
    for name in names or _default(symrefs, branches):
        if not re.search(r"[*?\[]", name):
            wanted.setdefault(name, branches.get(name) or tags.get(name, name))
            continue
        for known in (branches, remotes, tags):
            matches = [one for one in known if fnmatch.fnmatchcase(one, name) and one.count("/") == name.count("/")]
            if matches:
                for match in sorted(matches, key=_natural):
                    wanted.setdefault(match, known[match])
                break
        else:
            wanted.setdefault(name, "")
    if not wanted:
        raise UsageError(
            "neither a release branch (N.x) nor a default branch is here",
            where=str(objects.repository),
            hint="Name the branches, tags or revisions.",
        )
    targets: list[Target] = []
    for name, ref in wanted.items():
        revision = re.sub(r"^refs/(heads|remotes|tags)/", "", ref) if ref else name
        label = _label(name, {target.label for target in targets})
        targets.append(Target(name, label, revision, objects.commit(ref)))
    return targets


def _by_name(symrefs: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """The refs of branches by their short names (a remote's without the remote where that is free), of remotes'
    branches by ``remote/name``, and of tags."""
    branches, remotes, tags = (
        {ref.removeprefix(prefix): ref for ref, symref in symrefs.items() if ref.startswith(prefix) and not symref}
        for prefix in ("refs/heads/", "refs/remotes/", "refs/tags/")
    )
    order = {remote: index for index, remote in enumerate(sources.REMOTES)}
    for name in sorted(remotes, key=lambda name: (order.get(name.split("/")[0], len(order)), name)):
        branches.setdefault(name.partition("/")[2], remotes[name])
    return branches, remotes, tags


def _default(symrefs: Mapping[str, str], branches: Mapping[str, str]) -> list[str]:
    releases = sorted((name for name in branches if _RELEASE.fullmatch(name)), key=_natural)
    heads = [symrefs.get(f"refs/remotes/{remote}/HEAD", "") for remote in sources.REMOTES]
    named = [head.removeprefix("refs/remotes/").partition("/")[2] for head in heads if head]
    default = [name for name in (*named, "master", "main") if name in branches]
    return [*releases, *default[:1]]


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _label(name: str, taken: set[str]) -> str:
    """A name for a folder or a branch: no slash, no leading dot or dash, nothing that git refuses."""
    safe = re.sub(r"[^A-Za-z0-9._+]+|\.\.+", "-", name)[:100].strip("-.").removesuffix(".lock") or "revision"
    label, number = safe, 1
    while label.lower() in {one.lower() for one in taken}:
        number += 1
        label = f"{safe}-{number}"
    return label


def run(
    objects: Objects,
    targets: Sequence[Target],
    recipe: Recipe,
    values: Mapping[str, str],
    *,
    reverse: bool = False,
    verify: bool = True,
    strict: bool = False,
) -> Generator[Outcome, None, None]:
    """Make the change for each target, in order; what goes wrong with one is its outcome and stops no other.

    Targets with the same scripts are parsed and reviewed once. The work begins with this call, in processes of
    their own; closing the iterator ends them.
    """
    held = {target.name: _source(objects, target, recipe) for target in targets if target.commit}
    first: dict[object, str] = {}
    leads = {name: first.setdefault(_same(source, recipe), name) for name, source in held.items()}
    processors = len(os.sched_getaffinity(0))
    workers = min(processors, len(first))
    work = _Work(held, recipe, values, reverse, verify, max(1, processors // max(1, workers)))
    tasks = _tasks({name: held[name] for name in first.values()}, recipe, together=not verify)
    return _outcomes(targets, held, leads, _Workers(work, tasks, workers), strict)


def _outcomes(
    targets: Sequence[Target], held: Mapping[str, Source], leads: Mapping[str, str], workers: _Workers, strict: bool
) -> Generator[Outcome, None, None]:
    with workers:
        for target in targets:
            if target.commit is None:
                yield Outcome(target, error=_unknown(target), strict=strict)
                continue
            lead = leads[target.name]
            found = workers.result(lead)
            if isinstance(found, Patch):
                yield Outcome(target, replace(found, source=held[target.name]), strict=strict)
            else:
                yield Outcome(target, error=_renamed(found, lead, target.name), strict=strict)


_Made = Patch | CiPatcherError


@dataclass(frozen=True, slots=True)
class _Work:
    """What is asked of each source."""

    held: Mapping[str, Source]
    recipe: Recipe
    values: Mapping[str, str]
    reverse: bool
    verify: bool
    jobs: int

    def __call__(self, names: Sequence[str]) -> dict[str, _Made]:
        return {name: self._one(self.held[name]) for name in names}

    def _one(self, source: Source) -> _Made:
        try:
            return pipeline.change(
                source, self.recipe, self.values, reverse=self.reverse, verify=self.verify, jobs=self.jobs
            )
        except CiPatcherError as error:
            return error
        except (OSError, subprocess.SubprocessError) as error:
            return InputError(str(error))


class _Workers:
    """Processes that each do one task at a time, since most of the time is Python's own where the linters and scenarios
    are left out. They are forked here, before a progress bar starts its thread, and killed where the context ends.

    Each has a pipe of its own and nothing else in common with the others, so that one can be killed at any moment: the
    executors of the standard library can wait for ever for what a killed process has sent by half.
    """

    def __init__(self, work: _Work, tasks: Sequence[list[str]], workers: int) -> None:
        self._work = work
        self._waiting = list(tasks)
        self._done: dict[str, _Made] = {}
        self._busy: dict[Connection, list[str]] = {}
        self._processes: list[multiprocessing.Process] = []
        self._folder = tempfile.TemporaryDirectory(prefix="ci-patcher-", ignore_cleanup_errors=True)
        for _ in range(workers if workers > 1 else 0):
            here, there = multiprocessing.Pipe()
            process = multiprocessing.Process(target=_serve, args=(there, work, self._folder.name), daemon=True)
            process.start()
            there.close()
            self._processes.append(process)
            self._next(here)

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._folder.cleanup()

    def result(self, name: str) -> _Made:
        """What came of a source. Raises nothing of its own: that its process was killed is an error of the source."""
        while name not in self._done:
            if not self._processes:
                self._done |= self._work(self._waiting.pop(0))
            elif not self._busy:
                self._lost([name])
            for connection in wait(list(self._busy)) if self._busy else ():
                assert isinstance(connection, Connection)
                names = self._busy.pop(connection)
                try:
                    self._done |= connection.recv()
                except EOFError:
                    self._lost(names)
                else:
                    self._next(connection)
        return self._done[name]

    def _next(self, connection: Connection) -> None:
        task = self._waiting.pop(0) if self._waiting else None
        if task:
            self._busy[connection] = task
        connection.send(task)

    def _lost(self, names: Sequence[str]) -> None:
        error = InputError("the process that worked on it was killed", hint="Is there enough memory?")
        self._done |= dict.fromkeys(names, error)


def _serve(connection: Connection, work: _Work, folder: str) -> None:
    """A process of the workers: leave Ctrl-C to the parent, which removes what a killed one leaves in the folder for
    temporary files, and outlive no parent."""

    def follow() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    tempfile.tempdir = folder
    threading.Thread(target=follow, daemon=True).start()
    with suppress(EOFError, BrokenPipeError):
        while task := connection.recv():
            connection.send(work(task))


def _tasks(sources: Mapping[str, Source], recipe: Recipe, *, together: bool) -> list[list[str]]:
    """The names that one process does at a time. Those with the less frequent language come first, ``together`` where
    importing a parser takes as long as using it."""
    groups: dict[str, list[str]] = {}
    for name, source in sources.items():
        scripts = [script for path in recipe.files if isinstance(script := source.held[path], Script)]
        languages = [script.language for script in scripts if pipeline.may_build(script)]
        groups.setdefault(min(languages, default=""), []).append(name)
    *few, most = sorted(groups.values(), key=len) or [[]]
    singly = [[name] for names in ([most] if together else [*few, most]) for name in names]
    return [*few, *singly] if together else singly


def _renamed(error: CiPatcherError, lead: str, name: str) -> CiPatcherError:
    """The error of a target with the same scripts as one that failed."""
    return type(error)(error.what, where=name if error.where == lead else error.where, hint=error.hint)


def _source(objects: Objects, target: Target, recipe: Recipe) -> Source:
    assert target.commit is not None
    paths = dict.fromkeys([*recipe.files, *(path for form in recipe.replaces for path in form.files)])
    return Source(
        target.name,
        objects.repository,
        objects.repository,
        revision=target.commit.name,
        held={path: objects.script(target.commit, path, path) for path in paths},
    )


def _same(source: Source, recipe: Recipe) -> object:
    """What two revisions must share for one review to serve both: the recipe's files, and those in which a
    foreign block can have left something, where there is one."""
    scripts = [source.held[path] for path in recipe.files]
    texts = [script.text for script in scripts if script is not None and not isinstance(script, InputError)]
    foreign = [form for form in recipe.replaces if any(name in text for name in form.variables for text in texts)]
    scripts += [source.held[path] for form in foreign for path in form.files]
    return tuple(str(script) if isinstance(script, InputError) else script for script in scripts)


def _unknown(target: Target) -> InputError:
    if Path(target.name).is_dir():
        return InputError("a folder, not a branch", hint=f"Is it the clone? ci-patcher backport --repo {target.name}")
    glob = re.search(r"[*?\[]", target.name)
    return InputError(
        "no branch or tag matches" if glob else "no such branch, tag or revision here",
        hint="`git branch --all` and `git tag` list what there is; nothing is fetched.",
    )
