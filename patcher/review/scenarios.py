"""A recipe's scenarios: scenarios.toml as typed values, checked for what could never run or never fail."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from patcher import data
from patcher.errors import UsageError
from patcher.model import Option
from patcher.recipe import read as read_recipe

T = TypeVar("T")
Language = Literal["shell", "python"]

_STEP = (
    r"^((start|go|dead|end) [12]|wait [12] [^\s{}]+( or lock)?|look"
    r"|(signal [12]|strike) (group|script) (KILL|TERM|INT|HUP))$"
)
Step = Annotated[str, msgspec.Meta(pattern=_STEP)]
Status = Annotated[str, msgspec.Meta(pattern="^(-?[0-9]+|failure|reference|refused)$")]
Words = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
_WORD = re.compile(r"(?<!\$)\{([A-Za-z_]\w*)\}")  # ${NAME} is the shell's
_OF_EVERY_SCENARIO = ("home", "tree", "script")
_OF_WRAP = frozenset({"ok", "fail", "refuse"})


class Text(str):
    """The text of a file, which is read where scenarios.toml has the file's name."""

    __slots__ = ()


class Entry(data.Table, frozen=True):
    """Something that lies there before: a tree (by name), a link's target or a file's text."""

    path: str
    tree: str = ""
    link: str = ""
    text: str | None = None

    def __post_init__(self) -> None:
        if bool(self.tree) + bool(self.link) + (self.text is not None) != 1:
            raise ValueError(f"{self.path!r} needs one of tree, link and text")


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
    before: tuple[Entry, ...] = ()
    mounts: tuple[Mount, ...] = ()
    plan: Mapping[str, str | tuple[str, ...]] = {}
    preludes: tuple[str, ...] = ()
    how: str = ""
    languages: tuple[Language, ...] = ("shell", "python")
    poison: bool = False
    define: bool = False
    needs: int = 0
    option: str = ""
    keep: tuple[str, ...] = ()
    expect: Expect

    def runs(self) -> list[str]:
        """The numbers of the runs, in the order in which they start."""
        return [step.split()[1] for step in self.steps if step.startswith("start ")]


class Scenarios(data.Table, frozen=True, kw_only=True):
    """All scenarios of a recipe and what they share. docs/recipes.md describes each key.

    ``scenarios`` and ``exhaustive`` have one scenario for each combination of an ``each``. ``chosen`` are the recipe's
    options that have variables of their own here.
    """

    root: str
    how: Annotated[Mapping[str, Words], msgspec.Meta(min_length=1)]
    seconds: int = 30
    keep: tuple[str, ...] = ()
    words: Mapping[str, str] = {}
    environment: Mapping[str, str] = {}
    options: Mapping[str, Mapping[Literal["environment"], dict[str, str]]] = {}
    files: Mapping[str, str] = {}
    programs: Mapping[str, Text] = {}
    later: Mapping[Language, Text] = {}
    unreachable: tuple[str, ...] = ()
    quiet: tuple[str, ...] = ()
    wrap: Mapping[str, str] = {}
    preludes: Mapping[str, Mapping[Language, str]] = {}
    before: tuple[Entry, ...] = ()
    tree: Mapping[str, str] = {}
    trees: Mapping[str, Mapping[str, str]] = {}
    rows: Mapping[int, str] = {}
    scenarios: tuple[Scenario, ...] = msgspec.field(default=(), name="scenario")
    exhaustive: tuple[Scenario, ...] = ()
    chosen: Mapping[str, Option] = {}


