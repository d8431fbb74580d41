"""A recipe's scenarios: read once from TOML into frozen values, anything unknown refused."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from patcher.errors import UsageError

T = TypeVar("T")

SECONDS = 30
"""Wall time of one scenario where the file names none; a whole run of a script takes a tenth of a second."""

STEP = re.compile(
    r"start [12]|wait [12] \S+( or lock)?|signal [12] (group|script) (KILL|TERM|INT|HUP)|go [12]|dead [12]|end [12]"
    r"|look|strike (group|script) (KILL|TERM|INT|HUP)"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that lies there before: a tree (by name), a link's target or a file's text."""

    path: str
    tree: str = ""
    link: str = ""
    text: str = ""


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
    to the kind of point that it is. ``rows`` says in a few words what each row of the contract is about.
    """

    recipe: str
    root: str
    seconds: int
    keep: tuple[str, ...]
    words: Mapping[str, str]
    environment: Mapping[str, str]
    options: tuple[str, ...]
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

    def __init__(self, where: str, value: object, at: str = "") -> None:
        self.where, self.at = where, at
        if not isinstance(value, dict):
            raise UsageError(f"{at or 'the file'} must be a table", where=where)
        self.left: dict[str, Any] = dict(value)

    def error(self, key: str, what: str) -> UsageError:
        return UsageError(f"{self.at}{'.' if self.at else ''}{key} {what}", where=self.where)

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        value = self.left.pop(key, default)
        if value is None:
            raise self.error(key, "is missing")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"must be of type {kind.__name__}")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        value = self.take(key, list, [])
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
        return [_Table(self.where, item, f"{at}[{number}]") for number, item in enumerate(value)]

    def done(self) -> None:
        for key in self.left:
            raise self.error(key, "is not a known key")


def _expect(table: _Table) -> Expect:
    exits = table.left.pop("exit", {})
    leaves = table.left.get("leaves")
    if before := leaves == "before":
        table.left.pop("leaves")
    added = table.take("added", list, [])
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in added):
        raise table.error("added", "must be a list of pairs")
    calls = table.take("calls", str, "")
    if calls not in {"", "reference", "added"}:
        raise table.error("calls", "must be 'reference' or 'added'")
    result = Expect(
        exit={"1": exits, "2": exits} if isinstance(exits, str) else _Table(table.where, exits, "exit").left,
        calls=calls,
        added=tuple((str(option), str(value)) for option, value in added),
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
        words = (item.take(name, str, "") for name in ("tree", "link", "text"))
        entries.append(Entry(item.take("path", str), *words))
        item.done()
    return tuple(entries)


def _rows(file: _Table) -> Mapping[int, str]:
    rows = file.mapping("rows")
    for row in rows:
        if not re.fullmatch("[1-9][0-9]{0,2}", row):
            raise file.error(f"rows.{row}", "must be a row's number")
    return {int(row): title for row, title in rows.items()}


def _plan(table: _Table, key: str) -> Mapping[str, tuple[str, ...]]:
    plan = table.take(key, dict, {})
    return {kind: tuple(words) if isinstance(words, list) else (str(words),) for kind, words in plan.items()}


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
    result = Scenario(
        name=table.take("name", str),
        row=table.take("row", int),
        steps=tuple(table.take("steps", list, steps)),
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
        expect=_expect(_Table(table.where, table.take("expect", dict), f"{table.at}.expect")),
    )
    table.done()
    return result


def _each(table: _Table) -> list[_Table]:
    """One table for each combination of the values under ``each``, which stand in for ``{name}`` everywhere."""
    each = table.left.pop("each", None)
    if each is None:
        return [table]
    expanded = []
    for values in itertools.product(*each.values()):
        words = dict(zip(each, values, strict=True))
        expanded.append(_Table(table.where, fill(table.left, words), table.at))
    return expanded


def fill(value: T, words: Mapping[str, str]) -> T:
    """``value`` with every ``{name}`` in its strings (and keys) replaced by that word; other braces stay."""
    if isinstance(value, str):
        # The words may name one another, so once more as long as something changes.
        for _ in range(4):
            new = re.sub(r"\{(\w+)\}", lambda match: words.get(match[1], match[0]), value)
            if new == value:
                break
            value = new  # type: ignore[assignment]
        return value
    if isinstance(value, Mapping):
        return {fill(key, words): fill(item, words) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return type(value)(fill(item, words) for item in value)
    return value


def _list(file: _Table, key: str, keep: tuple[str, ...], before: tuple[Entry, ...]) -> tuple[Scenario, ...]:
    tables = [table for outer in file.tables(key) for table in _each(outer)]
    return tuple(_scenario(table, keep, before, ["start 1", "end 1"]) for table in tables)


def _check(where: str, scenarios: Scenarios, read: Sequence[Scenario]) -> None:
    names = [scenario.name for scenario in read]
    for scenario in read:
        at = f"scenario {scenario.name!r}"
        if names.count(scenario.name) > 1:
            raise UsageError(f"{at} is there twice", where=where)
        for step in scenario.steps:
            if not STEP.fullmatch(step) and "{" not in step:
                raise UsageError(f"{at}: steps: {step!r} is not a step", where=where)
        trees = {entry.tree for entry in scenario.before if entry.tree}
        for table in (*scenario.expect.leaves, *scenario.expect.look):
            trees |= set(table.values())
        for kind, used, known in (
            ("trees", trees, scenarios.trees),
            ("preludes", set(scenario.preludes), scenarios.preludes),
            ("how", {scenario.how} - {""}, scenarios.how),
            ("option", {scenario.option} - {""}, dict.fromkeys(scenarios.options)),
        ):
            for name in sorted(used - set(known)):
                raise UsageError(f"{at}: {kind}: nothing is called {name!r}", where=where)


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
        except OSError as error:
            raise UsageError(f"programs.{name}: {source}: {error.strerror}", where=where) from error
    preludes = file.take("preludes", dict, {})
    trees = file.take("trees", dict, {})
    result = Scenarios(
        recipe=recipe,
        root=file.take("root", str),
        seconds=file.take("seconds", int, SECONDS),
        keep=keep,
        words=file.mapping("words"),
        environment=file.mapping("environment"),
        options=file.strings("options"),
        how={name: tuple(words) for name, words in file.take("how", dict).items()},
        files=file.mapping("files"),
        programs=programs,
        quiet=file.strings("quiet"),
        wrap=file.mapping("wrap"),
        preludes={name: _Table(where, texts, f"preludes.{name}").left for name, texts in preludes.items()},
        before=before,
        failing=_plan(file, "failing"),
        tree=file.mapping("tree"),
        trees={name: _Table(where, files, f"trees.{name}").left for name, files in trees.items()},
        rows=_rows(file),
        scenarios=_list(file, "scenario", keep, before),
        exhaustive=_list(file, "exhaustive", keep, before),
    )
    file.done()
    _check(where, result, result.scenarios)
    _check(where, result, result.exhaustive)
    return result
