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
expect = { exit = "0" }
"""
TREES = '[trees.t]\n"a" = "a"\n'
AGAIN = GOOD[GOOD.index("[[") :].replace("one", "two")


def expecting(expect: str) -> str:
    return GOOD.replace('exit = "0"', expect)


REFUSED = {
    "a key": (GOOD + "unknown = 1\n", "unknown: unknown key"),
    "a key of expect": (expecting("leave = []"), "expect.leave: unknown key"),
    "a key at the top": ("colour = 1\n" + GOOD, "colour: unknown key"),
    "a key that is no key of the file": ('recipe = "x"\n' + GOOD, "recipe: unknown key"),
    "no name": (GOOD.replace('name = "one"\n', ""), "name: a value is needed"),
    "a name twice": (GOOD + AGAIN.replace("two", "one"), "the name 'one' is used twice"),
    "a row that is a word": (GOOD.replace("row = 1", 'row = "1"'), "row: expected `int`, got `str`"),
    "a row without a title": (GOOD + AGAIN.replace("1", "2") + '[rows]\n1 = "a"\n', "row: 2 is not in [rows]"),
    "a step": (GOOD + 'steps = ["begin 1"]\n', "steps[0]: expected `str` matching regex"),
    "a step with a word of nothing": (GOOD + 'steps = ["start 1", "wait 1 {at}"]\n', "steps[1]: expected `str`"),
    "no steps": (GOOD + "steps = []\n", "steps: each run starts once"),
    "an end before its start": (GOOD + 'steps = ["start 1", "end 2", "start 2"]\n', "'end 2' stands before 'start 2'"),
    "a start twice": (GOOD + 'steps = ["start 1", "start 1"]\n', "steps: each run starts once"),
    "a strike in a scenario": (GOOD + 'steps = ["start 1", "strike group TERM"]\n', "steps: 'strike' is for"),
    "no strike": (GOOD + AGAIN.replace("scenario", "exhaustive"), "steps: one step 'strike'"),
    "a tree": (GOOD + 'before = [{ path = "x", tree = "none" }]\n', "trees: nothing is called 'none'"),
    "an entry of nothing": (GOOD + 'before = [{ path = "x" }]\n', "before[0]: 'x' needs one of tree, link"),
    "a prelude": (GOOD + 'preludes = ["none"]\n', "preludes: nothing is called 'none'"),
    "a prelude in another language": (GOOD + '[preludes.p]\nbash = "true"\n', "invalid enum value 'bash'"),
    "a program": ('programs = { tool = "none.sh" }\n' + GOOD, "none.sh"),
    "a language": (GOOD + 'languages = ["sh"]\n', "languages[0]: invalid enum value 'sh'"),
    "each of nothing": (GOOD + "each = { at = [] }\n", "at: expected `array` of length >= 1"),
    "each of a word": (GOOD + 'each = { at = "ab" }\n', "expected `array`, got `str`"),
    "a plan that nothing asks for": (GOOD + 'plan = { biuld = "ok" }\n', "plan: no program asks for 'biuld'"),
    "a plan of a wrapped program": (
        'wrap = { mv = "rename" }\n' + GOOD + 'plan = { rename = "refused" }\n',
        "plan.rename: 'refused' is none of fail, ok, refuse",
    ),
    "a way of no name": ('files = { "ci/x.sh" = "sourced" }\n' + GOOD, "how: nothing is called 'sourced'"),
    "no way": (GOOD.replace('executed = ["{script}"]', ""), "how: expected `object` of length >= 1"),
    "an option that the recipe has not": (GOOD + "[options.none]\n", "options.none: no option of the recipe"),
    "an option that is not named": (GOOD + 'option = "o"\n', "option: nothing is called 'o'"),
    "an option's word of nothing": (GOOD + '[options.o]\nenvironment = { "{V}" = "" }\n', "{V} stands for nothing"),
    "a root of nothing": (GOOD.replace("{home}", "{hom}"), "root: {hom} stands for nothing"),
    "a name of nothing": (GOOD.replace('"one"', '"one {at}"'), "name: {at} stands for nothing"),
    "an environment of nothing": (GOOD + 'environment = { X = "{Y}" }\n', "environment: {Y} stands for nothing"),
    "a word of another option": (GOOD + 'environment = { X = "{v}" }\n[options.o]\n', "environment: {v} stands for"),
    "a path of nothing": (expecting('leaves = [{ "{Y}" = "t" }]') + TREES, "{Y} stands for nothing"),
    "words of nothing": (expecting('calls = "added", added = [["--a", "{Y}"]]'), "{Y} stands for nothing"),
    "a bad regular expression": (expecting('says = ["("]'), "expect.says: '(': missing )"),
    "an exit that is a number": (expecting("exit = 0"), "expect.exit: expected `str | object`, got `int`"),
    "an exit of no meaning": (expecting('exit = "fails"'), "expect.exit: expected `str` matching"),
    "an exit of a run that is not started": (expecting('exit = { 2 = "0" }'), "expect.exit: no step starts run 2"),
    "nothing that is expected": (expecting(""), "expect: nothing is expected"),
    "exits that nothing counts": (expecting("exits = 1"), "expect.exits: no prelude"),
    "a look that is not taken": (expecting('look = [{ "a" = "t" }]') + TREES, "expect.look: there is no step 'look'"),
    "litter without a look": (expecting('litter = ["*"]'), "expect.litter and most"),
    "words that are not compared": (expecting('added = [["--a", "b"]]'), "expect.added: it needs calls"),
    "words that are no pair": (expecting('calls = "added", added = [["--a", 1]]'), "added[0][1]: expected `str`"),
    "TOML": ("root =", "Invalid value"),
}
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
        behaviour.load_scenarios(tmp_path)
    assert said in caught.value.what
    assert caught.value.where.startswith(str(tmp_path / "scenarios.toml"))


def test_braces_that_are_no_words_stay(tmp_path: Path) -> None:
    text = (
        expecting("says = ['^x{2,3}y{2} ${home}$']")
        + 'environment = { X = "${Y} {}" }\nbefore = [{ path = "{home}/e", text = "" }]\n'
    )
    (tmp_path / "scenarios.toml").write_text(text)
    (one,) = behaviour.load_scenarios(tmp_path).scenarios
    assert one.before
    assert one.before[0].text == ""
    assert fill("{a} ${a} {2} {}", {"a": "b", "2": "c"}) == "b ${a} {2} {}"


def test_a_word_in_a_regular_expression_stands_for_itself() -> None:
    found = pattern("^{a}+ {b}{2}", {"a": "{b}*", "b": "(x"})
    assert found.search("(x*(x* {b}{2}") is None
    assert found.search("(x*(x* (x(x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"scenarios\.toml: cannot be read"):
        behaviour.load_scenarios(tmp_path)


def test_each_makes_all_combinations(scenarios: Scenarios) -> None:
    names = [scenario.name for scenario in scenarios.scenarios]
    assert {f"SIG{signal} to the group at rename.2" for signal in ("TERM", "INT", "HUP")} <= set(names)
    assert {scenario.row for scenario in scenarios.scenarios} == set(range(1, 21))
