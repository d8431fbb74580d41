"""Leads scenarios inside the sandbox, as its process 1, and writes what it observed of each as a line of JSON.

Only the standard library is there, and nothing of this project. ``patcher.review.stage`` hands over the jobs as
``jobs`` in this module's names, and reads the results from standard output. As process 1 it inherits every process
of a scenario, so that it knows when all have ended, and no signal of theirs ends it.

It imports no module that takes milliseconds (json, re, typing, contextlib).
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time

# ruff: noqa: F821, N818, SIM105
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from patcher.review.harness.tools import become, dumps, empty, inodes, limit, look, place, prepare, read, seal

    jobs: list[dict[str, Any]]

PROCESSES = 200  # of a scenario, all together; a real one has about ten
MEMORY = 1 << 30  # bytes in use by all of them
INODES = 20_000  # on the sandbox's own file systems


class Stop(Exception):
    """The scenario cannot go on; the argument says why."""


class Become(Exception):
    """In a child of the driver: it goes on as the Python script of this specification."""


def processes() -> list[str]:
    """The ids of all processes but this one."""
    return [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]


class Session:
    """One run of the script: the session that it leads, its control directory and the point that it waits at."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.folder: str = spec["folder"]
        self.pid = 0
        self.status: int | None = None
        self.at = ""
        self.point = os.open(f"{self.folder}/at", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.go = os.open(f"{self.folder}/go", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def start(self) -> None:
        """Starts the script in a session of its own; the child that goes on as a Python script raises Become."""
        self.pid = os.fork()
        if self.pid:
            return
        os.setsid()
        appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        files = [("/dev/null", os.O_RDONLY), (f"{self.folder}/output", appended), (f"{self.folder}/errors", appended)]
        for number, file in enumerate(files):
            os.dup2(os.open(*file, 0o644), number)
        if self.spec.get("code"):
            raise Become(self.spec)
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):  # which Python or this program ignores
            signal.signal(number, signal.SIG_DFL)
        try:
            os.chdir(self.spec["cwd"])
            os.execvpe(self.spec["argv"][0], self.spec["argv"], self.spec["environment"])
        except OSError as error:
            os.write(2, f"cannot start: {error}\n".encode())
        os._exit(126)

    def processes(self) -> dict[str, str]:
        """State of each process of the run's session; one that waits to be reaped is not among them."""
        found = {}
        for name in processes():
            fields = read(f"/proc/{name}/stat").rpartition(")")[2].split()
            if fields and int(fields[3]) == self.pid and fields[0] not in "ZX":
                found[name] = fields[0]
        return found

    def standing(self) -> str:
        """Where all processes of the run sleep: what tells one such moment from a later one, else nothing."""
        found = ""
        for name, state in self.processes().items():
            if state != "S":
                return ""
            found += name + read(f"/proc/{name}/status").partition("voluntary_ctxt_switches")[2]
        return found

    def waits(self, number: int) -> bool:
        """Whether a signal waits for the script; one that the script blocks does not count."""
        status = dict(line.partition(":\t")[::2] for line in read(f"/proc/{self.pid}/status").splitlines())
        own, shared, blocked = (int(status.get(key, "0"), 16) for key in ("SigPnd", "ShdPnd", "SigBlk"))
        return bool((own | shared) & ~blocked & 1 << number - 1)

    def left(self) -> dict[str, Any]:
        """What is told of the run."""
        os.close(self.point)
        os.close(self.go)
        sizes = {"output": 16_000, "errors": 16_000, "log": 100_000, "exits": 1000, "points": 100_000}
        texts = {name: read(f"{self.folder}/{name}", size) for name, size in sizes.items()}
        return {"pid": self.pid, "status": self.status, **texts}

    def release(self) -> None:
        """Lets the program that waits at a point go on."""
        if self.at:
            self.at = ""
            os.write(self.go, b"\n")


class Job:
    """The runs of one scenario and the steps that lead them."""

    def __init__(self, job: dict[str, Any], wakeup: int) -> None:
        for entry in job["files"]:
            place(*entry)
        self.job, self.wakeup = job, wakeup
        self.counted = 0.0
        self.deadline = time.monotonic() + job["seconds"]
        self.runs = {name: Session(spec) for name, spec in job["runs"].items()}
        self.looks: list[dict[str, list[str]]] = []
        self.missed: list[str] = []

    def pump(self, seconds: float) -> None:
        """Takes in ended processes and reported points; waits up to ``seconds`` for one."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                seconds = 0
                for run in self.runs.values():
                    if run.pid == ended[0]:
                        run.status = os.waitstatus_to_exitcode(ended[1])
        except ChildProcessError:
            pass
        points = {run.point: run for run in self.runs.values() if run.pid}
        for descriptor in select.select([*points, self.wakeup], [], [], seconds)[0]:
            said = os.read(descriptor, 4096)
            if descriptor in points:
                points[descriptor].at = said.decode("utf8", "replace").split("\n")[-2]
        self.check()

    def check(self) -> None:
        """Stops the scenario where it takes more time, processes, memory or files than any real one."""
        now = time.monotonic()
        if now > self.deadline:
            raise Stop(f"did not end within {self.job['seconds']} s")
        if now < self.counted + 0.05:
            return
        self.counted = now
        # The limit on memory binds each process alone, and a file system's size leaves its inodes out.
        names = processes()
        if len(names) > PROCESSES:
            raise Stop(f"more than {PROCESSES} processes")
        pages = sum(int((read(f"/proc/{name}/statm") or "0 0").split()[1]) for name in names)
        if pages * resource.getpagesize() > MEMORY:
            raise Stop(f"more than {MEMORY} bytes of memory")
        if sum(map(inodes, self.job["systems"])) > INODES:
            raise Stop(f"more than {INODES} files")

    def wait(self, run: Session, point: str, or_lock: bool) -> None:
        """Until the run is at ``point``, has ended or, where that is allowed, stands before a lock of a file."""
        still, now = 0, ""
        while run.at != point:
            if run.at:
                run.release()
            if run.status is not None and not run.processes():
                self.missed.append(f"the point {point} was never reached")
                return
            self.pump(0.02)
            if or_lock:
                # /proc/locks does not show a lock whose first owner has ended, so: all asleep, and nothing moves.
                before, now = now, run.standing()
                still = still + 1 if now and now == before else 0
                if run.at != point and still == 4:
                    return

    def settle(self, run: Session) -> None:
        """Waits until all processes of a run sleep, so that none is between its fork and its own dispositions.

        One that never rests is not waited for.
        """
        patience = time.monotonic() + 2
        before, now = "", run.standing()
        while not (now and now == before) and run.status is None and time.monotonic() < patience:
            self.pump(0.002)
            before, now = now, run.standing()

    def strike(self, run: Session, whom: str, name: str) -> None:
        """Sends a signal, and waits until the script itself has taken it where it went to the script alone."""
        self.settle(run)
        if run.status is not None:
            return
        number = getattr(signal, f"SIG{name}")
        if whom == "group":
            os.killpg(run.pid, number)
            run.at = run.at if name != "KILL" else ""
            return
        os.kill(run.pid, number)
        while run.status is None and run.waits(number):
            self.pump(0.001)

    def ended(self, run: Session) -> None:
        """Lets the run go on to its end and waits for the last process of it."""
        while run.status is None or run.processes():
            run.release()
            self.pump(0.02)

    def dead(self, run: Session) -> None:
        """Waits for the script itself, while whatever it started still waits."""
        patience = time.monotonic() + 3
        while run.status is None:
            if time.monotonic() > patience:
                self.missed.append("the script had not ended at once")
                return
            self.pump(0.02)

    def step(self, verb: str, words: list[str]) -> None:
        """One step of the scenario."""
        if verb == "look":
            self.looks.append(look(self.job["root"]))
            return
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

    def play(self) -> dict[str, Any]:
        """Goes through the steps, ends what is left of the scenario and returns its result."""
        before = look(self.job["root"])
        try:
            for step in self.job["steps"]:
                verb, *words = step.split()
                self.step(verb, words)
            patience = time.monotonic() + 1
            while processes():
                if time.monotonic() > patience:
                    raise Stop("left a process running")
                self.pump(0.02)
        except Stop as stop:
            self.missed.insert(0, str(stop))
            # Process 1 is spared; twice, for what was being started meanwhile.
            for _ in range(2):
                try:
                    os.kill(-1, signal.SIGKILL)
                except OSError:
                    pass
        return {
            "trouble": self.missed,
            "before": before,
            "looks": [*self.looks, look(self.job["root"])],
            "kept": {path: entry for root in self.job["keep"] for path, entry in look(root).items()},
            "runs": {name: run.left() for name, run in self.runs.items()},
        }


def main() -> None:
    """Runs the jobs, one after another, each in an empty sandbox."""
    # Whoever called, nohup among them: scripts start with the default dispositions. Session.start() has the other two.
    for default in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        signal.signal(default, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    wakeup, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    os.umask(0o022)
    seal(True)
    limit(jobs[0]["limits"])
    prepared: dict[str, Any] = {}
    for number, job in enumerate(jobs):
        if number:
            for folder in jobs[number - 1]["clean"]:
                empty(folder)
        for spec in job["runs"].values():
            if source := spec.get("source"):
                if source not in prepared:
                    prepared[source] = prepare(spec["argv"][1], source, job["site"])
                spec["code"] = prepared[source]
        sys.stdout.write(dumps(Job(job, wakeup).play()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    code = None
    try:
        main()
    except Become as child:
        code = become(child.args[0])
    if code:
        sys.modules["__main__"] = type(sys)("__main__")
        exec(code, sys.modules["__main__"].__dict__)
