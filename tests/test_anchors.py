"""Syntax to anchors: what is the build, and what is not."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from patcher import anchors
from patcher.errors import NoBuildError, RefusedError
from patcher.model import Anchor, Script
from patcher.parse import python
from patcher.parse.shell import parse
from tests.conftest import needs


def find(text: str) -> Anchor:
    return anchors.find("image-build", parse(Script("x.sh", text)))


NO_BUILD = {
    "nothing": "",
    "another command": "docker run a build\n",
    "another of buildx": "docker buildx inspect build\n",
    "another engine's": "kaniko build .\n",
    "printed": "echo docker build .\n",
    "printed by a function": 'log() { echo "$@"; }\nlog docker build .\n',
    "in a variable only": 'x="docker build ."\necho "$x"\n',
    "asked for": "command -v docker && man docker build\n",
    "with a file's name": "docker-compose build\nmydocker build .\n",
    "in quotes": '"docker build" .\n',
    "a variable with another program": "X=kubectl\n$X build .\n",
    "run in the container": "docker exec -i id docker build .\n",
    "an array of another command": 'x=(docker run "$T" build)\n"${x[@]}"\n',
    "an array that prints": 'x=(echo docker build "$T")\n"${x[@]}"\n',
    "an array with one word of both": 'x=("docker build" "$T")\n"${x[@]}"\n',
    "a string of another command": 'x="docker run --name=$T build"\n$x\n',
    "a string that goes on otherwise": 'x=docker\nx+=" run $T"\n$x .\n',
    "variables that hold each other": "X=$Y\nY=$X\n$X build .\n",
    "a default that is another program": ': "${X:=kubectl}"\n"$X" build .\n',
    "an alternative": "${X:+docker} build .\n",
    "arguments that are not run": "set -- docker build .\necho hi\n",
    "arguments of the script, not of the function": 'set -- docker build .\nf() { "$@"; }\nf true\n',
    "arguments of another function": 'f() { set -- docker build .; }\ng() { "$@"; }\ng true\n',
    "a function that prints the engine": 'd() { echo docker "$@"; }\nd build .\n',
    "a function that runs another engine": 'd() { kaniko "$@"; }\nd build .\n',
    "a function that leaves a word out": 'd() { shift; docker "$@"; }\nd build .\n',
    "a function that calls itself": 'd() { d "$@"; }\nd build .\n',
}


@pytest.mark.parametrize("text", NO_BUILD.values(), ids=NO_BUILD)
def test_what_is_no_build(text: str) -> None:
    with pytest.raises(NoBuildError):
        find(text)


ENDLESS = {
    "one that doubles": "x=1\n" + 'x="$x $x"\n' * 60 + "$x build\n",
    "many that double": "".join(f'x{i}="$x{i - 1} $x{i - 1}"\nx{i}=a{i}\n' for i in range(1, 60)) + "$x59 build\n",
    "a long chain": "".join(f"x{i}=$x{i + 1}\n" for i in range(2000)) + "$x0 build\n",
    "functions": "".join(f'f{i}() {{ f{i - 1} "$@"; f{i + 1} a "$@"; }}\n' for i in range(60)) + "f59 build\n",
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_values_out_of_values_have_bounds(text: str) -> None:
    with pytest.raises(NoBuildError):
        find(text)


SEVERAL = {
    "different words": "docker build a\ndocker build b\n",
    "equal words in both branches": "if a; then docker build .; else docker build .; fi\n",
    "equal words one after the other": "docker build .; docker build .\n",
    "two arms": "case $x in a) docker build . ;; b) docker build . ;; esac\n",
    "tried again with other words": "docker build --pull . || docker build --no-cache .\n",
    "tried again with fewer words": "docker build --no-cache . || docker build .\n",
    "tried again in another order": "docker build -t a . || docker build . -t a\n",
    "with more words behind a success": "docker build . && docker build --no-cache .\n",
    "two of podman": "podman build a\npodman build b\n",
}


@pytest.mark.parametrize("text", SEVERAL.values(), ids=SEVERAL)
def test_several_that_cannot_be_told_apart_are_refused_with_their_places(text: str) -> None:
    with pytest.raises(RefusedError) as caught:
        find(text)
    places = caught.value.hint.splitlines()
    assert len(places) == 2
    assert all(place.startswith("x.sh:") for place in places)


# The text of each build's first word up to `build`.
ONE = {
    "plain": ("docker build .\n", ["docker build"]),
    "buildx": ("docker buildx build .\n", ["docker buildx build"]),
    "its other names": ("docker image build .\n", ["docker image build"]),
    "options before": (
        "docker --context=x -D buildx --builder b build .\n",
        ["docker --context=x -D buildx --builder b build"],
    ),
    "a path": ("/usr/bin/docker build .\n", ["/usr/bin/docker build"]),
    "quotes": ("'docker' \"build\" .\n", ["'docker' \"build\""]),
    "over lines": ("docker \\\n  build .\n", ["docker \\\n  build"]),
    "behind assignments": ("A=1 B=2 docker build .\n", ["docker build"]),
    "behind wrappers": ("${RETRY} sudo -u a timeout 30m docker build .\n", ["docker build"]),
    "behind a function that runs its arguments": ('r() { "$@"; }\nr 3 docker build .\n', ["docker build"]),
    "through a variable": ("X=docker\n$X build .\n", ["$X build"]),
    "through a variable with all of it": (
        'X="docker build"\nif a; then X="docker buildx build"; fi\n${X} .\n',
        ["${X}"],
    ),
    "through a variable with an assignment in it": ('X="DOCKER_BUILDKIT=1 docker build"\n$X .\n', ["$X"]),
    "through a variable in quotes": ('X=docker\n"$X" build .\n', ['"$X" build']),
    "through an array": ('X=(docker buildx)\n"${X[@]}" build .\n', ['"${X[@]}" build']),
    "through an array with more words": (
        'x=(docker "--log-level=$L" build --tag="$T" "$D" $(o))\n"${x[@]}"\n',
        ['"${x[@]}"'],
    ),
    "through an array that grows": ('x=(docker)\nx+=(build)\nx+=(--tag="$T")\n"${x[@]}" .\n', ['"${x[@]}"']),
    "through an array that grows for long": (
        "x=(docker)\n" + 'x+=(--a="$T")\n' * 40 + 'x+=(build)\n"${x[@]}" .\n',
        ['"${x[@]}"'],
    ),
    "through an array out of others": (
        'x=(docker build)\ny=(sudo "${x[@]}")\ny=("${y[@]}" "$T")\n"${y[@]}"\n',
        ['"${y[@]}"'],
    ),
    "through a local array": ('f() {\n  local x=(docker build "$1")\n  "${x[@]}"\n}\n', ['"${x[@]}"']),
    "through an array behind a function": ('r() { "$@"; }\nx=(docker build "$T")\nr "${x[@]}"\n', ['"${x[@]}"']),
    "through a string with more words": ('X="docker build --tag=$T"\n$X "$D"\n', ["$X"]),
    "through a string that grows": ('X=docker\nX+=" buildx"\nX+=" build"\n$X .\n', ["$X"]),
    "through a string that holds itself": ('X="docker"\nX="$X build"\n$X .\n', ["$X"]),
    "through a variable of a variable": ('E=docker\nX="$E build"\n$X .\n', ["$X"]),
    "through a wrapper in a variable": ('X="timeout 30m docker build"\n$X .\n', ["$X"]),
    "through the arguments": ('set -- docker build --tag="$T"\n"$@" .\n', ['"$@"']),
    "through the arguments that grow": ('set -- docker build\nset -- "$@" --tag="$T"\n"$@" .\n', ['"$@"']),
    "through the arguments in a function": ('f() {\n  set -- docker build "$@"\n  "$@"\n}\nf .\n', ['"$@"']),
    "through a function": ('d() { command docker "$@"; }\nd build .\n', ["d build"]),
    "through one of two engines": ('d() { if a; then podman "$@"; else docker "$@"; fi; }\nd build .\n', ["d build"]),
    "not where a function is called that has it all": (
        'd() { docker build --label=a "$@"; }\nd . || d --no-cache .\n',
        ["docker build"],
    ),
    "through a default": ("${X:-docker} build .\n", ["${X:-docker} build"]),
    "through a default without a colon": ("${X-docker} build .\n", ["${X-docker} build"]),
    "through a default in quotes": ('"${X:-"docker"}" build .\n', ['"${X:-"docker"}" build']),
    "through a default of a default": ("${X:-${Y:-docker}} build .\n", ["${X:-${Y:-docker}} build"]),
    "through a default that is assigned": ('"${X:=docker}" build .\n', ['"${X:=docker}" build']),
    "through a default that was assigned before": (': "${X:=docker}"\n"$X" build .\n', ['"$X" build']),
    "with a comment in backquotes": ("docker build \\\n  `# why (not)` \\\n  .\n", ["docker build"]),
    "podman alone": ("podman build .\n", ["podman build"]),
    "docker beside podman": ("if a; then podman build .; else docker build .; fi\n", ["docker build"]),
    "tried twice": ("docker build . || { sleep 3; docker build .; }\n", ["docker build"] * 2),
    "tried twice with more options": ("docker build . || docker build --no-cache . --pull\n", ["docker build"] * 2),
    "tried three times": (
        "if ! docker build .; then\n  sleep 3\n  docker build . || docker build .\nfi\n",
        ["docker build"] * 3,
    ),
}


@pytest.mark.parametrize(("text", "expected"), ONE.values(), ids=ONE)
def test_the_one_build(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in find(text).verbs] == expected


def test_several_are_named_by_where_they_are_run() -> None:
    text = "import subprocess\nc = ['docker', 'build']\nsubprocess.run(c)\nsubprocess.run([*c, '.'])\n"
    with pytest.raises(RefusedError) as caught:
        anchors.find("image-build", python.parse(Script("x.py", text)))
    assert [line.split(": ")[0] for line in caught.value.hint.splitlines()] == ["x.py:3:1", "x.py:4:1"]


PYTHON_TRIES = {
    "a list and more": "if subprocess.run(c).returncode:\n    subprocess.run([*c, '--no-cache'])\n",
    "a list that grew": "if subprocess.run(c).returncode:\n    c.append('--no-cache')\n    subprocess.run(c)\n",
}


@pytest.mark.parametrize("text", PYTHON_TRIES.values(), ids=PYTHON_TRIES)
def test_a_later_try_in_python_may_have_more_options(text: str) -> None:
    text = f"import subprocess\nc = ['docker', 'build', '.']\n{text}"
    assert len(anchors.find("image-build", python.parse(Script("x.py", text))).commands) == 2


# Where a wrapper would stand, marked by a vertical bar.
HEADS = {
    "the engine": "|docker build .\n",
    "before a program": "A=1 |timeout 30m docker build .\n",
    "before a variable": "|${RETRY} docker build .\n",
    "before a function behind a variable": 'f() { "$@"; }\n|${RETRY} f docker build .\n',
    "before a function that runs a program": 'f() { timeout 5 "$@"; }\n|f docker build .\n',
    "before a function that may run a program": 'f() { if a; then "$@"; else nice "$@"; fi; }\n|f docker build .\n',
    "before a function that hides functions": 'f() { command "$@"; }\n|f docker build .\n',
    "before a function that has other arguments": 'f() { set -- env A=1 "$@"; "$@"; }\n|f docker build .\n',
    "before a function that runs the engine": 'f() { docker "$@"; }\n|f build .\n',
    "behind a function": 'f() { for i in 1 2; do "$@" && return; done; }\nf |docker build .\n',
    "behind a function that prints": 'f() { echo "$@"; "$@"; }\nf |docker build .\n',
    "behind a function and before a program": 'f() { "$@"; }\nf |nice docker build .\n',
    "behind a function and before a variable": 'f() { "$@"; }\nf |${RETRY} docker build .\n',
    "behind its own arguments": 'f() { local n="$1"; shift; "$@"; }\nf "$N" |docker build .\n',
    "behind what it leaves out": 'f() { echo "$1"; "${@:2}"; }\nf "A name" |docker build .\n',
    "behind two functions": 'f() { shift; "$@"; }\ng() { "$@"; }\nf timeout g |docker build .\n',
    "behind as many as it may have": ('f() { while [[ $1 == -* ]]; do shift; done; "$@"; }\nf -a -b |docker build .\n'),
    "behind those and before a program": 'f() { if a; then shift; fi; "$@"; }\nf 3 |sudo docker build .\n',
}


@pytest.mark.parametrize("marked", HEADS.values(), ids=HEADS)
def test_where_a_wrapper_stands(marked: str) -> None:
    before, _, after = marked.partition("|")
    (command,) = find(before + after).commands
    assert command.head == (len(before), len(before))


@pytest.mark.parametrize("marked", HEADS.values(), ids=HEADS)
def test_bash_runs_the_build_through_a_wrapper_that_stands_there(marked: str, tmp_path: Path) -> None:
    bash = needs("bash")
    for name, text in {"docker": 'echo "engine: $*"', "sudo": 'exec "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf8")
        (tmp_path / name).chmod(0o755)
    script = 'a() { true; }\nw() { "$@" --last; }\n' + marked.replace("|", "w ")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RETRY": "" if "} f" in marked else "env", "N": "3"}
    done = subprocess.run([bash, "-c", script], env=environment, text=True, capture_output=True, check=False)
    assert [line for line in done.stdout.splitlines() if line.startswith("engine")] == ["engine: build . --last"]
    assert not done.stderr


# What nothing can be put before that adds words at the end; the first words of the message, and where.
BARRED = {
    "exec": ("|exec docker build .\n", "nothing can be put before the image build: exec "),
    "exec in a string": ('X="exec docker"\n|$X build .\n', "nothing can be put before the image build: exec "),
    "an alias": (
        "alias -p a=b docker='docker -c x'\n|docker build .\n",
        "nothing can be put before the image build: `d",
    ),
    "a quoted alias": (
        "alias 'docker=podman'\n|docker build .\n",
        "nothing can be put before the image build: `docker`",
    ),
    "sudo": ("A=1 |sudo -E docker build .\n", "the image build runs as another user, through sudo,"),
    "doas behind a program": ("|timeout 5 /usr/bin/doas docker build .\n", "the image build runs as another user"),
    "sudo in a variable": ("if a; then S=sudo; fi\n|$S docker build .\n", "the image build runs as another user"),
    "sudo in a string": ('X="sudo docker"\n|$X build .\n', "the image build runs as another user"),
    "sudo in a list": ('X=(sudo docker build "$T")\n|"${X[@]}"\n', "the image build runs as another user"),
    "sudo in a function": ('d() { sudo docker "$@"; }\n|d build .\n', "the image build runs as another user"),
    "sudo in a function in front": ('d() { sudo "$@"; }\n|d docker build .\n', "the image build runs as another user"),
    "dashes": ("docker build -t x |-- .\n", "`--` stands"),
    "dashes in a list": ('x=(-- .)\ndocker build |"${x[@]}"\n', "`--` stands"),
    "dashes in the build's list": ('x=(docker build "$T" -- .)\n|"${x[@]}"\n', "`--` stands"),
    "a function with any number of arguments": (
        'f() { if a; then shift; fi; "$@"; }\n|f "$N" docker build .\n',
        "`f` has arguments of its own here",
    ),
}


@pytest.mark.parametrize(("marked", "what"), BARRED.values(), ids=BARRED)
def test_what_nothing_can_be_put_before(marked: str, what: str) -> None:
    before, _, after = marked.partition("|")
    syntax = parse(Script("x.sh", before + after))
    barred = anchors.find("image-build", syntax).barred
    assert barred is not None
    assert barred.what.startswith(what)
    assert barred.where == syntax.script.where(len(before))
    assert barred.hint


NOT_BARRED = {
    "an alias of another program": "alias podman=docker\ndocker build .\n",
    "an alias behind another word": "alias docker=podman\ntimeout 5 docker build .\n",
    "an alias that quotes keep from it": "alias docker=podman\n'docker' build .\n",
    "sudo elsewhere": "sudo docker ps\ndocker build --label=sudo sudo\n",
    "sudo in a list, but not in front": 'x=(docker build --label sudo "$T")\n"${x[@]}"\n',
    "dashes before": "${RETRY} -- docker build .\n",
    "dashes before in a string": 'X="nice -- docker build"\n$X .\n',
    "an option with dashes": "docker build --tag=-- .\n",
}


@pytest.mark.parametrize("text", NOT_BARRED.values(), ids=NOT_BARRED)
def test_what_bars_nothing(text: str) -> None:
    assert find(text).barred is None


PYTHON_BARRED = {
    "keyword": ("subprocess.run(args=['docker', 'build'])", "its words are a keyword argument"),
    "keyword of a function": ("def run(cmd): subprocess.run(cmd)\nrun(cmd=['docker', 'build'])", "a keyword argument"),
    "star": ("def run(*cmd): subprocess.run(cmd)\nrun(*['docker', 'build'])", "arguments of their own"),
    "words": ("def run(*cmd): subprocess.run(cmd)\nrun('docker', 'build')", "arguments of their own"),
    "background": ("subprocess.Popen(['docker', 'build'])", "started here and waited for elsewhere"),
    "asyncio": ("import asyncio\nasyncio.create_subprocess_exec('docker', 'build')", "waited for elsewhere"),
    "asyncio's shell": ("import asyncio\nasyncio.create_subprocess_shell('docker build .')", "waited for elsewhere"),
    "spawn": ("import os\nos.spawnvp(os.P_WAIT, 'docker', ['docker', 'build'])", "waited for elsewhere"),
    "exec": ("import os\nos.execvp('docker', ['docker', 'build'])", "exec puts it in the script's place"),
    "system": ("import os\nos.system('docker build .')", "text for a shell"),
    "shell": ("subprocess.run('docker build .', shell=True)", "text for a shell"),
    "sudo": ("subprocess.run(['sudo', '-E', 'docker', 'build'])", "runs as another user, through sudo"),
    "dashes": ("subprocess.run(['docker', 'build', '-t', 'x', '--', '.'])", "`--` stands"),
    "nothing": ("subprocess.run(['docker', 'build', '.'], shell=False)", ""),
}


@pytest.mark.parametrize(("text", "what"), PYTHON_BARRED.values(), ids=PYTHON_BARRED)
def test_what_nothing_can_be_put_before_in_python(text: str, what: str) -> None:
    barred = anchors.find("image-build", python.parse(Script("x.py", f"import subprocess\n{text}\n"))).barred
    assert what in (barred.what if barred else "")
    assert bool(what) == bool(barred)
    assert not barred or barred.where.startswith(f"x.py:{text.count(chr(10)) + 2}:")


# Where something would be put before the build, marked by a vertical bar.
PLACES = {
    "the statement itself": "a\n|docker build .\n",
    "in its branch": "if a; then\n  b\n  |docker build .\nfi\n",
    "in its function": "f() {\n  |docker build .\n}\nf\n",
    "before a list": "|a &&\n  docker build .\n",
    "before the if that tests it": "|if ! docker build .; then\n  exit 1\nfi\n",
    "before all tries": "if a; then\n  |if ! docker build .; then\n    docker build .\n  fi\nfi\n",
    "before a group of tries": "|docker build . || {\n  sleep 3\n  docker build .\n}\n",
    "not in the middle of a line": "|if a; then docker build .; fi\n",
    "before the case on whose pattern's line it stands": "|case a in\n  a) docker build . ;;\nesac\n",
    "in its arm": "case a in\n  a)\n    |docker build .\n    ;;\nesac\n",
    "before the assignment that it is part of": '|x="$(docker build .)"\n',
}


@pytest.mark.parametrize("marked", PLACES.values(), ids=PLACES)
def test_the_place_before_the_build(marked: str) -> None:
    before, _, after = marked.partition("|")
    text = before + after
    assert find(text).statement.start == len(before)


def test_the_statements_of_a_script_nest() -> None:
    syntax = parse(Script("x.sh", "if a; then\n  f() {\n    b || c\n  }\nfi\nd\n"))
    for statement in syntax.statements:
        if statement.parent >= 0:
            around = syntax.statements[statement.parent]
            assert around.start <= statement.start
            assert statement.end <= around.end
    assert all(a.start <= b.start for a, b in pairwise(syntax.statements))
