"""Runs a program that nobody vouches for, and leaves the machine as it was.

The sandbox is bubblewrap's: namespaces of its own for processes, network, users and mounts, a read-only system
without the caller's home, small empty file systems for ``/tmp``, ``/home`` and ``/run``, no capabilities and none of
the caller's variables. If root calls, the programs run as another user. No folder of the machine is needed: files are
handed over as open descriptors. The driver (``harness/driver.py``) limits what a process may use.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
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
_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "group", "passwd")
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

    ``started`` is false where bubblewrap made no sandbox; then ``stderr`` is bubblewrap's.
    """

    status: int
    stdout: bytes
    stderr: bytes
    trouble: str = ""
    started: bool = True


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
    lines = done.stderr.decode("utf8", "replace").strip().splitlines()
    return f"bubblewrap makes no sandbox here: {(lines or [done.trouble or 'no output'])[-1]}{advice()}"


def advice(settings: Path = Path("/proc/sys")) -> str:
    """What keeps bubblewrap from making namespaces, as far as the kernel's settings say."""

    def setting(name: str) -> str:
        with contextlib.suppress(OSError):
            return (settings / name).read_text(encoding="ascii").strip()
        return ""

    if setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "; AppArmor forbids user namespaces: give bwrap a profile with `userns,` (/etc/apparmor.d/bwrap)"
    if setting("kernel/unprivileged_userns_clone") == "0":
        return "; user namespaces are off: sysctl kernel.unprivileged_userns_clone=1"
    if setting("user/max_user_namespaces") == "0":
        return "; user namespaces are off: sysctl user.max_user_namespaces=10000"
    return "; in a container, allow namespaces (docker run --privileged), or run outside of it"


@cache
def _sizes() -> bool:
    """Whether this bubblewrap bounds its file systems (0.7.0 and later)."""
    return b"--size" in subprocess.run([program(), "--help"], capture_output=True, check=False).stdout


def _interpreter() -> Iterator[str]:
    """The files that this Python needs, where it lies outside of the system: no home with its keys."""
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix, "installed_base": sys.base_prefix}
    paths = [python(), *(sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib"))]
    paths.append(os.path.join(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("LDLIBRARY") or "?"))
    for path in dict.fromkeys(map(os.path.realpath, paths)):
        if not path.startswith(tuple(f"{folder}/" for folder in SYSTEM)) and os.path.exists(path):
            yield path


class _Arguments:
    """The words for bubblewrap, and the open files that they name."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.words: list[str] = []
        self.descriptors: list[int] = []

    def data(self, content: bytes) -> str:
        """A descriptor to read the content from."""
        descriptor = os.memfd_create("ci-patcher")
        self.stack.callback(os.close, descriptor)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        self.descriptors.append(descriptor)
        return str(descriptor)

    def entry(self, path: str, kind: str, mode: str, content: str) -> None:
        """One file, directory or link, on a file system of the sandbox; ``mask`` is a file over one of the system."""
        if kind == "link":
            self.words += ["--symlink", content, path]
        elif kind == "directory":
            self.words += ["--perms", f"0{mode}", "--dir", path]
        else:
            text = content.encode("utf8", "surrogateescape")
            how = "--ro-bind-data" if kind == "mask" else "--file"
            self.words += ["--perms", f"0{mode}", how, self.data(text), path]

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


def _arguments(made: _Arguments, binds: Sequence[Bind], entries: Sequence[Sequence[str]], drop: bool) -> None:
    """Everything up to the words of the program."""
    root = os.geteuid() == 0
    made.words += [program(), "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    if root:  # in the machine's user namespace, else there is no other user to become
        made.words += [*(f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts")), "--unshare-cgroup-try"]
        made.words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if drop else []
    else:
        made.words += ["--unshare-all"]
    for path in SYSTEM:
        if os.path.islink(path):
            made.words += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            made.words += ["--ro-bind", path, path]
    made.entry("/etc", "directory", "755", "")
    for name in _ETC:
        made.words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for path in _interpreter():
        made.parents(path, "755")
        made.words += ["--ro-bind", path, path]
    made.words += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    made.empty("/dev/shm", 1 << 20)
    made.words += ["--remount-ro", "/dev"]
    targets = {bind.target for bind in binds}
    for path in ("/tmp", "/home", "/run"):
        if path not in targets:
            made.empty(path)
    for entry in entries:
        made.entry(*entry)
    for bind in binds:
        made.mount(bind)
    made.words += ["--remount-ro", "/", "--chdir", "/", "--"]
    if root and drop:
        user = secrets.choice(USERS)
        made.words += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        made.words += ["--inh-caps=-all", "--pdeathsig=KILL"]


def _child(info: int) -> int | None:
    """A descriptor of the sandbox's process 1, by what bubblewrap says of it; None where there is none."""
    with open(info, "rb") as file:
        text = file.read()
    with contextlib.suppress(ValueError, OSError, KeyError):
        return os.pidfd_open(json.loads(text)["child-pid"])
    return None


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
    root what it is. Nothing is raised: ``Completed.trouble`` and ``started`` tell.
    """
    with contextlib.ExitStack() as stack:
        made = _Arguments(stack)
        _arguments(made, binds, entries, drop)
        source = made.data(stdin)
        told, tell = os.pipe()
        made.words[1:1] = ["--info-fd", str(tell)]
        try:
            process = subprocess.Popen(
                [*made.words, *argv],
                stdin=int(source),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
                start_new_session=True,
                pass_fds=[*made.descriptors, tell],
            )
        finally:
            os.close(tell)
    first = None
    with process:
        try:
            first = _child(told)
            kept, trouble = _drain(process, seconds, output, stop)
        finally:
            if first is not None:
                # With process 1 all processes of its namespace end, whatever they did about their signals.
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(first, signal.SIGKILL)
                os.close(first)
            # bubblewrap ends by itself then: killed before, it would leave a zombie to whoever is process 1 outside.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5 if first is not None else 0)
            process.kill()
    return Completed(process.returncode, kept[0], kept[1], trouble, first is not None)


def _drain(
    process: subprocess.Popen[bytes], seconds: float, output: int, stop: threading.Event | None
) -> tuple[list[bytes], str]:
    """What the process wrote to its two streams until it ended, and why it must be killed, if it must."""
    kept = [bytearray(), bytearray()]
    trouble = ""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for stream, part in zip((process.stdout, process.stderr), kept, strict=True):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, part)
        while selector.get_map() and not trouble:
            for key, _ in selector.select(0.2 if stop else max(0.0, deadline - time.monotonic())):
                chunk = os.read(key.fd, 1 << 16)
                key.data.extend(chunk)
                if not chunk:
                    selector.unregister(key.fileobj)
            if any(len(part) > output for part in kept):
                trouble = f"wrote more than {output} bytes"
            elif stop and stop.is_set():
                trouble = "was stopped"
            elif time.monotonic() > deadline:
                trouble = f"did not end within {seconds:g} s"
    return [bytes(part[:output]) for part in kept], trouble
