"""Leads scenarios on a real engine inside the sandbox: the driver, with points that are seen and not stopped at.

A real build can't be stopped at a point as the stub can. What it has come to is read from its output (``running``)
and from what it has written beside the cache (``exporting``). ``patcher.review.engine`` hands over ``job`` in this
module's names; ``driver`` is ``driver.py``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys

# ruff: noqa: F821
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from patcher.review.harness import driver

    job: dict[str, Any]
else:
    import driver

BOUND = "/run/engine"
MEBIBYTE = 1 << 20
BEGUN = b"begun 42"  # what the slow layer prints; the word in its source is another


def digests(root: str) -> list[list[str]]:
    """What lies below ``root``: relative path, kind, mode and the digest of a file's content, nothing cut off."""
    found = []
    for folder, folders, files in os.walk(root):
        for name in sorted([*folders, *files]):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            kind, digest = "directory", ""
            if os.path.islink(path):
                kind, digest = "link", os.readlink(path)
            elif os.path.isfile(path):
                kind = "file"
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            found.append([os.path.relpath(path, root), kind, f"{status.st_mode & 0o7777:o}", digest])
    return sorted(found)


def look(root: str) -> list[list[str]]:
    """As ``digests``; once more where something vanishes while it is read."""
    for _ in range(20):
        try:
            return digests(root)
        except FileNotFoundError:
            continue
    return [["unsteady", "other", "", ""]]


class Scenario(driver.Scenario):
    """A scenario whose points are those that a real build shows."""

    def pump(self, seconds: float) -> None:
        """Ends the scenario at once where the review was interrupted."""
        if os.path.exists(f"{BOUND}/control/stop"):
            raise driver.Stop("interrupted")
        super().pump(seconds)

    def reached(self, run: driver.Run, point: str) -> bool:
        """Whether the build prints what its slow layer does, or writes a cache beside the old one."""
        if point == "running":
            # Builds report on standard error; a script may have joined the two.
            for name in ("errors", "output"):
                with open(f"{run.folder}/{name}", "rb") as file:
                    if BEGUN in file.read():
                        return True
            return False
        for entry in os.listdir(self.job["root"]):
            if entry in self.job["known"]:
                continue
            for folder, _, files in os.walk(os.path.join(self.job["root"], entry)):
                try:
                    if any(os.path.getsize(os.path.join(folder, name)) >= MEBIBYTE for name in files):
                        return True
                except FileNotFoundError:
                    continue
        return False

    def wait(self, run: driver.Run, point: str, or_lock: bool) -> None:
        """Until the build has come to the point or the run has ended."""
        if point not in {"running", "exporting"}:
            super().wait(run, point, or_lock)
            return
        while not self.reached(run, point):
            if run.status is not None and not run.alive():
                self.missed.append(f"the build was never seen {point}")
                return
            self.pump(0.002)


def fill(folder: str) -> None:
    """Fills the file system on which a directory lies."""
    descriptor = os.open(f"{folder}/filler", os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while os.write(descriptor, b"\0" * size):
                    pass
            except OSError:
                continue
    finally:
        os.close(descriptor)


def main() -> None:
    """Runs the one job that this sandbox is for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.umask(0o022)
    if job["fill"]:
        shutil.copytree(f"{BOUND}/seed", job["fill"])
        fill(job["root"])
    driver.look = look
    driver.Scenario = Scenario  # type: ignore[misc]
    sys.stdout.write(driver.dumps(driver.play(job)) + "\n")


if __name__ == "__main__":
    main()
