"""Shell text to syntax, with tree-sitter-bash as the witness from outside."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_bash
from hypothesis import given, settings
from hypothesis import strategies as st

from patcher.errors import InputError
from patcher.model import Script
from patcher.parse.shell import parse
from tests.conftest import FIXTURES, needs

_WITNESS = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))
# tree-sitter-bash has kinds of their own for these.
_OTHER_KIND = {"export", "local", "declare", "readonly", "typeset", "unset", "["}


def commands(text: str) -> list[str]:
    """The words of each command, as the parser finds them."""
    syntax = parse(Script("x.sh", text))
    return [" ".join(text[word.start : word.end] for word in command.words) for command in syntax.commands]


def witnessed(text: str) -> set[int]:
    """The offsets at which tree-sitter-bash sees a command that names an engine in a word."""
    data = text.encode("utf8", "surrogateescape")
    found: set[int] = set()
    nodes = [_WITNESS.parse(data).root_node]
    while nodes:
        node = nodes.pop()
        nodes += node.children
        name = node.child_by_field_name("name") if node.type == "command" else None
        if name is not None:
            words = [name, *node.children_by_field_name("argument")]
            if name.text == b"time":  # a reserved word, which tree-sitter-bash takes for the command's name
                name, *words = words[1:]
                words = [name, *words]
            if any(engine in (word.text or b"") for engine in (b"docker", b"podman") for word in words):
                found.add(len(data[: name.start_byte].decode("utf8", "surrogateescape")))
    return found


def ours(text: str) -> set[int]:
    """The offsets at which the parser sees a command that names an engine in a word."""
    return {
        command.words[0].start
        for command in parse(Script("x.sh", text)).commands
        if any(engine in text[word.start : word.end] for engine in ("docker", "podman") for word in command.words)
        and text[command.words[0].start : command.words[0].end] not in _OTHER_KIND
    }


NOT_COMMANDS = {
    "comment": "# docker build .\n",
    "comment behind a command": "true # docker build .\n",
    "single quotes": "echo 'a\ndocker build .\n'\n",
    "double quotes": 'echo "a\ndocker build .\n"\n',
    "ansi quotes": "echo $'it\\'s\\ndocker build .\\n'\n",
    "here-document": "cat <<EOF\ndocker build .\nEOF\n",
    "quoted here-document": "cat << 'EOF'\ndocker build $(\nEOF\n",
    "here-document with tabs": "if true; then\n\tcat <<-EOF\n\tdocker build .\n\tEOF\nfi\n",
    "two here-documents": "cat <<A - <<\\B\ndocker build .\nA\ndocker build .\nB\n",
    "here-string": "cat <<< 'docker build .'\n",
    "assignment": "x='docker build .'\n",
    "array": "x=(docker build .)\n",
    "array over lines": "x=(\n  docker # one\n  build\n  .\n)\n",
    "test": "[[ docker == build && -n $x ]]\n",
    "pattern": "case $x in docker|build) ;; esac\n",
    "default": 'echo "${x:-docker build .}"\n',
    "default in quotes": "echo ${x:-'docker' \"build\"}\n",
    "comment in backquotes": "echo `# docker build .` a `:; # docker build .`\n",
    "arithmetic": "echo $((docker + build))\n",
}


@pytest.mark.parametrize("text", NOT_COMMANDS.values(), ids=NOT_COMMANDS)
def test_text_that_only_looks_like_a_build_is_none(text: str) -> None:
    assert not any(words.startswith("docker build") for words in commands(text))


# One of each construct for which bashlex refuses the whole script, and of what else can go around a command.
BUILDS = {
    "case arm": "case $x in\n  a) docker build . ;;\nesac\n",
    "case arm on one line": "case $x in a) true ;; (b|c*) docker build . ;& *) ;; esac\n",
    "case arm without an end": "case $x in\n  'a b') docker build .\nesac\n",
    "nested case": "case a in a) case b in b) docker build . ;; esac ;; esac\n",
    "empty case before": "case x in\nesac\ndocker build .\n",
    "for ((": "for ((i = 0; i < 3; i++)); do docker build . && break; done\n",
    "for (( without blanks": "for((;;))\ndo docker build .; done\n",
    "for (( with braces": "for (( ; ; )) { docker build .; }\n",
    "behind time": "time docker build .\n",
    "behind time -p": "time -p docker build .\n",
    "coproc": "coproc docker build .\n",
    "named coproc": "coproc NAME { docker build .; }\n",
    "behind [[ ]] &&": "[[ -n $x && ( $y == a* || $z =~ ^(b|c)$ ) ]] && docker build .\n",
    "behind (( )) ||": "(( x > 1 )) || docker build .\n",
    "behind [[ ]] over lines": "[[ -n $x &&\n  -n $y ]] && docker build .\n",
    "select": "select x in a b; do docker build .; done\n",
    "behind an array": 'x=(a "b c" $(true)); docker build .\n',
    "behind a declared array": "declare -A x=([a]=1 [b]='2')\ndocker build .\n",
    "behind an element": "x[1]=a; x+=(b); y+=c\ndocker build .\n",
    "behind arithmetic": "x=$((1 + (2 << 3)))\ndocker build .\n",
    "behind old arithmetic": "x=$[1 + 2]; docker build .\n",
    "behind two subshells": "((true); (true))\ndocker build .\n",
    "in a substitution": 'x="$(docker build .)"\n',
    "in a substitution of a here-document": "cat <<EOF\n$(docker build .)\nEOF\n",
    "in backquotes": "x=`docker build .`\n",
    "behind a comment in backquotes": "x=`# it's (one\n` y=`a # 'b`; docker build .\n",
    "in backquotes behind a comment": "x=`# it's (one\ndocker build . # \"two`\n",
    "in a process substitution": "cat < <(docker build .)\n",
    "in a function": "f() { docker build .; }\n",
    "in a function of the other form": "function f {\n  docker build .\n}\n",
    "in a function with a subshell": "f() (\n  docker build .\n)\n",
    "in a function that is a test": "f() [[ -n $x ]]\ndocker build .\n",
    "in a group behind ||": "a || { sleep 3; docker build .; }\n",
    "in if, negated": "if ! docker build .; then true; fi\n",
    "in else": "if a; then b; elif c; then d; else docker build .; fi\n",
    "in the second elif": "if a; then b\nelif c; then d\nelif e; then docker build .\nelse f\nfi\n",
    "in else behind elifs": "if a; then b; elif c; then d; elif e; then f; elif g; then h; else docker build .; fi\n",
    "in a condition that the line ends": "while docker build . # why\n\ndo\n  sleep 3\ndone\n",
    "behind a condition that the line ends": "until a | { b; }\ndo docker build .\ndone\n",
    "behind a condition with a here-document": "while read x <<EOF\ntext\nEOF\ndo docker build .; done\n",
    "in until": "until docker build .; do sleep 1; done\n",
    "in a pipeline": "a |& docker build . 2>&1 | tee log\n",
    "in the background": "docker build . &\nwait\n",
    "behind redirections": "exec 3>&1 {fd}< x &>> y 2> /dev/null\ndocker build . <> a >| b\n",
    "behind a here-document's operator": "cat <<EOF && docker build .\ntext\nEOF\n",
    "behind assignments": 'A=1 B="$(true)" docker build .\n',
    "behind an extended pattern": "ls !(a|b) @(c)\ndocker build .\n",
    "over lines": "docker \\\n  build \\\n  .\n",
    "with CR LF": "if a; then\r\n  docker build .\r\nfi\r\n",
    "behind blanks that are none to bash": "echo \u00a0 \x1c a\u2003b\ndocker build .\n",
    "in a later condition, behind a statement": "x\nif a; then b; elif c; then d; elif e; then docker build .; fi\n",
    "with a BOM": "\ufeff#!/bin/bash\ndocker build .\n",
    "without a newline": "docker build .",
}


@pytest.mark.parametrize("text", BUILDS.values(), ids=BUILDS)
def test_a_build_is_found_in_every_construct(text: str) -> None:
    found = [words for words in commands(text) if words.replace("\\\n", "").split()[:2] == ["docker", "build"]]
    assert len(found) == 1, commands(text)


@pytest.mark.parametrize("text", BUILDS.values(), ids=BUILDS)
def test_bash_takes_what_the_table_says(text: str) -> None:
    bash = needs("bash")
    plain = text.replace("\r\n", "\n").removeprefix("\ufeff")
    done = subprocess.run([bash, "-O", "extglob", "-n"], input=plain, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


VALUES = {
    "nothing": ("x=", ("", [])),
    "a string": ("x='a b'c", ("a bc", ["a", "bc"])),
    "blanks": ("x=' a\n b '", (" a\n b ", ["a", "b"])),
    "unknown parts": ('x="a --b=$c d$e $f g"', (None, ["a", None, None, "$f", "g"])),
    "an array": ('x=("a b" $c "d$e")', (None, ["a b", "$c", None])),
    "an empty array": ("x=()", ("", [])),
    "more of it": ("x+=' a'", (" a", ["$x", "a"])),
    "more elements": ('x+=(a "$b")', (None, ["$x", "a", "$b"])),
    "an element": ("x[1]=a", ("a", ["a"])),
    "an element with quotes in its subscript": ("x['1']=a", (None, [None])),
    "a default": ("x=${y:-a b}", ("a b", ["$y"])),
}


@pytest.mark.parametrize(("text", "expected"), VALUES.values(), ids=VALUES)
def test_what_is_assigned(text: str, expected: tuple[str | None, list[str | None]]) -> None:
    (name,) = (name for name in parse(Script("x.sh", text)).names if name.assigned)
    assert (name.value, [f"${word.variable}" if word.variable else word.text for word in name.words]) == expected


FORWARDS = {
    "nothing": ('f() { echo "$1"; }', {}),
    "all": ('f() { "$@"; }', {"f": [("", 0)]}),
    "behind words": ('f() { timeout 5 "$@" x; }', {"f": [("timeout 5", 0)]}),
    "without the first": ('f() { local n=$1; shift; while ! "${@}"; do :; done; }', {"f": [("", 1)]}),
    "without two": ('f() { shift 2; "$@"; }', {"f": [("", 2)]}),
    "from the second on": ('f() { echo "$1"; "${@:2}"; }', {"f": [("", 1)]}),
    "without some": ('f() { if a; then shift; fi; "$@"; }', {"f": [("", None)]}),
    "in two ways": ('f() { if a; then "$@"; else b "$@"; fi; }', {"f": [("", 0), ("b", 0)]}),
}


@pytest.mark.parametrize(("text", "expected"), FORWARDS.values(), ids=FORWARDS)
def test_how_a_function_hands_on_its_arguments(text: str, expected: dict[str, list[tuple[str, int | None]]]) -> None:
    syntax = parse(Script("x.sh", text))
    found = {
        name: [(" ".join(text[word.start : word.end] for word in way.words), way.taken) for way in ways]
        for name, ways in syntax.forwards.items()
    }
    assert found == expected
    assert syntax.forwarders == {name for name, ways in expected.items() if any(words == "" for words, _ in ways)}


FAILING_BEFORE = {
    "||": ("docker build a || docker build b", {1: {0}}),
    "|| and a group": ("docker build a || { sleep 3; docker build b; }", {2: {0}}),
    "if !": ("if ! docker build a; then docker build b; fi", {1: {0}}),
    "else": ("if docker build a; then :; else docker build b; fi", {2: {0}}),
    "the second elif": ("if docker build a; then :; elif c; then :; elif docker build b; then :; fi", {4: {0, 2}}),
    "elif": ("if docker build a; then :; elif docker build b; then :; fi", {2: {0}}),
    "! and &&": ("! docker build a && docker build b", {1: {0}}),
    "until": ("until docker build a; do docker build b; done", {1: {0}}),
    "&& is none": ("docker build a && docker build b", {1: set()}),
    "; is none": ("docker build a; docker build b", {1: set()}),
    "then is none": ("if docker build a; then docker build b; fi", {1: set()}),
    "another that failed is none": ("a && docker build a || docker build b", {2: set()}),
}


@pytest.mark.parametrize(("text", "expected"), FAILING_BEFORE.values(), ids=FAILING_BEFORE)
def test_what_must_have_failed_before(text: str, expected: dict[int, set[int]]) -> None:
    found = parse(Script("x.sh", text)).commands
    assert {index: set(found[index].after_failure) for index in expected} == expected


REFUSED = {
    "single quote": ("echo 'a\n", "x.sh:1:6: "),
    "double quote": ('a\necho "b\n', "x.sh:2:6: "),
    "here-document": ("cat <<EOF\na\n", "x.sh:1:5: "),
    "substitution": ("echo $(a\n", "x.sh:1:8: "),
    "parameter": ("echo ${a\n", "x.sh:1:6: "),
    "test": ("[[ -n a\n", "x.sh:1:1: "),
    "case": ("case a in\n  a) b ;;\n", "x.sh:1:1: "),
    "group": ("{ a\n", "x.sh:"),
    "fi": ("if a; then b\n", "x.sh:"),
    "parenthesis": ("a )\n", "x.sh:1:3: "),
    "done": ("done\n", "x.sh:1:1: "),
    "parenthesis in backquotes": ("echo `(`\n", "x.sh:1:8: "),
    "test in backquotes": ("echo `[[ `\n", "x.sh:1:7: "),
}


@pytest.mark.parametrize(("text", "where"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_shell_is_refused_with_its_place(text: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(Script("x.sh", text))
    assert str(caught.value).startswith(where)


def test_text_without_a_command_has_none() -> None:
    assert [commands(text) for text in ("", "\n", "# only a comment", "\n# a\n\n# b\n")] == [[]] * 4


SCRIPTS = sorted(FIXTURES.glob("*/ci/**/*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(FIXTURES).as_posix())
def test_the_witness_sees_the_same_commands_in_the_fixtures(path: Path) -> None:
    text = path.read_bytes().decode("utf8").replace("\r\n", "\n")
    assert ours(text) == witnessed(text)


def test_the_witness_sees_the_same_commands_in_the_history(bitcoin_repo: Path) -> None:
    paths = ["ci/test/02_run_container.sh", "ci/test/04_install.sh"]
    log = ["log", "--all", "--full-history", "-m", "--raw", "--no-abbrev", "--format=", "--", *paths]
    raw = subprocess.run(["git", "-C", bitcoin_repo, *log], capture_output=True, text=True, check=True).stdout
    blobs = {line.split()[3] for line in raw.splitlines() if line.startswith(":")} - {"0" * 40}
    seen = 0
    for blob in sorted(blobs):
        show = subprocess.run(["git", "-C", bitcoin_repo, "cat-file", "blob", blob], capture_output=True, check=True)
        text = show.stdout.decode("utf8", "surrogateescape")
        assert ours(text) == witnessed(text), blob
        seen += 1
    assert seen


# Made scripts: constructs around constructs, with commands and decoys at the leaves.

_LEAVES = st.sampled_from(
    [
        "docker build .",
        "docker buildx build --tag=a .",
        "podman ps",
        "true",
        "echo 'docker build .'",
        'echo "docker ${x:-y} build"',
        "x=(docker build)",
        "x=$((1 + 2))",
        "cat <<'EOF'\ndocker build .\nEOF",
        "cat <<EOF\n$(docker ps) text\nEOF",
        "x=$(docker ps -q)",
        "echo `docker ps`",
        "DOCKER_BUILDKIT=1 docker build \\\n  .",
    ]
)
_AROUND = st.sampled_from(
    [
        "if a; then\n{}\nfi",
        "if [[ -n $x ]]; then\n{}\nelse\n{}\nfi",
        "case $x in\n  a|b)\n{}\n;;\n  *)\n{}\n;;\nesac",
        "for ((i = 0; i < 2; i++)); do\n{}\ndone",
        "for x in a b; do\n{}\ndone",
        "select x in a b; do\n{}\ndone",
        "while [[ $x == a* ]]; do\n{}\ndone",
        "f() {{\n{}\n}}",
        "(\n{}\n)",
        "{{\n{}\n}} || {{\n{}\n}}",
        "[[ -n $x ]] && {{\n{}\n}}",
        "(( x > 1 )) || {{\n{}\n}}",
        "coproc {{\n{}\n}}",
        "x=$(\n{}\n)",
        "# comment: docker build .\n{}\n{}",
    ]
)


@st.composite
def _scripts(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0 or draw(st.booleans()):
        return draw(_LEAVES)
    around = draw(_AROUND)
    return around.format(*[draw(_scripts(depth=depth - 1)) for _ in range(around.count("{}"))])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(_scripts(), min_size=1, max_size=3).map("\n".join))
def test_the_witness_sees_the_same_commands_in_made_scripts(text: str) -> None:
    assert ours(text) == witnessed(text), textwrap.indent(text, "    ")
