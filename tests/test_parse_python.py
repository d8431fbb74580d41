"""The Python parser: what runs a build is found by meaning, and every offset points into the text."""

# ruff: noqa: E501  # one case a line reads best

from __future__ import annotations

import contextlib
import random

import pytest

from patcher.errors import InputError
from patcher.model import Script, Syntax
from patcher.parse.python import parse

RUN = """\
import os
import shlex
import subprocess


def run(cmd, **kwargs):
    print("+ " + shlex.join(cmd))
    return subprocess.run(cmd, **kwargs)


"""


def read(text: str) -> Syntax:
    return parse(Script("ci/test/build.py", text))


def builds(text: str) -> list[str]:
    """The commands that build, each as its head, its words (``?`` where unknown) and what must have failed."""
    syntax = read(text)
    found = []
    for number, command in enumerate(syntax.commands):
        words = ["?" if word.text is None else word.text for word in command.words]
        if "build" not in words[:4] or words[0] == "echo":
            continue
        head = text[slice(*command.head)] if command.head != (-1, -1) else "-"
        after = "".join(f" after {number - index}" for index in sorted(command.after_failure))
        found.append(f"{head} {' '.join(words)}{after}")
    return found


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("# run(['docker', 'build'])", id="comment"),
        pytest.param('"""run(["docker", "buildx", "build"])"""', id="docstring"),
        pytest.param("text = 'docker buildx build .'", id="string"),
        pytest.param("print(['docker', 'build', '.'])", id="printed"),
        pytest.param("cmd = ['docker', 'build']\nprint(shlex.join(cmd), len(cmd))", id="joined and printed"),
        pytest.param("cmd = ['docker', 'build']", id="never run"),
        pytest.param("def log(cmd):\n    print(cmd)\nlog(['docker', 'build'])", id="own function that prints"),
        pytest.param("def retry(fn, cmd):\n    fn(cmd)\nretry(print, ['docker', 'build'])", id="handed to print"),
        pytest.param("run(['echo', 'docker', 'build'])", id="echo"),
        pytest.param("run(['docker', 'run', '--rm', 'x'])", id="docker run"),
        pytest.param("def f(cmd=['docker', 'build']):\n    pass", id="unused default"),
        pytest.param("class A:\n    def log(self, cmd):\n        pass\n    def go(self):\n        self.log(['docker', 'build'])", id="method that does not run"),
        pytest.param("logger.info(['docker', 'build'])", id="logger"),
        pytest.param("run([os.getenv('X', 'kubectl'), 'build'][:1])", id="default that is another program"),
        pytest.param("run(shlex.split(f'docker run {x} build .')[0:2])", id="split into another command"),
        pytest.param("print(f'docker build {x} .'.split())", id="split and printed"),
        pytest.param("run(shlex.split(f'docker {x}build .'))", id="split where no word is known"),
    ],
)  # fmt: skip
def test_no_build(text: str) -> None:
    assert builds(RUN + text + "\n") == []


