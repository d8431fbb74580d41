"""The one command that builds the container image: ``docker build`` or ``docker buildx build``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

from patcher.anchors import kind
from patcher.errors import NoBuildError, RefusedError
from patcher.model import Anchor, Command, Statement, Syntax, Word

# Programs that run their arguments as a command, and so may stand before the build's words.
_WRAPPERS = frozenset(
    [
        *("chronic", "command", "doas", "env", "flock", "ionice", "nice", "nohup", "retry", "setsid", "stdbuf"),
        *("sudo", "taskset", "time", "timeout", "unbuffer"),
    ]
)
# Options of docker and of buildx that take their value as a word of its own.
_TAKES_A_VALUE = frozenset(
    [
        *("--builder", "--config", "--context", "-c", "--host", "-H", "--log-level", "-l"),
        *("--tlscacert", "--tlscert", "--tlskey"),
    ]
)
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


_ENGINES = frozenset({"docker", "podman"})
# Values that a variable, or the words of one command, may have. Beyond that a script is only read more slowly.
_MOST_ALTERNATIVES = 16

_Tokens = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    index: int
    command: Command
    verbs: tuple[int, int]  # the indices of the first and the last word that name the build
    engine: str


@kind("image-build")
def find(syntax: Syntax) -> Anchor:
    """The build in a script; each try of it, where a later one is reached only when an earlier failed.

    Raises NoBuildError where there is none, RefusedError with ``file:line:col`` of each where there are several.
    """
    values = _Values(syntax)
    candidates = [found for i, c in enumerate(syntax.commands) if (found := _candidate(i, c, values, syntax))]
    docker = [candidate for candidate in candidates if candidate.engine == "docker"]
    every = docker or candidates
    # A function that runs what it is handed, and with more words as well, is one place all the same.
    candidates = list({candidate.command.head: candidate for candidate in reversed(every)}.values())[::-1]
    if not candidates:
        raise NoBuildError(
            "no command here runs `docker build` or `docker buildx build`",
            where=syntax.script.path,
            hint="Nothing to patch: this script builds no container image.",
        )
    tries = _tries(candidates, syntax)
    if tries is None:
        raise RefusedError(
            f"{len(candidates)} image builds, and nothing tells which one is meant",
            where=syntax.script.path,
            hint="\n".join(_line(candidate, syntax) for candidate in candidates),
        )
    refused = [c for c in tries if c.command.head[0] < 0 or _text(c.command.words[0], syntax) == "exec"]
    if refused:
        raise RefusedError(
            "the image build stands where nothing can be put before it",
            where=syntax.script.where(refused[0].command.words[0].start),
            hint="Run the build as a command of its own (not through exec), its words as the first argument.",
        )
    return Anchor(
        tuple(candidate.command for candidate in tries),
        tuple((c.command.words[c.verbs[0]].start, c.command.words[c.verbs[1]].end) for c in tries),
        _around(tries, syntax),
        _behind(every, tries),
    )


def _text(word: Word, syntax: Syntax) -> str:
    return syntax.script.text[word.start : word.end]


def _line(candidate: _Candidate, syntax: Syntax) -> str:
    words = " ".join(_text(word, syntax) for word in candidate.command.words[: candidate.verbs[1] + 1])
    return f"{syntax.script.where(candidate.command.words[0].start)}: {words}"


class _Values:
    """What a word may stand for, by what the script itself assigns and defines."""

    def __init__(self, syntax: Syntax) -> None:
        self._forwards = syntax.forwards
        self._assigned: dict[str, list[tuple[Word, ...]]] = {}
        for name in syntax.names:
            if name.assigned and (name.words or name.value is not None):
                split = tuple(Word(name.offset, name.offset, text) for text in (name.value or "").split())
                self._assigned.setdefault(name.name, []).append(name.words or split)
        self._known: dict[str, list[_Tokens]] = {}

    def word(self, word: Word) -> list[_Tokens]:
        """What a word may stand for: itself, or what its variable is assigned or defaults to."""
        return self._word(word, "", [])

    def before(self, word: Word) -> list[_Tokens]:
        """What the function of the script that a word names puts before the arguments that it hands on."""
        if word.text is None or word.variable:
            return []
        key = f"{word.text}()"
        if key not in self._known:
            self._known[key] = []  # while it is looked up, as it may refer to itself
            ways = (way.words for way in self._forwards.get(word.text, ()) if way.words and way.taken == 0)
            self._known[key] = _some(tokens for words in ways for tokens in self._expanded(words, "", []))
        return self._known[key]

    def _word(self, word: Word, own: str, latest: list[_Tokens]) -> list[_Tokens]:
        if not word.variable:
            return [(word.text,), *self.before(word)]
        default: list[_Tokens] = [tuple(word.text.split())] if word.text is not None else []
        assigned = latest if word.variable == own else self._variable(word.variable)
        return [*default, *assigned] or [(None,)]

    def _variable(self, variable: str) -> list[_Tokens]:
        if variable not in self._known:
            self._known[variable] = []  # as above
            every: list[_Tokens] = []
            latest: list[_Tokens] = []
            for words in self._assigned.get(variable, ()):
                goes_on = any(word.variable == variable for word in words)
                new = self._expanded(words, variable, latest)
                latest = new if goes_on else [*latest, *new]
                every += new
            self._known[variable] = _some(every)
        return self._known[variable]

    def _expanded(self, words: Sequence[Word], own: str, latest: list[_Tokens]) -> list[_Tokens]:
        """The words with what they may stand for in their place. Those in front vary first: they name the program."""
        choices = [self._word(word, own, latest) for word in reversed(words)]
        return _some(
            tuple(token for tokens in reversed(chosen) for token in tokens)
            for chosen in islice(product(*choices), _MOST_ALTERNATIVES)
        )


def _some(values: Iterable[_Tokens]) -> list[_Tokens]:
    return list(islice(dict.fromkeys(values), _MOST_ALTERNATIVES))


def _name(token: str | None) -> str:
    """A program's name without its folder."""
    return token.rsplit("/", 1)[-1] if token is not None else ""


