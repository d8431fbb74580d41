"""Runs a program that nobody vouches for, and leaves the machine as it was.

The sandbox is bubblewrap's: namespaces of its own for processes, network, users and mounts, a read-only system
without the caller's home, small empty file systems for ``/tmp``, ``/home`` and ``/run``, no capabilities and none of
the caller's variables. If root calls, the programs run as another user. No folder of the machine is needed: files are
handed over as open descriptors. The driver (``harness/driver.py``) limits what a process may use.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# What a system's programs need of /etc: no host names, no keys, no accounts of services.
_ETC = (
    *("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"),
    *("/etc/localtime", "/etc/group", "/etc/passwd"),
)
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
"""What the sandbox has of the machine, read-only, for whatever programs are there."""

BWRAP = "bwrap"
"""The program, looked for in the caller's PATH."""

LIMITS: Mapping[str, int] = {
    "RLIMIT_AS": 2 << 30,
    "RLIMIT_CORE": 0,
    "RLIMIT_CPU": 60,
    "RLIMIT_FSIZE": 16 << 20,
    "RLIMIT_NOFILE": 256,
    "RLIMIT_NPROC": 200,
}
"""Limits of one process in the sandbox, under their names in ``resource``: bytes, seconds and numbers."""

MEMORY = 64 << 20
"""Bytes that the sandbox's own file systems take at most, each."""

USERS = range(61184, 65520)
"""Whom root's programs run as: systemd keeps these numbers for users without an account. One of them for each sandbox,
since the limit on processes counts all of a user's."""

_ADVICE = {
    "kernel/apparmor_restrict_unprivileged_userns = 1": (
        "AppArmor forbids user namespaces: give bwrap a profile with `userns,` (/etc/apparmor.d/bwrap)"
    ),
    "kernel/unprivileged_userns_clone = 0": "user namespaces are off: sysctl kernel.unprivileged_userns_clone=1",
    "user/max_user_namespaces = 0": "user namespaces are off: sysctl user.max_user_namespaces=10000",
}

_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of the machine, and where the sandbox has it.

    With ``size``, an empty file system of so many bytes in its place; ``entries`` are what lies on it, each as path,
    kind (``file``, ``directory``, ``link``, ``mask``), mode and content.
    """

    source: Path
    target: str
    read_only: bool = False
    size: int = 0
    entries: Sequence[Sequence[str]] = ()


@dataclass(frozen=True, slots=True)
class Completed:
    """How the program ended: its exit status (negative for a signal), the bytes it wrote, what went wrong.

    Where bubblewrap made no sandbox, the status and ``stderr`` are bubblewrap's.
    """

    status: int
    stdout: bytes
    stderr: bytes
    trouble: str = ""


def python() -> str:
    """The interpreter for programs in the sandbox: this one, outside of any virtual environment."""
    return os.path.realpath(str(getattr(sys, "_base_executable", "") or sys.executable))


def program() -> str:
    """The path of bubblewrap; empty where it is missing."""
    found = shutil.which(BWRAP)
    return os.path.realpath(found) if found else ""


@cache
def missing() -> str:
    """Why there is no sandbox on this machine and what to do about it, in one line; empty where there is one."""
    if sys.platform != "linux":
        return "the sandbox needs Linux: run ci-patcher on a Linux machine or in a virtual one"
    if not program():
        return "no bubblewrap (bwrap) on this machine: install the package bubblewrap"
    if os.geteuid() == 0 and not shutil.which("setpriv", path=_PATH):
        return "no setpriv on this machine, which root needs for the sandbox: install the package util-linux"
    done = run(["/bin/sh", "-c", "echo ok"], seconds=20)
    if done.stdout.strip() == b"ok":
        return ""
    said = done.stderr.decode("utf8", "replace").strip() or done.trouble or "no output"
    return f"bubblewrap makes no sandbox here: {said.splitlines()[-1]}; {advice()}"


def advice(settings: Path = Path("/proc/sys")) -> str:
    """What to do where bubblewrap cannot make namespaces, as far as the kernel's settings say why."""
    for setting, what in _ADVICE.items():
        name, value = setting.split(" = ")
        with contextlib.suppress(OSError):
            if (settings / name).read_text(encoding="ascii").strip() == value:
                return what
    return "in a container, start it with --privileged, or run outside of it"


@cache
def _sizes() -> bool:
    """Whether this bubblewrap bounds its file systems (0.7.0 and later)."""
    return b"--size" in subprocess.run([program(), "--help"], capture_output=True, check=False).stdout


def _interpreter() -> Iterator[str]:
    """The files that this Python needs, where it lies outside of the system: no home with its keys."""
    library = os.path.join(*sysconfig.get_config_vars("LIBDIR", "LDLIBRARY"))
    for path in map(os.path.realpath, (python(), os.path.dirname(os.__file__), library)):
        if not path.startswith(tuple(f"{folder}/" for folder in SYSTEM)):
            yield path