ONE = ["run( docker build ."]
TRIES = ["run( docker build .", "run( docker build . after 1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Not tries of each other.
        pytest.param("run(['docker', 'build', 'a'])\nrun(['docker', 'build', 'b'])", ["run( docker build a", "run( docker build b"], id="two builds"),
        pytest.param("if run(['docker', 'build', 'a']).returncode:\n    run(['docker', 'build', 'b'])", ["run( docker build a", "run( docker build b"], id="another build after a failure"),
        pytest.param("c = ['docker', 'build', '.']\nrun(c)\nrun(c)", ["run( docker build .", "run( docker build ."], id="twice in any case"),
        pytest.param("c = ['docker', 'build', '.']\nif run(c).returncode == 0:\n    run(c)", ["run( docker build .", "run( docker build ."], id="again after a success"),
        pytest.param("c = ['docker', 'build', '.']\ntry:\n    run(c)\nexcept OSError:\n    pass\nrun(c)", ["run( docker build .", "run( docker build ."], id="behind a try"),
        # Nothing that a wrapper fits.
        pytest.param("subprocess.run(args=['docker', 'build'])", ["- docker build"], id="keyword"),
        pytest.param("subprocess.run('docker build .', shell=True)", ["- docker build ."], id="shell"),
        pytest.param("os.system('docker build .')", ["- docker build ."], id="system"),
        pytest.param("os.execvp('docker', ['docker', 'build'])", ["- docker build"], id="exec"),
        pytest.param("subprocess.Popen(['docker', 'build']).wait()", ["- docker build"], id="in the background"),
        pytest.param("def docker(*args):\n    run(['docker', *args])\ndocker('buildx', 'build')", ["- docker buildx build"], id="words as arguments"),
        pytest.param("def retry(fn, cmd):\n    fn(cmd)\nretry(run, ['docker', 'build'])", ["retry(run,  docker build"], id="arguments before the list"),
        # One call that runs one of several programs.
        pytest.param("c = ['podman', 'build'] if x else ['docker', 'build']\nrun(c)", ["run( podman build", "run( docker build"], id="alternatives"),
        pytest.param("run([('podman' if x else 'docker'), 'build'])", ["run( podman build", "run( docker build"], id="alternative words"),
        # Defaults, and strings of which only a part is known.
        pytest.param("run([os.getenv('X', 'docker'), 'build', '.'])", ONE, id="default of a variable of the environment"),
        pytest.param("e = os.environ.get('X', 'docker')\nrun([e, 'build', '.'])", ONE, id="default in a variable"),
        pytest.param("run(shlex.split(os.getenv('X', 'docker build')) + ['.'])", ONE, id="default that is split"),
        pytest.param("run(['docker', *shlex.split(os.getenv('X', '')), 'build'])", ["run( docker ? build"], id="empty default that is split"),
        pytest.param("run(shlex.split(f'docker build --tag={x} {y}.'))", ["run( docker build ? ?"], id="split f-string"),
        pytest.param("run(f'docker {x} build'.split())", ["run( docker ? build"], id="split f-string by its method"),
        pytest.param("run(shlex.split('docker build -t ' + tag + ' .'))", ["run( docker build -t ? ."], id="split sum"),
        pytest.param("c = 'docker build'\nc += f' {x} .'\nrun(shlex.split(c))", ["run( docker build ? ."], id="split string that grew"),
        pytest.param("subprocess.run(f'docker build {x} .', shell=True)", ["- docker build ? ."], id="f-string for a shell"),
        # How a list grows.
        pytest.param("run(['docker', 'build', '.'])", ONE, id="literal"),
        pytest.param("c = ['docker']\nc += ['build']\nc.append('.')\nrun(c)", ONE, id="+= and append"),
        pytest.param("c = ['docker']\nc.extend(['.'])\nc.insert(1, 'build')\nrun(c)", ONE, id="extend and insert"),
        pytest.param("c = ['podman', '.']\nc[0] = 'docker'\nc[1:1] = ['build']\nrun(c)", ONE, id="subscripts"),
        pytest.param("a = ['docker']\nb = ['.']\nrun([*a, 'build', *b])", ONE, id="stars"),
        pytest.param("a = ['docker']\nc = (a\n    + ['build']) + list(['.'])\nrun(c)", ONE, id="plus"),
        pytest.param("tool = 'docker'\nrun([tool, f'bu{'ild'}', '' '.'])", ONE, id="helper variables"),
        pytest.param("run(shlex.split('docker build .'))", ONE, id="shlex"),
        pytest.param("run('docker build .'.split())", ONE, id="split"),
        pytest.param("c, x = ['docker', 'build', '.'], 1\nrun(c.copy())", ONE, id="unpacked"),
        pytest.param("run(c := ['docker', 'build', '.'])", ONE, id="walrus"),
        pytest.param("run([str(x) for x in ['docker', 'build', '.']])", ONE, id="comprehension"),
        pytest.param("c = ['docker', 'build']\nif x:\n    c += ['--load']\nc += ['.']\nrun(c)", ["run( docker build --load ."], id="conditional option"),
        pytest.param("c = ['docker', 'build']\nc += shlex.split(os.getenv('X', ''))\nc += [os.environ['Y']]\nrun(c)", ["run( docker build ? ?"], id="unknown words"),
        pytest.param("for c in [['docker', 'build'], ['docker', 'push']]:\n    run(c)", ["run( docker build"], id="loop over lists"),
        pytest.param("match x:\n    case 1:\n        c = ['docker', 'build', '.']\nrun(c)", ONE, id="match"),
        # Where it is built, and what runs it.
        pytest.param("def make(tag):\n    c = ['docker', 'build']\n    c += [tag]\n    return c\nc = make('.')\nrun(c)", ONE, id="helper that returns"),
        pytest.param("def fill(c):\n    c += ['build']\n    c.append('.')\nc = ['docker']\nfill(c)\nrun(c)", ONE, id="helper that changes"),
        pytest.param("def main():\n    run([*BASE, '.'])\nBASE = ['docker', 'build']\nmain()", ONE, id="module constant"),
        pytest.param("def a():\n    global c\n    c = ['docker', 'build', '.']\ndef b():\n    run(c)\na()\nb()", ONE, id="global"),
        pytest.param("def main():\n    def go():\n        run(c)\n    c = ['docker', 'build', '.']\n    go()", ONE, id="closure"),
        pytest.param("retry(lambda: run(['docker', 'build', '.']))", ONE, id="lambda"),
        pytest.param("class A:\n    def __init__(self):\n        self.c = ['docker', 'build']\n    def run(self, c):\n        subprocess.run(c)\n    def go(self):\n        self.c += ['.']\n        self.run(self.c)", ["self.run( docker build ."], id="methods"),
        pytest.param("class A(Base):\n    C = ['docker', 'build', '.']\n    def go(self):\n        self.run(self.C)", ["self.run( docker build ."], id="class constant, inherited method"),
        pytest.param("import subprocess as sp\nsp.check_call(['docker', 'build', '.'])", ["sp.check_call( docker build ."], id="module by another name"),
        pytest.param("from subprocess import call as c\nc(\n    ['docker', 'build', '.'],\n)", ["c( docker build ."], id="function by another name"),
        pytest.param("import functools\nsh = functools.partial(subprocess.run, check=True)\nsh(['docker', 'build', '.'])", ["sh( docker build ."], id="partial"),
        pytest.param("from util import run_cmd\nrun_cmd(['docker', 'build', '.'])", ["run_cmd( docker build ."], id="from elsewhere"),
        pytest.param("def docker(args):\n    run(['docker'] + args)\ndocker(['build', '.'])", ["docker( docker build ."], id="prefix in a helper"),
        pytest.param("def docker(args):\n    run(['docker'] + args)\ndef cached(run, cmd):\n    return run([*cmd, '--x'])\ncached(docker, ['build', '.'])", ["cached(docker,  docker build . --x"], id="prefix in a helper, through a wrapper"),
        # Tries.
        pytest.param("c = ['docker', 'build', '.']\nif run(c, check=False).returncode != 0:\n    run(c)", TRIES, id="return code"),
        pytest.param("c = ['docker', 'build', '.']\nif run(c).returncode:\n    c.append('--no-cache')\n    run(c)", ["run( docker build .", "run( docker build . --no-cache after 1"], id="another option on retry"),
        pytest.param("c = ['docker', 'build', '.']\nr = run(c)\nif r.returncode > 0:\n    r = run(c)", TRIES, id="result variable"),
        pytest.param("c = ['docker', 'build', '.']\nok = run(c).returncode == 0\nif not ok:\n    run(c)", TRIES, id="flag"),
        pytest.param("c = ['docker', 'build', '.']\nif run(c).returncode == 0:\n    pass\nelse:\n    run(c)", TRIES, id="else"),
        pytest.param("c = ['docker', 'build', '.']\nif x and run(c).returncode != 0 and y:\n    run(c)", TRIES, id="and"),
        pytest.param("c = ['docker', 'build', '.']\nrun(c).returncode == 0 or run(c)", TRIES, id="or"),
        pytest.param("def main():\n    c = ['docker', 'build', '.']\n    if run(c).returncode == 0:\n        return\n    run(c)", TRIES, id="early return"),
        pytest.param("c = ['docker', 'build', '.']\ntry:\n    run(c)\nexcept SystemExit:\n    run(c)", TRIES, id="except"),
        pytest.param("c = ['docker', 'build', '.']\nbad = False\ntry:\n    run(c)\nexcept OSError:\n    bad = True\nif bad:\n    run(c)", TRIES, id="flag of an except"),
        pytest.param("c = ['docker', 'build', '.']\nfor i in range(2):\n    if run(c).returncode == 0:\n        break\nelse:\n    run(c)", TRIES, id="loop and else"),
        pytest.param("c = ['docker', 'build', '.']\nok = False\nwhile not ok and x:\n    ok = run(c).returncode == 0\nif not ok:\n    run(c)", TRIES, id="loop and flag"),
        pytest.param("c = ['docker', 'build', '.']\nfor i in range(2):\n    if run(c).returncode == 0:\n        break", ONE, id="attempts of one call"),
        pytest.param("def sh(c):\n    return subprocess.run(c).returncode\nc = ['docker', 'build', '.']\nif sh(c) != 0:\n    sh(c)", ["sh( docker build .", "sh( docker build . after 1"], id="own return code"),
        pytest.param("if run(['docker', 'build', '.']).returncode:\n    run(['docker', 'build', '.'])", TRIES, id="written twice"),
        pytest.param("def cached(run, cmd, **kwargs):\n    return run([*cmd, '--x'], **kwargs)\nc = ['docker', 'build']\nif cached(run, c, check=False).returncode != 0:\n    cached(run, c)", ["cached(run,  docker build --x", "cached(run,  docker build --x after 1"], id="through a wrapper"),
    ],
)  # fmt: skip
def test_builds(text: str, expected: list[str]) -> None:
    assert builds(RUN + text + "\n") == expected


