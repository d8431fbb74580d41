"""The one command that builds the container image: ``docker build`` or ``docker buildx build``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    values = _values(syntax)
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


def _values(syntax: Syntax) -> dict[str, list[str | None]]:
    """What the script itself assigns to each variable."""
    values: dict[str, list[str | None]] = {}
    for name in syntax.names:
        if name.assigned:
            values.setdefault(name.name, []).append(name.value)
    return values


def _candidate(index: int, command: Command, values: dict[str, list[str | None]], syntax: Syntax) -> _Candidate | None:
    first = command.words[0]
    for i in range(len(command.words)):
        found = _engine(command.words, i, values)
        if found:
            return _Candidate(index, command, (i, found[0]), found[1]) if _leads(command.words[:i], syntax) else None
        if i == 0 and first.text is not None and not first.variable and not _leads([first], syntax):
            return None
    return None


def _leads(words: Sequence[Word], syntax: Syntax) -> bool:
    """Whether the words before the engine's name run what follows them (``echo`` does not)."""
    if not words:
        return True
    first = words[0]
    if first.text is None or first.variable:
        return True
    name = first.text.rsplit("/", 1)[-1]
    return name in _WRAPPERS or first.text in syntax.forwarders or first.text == "exec"


def _engine(words: Sequence[Word], i: int, values: dict[str, list[str | None]]) -> tuple[int, str] | None:
    """The index of the last word that names the build which begins at ``i``, and the engine."""
    found: list[tuple[int, str]] = []
    for start in _alternatives(words[i], values):
        tokens = [(token, i) for token in _program(start)]
        if not tokens or tokens[0][0].rsplit("/", 1)[-1] not in {"docker", "podman"}:
            continue
        end = _verbs([*tokens[1:], *((word.text, j) for j, word in enumerate(words) if j > i)])
        if end is not None:
            found.append((end, tokens[0][0].rsplit("/", 1)[-1]))
    return min(found, key=lambda pair: pair[1]) if found else None


def _alternatives(word: Word, values: dict[str, list[str | None]]) -> Iterator[list[str]]:
    """The words that one may stand for: itself, or what its variable is assigned or defaults to."""
    if not word.variable:
        yield [word.text] if word.text else []
        return
    if word.text is not None:
        yield word.text.split()
    for value in values.get(word.variable, []):
        if value is not None:
            yield value.split()


def _program(words: list[str]) -> list[str]:
    """The words of a variable's value from the program on."""
    i = 0
    while i < len(words) and (_ENVIRONMENT.fullmatch(words[i]) or words[i].rsplit("/", 1)[-1] in _WRAPPERS):
        i += 1
    return words[i:]


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
