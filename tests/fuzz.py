"""Scripts that nobody wrote, through parse, plan and the static review: one harness, two grammars.

``python -m tests.fuzz shell --minutes 30`` (or ``python``) makes and checks scripts for so long, prints each new
finding with the smallest script that shows it, and at the end how many scripts it tried and what became of them.
``tests/test_fuzz.py`` runs the same for seconds, and keeps what was found.
"""

# ruff: noqa: E501 (the scripts)

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import FrameType

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from patcher import recipe as recipes
from patcher.errors import CiPatcherError, InputError
from patcher.model import Plan, Recipe, Script, State, Verdict
from patcher.pipeline import parse as parse_anew
from patcher.pipeline import planned
from patcher.review import static
from tests.conftest import FIXTURES

SECONDS = 10
"""What parsing or planning one script may take, of processor time: hundreds of times what a fixture takes."""

RECIPES = [recipes.load(name, [recipes.bundled()]) for name in recipes.names([recipes.bundled()])]
PATHS = {"shell": "ci/test/02_run_container.sh", "python": "ci/test/02_run_container.py"}
parse = lru_cache(maxsize=64)(parse_anew)
CORPUS = {
    language: sorted(
        path.read_bytes().decode("utf8", "surrogateescape")
        for path in FIXTURES.glob(f"*/ci/test/0*{suffix}")
        if b"build" in path.read_bytes()
    )
    for language, suffix in (("shell", ".sh"), ("python", ".py"))
}


# What bash and Python take and this project refuses: an operator that a line's end splits in two, a here-document
# that ends in the middle of a line, `$(((` for a command (bash tries arithmetic first, and then minds the apostrophes
# of comments); and tabs in the indentation, of which libcst does not know how wide they are.
_UNSUPPORTED = {
    "shell": re.compile(r"[<>&|;($]\\\r?\n|^\t*EOF[^\n]|\$\(\(\(", re.MULTILINE),
    "python": re.compile(r"^ *\t", re.MULTILINE),
}


class BrokenError(AssertionError):
    """A property that does not hold; its text is the same for every script that breaks it in the same way."""


def check(text: str, language: str) -> str:
    """Put one script through every recipe, and say what became of it. Raises BrokenError."""
    script = Script(PATHS[language], text)
    takes = _takes(script, language)
    try:
        with _limited():
            syntax = parse(script)
    except InputError as error:
        if takes:
            raise BrokenError(f"refused, though {language} takes it: {error.what}") from None
        return "does not parse"
    became = "refused"
    done: list[tuple[Recipe, Plan]] = []
    for recipe in RECIPES:
        try:
            with _limited():
                found = planned(syntax, recipe, recipe.values({}))
        except CiPatcherError as error:
            if error.status not in {3, 4}:
                raise BrokenError(f"{recipe.name}: exit status {error.status}: {error.what}") from None
            continue
        became = f"patched ({found.state})" if found.result.text != text else "current"
        _patched(found, recipe, takes, language)
        done.append((recipe, found))
    if len(done) == len(RECIPES):
        _together(done)
    return became


