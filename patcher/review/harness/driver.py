"""Runs scenarios inside the sandbox, as its process 1, and writes what came of each as a line of JSON.

Only the standard library is there, and nothing of this project. ``patcher.review.behaviour`` hands over the jobs as
``jobs`` in this module's names, and reads the results from standard output. As process 1 it inherits every process
of a scenario, so that it knows when all have ended, and no signal of theirs ends it.

It is started for every few scenarios, so it imports no module that takes milliseconds (json, re, typing, contextlib).
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time
from _json import encode_basestring_ascii as quoted

# ruff: noqa: SIM105, F821
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    jobs: list[dict[str, Any]]

PROCESSES = 200  # of a scenario, all together; a real one has about ten
MEMORY = 1 << 30  # bytes in use by all of them
ENTRIES = 2000  # of one directory tree in the result
STILL = 50  # looks, at least a fiftieth of a second each, after which a run that never moved waits for another
TEXT = 16000  # characters of one file in the result


class Stop(Exception):  # noqa: N818 - it ends the scenario and is no error of this program
    """The scenario cannot go on; the argument says why."""


def limit(job: dict[str, Any]) -> None:
    """Lowers what this process, and so its children, may use."""
    for name, value in job["limits"].items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (wanted, wanted))


def place(path: str, kind: str, mode: str, content: str) -> None:
    """Makes one file, directory, link or named pipe."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if kind == "link":
        os.symlink(content, path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        os.makedirs(path, exist_ok=True)
    else:
        with open(path, "wb") as file:
            file.write(content.encode("utf8", "surrogateescape"))
    if kind != "link":
        os.chmod(path, int(mode, 8))


def look(root: str) -> list[list[str]]:
    """What lies below ``root``: path, kind, mode and content of each entry, without following a link."""
    found: list[list[str]] = []
    waiting = [root]
    while waiting and len(found) < ENTRIES:
        path = waiting.pop()
        try:
            status = os.lstat(path)
        except OSError:
            continue
        mode = f"{status.st_mode & 0o7777:o}"
        if (kind := status.st_mode & 0o170000) == 0o120000:
            found.append([path, "link", "", os.readlink(path)])
        elif kind == 0o040000:
            found.append([path, "directory", mode, ""])
            try:
                waiting += sorted(os.path.join(path, name) for name in os.listdir(path))
            except OSError:
                pass
        elif kind == 0o100000:
            content = b""
            try:
                with open(path, "rb") as file:
                    content = file.read(TEXT)
            except OSError:
                pass
            found.append([path, "file", mode, content.decode("utf8", "replace")])
        else:
            found.append([path, "other", mode, ""])
    return sorted(found)


def tail(path: str, size: int) -> str:
    """The first and the last ``size`` bytes of a file, up to the ends of lines; all of it where it is short."""
    try:
        with open(path, "rb") as file:
            first = file.read(size)
            end = file.seek(0, os.SEEK_END)
            file.seek(max(size, end - size))
            last = file.read(size)
            if end > 2 * size:
                last = b"...\n" + last[last.find(b"\n") + 1 :]
                first = first[: first.rfind(b"\n") + 1] or first + b"\n"
            return (first + last).decode("utf8", "surrogateescape")
    except OSError:
        return ""


def read(path: str) -> str:
    """The text of a file of /proc; nothing where its process has ended."""
    try:
        with open(path, encoding="latin1") as file:
            return file.read()
    except OSError:
        return ""


def dumps(value: object) -> str:
    """A value as JSON."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{quoted(key)}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return quoted(value) if isinstance(value, str) else "null" if value is None else str(value)


class Run:
    """One run of the script: its process, its control directory and the point that it waits at."""

    def __init__(self, name: str, spec: dict[str, Any]) -> None:
        self.name = name
        self.spec = spec
        self.folder: str = spec["folder"]
        self.pid = 0
        self.status: int | None = None
        self.at = ""
        self.aside = False
        self.point = os.open(f"{self.folder}/at", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.go = os.open(f"{self.folder}/go", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def start(self) -> None:
        """Starts the script in a session of its own, with the signal dispositions that a login gives."""
        appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        output = os.open(f"{self.folder}/output", appended, 0o644)
        errors = os.open(f"{self.folder}/errors", appended, 0o644)
        null = os.open("/dev/null", os.O_RDONLY)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                    try:
                        signal.signal(number, signal.SIG_DFL)
                    except (OSError, ValueError):
                        pass
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                os.umask(0o022)
                os.chdir(self.spec["cwd"])
                os.dup2(null, 0)
                os.dup2(output, 1)
                os.dup2(errors, 2)
                environment = {**self.spec["environment"], "CI_PATCHER_PID": str(os.getpid())}
                encoded = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
                os.execvpe(self.spec["argv"][0], self.spec["argv"], encoded)
            except BaseException as error:
                os.write(2, f"cannot start: {error}\n".encode("utf8", "surrogateescape"))
            finally:
                os._exit(126)
        for descriptor in (output, errors, null):
            os.close(descriptor)

    def processes(self) -> dict[str, tuple[str, int]]:
        """State and group of each process of the run's session; one that waits to be reaped is not among them."""
        found = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                fields = read(f"/proc/{name}/stat").rpartition(")")[2].split()
                if len(fields) > 3 and int(fields[3]) == self.pid and fields[0] not in "ZX":
                    found[name] = (fields[0], int(fields[2]))
        return found

    def ungrouped(self) -> bool:
        """Whether a process of the run is in a group of its own, where a signal to the script's group passes it by."""
        return any(group != self.pid for _, group in self.processes().values())

    def alive(self) -> bool:
        """Whether any process of the run is left."""
        return bool(self.processes())

    def standing(self) -> str:
        """Where all processes of the run sleep: what tells one such moment from a later one, else nothing."""
        found = ""
        for name, (state, _) in self.processes().items():
            if state != "S":
                return ""
            found += name + read(f"/proc/{name}/status").partition("voluntary_ctxt_switches")[2]
        return found

    def release(self) -> None:
        """Lets the program that waits at a point go on."""
        if self.at:
            self.at = ""
            os.write(self.go, b"\n")


class Scenario:
    """The runs of one scenario and the steps that lead them."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.counted = 0.0
        self.deadline = time.monotonic() + job["seconds"]
        self.runs = {name: Run(name, spec) for name, spec in job["runs"].items()}
        self.looks: list[list[list[str]]] = []
        self.missed: list[str] = []

    def pump(self, seconds: float) -> None:
        """Takes in ended processes and reported points; waits up to ``seconds`` for one."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            seconds = 0
            for run in self.runs.values():
                if run.pid == pid:
                    run.status = os.waitstatus_to_exitcode(status)
        points = {run.point: run for run in self.runs.values() if run.pid}
        readable = select.select([*points, self.wakeup], [], [], seconds)[0]
        for descriptor in readable:
            text = os.read(descriptor, 4096)
            if descriptor in points:
                points[descriptor].at = text.decode("utf8", "replace").split("\n")[-2]
                if points[descriptor].at == "endless":
                    raise Stop(f"run {points[descriptor].name} tries for ever")
        now = time.monotonic()
        if now > self.deadline:
            raise Stop(f"did not end within {self.job['seconds']} s")
        if now > self.counted + 0.05:
            self.counted = now
            # The limit on the number of processes does not bind root, that on memory binds each one alone.
            names = [name for name in os.listdir("/proc") if name.isdigit()]
            if len(names) > PROCESSES:
                raise Stop(f"more than {PROCESSES} processes")
            pages = sum(int((read(f"/proc/{name}/statm") or "0 0").split()[1]) for name in names)
            if pages * resource.getpagesize() > MEMORY:
                raise Stop(f"more than {MEMORY} bytes of memory")

    def wait(self, run: Run, point: str, or_lock: bool) -> None:
        """Until the run is at ``point``, has ended or, where that is allowed, stands before a lock of a file."""
        still, now = 0, ""
        while run.at != point:
            if run.at:
                run.release()
            if run.status is not None and not run.alive():
                self.missed.append(f"the point {point} was never reached")
                return
            self.pump(0.02)
            # /proc/locks does not show a lock whose first owner has ended, so: all asleep, and nothing moves.
            before, now = now, run.standing()
            still = still + 1 if now and now == before else 0
            if or_lock and run.at != point and still == 4:
                return
            if still >= STILL and self.beside(run):
                raise Stop(f"run {run.name} stood still before {point}, beside the other")

    def settle(self, run: Run) -> None:
        """Waits until all processes of a run sleep, so that none is between its fork and its own dispositions.

        One that never rests is not waited for.
        """
        patience = time.monotonic() + 2
        before, now = "", run.standing()
        while not (now and now == before) and run.alive() and time.monotonic() < patience:
            self.pump(0.002)
            before, now = now, run.standing()

    def strike(self, run: Run, whom: str, name: str) -> None:
        """Sends a signal, and waits until the script itself has taken it where it went to the script alone."""
        number = getattr(signal, f"SIG{name}")
        if run.status is not None:
            return
        self.settle(run)
        if whom == "group":
            # A program that went into a group of its own (timeout does) lives on, to the end of what it does.
            run.aside = run.ungrouped()
            os.killpg(run.pid, number)
            run.at = run.at if name != "KILL" or run.aside else ""
            return
        os.kill(run.pid, number)
        while run.status is None:
            self.pump(0.001)
            pending = blocked = 0
            for line in read(f"/proc/{run.pid}/status").splitlines():
                key, _, value = line.partition(":\t")
                if key in {"SigPnd", "ShdPnd"}:
                    pending |= int(value, 16)
                elif key == "SigBlk":
                    blocked = int(value, 16)
            # A signal that the script blocks stays pending.
            pending &= ~blocked
            if not pending >> (number - 1) & 1:
                return

    def ended(self, run: Run) -> None:
        """Lets the run go on to its end and waits for the last process of it."""
        still, now = 0, ""
        while run.status is None or run.alive():
            run.release()
            self.pump(0.02)
            if self.beside(run):
                before, now = now, run.standing()
                still = still + 1 if now and now == before else 0
                if still >= STILL:
                    raise Stop(f"run {run.name} stood still, beside the other")

    def beside(self, run: Run) -> bool:
        """Whether another run is held meanwhile, for which this one may wait for ever."""
        return any(other.at for other in self.runs.values() if other is not run)

    def dead(self, run: Run) -> None:
        """Waits for the script itself, while whatever it started still waits."""
        patience = time.monotonic() + 3
        while run.status is None and time.monotonic() < patience:
            self.pump(0.02)
        if run.status is None:
            self.missed.append("the script had not ended at once")

    def play(self) -> str:
        """Goes through the steps and returns why they could not be finished, or nothing."""
        self.wakeup, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        try:
            for step in self.job["steps"]:
                verb, *words = step.split()
                if verb == "look":
                    self.looks.append(look(self.job["root"]))
                    continue
                run = self.runs[words[0]]
                if verb == "start":
                    run.start()
                elif verb == "wait":
                    self.wait(run, words[1], words[2:] == ["or", "lock"])
                elif verb == "signal":
                    self.strike(run, words[1], words[2])
                elif verb == "go":
                    run.release()
                elif verb == "dead":
                    self.dead(run)
                elif verb == "end":
                    self.ended(run)
            patience = time.monotonic() + 1
            while any(name.isdigit() and name != "1" for name in os.listdir("/proc")):
                if time.monotonic() > patience:
                    raise Stop("left a process running")
                self.pump(0.02)
        except Stop as stop:
            return str(stop)
        finally:
            signal.set_wakeup_fd(-1)
            os.close(self.wakeup)
            os.close(write)
        return ""


def empty(path: str) -> None:
    """Removes what is in a directory, whatever its modes; a mount point stays."""
    try:
        os.chmod(path, 0o755)
        names = os.listdir(path)
    except OSError:
        return
    for name in names:
        below = f"{path}/{name}"
        try:
            os.unlink(below)
        except OSError:
            if not os.path.islink(below):
                empty(below)
                try:
                    os.rmdir(below)
                except OSError:
                    pass


def play(job: dict[str, Any]) -> dict[str, Any]:
    """Runs one job and returns its result."""
    if not os.path.lexists(job["lib"][0][0]):
        for entry in job["lib"]:
            place(*entry)
    for entry in job["files"]:
        place(*entry)
    before = look(job["root"])
    scenario = Scenario(job)
    stopped = scenario.play()
    # Process 1 is spared; twice, for what was being started meanwhile.
    for _ in range(2 if stopped else 0):
        try:
            os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
    scenario.looks.append(look(job["root"]))
    for run in scenario.runs.values():
        os.close(run.point)
        os.close(run.go)
    return {
        "stopped": stopped,
        "missed": scenario.missed,
        "before": before,
        "looks": scenario.looks,
        "scratch": look("/tmp"),
        "runs": {
            name: {
                "pid": run.pid,
                "status": run.status,
                "aside": int(run.aside),
                "output": tail(f"{run.folder}/output", 16000),
                "errors": tail(f"{run.folder}/errors", 16000),
                "log": tail(f"{run.folder}/log", 100_000),
                "exits": tail(f"{run.folder}/exits", 1000),
                "said": tail(f"{run.folder}/said", 1000),
                "points": tail(f"{run.folder}/points", 100_000),
            }
            for name, run in scenario.runs.items()
        },
    }


def main() -> None:
    """Runs the jobs, one after another, each in an empty sandbox."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.umask(0o022)
    finished: dict[str, Any] = {}
    for job in jobs:
        if finished:
            for folder in finished["clean"]:
                empty(folder)
        else:
            limit(job)
        finished = job
        sys.stdout.write(dumps(play(job)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
