"""What a Python script under review runs before its first line: time that passes at once, and points to stop at.

The counterpart of ``stub.sh`` and ``trace.sh`` for what a Python script does without starting a program. It runs
every time, so it imports nothing that takes milliseconds.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

RUN = os.environ.get("CI_PATCHER_RUN", "")


def _append(name: str, text: str) -> None:
    descriptor = os.open(f"{RUN}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, text.encode("utf8", "surrogateescape"))
    os.close(descriptor)


def _read(name: str) -> str:
    """The text of a file of the run; nothing where it is not there."""
    try:
        with open(f"{RUN}/{name}", encoding="utf8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _stop(point: str) -> None:
    """Waits for the driver where a step of the scenario waits for this point."""
    _append("points", f"{point}\n")
    if os.path.exists(f"{RUN}/arm/{point}"):
        with open(f"{RUN}/at", "w", encoding="utf8") as file:
            file.write(f"{point}\n")
        descriptor = os.open(f"{RUN}/go", os.O_RDONLY)
        try:
            os.read(descriptor, 1)
        finally:
            os.close(descriptor)


def _planned(kind: str, number: int) -> str:
    """What the scenario says about the next operation of this kind; the last word stays."""
    for name in (f"{kind}.{number}", kind):
        if word := _read(f"plan/{name}").strip():
            return word
    return "ok"


def _watch(kinds: dict[str, str], watched: str) -> None:
    counts: dict[str, int] = {}
    refused: set[str] = set()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if (kind := kinds.get(event)) is None:
            return
        words = [str(argument) for argument in arguments]
        _append("log", "\0".join([str(len(words) + 2), "file", event, *words, ""]))
        if kind == "lock" or any(watched in word for word in words):
            counts[kind] = counts.get(kind, 0) + 1
            _stop(f"{kind}.{counts[kind]}")
            plan, call = _planned(kind, counts[kind]), " ".join(words)
            if plan == "refuse":
                refused.add(call)
            if plan == "fail" or call in refused:
                raise OSError(16, f"refused: {call}")

    sys.addaudithook(hook)


# Computes without touching anything outside, in many lines, so a signal there is no different from one before it.
PURE = (
    *("<frozen importlib", "<frozen zipimport", "<frozen os", "<frozen abc", "<frozen _collections_abc"),
    *("/re/", "/enum.py", "/fnmatch.py", "/functools.py", "/warnings.py", "/contextlib.py", "/_weakrefset.py"),
)


def _trace(plan: dict[str, Any]) -> None:
    """Counts the lines that the block and what it calls run, and sends a signal before one of them.

    A line of a library counts once, whichever line of the block it is run for: the programs that a block starts are
    points of their own.
    """
    import signal

    script, lines, target = plan["script"], set(plan["lines"]), plan["point"]
    seen: set[tuple[str, int]] = set()
    block: FrameType | None = None  # the frame that last ran a line of the block, and that line
    block_line = 0

    def callers(frame: FrameType | None) -> Iterator[FrameType]:
        """A frame and those that wait for it."""
        while frame is not None:
            yield frame
            frame = frame.f_back

    def strike() -> None:
        nonlocal block
        sys.settrace(None)
        block = None  # a frame keeps its files open, and locked, where the script goes on
        os.kill(0 if plan["whom"] == "group" else os.getpid(), getattr(signal, f"SIG{plan['signal']}"))

    def line(frame: FrameType, event: str, _: object) -> Any:
        nonlocal block, block_line
        name = frame.f_code.co_filename
        if event == "call":
            # Nothing is traced outside of the script while it does not run the block: it would take seconds.
            watched = name == script or (block is not None and not any(part in name for part in PURE))
            return line if watched else None
        if event == "line":
            if name == script:
                if frame.f_lineno in lines and frame.f_code.co_name != "<module>":
                    block, block_line = frame, frame.f_lineno
                elif block and block not in callers(frame):
                    block = None
            at = (name, frame.f_lineno)
            # In a __del__, Python itself drops the KeyboardInterrupt of a signal.
            if block and at not in seen and all(one.f_code.co_name != "__del__" for one in callers(frame)):
                seen.add(at)
                if target == 0:
                    _append("points", f"line {len(seen)} {block_line}: {os.path.basename(name)}:{frame.f_lineno}\n")
                elif len(seen) == target:
                    strike()
        return line

    sys.settrace(line)


if RUN and "CI_PATCHER_PID" not in os.environ:  # else a script that the script starts
    os.environ["CI_PATCHER_PID"] = str(os.getpid())
    time.sleep = lambda _: None
    _watched, *_kinds = _read("watched").splitlines()
    _watch(dict(line.split(" ") for line in _kinds), _watched)
    if _prelude := _read("prelude.py"):
        exec(compile(_prelude, "prelude", "exec"), {"RUN": RUN})
    if _plan := _read("trace.json"):
        import json

        _trace(json.loads(_plan))
