"""Stands in for docker where a real engine is behind it: passes builds on and does nothing else, successfully.

A build gets the review's image file, tag and label: the file ``words`` of the run has them, one word on each line.
"""

from __future__ import annotations

import glob
import os
import signal
import sys
import time

ENGINE = "/run/engine"  # as in patcher/review/engine.py
REACHED = {"DOCKER_HOST": f"unix://{ENGINE}/docker.sock", "DOCKER_CONFIG": f"{ENGINE}/config"}


def passed_on(words: list[str], ours: list[str]) -> list[str]:
    """The words of a build without its tags, and ours: of two image files, docker takes the last one."""
    tags = {"--tag", "-t"}
    kept = [word for before, word in zip(["", *words], words, strict=False) if not {before, word} & tags]
    return [*(word for word in kept if not word.startswith("--tag=")), *ours]


def watch(run: str) -> None:
    """Tells the driver as soon as the run's output has a word that it waits for; ends with the build."""
    points = {os.path.basename(path).encode() for path in glob.glob(f"{run}/arm/*")}
    while points and os.getppid() != 1:
        for name in ("output", "errors"):  # docker reports a build on standard error, and a script may join the two
            with open(f"{run}/{name}", "rb") as file:
                for point in points & set(file.read().split()):
                    points.remove(point)
                    with open(f"{run}/at", "wb") as pipe:
                        pipe.write(point + b"\n")
        time.sleep(0.005)


def main() -> None:
    """Becomes docker for a build."""
    run, name, words = os.path.dirname(os.path.dirname(sys.argv[0])), os.path.basename(sys.argv[0]), sys.argv[1:]
    if name != "docker" or (words[:1] != ["build"] and words[:2] != ["buildx", "build"]):
        return
    # Python ignores or catches these signals, and docker would inherit what is ignored.
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    if os.fork() == 0:
        watch(run)
        return
    with open(f"{run}/words", encoding="utf8") as file:
        ours = file.read().splitlines()
    os.execve(f"{ENGINE}/docker", ["docker", *passed_on(words, ours)], {**os.environ, **REACHED})


if __name__ == "__main__":
    main()
