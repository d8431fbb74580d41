"""Scenarios as data: what is read, and what is refused because it could never fail or never run."""

from __future__ import annotations

from pathlib import Path

import pytest

from patcher.errors import UsageError
from patcher.review import behaviour
from patcher.review.scenarios import Scenarios, fill, pattern

GOOD = """root = "{home}/x"
how = { executed = ["{script}"] }
[[scenario]]
row = 1
name = "one"
expect = {}
"""
TREES = '[trees.t]\n"a" = "a"\n'
AGAIN = GOOD[GOOD.index("[[") :].replace("one", "two")


def expecting(expect: str) -> str:
    return GOOD.replace("expect = {}", f"expect = {{ {expect} }}")


REFUSED = {
    "a key": (GOOD + "unknown = 1\n", "scenario[0].unknown is not a known key, in the scenario 'one'"),
    "a key of expect": (expecting("leave = []"), "scenario[0].expect.leave is not a known key, in the scenario 'one'"),
    "a key at the top": ("colour = 1\n" + GOOD, "colour is not a known key"),
    "a key of an entry": (GOOD + 'before = [{ path = "x", text = "x", mode = "1" }]\n', "before[0].mode is not a known key, in the scenario 'one'"),  # noqa: E501
    "no name": (GOOD.replace('name = "one"\n', ""), "name is missing"),
    "a name twice": (GOOD + AGAIN.replace("two", "one"), "'one' is there twice"),
    "a row that is a word": (GOOD.replace("row = 1", 'row = "1"'), "row must be a number"),
    "a row without a title": (GOOD + AGAIN.replace("1", "2") + '[rows]\n1 = "a"\n', "'two': row: 2 is not in [rows]"),
    "a step": (GOOD + 'steps = ["begin 1"]\n', "'begin 1' is not a step"),
    "a step that is a number": (GOOD + "steps = [1]\n", "steps must be a list of strings"),
    "a step with a word of nothing": (GOOD + 'steps = ["start 1", "signal 1 group {name}"]\n', "{name}' is not a step"),
    "a point with a word of nothing": (GOOD + 'steps = ["start 1", "wait 1 {at}"]\n', "steps: {at} stands for nothing"),
    "no steps": (GOOD + "steps = []\n", "'one': steps: no run is started"),
    "an end before its start": (GOOD + 'steps = ["start 1", "end 2", "start 2"]\n', "'end 2' stands before 'start 2'"),
    "a wait before its start": (GOOD + 'steps = ["wait 1 x", "start 1"]\n', "'wait 1 x' stands before 'start 1'"),
    "a start twice": (GOOD + 'steps = ["start 1", "start 1"]\n', "'start 1' is there twice"),
    "a strike in a scenario": (GOOD + 'steps = ["start 1", "strike group TERM"]\n', "steps: 'strike' is for"),
    "no strike": (GOOD + AGAIN.replace("scenario", "exhaustive"), "'two': steps: one step 'strike'"),
    "a tree": (GOOD + 'before = [{ path = "x", tree = "none" }]\n', "nothing is called 'none'"),
    "an entry of nothing": (GOOD + 'before = [{ path = "x" }]\n', "before[0].path 'x' needs one of tree, link"),
    "an entry of two": (GOOD + 'before = [{ path = "x", text = "", link = "y" }]\n', "needs one of"),
    "a link to nothing": (GOOD + 'before = [{ path = "x", link = "" }]\n', "before[0].link must not be empty"),
    "a prelude": (GOOD + 'preludes = ["none"]\n', "nothing is called 'none'"),
    "a prelude in another language": (GOOD + '[preludes.p]\nbash = "true"\n', "preludes.p must hold sh or py"),
    "a program": ('programs = { tool = "none.sh" }\n' + GOOD, "none.sh"),
    "a program of no possible name": ('programs = { tool = "\\u0000" }\n' + GOOD, "programs.tool: "),
    "a language": (GOOD + 'languages = ["shell"]\n', "'one': languages: 'shell' is neither"),
    "each of nothing": (GOOD + "each = { at = [] }\n", "each.at must be a list of strings, at least of one"),
    "each that is no table": (GOOD + 'each = ["a"]\n', "each must be a table, in the scenario 'one'"),
    "each of a word": (GOOD + 'each = { at = "ab" }\n', "each.at must be a list"),
    "a plan of a number": (GOOD + "plan = { build = 1 }\n", "plan.build must be a string or a list of strings"),
    "a plan of nothing": (GOOD + "plan = { build = [] }\n", "plan.build must be"),
    "a plan that nothing asks for": (GOOD + 'plan = { biuld = "ok" }\n', "'one': plan: no program asks for 'biuld'"),
    "a plan of a wrapped program": ('wrap = { mv = "rename" }\n' + GOOD + 'plan = { rename = "refused" }\n', "plan: 'refused' is none of fail, ok, refuse"),  # noqa: E501
    "failing that nothing asks for": ('failing = { build = "fail" }\n' + GOOD, "failing fits nothing"),
    "a way of no name": ('files = { "ci/x.sh" = "sourced" }\n' + GOOD, "files.ci/x.sh names 'sourced'"),
    "no way": (GOOD.replace('executed = ["{script}"]', ""), "how must hold"),
    "a way that is no list": (GOOD.replace('["{script}"]', '"{script}"'), "how.executed must be a list"),
    "an option that the recipe has not": (GOOD + "[options.none]\n", "options.none is no option of the recipe"),
    "options in a list": ('options = ["o"]\n' + GOOD, "options must be a table"),
    "an option that is not named": (GOOD + 'option = "o"\n', "'one': option: nothing is called 'o'"),
    "an option's key": (GOOD + "[options.o]\nvariable = 1\n", "options.o.variable is not a known key"),
    "an option's word of nothing": (GOOD + '[options.o]\nenvironment = { "{V}" = "" }\n', "environment has {V}"),
    "an option's word twice": ('words = { v = "x" }\n' + GOOD + "[options.o]\n", "options.o has a part that is called"),
    "a word that is there already": ('words = { home = "x" }\n' + GOOD, "words.home is there already"),
    "a root of nothing": (GOOD.replace("{home}", "{hom}"), "root has {hom}, which stands for nothing"),
    "a name of nothing": (GOOD.replace('"one"', '"one {at}"'), "name: {at} stands for nothing"),
    "an environment of nothing": (GOOD + 'environment = { X = "{Y}" }\n', "'one': environment: {Y} stands for nothing"),
    "a word of another option": (GOOD + 'environment = { X = "{v}" }\n[options.o]\n', "environment: {v} stands for"),
    "a path of nothing": (expecting('leaves = [{ "{Y}" = "t" }]') + TREES, "expect.leaves: {Y} stands for nothing"),
    "words of nothing": (expecting('calls = "added", added = [["--a", "{Y}"]]'), "expect.added: {Y} stands for"),
    "a message of nothing": (expecting('says = ["{Y}"]'), "'one': expect.says: {Y} stands for nothing"),
    "a bad regular expression": (expecting('says = ["("]'), "'one': expect.says: '(': missing )"),
    "an exit that is a number": (expecting("exit = 0"), 'expect.exit must be a string: "0" or'),
    "an exit that is a number, of a run": (expecting("exit = { 1 = 0 }"), 'expect.exit must be a string: "0" or'),
    "an exit of no meaning": (expecting('exit = "fails"'), "expect.exit must be a string"),
    "an exit of a run that is not started": (expecting('exit = { 2 = "0" }'), "expect.exit names the run 2"),
    "exits that nothing counts": (expecting("exits = 1"), "expect.exits: without a prelude"),
    "a look that is not taken": (expecting('look = [{ "a" = "t" }]') + TREES, "expect.look: there is no step 'look'"),
    "litter without a look": (expecting('litter = ["*"]'), "expect.litter and most: without expect.look"),
    "words that are not compared": (expecting('added = [["--a", "b"]]'), "expect.added: it needs calls"),
    "words that are no pair": (expecting('calls = "added", added = [["--a", 1]]'), "added must be a list of pairs"),
    "a mode": (GOOD + TREES + '"." = "rwx"\n', "trees.t must hold a mode"),
    "no time": ("seconds = 0\n" + GOOD, "seconds must be at least 1"),
    "TOML": ("root =", "Invalid value"),
}  # fmt: skip
SMALL = """summary = "s"
anchor = "image-build"
files = ["x.sh"]
subject = "s"
body = "b"
[shell]
before = "block.sh"
[options.o]
default = "a"
help = "h"
form = "V"
parts = { V = "[a-z]" }
shell = "lines.sh"
"""


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    for name, content in (("recipe.toml", SMALL), ("block.sh", "# option: o\n"), ("lines.sh", "V\n")):
        (tmp_path / name).write_text(content)
    (tmp_path / "scenarios.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        behaviour.load_scenarios(tmp_path, "recipe")
    assert said in caught.value.what
    assert caught.value.where == str(tmp_path / "scenarios.toml")


def test_braces_that_are_no_words_stay(tmp_path: Path) -> None:
    text = (
        expecting("says = ['^x{2,3}y{2} ${home}$']")
        + 'environment = { X = "${Y} {}" }\nbefore = [{ path = "{home}/e", text = "" }]\n'
    )
    (tmp_path / "scenarios.toml").write_text(text)
    (one,) = behaviour.load_scenarios(tmp_path, "recipe").scenarios
    assert one.before[0].text == ""
    assert fill("{a} ${a} {2} {}", {"a": "b", "2": "c"}) == "b ${a} {2} {}"


def test_a_word_in_a_regular_expression_stands_for_itself() -> None:
    found = pattern("^{a}+ {b}{2}", {"a": "{b}*", "b": "(x"})
    assert found.search("(x*(x* {b}{2}") is None
    assert found.search("(x*(x* (x(x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"scenarios\.toml: cannot be read"):
        behaviour.load_scenarios(tmp_path, "recipe")


def test_each_makes_all_combinations(scenarios: Scenarios) -> None:
    names = [scenario.name for scenario in scenarios.scenarios]
    assert {f"SIG{signal} to the group at rename.2" for signal in ("TERM", "INT", "HUP")} <= set(names)
    assert {scenario.row for scenario in scenarios.scenarios} == set(range(1, 21))
