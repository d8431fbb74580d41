"""Shell text to syntax: what is refused, statements, words, names and their places."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from patcher.errors import InputError
from patcher.model import Script
from patcher.parse.shell import parse
from tests.conftest import FIXTURES, needs
from tests.measured import measured_shell


def commands(text: str) -> list[str]:
    """The words of each command."""
    syntax = parse(Script("x.sh", text))
    return [syntax.text(command.words) for command in syntax.commands]


REFUSED = {
    "single quote": ("echo 'a\n", "x.sh:1:6: "),
    "double quote": ('a\necho "b\n', "x.sh:2:6: "),
    "here-document": ("cat <<EOF\na\n", "x.sh:1:5: "),
    "substitution": ("echo $(a\n", "x.sh:1:6: "),
    "parameter": ("echo ${a\n", "x.sh:1:6: "),
    "test": ("[[ -n a\n", "x.sh:1:1: "),
    "case": ("case a in\n  a) b ;;\n", "x.sh:1:1: "),
    "group": ("{ a\n", "x.sh:1:1: "),
    "if": ("a\nif a; then b\n", "x.sh:2:1: "),
    "parenthesis": ("a )\n", "x.sh:1:3: "),
    "done": ("done\n", "x.sh:1:1: "),
    "nothing before &&": ("a\n&& b\n", "x.sh:2:1: "),
    # bash takes these, and the parsers do not.
    "coprocess": ("a\ncoproc b\n", "x.sh:2:1: "),
    "a condition that a line end closes": ("while a\ndo b; done\n", "x.sh:1:1: "),
    "time alone": ("time\n", "x.sh:1:1: "),
    "time before a group": ("time { a; }\n", "x.sh:1:"),
    "an element that is assigned": ("x[1]=a\n", "x.sh:1:1: "),
    "a here-string behind a loop": ("for x in a; do b; done <<< c\n", "x.sh:1:"),
}


@pytest.mark.parametrize(("text", "where"), REFUSED.values(), ids=REFUSED)
def test_refused_with_its_place(text: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(Script("x.sh", text))
    assert str(caught.value).startswith(where)
    assert "bash -n" in caught.value.hint


TOO_LARGE = {
    "characters": ("echo a\n" * 6000, ":4572:4: "),
    "pipes": ("a\n" + "a | " * 2000 + "b\n", ":2:"),
    "branches": ("if a; then b\n" + "elif a; then b\n" * 200 + "fi\n", ":102:1: "),
    "groups": ("a\n" + "{ " * 200 + "a; " + "}; " * 200 + "\n", ":2:"),
    "substitutions": ("$( " * 200 + "a" + " )" * 200 + "\n", ":1:"),
    "lists": ("a" + " && b" * 2000 + "\n", ":1:"),
}


@pytest.mark.parametrize(("text", "where"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_too_large_to_be_parsed(text: str, where: str) -> None:
    with pytest.raises(InputError, match="too large to be parsed") as caught:
        parse(Script("x.sh", text))
    assert str(caught.value).startswith(f"x.sh{where}")
    assert caught.value.hint


AT_MOST = {
    "commands": "echo a\n",
    "tests": "[[ a ]]\n",
    "substitutions": "x=$(a)\n",
    "words": "a ",
    "variables": "$x build\n",
    "background": "a &",
    "groups": "{ " * 20 + "a; " + "}; " * 20 + "\n",
    "here-documents": "cat <<E\nx\nE\na\n",
}


@pytest.mark.parametrize("unit", AT_MOST.values(), ids=AT_MOST)
def test_what_is_not_too_large_is_parsed_in_seconds(unit: str) -> None:
    assert measured_shell(unit) == "parsed"


def test_a_null_byte_is_refused() -> None:
    with pytest.raises(InputError, match="a null byte"):
        parse(Script("x.sh", "a\nb\0c\n"))


def test_text_without_a_command_has_none() -> None:
    assert [commands(text) for text in ("", "\n", "# only a comment", "\n# a\n\n# b\n")] == [[]] * 4


COMMANDS = {
    "lists": ("a; b && c || d\ne & f\n", ["a", "b", "c", "d", "e", "f"]),
    "pipelines": ("! a |& b 2>&1 | c\n", ["a", "b", "c"]),
    "compound commands": (
        "if a; then b; elif c; then d; elif e; then f; else g; fi\nwhile h; do i; done\nfor x in a; do j; done\n",
        list("abcdefghij"),
    ),
    "functions": ("f() { a; }\nfunction g {\n  b\n}\nh() ( c )\n", ["a", "b", "c"]),
    "a test in the place of a command": ("[[ a ]] && b\n(( 1 )) || c\n", ["b", "c"]),
    "time": ("time -p a b\ntime c\n", ["a b", "c"]),
    "arrays": ('x=(a "b c") y=$((1 + 2)) a\ndeclare -A z=([a]=b)\n', ["a", "declare -A z=([a]=b)"]),
    "assignments and redirections": ("A=1 B= a > x 2>&1 3< y\nC=1\n> z b\n", ["a", "b"]),
    "here-documents": ("a <<A && b\n$(c)\nA\nd <<'B'\ne\nB\n", ["a", "b", "c", "d"]),
    "substitutions": ('a $(b | c) `d` <(e) ${x:-$(f)} "$(g)"\n', None),
    "case and for ((": ("case a in b) c ;; d|e) f ;; esac\nfor ((;;)); do g; done\n", ["c", "f", "g"]),
    "words over lines": ("a \\\n  b \\\n  'c'\n", ["a b 'c'"]),
    "CR LF": ("if a; then\r\n  b \\\r\n    c\r\nfi\r\n", ["a", "b c"]),
    "a byte order mark": ("\ufeffa b\n", ["\ufeffa b"]),
    "blanks that are none to bash": ("a \u00a0 \x0c b\u2003c\n", ["a \u00a0 \x0c b\u2003c"]),
    "no newline at the end": ("a\nb", ["a", "b"]),
}


@pytest.mark.parametrize(("text", "expected"), COMMANDS.values(), ids=COMMANDS)
def test_commands(text: str, expected: list[str] | None) -> None:
    found = commands(text)
    assert found == (expected or ['a $(b | c) `d` <(e) ${x:-$(f)} "$(g)"', "b", "c", "d", "e", "f", "g"])
    bash = needs("bash")
    plain = text.replace("\r\n", "\n").removeprefix("\ufeff")
    assert subprocess.run([bash, "-n"], input=plain, text=True, capture_output=True, check=False).stderr == ""


BARS = {
    "none": ("a\n", [""]),
    "the background": ("a & b; { c; } &\n", ["background", "", "background"]),
    "a construct": ("a $(b)\n[[ $(c) ]]\n", ["", "construct", "construct"]),
}


@pytest.mark.parametrize(("text", "expected"), BARS.values(), ids=BARS)
def test_what_keeps_a_command_from_being_changed(text: str, expected: list[str]) -> None:
    assert [command.bar for command in parse(Script("x.sh", text)).commands] == expected


WORDS = {
    "plain": ("a", "a", ""),
    "quotes": ("'a b'\"c 'd'\"", "a bc 'd'", ""),
    "nothing": ('""', "", ""),
    "a variable": ("$x", None, "x"),
    "a variable in quotes and braces": ('"${x}"', None, "x"),
    "an array": ('"${x[@]}"', None, "x"),
    "a variable and more": ("$x.y", None, ""),
    "a default": ("${x:-a}", None, ""),
    "a substitution": ("$(a)", None, ""),
    "a backslash": ("a\\ b", None, ""),
}


@pytest.mark.parametrize(("source", "text", "variable"), WORDS.values(), ids=WORDS)
def test_what_a_word_is_worth(source: str, text: str | None, variable: str) -> None:
    _, word = parse(Script("x.sh", f"f {source}\n")).commands[0].words
    assert (word.text, word.variable) == (text, variable)


VALUES = {
    "nothing": ("x=", ""),
    "a string": ("x='a b'c", "a bc"),
    "unknown": ('x="a $b"', None),
    "an array": ("x=(a b)", None),
    "more of it": ("x+=a", None),
    "exported": ('export x="a"', "a"),
    "before a command": ("x=a b", "a"),
    "inside a construct": ("case a in b) x=a ;; esac", "a"),
}


@pytest.mark.parametrize(("text", "expected"), VALUES.values(), ids=VALUES)
def test_what_is_assigned(text: str, expected: str | None) -> None:
    (name,) = (name for name in parse(Script("x.sh", text)).names if name.assigned)
    assert (name.name, name.value) == ("x", expected)


def test_names_that_are_read() -> None:
    text = 'a $b "${c:-$d}" $((e + 1))\n[[ $f ]] && cat <<EOF\n${g}\nEOF\nx=(${!h} ${#i[@]})\n'
    names = parse(Script("x.sh", text)).names
    assert [name.name for name in names if not name.assigned] == list("bcdefghi")
    assert all(text.startswith(name.name, name.offset) for name in names)


SCRIPTS = sorted(FIXTURES.glob("*/ci/**/*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(FIXTURES).as_posix())
def test_the_statements_of_a_fixture_nest(path: Path) -> None:
    text = path.read_bytes().decode("utf8")
    syntax = parse(Script("x.sh", text))
    for statement in syntax.statements:
        assert not text[statement.start].isspace()
        if statement.parent >= 0:
            around = syntax.statements[statement.parent]
            assert around.start <= statement.start < statement.end <= around.end
    for command in syntax.commands:
        statement = syntax.statements[command.statement]
        assert all(statement.start <= word.start < word.end <= statement.end for word in command.words)
    assert all(a.offset < b.offset for a, b in pairwise(syntax.names))


def test_a_statement_ends_behind_its_here_document() -> None:
    text = "if a; then\n  b && cat <<X && [[ c ]]\ntext\nX\nfi\nd\n"
    ends = {text[s.start : s.end] for s in parse(Script("x.sh", text)).statements}
    assert {"b && cat <<X && [[ c ]]\ntext\nX", "d"} < ends
