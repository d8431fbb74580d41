"""What no scenario shows of the Python block: brackets in a path, its messages, and signals that are ignored."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_behaviour import block

SCRIPT = """\
import contextlib, fcntl, glob, os, signal, subprocess, sys

{block}

def handlers():
    return [signal.getsignal(number) for number in range(1, 32)]

if os.environ["PLAN"] == "signal":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
before = handlers()
done = docker_build_cached(subprocess.run, ["docker", "build", "."])
assert (handlers(), signal.pthread_sigmask(signal.SIG_BLOCK, [])) == (before, set())
sys.exit(done.returncode)
"""
DOCKER = """\
#!/bin/sh
for word; do case "$word" in --cache-to=*) dest=${word#*dest=}; dest=${dest%%,*};; esac; done
mkdir "$dest"
echo new > "$dest/blob"
[ "$PLAN" != signal ] || kill -s HUP -- "-$(ps -o pgid= "$PPID" | tr -d ' ')"
[ "$PLAN" != fail ] || exit 3
echo '{"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "latest"}}]}' > "$dest/index.json"
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An old cache."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(DOCKER)
    (tmp_path / "bin/docker").chmod(0o755)
    (tmp_path / "script.py").write_text(SCRIPT.format(block=block(language="py")))
    path = tmp_path / "H [x]" / "C"
    path.mkdir(parents=True)
    (path / "blob").write_text("old\n")
    return path


def run(cache: Path, plan: str) -> tuple[int, str]:
    """The exit status of a script with the block, and what it says on standard error."""
    folder = cache.parents[1]
    environment = {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "PLAN": plan,
        "DANGER_DOCKER_BUILD_CACHE_HOST_DIR": str(cache.parent),
        "CONTAINER_NAME": "C",
    }
    command = [sys.executable, "-S", "-E", f"{folder}/script.py"]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, start_new_session=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("plan", "status", "text"),
    [("fail", 3, "old\n"), ("export", 0, "new\n"), ("signal", 0, "new\n")],
)
def test_the_block_is_silent_and_leaves_nothing(cache: Path, plan: str, status: int, text: str) -> None:
    (cache.parent / "C~new.killed").mkdir()
    assert run(cache, plan) == (status, "")
    assert (cache / "blob").read_text() == text
    assert sorted(os.listdir(cache.parent)) == ["C", "C~lock"]


def test_another_run_reads(cache: Path) -> None:
    with open(f"{cache}~lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert run(cache, "export") == (0, "The docker build cache was not replaced: another run uses it.\n")
        assert (cache / "blob").read_text() == "old\n"
    assert run(cache, "fail") == (3, "")
    assert (cache / "blob").read_text() == "new\n"
