"""How long a call takes, as ratios to what its libraries take alone: processor time, of the whole process tree.

    python bench/startup.py [RUNS]

Each pair of commands is run alternately, RUNS times (default 15), after one run of each that does not count. The
ratio is the median of those of neighbouring runs, so that a machine's other work weighs on both; the times shown are
medians as well, of user and system time. Exits with 1 where a ratio is above its target.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
PATCH = ["patch", "--format", "diff", "--no-verify"]
PAIRS = [
    ("--version", ["--version"], "import click", 1.4),
    ("patch, shell", [*PATCH, str(FIXTURES / "28.x")], "import bashlex, click", 2.0),
    ("patch, Python", [*PATCH, str(FIXTURES / "master")], "import libcst, click", 1.8),
]


def seconds(command: list[str]) -> float:
    """Processor time of one run and of the processes that it started and waited for."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit status {process.returncode}")
    return used.ru_utime + used.ru_stime


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    program = str(Path(sys.executable).with_name("ci-patcher"))
    status = 0
    for name, arguments, imports, target in PAIRS:
        commands = ([program, *arguments], [sys.executable, "-c", imports])
        times = [[seconds(command) for command in commands] for _ in range(runs + 1)][1:]
        ours, alone = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(ours / alone for ours, alone in times)
        status |= ratio > target
        print(
            f"{name:14} {ratio:.2f} (target {target}): {ours * 1000:.0f} ms against {alone * 1000:.0f} ms"
            f" of python -c '{imports}'"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
