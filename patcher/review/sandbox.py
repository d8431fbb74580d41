"""Runs a program that nobody vouches for, and leaves the machine as it was.

The sandbox is bubblewrap's: namespaces of its own for processes, network, users and mounts, a read-only system
without the caller's home, empty file systems for ``/tmp``, ``/home`` and ``/run``, no capabilities and no variables
of the caller's. Time, output and what is kept of it are bounded here; memory, file sizes and processes by the
program that is started first (``harness/driver.py``), since a limit set outside would bind the sandbox's own start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
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

MEMORY = 128 << 20
"""Bytes that the sandbox's own file systems take at most, each."""


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of the machine and where the sandbox has it; with a size, an empty file system of that."""

    source: Path
    target: str
    read_only: bool = False
    size: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the program ended: its exit status (negative for a signal), the bytes it wrote, what went wrong."""

    status: int
    stdout: bytes
    stderr: bytes
    trouble: str = ""


def python() -> str:
    """The interpreter for programs in the sandbox: this one, outside of any virtual environment."""
    return os.path.realpath(str(getattr(sys, "_base_executable", "") or sys.executable))


@cache
def missing() -> str:
    """Why there is no sandbox on this machine, in one line; empty where there is one."""
    if shutil.which(BWRAP) is None:
        return "no bubblewrap (bwrap) on this machine: install the package bubblewrap"
    outcome = run([python(), "-I", "-S", "-c", "print('ok')"], seconds=20)
    if outcome.stdout.strip() == b"ok":
        return ""
    lines = outcome.stderr.decode("utf8", "replace").strip().splitlines()
    return f"bubblewrap makes no sandbox here: {(lines or [outcome.trouble or 'no output'])[-1]}"


@cache
def _sizes() -> bool:
    """Whether this bubblewrap bounds its file systems (0.7.0 and later)."""
    shown = subprocess.run([BWRAP, "--help"], capture_output=True, check=False).stdout
    return b"--size" in shown


def _arguments(binds: Sequence[Bind]) -> list[str]:
    words = [BWRAP, "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"]
    for path in SYSTEM:
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            words += ["--ro-bind", path, path]
    for name in _ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    words += ["--proc", "/proc", "--dev", "/dev"]
    taken = {bind.target for bind in binds}
    for path in ("/tmp", "/home", "/run"):
        if path not in taken:
            words += ["--size", str(MEMORY)] if _sizes() else []
            words += ["--tmpfs", path]
    for bind in binds:
        if bind.size:
            words += ["--size", str(bind.size), "--tmpfs", bind.target]
            continue
        words += ["--ro-bind" if bind.read_only else "--bind", str(bind.source), bind.target]
    prefix = os.path.realpath(sys.base_prefix)
    if not any(prefix == path or prefix.startswith(f"{path}/") for path in SYSTEM):
        words += ["--ro-bind", prefix, prefix]
    return [*words, "--chdir", "/", "--"]


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    binds: Sequence[Bind] = (),
    seconds: float = 30,
    output: int = 8 << 20,
) -> Outcome:
    """Runs ``argv`` as process 1 of a new sandbox.

    ``seconds`` is the wall time after which all of it is killed, ``output`` the number of bytes on standard output
    and on standard error that are read before it is. Neither raises: ``Outcome.trouble`` tells. Where bubblewrap
    cannot start, its status and message are the outcome; ``missing`` tells beforehand.
    """
    with tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        process = subprocess.Popen(
            [*_arguments(binds), *argv],
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
    trouble: list[str] = []
    kept: list[bytes] = [b"", b""]

    def drain(index: int) -> None:
        stream = process.stdout if index == 0 else process.stderr
        assert stream is not None
        parts, size = [], 0
        while chunk := stream.read1(1 << 16):  # type: ignore[attr-defined]
            parts.append(chunk)
            size += len(chunk)
            if size > output:
                trouble.append(f"wrote more than {output} bytes")
                process.kill()
                break
        kept[index] = b"".join(parts)[:output]

    threads = [threading.Thread(target=drain, args=(index,), daemon=True) for index in (0, 1)]
    with process:
        try:
            for thread in threads:
                thread.start()
            # Both streams end with the sandbox; to wait for them polls nothing, as waiting for the process would.
            deadline = time.monotonic() + seconds
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            if any(thread.is_alive() for thread in threads):
                trouble.append(f"did not end within {seconds:g} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for thread in threads:
            thread.join(5)
    return Outcome(process.returncode, kept[0], kept[1], "; ".join(trouble))
