"""A recipe's scenarios: read once from TOML into frozen values, anything unknown refused."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from patcher.errors import UsageError
from patcher.model import Option
from patcher.recipe import read as read_recipe

T = TypeVar("T")

SECONDS = 30
"""Wall time of one scenario where the file names none; a whole run of a script takes a tenth of a second."""

STEP = re.compile(
    r"start [12]|wait [12] \S+( or lock)?|signal [12] (group|script) (KILL|TERM|INT|HUP)|go [12]|dead [12]|end [12]"
    r"|look|strike (group|script) (KILL|TERM|INT|HUP)"
)

EXIT = re.compile(r"-?[0-9]+|failure|reference|refused")
WORD = re.compile(r"(?<!\$)\{([A-Za-z_]\w*)\}")
"""A word in braces; ``${NAME}`` is the shell's."""

LANGUAGES = frozenset({"sh", "py"})
OF_EVERY_SCENARIO = frozenset({"home", "tree", "script"})
"""The words that each scenario has."""

_OF_WRAP = frozenset({"ok", "fail", "refuse"})
_TYPES = {str: "a string", int: "a number", bool: "true or false", list: "a list", dict: "a table"}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that lies there before: a tree (by name), a link's target or a file's text, one of the three."""

    path: str
    tree: str = ""
    link: str = ""
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """An option of the recipe, and the variables that every scenario has where it has a value other than the default;
    words in braces are the value's parts."""

    option: Option
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory that is a mount point; what ``before`` puts below it lies on the mounted file system."""

    at: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Expect:
    """What must hold after a scenario. Whatever is None or empty is not looked at.

    ``exit``: for every run, or by the run's number, a status, ``failure`` (any but 0), ``reference``, or ``refused``
    (any but 0, unless the original goes on after what ``failing`` describes: then as that).
    ``calls``: ``reference`` (every recorded call is the original's, word for word) or ``added`` (so are the tagged
    ones, with exactly the pairs of ``added`` more). ``tagged``: how many tagged calls. ``leaves``: alternatives for
    what ``root`` holds, each from an entry's path to a tree's name, or ``before`` for what it held. ``look``: the
    same at each step ``look``. ``says``: regular expressions, each of which one line of standard error matches,
    traces aside. ``quiet``: whether standard error has no line that the original's has not, traces aside. ``litter``:
    patterns of what else may lie there at a ``look``, and ``most`` how many of them.
    ``exits``: how many times the EXIT trap of a prelude ran, in each run that did not end by SIGKILL.
    ``dispositions``: whether the signals' dispositions at the calls after the tagged ones are the original's.
    """

    exit: Mapping[str, str] = field(default_factory=dict)
    calls: str = ""
    added: tuple[tuple[str, str], ...] = ()
    tagged: int | None = None
    leaves: tuple[Mapping[str, str], ...] = ()
    before: bool = False
    look: tuple[Mapping[str, str], ...] = ()
    litter: tuple[str, ...] = ()
    most: int | None = None
    quiet: bool = False
    says: tuple[str, ...] = ()
    exits: int | None = None
    dispositions: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One event and what must hold after it; the fields are those of the file (see its head)."""

    name: str
    row: int
    steps: tuple[str, ...] = ("start 1", "end 1")
    environment: Mapping[str, str | None] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    before: tuple[Entry, ...] = ()
    mounts: tuple[Mount, ...] = ()
    plan: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    preludes: tuple[str, ...] = ()
    how: str = ""
    languages: tuple[str, ...] = ()
    poison: bool = False
    define: bool = False
    needs: int = 0
    option: str = ""
    keep: tuple[str, ...] = ()
    expect: Expect = Expect()


@dataclass(frozen=True, slots=True)
class Scenarios:
    """All scenarios of a recipe and what they share.

    ``seconds`` is the wall time that one scenario may take. ``root`` is the directory whose entries are judged; what
    changes outside of it must change for the original as well. ``wrap`` maps a program's name or a Python audit event
    to the kind of point that it is. ``rows`` says in a few words what each row of the contract is about, ``options``
    which of the recipe's there are.
    """

    recipe: str
    root: str
    seconds: int
    keep: tuple[str, ...]
    words: Mapping[str, str]
    environment: Mapping[str, str]
    options: Mapping[str, Choice]
    how: Mapping[str, tuple[str, ...]]
    files: Mapping[str, str]
    programs: Mapping[str, str]
    quiet: tuple[str, ...]
    wrap: Mapping[str, str]
    preludes: Mapping[str, Mapping[str, str]]
    before: tuple[Entry, ...]
    failing: Mapping[str, tuple[str, ...]]
    tree: Mapping[str, str]
    trees: Mapping[str, Mapping[str, str]]
    rows: Mapping[int, str]
    scenarios: tuple[Scenario, ...]
    exhaustive: tuple[Scenario, ...]


