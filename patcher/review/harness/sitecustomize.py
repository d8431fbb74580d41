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
    from types import FrameType
    from typing import Any

RUN = os.environ.get("CI_PATCHER_RUN", "")


def _append(name: str, text: str) -> None:
    descriptor = os.open(f"{RUN}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, text.encode("utf8", "surrogateescape"))
    os.close(descriptor)


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
        if os.path.exists(f"{RUN}/plan/{name}"):
            with open(f"{RUN}/plan/{name}", encoding="utf8") as file:
                return file.read().strip()
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

    def within(frame: FrameType | None) -> bool:
        while frame is not None:
            if frame is block:
                return True
            frame = frame.f_back
        return False

    def lost(frame: FrameType | None) -> bool:
        """Whether Python itself drops the KeyboardInterrupt of a signal here: in a ``__del__``."""
        while frame is not None and frame.f_code.co_name != "__del__":
            frame = frame.f_back
        return frame is not None

    def strike() -> None:
        nonlocal block
        sys.settrace(None)
        block = None  # a frame keeps its files open, and locked, where the script goes on
        number = getattr(signal, f"SIG{plan['signal']}")
        if plan["whom"] == "group":
            os.killpg(0, number)
        else:
            os.kill(os.getpid(), number)

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
                elif not within(frame):
                    block = None
            if block is not None and not lost(frame) and (at := (name, frame.f_lineno)) not in seen:
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
    with open(f"{RUN}/watched", encoding="utf8") as _file:
        _watched, *_kinds = _file.read().splitlines()
    _watch(dict(line.split(" ") for line in _kinds), _watched)
    if os.path.exists(f"{RUN}/prelude.py"):
        with open(f"{RUN}/prelude.py", encoding="utf8") as _file:
            exec(compile(_file.read(), "prelude", "exec"), {"RUN": RUN})
    if os.path.exists(f"{RUN}/trace.json"):
        import json

        with open(f"{RUN}/trace.json", encoding="utf8") as _file:
            _trace(json.load(_file))
