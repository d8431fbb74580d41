"""The Python block by itself: a small script with it, and a stub in the place of the engine."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

SNIPPET = Path(__file__).parents[1] / "snippets" / "docker-build-cache"

MODULES = ("contextlib", "fcntl", "glob", "os", "signal", "subprocess", "sys")
HEAD = """

def run(words, check=True, **options):
    try:
        return subprocess.run(words, check=check, **options)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{words[0]}: {error}")


"""
MAIN = """

def main():
    before = [signal.getsignal(s) for s in range(1, 32)]
    cmd = ["docker", "build", "."]
    if docker_build_cached(run, cmd, check=False).returncode != 0:
        docker_build_cached(run, cmd)
    assert before == [signal.getsignal(s) for s in range(1, 32)]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    run(["docker", "later"])


main()
"""
# Sends a signal before the nth line of the block, or says how many there are.
TRACE = """\
import os, signal, sys
point, number = int(sys.argv[2]), int(sys.argv[3])
seen = 0
def trace(frame, event, arg):
    global seen
    if frame.f_code.co_filename != sys.argv[1] or frame.f_code.co_name not in ("docker_build_cached", "<lambda>"):
        return None
    if event == "line":
        seen += 1
        if seen == point:
            os.kill(os.getpid(), number) if number == signal.SIGKILL else os.killpg(0, number)
    return trace
sys.settrace(trace)
source = open(sys.argv[1]).read()
try:
    exec(compile(source, sys.argv[1], "exec"), {"__name__": "__main__"})
finally:
    sys.settrace(None)
    if not point:
        print("lines", seen)
"""
INDEX = '{"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "latest"}}]}'
# Takes its outcomes from the file plan, a line each: what to do to the export, and the status.
DOCKER = """\
#!/bin/sh
cd "$STUB" || exit
echo "$*" >> calls
[ "$1" = build ] || exit 0
line=$(head -n 1 plan); sed -i 1d plan
for word; do case "$word" in --cache-to=*) dest=${word#*dest=}; dest=${dest%%,*};; esac; done
case "$line" in export*|partial*)
  if [ "$dest" ]; then mkdir -m 0755 "$dest"; echo new > "$dest/blob"; fi;; esac
