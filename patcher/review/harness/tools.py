"""What the driver does with files, with its own process and with Python scripts; it runs before ``driver.py``."""

from __future__ import annotations

import os
import resource
import signal
import sys
from _json import encode_basestring_ascii as quoted  # json takes milliseconds to import

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENTRIES = 2000  # of one directory tree in the result
KINDS = {0o120000: "link", 0o040000: "directory", 0o100000: "file"}


def limit(limits: dict[str, int]) -> None:
    """Lowers what this process, and so its children, may use."""
    for name, value in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (wanted, wanted))


def place(path: str, kind: str, mode: str, content: str) -> None:
    """Makes one file, directory, link or named pipe, and the directories above it."""
    try:
        if kind == "link":
            os.symlink(content, path)
        elif kind == "pipe":
            os.mkfifo(path, int(mode, 8))
        elif kind == "directory":
            if not os.path.isdir(path):
                os.mkdir(path)
                os.chmod(path, int(mode, 8))
        else:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, int(mode, 8))
            os.write(descriptor, content.encode("utf8", "surrogateescape"))
            os.close(descriptor)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path))
        place(path, kind, mode, content)


def look(root: str) -> dict[str, list[str]]:
    """What lies below ``root``: kind, mode and content of each entry by its path, without following a link."""
    found: dict[str, list[str]] = {}
    waiting = [root]
    while waiting and len(found) < ENTRIES:
        path = waiting.pop()
        try:
            status = os.lstat(path)
            mode = f"{status.st_mode & 0o7777:o}"
            kind = KINDS.get(status.st_mode & 0o170000, "other")
            content = ""
            if kind == "link":
                mode, content = "", os.readlink(path)
            elif kind == "directory":
                waiting += sorted(os.path.join(path, name) for name in os.listdir(path))
            elif kind == "file":
                content = tail(path, 8000)
            found[path] = [kind, mode, content]
        except OSError:
            continue
    return found


def tail(path: str, size: int) -> str:
    """The first and the last ``size`` bytes of a file; all of it where it is short; nothing where it is not there."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        return ""
    if len(content) > 2 * size:
        content = content[:size] + b"\n...\n" + content[-size:]
    return content.decode("utf8", "replace")


def read(path: str) -> str:
    """The text of a file of /proc; nothing where its process has ended."""
    try:
        with open(path, encoding="latin1") as file:
            return file.read()
    except OSError:
        return ""


def inodes(path: str) -> int:
    """How many files a file system has; none where it is gone: a script may rename what it is mounted in."""
    try:
        system = os.statvfs(path)
    except OSError:
        return 0
    return system.f_files - system.f_ffree


def dumps(value: object) -> str:
    """A value as JSON."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{quoted(key)}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return quoted(value) if isinstance(value, str) else "null" if value is None else str(value)


def empty(root: str) -> None:
    """Removes what is in a directory, whatever its modes; a mount point stays."""
    number, before = 0, None
    while (names := os.listdir(root)) != before:
        before = names
        for name in names:
            path = f"{root}/{name}"
            try:
                if os.path.islink(path) or not os.path.isdir(path):
                    os.unlink(path)
                    continue
                os.chmod(path, 0o700)
                # What lies in it comes up, so that no path grows too long.
                for below in os.scandir(path):
                    number += 1
                    if below.is_dir(follow_symlinks=False):
                        os.chmod(below.path, 0o700)
                    os.rename(below.path, f"{root}/{number}.{os.getpid()}")
                os.rmdir(path)
            except OSError:
                continue


def seal(sealed: bool) -> None:
    """Keeps the scripts, which run as the same user, from tracing this process and from reaching its files."""
    import ctypes  # takes milliseconds, but nothing else can do it

    pr_set_dumpable = 4
    if ctypes.CDLL(None).prctl(pr_set_dumpable, int(not sealed), 0, 0, 0):
        raise OSError("prctl failed")


def prepare(path: str, text: str, site: str) -> tuple[Any, Any]:
    """A Python script and what runs before it, compiled, with the modules that it imports loaded: once for all runs."""
    for line in text.splitlines():
        words = line.replace(",", " ").split()
        for name in words[1:] if words[:1] == ["import"] else words[1:2] if words[:1] == ["from"] else ():
            if name in sys.stdlib_module_names:
                __import__(name)
    return compile(site, "sitecustomize.py", "exec"), compile(text, path, "exec")


def become(spec: dict[str, Any]) -> Any:
    """Makes this process what a new interpreter is, and returns the code of the script that it runs."""
    os.closerange(3, 256)
    os.chdir(spec["cwd"])
    seal(False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(spec["environment"])
    sys.argv = spec["argv"][1:]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    sys.stdin = open(0, encoding="utf8", closefd=False)  # noqa: SIM115 - for as long as the script runs
    site, script = spec["code"]
    exec(site, {"__name__": "sitecustomize"})
    return script
