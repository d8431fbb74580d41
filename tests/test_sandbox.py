"""A script that means harm: it leaves the machine alone and ends in a finding, in bounded time and memory."""

from __future__ import annotations

import ast
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from patcher.model import Finding, Script, Verdict
from patcher.review import behaviour, sandbox, stage
from patcher.review.scenarios import Expect, Mount, Scenarios

needs_sandbox = pytest.mark.skipif(
    bool(sandbox.missing()) and "CI" not in os.environ, reason=sandbox.missing() or "there is one"
)

RECIPE = """
root = "{home}/root"
seconds = SECONDS
how = { executed = ["{script}"] }
programs = { tool = "tool.sh" }
trees = { none = { "." = "755" } }
before = [{ path = "{home}/precious", text = "precious" }, { path = "{home}/root", tree = "none" }]

[[scenario]]
row = 1
name = "one"
expect = { exit = "0", leaves = [{}] }
"""
TOOL = '#!/bin/sh\n. "${0%/*}/../../lib/stub.sh"\nrecord build "${0##*/}" "$@"\n'

SYSCTL = "/proc/sys/kernel/core_pattern"
ENDLESS = "did not end within 1 s"
HOSTILE = {
    "removes its home": ('rm -rf ~/* "$HOME" 2> /dev/null; true', "precious was made, changed or removed"),
    "removes all it can": ("rm -rf --no-preserve-root / 2> /dev/null; true", ""),
    "forks without end": ("f() { f | f & }; f; wait", ""),
    "loops without end": ("while :; do :; done", ENDLESS),
    "sleeps": ("exec /bin/sleep 1000", ENDLESS),
    "writes without end": ("exec yes", "ended with -25"),
    "writes past its own output": ("yes > /proc/1/fd/1", "ended with 1"),
    "fills the disk": ('for n in $(seq 99); do head -c 15M /dev/zero > "$HOME/$n" || exit 1; done', "ended with 1"),
    "takes much memory": ("python3 -c 'b\"1\" * (1 << 33)'", "ended with 1"),
    "takes much memory, many times": (
        "for n in 1 2 3 4 5 6; do python3 -c 'import time; b = b\"1\" * (400 << 20); time.sleep(9)' & done; wait",
        "",
    ),
    "kills its parent": ('kill -KILL "$PPID"; kill -KILL 1; kill -KILL -1', "ended with 1"),
    "leaves a daemon": ("setsid sh -c 'trap \"\" HUP TERM; /bin/sleep 1000' < /dev/null > /dev/null 2>&1 &", "running"),
    "stops itself": ("kill -STOP $$", ENDLESS),
    "removes the harness": ("rm -rf /run/ci-patcher 2> /dev/null; tool", "ended with 127"),
    "makes many files": ('cd; mkdir d; python3 -c \'for n in range(10**6): open(f"d/{n}", "x")\'', "20000 files"),
    "deep directories": ("cd; for n in $(seq 3000); do mkdir d && cd d || exit 1; done", "/home/ci/d was made"),
    "changes the library": ("echo exit > /ci-patcher/lib/stub.sh", "ended with 1"),
    "changes the kernel": (f"echo core > {SYSCTL}", "ended with 1"),
    "reaches the driver's files": ("ls /proc/1/fd || exit 3", "ended with 3"),
    "traces the driver": (
        "python3 -c 'import ctypes, sys; sys.exit(3 + ctypes.CDLL(None).ptrace(16, 1, 0, 0))'",  # PTRACE_ATTACH
        "ended with 2",
    ),
}


def scenarios(folder: Path, seconds: int) -> Scenarios:
    (folder / "scenarios.toml").write_text(RECIPE.replace("SECONDS", str(seconds)))
    (folder / "tool.sh").write_text(TOOL)
    return behaviour.load_scenarios(folder)


@needs_sandbox
@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(*row, id=name, marks=[pytest.mark.long] if re.search("much|forks|disk", name) else [])
        for name, row in HOSTILE.items()
    ],
)
def test_hostile(tmp_path: Path, body: str, said: str) -> None:
    precious = Path.home() / ".ci-patcher-test-precious"
    precious.write_text("precious")
    try:
        before, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        good = Script("a/script.sh", "#!/usr/bin/env bash\ntool\n")
        bad = Script("a/script.sh", f"#!/usr/bin/env bash\ntool\n{body}\n")
        (finding,) = behaviour.run(scenarios(tmp_path, 1 if said in {ENDLESS, ""} else 2), good, bad, options={})
        assert finding.verdict is Verdict.BROKEN, finding
        assert said in finding.detail, finding
        assert len(finding.evidence) < 100_000
        assert time.monotonic() - before < 30
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 100_000  # KiB
        assert precious.read_text() == "precious"
    finally:
        precious.unlink()


