"""What a Python script under review runs before its first line: time that passes at once, and points to stop at.

The counterpart of ``stub.sh`` and ``trace.sh`` for what a Python script does without starting a program.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
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


def _watch(kinds: dict[str, str], watched: str) -> None:
    counts: dict[str, int] = {}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if (kind := kinds.get(event)) is None:
            return
        words = [str(argument) for argument in arguments]
        _append("log", "\0".join([str(len(words) + 2), "file", event, *words, ""]))
        if kind == "lock" or any(watched in word for word in words):
            counts[kind] = counts.get(kind, 0) + 1
            _stop(f"{kind}.{counts[kind]}")

    sys.addaudithook(hook)


def _trace(plan: dict[str, Any]) -> None:
    """Counts the lines that the block and what it calls run, and sends a signal before one of them."""
    script, lines, target = plan["script"], set(plan["lines"]), plan["point"]
    count = 0

    def inside(frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_lineno in lines and os.path.abspath(frame.f_code.co_filename) == script:
                return True
            frame = frame.f_back
        return False

    def line(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if event == "line" and inside(frame):
            count += 1
            if target == 0:
                _append("points", f"line {count} {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}\n")
            elif count == target:
                number = getattr(signal, f"SIG{plan['signal']}")
                if plan["whom"] == "group":
                    os.killpg(0, number)
                else:
                    os.kill(os.getpid(), number)
        return line

    sys.settrace(line)


if RUN and os.environ.get("CI_PATCHER_PID") == str(os.getpid()):
    time.sleep = lambda _: None
    with open(f"{RUN}/watch.json", encoding="utf8") as _file:
        _settings = json.load(_file)
    _watch(_settings["kinds"], _settings["watched"])
    if os.path.exists(f"{RUN}/prelude.py"):
        with open(f"{RUN}/prelude.py", encoding="utf8") as _file:
            exec(compile(_file.read(), "prelude", "exec"), {"RUN": RUN})
    if _settings["trace"]:
        _trace(_settings["trace"])
