"""Script shapes: which are refused, with their place, and in which the build is found.

A new shape is a row here. `@@` in the text marks the place of the refusal, or the words of the build.
"""

from __future__ import annotations

import pytest

from patcher import anchors
from patcher.errors import NoBuildError, RefusedError
from patcher.model import Anchor, Script
from patcher.pipeline import parse

PATHS = {"shell": "x.sh", "python": "x.py"}
RUN = "import os, subprocess\ndef run(cmd, **kwargs):\n    return subprocess.run(cmd, **kwargs)\n"


def read(text: str, language: str) -> tuple[Script, Anchor]:
    script = Script(PATHS[language], text)
    return script, anchors.find("image-build", parse(script))


NO_BUILD = {
    "nothing": ("shell", ""),
    "another command": ("shell", "docker run a build\n"),
    "another of buildx": ("shell", "docker buildx inspect build\n"),
    "another of the engine, behind an option": ("shell", "docker --debug run build\n"),
    "another program": ("shell", "kaniko build .\ndocker-compose build\nmydocker build .\n"),
    "printed": ("shell", "echo docker build .\n"),
    "printed in two words": ("shell", "echo 'docker build .' \"docker build\"\n"),
    "asked for": ("shell", "command -v docker && man docker build\n"),
    "one word of both": ("shell", '"docker build" .\n'),
    "in a variable only": ("shell", 'x="docker build ."\necho "$x"\n'),
    "a variable with another program": ("shell", "X=kubectl\n$X build .\n"),
    "run in the container": ("shell", "docker exec -i id docker build .\n"),
    "text for the container": ("shell", "docker exec id bash -c 'docker build .'\n"),
    "here-document": ("shell", "cat <<EOF\ndocker build .\nEOF\n"),
    "quoted here-document": ("shell", "cat << 'EOF'\ndocker build $(\nEOF\n"),
    "here-document with tabs": ("shell", "if true; then\n\tcat <<-EOF\n\tdocker build .\n\tEOF\nfi\n"),
    "here-string": ("shell", "cat <<< 'docker build .'\n"),
    "comment": ("shell", "# docker build .\ntrue # docker build .\n"),
    "array": ("shell", "x=(\n  docker # one\n  build\n  .\n)\n"),
    "test": ("shell", "[[ docker == build && -n $x ]]\n"),
    "pattern": ("shell", 'case $x in docker|build) echo "docker build has no $x" ;; esac\n'),
    "default": ("shell", 'echo "${x:-docker build .}"\n'),
    "arithmetic": ("shell", "echo $((docker + build))\n"),
    "list that is not run": ("python", "c = ['docker', 'build']\nprint(c)"),
    "string that is not run": ("python", "print('docker build .')\nlogger.info(['docker', 'build'])"),
    "docstring": ("python", 'def f():\n    """run(["docker", "build"])"""'),
    "own function that prints": ("python", "def log(cmd):\n    print(cmd)\nlog(['docker', 'build'])"),
    "own function that changes the list": (
        "python",
        "def f(cmd):\n    cmd = ['podman', *cmd]\n    run(cmd)\nf(['docker', 'build'])",
    ),
    "defined twice": ("python", "def run(cmd):\n    print(cmd)\nrun(['docker', 'build'])"),
    "another command in Python": ("python", "run(['docker', 'run', '--rm', 'x'])\nrun(['echo', 'docker', 'build'])"),
    "assigned again": ("python", "run = print\nrun(['docker', 'build'])"),
    "imported again": ("python", "from util import run\nrun(['docker', 'build'])"),
    "a class of that name": ("python", "class subprocess:\n    run = print\nsubprocess.run(['docker', 'build'])"),
    "unused default": ("python", "def f(cmd=['docker', 'build']):\n    pass"),
    "a function from elsewhere": ("python", "from util import call\ncall(['docker', 'build'])"),
    "a list of another function": ("python", "def f():\n    c = ['docker', 'build']\nrun(c)"),
}


@pytest.mark.parametrize(("language", "text"), NO_BUILD.values(), ids=NO_BUILD)
def test_no_build(language: str, text: str) -> None:
    with pytest.raises(NoBuildError):
        read(RUN + text + "\n" if language == "python" else text, language)


