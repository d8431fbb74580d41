"""The scenarios on scripts of our own writing: what must hold holds, and what must not is named."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from patcher import pipeline, recipe, sources
from patcher.errors import UsageError
from patcher.model import Finding, Script, Verdict
from patcher.review import behaviour, sandbox, stage
from patcher.review.scenarios import Expect, Scenarios, fill, pattern

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


def test_the_build_keeps_its_descriptors(tmp_path: Path) -> None:
    text = block() + "build() { cat <&9; }\nfor try in 1 2; do docker_build_cached build 9<<< secret; done\n"
    environment = {"PATH": os.environ["PATH"], HOST: str(tmp_path), "CONTAINER_NAME": "c"}
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("secret\nsecret\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["c~lock"]


def broken(findings: tuple[Finding, ...]) -> dict[str, str]:
    return {f"{finding.row} {finding.check}": finding.detail for finding in findings if finding.verdict != Verdict.HELD}


@pytest.fixture(scope="session")
def scenarios() -> Scenarios:
    return behaviour.load_scenarios(RECIPE, "docker-build-cache")


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
    assert "called docker build" in one.evidence
    assert "found in /home/ci/host:" in one.evidence


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
    scenarios = behaviour.load_scenarios(tmp_path, "docker-build-cache")
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


@needs_sandbox
def test_a_tree_s_own_files_and_variables_do_not_stop_the_scenarios(tmp_path: Path) -> None:
    head = "#!/usr/bin/env bash\nset -o errexit -o nounset\nsource ci/test/own.sh\n"
    (tmp_path / "ci" / "test").mkdir(parents=True)
    (tmp_path / "ci" / "test" / "own.sh").write_text(': "$FORK_OPTIONS"\n')
    (tmp_path / EXECUTED).write_text(head + ': "$FORK_NAME"\n' + BUILD.format(wrap="", retry="") + TAIL)
    source = sources.tree(tmp_path)
    network = recipe.load("docker-build-network", [recipe.bundled()])
    plan = pipeline.examine(source, network, {})
    findings = pipeline.scenarios(source, plan, network, {}, result=plan.result)
    assert {finding.verdict for finding in findings} == {Verdict.HELD}


@needs_sandbox
def test_a_script_that_heeds_no_failure_cannot_be_ended(scenarios: Scenarios) -> None:
    head = "#!/bin/bash\n"
    findings = behaviour.run(only(scenarios, 5, 11), plain(head=head), patched(head=head), options={})
    assert broken(findings) == {}
    assert "the script itself goes on after a failed build" in {finding.detail for finding in findings}


UNIT = """summary = "s"
anchor = "image-build"
files = ["ci/test/02_run_container.sh"]
subject = "s"
body = "b"
[shell]
before = "block.sh"
insert = "$unit"
[options.unit]
default = "none"
form = "LABEL:FACTOR"
parts = { LABEL = "[a-z]+", FACTOR = "[0-9]+" }
help = "h"
shell = "unit.sh"
"""
UNIT_SCENARIOS = """root = "{home}/none"
failing = { build = "fail" }
[environment]
CONTAINER_NAME = "x"
[options.unit]
environment = { MODE = "{label}" }
[how]
executed = ["{script}"]
[programs]
docker = "programs/engine.sh"
[[scenario]]
row = 1
name = "whatever the option"
expect = { exit = "0" }
[[scenario]]
row = 2
name = "the option's value"
option = "unit"
expect = { exit = "0", calls = "added", added = [["--unit", "{factor}"]] }
[[scenario]]
row = 2
name = "not met"
option = "unit"
environment = { MODE = "not-{label}" }
expect = { exit = "0", calls = "reference" }
"""


@needs_sandbox
@pytest.mark.parametrize(("value", "rows"), [("none", [1]), ("a:2", [1, 2, 2])])
def test_an_option_of_any_form_has_its_scenarios(value: str, rows: list[int], tmp_path: Path) -> None:
    files = {
        "recipe.toml": UNIT,
        "scenarios.toml": UNIT_SCENARIOS,
        "block.sh": 'unit=""\n# option: unit\n',
        "unit.sh": '[ "$MODE" != LABEL ] || unit="--unit=FACTOR"\n',
    }
    shutil.copytree(RECIPE / "programs", tmp_path / "unit" / "programs")
    for name, text in files.items():
        (tmp_path / "unit" / name).write_text(text)
    (tmp_path / "tree" / "ci" / "test").mkdir(parents=True)
    (tmp_path / "tree" / EXECUTED).write_text(plain().text)
    source, unit = sources.tree(tmp_path / "tree"), recipe.read(tmp_path / "unit")
    values = unit.values({"unit": value})
    plan = pipeline.examine(source, unit, values)
    findings = pipeline.scenarios(source, plan, unit, values, result=plan.result)
    assert broken(tuple(findings)) == {}
    assert [finding.row for finding in findings] == rows
    # And they tell something.
    unpatched = behaviour.run(
        behaviour.load_scenarios(tmp_path / "unit", "unit"), plan.reference, plan.reference, options=values
    )
    assert list(broken(unpatched)) == ["2 the option's value"][: len(rows) // 2]


def pair(build: str, head: str = HEAD, text: str = "") -> tuple[Script, Script]:
    """A script whose build is written otherwise, without the block and with it in the place of ``{}``."""
    return (
        Script(EXECUTED, head + build.replace("{}", "") + TAIL),
        Script(EXECUTED, head + (text or block()) + build.replace("{}", "docker_build_cached ") + TAIL),
    )


def mutant(old: str, new: str) -> str:
    """The block with another text in the place of one that it has."""
    assert old in block()
    return block().replace(old, new)


DOCKER = 'docker build --tag="$CONTAINER_NAME"'
SLOW = """for ((n = 0; n < 25000; n++)); do :; done
trap 'echo child >> "$CI_PATCHER_RUN/exits"' EXIT
cat"""


@needs_sandbox
def test_a_signal_waits_until_the_processes_beside_the_build_have_set_themselves_up(scenarios: Scenarios) -> None:
    one = replace(
        next(one for one in scenarios.scenarios if one.name == "an EXIT trap, SIGTERM to the group"),
        expect=Expect(exits=2),
    )
    build = f"{{}}{DOCKER} . | (\n{SLOW}\n)\n"
    assert broken(behaviour.run(replace(scenarios, scenarios=(one,)), *pair(build), options={})) == {}


ELSEWHERE = {
    "a file": "{}%s . > build.log 2>&1",
    "the end of a file": "{}%s . &>> /tmp/build.log",
    "nothing": "{}%s . 2> /dev/null",
    "a pipe": "{}%s . 2>&1 | tee /tmp/log.$$",
    "a pipe that puts something before": "{}%s . 2>&1 | sed 's/^/build: /'",
    "standard output, script-wide": "exec 2>&1\n{}%s .",
    "standard error, with something before": "{}%s . 2> >(sed 's/^/build: /' >&2)",
    "a file, by a function of the script": 'quiet() { "$@" 2> log; }\n{}quiet %s .',
    "a process, script-wide": "exec > >(tee ci.log) 2>&1\n{}%s .",
}
SILENT = [
    ('echo "Error: DANGER_DOCKER_BUILD_CACHE_HOST_DIR', 'echo "Error: it'),
    ('mv -T "$new_cache" "$old_cache"', 'mv -T "$new_cache" "$old_cache" 2> /dev/null'),
]


@needs_sandbox
@pytest.mark.parametrize("build", ELSEWHERE.values(), ids=ELSEWHERE)
def test_messages_are_looked_for_where_the_build_s_go(scenarios: Scenarios, build: str) -> None:
    head = HEAD + "set -x\n"
    findings = behaviour.run(only(scenarios, 11, 19), *pair(build % DOCKER + "\n", head), options={})
    assert broken(findings) == {}
    noted = {finding.detail for finding in findings} - {""}
    assert noted == ({"the script itself shows no message of its build"} if "/dev/null" in build else set())


@needs_sandbox
@pytest.mark.parametrize("build", [build for name, build in ELSEWHERE.items() if name != "nothing"])
def test_a_message_that_is_missing_there_is_missed(scenarios: Scenarios, build: str) -> None:
    for old, new in SILENT:
        changed = mutant(old, new)
        found = broken(behaviour.run(only(scenarios, 11, 19), *pair(build % DOCKER + "\n", text=changed), options={}))
        assert any("not one line of" in detail for detail in found.values())


@needs_sandbox
def test_what_is_chance_in_the_original_is_no_fault_of_the_block(scenarios: Scenarios) -> None:
    """The end of tee takes the script along by SIGPIPE, before its trap or after."""
    chosen = named(scenarios, "an EXIT trap, SIGTERM to the group", "an EXIT trap, SIGINT to the group")
    for _ in range(4):
        both = pair(f"exec > >(tee ci.log) 2>&1\n{{}}{DOCKER} .\n", HEAD + "set -x\n")
        assert broken(behaviour.run(chosen, *both, options={})) == {}


@needs_sandbox
def test_a_trap_that_quotes_the_script_does_not_say_it_twice(scenarios: Scenarios) -> None:
    head = HEAD + "set -o errtrace\ntrap 'echo \"line $LINENO: $BASH_COMMAND\" >&2' ERR\n"
    assert broken(behaviour.run(only(scenarios, 11, 19), *pair(f"{{}}{DOCKER} .\n", head), options={})) == {}
    twice = mutant('echo "Error:', 'echo "DANGER_DOCKER_BUILD_CACHE_HOST_DIR" >&2; echo "Error:')
    found = broken(behaviour.run(only(scenarios, 11), *pair(f"{{}}{DOCKER} .\n", head, twice), options={}))
    assert any("not one line of" in detail for detail in found.values())


@needs_sandbox
@pytest.mark.parametrize("word", ['"${ENGINE:-docker}" build', "${FLAGS[@]:+sudo} docker build"])
def test_what_the_script_reads_is_not_taken_for_a_name_of_the_block(scenarios: Scenarios, word: str) -> None:
    assert broken(behaviour.run(only(scenarios, 1, 2), *pair(f"{{}}{word} .\n"), options={})) == {}


@needs_sandbox
@pytest.mark.parametrize("build", ["head -c 999999 /dev/zero | {}docker build -", "{}docker build -f- . < /dev/zero"])
def test_what_a_build_reads_from_standard_input_is_read(scenarios: Scenarios, build: str) -> None:
    build = build.replace("< /dev/zero", "< <(head -c 999999 /dev/zero; echo written >&2)")
    for _ in range(5):
        assert broken(behaviour.run(only(scenarios, 2, 5), *pair(f"{build}\n"), options={})) == {}


@needs_sandbox
def test_options_behind_the_double_dash_are_none(scenarios: Scenarios) -> None:
    found = broken(behaviour.run(only(scenarios, 1, 2, 3), *pair(f"{{}}{DOCKER} -- .\n"), options={}))
    assert {name.split()[0] for name in found} == {"2", "3"}


@needs_sandbox
@pytest.mark.parametrize("options", ["--context ci", "-H tcp://x", "--host=tcp://x", "-D --config /x -l debug --tls"])
def test_a_build_behind_options_of_the_engine_is_one(scenarios: Scenarios, options: str) -> None:
    findings = behaviour.run(only(scenarios, 1, 2, 3), *pair(f"{{}}docker {options} buildx build .\n"), options={})
    assert broken(findings) == {}


OWN_GROUP = ["timeout 60 docker build .", 'retry -- timeout --kill-after=1 60 docker build --tag="$CONTAINER_NAME" .']


@needs_sandbox
@pytest.mark.parametrize("build", OWN_GROUP)
def test_a_build_in_a_process_group_of_its_own_outlives_the_signal(scenarios: Scenarios, build: str) -> None:
    chosen = only(scenarios, 7, 8, 12, 13, 14)
    assert broken(behaviour.run(chosen, *pair(f"{{}}{build}\n"), options={})) == {}
    # What is left of the run is still judged: nothing may stay beside the cache, and no half of a promotion.
    keeps = mutant('rm -rf "$new_cache" "${new_cache}.old" || rm -rf "$new_cache" "${new_cache}.old"', ":")
    assert broken(behaviour.run(chosen, *pair(f"{{}}{build}\n", text=keeps), options={}))


@needs_sandbox
def test_a_program_that_starts_the_build_gets_the_stub(scenarios: Scenarios) -> None:
    build = "flock /tmp/ci.lock docker build .\n"
    assert broken(behaviour.run(only(scenarios, 1, 2, 3, 5, 9), *pair("{}" + build), options={})) == {}
    # Its own lock lets no two in.
    (finding,) = behaviour.run(named(scenarios, "two build at once"), *pair("{}" + build), options={})
    assert finding.verdict is Verdict.NOT_RUN
    assert "unpatched as well, run 2 stood still before build.1" in finding.detail


@needs_sandbox
def test_two_that_wait_for_each_other_where_the_original_s_do_not_are_broken(scenarios: Scenarios) -> None:
    text = mutant("flock --shared", "flock --exclusive")
    (finding,) = behaviour.run(named(scenarios, "two build at once"), *pair(f"{{}}{DOCKER} .\n", text=text), options={})
    assert finding.verdict is Verdict.BROKEN


@needs_sandbox
def test_the_engine_of_the_machine_is_out_of_reach(monkeypatch: pytest.MonkeyPatch, scenarios: Scenarios) -> None:
    # Whatever a machine has: true is a program that all have, and here one of the names that must not be reached.
    real = os.path.realpath("/usr/bin/true")
    monkeypatch.setattr(stage, "_installed", lambda *_: (real,))
    with_true = replace(scenarios, programs={**scenarios.programs, Path(real).name: scenarios.programs["docker"]})
    findings = behaviour.run(only(with_true, 2), *pair(f"{{}}{real} build .\n"), options={})
    assert broken(findings) == {}


def test_engines_are_found_behind_links() -> None:
    assert stage._installed("no-such-program") == ()
    assert os.path.realpath("/usr/bin/env") in stage._installed("env", "no-such-program")


@needs_sandbox
@pytest.mark.parametrize(
    "words", ["sudo", "doas", "sudo -E -n", "sudo --preserve-env=X -u root -H --", "sudo DOCKER_BUILDKIT=1"]
)
def test_sudo_is_there(scenarios: Scenarios, words: str) -> None:
    findings = behaviour.run(only(scenarios, 1, 2, 5), *pair(f"{{}}{words} {DOCKER} .\n"), options={})
    assert broken(findings) == {}


@needs_sandbox
def test_line_ends_of_windows_are_taken_out(scenarios: Scenarios) -> None:
    texts = [script.text.replace("\n", "\r\n") for script in (plain(), patched())]
    original, result = (Script(EXECUTED, text) for text in texts)
    assert broken(behaviour.run(only(scenarios, 1, 2, 7), original, result, options={})) == {}
    # A patch that brings them along is none of that.
    found = behaviour.run(only(scenarios, 2), plain(), result, options={})
    assert {finding.verdict for finding in found} == {Verdict.BROKEN}


@needs_sandbox
@pytest.mark.parametrize("guard", ["docker pull x", "docker image inspect x > /dev/null", "docker manifest inspect x"])
def test_an_image_that_would_be_there_is_not(scenarios: Scenarios, guard: str) -> None:
    build = f"{guard} || {{}}{DOCKER} .\n"
    assert broken(behaviour.run(only(scenarios, 1, 2, 3, 5), *pair(build), options={})) == {}
    # One that the script needs is.
    assert broken(behaviour.run(only(scenarios, 1), *pair(f"{guard}\n{{}}{DOCKER} .\n"), options={})) == {}


@needs_sandbox
def test_a_script_that_tries_for_ever(scenarios: Scenarios) -> None:
    loop = f"until {{}}{DOCKER} .; do sleep 3; done\n"
    chosen = named(scenarios, "the build fails", "SIGTERM to the group at rename.2", "the directory is missing")
    findings = behaviour.run(chosen, *pair(loop), options={})
    assert broken(findings) == {}
    assert {f.row for f in findings if f.detail == "the script itself tries for ever"} == {5, 11}
    mute = mutant('echo "Error: DANGER_DOCKER_BUILD_CACHE_HOST_DIR', 'echo "Error: it')
    (detail,) = broken(behaviour.run(chosen, *pair(loop, text=mute), options={})).values()
    assert "not one line of" in detail
    # What tries for ever while the original does not is no better than before.
    until = f"until docker_build_cached {DOCKER} .; do sleep 3; done\n"
    tries = Script(EXECUTED, HEAD + block() + until + TAIL)
    (detail,) = broken(behaviour.run(named(scenarios, "the build fails"), plain(), tries, options={})).values()
    assert "tries for ever" in detail


@needs_sandbox
def test_a_build_by_another_engine_is_not_judged(scenarios: Scenarios) -> None:
    build = f'if [ "$ENGINE" ]; then\n  {{}}{DOCKER} .\nelse\n  podman build .\nfi\n'
    findings = behaviour.run(only(scenarios, 1, 2), *pair(build), options={})
    assert {finding.verdict for finding in findings} == {Verdict.NOT_RUN}
    assert "it builds with podman" in findings[0].detail
    build = f"{{}}{DOCKER} . || podman build .\n"
    assert broken(behaviour.run(only(scenarios, 1, 2), *pair(build), options={})) == {}


GOOD = """root = "{home}/x"
how = { executed = ["{script}"] }
[[scenario]]
row = 1
name = "one"
expect = {}
"""
TREES = '[trees.t]\n"a" = "a"\n'
AGAIN = GOOD[GOOD.index("[[") :].replace("one", "two")


def expecting(expect: str) -> str:
    return GOOD.replace("expect = {}", f"expect = {{ {expect} }}")


REFUSED = {
    "a key": (GOOD + "unknown = 1\n", "scenario[0].unknown is not a known key, in the scenario 'one'"),
    "a key of expect": (expecting("leave = []"), "scenario[0].expect.leave is not a known key, in the scenario 'one'"),
    "a key at the top": ("colour = 1\n" + GOOD, "colour is not a known key"),
    "a key of an entry": (GOOD + 'before = [{ path = "x", text = "x", mode = "1" }]\n', "before[0].mode is not a known key, in the scenario 'one'"),  # noqa: E501
    "no name": (GOOD.replace('name = "one"\n', ""), "name is missing"),
    "a name twice": (GOOD + AGAIN.replace("two", "one"), "'one' is there twice"),
    "a row that is a word": (GOOD.replace("row = 1", 'row = "1"'), "row must be a number"),
    "a row without a title": (GOOD + AGAIN.replace("1", "2") + '[rows]\n1 = "a"\n', "'two': row: 2 is not in [rows]"),
    "a step": (GOOD + 'steps = ["begin 1"]\n', "'begin 1' is not a step"),
    "a step that is a number": (GOOD + "steps = [1]\n", "steps must be a list of strings"),
    "a step with a word of nothing": (GOOD + 'steps = ["start 1", "signal 1 group {name}"]\n', "{name}' is not a step"),
    "a point with a word of nothing": (GOOD + 'steps = ["start 1", "wait 1 {at}"]\n', "steps: {at} stands for nothing"),
    "no steps": (GOOD + "steps = []\n", "'one': steps: no run is started"),
    "an end before its start": (GOOD + 'steps = ["start 1", "end 2", "start 2"]\n', "'end 2' stands before 'start 2'"),
    "a wait before its start": (GOOD + 'steps = ["wait 1 x", "start 1"]\n', "'wait 1 x' stands before 'start 1'"),
    "a start twice": (GOOD + 'steps = ["start 1", "start 1"]\n', "'start 1' is there twice"),
    "a strike in a scenario": (GOOD + 'steps = ["start 1", "strike group TERM"]\n', "steps: 'strike' is for"),
    "no strike": (GOOD + AGAIN.replace("scenario", "exhaustive"), "'two': steps: one step 'strike'"),
    "a tree": (GOOD + 'before = [{ path = "x", tree = "none" }]\n', "nothing is called 'none'"),
    "an entry of nothing": (GOOD + 'before = [{ path = "x" }]\n', "before[0].path 'x' needs one of tree, link"),
    "an entry of two": (GOOD + 'before = [{ path = "x", text = "", link = "y" }]\n', "needs one of"),
    "a link to nothing": (GOOD + 'before = [{ path = "x", link = "" }]\n', "before[0].link must not be empty"),
    "a prelude": (GOOD + 'preludes = ["none"]\n', "nothing is called 'none'"),
    "a prelude in another language": (GOOD + '[preludes.p]\nbash = "true"\n', "preludes.p must hold sh or py"),
    "a program": ('programs = { tool = "none.sh" }\n' + GOOD, "none.sh"),
    "a program of no possible name": ('programs = { tool = "\\u0000" }\n' + GOOD, "programs.tool: "),
    "a language": (GOOD + 'languages = ["shell"]\n', "'one': languages: 'shell' is neither"),
    "each of nothing": (GOOD + "each = { at = [] }\n", "each.at must be a list of strings, at least of one"),
    "each that is no table": (GOOD + 'each = ["a"]\n', "each must be a table, in the scenario 'one'"),
    "each of a word": (GOOD + 'each = { at = "ab" }\n', "each.at must be a list"),
    "a plan of a number": (GOOD + "plan = { build = 1 }\n", "plan.build must be a string or a list of strings"),
    "a plan of nothing": (GOOD + "plan = { build = [] }\n", "plan.build must be"),
    "a plan that nothing asks for": (GOOD + 'plan = { biuld = "ok" }\n', "'one': plan: no program asks for 'biuld'"),
    "a plan of a wrapped program": ('wrap = { mv = "rename" }\n' + GOOD + 'plan = { rename = "refused" }\n', "plan: 'refused' is none of fail, ok, refuse"),  # noqa: E501
    "failing that nothing asks for": ('failing = { build = "fail" }\n' + GOOD, "failing fits nothing"),
    "a way of no name": ('files = { "ci/x.sh" = "sourced" }\n' + GOOD, "files.ci/x.sh names 'sourced'"),
    "no way": (GOOD.replace('executed = ["{script}"]', ""), "how must hold"),
    "a way that is no list": (GOOD.replace('["{script}"]', '"{script}"'), "how.executed must be a list"),
    "an option that the recipe has not": (GOOD + "[options.none]\n", "options.none is no option of the recipe"),
    "options in a list": ('options = ["o"]\n' + GOOD, "options must be a table"),
    "an option that is not named": (GOOD + 'option = "o"\n', "'one': option: nothing is called 'o'"),
    "an option's key": (GOOD + "[options.o]\nvariable = 1\n", "options.o.variable is not a known key"),
    "an option's word of nothing": (GOOD + '[options.o]\nenvironment = { "{V}" = "" }\n', "environment has {V}"),
    "an option's word twice": ('words = { v = "x" }\n' + GOOD + "[options.o]\n", "options.o has a part that is called"),
    "a word that is there already": ('words = { home = "x" }\n' + GOOD, "words.home is there already"),
    "a root of nothing": (GOOD.replace("{home}", "{hom}"), "root has {hom}, which stands for nothing"),
    "a name of nothing": (GOOD.replace('"one"', '"one {at}"'), "name: {at} stands for nothing"),
    "an environment of nothing": (GOOD + 'environment = { X = "{Y}" }\n', "'one': environment: {Y} stands for nothing"),
    "a word of another option": (GOOD + 'environment = { X = "{v}" }\n[options.o]\n', "environment: {v} stands for"),
    "a path of nothing": (expecting('leaves = [{ "{Y}" = "t" }]') + TREES, "expect.leaves: {Y} stands for nothing"),
    "words of nothing": (expecting('calls = "added", added = [["--a", "{Y}"]]'), "expect.added: {Y} stands for"),
    "a message of nothing": (expecting('says = ["{Y}"]'), "'one': expect.says: {Y} stands for nothing"),
    "a bad regular expression": (expecting('says = ["("]'), "'one': expect.says: '(': missing )"),
    "an exit that is a number": (expecting("exit = 0"), 'expect.exit must be a string: "0" or'),
    "an exit that is a number, of a run": (expecting("exit = { 1 = 0 }"), 'expect.exit must be a string: "0" or'),
    "an exit of no meaning": (expecting('exit = "fails"'), "expect.exit must be a string"),
    "an exit of a run that is not started": (expecting('exit = { 2 = "0" }'), "expect.exit names the run 2"),
    "exits that nothing counts": (expecting("exits = 1"), "expect.exits: without a prelude"),
    "a look that is not taken": (expecting('look = [{ "a" = "t" }]') + TREES, "expect.look: there is no step 'look'"),
    "litter without a look": (expecting('litter = ["*"]'), "expect.litter and most: without expect.look"),
    "words that are not compared": (expecting('added = [["--a", "b"]]'), "expect.added: it needs calls"),
    "words that are no pair": (expecting('calls = "added", added = [["--a", 1]]'), "added must be a list of pairs"),
    "a mode": (GOOD + TREES + '"." = "rwx"\n', "trees.t must hold a mode"),
    "no time": ("seconds = 0\n" + GOOD, "seconds must be at least 1"),
    "TOML": ("root =", "Invalid value"),
}  # fmt: skip
SMALL = """summary = "s"
anchor = "image-build"
files = ["x.sh"]
subject = "s"
body = "b"
[shell]
before = "block.sh"
[options.o]
default = "a"
help = "h"
form = "V"
parts = { V = "[a-z]" }
shell = "lines.sh"
"""


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    for name, content in (("recipe.toml", SMALL), ("block.sh", "# option: o\n"), ("lines.sh", "V\n")):
        (tmp_path / name).write_text(content)
    (tmp_path / "scenarios.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        behaviour.load_scenarios(tmp_path, "recipe")
    assert said in caught.value.what
    assert caught.value.where == str(tmp_path / "scenarios.toml")


def test_braces_that_are_no_words_stay(tmp_path: Path) -> None:
    text = (
        expecting("says = ['^x{2,3}y{2} ${home}$']")
        + 'environment = { X = "${Y} {}" }\nbefore = [{ path = "{home}/e", text = "" }]\n'
    )
    (tmp_path / "scenarios.toml").write_text(text)
    (one,) = behaviour.load_scenarios(tmp_path, "recipe").scenarios
    assert one.before[0].text == ""
    assert fill("{a} ${a} {2} {}", {"a": "b", "2": "c"}) == "b ${a} {2} {}"


def test_a_word_in_a_regular_expression_stands_for_itself() -> None:
    found = pattern("^{a}+ {b}{2}", {"a": "{b}*", "b": "(x"})
    assert found.search("(x*(x* {b}{2}") is None
    assert found.search("(x*(x* (x(x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"scenarios\.toml: cannot be read"):
        behaviour.load_scenarios(tmp_path, "recipe")


def test_each_makes_all_combinations(scenarios: Scenarios) -> None:
    names = [scenario.name for scenario in scenarios.scenarios]
    assert {f"SIG{signal} to the group at rename.2" for signal in ("TERM", "INT", "HUP")} <= set(names)
    assert {scenario.row for scenario in scenarios.scenarios} == set(range(1, 21))
