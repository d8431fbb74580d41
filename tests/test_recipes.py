"""Every recipe under snippets/ on every fixture, recipes beside each other, and broken ones by file and key."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from patcher import inject, pipeline, sources
from patcher import recipe as recipes
from patcher.errors import RefusedError, UsageError
from patcher.model import Change, Foreign, Note, Option, Plan, Recipe, Script, State, Verdict
from patcher.review import sandbox, scenarios, static
from tests.command import WHO, here
from tests.conftest import FIXTURES
from tests.test_snapshots import ARGUMENTS, PatchFile

BUNDLED = {name: recipes.read(path) for name, path in recipes.names([recipes.bundled()]).items()}
TREES = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())
# Those of the cache are run by tests/test_behaviour.py, by the README's patch in tests/test_cli.py, and at length.
ON: dict[str, list[str]] = {"docker-build-cache": []}
LINTED = {"25.x", "29.x", "constructs", "master", "python-no-hook"}  # a linter takes its time
REFUSED = {"no-build", "two-builds"}
parse = cache(pipeline.parse)  # the same texts come again and again


def planned(recipe: Recipe, script: Script) -> Plan:
    return pipeline.planned(parse(script), recipe, recipe.values({}))


def found(name: str, recipe: Recipe) -> Plan:
    return pipeline.examine(sources.tree(FIXTURES / name), recipe, recipe.values({}))


@pytest.mark.parametrize("tree_name", TREES)
@pytest.mark.parametrize("name", BUNDLED)
def test_a_fixture_is_patched_or_refused(name: str, tree_name: str) -> None:
    recipe = BUNDLED[name]
    refused = tree_name in REFUSED or (tree_name, name) == ("unknown-cache", "docker-build-cache")
    if refused:
        with pytest.raises(RefusedError):
            found(tree_name, recipe)
        return
    done = pipeline.change(sources.tree(FIXTURES / tree_name), recipe, recipe.values({}), verify=False)
    assert [finding for finding in done.findings if finding.verdict is not Verdict.HELD] == []
    assert done.pairs
    again = planned(recipe, done.plan.result)
    assert (again.state, again.result.text) == (State.CURRENT, done.plan.result.text)
    assert again.reference.data == done.plan.reference.data
    if tree_name in LINTED:
        for finding in static.linted(done.plan.script, done.plan.result):
            assert finding.verdict is not Verdict.BROKEN, finding


@pytest.mark.parametrize(("name", "tree_name"), [(n, t) for n in BUNDLED if n != "docker-build-cache" for t in TREES])
def test_the_patch(name: str, tree_name: str, snapshot: SnapshotAssertion) -> None:
    if tree_name not in REFUSED:
        done = here(FIXTURES, "patch", *ARGUMENTS, "--recipe", name, tree_name)
        assert done.status == 0, done.error
        assert done.out == snapshot.use_extension(PatchFile)


@pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing() or "there is one")
@pytest.mark.parametrize(("name", "tree_name"), [(n, tree) for n in BUNDLED for tree in ON.get(n, ["25.x", "master"])])
def test_the_scenarios_hold(name: str, tree_name: str) -> None:
    recipe = BUNDLED[name]
    done = found(tree_name, recipe)
    source = sources.tree(FIXTURES / tree_name)
    findings = pipeline.scenarios(source, done, recipe, recipe.values({}), result=done.result)
    assert findings
    assert [finding for finding in findings if finding.verdict is not Verdict.HELD] == []


PAIRS = list(itertools.permutations(BUNDLED, 2))


@pytest.mark.parametrize("tree_name", [name for name in TREES if name not in REFUSED | {"unknown-cache"}])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_recipes_do_not_disturb_each_other(first: str, second: str, tree_name: str) -> None:
    one, other = BUNDLED[first], BUNDLED[second]
    alone = found(tree_name, one)
    both = planned(other, alone.result)
    assert both.reference.text == both.script.text or both.state is State.FOREIGN
    assert planned(one, both.result).state is State.CURRENT
    assert planned(other, both.result).state is State.CURRENT
    if tree_name in LINTED:
        for finding in static.linted(alone.script, both.result):
            assert finding.verdict is not Verdict.BROKEN, finding
    # Out again, in either order.
    neither = planned(one, both.reference).reference.text
    assert planned(one, planned(other, both.result).reference).reference.text == neither
    left = planned(other, planned(one, both.result).reference)
    assert (left.state, left.reference.text) == (State.CURRENT, neither)


@pytest.mark.long
@pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing() or "there is one")
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_the_scenarios_of_each_hold_beside_the_other(first: str, second: str) -> None:
    tree_name = "25.x" if first < second else "master"
    both = planned(BUNDLED[second], found(tree_name, BUNDLED[first]).result)
    for name in (first, second):
        recipe = BUNDLED[name]
        done = planned(recipe, both.result)
        findings = pipeline.scenarios(sources.tree(FIXTURES / tree_name), done, recipe, recipe.values({}))
        assert [finding for finding in findings if finding.verdict is not Verdict.HELD] == []


# a recipe of one's own

HEAD = 'summary = "s"\nanchor = "image-build"\nfiles = ["x.sh"]\nsubject = "s"\nbody = "b"\n'
SHELL = "[shell]\ninsert = '${X:+\"$X\"}'\n"
BLOCK = "[shell]\nbefore = 'option.sh'\n"
OPTION = (
    "[options.o]\ndefault = 'a'\nhelp = 'h'\nform = 'V:W'\nparts = { V = '[a-z]', W = '[a-z]' }\nshell = 'lines.sh'\n"
)


def written(folder: Path, text: str, name: str = "mine", **files: str) -> Path:
    target = folder / name
    target.mkdir(parents=True)
    (target / "recipe.toml").write_text(text)
    for file, content in files.items():
        (target / f"{file}.sh").write_text(content)
    return target


def test_a_user_s_folder_is_listed_and_used(tmp_path: Path, tree: Callable[[str], Path]) -> None:
    written(tmp_path, HEAD.replace("x.sh", "ci/test/02_run_container.sh") + SHELL)
    listed = here(tmp_path, "recipes", "--recipes", ".")
    assert [line for line in listed.text.splitlines() if line[:1].strip()] == [*sorted(BUNDLED), "mine"]
    done = here(tmp_path, "patch", *ARGUMENTS, "--format=diff", "--recipes", ".", "--recipe=mine", tree("28.x"))
    assert '\n+  docker buildx build ${X:+"$X"} \\\n' in done.text


def headed(old: str, new: str, more: str = SHELL) -> str:
    """A recipe with another head."""
    assert old in HEAD
    return HEAD.replace(old, new, 1) + more


def with_option(old: str, new: str) -> str:
    """A recipe with another option."""
    assert old in OPTION
    return HEAD + BLOCK + OPTION.replace(old, new)


BOTH = BLOCK + OPTION + "python = 'lines.sh'\n[python]\nbefore = 'block.sh'\n"
REPLACES = "[[replaces]]\nname = 'n'\n"
BROKEN = {
    "no TOML": ("summary = \n", "not TOML"),
    "an unknown key": (HEAD + "colour = 'red'\n" + SHELL, "colour: unknown key"),
    "the folder's name as a key": (HEAD + "name = 'mine'\n" + SHELL, "name: unknown key"),
    "the folder as a key": (HEAD + "folder = 'mine'\n" + SHELL, "folder: unknown key"),
    "an unknown key in a table": (HEAD + SHELL + "colour = 'red'\n", "shell.colour: unknown key"),
    "a key is missing": (headed('subject = "s"\n', ""), "subject: a value is needed"),
    "a wrong type": (headed('"s"', "1"), "summary: expected `str`, got `int`"),
    "a wrong type in a list": (headed('"x.sh"', "1"), "files[0]: expected `str`, got `int`"),
    "no file": (headed('"x.sh"', ""), "files: expected `array` of length >= 1"),
    "no language": (HEAD, "shell: neither [shell] nor [python]"),
    "a language that does nothing": (HEAD + "[shell]\n", "shell: before, wrap or insert"),
    "no table": (HEAD + "shell = 1\n", "shell: expected `object"),
    "a file is missing": (HEAD + "[shell]\nbefore = 'none.sh'\n", "shell.before: 'none.sh' cannot be read"),
    "a file of no possible name": (HEAD + '[shell]\nbefore = "\\u0000"\n', "shell.before: "),
    "no name of a file": (HEAD + "[shell]\nbefore = 1\n", "shell.before: expected `str`"),
    "a place that is none": (HEAD + BLOCK + "place = 'top'\n", "shell.place: expected `str` matching regex"),
    "a bad regular expression": (HEAD + "seen = ['(']\n" + SHELL, "seen[0]: not a regular expression: missing )"),
    "defines without a block": (HEAD + "defines = 'f'\n" + SHELL, "defines: "),
    "a function of another name": (HEAD + "defines = 'f'\n[shell]\nbefore = 'function.sh'\n", "defines: "),
    "a function that is not named": (HEAD + "[shell]\nbefore = 'function.sh'\n", "defines: shell.before defines g"),
    "an import with a dot": (HEAD + "[python]\ninsert = 'x'\nimports = ['os.path']\n", "python.imports[0]: "),
    "an import on two lines": (HEAD + "[python]\ninsert = 'x'\nimports = [\"os\\n\"]\n", "python.imports[0]: "),
    "a directive on two lines": (HEAD + SHELL + 'directive = "# a\\n"\n', "shell.directive: "),
    "imports in shell": (HEAD + SHELL + "imports = ['os']\n", "shell.imports: is for Python"),
    "a directive in Python": (HEAD + "[python]\ninsert = 'x'\ndirective = '# d'\n", "python.directive: is for shell"),
    "a directive that is no comment": (HEAD + SHELL + "directive = 'SC2086'\n", "shell.directive: "),
    "a path from the root": (headed("x.sh", "/x.sh"), "files: '/x.sh' is not a path"),
    "a path outside": (headed("x.sh", "ci/../../x.sh"), "files: "),
    "a foreign block's path": (
        HEAD + REPLACES + "variables = ['V']\nfiles = ['../x']\n" + SHELL,
        "replaces[0].files: ",
    ),
    "no variables": (HEAD + REPLACES + "variables = []\n" + SHELL, "replaces[0].variables: expected `array` of length"),
    "replaces is no list": (HEAD + "replaces = 1\n" + SHELL, "replaces: expected `array`"),
    **{
        f"a subject that git changes: {text!r}": (headed('t = "s"', f't = "{text}"'), "subject: ")
        for text in ("[ci] s", "a\\nb", " ", " s", "Re: s")
    },
    "an update that git changes": ('update = "[ci] s"\n' + HEAD + SHELL, "update: "),
    **{
        f"a body that git cuts: {text!r}": (headed('"b"', json.dumps(f"b\n{text}\nc")), "body: ")
        for text in ("---", "--- a", "diff --git a/x b/x", "From me", "Index: x", "\a")
    },
    "a body that git takes for a header": (headed('"b"', '"Subject: b"'), "body: "),
    "advice of another name": (HEAD + SHELL + "[advice]\nall = ['a']\n", "advice: invalid enum value 'all'"),
    "an option that is no table": (HEAD + "options.o = 1\n" + SHELL, "options.o: expected `object`"),
    "one of two options": (with_option("[options.o]", "[options.n]\n[options.o]"), "options.n.default: a value is"),
    "an option without lines": (with_option("shell = 'lines.sh'\n", ""), "options.o.shell: a file with the lines"),
    "an option without a place": (HEAD + SHELL + OPTION, "options.o: one line `# option: o` in shell.before"),
    "an option without a place in one language": (HEAD + BOTH, "options.o: one line `# option: o` in python.before"),
    "an option whose body git cuts": (with_option("help", "body = '---'\nhelp"), "options.o.body: "),
    "a part's bad expression": (with_option("V = '[a-z]'", "V = '('"), "options.o.parts.V: not a regular expression"),
    "a part's expression with a group": (with_option("V = '[a-z]'", "V = '(a)'"), "options.o.parts.V: it becomes"),
    "a part's expression with a flag": (with_option("V = '[a-z]'", "V = '(?i)a'"), "options.o.parts.V: it becomes"),
    "parts that are no table": (with_option("{ V = '[a-z]', W = '[a-z]' }", "1"), "options.o.parts: expected `object`"),
    "an option without parts": (with_option("V = '[a-z]', W = '[a-z]'", ""), "options.o.parts: expected `object` of"),
    "a part that the form has not": (with_option("'V:W'", "'V'"), "options.o.parts.W: not exactly once"),
    "a part in a longer word of the form": (with_option("V:W", "V:WORD"), "options.o.parts.W: "),
    "a part twice": (with_option("V:W", "V:W:W"), "options.o.parts.W: "),
    "a part without an expression": (with_option("V:W", "V:W:X"), "options.o.form: X"),
    "a part that the lines have not": (with_option("lines.sh", "block.sh"), "options.o.shell: V is missing"),
}


@pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_recipe_is_named_with_file_and_key(text: str, said: str, tmp_path: Path) -> None:
    files = {"block": "a\n", "option": "# option: o\n", "lines": "V W\n", "function": "g() {\n  a\n}\n"}
    folder = written(tmp_path, text, **files)
    with pytest.raises(UsageError) as caught:
        recipes.read(folder)
    assert str(caught.value).startswith(f"{folder / 'recipe.toml'}: {said}"), caught.value


INSERTED = ("a; b", "a &", "a | b", "# a", "a)", "$(", '"$X', ">", "a\n")
REVIEWED = [
    *(f"[shell]\ninsert = {json.dumps(words)}\n" for words in INSERTED),
    *(f"[shell]\nwrap = '{wrap}'\n" for wrap in ("nice", "nice; ", "if ", "X=1 ", "{ ")),
    *(f"[python]\ninsert = '{words}'\n" for words in ("a,", "a # b", "*", "a for a in b", "a b")),
    *(f"[python]\nwrap = '{wrap}'\n" for wrap in ("f(", "f({callee}", "f({callee}), ")),
]


@pytest.mark.parametrize("change", REVIEWED)
def test_words_that_break_the_build_do_not_pass_the_review(change: str, tmp_path: Path) -> None:
    path = "x.py" if "python" in change else "x.sh"
    recipe = made(tmp_path, change, files=path)
    (tmp_path / "x.sh").write_text("docker build --tag a .\n")
    (tmp_path / "x.py").write_text('import subprocess\nsubprocess.run(["docker", "build", "--tag", "a", "."])\n')
    assert pipeline.change(sources.tree(tmp_path), recipe, {}, verify=False).broken


def said_of(*folders: Path) -> str:
    with pytest.raises(UsageError) as caught:
        recipes.names(list(folders))
    return f"{caught.value}\n  {caught.value.hint}"


def test_folders_of_recipes(tmp_path: Path) -> None:
    first, second = (written(tmp_path / name, HEAD + SHELL) for name in "ab")
    said = said_of(tmp_path / "a", tmp_path / "b")
    assert said == f"{second}: the recipe 'mine' exists twice\n  The other one: {first}"
    assert said_of(tmp_path / "none").startswith(f"{tmp_path / 'none'}: not a folder of recipes\n")
    assert said_of(first / "recipe.toml").startswith(f"{first / 'recipe.toml'}: not a folder of recipes\n")
    assert said_of(first).startswith(f"{first}: a recipe, not a folder of recipes\n")
    assert said_of(first).endswith(f"--recipes {tmp_path / 'a'}")


def test_an_error_of_a_recipe_is_one_of_the_command_line(tmp_path: Path, tree: Callable[[str], Path]) -> None:
    folder = written(tmp_path, HEAD)
    for arguments in (["recipes"], ["patch", "--recipe=mine", tree("28.x")]):
        done = here(tmp_path, *arguments, "--recipes", tmp_path)
        assert (done.status, done.out) == (2, b"")
        assert done.error.startswith(f"{folder / 'recipe.toml'}: shell: neither")


def test_broken_scenarios_are_named_with_file_and_key(tmp_path: Path, tree: Callable[[str], Path]) -> None:
    shutil.copytree(BUNDLED["docker-build-network"].folder, tmp_path / "mine")
    path = tmp_path / "mine" / "scenarios.toml"
    path.write_text(path.read_text().replace("poison = true", "poisoned = true"))
    done = here(tmp_path, "patch", "--recipes", ".", "--recipe=mine", tree("28.x"))
    assert done.status == 2
    assert "scenarios.toml: scenario[2] " in done.error
    assert done.error.endswith("poisoned: unknown key\n")


# a recipe that defines nothing

TRIES = "docker build{} . || { sleep 3; docker build{} .; }\n"
WORDS = ' ${X:+"$X"}'


def made(tmp_path: Path, change: str, **files: str) -> Recipe:
    head = HEAD.replace("x.sh", files.pop("files", "x.sh"))
    return recipes.read(written(tmp_path, head + change, **files))


def test_a_recipe_without_scenarios_says_so(tmp_path: Path, tree: Callable[[str], Path]) -> None:
    written(tmp_path, HEAD.replace("x.sh", "ci/test/02_run_container.sh") + SHELL)
    arguments: list[str | Path | bytes] = ["patch", *WHO, "--recipes", tmp_path, "--recipe=mine", tree("28.x")]
    done = here(tmp_path, *arguments)
    assert (done.status, "not run: scenarios: the recipe has none" in done.error) == (0, True), done.error
    assert here(tmp_path, *arguments, "--strict").status == 1


def test_words_go_into_each_try_and_out_again(tmp_path: Path) -> None:
    recipe = made(tmp_path, SHELL)
    with_words, without = TRIES.replace("{}", WORDS), TRIES.replace("{}", "")
    for text, state in ((without, State.ABSENT), (with_words, State.CURRENT)):
        done = planned(recipe, Script("x.sh", text))
        assert (done.state, done.reference.text, done.result.text) == (state, without, with_words)
    with pytest.raises(RefusedError, match="2 image builds"):  # which then differ
        planned(recipe, Script("x.sh", TRIES.replace("{}", WORDS, 1).replace("{}", "")))


def test_a_wrapper_that_only_one_of_two_tries_has_is_put_before_the_other(tmp_path: Path) -> None:
    recipe = made(tmp_path, "[shell]\nwrap = 'nice '\n")
    assert planned(recipe, Script("x.sh", "docker build nice .\n")).state is State.ABSENT
    for text in ("nice docker build . || docker build .\n", "docker build . || nice docker build .\n"):
        done = planned(recipe, Script("x.sh", text))
        assert (done.state, done.reference.text) == (State.PARTIAL, "docker build . || docker build .\n")
        assert done.result.text == "nice docker build . || nice docker build .\n"


FUNCTION = '{0}() {{\n  "$@"\n}}\n'


def test_a_wrapper_behind_the_function_of_another_recipe_is_refused(tmp_path: Path) -> None:
    change = "defines = '{0}'\n[shell]\nbefore = 'block.sh'\nwrap = '{0} '\n"
    one, other = (
        recipes.read(written(tmp_path, HEAD + change.format(name), name, block=FUNCTION.format(name)))
        for name in ("one", "other")
    )
    done = planned(one, Script("x.sh", "docker build .\n")).result
    with pytest.raises(RefusedError, match="a function of this script runs it"):
        planned(other, done)


def test_a_call_that_would_stay_behind_is_refused(tmp_path: Path) -> None:
    change = "defines = 'w'\n[shell]\nbefore = 'block.sh'\nwrap = 'w '\n"
    recipe = made(tmp_path, change, block=FUNCTION.format("w"))
    done = planned(recipe, Script("x.sh", "docker build .\n")).result
    with pytest.raises(RefusedError, match=r"x\.sh:6:1: w is called in a place"):
        planned(recipe, Script("x.sh", done.text + "w docker pull x\n"))


LINES = "# Why.\n: a\n"
BEFORE = "[shell]\nbefore = 'block.sh'\ninsert = 'x'\nwrap = 'nice '\n"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("a\n\ndocker build .\n", State.ABSENT),
        (f"a\n\n{LINES}\nnice docker build x .\n", State.CURRENT),
        (f"a\n\n{LINES}\ndocker build x .\n", State.PARTIAL),
        (f"a\n\n{LINES}\ndocker build .\n", State.PARTIAL),
        ("a\n\ndocker build x .\n", State.PARTIAL),
    ],
)
def test_lines_without_a_name_of_their_own(text: str, state: State, tmp_path: Path) -> None:
    recipe = made(tmp_path, BEFORE, block=LINES)
    done = planned(recipe, Script("x.sh", text))
    assert (done.state, done.reference.text) == (state, "a\n\ndocker build .\n")
    assert done.result.text == f"a\n\n{LINES}\nnice docker build x .\n"


def test_a_list_without_room_for_words_is_refused(tmp_path: Path) -> None:
    recipe = made(tmp_path, SHELL)
    syntax = parse(Script("x.sh", "docker build .\n"))
    anchor = dataclasses.replace(planned(recipe, syntax.script).anchor, behind=())
    with pytest.raises(RefusedError, match="nothing can be put behind"):
        inject.insertion(syntax, recipe, {}, anchor)


def test_words_go_into_every_list_that_may_run(tmp_path: Path) -> None:
    recipe = made(tmp_path, "[python]\ninsert = '*x'\n")
    lists = 'cmd = ["docker", "build"{0}]\nif y:\n    cmd = ["docker", "buildx", "build"{0}, "--load"]\n'
    text = f"import subprocess\n{lists}subprocess.run(cmd) or subprocess.run(cmd)\n"
    done = planned(recipe, Script("x.py", text.format("")))
    assert done.result.text == text.format(", *x")
    assert planned(recipe, done.result).reference.text == text.format("")


@pytest.mark.parametrize(
    "text",
    ["import os\n", "from os import environ\nos\n"],
    ids=["imported for nothing", "used without an import"],
)
def test_an_import_that_the_reverse_could_not_tell_is_refused(text: str) -> None:
    script = Script("x.py", f"import subprocess\n{text}subprocess.run(['docker', 'build'])\n")
    with pytest.raises(RefusedError, match="os is"):
        planned(BUNDLED["docker-build-network"], script)


def test_an_option_s_words_are_whole_words(tmp_path: Path) -> None:
    lines = "NOV V.W V1\n"
    recipe = made(tmp_path, BLOCK + OPTION + "body = 'V, NOV'\n", option="a\n# option: o\n", lines=lines)
    option = recipe.options["o"]
    done = pipeline.planned(parse(Script("x.sh", "docker build .\n")), recipe, recipe.values({"o": "x:y"}))
    assert done.result.text == "a\nNOV x.y V1\n\ndocker build .\n"
    assert planned(recipe, done.result).values == {"o": "x:y"}
    assert option.says("x:y") == "x, NOV"
    assert (option.words("x:y"), option.words("a")) == ({"v": "x", "w": "y"}, {})


def test_a_value_that_does_not_fit_shows_the_form(tmp_path: Path) -> None:
    recipe = made(tmp_path, BLOCK + OPTION, option="# option: o\n", lines="V W\n")
    with pytest.raises(UsageError) as caught:
        recipe.values({"o": "x"})
    assert (caught.value.what, caught.value.hint) == ("--set o=x: the form is V:W", "o: h")


def test_unknown_options_are_refused() -> None:
    with pytest.raises(UsageError, match="has no option"):
        BUNDLED["docker-build-network"].values({"cache-to": "always"})


DOCUMENT = (FIXTURES.parent / "docs" / "recipes.md").read_text(encoding="utf8")


@pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing() or "there is one")
def test_the_walk_through_does_what_it_says(tmp_path: Path) -> None:
    walk = DOCUMENT.partition("## A first one")[2].partition("**5.")[0]
    walk = walk.replace("docker-build-progress", "walk-through")  # whoever went on to step 5 has one of that name
    first, second = re.findall(r"```toml\n(.*?)```", walk, re.DOTALL)
    commands = re.findall(r"^ {4}(\w.*)$", walk, re.MULTILINE)
    assert commands[0].startswith("mkdir")
    shutil.copytree(FIXTURES / "29.x", tmp_path / "bitcoin")
    (tmp_path / "ci-patcher").symlink_to(FIXTURES.parent)
    said: list[str] = []
    folder = tmp_path / "my-recipes" / "walk-through"
    where = ""
    for command in commands:
        if command.startswith("cd "):
            where = f"{command} && "
        text = f'ci-patcher() {{ "{sys.executable}" -m patcher "$@"; }}; {where}{command}'
        environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(FIXTURES.parent)}
        done = subprocess.run(
            ["bash", "-c", text], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == (1 if " verify " in command else 0), done.stderr
        said.append(done.stdout + done.stderr)
        if command.startswith("mkdir"):
            (folder / "recipe.toml").write_text(first)
    assert "rows held: 1-2" in said[-2]
    assert set(re.findall(r"(?m)^ *(\d+) .* broken ", said[-1])) == {"2"}
    shown = (folder / "scenarios.toml").read_text()
    assert [part for part in second.split("\n\n") if part.strip() not in shown] == []
    assert "network" not in shown.lower()


def test_every_key_is_described() -> None:
    text = DOCUMENT
    kinds = (Recipe, Change, Option, Foreign, Note, scenarios.Scenario, scenarios.Scenarios, scenarios.Expect)
    of_no_file = {"recipe", "scenarios", "chosen", "folder"}
    keys = {key for kind in kinds for key in inspect.signature(kind).parameters} - of_no_file
    assert [key for key in sorted(keys) if f"`{key}" not in text and f"[{key}" not in text] == []
