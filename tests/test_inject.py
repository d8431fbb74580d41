"""Anchors and a recipe to edits: what is put in, what is taken out, and that the rest stays as it is."""

from __future__ import annotations

import pytest

from patcher import inject, pipeline
from patcher import recipe as recipes
from patcher.errors import RefusedError
from patcher.layout import lead
from patcher.model import Plan, Script, State
from patcher.pipeline import parse

RECIPE = recipes.load("docker-build-cache", [recipes.bundled()])
BLOCK = inject.block_lines(RECIPE, RECIPE.values({}), "shell")


def planned(text: str, path: str = "x.sh", **values: str) -> Plan:
    chosen = {name.replace("_", "-"): value for name, value in values.items()}
    return pipeline.planned(parse(Script(path, text)), RECIPE, RECIPE.values(chosen))


def block(indent: str = "", newline: str = "\n") -> str:
    return "".join(f"{indent}{line}{newline}" for line in BLOCK)


STATES = {
    "no cache": ("docker build .\n", State.NO_CACHE),
    "the hook": ("docker build $DOCKER_BUILD_CACHE_ARG .\n", State.HOOK),
    "the hook in a comment": ("# $DOCKER_BUILD_CACHE_ARG\ndocker build .\n", State.NO_CACHE),
    "foreign": ('DOCKER_BUILD_CACHE_OLD_DIR="a"\ndocker build .\n', State.FOREIGN),
    "ours": (block() + "\ndocker_build_cached docker build .\n", State.CURRENT),
    "ours, with other indentation": (
        "if a; then\n" + block("\t") + "\n\tdocker_build_cached docker build .\nfi\n",
        State.CURRENT,
    ),
    "ours, not before the build": (block() + "\ndocker build .\n", State.PARTIAL),
}


@pytest.mark.parametrize(("text", "state"), STATES.values(), ids=STATES)
def test_the_state(text: str, state: State) -> None:
    assert planned(text).state is state


UNKNOWN = {
    "an argument": "docker build --cache-to type=local,dest=x .\n",
    "a variable that carries it": 'X="--cache-from=type=local,src=x"\ndocker build $X .\n',
    "our variable": 'if [ "$DANGER_DOCKER_BUILD_CACHE_HOST_DIR" ]; then a; fi\ndocker build .\n',
    "a statement that does more": (
        'if [ "$DOCKER_BUILD_CACHE_OLD_DIR" ] && [ "$F" ]; then rm "$DOCKER_BUILD_CACHE_OLD_DIR"; fi\ndocker build .\n'
    ),
    "all that a statement holds": ('if [ "$FOO" ]; then\n  rm "$DOCKER_BUILD_CACHE_OLD_DIR"\nfi\ndocker build .\n'),
    "our function with another body": "docker_build_cached() ( true; )\ndocker build .\n",
}


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_a_block_of_an_unknown_form_is_not_touched(text: str) -> None:
    with pytest.raises(RefusedError) as caught:
        planned(text)
    assert caught.value.where.startswith("x.sh:")
    assert "Seen: " in caught.value.hint


PUT_IN = {
    "below a blank line": ("a\n\n", "", "docker build .\n", "\n"),
    "below a statement": ("a\n", "\n", "docker build .\n", ""),
    "at the top": ("", "", "docker build .\n", "\n"),
    "above its comments": ("a\n\n", "", "# why\n# shellcheck disable=SC2086\ndocker build $X .\n", "\n"),
    "not above another's comment": ("# other\n\n", "", "docker build .\n", "\n"),
    "below the interpreter's line": ("#!/bin/bash\n", "\n", "docker build .\n", ""),
    "behind assignments": ("a\n\n", "", "A=1 docker build .\n", "\n"),
    "before a wrapper": ("a\n\n", "", "A=1 timeout docker build .\n", "\n"),
}


@pytest.mark.parametrize(("above", "before", "build", "after"), PUT_IN.values(), ids=PUT_IN)
def test_what_is_put_in(above: str, before: str, build: str, after: str) -> None:
    program = "timeout" if "timeout" in build else "docker"
    wrapped = build.replace(program, f"docker_build_cached {program}", 1)
    assert planned(above + build).result.text == above + before + block() + after + wrapped


def test_the_first_statement_of_a_branch_has_no_blank_line_above() -> None:
    result = planned("if a; then\n  docker build .\nfi\n").result.text
    assert result == "if a; then\n" + block("  ") + "\n  docker_build_cached docker build .\nfi\n"


