"""The one command that builds the container image: ``docker build`` or ``docker buildx build``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from patcher.anchors import kind
from patcher.errors import NoBuildError, RefusedError
from patcher.model import Anchor, Command, Script, Statement, Syntax, Word

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
_OTHER_USERS = frozenset({"doas", "sudo"})
_ALIAS = re.compile(r"['\"]?([^\s'\"=]+)=")
# Why a wrapper cannot stand for a call, and what to do.
_BARS = {
    "background": ("it is started here and waited for elsewhere", "Run it with subprocess.run, which waits for it."),
    "exec": ("exec puts it in the script's place, and nothing runs after it", "Run it without exec, then exit."),
    "keyword": ("its words are a keyword argument", "Hand them over as the first argument, without its name."),
    "shell": ("it is text for a shell", "Run it as a list of words, without a shell: subprocess.run([...])."),
    "words": ("its words are arguments of their own", "Hand them over as one list, as the first argument."),
}
# Values that a variable, or the words of one command, may have, words in each, and variables that refer to others.
# Beyond that a script is not understood better, only slower.
_MOST_ALTERNATIVES = 16
_MOST_WORDS = 1000
_DEEPEST = 20

# An engine and a word for building on one line, without another thing that the engine does in between.
_SAYS_BUILD = re.compile(
    r"(?<![\w./-])(?:\S{1,99}/)?(?:docker|podman)\b(?![./=])"
    r"(?:(?!\b(?:run|exec|cp|pull|push|create|start|stop|kill|rm|rmi|ps|prune|inspect|images|logs|info|login)\b)[^\n]){0,200}?"
    r"\b(?:build|bake)\b(?![\w./-])"
)
_COMMENT = re.compile(r"(?m)(?:^|(?<=[ \t]))#[^\n]*")

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
    candidates = list({candidate.command.at: candidate for candidate in reversed(every)}.values())[::-1]
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
    lists = [c for c in every if c.command.at in {candidate.command.at for candidate in tries}]
    return Anchor(
        tuple(_placed(candidate, values, syntax) for candidate in tries),
        tuple((c.command.words[c.verbs[0]].start, c.command.words[c.verbs[1]].end) for c in tries),
        _around(tries, syntax),
        _behind(lists),
        next(filter(None, (_barred(candidate, values, syntax) for candidate in lists)), None),
    )


def may_hold(script: Script) -> bool:
    """Whether a build can be in a script, by a quick look at its text."""
    text = script.text.lower()
    return "build" in text and any(engine in text for engine in _ENGINES)


def mention(script: Script) -> int | None:
    """Where a script has the words of a build outside of comments, None if nowhere."""
    said = _SAYS_BUILD.search(_COMMENT.sub(lambda comment: " " * len(comment[0]), script.text))
    return said.start() if said else None


def _text(word: Word, syntax: Syntax) -> str:
    return syntax.script.text[word.start : word.end]


def _line(candidate: _Candidate, syntax: Syntax) -> str:
    words = " ".join(_text(word, syntax) for word in candidate.command.words[: candidate.verbs[1] + 1])
    return f"{syntax.script.where(candidate.command.at)}: {words}"


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
        self._depth = 0

    def word(self, word: Word) -> list[_Tokens]:
        """What a word may stand for: itself, or what its variable is assigned or defaults to."""
        return self._word(word, "", [])

    def words(self, words: Sequence[Word]) -> list[_Tokens]:
        """What several words may stand for."""
        return self._expanded(words, "", [])

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
                latest = new if goes_on else _some([*latest, *new])
                every = _some([*every, *new])
            self._known[variable] = _some([*latest, *every])
        return self._known[variable]

    def _expanded(self, words: Sequence[Word], own: str, latest: list[_Tokens]) -> list[_Tokens]:
        """The words with what they may stand for in their place. Those in front vary first: they name the program."""
        if self._depth == _DEEPEST:
            return []
        self._depth += 1
        choices = [self._word(word, own, latest) for word in reversed(words)]
        self._depth -= 1
        return _some(
            tuple(islice((token for tokens in reversed(chosen) for token in tokens), _MOST_WORDS))
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
    """All candidates, if they are one build tried again: the same words, or more options (``--no-cache``) among
    them, each later one behind a failed one."""

    def words(candidate: _Candidate) -> list[str]:
        return [_text(word, syntax) for word in candidate.command.words[candidate.verbs[0] :]]

    first = candidates[0]
    earlier = {first.index}
    for candidate in candidates[1:]:
        left = iter(words(candidate))
        again = all(word in left for word in words(first))  # which reads on from the word that was found
        if not again or not candidate.command.after_failure & earlier:
            return None
        earlier.add(candidate.index)
    return candidates


def _behind(lists: list[_Candidate]) -> tuple[int, ...]:
    """Where words can be put behind those that name the build, in each list that a try may run. Empty where one
    of them has no room for any, such as a string that is split into words."""
    last = [candidate.command.words[candidate.verbs[1]] for candidate in lists]
    return tuple(sorted({word.end for word in last})) if all(word.room for word in last) else ()


def _barred(candidate: _Candidate, values: _Values, syntax: Syntax) -> RefusedError | None:
    """Why nothing that adds words at the end can be put before the build, if so."""
    words = candidate.command.words
    first, _ = candidate.verbs
    at, bar = candidate.command.at, candidate.command.bar
    source = _text(words[0], syntax)
    before = [token for word in words[:first] for tokens in values.word(word) for token in tokens]
    behind = [(token, word) for word in words[first + 1 :] for tokens in values.word(word) for token in tokens]
    for tokens in values.word(words[first]):
        engine = next((i for i, token in enumerate(tokens) if _name(token) in _ENGINES), len(tokens))
        before += tokens[:engine]
        behind += ((token, words[first]) for token in tokens[engine:])
    if syntax.language == "shell" and before[:1] == ["exec"]:
        bar = "exec"
    if bar:
        why, hint = _BARS[bar]
        return RefusedError(
            f"nothing can be put before the image build: {why}", where=syntax.script.where(at), hint=hint
        )
    if syntax.language == "shell" and source in _aliases(syntax):
        return RefusedError(
            f"nothing can be put before the image build: `{source}` is an alias, and no alias behind another word",
            where=syntax.script.where(at),
            hint="Write what the alias stands for in its place.",
        )
    if syntax.language == "shell" and _ahead(candidate, values, syntax) is None:
        return RefusedError(
            f"`{source}` has arguments of its own here, and nothing tells where the words of the image build begin",
            where=syntax.script.where(at),
            hint=f"Give {source} a fixed number of arguments, which it shifts away before it runs the others.",
        )
    other = next((token for token in before if _name(token) in _OTHER_USERS), None)
    if other:
        return RefusedError(
            f"the image build runs as another user, through {other}, who would own the cache: this script could "
            "neither replace nor remove it",
            where=syntax.script.where(at),
            hint=f"Let the user who runs this script reach the engine without {other}: as a member of the group "
            "docker, or with a rootless engine.",
        )
    dashes = next((word for token, word in behind if token == "--"), None)
    if dashes:
        return RefusedError(
            "`--` stands among the words of the image build, so that options at their end would be taken for paths",
            where=syntax.script.where(dashes.start),
            hint="Leave the `--` out: before the path of the context it is not needed.",
        )
    return None


def _placed(candidate: _Candidate, values: _Values, syntax: Syntax) -> Command:
    """The command with its head where a wrapper sees the build as it is run.

    That is behind functions of the script that run their arguments, as they may run them more than once, or have
    some of their own. It is before any other program, which could not run a function.
    """
    command = candidate.command
    if syntax.language != "shell":
        return command
    at = command.words[_ahead(candidate, values, syntax) or 0].start
    return replace(command, head=(at, at))


def _ahead(candidate: _Candidate, values: _Values, syntax: Syntax) -> int | None:
    """The index of the word before which a wrapper goes, None where nothing tells which one that is."""
    words, first = candidate.command.words, candidate.verbs[0]
    i = 0
    while i < first:
        ways = syntax.forwards.get(words[i].text or "", ()) if not words[i].variable else ()
        programs = (tokens for way in ways if way.words for tokens in values.words(way.words))
        if not any(not way.words for way in ways) or any(_runs(tokens) for tokens in programs):
            break
        taken = {way.taken for way in ways if not way.words}
        own = next(iter(taken)) if len(taken) == 1 else None
        if own is not None and i + own < first:
            i += 1 + own
            continue
        # It has arguments of its own, and their number is not known: where they end can be read from plain words.
        if any(word.text is None or word.variable for word in words[i + 1 : first]):
            return None
        i = next((j for j in range(i + 1, first) if _leads(words[j : j + 1], values, syntax)), first)
    return i


def _aliases(syntax: Syntax) -> set[str]:
    """The names that the script gives to aliases."""
    words = [word for c in syntax.commands if c.words[0].text == "alias" for word in c.words[1:]]
    return {match[1] for word in words if (match := _ALIAS.match(_text(word, syntax)))}


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
