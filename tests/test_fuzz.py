"""The fuzzer for some seconds, and what longer runs of it have found (see ``tests/fuzz.py``)."""

# ruff: noqa: E501 (the scripts)

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz import check, scripts

BRIEF = settings(
    max_examples=35, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)

FOUND = {
    "commands that bash reads only when it comes to them": (
        "shell", "cat <<EOF\n$(docker build - << EOF\nFROM x\nEOF)\nEOF"),
    "the same in an arm of a case": (
        "shell", "docker build .\ncase x in (a|b) cat <<EOF\n$(docker build - << EOF\nFROM x\nEOF)\nEOF\n;;\n*) ;; esac"),
    "a byte order mark is part of bash's first word": ("shell", "\ufeffdocker build ."),
    "a byte order mark before a statement that does not begin its line": ("shell", "\ufeffx=1; docker build . &"),
    "a byte order mark before an import": ("python", '\ufeffrun(["docker", "build", "."])\n'),
    "a form feed is no blank to bash": ("shell", "}\x0c"),
    "a vertical tab is no blank to bash": ("shell", "if\x0b"),
    "nor behind a redirection": ("shell", ">&\x0b"),
    "a carriage return alone is no blank to bash": ("shell", "}\r"),
    "a coprocess that is a loop": ("shell", "coproc for ((i=0;i<2;i++)); do docker build .; done"),
    "a negated nothing": ("shell", "! # comment\n\ndocker build .\n"),
    "a module that is used without an import": ("python", "import sys\nos.x()\nsys.x()\nrun(['docker', 'build'])\n"),
    "a module that is imported for nothing": ("python", "import os\nrun(['docker', 'build'])\n"),
    "a list without room, beside one": (
        "python", 'f(["docker", "build", "."])\nif x:\n    os.execvp(["docker", "build", "."])\n    run(shlex.split("docker build ."))\n'),
    "a method of what a call gives back": ("python", 'C().run(["docker", "build", "."])\n'),
    "the list is not the first argument": (
        "python", 'def retry(n, cmd):\n    return run(cmd)\nretry(3, ["docker", "build", "."])\n'),
    "a blank behind the parenthesis": ("python", 'run( ["docker", "build", "."])\n'),
    "a blank before the parenthesis": ("python", 'run (["docker", "build", "."])\n'),
    "a line break behind the parenthesis": ("python", 'run(\n    ["docker", "build", "."],\n)\n'),
    "a comment behind the parenthesis": ("python", 'run(\n    # a, b\n    ["docker", "build", "."],\n)\n'),
    "what calls the build needs its import": ("python", 'import os\nos.system(["docker", "build", "."])\n'),
    "a byte order mark before what is put in": ("python", '\ufeffif x:\n    run(["docker", "build", "."])\n'),
    "a directive that is not needed yet": ("shell", "# shellcheck disable=SC2086\n$RETRY docker build .\n"),
    "an engine beside another": (
        "python", 'if x:\n    C().run(["docker", "build", "."])\n    run(cmd if x else ["podman", "build", "."])\n'),
}  # fmt: skip


@pytest.mark.parametrize(("language", "text"), FOUND.values(), ids=FOUND)
def test_what_was_found(language: str, text: str) -> None:
    check(text, language)


@pytest.mark.parametrize("language", ["shell", "python"])
def test_briefly(language: str) -> None:
    @BRIEF
    @given(scripts(language))
    def holds(text: str) -> None:
        check(text, language)

    holds()


@pytest.mark.long
@pytest.mark.parametrize("language", ["shell", "python"])
def test_at_length(language: str) -> None:
    """The same inputs on every run: a search for new findings is `python -m tests.fuzz`, and no gate."""

    @settings(BRIEF, max_examples=800)
    @given(scripts(language))
    def holds(text: str) -> None:
        check(text, language)

    holds()