# Refused by the search itself, with the first words of the reason.
REFUSED = {
    "in case": ("shell", "case $x in\n  a) @@docker build . ;;\nesac\n", "it stands inside a construct"),
    "in for ((": ("shell", "for ((;;)); do A=1 @@docker build . && break; done\n", "it stands inside a construct"),
    "in select": ("shell", "select x in a b; do @@docker build .; done\n", "it stands inside a construct"),
    "in a substitution": ("shell", 'x="$(@@docker build -q .)"\n', "it stands inside a construct"),
    "in backquotes": ("shell", "x=`@@docker build -q .`\n", "it stands inside a construct"),
    "in a process substitution": ("shell", "cat < <(@@docker build .)\n", "it stands inside a construct"),
    "in a here-document": ("shell", "cat <<EOF\n$(@@docker build .)\nEOF\n", "it stands inside a construct"),
    "in a default": ("shell", "echo ${x:-$(@@docker build .)}\n", "it stands inside a construct"),
    "beside one that is found": (
        "shell",
        "docker build .\ncase a in b) @@docker build . ;; esac\n",
        "it stands inside a",
    ),
    "background": ("shell", "@@docker build . &\nwait\n", "it is started in the background"),
    "background, in a group": ("shell", "{ true; @@docker build .; } &\n", "it is started in the background"),
    "text for bash": ("shell", "@@bash -c 'docker build .'\n", "it is text for another shell"),
    "text for a shell behind a program": ("shell", '@@timeout 5 sh -c "docker build $x"\n', "it is text for another"),
    "eval": ("shell", '@@eval "docker build ."\n', "it is text for another shell"),
    "behind another statement": ("shell", "a; @@docker build .\n", "its line begins inside another statement"),
    "behind the end of a string": ("shell", "x='a\nb'; @@docker build .\n", "its line begins inside another"),
    "by podman": ("shell", "@@podman build .\n", "podman runs it"),
    "sometimes another program": ("shell", "X=docker\nif a; then X=podman; fi\n@@$X build .\n", "these words are not"),
    "sometimes unknown": ("shell", 'X=docker\nif a; then X="$(b)"; fi\n@@$X build .\n', "these words are not always"),
    "a string that grows": ("shell", 'X=docker\nX+=" buildx"\n@@$X build .\n', "these words are not always a build"),
    "keyword": ("python", "@@subprocess.run(args=['docker', 'build'])", "its words are a keyword argument"),
    "keyword of a function": ("python", "@@run(cmd=['docker', 'build'])", "its words are a keyword argument"),
    "star": ("python", "@@run(*['docker', 'build'])", "its words are separate arguments"),
    "words": (
        "python",
        "def go(*cmd):\n    subprocess.run(cmd)\n@@go('docker', 'build')",
        "its words are separate arguments",
    ),
    "Popen": ("python", "@@subprocess.Popen(['docker', 'build'])", "it is started in the background"),
    "Popen of a name": ("python", "c = ['docker', 'build']\n@@subprocess.Popen(c)", "it is started in the background"),
    "asyncio": ("python", "@@asyncio.create_subprocess_exec('docker', 'build')", "it is started in the background"),
    "exec": ("python", "@@os.execvp('docker', ['docker', 'build'])", "exec puts it in the place of the script"),
    "system": ("python", "@@os.system('docker build .')", "it is text for another shell"),
    "shell": ("python", "@@subprocess.run(f'docker build {x}', shell=True)", "it is text for another shell"),
    "check_call": (
        "python",
        "@@subprocess.check_call(['docker', 'build'])",
        "the call does not return its exit status",
    ),
    "two lists": (
        "python",
        "c = ['docker', 'build']\nif a:\n    c = ['podman', 'build']\n@@run(c)",
        "these words are not always a build",
    ),
    "a list or what a call returns": ("python", "c = ['docker', 'build']\nc = f(c)\n@@run(c)", "these words are not"),
    "a list that append changes": ("python", "c = ['docker', 'build']\nc.append('x')\n@@run(c)", "these words are not"),
    "a list with another word in it": ("python", "c = ['docker', 'build']\nc[0] = x\n@@run(c)", "these words are not"),
    "a global list": (
        "python",
        "c = ['docker', 'build']\ndef f():\n    global c\n    c = []\n@@run(c)",
        "these words are",
    ),
}
# Refused only where something goes before the build.
BARRED = {
    "exec in shell": ("shell", "@@exec docker build .\n", "exec puts it in the place of the script"),
    "exec in a variable": ("shell", 'X="exec docker"\n@@$X build .\n', "exec puts it in the place of the script"),
    "sudo": ("shell", "A=1 @@sudo -E docker build .\n", "another user runs it"),
    "doas behind a program": ("shell", "@@timeout 5 /usr/bin/doas docker build .\n", "another user runs it"),
    "sudo in a variable": ("shell", "S=sudo\n@@$S docker build .\n", "another user runs it"),
    "an alias": (
        "shell",
        "alias a=b docker='docker -c x'\n@@docker build .\n",
        "an alias or a function of this script",
    ),
    "a function in front": ("shell", 'f() { "$@"; }\n@@f docker build .\n', "an alias or a function of this script"),
    "a function with its name": ("shell", "docker() { :; }\n@@docker build .\n", "an alias or a function of this"),
    "dashes": ("shell", "@@docker build -t x -- .\n", "`--` stands"),
    "sudo in Python": ("python", "run(@@['sudo', '-E', 'docker', 'build'])", "another user runs it"),
    "dashes in Python": ("python", "c = ['docker', 'build']\nc += ['--', '.']\nrun(@@c)", "`--` stands"),
}