class _Table:
    """A table of the file whose keys are taken one by one; what is left over is refused."""

    def __init__(self, where: str, value: object, at: str = "", scenario: str = "") -> None:
        self.where, self.at, self.scenario = where, at, scenario
        if not isinstance(value, dict):
            raise UsageError(f"{at or 'the file'} must be a table", where=where)
        self.left: dict[str, Any] = dict(value)

    def error(self, key: str, what: str) -> UsageError:
        within = f", in the scenario {self.scenario!r}" if self.scenario else ""
        return UsageError(f"{self.at}{'.' if self.at else ''}{key} {what}{within}", where=self.where)

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        value = self.left.pop(key, default)
        if value is None:
            raise self.error(key, "is missing")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"must be {_TYPES[kind]}")
        return value

    def table(self, key: str) -> _Table:
        """A table of this one."""
        return _Table(self.where, self.take(key, dict, {}), f"{self.at}{'.' if self.at else ''}{key}", self.scenario)

    def strings(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        value = self.take(key, list, list(default))
        if not all(isinstance(item, str) for item in value):
            raise self.error(key, "must be a list of strings")
        return tuple(value)

    def mapping(self, key: str) -> dict[str, str]:
        value = self.take(key, dict, {})
        if not all(isinstance(item, str) for item in value.values()):
            raise self.error(key, "must hold strings")
        return value

    def alternatives(self, key: str) -> tuple[Mapping[str, str], ...]:
        value = self.take(key, list, [])
        if not all(isinstance(item, dict) and all(isinstance(v, str) for v in item.values()) for item in value):
            raise self.error(key, "must be a list of tables of strings")
        return tuple(value)

    def tables(self, key: str) -> list[_Table]:
        value = self.take(key, list, [])
        at = f"{self.at}{'.' if self.at else ''}{key}"
        names = [str(item.get("name", "")) if isinstance(item, dict) else "" for item in value]
        return [
            _Table(self.where, item, f"{at}[{number}]", self.scenario or names[number])
            for number, item in enumerate(value)
        ]

    def done(self) -> None:
        for key in self.left:
            raise self.error(key, "is not a known key")


def _exit(table: _Table, runs: Sequence[str]) -> Mapping[str, str]:
    """What is expected of each run, where one string is meant for all."""
    value = table.left.pop("exit", {})
    exits = value if isinstance(value, dict) else dict.fromkeys(runs, value)
    for run, wanted in exits.items():
        if not isinstance(wanted, str) or not EXIT.fullmatch(wanted):
            what = 'must be a string: "0" or another status, failure, reference or refused'
            raise table.error("exit", f"{what}; or a table of these by run")
        if run not in runs:
            raise table.error("exit", f"names the run {run}, which no step starts")
    return exits


def _expect(table: _Table, runs: Sequence[str]) -> Expect:
    leaves = table.left.get("leaves")
    if before := leaves == "before":
        table.left.pop("leaves")
    added = table.take("added", list, [])
    if not all(isinstance(p, list) and len(p) == 2 and all(isinstance(word, str) for word in p) for p in added):
        raise table.error("added", "must be a list of pairs of strings")
    calls = table.take("calls", str, "")
    if calls not in {"", "reference", "added"}:
        raise table.error("calls", "must be 'reference' or 'added'")
    result = Expect(
        exit=_exit(table, runs),
        calls=calls,
        added=tuple((option, value) for option, value in added),
        tagged=table.take("tagged", int, 0) if "tagged" in table.left else None,
        leaves=table.alternatives("leaves"),
        before=before,
        look=table.alternatives("look"),
        litter=table.strings("litter"),
        most=table.take("most", int, 0) if "most" in table.left else None,
        quiet=table.take("quiet", bool, False),
        says=table.strings("says"),
        exits=table.take("exits", int, 0) if "exits" in table.left else None,
        dispositions=table.take("dispositions", bool, False),
    )
    table.done()
    return result


def _entries(table: _Table, key: str, default: tuple[Entry, ...]) -> tuple[Entry, ...]:
    if key not in table.left:
        return default
    entries = []
    for item in table.tables(key):
        path = item.take("path", str)
        given = {name: item.take(name, str) for name in ("tree", "link", "text") if name in item.left}
        if len(given) != 1:
            raise item.error("path", f"{path!r} needs one of tree, link and text")
        if "" in (given.get("tree"), given.get("link")):
            raise item.error("".join(given), "must not be empty")
        entries.append(Entry(path, **given))
        item.done()
    return tuple(entries)


def _rows(file: _Table) -> Mapping[int, str]:
    rows = file.mapping("rows")
    for row in rows:
        if not re.fullmatch("[1-9][0-9]{0,2}", row):
            raise file.error(f"rows.{row}", "must be a row's number")
    return {int(row): title for row, title in rows.items()}


def _plan(table: _Table, key: str) -> Mapping[str, tuple[str, ...]]:
    plan = {}
    for kind, value in table.take(key, dict, {}).items():
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
            raise table.error(f"{key}.{kind}", "must be a string or a list of strings")
        plan[kind] = tuple(words)
    return plan


def _scenario(table: _Table, keep: tuple[str, ...], before: tuple[Entry, ...], steps: list[str]) -> Scenario:
    mounts = []
    for item in table.tables("mounts"):
        mounts.append(Mount(item.take("at", str), item.take("read_only", bool, False)))
        item.done()
    environment: dict[str, str | None] = {}
    for name, value in table.take("environment", dict, {}).items():
        if value is not False and not isinstance(value, str):
            raise table.error(f"environment.{name}", "must be a string, or false for a variable that is not set")
        environment[name] = None if value is False else value
    order = table.strings("steps", steps)
    result = Scenario(
        name=table.take("name", str),
        row=table.take("row", int),
        steps=order,
        environment=environment,
        words=table.mapping("words"),
        before=_entries(table, "before", before),
        mounts=tuple(mounts),
        plan=_plan(table, "plan"),
        preludes=table.strings("preludes"),
        how=table.take("how", str, ""),
        languages=table.strings("languages"),
        poison=table.take("poison", bool, False),
        define=table.take("define", bool, False),
        needs=table.take("needs", int, 0),
        option=table.take("option", str, ""),
        keep=table.strings("keep") if "keep" in table.left else keep,
        expect=_expect(
            _Table(table.where, table.take("expect", dict), f"{table.at}.expect", table.scenario), _runs(order)
        ),
    )
    table.done()
    return result


def _runs(steps: Iterable[str]) -> list[str]:
    """The numbers of the runs that are started, each as often as it is."""
    return [step.split()[1] for step in steps if step.startswith("start ")]


def _each(table: _Table) -> list[_Table]:
    """One table for each combination of the values under ``each``, which stand in for ``{name}`` everywhere."""
    each = table.left.pop("each", None)
    if each is None:
        return [table]
    if not isinstance(each, dict) or not each:
        raise table.error("each", "must be a table")
    for key, values in each.items():
        if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
            raise table.error(f"each.{key}", "must be a list of strings, at least of one")
    expanded = []
    for values in itertools.product(*each.values()):
        words = dict(zip(each, values, strict=True))
        expanded.append(_Table(table.where, fill(table.left, words), table.at, fill(table.scenario, words)))
    return expanded


def fill(value: T, words: Mapping[str, str]) -> T:
    """``value`` with every ``{name}`` in its strings (and keys) replaced by that word; other braces stay."""
    if isinstance(value, str):
        # The words may name one another, so once more as long as something changes.
        for _ in range(4):
            new = WORD.sub(lambda match: words.get(match[1], match[0]), value)
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
    """A regular expression in which every ``{name}`` stands for that word as it is."""
    filled = {match[0]: re.escape(fill(match[0], words)) for match in WORD.finditer(text) if match[1] in words}
    return re.compile(WORD.sub(lambda match: f"(?:{filled[match[0]]})" if match[0] in filled else match[0], text))


def _list(file: _Table, key: str, keep: tuple[str, ...], before: tuple[Entry, ...]) -> tuple[Scenario, ...]:
    tables = [table for outer in file.tables(key) for table in _each(outer)]
    return tuple(_scenario(table, keep, before, ["start 1", "end 1"]) for table in tables)


def _order(steps: Sequence[str], strikes: int) -> str:
    """What is wrong with the order of a scenario's steps; empty where it can be gone through."""
    started: set[str] = set()
    for step in steps:
        verb, *rest = step.split()
        if verb == "start" and rest[0] in started:
            return f"{step!r} is there twice"
        if verb == "start":
            started.add(rest[0])
        elif verb not in {"look", "strike"} and rest[0] not in started:
            return f"{step!r} stands before 'start {rest[0]}'"
    if not started:
        return "no run is started"
    if sum(step.startswith("strike ") for step in steps) != strikes:
        return "one step 'strike' is needed" if strikes else "'strike' is for [[exhaustive]]"
    return ""


def _vacuous(scenarios: Scenarios, scenario: Scenario) -> tuple[str, str] | None:
    """A key of a scenario that would do nothing or hold whatever happens, and why."""
    expect = scenario.expect
    if left := set(scenario.languages) - LANGUAGES:
        return "languages", f"{min(left)!r} is neither 'sh' nor 'py'"
    if scenarios.rows and scenario.row not in scenarios.rows:
        return "row", f"{scenario.row} is not in [rows]"
    if expect.exits is not None and not scenario.preludes:
        return "expect.exits", "without a prelude nothing counts it"
    if expect.look and "look" not in scenario.steps:
        return "expect.look", "there is no step 'look'"
    if (expect.litter or expect.most is not None) and not expect.look:
        return "expect.litter and most", "without expect.look nothing is looked at"
    if expect.added and expect.calls != "added":
        return "expect.added", "it needs calls = 'added'"
    return None


def _unplanned(scenarios: Scenarios, plan: Mapping[str, Iterable[str]]) -> str:
    """What is wrong with a plan: a kind that no program asks for, or a word that a program of ``wrap`` does not know.

    What the recipe's own programs make of a word is their affair."""
    for key, words in plan.items():
        kind = re.sub(r"^[12]\.", "", key)
        own = any(re.search(rf"(?<![\w-]){re.escape(kind)}(?![\w-])", text) for text in scenarios.programs.values())
        if not own and kind not in scenarios.wrap.values():
            return f"no program asks for {kind!r}"
        if not own and (left := set(words) - _OF_WRAP):
            return f"{min(left)!r} is none of {', '.join(sorted(_OF_WRAP))}"
    return ""


def _unknown(texts: Iterable[str], known: Iterable[str]) -> str:
    """The first word in braces that stands for nothing."""
    return next((m[0] for text in texts for m in WORD.finditer(text) if m[1] not in known), "")


def _texts(scenario: Scenario) -> Mapping[str, Iterable[str]]:
    """The strings of a scenario in which words are filled in, by key."""
    expect = scenario.expect
    return {
        "environment": [*scenario.environment, *(value for value in scenario.environment.values() if value)],
        "words": scenario.words.values(),
        "before": [text for entry in scenario.before for text in (entry.path, entry.link)],
        "mounts": [mount.at for mount in scenario.mounts],
        "keep": scenario.keep,
        "expect.added": [value for _, value in expect.added],
        "expect.leaves": [path for table in expect.leaves for path in table],
        "expect.look": [path for table in expect.look for path in table],
        "expect.litter": expect.litter,
        "expect.says": expect.says,
    }


def _check(where: str, scenarios: Scenarios, read: Sequence[Scenario], strikes: int) -> None:
    names = [scenario.name for scenario in read]
    for scenario in read:
        at = f"scenario {scenario.name!r}"
        if names.count(scenario.name) > 1:
            raise UsageError(f"{at} is there twice", where=where)
        for step in scenario.steps:
            if not STEP.fullmatch(step):
                raise UsageError(f"{at}: steps: {step!r} is not a step", where=where)
        if what := _order(scenario.steps, strikes):
            raise UsageError(f"{at}: steps: {what}", where=where)
        trees = {entry.tree for entry in scenario.before if entry.tree}
        for table in (*scenario.expect.leaves, *scenario.expect.look):
            trees |= set(table.values())
        for kind, used, known in (
            ("trees", trees, scenarios.trees),
            ("preludes", set(scenario.preludes), scenarios.preludes),
            ("how", {scenario.how} - {""}, scenarios.how),
            ("option", {scenario.option} - {""}, scenarios.options),
        ):
            for name in sorted(used - set(known)):
                raise UsageError(f"{at}: {kind}: nothing is called {name!r}", where=where)
        if found := _vacuous(scenarios, scenario):
            raise UsageError(f"{at}: {found[0]}: {found[1]}", where=where)
        if what := _unplanned(scenarios, scenario.plan):
            raise UsageError(f"{at}: plan: {what}", where=where)
        words = {*OF_EVERY_SCENARIO, *scenarios.words, *scenario.words}
        if scenario.option:
            words |= {part.lower() for part in scenarios.options[scenario.option].option.parts}
        # Words are not filled in there, but for those of `each`, which are gone by now.
        plain = {
            "name": [scenario.name],
            "steps": scenario.steps,
            "plan": [w for p in scenario.plan.values() for w in p],
        }
        for key, texts in _texts(scenario).items():
            if word := _unknown(texts, words):
                raise UsageError(f"{at}: {key}: {word} stands for nothing", where=where)
        for key, texts in plain.items():
            if word := _unknown(texts, ()):
                raise UsageError(f"{at}: {key}: {word} stands for nothing", where=where)
        for text in scenario.expect.says:
            try:
                pattern(text, dict.fromkeys(words, ""))
            except re.error as error:
                raise UsageError(f"{at}: expect.says: {text!r}: {error}", where=where) from None


def _check_shared(file: _Table, scenarios: Scenarios) -> None:
    """What the scenarios share fits together."""
    known = {*OF_EVERY_SCENARIO, *scenarios.words}
    if not scenarios.how or not all(scenarios.how.values()):
        raise file.error("how", "must hold at least one way to run the script")
    for path, how in scenarios.files.items():
        if how not in scenarios.how:
            raise file.error(f"files.{path}", f"names {how!r}, which is not in [how]")
    for name, sources in scenarios.preludes.items():
        if not sources or set(sources) - LANGUAGES:
            raise file.error(f"preludes.{name}", "must hold sh or py")
    for name, files in scenarios.trees.items():
        if not re.fullmatch("[0-7]{3,4}", files.get(".", "755")):
            raise file.error(f"trees.{name}", "must hold a mode like 755 as '.'")
    if scenarios.seconds < 1:
        raise file.error("seconds", "must be at least 1")
    if what := _unplanned(scenarios, scenarios.failing):
        raise file.error("failing", f"fits nothing: {what}")
    for word in sorted(OF_EVERY_SCENARIO & scenarios.words.keys()):
        raise file.error(f"words.{word}", "is there already")
    filled: dict[str, Iterable[str]] = {
        "root": [scenarios.root],
        "keep": scenarios.keep,
        "words": scenarios.words.values(),
        "environment": scenarios.environment.values(),
        "how": [word for words in scenarios.how.values() for word in words],
        "before": [text for entry in scenarios.before for text in (entry.path, entry.link)],
    }
    for key, texts in filled.items():
        if word := _unknown(texts, known):
            raise file.error(key, f"has {word}, which stands for nothing")
    for name, choice in scenarios.options.items():
        parts = {part.lower() for part in choice.option.parts}
        for word in sorted(parts & known):
            raise file.error(f"options.{name}", f"has a part that is called as the word {word!r}")
        if word := _unknown([*choice.environment, *choice.environment.values()], parts | known):
            raise file.error(f"options.{name}.environment", f"has {word}, which stands for nothing")


def _options(file: _Table, folder: Path) -> dict[str, Choice]:
    """The options that scenarios name, each with what the recipe says of it."""
    table = file.table("options")
    names = list(table.left)
    if not names:
        return {}
    known = read_recipe(folder).options
    found = {}
    for name in names:
        if name not in known:
            raise table.error(name, f"is no option of the recipe, which has: {', '.join(known) or 'none'}")
        one = table.table(name)
        found[name] = Choice(known[name], one.mapping("environment"))
        one.done()
    return found


def load(folder: Path, recipe: str) -> Scenarios:
    """The scenarios of the recipe in ``folder``.

    Raises UsageError, with the file and the key, where the file is missing or holds something unknown.
    """
    path = folder / "scenarios.toml"
    where = str(path)
    try:
        file = _Table(where, tomllib.loads(path.read_text(encoding="utf8")))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=where) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(str(error), where=where) from error
    keep = file.strings("keep")
    before = _entries(file, "before", ())
    programs = {}
    for name, source in file.mapping("programs").items():
        try:
            programs[name] = (folder / source).read_text(encoding="utf8")
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"programs.{name}: {source}: {what}", where=where) from error
    preludes, trees, how = file.table("preludes"), file.table("trees"), file.table("how")
    result = Scenarios(
        recipe=recipe,
        root=file.take("root", str),
        seconds=file.take("seconds", int, SECONDS),
        keep=keep,
        words=file.mapping("words"),
        environment=file.mapping("environment"),
        options=_options(file, folder),
        how={name: how.strings(name) for name in list(how.left)},
        files=file.mapping("files"),
        programs=programs,
        quiet=file.strings("quiet"),
        wrap=file.mapping("wrap"),
        preludes={name: preludes.mapping(name) for name in list(preludes.left)},
        before=before,
        failing=_plan(file, "failing"),
        tree=file.mapping("tree"),
        trees={name: trees.mapping(name) for name in list(trees.left)},
        rows=_rows(file),
        scenarios=_list(file, "scenario", keep, before),
        exhaustive=_list(file, "exhaustive", keep, before),
    )
    file.done()
    _check_shared(file, result)
    _check(where, result, result.scenarios, 0)
    _check(where, result, result.exhaustive, 1)
    return result
