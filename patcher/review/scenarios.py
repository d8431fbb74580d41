"""A recipe's scenarios: scenarios.toml as typed values, checked for what could never run or never fail."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from patcher import data
from patcher.errors import UsageError
from patcher.model import Option
from patcher.recipe import read as read_recipe

T = TypeVar("T")
Language = Literal["shell", "python"]

OF_EVERY_SCENARIO = frozenset({"home", "tree", "script"})
"""The words in braces that each scenario has."""

_STEP = (
    r"^((start|go|dead|end) [12]|wait [12] [^\s{}]+( or lock)?|look"
    r"|(signal [12]|strike) (group|script) (KILL|TERM|INT|HUP))$"
)
Step = Annotated[str, msgspec.Meta(pattern=_STEP)]
Status = Annotated[str, msgspec.Meta(pattern="^(-?[0-9]+|failure|reference|refused)$")]
_WORD = re.compile(r"(?<!\$)\{([A-Za-z_]\w*)\}")  # ${NAME} is the shell's
_OF_WRAP = frozenset({"ok", "fail", "refuse"})


class Entry(data.Table, frozen=True):
    """Something that lies there before: a tree (by name), a link's target or a file's text."""

    path: str
    tree: str = ""
    link: str = ""
    text: str | None = None


class Mount(data.Table, frozen=True):
    """A directory that is a mount point; what ``before`` puts below it lies on the mounted file system."""

    at: str
    read_only: bool = False


class Expect(data.Table, frozen=True):
    """What must hold after a scenario. A key that is not given is not checked. docs/recipes.md describes each key."""

    exit: Mapping[str, Status] | Status = ""
    calls: Literal["", "reference", "added"] = ""
    added: tuple[tuple[str, str], ...] = ()
    tagged: int | None = None
    leaves: tuple[Mapping[str, str], ...] | Literal["before"] = ()
    look: tuple[Mapping[str, str], ...] = ()
    litter: tuple[str, ...] = ()
    most: int | None = None
    quiet: bool = False
    says: tuple[str, ...] = ()
    exits: int | None = None
    dispositions: bool = False

    def status(self, run: str) -> str:
        """What is expected of a run's exit status; empty if nothing is."""
        return self.exit if isinstance(self.exit, str) else self.exit.get(run, "")


class Scenario(data.Table, frozen=True, kw_only=True):
    """One event and what must hold after it. docs/recipes.md describes each key."""

    name: str
    row: int
    steps: tuple[Step, ...] = ("start 1", "end 1")
    environment: Mapping[str, str | Literal[False]] = {}
    words: Mapping[str, str] = {}
    before: tuple[Entry, ...] | None = None
    mounts: tuple[Mount, ...] = ()
    plan: Mapping[str, str | tuple[str, ...]] = {}
    preludes: tuple[str, ...] = ()
    how: str = ""
    languages: tuple[Language, ...] = ("shell", "python")
    poison: bool = False
    define: bool = False
    needs: int = 0
    option: str = ""
    keep: tuple[str, ...] | None = None
    expect: Expect

    def runs(self) -> list[str]:
        """The numbers of the runs, in the order in which they start."""
        return [step.split()[1] for step in self.steps if step.startswith("start ")]


class Scenarios(data.Table, frozen=True, kw_only=True):
    """All scenarios of a recipe and what they share. docs/recipes.md describes each key.

    Of ``programs``, ``later`` and ``each``, this has what they stand for: the files' texts, and a scenario for each
    combination. ``chosen`` are the recipe's options that have variables of their own here.
    """

    root: str
    how: Mapping[str, tuple[str, ...]]
    seconds: int = 30
    keep: tuple[str, ...] = ()
    words: Mapping[str, str] = {}
    environment: Mapping[str, str] = {}
    options: Mapping[str, Mapping[Literal["environment"], dict[str, str]]] = {}
    files: Mapping[str, str] = {}
    programs: Mapping[str, str] = {}
    later: Mapping[Language, str] = {}
    unreachable: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    wrap: Mapping[str, str] = {}
    preludes: Mapping[str, Mapping[Language, str]] = {}
    before: tuple[Entry, ...] = ()
    tree: Mapping[str, str] = {}
    trees: Mapping[str, Mapping[str, str]] = {}
    rows: Mapping[int, str] = {}
    scenarios: tuple[Scenario, ...] = ()
    exhaustive: tuple[Scenario, ...] = ()
    recipe: str = ""
    chosen: Mapping[str, Option] = {}