@pytest.mark.parametrize(("language", "marked", "what"), [*REFUSED.values(), *BARRED.values()], ids=[*REFUSED, *BARRED])
def test_refused_with_its_place(language: str, marked: str, what: str) -> None:
    before, _, after = (RUN + marked + "\n" if language == "python" else marked).partition("@@")
    script = Script(PATHS[language], before + after)
    try:
        error = anchors.find("image-build", parse(script)).barred
    except RefusedError as refused:
        error = refused
    assert error is not None
    assert error.what.removeprefix("the image build cannot be changed: ").startswith(what)
    call = "run(" if language == "python" and before.endswith("run(") else ""
    assert error.where == script.where(len(before) - len(call))
    assert error.hint


NOT_BARRED = {
    "an alias of another program": "alias podman=docker\ndocker build .\n",
    "sudo elsewhere": "sudo docker ps\ndocker build --label=sudo sudo\n",
    "dashes before": "${RETRY} -- docker build .\n",
    "an option with dashes": "docker build --tag=-- .\n",
    "a retry program with dashes": 'RETRY="retry --"\n$RETRY docker build .\n',
}


@pytest.mark.parametrize("text", NOT_BARRED.values(), ids=NOT_BARRED)
def test_not_barred(text: str) -> None:
    assert read(text, "shell")[1].barred is None


SEVERAL = {
    "different words": ("shell", "docker build a\ndocker build b\n"),
    "equal words in both branches": ("shell", "if a; then docker build .; else docker build .; fi\n"),
    "equal words one after the other": ("shell", "docker build .; docker build .\n"),
    "tried again with other words": ("shell", "docker build . || docker build --no-cache .\n"),
    "again after a success": ("shell", "docker build . && docker build .\n"),
    "inside an if, which is not followed": ("shell", "if ! docker build .; then docker build .; fi\n"),
    "twice in Python": ("python", "c = ['docker', 'build', '.']\nrun(c)\nrun(c)\n"),
    "another after a failure": ("python", "if run(['docker', 'build', 'a']):\n    run(['docker', 'build', 'b'])\n"),
}