def _candidate(index: int, command: Command, values: _Values, syntax: Syntax) -> _Candidate | None:
    words = command.words
    for i in range(len(words)):
        found = _engine(words, i, values, syntax)
        if found:
            return _Candidate(index, command, (i, found[0]), found[1]) if _leads(words[:i], values, syntax) else None
        if i == 0 and words[0].text is not None and not words[0].variable and not _leads(words[:1], values, syntax):
            return None
    return None


def _leads(words: Sequence[Word], values: _Values, syntax: Syntax) -> bool:
    """Whether the words before the engine's name run what follows them (``echo`` does not)."""
    if not words or words[0].variable:
        return True
    ways = [(words[0].text,), *values.before(words[0])]
    return words[0].text in syntax.forwarders or any(_runs(tokens) for tokens in ways)


def _runs(tokens: _Tokens) -> bool:
    """Whether these words run those that follow: none, assignments, or a program for which this is known."""
    i = 0
    while i < len(tokens) and _ENVIRONMENT.fullmatch(tokens[i] or ""):
        i += 1
    return i == len(tokens) or tokens[i] is None or tokens[i] == "exec" or _name(tokens[i]) in _WRAPPERS


def _engine(words: Sequence[Word], i: int, values: _Values, syntax: Syntax) -> tuple[int, str] | None:
    """The index of the last word that names the build which begins at ``i``, and the engine."""
    found: list[tuple[int, str]] = []
    for start in values.word(words[i]):
        at = next((at for at, token in enumerate(start) if _name(token) in _ENGINES), None)
        if at is None or not _runs(start[:at]):
            continue
        inside: list[tuple[str | None, int]] = [(token, i) for token in start[at + 1 :]]
        if words[i].text in syntax.forwards and not words[i].variable and _verbs(inside) is not None:
            continue  # a function that has the whole build in it: that is the place
        behind = [(token, j) for j in range(i + 1, len(words)) for token in values.word(words[j])[0] or (None,)]
        end = _verbs([*inside, *behind])
        if end is not None:
            found.append((end, _name(start[at])))
    return min(found, key=lambda pair: pair[1]) if found else None


def _verbs(tokens: list[tuple[str | None, int]]) -> int | None:
    """The index of the word ``build`` in ``[OPTIONS] [buildx|image|builder] [OPTIONS] build``, if it is that."""
    management = False
    i = 0
    while i < len(tokens):
        token, at = tokens[i]
        if token == "build":
            return at
        if token in _TAKES_A_VALUE:
            i += 1
        elif token in {"buildx", "image", "builder"} and not management:
            management = True
        elif token is not None and not token.startswith("-"):
            return None
        i += 1
    return None


def _tries(candidates: list[_Candidate], syntax: Syntax) -> list[_Candidate] | None:
    """All candidates, if they are one build tried again: equal words, each later one behind a failed one."""

    def words(candidate: _Candidate) -> list[str]:
        return [_text(word, syntax) for word in candidate.command.words[candidate.verbs[0] :]]

    first = candidates[0]
    earlier = {first.index}
    for candidate in candidates[1:]:
        if words(candidate) != words(first) or not candidate.command.after_failure & earlier:
            return None
        earlier.add(candidate.index)
    return candidates


def _behind(every: list[_Candidate], tries: list[_Candidate]) -> tuple[int, ...]:
    """Where words can be put behind those that name the build, in each list that a try may run. Empty where one
    of them has no room for any, such as a string that is split into words."""
    heads = {candidate.command.head for candidate in tries}
    last = [c.command.words[c.verbs[1]] for c in every if c.command.head in heads]
    return tuple(sorted({word.end for word in last})) if all(word.room for word in last) else ()


def _around(tries: list[_Candidate], syntax: Syntax) -> Statement:
    """The statement before which something can be put that all tries see: it begins its line."""
    chains = [list(_chain(candidate.command.statement, syntax)) for candidate in tries]
    bodies = [{statement.body for statement in chain} for chain in chains]
    for statement in chains[0]:
        if all(statement.body in others for others in bodies) and statement.begins_line(syntax.script.text):
            return statement
    return chains[0][-1]


def _chain(index: int, syntax: Syntax) -> Iterator[Statement]:
    while index >= 0:
        statement = syntax.statements[index]
        yield statement
        index = statement.parent