ODD_BYTES = {
    "CR LF": "a\r\n\r\ndocker build .\r\n",
    "no final newline": "a\n\ndocker build .",
    "a BOM": "\ufeffa\n\ndocker build .\n",
    "bytes that are not UTF-8": "echo '\udcff\udc80'\n\ndocker build .\n",
    "tabs": "if a; then\n\tb\n\tdocker build .\nfi\n",
    "trailing blanks": "a  \n\t\n\ndocker build .  \n",
    "form feeds": "a\f\n\n\f\ndocker build .\f\n",
}


@pytest.mark.parametrize("text", ODD_BYTES.values(), ids=ODD_BYTES)
def test_every_other_byte_stays(text: str) -> None:
    found = planned(text)
    again = planned(found.result.text)
    assert again.state is State.CURRENT
    assert again.reference.data == Script("x.sh", text).data
    newlines = {line[len(line.rstrip("\r\n")) :] for line in found.result.text.splitlines(keepends=True)}
    assert newlines <= ({"\r\n"} if "\r\n" in text else {"\n", ""})


def test_an_option_adds_at_most_four_lines_and_is_recognized() -> None:
    text = "docker build .\n"
    always, when = planned(text), planned(text, cache_to="CIRRUS_BRANCH=master")
    assert 0 < len(when.result.text.splitlines()) - len(always.result.text.splitlines()) <= 4
    assert '"${CIRRUS_BRANCH:-}" != "master"' in when.result.text
    assert planned(when.result.text, cache_to="CIRRUS_BRANCH=master").state is State.CURRENT
    other = planned(when.result.text)
    assert (other.state, other.values) == (State.OPTIONS, {"cache-to": "CIRRUS_BRANCH=master"})
    assert other.result.text == always.result.text


def test_the_lengths_that_the_contract_allows() -> None:
    for language, most in (("shell", 36), ("python", 42)):
        lines = inject.block_lines(RECIPE, RECIPE.values({}), language)
        blank = 2 if language == "python" else 1
        assert len(lines) + blank + 2 <= most


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        ("a\nb\n", 2, 2),
        ("# c\nb\n", 4, 0),
        ("# far\n\n# c\n  # d\n  b\n", 19, 7),
        ("#!/bin/sh\nb\n", 10, 10),
        ("a # c\nb\n", 6, 6),
        ("a 'x\n# c'\nb\n", 10, 10),
        ("{\n# c\nb\n}\n", 6, 2),
    ],
)
def test_comment_lines_stay_with_their_statement(text: str, start: int, expected: int) -> None:
    assert lead(parse(Script("x.sh", text)), start) == expected


@pytest.mark.parametrize(
    "line", ["{}${{X}} docker build .", "if ! {}${{X}} docker build .; then a; fi", "({}${{X}} docker build .)"]
)
def test_the_directive_stands_above_the_line_of_the_build(line: str) -> None:
    text = f"if true; then\n  {line.format('')}\nfi\n"
    done = planned(text).result.text
    assert f"\n  # shellcheck disable=SC2086\n  {line.format('docker_build_cached ')}\n" in done
    assert planned(done).reference.text == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n", "import fcntl\nimport os\nx = 1\n"),
        ("#!/usr/bin/env python3\n# Words.\n", "#!/usr/bin/env python3\n# Words.\nimport fcntl\nimport os\n"),
        ("import os\nimport sys\n", "import fcntl\nimport os\nimport sys\n"),
        ("import fcntl, os\n", "import fcntl, os\n"),
        ("import a\nimport sys", "import a\nimport fcntl\nimport os\nimport sys"),
        ("from x import y\nimport os.path\nz = 1\n", "from x import y\nimport fcntl\nimport os.path\nz = 1\n"),
        ("import fcntl as f\r\nimport sys\r\n", "import fcntl as f\r\nimport fcntl\r\nimport os\r\nimport sys\r\n"),
        ("import a\n@x\ndef f(): import z\n", "import a\nimport fcntl\nimport os\n@x\ndef f(): import z\n"),
    ],
)
def test_import_edits(text: str, expected: str) -> None:
    script = Script("x.py", text)
    assert script.edited(inject.import_edits(parse(script), ["os", "fcntl"])).text == expected