@needs_sandbox
def test_a_sandbox_shows_nothing_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    seen = sandbox.run(
        ["/bin/sh", "-c", f"cat {tmp_path}/secret ~/.ssh/* /etc/shadow; ls -A /home /tmp /run /root /var; env; exit 3"]
    )
    assert seen.status == 3
    assert set(seen.stdout.decode().split()) <= {
        *(
            "/home:",
            "/tmp:",
            "/run:",
            "/root:",
            "PWD=/",
            "LC_ALL=C.UTF-8",
            "PATH=/usr/local/bin:/usr/bin:/bin",
        ),
        *(word for word in seen.stdout.decode().split() if word.startswith((".pyenv", "OLDPWD=", "_=", "SHLVL="))),
    }


@needs_sandbox
def test_a_sandbox_has_no_network_and_a_read_only_system() -> None:
    seen = sandbox.run(["/bin/sh", "-c", "cat /proc/net/dev; touch /usr/x /etc/x || echo refused"])
    interfaces = [line.split(":")[0].strip() for line in seen.stdout.decode().splitlines() if ":" in line]
    assert interfaces == ["lo"]
    assert b"refused" in seen.stdout
    assert not Path("/usr/x").exists()


@needs_sandbox
def test_output_and_time_are_bounded() -> None:
    assert "wrote more than" in sandbox.run(["/usr/bin/yes"], output=1 << 20).trouble
    assert "did not end" in sandbox.run(["/bin/sleep", "1000"], seconds=0.5).trouble


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sandbox.missing.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    script = Script("a/script.sh", f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    try:
        (finding,) = behaviour.run(scenarios(tmp_path, 2), script, script, options={})
    finally:
        sandbox.missing.cache_clear()
    assert (finding.verdict, finding.detail) == (
        Verdict.NOT_RUN,
        "no bubblewrap (bwrap) on this machine: install the package bubblewrap",
    )
    assert not (tmp_path / "ran").exists()


def test_a_bubblewrap_that_may_not_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    sandbox.missing.cache_clear()
    monkeypatch.setattr(sandbox, "BWRAP", str(tmp_path / "bwrap"))
    try:
        assert "No permissions to create new namespace" in sandbox.missing()
    finally:
        sandbox.missing.cache_clear()


@needs_sandbox
def test_nothing_that_the_kernel_shows_can_be_written_and_root_is_another_user() -> None:
    before = Path(SYSCTL).read_bytes()
    command = f"echo changed > {SYSCTL}; find /proc/sys /proc/sysrq-trigger /proc/irq -writable -type f; id -u"
    seen = sandbox.run(["/bin/sh", "-c", f"{command}; touch /x /dev/x /etc/x"])
    assert int(seen.stdout) in (sandbox.USERS if os.geteuid() == 0 else [os.geteuid()])
    assert seen.stderr.count(b"Read-only file system") == 4
    assert Path(SYSCTL).read_bytes() == before


@needs_sandbox
def test_no_home_is_bound_for_the_interpreter() -> None:
    seen = sandbox.run([sandbox.python(), "-I", "-S", "-c", "import os, sys; print(os.listdir(sys.prefix))"])
    if not sys.base_prefix.startswith(sandbox.SYSTEM):
        assert set(ast.literal_eval(seen.stdout.decode())) == {"bin", "lib"}


@needs_sandbox
def test_the_bubblewrap_that_is_found_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho another one >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = sandbox.run(["/bin/true"])
    assert (done.status, done.stderr) == (1, b"another one\n")


@needs_sandbox
def test_a_review_has_one_deadline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stage, "SECONDS", 3)
    some = scenarios(tmp_path, 2)
    copies = tuple(replace(some.scenarios[0], name=f"{n}", words={"n": f"{n}"}) for n in range(20))
    good, slow = (Script("a/script.sh", f"#!/usr/bin/env bash\ntool\n{line}") for line in ("", "/bin/sleep 99\n"))
    before = time.monotonic()
    findings = behaviour.run(replace(some, scenarios=copies), good, slow, options={})
    assert time.monotonic() - before < 8
    assert {finding.verdict for finding in findings} <= {Verdict.BROKEN, Verdict.NOT_RUN}
    assert findings[-1] == Finding("19", Verdict.NOT_RUN, stage.OVERTIME, 1)


ENDED = """
import sys
from pathlib import Path
from patcher.model import Script
from patcher.review import behaviour
good = Script("a/script.sh", "#!/usr/bin/env bash\\ntool\\n")
held = "trap '' HUP TERM\\nsetsid /bin/sleep {0} & /bin/sleep {0}\\n"
bad = Script("a/script.sh", "#!/usr/bin/env bash\\ntool\\n" + held.format(sys.argv[2]))
behaviour.run(behaviour.load_scenarios(Path(sys.argv[1])), good, bad, options={})
"""