@pytest.mark.parametrize(("language", "text"), SEVERAL.values(), ids=SEVERAL)
def test_several_are_refused_with_their_places(language: str, text: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read(RUN + text if language == "python" else text, language)
    places = caught.value.hint.splitlines()
    assert len(places) == 2
    assert all(place.startswith(f"{PATHS[language]}:") for place in places)


# Found: the words of the build stand between two `@@`, those of a later try between the next two.
FOUND = {
    "plain": ("shell", "@@docker build@@ .\n"),
    "buildx": ("shell", "@@docker buildx build@@ .\n"),
    "its other name": ("shell", "@@docker image build@@ .\n"),
    "options before": ("shell", "@@docker --context=x -D buildx --builder b build@@ .\n"),
    "a path, in quotes": ("shell", "@@'/usr/bin/docker' \"build\"@@ .\n"),
    "over lines": ("shell", "@@docker \\\n  build@@ \\\n  .\n"),
    "behind assignments": ("shell", 'A=1 B="$(true)" @@docker build@@ .\n'),
    "behind a variable": ("shell", "A=1 ${RETRY} @@docker build@@ .\n"),
    "behind programs": ("shell", "nice timeout 30m @@docker build@@ .\n"),
    "through a variable": ("shell", "X=docker\n@@$X build@@ .\n"),
    "through a variable with all of it": (
        "shell",
        'X="docker build"\nif a; then X="docker buildx build"; fi\nA=1 @@${X}@@ .\n',
    ),
    "through a variable with an assignment": ("shell", 'X="DOCKER_BUILDKIT=1 docker build"\n@@$X@@ .\n'),
    "docker beside podman": ("shell", "if a; then podman build .; else @@docker build@@ .; fi\n"),
    "tried twice": ("shell", "@@docker build@@ . || { sleep 3; @@docker build@@ .; }\n"),
    "behind time": ("shell", "time -p @@docker build@@ .\n"),
    "behind [[ ]]": ("shell", "[[ -n $x &&\n  ( $y == a* || $z =~ ^(b|c)$ ) ]] && @@docker build@@ .\n"),
    "behind (( ))": ("shell", "(( x > 1 )) || @@docker build@@ .\n"),
    "behind arrays": ("shell", 'x=(a "b c" $(true)); declare -A y=([a]=1)\nx+=(b) @@docker build@@ .\n'),
    "behind arithmetic": ("shell", "x=$((1 + (2 << 3)))\n@@docker build@@ .\n"),
    "in a function": ("shell", "f() {\n  @@docker build@@ .\n}\n"),
    "in a group behind ||": ("shell", "a || { sleep 3; @@docker build@@ .; }\n"),
    "in if, negated": ("shell", "if ! @@docker build@@ .; then true; fi\n"),
    "in the second elif": ("shell", "if a; then b\nelif c; then d\nelif e; then @@docker build@@ .\nelse f\nfi\n"),
    "in until": ("shell", "until @@docker build@@ .; do sleep 1; done\n"),
    "in a loop": ("shell", "for i in 1 2; do @@docker build@@ . && break; done\n"),
    "in a pipeline": ("shell", "a |& @@docker build@@ . 2>&1 | tee log\n"),
    "in a subshell": ("shell", "(cd x && @@docker build@@ .)\n"),
    "with a here-document": ("shell", "@@docker build@@ - <<EOF && b\nFROM $(x)\nEOF\n"),
    "with a process substitution": ("shell", "@@docker build@@ . 2> >(tee log)\n"),
    "with CR LF": ("shell", "if a; then\r\n  @@docker build@@ .\r\nfi\r\n"),
    "behind blanks that are none to bash": ("shell", "echo \u00a0 \x1c a\u2003b\n@@docker build@@ .\n"),
    "a literal list": ("python", "run([@@'docker', 'build'@@, '.'])"),
    "a name": ("python", "c = [@@'docker', 'build'@@]\nrun(c)"),
    "a list that grows": (
        "python",
        "c = [@@'docker', 'buildx', 'build'@@]\nif x:\n    c += ['--load']\nc += f()\nrun(c)",
    ),
    "in two branches": ("python", "c = [@@'docker', 'build'@@]\nif x:\n    c = ['docker', 'buildx', 'build']\nrun(c)"),
    "subprocess itself": ("python", "subprocess.run([@@'docker', 'build'@@], shell=False)"),
    "through two functions": ("python", "def again(c):\n    run([*c, 'x'])\nagain([@@'docker', 'build'@@])"),
    "tried again": (
        "python",
        "c = ['docker', 'build']\nif run(c, check=False).returncode != 0:\n    run(c)",
    ),
}


@pytest.mark.parametrize(("language", "marked"), FOUND.values(), ids=FOUND)
def test_found(language: str, marked: str) -> None:
    text = RUN + marked + "\n" if language == "python" else marked
    script, anchor = read(text.replace("@@", ""), language)
    found = [script.text[start:end] for start, end in anchor.verbs]
    expected = text.split("@@")[1::2]
    assert found == (expected or ["'docker', 'build'"] * 2)


# Where something would be put before the build, marked by `@@`.
PLACES = {
    "the statement itself": "a\n@@docker build .\n",
    "in its branch": "if a; then\n  b\n  @@docker build .\nfi\n",
    "in its function": "f() {\n  @@docker build .\n}\nf\n",
    "before its function": "@@f() { x='a\nb'; docker build .; }\n",
    "before time": "a\n@@time docker build .\n",
    "before a list": "@@a &&\n  docker build .\n",
    "before the if that tests it": "@@if ! docker build .; then\n  exit 1\nfi\n",
    "before all tries": "if a; then\n  @@docker build . || {\n    docker build .\n  }\nfi\n",
    "not in the middle of a line": "@@if a; then docker build .; fi\n",
}


@pytest.mark.parametrize("marked", PLACES.values(), ids=PLACES)
def test_the_place_before_the_build(marked: str) -> None:
    before, _, after = marked.partition("@@")
    assert read(before + after, "shell")[1].statement.start == len(before)


def test_words_go_behind_each_list_that_may_run() -> None:
    text = RUN + "c = ['docker', 'build']\nif x:\n    c = ['docker', 'buildx', 'build']\nrun(c)\n"
    script, anchor = read(text, "python")
    assert [script.text[:at].endswith("'build'") for at in anchor.behind] == [True, True]


MENTIONS = {
    "nothing": ("echo docker\nbuild\n", False),
    "a comment": ("# docker build .\ntrue # docker build\n", False),
    "another command": ("docker run build\ndocker-compose build\n", False),
    "a string": ("f 'docker build .'\n", True),
    "words in Python": ('call(["docker", "buildx", "build"])\n', True),
}


@pytest.mark.parametrize(("text", "expected"), MENTIONS.values(), ids=MENTIONS)
def test_words_that_look_like_a_build(text: str, expected: bool) -> None:
    offset = anchors.mention("image-build", Script("x.sh", text))
    assert (offset is not None) == expected
    assert offset is None or text.startswith("docker", offset)
    assert anchors.may_hold("image-build", Script("x.sh", text))
    assert not anchors.may_hold("image-build", Script("x.sh", "docker run x\n"))