case "$line" in *signal*) kill -s "${line##* }" -- "-$(ps -o pgid= "$PPID" | tr -d ' ')"; exit 1;; esac
case "$line" in *alone*) kill -s TERM "$PPID"; sleep 0.1;; esac
case "$line" in export*) if [ "$dest" ]; then echo "$INDEX" > "$dest/index.json"; fi;; esac
case "$line" in *fail) exit 3;; esac
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A script, an engine and a directory for the cache."""

    path: Path

    @property
    def cache(self) -> Path:
        return self.path / "H [x]" / "C"

    def make(self, option: str = "") -> Host:
        block = (SNIPPET / "block.py").read_text(encoding="utf8")
        block = block.replace("    # option: cache-to\n", option)
        script = HEAD + block + MAIN
        imports = "".join(f"import {module}\n" for module in MODULES if f"{module}." in script)
        (self.path / "script.py").write_text(imports + script, encoding="utf8")
        (self.path / "bin").mkdir()
        (self.path / "bin/docker").write_text(DOCKER, encoding="utf8")
        (self.path / "bin/docker").chmod(0o755)
        (self.path / "trace.py").write_text(TRACE, encoding="utf8")
        self.cache.mkdir(parents=True)
        (self.cache / "blob").write_text("old")
        return self

    def run(
        self,
        *plan: str,
        env: Mapping[str, str] | None = None,
        trace: tuple[int, int] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        (self.path / "plan").write_text("".join(f"{line}\n" for line in plan))
        (self.path / "calls").write_text("")
        script = [str(self.path / "script.py")]
        if trace is not None:
            script = [str(self.path / "trace.py"), *script, *map(str, trace)]
        return subprocess.run(
            [sys.executable, "-S", "-E", *script],
            env={
                "PATH": f"{self.path / 'bin'}:{os.environ['PATH']}",
                "STUB": str(self.path),
                "INDEX": INDEX,
                "DANGER_DOCKER_BUILD_CACHE_HOST_DIR": str(self.cache.parent),
                "CONTAINER_NAME": "C",
                **(env or {}),
            },
            text=True,
            capture_output=True,
            start_new_session=True,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        return (self.path / "calls").read_text().splitlines()

    @property
    def state(self) -> str:
        """``old``, ``new``, or what is wrong."""
        names = sorted({*os.listdir(self.cache.parent)} - {"C", "C~lock"})
        if names:
            return f"left over: {names}"
        if not self.cache.exists():
            return "absent"
        inside = sorted(os.listdir(self.cache))
        text = (self.cache / "blob").read_text().strip()
        complete = inside == (["blob"] if text == "old" else ["blob", "index.json"])
        return text if complete else f"mixed: {inside}"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path).make()


def test_unset(host: Host) -> None:
    unset = {"DANGER_DOCKER_BUILD_CACHE_HOST_DIR": "", "CONTAINER_NAME": "", "cache": "x", "new": "x"}
    assert host.run("export fail", "export", env=unset).returncode == 0
    assert host.calls == ["build .", "build .", "later"]
    assert sorted(os.listdir(host.cache.parent)) == ["C"]


@pytest.mark.parametrize(
    ("plan", "status", "state", "calls"),
    [
        (["export"], 0, "new", 2),
        (["", ""], 0, "old", 2),
        (["partial"], 0, "old", 2),
        (["export fail", "export fail"], 1, "old", 2),
        (["partial fail", "export"], 0, "new", 3),
        (["partial signal TERM"], -signal.SIGTERM, "old", 1),
        (["partial signal HUP"], -signal.SIGHUP, "old", 1),
        (["partial signal INT"], -signal.SIGINT, "old", 1),
        (["export alone"], -signal.SIGTERM, "new", 1),
    ],
)
def test_outcomes(host: Host, plan: list[str], status: int, state: str, calls: int) -> None:
    done = host.run(*plan)
    assert (done.returncode, host.state, len(host.calls)) == (status, state, calls), done.stderr
    assert "rm:" not in done.stderr
    assert f"--cache-to=type=local,dest={host.cache}~new." in host.calls[0]
    if state == "new":
        assert host.cache.stat().st_mode & 0o777 == 0o755


@pytest.mark.long
def test_every_line(host: Host) -> None:
    lines = int(host.run("export", trace=(0, 0)).stdout.split()[-1])
    assert lines > 20
    for point in range(1, lines + 1):
        for number in (signal.SIGTERM, (signal.SIGKILL, signal.SIGINT, signal.SIGHUP)[point % 3]):
            done = host.run("export", trace=(point, number))
            assert done.returncode != 0, (point, number, done.stderr)
            if number == signal.SIGKILL:
                assert not host.cache.exists() or (host.cache / "blob").exists()
                continue
            assert host.state in ("old", "new"), (point, number, done.stderr)
    assert host.run("export").returncode == 0
    assert host.state == "new"


def test_ignored_signals_stay_ignored(host: Host) -> None:
    script = host.path / "script.py"
    script.write_text(script.read_text().replace("\nmain()\n", "\nsignal.signal(1, signal.SIG_IGN)\nmain()\n"))
    assert host.run("export signal HUP", "export").returncode == 0
    assert host.state == "new"


def test_another_run_reads(host: Host) -> None:
    with open(f"{host.cache}~lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        (host.cache.parent / "C~new.alive").mkdir()
        done = host.run("export")
        assert done.returncode == 0
        assert done.stderr == "The docker build cache was not replaced: another run uses it.\n"
        found = {path.name: sorted(os.listdir(path)) for path in host.cache.parent.glob("C~new.*")}
        assert found.pop("C~new.alive") == []
        assert list(found.values()) == [["blob", "index.json"]]
        assert (host.cache / "blob").read_text() == "old"
    assert host.run("fail", "fail").returncode == 1
    assert host.state == "new"


def test_an_index_with_the_tag_is_read(host: Host) -> None:
    (host.cache / "index.json").write_text("{}")
    assert host.run("").returncode == 0
    assert "--cache-from" not in host.calls[0]
    (host.cache / "index.json").write_text(INDEX)
    assert host.run("").returncode == 0
    assert f" --cache-from=type=local,src={host.cache}" in host.calls[0]


def test_symbolic_link_and_file(host: Host) -> None:
    target = host.path / "target"
    host.cache.rename(target)
    host.cache.symlink_to(target)
    assert host.run("export").returncode == 0
    assert (host.state, (target / "blob").read_text()) == ("new", "old")
    for path in host.cache.iterdir():
        path.unlink()
    host.cache.rmdir()
    host.cache.write_text("a file")
    assert host.run("export").returncode == 0
    assert host.state == "new"


def test_refused(host: Host) -> None:
    # Stands for a mount point, which needs privileges to make.
    mv = host.path / "bin/mv"
    mv.write_text(
        '#!/bin/sh\ncase "$2" in *.old) ;; *) case "$3" in */C) echo busy >&2; exit 1 ;; esac ;; esac\n'
        f'exec {shutil.which("mv")} "$@"\n'
    )
    mv.chmod(0o755)
    done = host.run("export")
    assert (done.returncode, host.state) == (0, "old")
    assert done.stderr == "busy\n"


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"CONTAINER_NAME": ""}, "CONTAINER_NAME"),
        ({"DANGER_DOCKER_BUILD_CACHE_HOST_DIR": "/nonexistent"}, "DANGER_DOCKER_BUILD_CACHE_HOST_DIR"),
        ({"DANGER_DOCKER_BUILD_CACHE_HOST_DIR": "/dev/null"}, "DANGER_DOCKER_BUILD_CACHE_HOST_DIR"),
        ({"DANGER_DOCKER_BUILD_CACHE_HOST_DIR": "/proc/self"}, "DANGER_DOCKER_BUILD_CACHE_HOST_DIR"),
    ],
)
def test_at_fault(host: Host, env: dict[str, str], named: str) -> None:
    if env.get("DANGER_DOCKER_BUILD_CACHE_HOST_DIR") == "/proc/self" and os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    done = host.run("export", env=env)
    assert (done.returncode, host.calls) == (1, [])
    assert named in done.stderr
    assert host.state == "old"


@pytest.mark.parametrize(("value", "state"), [("master", "new"), ("other", "old")])
def test_option(tmp_path: Path, value: str, state: str) -> None:
    option = (SNIPPET / "cache-to.py").read_text(encoding="utf8")
    option = option.replace("VARIABLE", "BRANCH").replace("VALUE", "master")
    host = Host(tmp_path).make("".join(f"    {line}\n" for line in option.splitlines()))
    assert host.run("export", env={"BRANCH": value}).returncode == 0
    assert host.state == state
    assert ("--cache-to" in host.calls[0]) == (state == "new")


def test_lint(host: Host) -> None:
    script = str(host.path / "script.py")
    ruff = ["ruff", "check", "--isolated", "--quiet", "--select=B006,B008,E,F,PLE,W", "--ignore=E501,E741", script]
    for command in (ruff, ["vulture", "--min-confidence", "100", script]):
        command[0] = str(Path(sys.executable).parent / command[0])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")