def test_blanks_behind_the_bracket() -> None:
    assert builds("import subprocess\nsubprocess.run( ['docker', 'build'])\n") == ["subprocess.run( docker build"]


@pytest.mark.parametrize("change", ["{}", "\ufeff{}", "\f{}", "\ufeff# \udcff\n{}", "\t{}"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_offsets(change: str, newline: str) -> None:
    source = RUN + (
        "@staticmethod\ndef main():\n\tc = ['docker', (\"build\")]  # \u00e9\udcff \U0001f600\n"
        "\f\n\tif os.getenv('A'): c += [os.environ['B']]; c.append(os.environ.get('C'))\n\trun(c)\n"
    )
    if change == "\t{}":
        source = "if True:\n" + "".join(f"\t{line}" if line.strip() else line for line in source.splitlines(True))
        change = "{}"
    text = change.format(source).replace("\n", newline)
    syntax = read(text)
    command = syntax.commands[-1]
    assert [text[word.start : word.end] for word in command.words] == [
        "'docker'", '("build")', "os.environ['B']", "os.environ.get('C')",
    ]  # fmt: skip
    assert [word.variable for word in command.words] == ["", "", "B", "C"]
    assert text[slice(*command.head)] == "run("
    for name in syntax.names:
        assert text[name.offset :].lstrip("'\"").startswith(name.name)
    for statement in syntax.statements:
        assert text[statement.start] not in " \t\r\n\f"
        assert text[statement.end - 1] not in " \t\r\n\f"
        parent = syntax.statements[statement.parent]
        assert statement.parent == -1 or parent.start < statement.start < statement.end <= parent.end
    main = next(statement for statement in syntax.statements if statement.defines == "main")
    assert text[main.start : main.end].startswith("@staticmethod")
    assert text[main.start : main.end].endswith("run(c)")
    assert text[syntax.statements[command.statement].start :].startswith("run(c)")


def test_statements_and_names() -> None:
    text = "x = 'a'\nif x:\n    y: str = 'b'\n    os.environ['Z'] = 'c'\nelif 'W' in os.environ:\n    def f(p): pass\n"
    syntax = read("import os\n" + text)
    assert [(s.body, s.parent, s.defines) for s in syntax.statements] == [
        (0, -1, ""), (0, -1, ""), (0, -1, ""), (1, 2, ""), (1, 2, ""), (2, 2, "f"), (3, 5, ""),
    ]  # fmt: skip
    assert [(n.name, n.value) for n in syntax.names if n.assigned] == [
        ("x", "a"), ("y", "b"), ("Z", "c"), ("p", None),
    ]  # fmt: skip
    assert [n.name for n in syntax.names if not n.assigned] == ["x", "str", "os", "W", "os"]


def test_forwarders() -> None:
    text = RUN + "def again(c):\n    run(c)\ndef log(c):\n    print(c)\ndef main():\n    again(['x'])\n"
    assert read(text).forwarders == {"run", "again"}


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("x = (\n", "ci/test/build.py:1:5: "),
        ("x = 1\nprint 'a'\n", "ci/test/build.py:2:1: "),
        ("if x:\n  a\n b\n", "ci/test/build.py:"),
        ("x = '\0'\n", "ci/test/build.py:"),
        ("(" * 5000, "ci/test/build.py"),
    ],
)
def test_not_python(text: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert str(caught.value).startswith(where)


def test_broken_text_never_crashes() -> None:
    source = (
        RUN
        + "c = ['docker']\nc += ['build', *shlex.split(os.getenv('A', ''))]\nif run(c, check=False).returncode != 0:\n    run(c)\n"
    )
    random_source = random.Random(4)
    for _ in range(300):
        start = random_source.randrange(len(source))
        text = (
            source[:start]
            + random_source.choice("()[]'\"\\\n\t\f\0\udcff*:=")
            + source[start + random_source.randrange(8) :]
        )
        with contextlib.suppress(InputError):
            read(text)