class _Arguments:
    """The words for bubblewrap, and the open files that they name, for as long as the stack lasts."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.words: list[str] = []
        self.descriptors: list[int] = []

    def data(self, content: bytes) -> int:
        """A descriptor to read the content from."""
        file = self.stack.enter_context(os.fdopen(os.memfd_create("ci-patcher"), "w+b"))
        file.write(content)
        file.seek(0)
        self.descriptors.append(file.fileno())
        return file.fileno()

    def entry(self, path: str, kind: str, mode: str, content: str) -> None:
        """One file, directory or link, on a file system of the sandbox; ``mask`` is a file over one of the system."""
        if kind == "link":
            self.words += ["--symlink", content, path]
        elif kind == "directory":
            self.words += ["--perms", f"0{mode}", "--dir", path]
        else:
            how = "--ro-bind-data" if kind == "mask" else "--file"
            self.words += ["--perms", f"0{mode}", how, str(self.data(content.encode("utf8", "surrogateescape"))), path]

    def empty(self, path: str, size: int = MEMORY, mode: str = "1777") -> None:
        """An empty file system."""
        self.words += [*(["--size", str(size)] if _sizes() else []), "--perms", mode, "--tmpfs", path]

    def parents(self, path: str, mode: str) -> None:
        """The directories above a path; those that bubblewrap makes by itself are closed to other users."""
        for parent in list(Path(path).parents)[-2::-1]:
            self.entry(str(parent), "directory", mode, "")

    def mount(self, bind: Bind) -> None:
        """What ``bind`` says."""
        self.parents(bind.target, "777")
        if not bind.size:
            self.words += ["--ro-bind" if bind.read_only else "--bind", str(bind.source), bind.target]
            return
        self.empty(bind.target, bind.size, "0755")
        for entry in bind.entries:
            self.entry(*entry)
        self.words += ["--remount-ro", bind.target] if bind.read_only else []

    def machine(self) -> None:
        """What every sandbox has of the machine, and its own /proc and /dev."""
        for path in SYSTEM:
            if os.path.islink(path):
                self.words += ["--symlink", os.readlink(path), path]
            elif os.path.isdir(path):
                self.words += ["--ro-bind", path, path]
        for path in (*_ETC, *_interpreter()):
            self.parents(path, "755")
            self.words += ["--ro-bind-try", path, path]
        self.words += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
        self.empty("/dev/shm", 1 << 20)
        self.words += ["--remount-ro", "/dev"]

    def everything(self, binds: Sequence[Bind], entries: Sequence[Sequence[str]], drop: bool) -> None:
        """All words up to those of the program."""
        self.words += ["--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
        root = os.geteuid() == 0
        if root:  # in the machine's user namespace, else there is no other user to become
            self.words += [*(f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts")), "--unshare-cgroup-try"]
            self.words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if drop else []
        else:
            self.words += ["--unshare-all"]
        self.machine()
        for path in {"/tmp", "/home", "/run"} - {bind.target for bind in binds}:
            self.empty(path)
        for entry in entries:
            self.entry(*entry)
        for bind in binds:
            self.mount(bind)
        self.words += ["--remount-ro", "/", "--chdir", "/", "--"]
        if root and drop:
            user = secrets.choice(USERS)
            self.words += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
            self.words += ["--inh-caps=-all", "--pdeathsig=KILL"]


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    binds: Sequence[Bind] = (),
    entries: Sequence[Sequence[str]] = (),
    seconds: float = 30,
    output: int = 8 << 20,
    drop: bool = True,
    stop: threading.Event | None = None,
) -> Completed:
    """Runs ``argv`` as process 1 of a new sandbox.

    ``entries`` are files, directories and links of the sandbox, read-only outside of ``/home``, ``/tmp`` and ``/run``.
    ``seconds`` is the wall time after which all of it is killed, ``output`` the number of bytes on standard output
    and on standard error that are read before it is; ``stop`` kills it from another thread. ``drop`` false leaves
    root what it is. Nothing is raised: ``Completed.trouble`` tells.
    """
    with contextlib.ExitStack() as stack:
        made = _Arguments(stack)
        made.everything(binds, entries, drop)
        process = subprocess.Popen(
            [program(), *made.words, *argv],
            stdin=made.data(stdin),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
            pass_fds=made.descriptors,
        )
    with process:
        try:
            stdout, stderr, trouble = _drain(process, seconds, output, stop or threading.Event())
        finally:
            # With process 1 all processes of its namespace end, whatever they did about their signals.
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(children.read_text(encoding="ascii")), signal.SIGKILL)
            # bubblewrap ends by itself then: killed before, it would leave a zombie to whoever is process 1 outside.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
    return Completed(process.returncode, stdout, stderr, trouble)


def _drain(
    process: subprocess.Popen[bytes], seconds: float, output: int, stop: threading.Event
) -> tuple[bytes, bytes, str]:
    """What the process wrote to its two streams until it ended, and why it must be killed, if it must."""
    assert process.stdout is not None
    assert process.stderr is not None
    kept = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    unfinished = set(kept)
    deadline = time.monotonic() + seconds
    trouble = ""
    while unfinished and not trouble:
        for descriptor in select.select(unfinished, [], [], 0.2)[0]:
            chunk = os.read(descriptor, 1 << 16)
            kept[descriptor] += chunk
            if not chunk:
                unfinished.remove(descriptor)
        if any(len(part) > output for part in kept.values()):
            trouble = f"wrote more than {output} bytes"
        elif stop.is_set():
            trouble = "was stopped"
        elif time.monotonic() > deadline:
            trouble = f"did not end within {seconds:g} s"
    stdout, stderr = (bytes(part[:output]) for part in kept.values())
    return stdout, stderr, trouble
