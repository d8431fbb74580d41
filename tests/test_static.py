"""The static review: each check is shown to fail on a deliberately bad result."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from patcher import pipeline
from patcher import recipe as recipes
from patcher.emit import git
from patcher.model import Finding, Plan, Script, Verdict
from patcher.pipeline import planned as original
from patcher.review import static
from patcher.sources import tree as source_of
from tests.conftest import needs

RECIPE = recipes.load("docker-build-cache", [recipes.bundled()])
PLAIN = Script("ci/x.sh", '#!/usr/bin/env bash\nexport LC_ALL=C\n\ndocker build "$A"\necho "$B"\n')


def edited(old: str, new: str, script: Script = PLAIN) -> Script:
    assert old in script.text
    return replace(script, text=script.text.replace(old, new, 1))


def builds(script: Script) -> list[int]:
    return [script.text.index("docker build")]


def lint(result: Script) -> Finding:
    needs("shellcheck")
    return static.linted(PLAIN, result)[0]


def test_nothing_is_found_in_what_is_good() -> None:
    good = edited("docker build", "f docker build", edited("\n\n", '\n\nf() { "$@"; }\n\n'))
    findings = [
        static.parses(good),
        static.one_build(1, 1),
        static.only_intended(PLAIN, good, builds(PLAIN)),
        static.style(PLAIN, good),
        static.second_run(changes=False),
        static.reverse(PLAIN, PLAIN),
        static.applies(git.refused([(PLAIN, good)], git.diff(((PLAIN, good),)))),
        lint(good),
    ]
    assert [finding for finding in findings if finding.verdict is not Verdict.HELD] == []


def test_patterns_that_the_script_switches_on_parse() -> None:
    text = "shopt -s extglob\necho ci/!(retry|lint)\n"
    assert static.parses(Script("x.sh", text)).verdict is Verdict.HELD
    assert static.parses(Script("x.sh", text + "( echo\n")).verdict is Verdict.BROKEN
    assert static.parses(Script("x.sh", text.split("\n", 1)[1])).verdict is Verdict.BROKEN


BAD: dict[str, tuple[Callable[[], Finding], str]] = {
    "shell that does not parse": (lambda: static.parses(edited("echo", "( echo")), "syntax error"),
    "Python that does not parse": (lambda: static.parses(Script("x.py", "def f(:\n")), "line 1"),
    "another try": (lambda: static.one_build(1, 2), "2 after"),
    "another line changed": (
        lambda: static.only_intended(PLAIN, edited('echo "$B"', 'echo "$C"'), builds(PLAIN)),
        "1 other lines are changed",
    ),
    "another line removed": (
        lambda: static.only_intended(PLAIN, edited('echo "$B"\n', ""), builds(PLAIN)),
        "1 other lines are changed",
    ),
    "the build removed": (
        lambda: static.only_intended(PLAIN, edited('docker build "$A"\n', ""), builds(PLAIN)),
        "1 other lines are changed",
    ),
    "a trailing blank": (lambda: static.style(PLAIN, edited("docker", "f \ndocker")), "'f '"),
    "a tab": (lambda: static.style(PLAIN, edited("docker", "f\t1\ndocker")), "f\\t1"),
    "a second run that changes": (lambda: static.second_run(changes=True), "change the result again"),
    "a reverse with other bytes": (lambda: static.reverse(PLAIN, edited("echo", "Echo")), "the bytes differ"),
    "no reverse at all": (lambda: static.reverse(PLAIN, None), "not recognized"),
    "a patch that does not apply": (
        lambda: static.applies(git.refused([(PLAIN, PLAIN)], git.diff(((edited("echo", "cat"), PLAIN),)))),
        "patch",
    ),
    "a finding of ShellCheck": (lambda: lint(edited('"$A"', "$A")), "SC2086"),
    "the same finding once more": (
        lambda: static.linted(edited('"$B"', "$B"), edited('"$B"', "$B\nls $B"))[0],
        "SC2086",
    ),
}


@pytest.mark.parametrize(("check", "detail"), BAD.values(), ids=BAD)
def test_each_check_can_fail(check: Callable[[], Finding], detail: str) -> None:
    finding = check()
    assert finding.verdict is Verdict.BROKEN
    assert detail in finding.detail


def test_what_the_original_had_is_not_held_against_the_result() -> None:
    needs("shellcheck")
    old = edited('"$B"', "$B")
    assert static.linted(old, edited("docker", "true\ndocker", old))[0].verdict is Verdict.HELD


def test_a_missing_linter_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert static.linted(PLAIN, PLAIN)[0] == Finding("shellcheck", Verdict.NOT_RUN, "shellcheck is missing")


def test_a_linter_that_takes_all_memory_is_not_run() -> None:
    needs("shellcheck")
    endless = edited("echo", ". /dev/zero\necho")
    (finding,) = static.linted(PLAIN, endless)
    assert (finding.verdict, "out of memory" in finding.detail) == (Verdict.NOT_RUN, True)


def test_without_a_sandbox_no_program_reads_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patcher.review.sandbox.missing", lambda: "none here")
    python = Script("ci/x.py", "print()\n")
    findings = [static.parses(PLAIN), *static.linted(PLAIN, PLAIN)]
    findings += static.linted(python, python)
    told = [finding.check for finding in findings if finding.verdict is Verdict.NOT_RUN]
    assert told == ["parses", "shellcheck", "ruff", "vulture"]
    assert all(finding.detail.endswith("none here") for finding in findings if finding.check in told)
    assert static.parses(python).verdict is Verdict.HELD


def test_a_failed_review_gives_no_patch(tree: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above are wired: a result that is bad on purpose comes back with the finding."""

    def bad(syntax: object, *rest: object) -> Plan:
        found = original(syntax, *rest)  # type: ignore[arg-type]
        if found.result.text == found.script.text:
            return found
        return replace(found, result=edited("docker volume", "docker vilume", found.result))

    monkeypatch.setattr("patcher.pipeline.planned", bad)
    source = source_of(tree("28.x"))
    done = pipeline.change(source, RECIPE, RECIPE.values({}), verify=False)
    assert {finding.check for finding in done.broken} == {"only the intended lines", "the reverse gives the original"}


def test_shellcheck_of_the_older_branches_finds_nothing_either(tree: Callable[[str], Path]) -> None:
    """Upstream's lint has ShellCheck 0.8.0 up to 29.x. CI installs it apart and names it in SHELLCHECK_080."""
    program = os.environ.get("SHELLCHECK_080")
    if not program:
        pytest.skip("SHELLCHECK_080 is unset: it names a ShellCheck 0.8.0")
    for name in ("25.x", "26.x", "27.x", "28.x", "29.x"):
        done = pipeline.change(source_of(tree(name)), RECIPE, RECIPE.values({}), verify=False)
        found = []
        for script in done.pairs[0]:
            flags = [*static.SHELLCHECK[:-1], "--format=gcc", "-"]
            shown = subprocess.run([program, *flags], input=script.data, capture_output=True, check=False).stdout
            found.append(shown.decode().count("[SC"))
        assert found[1] <= found[0], name
