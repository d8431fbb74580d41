"""Python text to syntax: what is refused, statements, names, imports and their places."""

from __future__ import annotations

import pytest

from patcher.errors import InputError
from patcher.model import Script, Syntax
from patcher.parse.python import parse
from tests.measured import measured_python as measured

RUN = "import os, subprocess\ndef run(cmd, **kwargs):\n    return subprocess.run(cmd, **kwargs)\n"


def read(text: str) -> Syntax:
    return parse(Script("ci/test/build.py", text))


REFUSED = {
    "a bracket": ("x = (\n", "ci/test/build.py:1:5: "),
    "a statement": ("x = 1\nprint 'a'\n", "ci/test/build.py:2:1: "),
    "an indentation": ("if x:\n  a\n b\n", "ci/test/build.py:"),
    "a null byte": ("x = '\0'\n", "ci/test/build.py:"),
}


@pytest.mark.parametrize(("text", "where"), REFUSED.values(), ids=REFUSED)
def test_refused_with_its_place(text: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert str(caught.value).startswith(where)


TOO_LARGE = {
    "characters": ("x = 1\n" * 6000, ":5334:3: "),
    "brackets": ("a\n" + "[" * 5000 + "]" * 5000, ":2:21: "),
    "signs": ("-" * 20000 + "1\n", ":1:81: "),
    "a sum": ("x = 1" + "+1" * 9000 + "\n", ":1:"),
    "words": ("x = (" + "not " * 500 + "1)\n", ":1:"),
    "functions in functions": ("x = [" + "lambda a, b: " * 500 + "1]\n", ":1:"),
    "loops in loops": ("x = [1 " + "for a, b in c " * 500 + "]\n", ":1:"),
    "strings": ("x = (" + "'a'\n" * 500 + ")\n", ":75:"),
    "a string with expressions": ("x = f'{" + "-" * 2000 + "1}'\n", ":1:"),
    "blocks": ("".join(" " * i + "if a:\n" for i in range(60)) + " " * 60 + "b\n", ":42:"),
    "branches": ("if a: b\n" + "elif a: b\n" * 500, ":102:1: "),
}


@pytest.mark.parametrize(("text", "where"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_too_large_to_be_parsed(text: str, where: str) -> None:
    with pytest.raises(InputError, match="too large to be parsed") as caught:
        read(text)
    assert str(caught.value).startswith(f"ci/test/build.py{where}")
    assert caught.value.hint


AT_MOST = {
    "lists in lists": ("[" * 18 + "]" * 18 + "\n"),
    "elements": "x[0]" + "[0]" * 12 + "\n",
    "signs": "-" * 78 + "1\n",
    "arguments": "f(" + "a," * 500 + ")\n",
    "lines": "x=1\n",
}


@pytest.mark.parametrize("unit", AT_MOST.values(), ids=AT_MOST)
def test_what_is_not_too_large_is_parsed_in_seconds(unit: str) -> None:
    assert measured(unit) == "parsed"


@pytest.mark.parametrize("change", ["{}", "\ufeff{}", "\f{}", "\ufeff# \udcff\n{}"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("end", ["", "  # \u00e9", "\n\n"])
def test_offsets(change: str, newline: str, end: str) -> None:
    source = RUN + (
        "@staticmethod\ndef main():\n\tc = ['docker', ('build')]  # \u00e9\udcff \U0001f600\n"
        "\f\n\tif os.getenv('A'): c += [os.environ['B']]; c += x\n\trun(c)" + end
    )
    text = change.format(source).replace("\n", newline)
    syntax = read(text)
    command = syntax.commands[-1]
    assert [text[word.start : word.end] for word in command.words] == ["'docker'", "'build'", "os.environ['B']", "x"]
    assert [word.text for word in command.words] == ["docker", None, None, None]
    assert text[slice(*command.head)] == "run("
    assert {"A", "B", "run", "c"} < {name.name for name in syntax.names}
    for name in syntax.names:
        assert text[name.offset :].lstrip("'\"").startswith(name.name)
    for statement in syntax.statements:
        assert not text[statement.start].isspace()
        assert not text[statement.end - 1].isspace()
        parent = syntax.statements[statement.parent]
        assert statement.parent == -1 or parent.start < statement.start < statement.end <= parent.end
    main = next(statement for statement in syntax.statements if statement.defines == "main")
    assert text[main.start : main.end].startswith("@staticmethod")
    assert text[main.start : main.end].endswith("run(c)")
    assert text[syntax.statements[command.statement].start :].startswith("run(c)")


def test_statements_and_names() -> None:
    text = "x = 'a'\nif x:\n    y: str = 'b'\nelif 'W' in os.environ:\n    def f(p): pass\nfor z in x: pass\n"
    syntax = read("import os\n" + text)
    assert [(s.body, s.parent, s.defines) for s in syntax.statements] == [
        *[(0, -1, ""), (0, -1, ""), (0, -1, ""), (1, 2, ""), (2, 2, "f"), (3, 4, ""), (0, -1, ""), (4, 6, "")]
    ]
    assigned = [(name.name, name.value) for name in syntax.names if name.assigned]
    assert assigned == [("x", "a"), ("y", "b"), ("p", None), ("z", None)]
    assert [name.name for name in syntax.names if not name.assigned] == ["x", "str", "W", "os", "x"]


IMPORTS = {
    "none": ("x = 1\n", {}, "|x"),
    "nothing": ("", {}, "|"),
    "behind a docstring": ('"""Words."""\n\nx = 1\n', {}, "|x"),
    "a docstring alone": ('"""Words."""\n', {}, "|"),
    "plain": ("import os\nimport a.b\n\nx\n", {"os": 0, "a.b": 10, "a": 10}, "|\nx"),
    "by another name": ("import os as o\nfrom x import y\nz\n", {}, "|z"),
    "further down": ("import os\nx\nimport sys\n", {"os": 0, "sys": 12}, "|x"),
    "without a newline": ("import os", {"os": 0}, "|"),
    "several": ("import os, sys\nx\n", {"os": 0, "sys": 0}, "|x"),
}


@pytest.mark.parametrize(("text", "imports", "end"), IMPORTS.values(), ids=IMPORTS)
def test_imports(text: str, imports: dict[str, int], end: str) -> None:
    syntax = read(text)
    assert syntax.imports == imports
    assert f"|{text[syntax.imports_end :]}".startswith(end)
    assert end != "|" or syntax.imports_end == len(text)


HEADS = {
    "plain": ("run(['a'])", "run(", ""),
    "behind blanks": ("run( ['a'])", "run(", ""),
    "before parentheses": ("run((['a']))", "run(", ""),
    "a dotted name": ("subprocess.run(\n    ['a'],\n)", "subprocess.run(", ""),
    "a wrapper of ours": ("def w(run, cmd):\n    return run([*cmd, '--x'])\nw(run, ['a'])", "w(run, ", ""),
    "an argument before the list": ("def w(n, cmd):\n    run(cmd)\nw(3, ['a'])", "w(3, ", ""),
    "a keyword": ("run(cmd=['a'])", "run(", "keyword"),
    "a shell": ("subprocess.run(['a'], shell=x)", "subprocess.run(", "text"),
}


@pytest.mark.parametrize(("text", "head", "bar"), HEADS.values(), ids=HEADS)
def test_the_head_of_a_call(text: str, head: str, bar: str) -> None:
    text = RUN + text + "\n"
    command = read(text).commands[-1]
    assert text[slice(*command.head)] == head
    assert head.startswith(command.callee + "(")
    assert command.bar == bar
