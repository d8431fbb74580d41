"""The scenarios on scripts of our own writing: what must hold holds, and what must not is named."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from patcher.model import Finding, Script, Verdict
from patcher.review import behaviour, sandbox
from patcher.review.scenarios import Scenarios

needs_sandbox = pytest.mark.skipif(
    bool(sandbox.missing()) and "CI" not in os.environ, reason=sandbox.missing() or "there is one"
)

RECIPE = Path(__file__).parent.parent / "snippets" / "docker-build-cache"
EXECUTED, SOURCED = "ci/test/02_run_container.sh", "ci/test/04_install.sh"

HOST = "DANGER_DOCKER_BUILD_CACHE_HOST_DIR"
HEAD = "#!/usr/bin/env bash\nset -o errexit -o pipefail\n"
BUILD = 'DOCKER_BUILDKIT=1 {wrap}{retry}docker build --label=x --tag="$CONTAINER_NAME" $DOCKER_BUILD_CACHE_ARG .\n'
TAIL = """docker volume create "${CONTAINER_NAME}_ccache" || true
docker image prune --force
CI_CONTAINER_ID=$(docker run --detach --tty "$CONTAINER_NAME")
docker exec "$CI_CONTAINER_ID" true
docker container kill "$CI_CONTAINER_ID"
"""
# The structure of the block that upstream had for a while: no cleanup, word splitting, `rm` before `mv`.
MERGED_BEFORE = """cache_arg=""
if [ "$DANGER_DOCKER_BUILD_CACHE_HOST_DIR" ]; then
  present="${DANGER_DOCKER_BUILD_CACHE_HOST_DIR}/${CONTAINER_NAME}"
  scratch="$(mktemp --directory build-cache-XXXXXXXXXX)"
  next="${scratch}/${CONTAINER_NAME}"
  cache_arg="--cache-from type=local,src=${present} --cache-to type=local,dest=${next},mode=max"
fi
"""
MERGED_AFTER = """if [ "$DANGER_DOCKER_BUILD_CACHE_HOST_DIR" ] && [ -e "${next}/index.json" ]; then
  rm -rf "${present}"
  mv "${next}" "${present}"
fi
"""


def block(option: str = "always", language: str = "sh") -> str:
    variable, condition, value = option.partition("=")
    text = (RECIPE / f"cache-to.{language}").read_text().replace("VARIABLE", variable).replace("VALUE", value)
    lines = (RECIPE / f"block.{language}").read_text().splitlines(keepends=True)
    place = next(index for index, line in enumerate(lines) if line.strip() == "# option: cache-to")
    indent = lines[place][: -len(lines[place].lstrip())]
    lines[place] = "".join(f"{indent}{line}\n" for line in text.splitlines()) if condition else ""
    return "".join(lines)


def plain(path: str = EXECUTED, head: str = HEAD, retry: str = "") -> Script:
    return Script(path, head + BUILD.format(wrap="", retry=retry) + TAIL)


def patched(path: str = EXECUTED, option: str = "always", head: str = HEAD, retry: str = "", text: str = "") -> Script:
    return Script(path, head + (text or block(option)) + BUILD.format(wrap="docker_build_cached ", retry=retry) + TAIL)


def merged() -> Script:
    build = BUILD.format(wrap="", retry="").replace("$DOCKER_BUILD_CACHE_ARG", "$cache_arg $DOCKER_BUILD_CACHE_ARG")
    return Script(EXECUTED, HEAD + MERGED_BEFORE + build + MERGED_AFTER + TAIL)


PYTHON = "ci/test/02_run_container.py"
PYTHON_TEXT = """#!/usr/bin/env python3
import fcntl, glob, os, shlex, signal, subprocess, sys, time


def run(words, check=True, **options):
    try:
        return subprocess.run(words, check=check, **options)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{words[0]}: {error}")


{block}def main():
    name = os.environ["CONTAINER_NAME"]
    build = ["docker", "buildx", "build", f"--tag={name}", *shlex.split(os.getenv("DOCKER_BUILD_CACHE_ARG", "")), "."]
    if {wrap}build, check=False).returncode != 0:
        time.sleep(3)
        {wrap}build)
    run(["docker", "volume", "create", f"{name}_ccache"], check=False)
    run(["docker", "image", "prune", "--force"])
    container = run(["docker", "run", "--detach", name], stdout=subprocess.PIPE, text=True).stdout.strip()
    run(["docker", "exec", container, "true"])
    run(["docker", "container", "kill", container])


main()
"""


def python(option: str = "", text: str = "") -> Script:
    """The Python script; with the block where an option's value or the block is given."""
    if not option and not text:
        return Script(PYTHON, PYTHON_TEXT.replace("{block}", "").replace("{wrap}", "run("))
    wrapped = PYTHON_TEXT.replace("{wrap}", "docker_build_cached(run, ")
    return Script(PYTHON, wrapped.replace("{block}", (text or block(option, "py")) + "\n\n"))


@needs_sandbox
@pytest.mark.parametrize("script", [plain(EXECUTED), python()], ids=["shell", "Python"])
def test_scripts_start_with_default_dispositions(scenarios: Scenarios, script: Script) -> None:
    hang_up = [one for one in scenarios.scenarios if one.name == "SIGHUP to the group at build.1"]
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        changed = patched() if script.path == EXECUTED else python("always")
        (finding,) = behaviour.run(replace(scenarios, scenarios=tuple(hang_up)), script, changed, options={})
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
        signal.signal(signal.SIGHUP, before)
    assert finding.verdict is Verdict.HELD, finding