SLEEP = f"98765.{os.getpid()}"


def sleeping() -> bool:
    """Whether a process of the script above is there."""
    commands = (path / "cmdline" for path in Path("/proc").iterdir() if path.name.isdigit())
    return any(SLEEP.encode() in command.read_bytes() for command in commands if command.exists())


@needs_sandbox
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_review(tmp_path: Path, number: int) -> None:
    scenarios(tmp_path, 30)
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-c", ENDED, str(tmp_path), SLEEP]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as program:
        wait(sleeping)
        program.send_signal(number)
        program.wait(5)
    wait(lambda: not sleeping())
    assert list((tmp_path / "tmp").iterdir()) == []


def wait(for_what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not for_what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@needs_sandbox
def test_a_mount_lies_in_the_sandbox_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    some = scenarios(tmp_path, 9)
    mounted = replace(some, scenarios=(replace(some.scenarios[0], mounts=(Mount(at="{home}/root"),)),))
    fill = "cd ~/root; for n in 1 2 3; do head -c 9M /dev/zero > $n || break; done; mkdir d; ls -d d $n; exit 7"
    bad = Script("a/script.sh", f"#!/usr/bin/env bash\ntool\n{fill}\n")
    (finding,) = behaviour.run(mounted, Script("a/script.sh", "#!/usr/bin/env bash\ntool\n"), bad, options={})
    assert "ended with 7" in finding.detail
    assert "No space left" in finding.evidence or "Permission denied" in finding.evidence
    assert list((tmp_path / "tmp").iterdir()) == []


@needs_sandbox
def test_what_is_kept_is_no_program_of_anybody(tmp_path: Path) -> None:
    make = "cp /bin/true ~/root/own; chmod 6755 ~/root/own; ln -s /etc ~/root/etc; echo x > ~/root/text"
    bad = Script("a/script.sh", f"#!/usr/bin/env bash\ntool\n{make}\n")
    good = Script("a/script.sh", "#!/usr/bin/env bash\ntool\n")
    behaviour.run(scenarios(tmp_path, 9), good, bad, options={}, keep=tmp_path / "kept")
    kept = {path.name: path for path in (tmp_path / "kept").rglob("*")}
    assert {"text", "script.sh"} <= set(kept)
    assert "etc" not in kept
    assert [path for path in kept.values() if path.is_file() and path.stat().st_mode & 0o7111] == []


SETTINGS = {
    "AppArmor": ("kernel/apparmor_restrict_unprivileged_userns", "1", "give bwrap a profile"),
    "Debian's switch": ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    "no namespaces": ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces"),
    "a container": ("kernel/ostype", "Linux", "in a container"),
}


@pytest.mark.parametrize(("name", "value", "said"), SETTINGS.values(), ids=SETTINGS)
def test_why_bubblewrap_makes_no_sandbox_is_told(tmp_path: Path, name: str, value: str, said: str) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(f"{value}\n")
    assert said in sandbox.advice(tmp_path)


@needs_sandbox
def test_a_signal_that_the_script_blocks_is_not_waited_for(tmp_path: Path) -> None:
    text = """#!/usr/bin/env python3
import signal, subprocess
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
subprocess.run(["tool"])
"""
    script = Script("a/script.py", text)
    (tmp_path / "more.sh").write_text(TOOL + "stop build\n")
    some = scenarios(tmp_path, 5)
    steps = ("start 1", "wait 1 build", "signal 1 script TERM", "go 1", "end 1")
    one = replace(some.scenarios[0], steps=steps, expect=Expect(exit="0"))
    programs = {"tool": TOOL + "stop build\n"}
    (finding,) = behaviour.run(replace(some, programs=programs, scenarios=(one,)), script, script, options={})
    assert (finding.verdict, finding.detail) == (Verdict.HELD, "")


@needs_sandbox
def test_the_engine_of_the_machine_is_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Whatever a machine has: true is a program that all have, and here one of the names that must not be reached.
    real = os.path.realpath("/usr/bin/true")
    monkeypatch.setattr(stage, "installed", lambda *_: (real,))
    some = scenarios(tmp_path, 4)
    with_true = replace(some, programs={**some.programs, Path(real).name: some.programs["tool"]})
    script = Script("a/script.sh", f"#!/usr/bin/env bash\n{real} build .\n")
    (finding,) = behaviour.run(with_true, script, script, options={})
    assert (finding.verdict, f"called {Path(real).name} build ." in finding.evidence) == (Verdict.HELD, True), finding


def test_engines_are_found_behind_links() -> None:
    assert stage.installed("no-such-program") == ()
    assert os.path.realpath("/usr/bin/env") in stage.installed("env", "no-such-program")