def fill(value: T, words: Mapping[str, str]) -> T:
    """``value`` with every ``{name}`` in its strings and keys replaced by that word; other braces stay."""
    if isinstance(value, str):
        # The words may name one another, so once more as long as something changes.
        for _ in range(4):
            new = _WORD.sub(lambda match: words.get(match[1], match[0]), value)
            if new == value:
                break
            value = new  # type: ignore[assignment]
        return value
    if isinstance(value, Mapping):
        return {fill(key, words): fill(item, words) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return type(value)(fill(item, words) for item in value)
    return value


def pattern(text: str, words: Mapping[str, str]) -> re.Pattern[str]:
    """A regular expression in which every ``{name}`` stands for that word literally."""
    return re.compile(_WORD.sub(lambda match: f"(?:{re.escape(fill(match[0], words))})", text))


def load(folder: Path, recipe: str) -> Scenarios:
    """The scenarios of the recipe in ``folder``.

    Raises UsageError, with the file and the key, where the file is missing, has an unknown key or makes no sense.
    """
    path = folder / "scenarios.toml"
    where = str(path)
    table = data.read(path)
    lists = {key: table.pop(key, []) for key in ("scenario", "exhaustive")}
    for key in {"scenarios", "recipe", "chosen"} & table.keys():
        raise UsageError(f"{key}: unknown key", where=where)
    # TOML's keys are strings.
    table["rows"] = {int(row) if row.isdecimal() else row: title for row, title in table.get("rows", {}).items()}
    shared = data.convert(table, Scenarios, where=where)
    read = {key: tuple(_scenarios(value, shared, f"{where}: {key}")) for key, value in lists.items()}
    result = msgspec.structs.replace(
        shared,
        recipe=recipe,
        programs={name: _text(folder, source, where) for name, source in shared.programs.items()},
        later={language: _text(folder, source, where) for language, source in shared.later.items()},
        chosen=_options(folder, shared, where),
        scenarios=read["scenario"],
        exhaustive=read["exhaustive"],
    )
    if what := _shared_problem(result):
        raise UsageError(what, where=where)
    names = [one.name for one in (*result.scenarios, *result.exhaustive)]
    for one in (*result.scenarios, *result.exhaustive):
        what = f"the name {one.name!r} is used twice" if names.count(one.name) > 1 else ""
        if what := what or _problem(result, one, strikes=int(one in result.exhaustive)):
            raise UsageError(what, where=f"{where}: scenario {one.name!r}")
    return result


def _scenarios(value: object, shared: Scenarios, where: str) -> Iterable[Scenario]:
    """The scenarios of a list of tables, each combination of the values under ``each`` as one of its own."""
    for number, table in enumerate(data.convert(value, list[dict[str, Any]], where=where)):
        at = f"{where}[{number}]"
        each = data.convert(table.pop("each", {}), dict[str, list[str]], where=f"{at}.each")
        for values in itertools.product(*each.values()):
            filled = fill(table, dict(zip(each, values, strict=True)))
            one = data.convert(filled, Scenario, where=f"{at} {filled.get('name', '')!r}")
            yield msgspec.structs.replace(
                one,
                before=shared.before if one.before is None else one.before,
                keep=shared.keep if one.keep is None else one.keep,
            )
        if not all(each.values()):
            raise UsageError("each: an empty list makes no scenario", where=at)


def _text(folder: Path, source: str, where: str) -> str:
    try:
        return (folder / source).read_text(encoding="utf8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{source}: {getattr(error, 'strerror', None) or error}", where=where) from None


def _options(folder: Path, shared: Scenarios, where: str) -> dict[str, Option]:
    """The recipe's options that the scenarios have variables for."""
    known = read_recipe(folder).options if shared.options else {}
    for name in shared.options.keys() - known.keys():
        raise UsageError(f"options.{name}: no option of the recipe, which has: {', '.join(known)}", where=where)
    return {name: known[name] for name in shared.options}


def _strings(value: object) -> Iterator[str]:
    """All strings in a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, msgspec.Struct):
        yield from _strings(msgspec.structs.asdict(value))


def _unknown(values: Mapping[str, object], known: Iterable[str]) -> str:
    """The first word in braces that stands for nothing, with its key."""
    for key, value in values.items():
        for text in _strings(value):
            for match in _WORD.finditer(text):
                if match[1] not in known:
                    return f"{key}: {match[0]} stands for nothing"
    return ""


def _parts(option: Option) -> set[str]:
    return {part.lower() for part in option.parts}


def _shared_problem(shared: Scenarios) -> str:
    """What is wrong with the part that the scenarios share; empty if nothing is."""
    known = {*OF_EVERY_SCENARIO, *shared.words}
    if not shared.how or not all(shared.how.values()):
        return "how: needs at least one way to run the script"
    for path, how in shared.files.items():
        if how not in shared.how:
            return f"files.{path}: {how!r} is not in [how]"
    for word in OF_EVERY_SCENARIO & shared.words.keys():
        return f"words.{word}: every scenario has this word already"
    for name, option in shared.chosen.items():
        if what := _unknown({f"options.{name}": shared.options[name]}, known | _parts(option)):
            return what
    filled = {key: getattr(shared, key) for key in ("root", "keep", "words", "environment", "how", "before")}
    return _unknown(filled, known)


def _steps_problem(steps: Sequence[str], strikes: int) -> str:
    """Why the steps cannot be gone through; empty if they can."""
    started: list[str] = []
    for step in steps:
        verb, *rest = step.split()
        if verb == "start":
            started.append(rest[0])
        elif verb not in {"look", "strike"} and rest[0] not in started:
            return f"steps: {step!r} stands before 'start {rest[0]}'"
    if len(set(started)) != len(started) or not started:
        return "steps: each run starts once, and one at least"
    if sum(step.startswith("strike ") for step in steps) != strikes:
        return "steps: one step 'strike' is needed" if strikes else "steps: 'strike' is for [[exhaustive]]"
    return ""


def _plan_problem(shared: Scenarios, scenario: Scenario) -> str:
    """A kind in ``plan`` that no program asks for, or a word that the wrapped programs do not know."""
    for key, words in scenario.plan.items():
        kind = key[2:] if key.startswith(("1.", "2.")) else key
        if any(re.search(rf"(?<![\w-]){re.escape(kind)}(?![\w-])", text) for text in shared.programs.values()):
            continue  # the recipe's own programs know what to make of the word
        if kind not in shared.wrap.values():
            return f"plan: no program asks for {kind!r}"
        if left := set(_strings(words)) - _OF_WRAP:
            return f"plan.{kind}: {min(left)!r} is none of {', '.join(sorted(_OF_WRAP))}"
    return ""


def _expect_problem(scenario: Scenario) -> str:
    """An expectation that would hold whatever happens; empty if there is none."""
    expect, runs = scenario.expect, scenario.runs()
    unknown = [] if isinstance(expect.exit, str) else [run for run in expect.exit if run not in runs]
    vacuous = {
        f"expect.exit: no step starts run {', '.join(unknown)}": bool(unknown),
        "expect: nothing is expected": expect == Expect(),
        "expect.exits: no prelude counts them": expect.exits is not None and not scenario.preludes,
        "expect.look: there is no step 'look'": bool(expect.look) and "look" not in scenario.steps,
        "expect.litter and most: they need expect.look": bool(expect.litter or expect.most) and not expect.look,
        "expect.added: it needs calls = 'added'": bool(expect.added) and expect.calls != "added",
    }
    return next((what for what, found in vacuous.items() if found), "")


def _problem(shared: Scenarios, scenario: Scenario, strikes: int) -> str:
    """What is wrong with a scenario; empty if nothing is."""
    expect, before = scenario.expect, scenario.before or ()
    for entry in before:
        if bool(entry.tree) + bool(entry.link) + (entry.text is not None) != 1:
            return f"before: {entry.path!r} needs one of tree, link and text"
    tables = [*(one for one in expect.leaves if isinstance(one, Mapping)), *expect.look]
    trees = {entry.tree for entry in before} | {tree for table in tables for tree in table.values()}
    for key, used, names in (
        ("trees", trees, shared.trees),
        ("preludes", set(scenario.preludes), shared.preludes),
        ("how", {scenario.how}, shared.how),
        ("option", {scenario.option}, shared.chosen),
    ):
        for name in sorted(used - {"", *names}):
            return f"{key}: nothing is called {name!r}"
    if shared.rows and scenario.row not in shared.rows:
        return f"row: {scenario.row} is not in [rows]"
    words = {*OF_EVERY_SCENARIO, *shared.words, *scenario.words}
    if scenario.option:
        words |= _parts(shared.chosen[scenario.option])
    for text in expect.says:
        try:
            pattern(text, {})
        except re.error as error:
            return f"expect.says: {text!r}: {error}"
    checks = (
        _steps_problem(scenario.steps, strikes),
        _unknown(msgspec.structs.asdict(scenario), words),
        _plan_problem(shared, scenario),
        _expect_problem(scenario),
    )
    return next(filter(None, checks), "")
