"""Time ``ci-patcher backport`` against the loop that it replaces, and count what works.

    python bench/backport.py R [BRANCH...] [--runs N]

In a clone of R, for each branch: ``git checkout``, then ``git cherry-pick`` of the commit that upstream merged, given
up where it conflicts; against one ``ci-patcher backport --no-verify`` over the same branches of the same clone. The
two take turns. The table has the median of each, and on how many branches the result works: the static checks say
so of both. The exit status is 1 where ours takes more than its share of the loop's time, or a branch fails.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from replay import MERGED, MERGED_FILE, SCRATCH, wrong

from patcher import pipeline, recipe
from patcher.errors import CiPatcherError
from patcher.model import Recipe, Script, Source, State
from patcher.repository import Objects

BRANCHES = ("25.x", "26.x", "27.x", "28.x", "29.x", "30.x", "31.x", "master")
TARGET = 0.15


@dataclass(slots=True)
class Measured:
    """The wall and processor time of each run in seconds, and the branches with a working result."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    works: set[str] = field(default_factory=set)


class Clone:
    """A clone with its own work tree, which borrows the objects of R."""

    def __init__(self, repository: Path, folder: Path, branches: Sequence[str]) -> None:
        self.folder = folder
        self.environment = SCRATCH | {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder.parent)}
        self.git(
            "clone", "--quiet", "--shared", "--no-tags", str(repository.absolute()), str(folder), cwd=folder.parent
        )
        for branch in branches:
            self.git("branch", "--quiet", "--force", f"bench/{branch}", f"origin/{branch}")
        self.git("checkout", "--quiet", f"bench/{branches[-1]}")

    def git(self, *arguments: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments],
            cwd=cwd or self.folder,
            env=self.environment,
            check=check,
            capture_output=True,
            text=True,
        )

    def loop(self, branches: Sequence[str]) -> list[str]:
        """The maintainer's loop. Gives the branches on which git had no conflict."""
        clean: list[str] = []
        for branch in branches:
            self.git("checkout", "--quiet", "--detach", f"bench/{branch}")
            if self.git("cherry-pick", "--allow-empty", "--keep-redundant-commits", MERGED, check=False).returncode:
                self.git("cherry-pick", "--abort", check=False)
            else:
                clean.append(branch)
        return clean

    def picked(self, branch: str) -> str:
        """What is wrong with a branch after the cherry-pick, which is repeated for this, or empty."""
        self.loop([branch])
        file = self.folder / MERGED_FILE
        if not file.is_file():
            return f"there is no {MERGED_FILE}"
        return wrong(
            Script(MERGED_FILE, file.read_bytes().decode("utf8", "surrogateescape")), 1, "DOCKER_BUILD_CACHE_ARG"
        )

    def backport(self, branches: Sequence[str], output: Path) -> subprocess.CompletedProcess[str]:
        names = [f"bench/{branch}" for branch in branches]
        options = ["--no-verify", "--author", "Bench <bench@localhost>", "-o", str(output)]
        return subprocess.run(
            [sys.executable, "-m", "patcher", "backport", "--repo", str(self.folder), *names, *options],
            env=self.environment, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[1],
        )  # fmt: skip

    def applied(self, branch: str, output: Path, chosen: Recipe) -> str:
        """What is wrong with a branch after ``git am`` of our patch, or empty."""
        patches = [str(path) for path in (output / f"bench-{branch}").glob("*.patch")]
        self.git("checkout", "--quiet", "--detach", f"bench/{branch}")
        done = self.git("am", "--quiet", *patches, check=False)
        if not patches or done.returncode:
            self.git("am", "--abort", check=False)
            return done.stderr if patches else "no patch"
        try:
            plan = pipeline.examine(Source(branch, self.folder), chosen, chosen.values({}))
        except CiPatcherError as error:
            return str(error)
        return "" if plan.state is State.CURRENT else str(plan.state)


def processor() -> float:
    """The processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, metavar="R", help="a clone of Bitcoin Core")
    parser.add_argument("branches", nargs="*", metavar="BRANCH", default=list(BRANCHES), help="else all eight")
    parser.add_argument("--runs", type=int, default=3, help="how often each takes its turn (3)")
    options = parser.parse_args(arguments)
    branches: list[str] = options.branches
    chosen = recipe.load("docker-build-cache", [recipe.bundled()])
    loop, ours = Measured(), Measured()
    with tempfile.TemporaryDirectory(prefix="ci-patcher-") as name:
        clone = Clone(options.repository, Path(name) / "clone", branches)
        with Objects(clone.folder) as objects:
            if objects.commit(MERGED) is None:
                parser.error(f"{options.repository} has no commit {MERGED}")
        output = Path(name) / "out"
        clean: list[str] = []
        for _ in range(options.runs):
            for measured in (loop, ours):
                wall, used = time.perf_counter(), processor()
                if measured is loop:
                    clean = clone.loop(branches)
                else:
                    clone.backport(branches, output)
                measured.wall.append(time.perf_counter() - wall)
                measured.processor.append(processor() - used)
            clone.git("checkout", "--quiet", f"bench/{branches[-1]}")
        remarks: list[str] = []
        for branch in branches:
            problem = clone.picked(branch) if branch in clean else "git cherry-pick conflicts"
            mine = clone.applied(branch, output, chosen)
            for who, what, measured in (("loop", problem, loop), ("ci-patcher", mine, ours)):
                if what:
                    remarks.append(f"{who}, {branch}: {' '.join(what.split())}")
                else:
                    measured.works.add(branch)
    print(table(loop, ours, len(branches)))
    print("\n".join(remarks))
    share = statistics.median(ours.wall) / statistics.median(loop.wall)
    return int(share > TARGET or len(ours.works) < len(branches))


def table(loop: Measured, ours: Measured, branches: int) -> str:
    """The two side by side."""
    walls, processors = (
        (statistics.median(getattr(loop, what)), statistics.median(getattr(ours, what)))
        for what in ("wall", "processor")
    )
    rows = [
        ("", "checkout + cherry-pick", "ci-patcher", "ratio", "target"),
        ("wall time, s", f"{walls[0]:.2f}", f"{walls[1]:.2f}", f"{walls[1] / walls[0]:.3f}", f"<= {TARGET}"),
        (
            "processor time, s",
            f"{processors[0]:.2f}",
            f"{processors[1]:.2f}",
            f"{processors[1] / processors[0]:.3f}",
            "",
        ),
        ("branches that work", f"{len(loop.works)} of {branches}", f"{len(ours.works)} of {branches}", "", "all"),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
