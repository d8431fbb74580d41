"""What forks have around the build: pipes, redirections, own groups and locks, guards, loops. No row is broken by
these, and what is wrong with a block beside them is still seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from patcher.model import Script, Verdict
from patcher.review import behaviour
from patcher.review.scenarios import Expect, Scenarios
from tests.test_behaviour import EXECUTED, HEAD, TAIL, block, broken, named, needs_sandbox, only, patched, plain

pytestmark = pytest.mark.long


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