def test_the_build_keeps_its_descriptors(tmp_path: Path) -> None:
    text = block() + "build() { cat <&9; }\nfor try in 1 2; do docker_build_cached build 9<<< secret; done\n"
    environment = {"PATH": os.environ["PATH"], HOST: str(tmp_path), "CONTAINER_NAME": "c"}
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("secret\nsecret\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["c~lock"]


def broken(findings: tuple[Finding, ...]) -> dict[str, str]:
    return {f"{finding.row} {finding.check}": finding.detail for finding in findings if finding.verdict != Verdict.HELD}


RETRY, TRACED = "${CI_RETRY_EXE} ", HEAD + "set -x\n"
MASTER = "CIRRUS_BRANCH=master"
HELD = {
    "executed, traced, with a condition": (plain(head=TRACED), patched(head=TRACED, option=MASTER), MASTER),
    "Python, with a condition": (python(), python(MASTER), MASTER),
    "sourced, with a retry": (plain(SOURCED, retry=RETRY), patched(SOURCED, retry=RETRY), "always"),
}


@needs_sandbox
@pytest.mark.parametrize(("original", "script", "option"), HELD.values(), ids=HELD)
def test_the_block_holds_every_row(scenarios: Scenarios, original: Script, script: Script, option: str) -> None:
    calls: list[tuple[int, int]] = []
    findings = behaviour.run(
        scenarios, original, script, options={"cache-to": option}, progress=lambda done, of: calls.append((done, of))
    )
    assert broken(findings) == {}
    rows = set(range(1, 21)) - (set() if "=" in option else {20})
    assert {finding.row for finding in findings} == rows
    assert calls[-1] == (len(findings), len(findings))


@needs_sandbox
def test_the_structure_of_the_merged_block_holds_row_1_only(scenarios: Scenarios) -> None:
    findings = behaviour.run(scenarios, plain(), merged(), options={})
    assert [f"{finding.row} {finding.check}" for finding in findings if finding.verdict is Verdict.HELD] == [
        "1 variable not set",
        "1 variable empty",
        # That "set -u" ends it is one of the things that it breaks.
        "1 variable not set, the build fails",
        "6 the first try fails, the retry succeeds",  # this script has no retry, so it does not arise
    ]


@needs_sandbox
def test_the_script_without_the_block_holds_row_1_and_lacks_the_cache(scenarios: Scenarios) -> None:
    findings = behaviour.run(scenarios, plain(), plain(), options={})
    rows = {finding.row for finding in findings if finding.verdict is Verdict.BROKEN}
    assert {2, 3} <= rows
    assert 1 not in rows
    (one,) = [finding for finding in findings if finding.row == 2 and "no arguments" in finding.check]
    assert "the build's words" in one.detail
    assert "run 1 called docker build" in one.evidence
    assert "after, in /home/ci/host:" in one.evidence


CANNOT_RUN = {
    "a command that is not there": ("nonsense\n", "ends with 127"),
    "no build": ("exit 0\n", "builds nothing"),
    "an endless loop": ("while :; do :; done\n", "did not end within"),
}


@needs_sandbox
@pytest.mark.parametrize(("head", "said"), CANNOT_RUN.values(), ids=CANNOT_RUN)
def test_where_the_original_cannot_run_nothing_is_judged(tmp_path: Path, head: str, said: str) -> None:
    text = (RECIPE / "scenarios.toml").read_text().replace('root = "{H}"', 'root = "{H}"\nseconds = 1')
    shutil.copytree(RECIPE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "scenarios.toml").write_text(text)
    scenarios = behaviour.load_scenarios(tmp_path)
    findings = behaviour.run(scenarios, plain(head=HEAD + head), patched(head=HEAD + head), options={})
    assert {finding.verdict for finding in findings} == {Verdict.NOT_RUN}
    assert all(said in finding.detail for finding in findings)


@needs_sandbox
def test_files_are_kept_where_asked(scenarios: Scenarios, tmp_path: Path) -> None:
    behaviour.run(scenarios, plain(), merged(), options={}, keep=tmp_path, first=True)
    assert list(tmp_path.rglob("index.json"))
    assert list(tmp_path.rglob("02_run_container.sh"))


def only(scenarios: Scenarios, *rows: int) -> Scenarios:
    return replace(scenarios, scenarios=tuple(one for one in scenarios.scenarios if one.row in rows))


def named(scenarios: Scenarios, *names: str) -> Scenarios:
    return replace(scenarios, scenarios=tuple(one for one in scenarios.scenarios if one.name in names))


@needs_sandbox
def test_companions_are_there(scenarios: Scenarios) -> None:
    head = HEAD + "source ci/test/other.sh\n"
    other = {"ci/test/other.sh": Script("ci/test/other.sh", "echo companion\n")}
    arguments = (only(scenarios, 3), plain(head=head), patched(head=head))
    assert broken(behaviour.run(*arguments, options={}, companions=other)) == {}
    assert {f.verdict for f in behaviour.run(*arguments, options={})} == {Verdict.NOT_RUN}