def fill(value: T, words: Mapping[str, str]) -> T:
    """``value`` with every ``{name}`` in its strings and keys replaced by that word; other braces stay."""
    if isinstance(value, str):
        for _ in range(4):  # the words may name one another
            value = _WORD.sub(lambda match: words.get(match[1], match[0]), value)  # type: ignore[assignment]
        return value
    if isinstance(value, Mapping):
        return {fill(key, words): fill(item, words) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return type(value)(fill(item, words) for item in value)
    return value


def pattern(text: str, words: Mapping[str, str]) -> re.Pattern[str]:
    """A regular expression in which every ``{name}`` stands for that word literally."""
    return re.compile(_WORD.sub(lambda match: f"(?:{re.escape(fill(match[0], words))})", text))


def load(folder: Path) -> Scenarios:
    """The scenarios of the recipe in ``folder``.

    Raises UsageError, with the file and the key, where the file is missing, has an unknown key or makes no sense.
    """

    def decode(_: Any, name: Any) -> Any:
        try:
            return Text((folder / name).read_text(encoding="utf8"))
        except OSError as error:
            raise ValueError(f"{name}: {error.strerror}") from None

    where = str(folder / "scenarios.toml")
    table = data.read(Path(where))
    lists = {key: table.pop(key, []) for key in ("scenario", "exhaustive")}
    shared = data.convert(table, Scenarios, where=where, decode=decode)
    known = read_recipe(folder).options if shared.options else {}
    for name in shared.options.keys() - known.keys():
        raise UsageError(f"options.{name}: no option of the recipe, which has: {', '.join(known)}", where=where)
    shared = msgspec.structs.replace(shared, chosen={name: known[name] for name in shared.options})
    for what in _shared_problems(shared):
        raise UsageError(what, where=where)
    usual = {key: table.get(key, []) for key in ("before", "keep")}
    read = {key: list(_scenarios(value, usual, f"{where}: {key}")) for key, value in lists.items()}
    names = [one.name for one in (*read["scenario"], *read["exhaustive"])]
    for key, scenarios in read.items():
        for one in scenarios:
            for what in _problems(shared, one, names, strikes=int(key == "exhaustive")):
                raise UsageError(what, where=f"{where}: scenario {one.name!r}")
    return msgspec.structs.replace(shared, scenarios=tuple(read["scenario"]), exhaustive=tuple(read["exhaustive"]))


def _scenarios(value: object, usual: Mapping[Any, Any], where: str) -> Iterator[Scenario]:
    """The scenarios of a list of tables, each combination of the values under ``each`` as one of its own."""
    for number, table in enumerate(data.convert(value, list[dict[str, Any]], where=where)):
        at = f"{where}[{number}]"
        each = data.convert(table.pop("each", {}), dict[str, Words], where=f"{at}.each")
        for values in itertools.product(*each.values()):
            filled = {**usual, **fill(table, dict(zip(each, values, strict=True)))}
            yield data.convert(filled, Scenario, where=f"{at} {filled.get('name', '')!r}")


def _unknown(values: Mapping[str, object], known: Iterable[str]) -> Iterator[str]:
    """The words in braces that stand for nothing, each with its key."""
    for key, value in values.items():
        for match in _WORD.finditer(msgspec.json.encode(value).decode()):
            if match[1] not in known:
                yield f"{key}: {match[0]} stands for nothing"


def _parts(option: Option) -> set[str]:
    return {part.lower() for part in option.parts}


def _shared_problems(shared: Scenarios) -> Iterator[str]:
    """What is wrong with the part that the scenarios share."""
    known = {*_OF_EVERY_SCENARIO, *shared.words}
    for name, option in shared.chosen.items():
        yield from _unknown({f"options.{name}": shared.options[name]}, known | _parts(option))
    filled = {key: getattr(shared, key) for key in ("root", "keep", "words", "environment", "how", "before")}
    yield from _unknown(filled, known)


def _problems(shared: Scenarios, scenario: Scenario, names: list[str], strikes: int) -> Iterator[str]:
    """What is wrong with a scenario: ``names`` are those of all, ``strikes`` is how many steps ``strike`` it has."""
    if names.count(scenario.name) > 1:
        yield f"the name {scenario.name!r} is used twice"
    expect = scenario.expect
    tables = [*(one for one in expect.leaves if isinstance(one, Mapping)), *expect.look]
    trees = {entry.tree for entry in scenario.before} | {tree for table in tables for tree in table.values()}
    for key, used, known in (
        ("trees", trees, shared.trees),
        ("preludes", set(scenario.preludes), shared.preludes),
        ("how", {scenario.how, *shared.files.values()}, shared.how),
        ("option", {scenario.option}, shared.chosen),
    ):
        for name in sorted(used - {"", *known}):
            yield f"{key}: nothing is called {name!r}"
    if shared.rows and scenario.row not in shared.rows:
        yield f"row: {scenario.row} is not in [rows]"
    yield from _steps_problems(scenario, strikes)
    words = {*_OF_EVERY_SCENARIO, *shared.words, *scenario.words}
    of_option = _parts(shared.chosen[scenario.option]) if scenario.option else set()
    yield from _unknown(msgspec.structs.asdict(scenario), words | of_option)
    yield from _plan_problems(shared, scenario)
    yield from _expect_problems(scenario)


def _steps_problems(scenario: Scenario, strikes: int) -> Iterator[str]:
    """Why the steps cannot be gone through."""
    started: list[str] = []
    for step in scenario.steps:
        verb, *rest = step.split()
        if verb == "start":
            started.append(rest[0])
        elif verb not in {"look", "strike"} and rest[0] not in started:
            yield f"steps: {step!r} stands before 'start {rest[0]}'"
    if len(set(started)) != len(started) or not started:
        yield "steps: each run starts once, and one at least"
    if sum(step.startswith("strike ") for step in scenario.steps) != strikes:
        yield "steps: one step 'strike' is needed" if strikes else "steps: 'strike' is for [[exhaustive]]"


def _plan_problems(shared: Scenarios, scenario: Scenario) -> Iterator[str]:
    """Kinds in ``plan`` that no program asks for, and words that the wrapped programs do not know."""
    for key, words in scenario.plan.items():
        kind = key.removeprefix("1.").removeprefix("2.")
        if any(re.search(rf"(?<![\w-]){re.escape(kind)}(?![\w-])", text) for text in shared.programs.values()):
            continue  # the recipe's own programs know what to make of the word
        if kind not in shared.wrap.values():
            yield f"plan: no program asks for {kind!r}"
        for word in {words} if isinstance(words, str) else set(words):
            if word not in _OF_WRAP:
                yield f"plan.{kind}: {word!r} is none of {', '.join(sorted(_OF_WRAP))}"


def _expect_problems(scenario: Scenario) -> Iterator[str]:
    """Expectations that would hold whatever happens, or never."""
    expect = scenario.expect
    if expect == Expect():
        yield "expect: nothing is expected"
    for run in () if isinstance(expect.exit, str) else set(expect.exit).difference(scenario.runs()):
        yield f"expect.exit: no step starts run {run}"
    if expect.exits is not None and not scenario.preludes:
        yield "expect.exits: no prelude counts them"
    if expect.look and "look" not in scenario.steps:
        yield "expect.look: there is no step 'look'"
    if (expect.litter or expect.most) and not expect.look:
        yield "expect.litter and most: they need expect.look"
    if expect.added and expect.calls != "added":
        yield "expect.added: it needs calls = 'added'"
    for text in expect.says:
        try:
            pattern(text, {})
        except re.error as error:
            yield f"expect.says: {text!r}: {error}"