def _takes(script: Script, language: str) -> bool:
    """Whether bash or Python takes a script, without a warning."""
    if "\0" in script.text or _UNSUPPORTED[language].search(script.text):
        return False  # bash drops a null byte without a word
    if language == "python":
        try:
            compile(script.data, "x", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        return True
    data = script.data.replace(b"\r\n", b"\n")
    done = subprocess.run(["bash", "--norc", "-n"], input=data, capture_output=True, check=False, timeout=SECONDS)
    return done.returncode == 0 and not done.stderr


def _patched(found: Plan, recipe: Recipe, takes: bool, language: str) -> None:
    """What holds of a result: it parses, nothing else is changed, once more changes nothing, the reverse is exact."""
    reference, result = found.reference, found.result
    if found.state in {State.ABSENT, State.NO_CACHE, State.HOOK} and reference.text != found.script.text:
        raise BrokenError(f"{recipe.name}: {found.state}, and yet something was taken out first")
    _spliced(found)
    with _limited():
        again = _again(result, recipe, "the result")
    if again.state is not State.CURRENT or again.result.text != result.text:
        raise BrokenError(f"{recipe.name}: a second run: {again.state}")
    if again.reference.data != reference.data:
        raise BrokenError(f"{recipe.name}: the reverse is not exact")
    assert found.anchor is not None
    assert again.anchor is not None
    if len(found.anchor.commands) != len(again.anchor.commands):
        raise BrokenError(f"{recipe.name}: another number of tries")
    if takes and not _takes(result, language):
        raise BrokenError(f"{recipe.name}: {language} does not take the result")
    with _limited():
        anchor = _again(reference, recipe, "the reference").anchor
    assert anchor is not None
    places = [place for c in anchor.commands for place in (c.words[0].start, c.head[0])]
    intended = static.only_intended(reference, result, [*places, *anchor.behind])
    if takes and intended.verdict is Verdict.BROKEN:
        raise BrokenError(f"{recipe.name}: lines are changed that are not the build's")


def _again(script: Script, recipe: Recipe, what: str) -> Plan:
    try:
        return planned(parse(script), recipe, recipe.values({}))
    except CiPatcherError as error:
        raise BrokenError(f"{recipe.name}: {what} is refused: {type(error).__name__}: {error.what}") from None


def _spliced(found: Plan) -> None:
    """The result is the reference, byte for byte, with the edits' texts between."""
    text, at = "", 0
    for edit in sorted(found.edits, key=lambda edit: (edit.start, edit.end)):
        if edit.start < at:
            raise BrokenError("edits overlap")
        text += found.reference.text[at : edit.start] + edit.text
        at = edit.end
    if found.edits and text + found.reference.text[at:] != found.result.text:
        raise BrokenError("bytes outside of the edits are changed")


def _together(done: list[tuple[Recipe, Plan]]) -> None:
    """Recipes do not disturb each other: in either order, each sees its own change and takes it out exactly."""
    for (first, found), (second, _) in ((done[0], done[1]), (done[1], done[0])):
        if found.ours or found.state is State.FOREIGN:
            continue
        try:
            both = _again(found.result, second, "a tree with the other's change")
            seen = _again(both.result, first, "a tree with both changes")
        except BrokenError as error:
            raise BrokenError(f"behind {first.name}: {error}") from None
        if seen.state is not State.CURRENT:
            raise BrokenError(f"{first.name} below {second.name}: {seen.state}")
        if both.state in {State.ABSENT, State.NO_CACHE, State.HOOK}:
            left = _again(seen.reference, second, "what is left of both")
            if left.state is not State.CURRENT or left.reference.text != found.reference.text:
                raise BrokenError(f"{first.name} taken out below {second.name}: not the original")


@contextmanager
def _limited() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise BrokenError(f"takes more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# what is made

_TOKENS = {
    "shell": (  # noqa: SIM905
        "docker build . docker buildx build --tag x . podman DOCKER_BUILDKIT=1 ${CI_RETRY_EXE} $DOCKER_BUILD_CACHE_ARG "
        "exec eval sudo env time timeout if then elif else fi for select while until do done case esac in function { } "
        "( ) (( )) [[ ]] [ ] ! && || | |& & ; ;; ;& ;;& < > >> >| <> <& >& &> << <<- <<< <( >( $( ` $(( $[ ${ ${x:- ${# "
        '" \' $\' $" \\ # = += a= a=( a[1]= == =~ ~ * ? @( !( {a,b} {1..3} $x ${x} "$@" $* $# $? $! $$ $- $0 -- - + '
        "f() coproc declare export local trap set return break x 0 2> é \u00a0 \ufeff EOF <<EOF <<'EOF' <<-EOF"
    ).split(" "),
    "python": (  # noqa: SIM905
        'docker build buildx "docker" "build" "buildx" cmd cmd_build run( run subprocess.run( os.system( shlex.split( '
        'os.getenv( [ ] ( ) { } , : ; . = += == != := -> * ** / % @ | & ~ < > + - " \' """ \'\'\' f" f\' r" b" rb\' \\ # if '
        "elif else: for in while: try: except: except* finally: with as def class lambda return yield await async match "
        "case _ global nonlocal import from del assert raise pass break continue not and or is None True ... 0 0x1 1_0 é "
        "\u00a0 \ufeff append( extend( insert( copy() type x"
    ).split(" "),
}
_BLANKS = ["", " ", "\n", "  ", "\t", "\\\n", "\r\n", "\f", "\n\n    ", ";", "\0", "\v"]


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


@st.composite
def mutated(draw: st.DrawFn, language: str) -> str:
    """A fixture's script with some lines, words and characters changed."""
    text = draw(st.sampled_from(CORPUS[language]))
    tokens = st.sampled_from(_TOKENS[language])
    for kind in draw(st.lists(st.integers(0, 8), min_size=1, max_size=5)):
        lines = _lines(text)
        i = draw(st.integers(0, max(len(lines) - 1, 0)))
        j = min(len(lines), i + draw(st.integers(1, 6)))
        at = draw(st.integers(0, len(text)))
        if kind == 0:
            del lines[i:j]
        elif kind == 1:
            lines[i:i] = lines[i:j]
        elif kind == 2:
            moved, lines[i:j] = lines[i:j], []
            k = draw(st.integers(0, len(lines)))
            lines[k:k] = moved
        elif kind == 3:
            indent = draw(st.sampled_from(["  ", "\t", "    "]))
            lines[i:j] = [indent + line for line in lines[i:j]]
        elif kind == 4 and language == "shell":
            before, behind = draw(st.sampled_from([*_AROUND, ("if x; then\n", "fi\n"), ("f() {\n", "}\n")]))
            lines[i:j] = [before, *lines[i:j], behind]
        elif kind == 4:
            before = draw(st.sampled_from(["if x:\n", "def f(x):\n", "try:\n", "class C:\n", "with a as b:\n"]))
            behind = "except OSError:\n    pass\n" if before == "try:\n" else ""
            lines[i:j] = [before, *("    " + line for line in lines[i:j]), behind]
        elif kind == 5:
            lines = [text[:at], draw(tokens), draw(st.sampled_from(_BLANKS)), text[at:]]
        elif kind == 6:
            lines = [text[:at], text[at + draw(st.integers(1, 12)) :]]
        elif kind == 7:
            lines = [text[:at], draw(st.characters(exclude_categories=["Cs"])), text[at:]]
        else:
            old, new = draw(st.sampled_from([("\n", "\r\n"), ("  ", "\t"), (" \\\n", " "), ('"', "'"), ("\n", " \n")]))
            lines = [text.replace(old, new)]
        text = "".join(lines)
    return text


_AROUND = [
    ("{ ", "; }\n"), ("( ", " )\n"), ("$(", ")\n"), ("x=$(", ")\n"), ("if ", "; then x; fi\n"), ("! ", "\n"), ("time ", "\n"),
    ("while ", "; do x; done\n"), ("for x in a b; do ", "; done\n"), ("for ((i=0;i<2;i++)); do ", "; done\n"),
    ("case $x in a) ", ";; esac\n"), ("case x in (a|b) ", "\n;;\n*) ;; esac\n"), ("f() { ", "; }\n"), ("f() ( ", " )\n"),
    ("[[ -n $x && ( $y == a* ) ]] && ", "\n"), ("(( x > 1 )) || ", "\n"), ("function f { ", "; }; f\n"),
    ("cat <<EOF\n$(", ")\nEOF\n"), ('echo "$(', ')"\n'), ("a=(1 2 $(", "))\n"), ("coproc ", "\n"), ("select x in a; do ", "; done\n"),
    ("until ", "; do :; done\n"), ("x | ", "\n"), ("x && ", " || y\n"), ("A=1 B='2 3' ", "\n"), ("eval \"", "\"\n"),
    ("trap '", "' EXIT\n"), ("# c\n\n# d\n", "\n"), ("\n\n", " # c\n"), ("  ", " > f 2>&1 < /dev/null\n"), ("x=1; ", " &\n"),
]  # fmt: skip
_SIMPLE = [
    "docker build .", "docker buildx build --tag \"$x\" .", "DOCKER_BUILDKIT=1 ${CI_RETRY_EXE} docker build $ARG .",
    "docker build \\\n  --file a \\\n  .", "docker build $DOCKER_BUILD_CACHE_ARG . || { sleep 3; docker build $DOCKER_BUILD_CACHE_ARG .; }",
    "docker --context x build - << EOF\nFROM x\nEOF", "sudo docker build .", "retry docker build .", "podman build .",
    "CMD=\"docker build\"; $CMD .", "cmd=(docker build .); \"${cmd[@]}\"", "f() { \"$@\"; }; f docker build .", "echo docker build .",
    ":", "x", "x=1", "x+=(a b)", "declare -A a=([x]=1)", "echo \"a $b ${c:-d}\" 'e'", "echo $((1 + 2)) ${#a[@]} ${a//x/y}", "a[1]=2",
    "[ -n \"$x\" ]", "[[ $x =~ ^a(b|c)$ ]]", "((x++))", "export X=${Y:?}", "local x", "cat << 'E'\nif [ \"\nE", "cat <<- E\n\ta\n\tE",
    "set -o errexit", "trap 'rm x' EXIT", "return 0", "exec docker build .", "bash -c 'docker build .'", ". ./x", "a | b |& c",
]  # fmt: skip


@st.composite
def made_shell(draw: st.DrawFn) -> str:
    """Commands in one another, some of them builds."""

    def command(depth: int) -> str:
        if depth <= 0 or draw(st.integers(0, 2)) == 0:
            return draw(st.sampled_from(_SIMPLE))
        before, behind = draw(st.sampled_from(_AROUND))
        inner = "\n".join(command(depth - 1) for _ in range(draw(st.integers(1, 2))))
        return before + inner + behind.rstrip("\n")

    lines = [command(draw(st.integers(0, 3))) for _ in range(draw(st.integers(1, 5)))]
    end = draw(st.sampled_from(["", "\n", "\n\n", " \\\n"]))
    return draw(st.sampled_from(["", "#!/bin/bash\n", "\ufeff", "\n# c\n"])) + "\n".join(lines) + end


_LISTS = [
    '["docker", "build", "."]', '["docker", "buildx", "build"]', 'cmd', '[*cmd, "."]', 'cmd + ["."]', 'shlex.split("docker build .")',
    '"docker build .".split()', '("docker", "build")', '["docker"] + ["build", x]', '[x, "build"]', '["docker", "run", "x"]',
    'list(cmd)', '[w for w in cmd]', 'cmd[:]', 'cmd if x else ["podman", "build", "."]', 'f("build")', '["sudo", *cmd]', "(lambda: cmd)()",
    '[\n    "docker",  # engine\n    "build",\n    f"--tag={x}",\n]', 'cmd.copy()', 'C().words', 'os.environ["X"].split()', '(c := cmd)',
    "'docker build .'", '["docker", f"{verb}"]', '["docker",\n "buildx", "build"]', '["docker", *opts, "build"]',
]  # fmt: skip
_CALLS = [
    "run",
    "subprocess.run",
    "subprocess.check_call",
    "os.system",
    "f",
    "retry",
    "C().run",
    "os.execvp",
    "self.run",
    "print",
    "call",
]
_OPENERS = [
    "if x:", "for i in range(3):", "while not x:", "try:", "with a() as b, c:", "def f(cmd, *args, **kwargs):", "def main():",
    "class C(B):", "async def f():", "match x:\n    case [a, *b]:", "if run(cmd).returncode:", "if x:\n    pass\nelse:", "@d\ndef g(self):",
    'if __name__ == "__main__":', "try:\n    pass\nexcept (OSError, E) as e:", "try:\n    x\nfinally:", "def f(cmd): # c", "for a, b in x:",
]  # fmt: skip


@st.composite
def made_python(draw: st.DrawFn) -> str:
    """Statements in one another, some of them calls that build."""

    def simple() -> str:
        values = st.sampled_from(_LISTS)
        name = draw(st.sampled_from(["cmd", "cmd_build", "c", "self.cmd", "x"]))
        form = draw(st.integers(0, 9))
        if form < 3:
            extra = draw(st.sampled_from(["", ", check=False", ", **kwargs", ",\n        shell=True,"]))
            return f"{draw(st.sampled_from(_CALLS))}({draw(values)}{extra})"
        if form < 6:
            return f"{name} {draw(st.sampled_from(['=', '+=', ': list = ']))} {draw(values)}"
        if form == 6:
            return f"{name}.{draw(st.sampled_from(['append', 'extend', 'insert']))}({draw(values)})"
        return draw(st.sampled_from([
            "import os, shlex", "import subprocess", "from subprocess import run", '"""docs"""', "pass", "return cmd", "x = 1; y = 2",
            "# c", "global cmd", "del cmd", "import os.path as p", "from __future__ import annotations", "sys.exit(1)", "raise X from y",
            'x = os.getenv("DOCKER_BUILD_CACHE_ARG", "")', "yield cmd", "assert x, cmd", "[run(c) for c in cmd]", "x = y = z", "a, *b = cmd",
            "if (n := len(cmd)) > 3: run(cmd)", "f = lambda *a: run(a)", "run(cmd) or run(cmd)", "continue", 'f"{x!r:>{y}}"', "await x",
        ]))  # fmt: skip

    def block(depth: int, indent: str) -> str:
        text = ""
        for _ in range(draw(st.integers(1, 3))):
            if depth <= 0 or draw(st.integers(0, 2)) == 0:
                text += "".join(indent + line + "\n" for line in simple().split("\n"))
            else:
                opener = draw(st.sampled_from(_OPENERS)).split("\n")
                deeper = indent + "    " + "    " * opener[-1].startswith("    case")
                text += "".join(indent + line + "\n" for line in opener) + block(depth - 1, deeper)
                if opener == ["try:"]:
                    text += f"{indent}except OSError:\n" + block(0, indent + "    ")
        return text

    head = draw(
        st.sampled_from(["", "#!/usr/bin/env python3\n", "\ufeff", '"""d"""\n', "import os\nimport subprocess\n"])
    )
    run = "def run(cmd, **kwargs):\n    return subprocess.run(cmd, check=True, **kwargs)\n"
    return (
        head
        + draw(st.sampled_from(["", run]))
        + block(draw(st.integers(0, 3)), "")
        + draw(st.sampled_from(["", "\n", "# c"]))
    )


def scripts(language: str) -> st.SearchStrategy[str]:
    """Made and mutated scripts, and a few that are both."""
    made = made_shell() if language == "shell" else made_python()
    soup = st.lists(st.tuples(st.sampled_from(_TOKENS[language]), st.sampled_from(_BLANKS)), max_size=25)
    return st.one_of(mutated(language), made, mutated(language), made, soup.map(lambda t: "".join(map("".join, t))))


# runs


def label(error: BaseException) -> str:
    """What tells findings apart: a broken property's text, or where an unexpected error was raised."""
    if isinstance(error, BrokenError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}: {str(error)[:60]}"


def campaign(language: str, seconds: float, report: Callable[[str, str], None]) -> Counter[str]:
    """Make and check scripts for so long. ``report`` gets each new finding and the smallest script that shows it;
    the counter that is returned says what became of how many scripts."""
    outcomes: Counter[str] = Counter()
    known: set[str] = set()
    new: list[str] = []
    end = time.monotonic() + seconds

    def fails(text: str) -> bool:
        if time.monotonic() > end and not new:
            raise KeyboardInterrupt  # which hypothesis lets through
        try:
            outcomes[check(text, language)] += 1
        except Exception as error:
            found = label(error)
            outcomes["finding"] += 1
            if found in known or (new and found != new[0]):
                return False
            new[:] = [found]
            return True
        return False

    options = settings(
        max_examples=2000, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    try:
        while True:
            new.clear()
            try:
                smallest = find(scripts(language), fails, settings=options)
            except NoSuchExample:
                continue
            report(new[0], smallest)
            known.add(new[0])
    except KeyboardInterrupt:
        return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("language", choices=["shell", "python"])
    parser.add_argument("--minutes", type=float, default=30)
    given = parser.parse_args()

    def report(finding: str, script: str) -> None:
        print(f"{finding}\n    {script!r}", flush=True)

    outcomes = campaign(given.language, given.minutes * 60, report)
    print(f"{sum(outcomes.values())} scripts: " + ", ".join(f"{n} {what}" for what, n in outcomes.most_common()))
    sys.exit(1 if outcomes["finding"] else 0)


if __name__ == "__main__":
    main()
