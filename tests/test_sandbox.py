"""A script that means harm: it leaves the machine alone and ends in a finding, in bounded time and memory."""

from __future__ import annotations

import os
import re
import resource
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from patcher.model import Script, Verdict
from patcher.review import behaviour, sandbox, stage
from patcher.review.scenarios import Scenarios

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
    "deep directories": (
        "cd; for n in $(seq 300); do mkdir d && cd d || exit 1; done",
        "/home/ci/d was made",
    ),
}


def scenarios(folder: Path, seconds: int) -> Scenarios:
    (folder / "scenarios.toml").write_text(RECIPE.replace("SECONDS", str(seconds)))
    (folder / "tool.sh").write_text(TOOL)
    return behaviour.load_scenarios(folder, "hostile")


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
        *("/home:", "/tmp:", "/run:", "/root:", "PWD=/", "LC_ALL=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin"),
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
