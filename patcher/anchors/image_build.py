"""The one command that builds the container image: ``docker build`` or ``docker buildx build``.

This module is the only place that names an engine and its words for a build.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, product

from patcher.errors import NoBuildError, RefusedError
from patcher.model import Anchor, Command, Script, Syntax

_ENGINE = "docker"
# Programs that run their arguments as a command, and so may stand before the build's words.
_OTHER_USERS = frozenset({"doas", "sudo"})
_SHELLS = frozenset({"bash", "dash", "eval", "sh", "zsh"})
_WRAPPERS = frozenset({"command", "env", "exec", "nice", "nohup", "retry", "stdbuf", "time", "timeout"}) | _OTHER_USERS
_ENVIRONMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_ALIAS = re.compile(r" ['\"]?([^\s'\"=]+)=")
_COMMENT = re.compile(r"(?m)(?:^|(?<=[ \t]))#[^\n]*")
_OR = re.compile(r"\s*\|\|")
# What an engine does else.
_OTHER = r"(?:cp|create|exec|images|info|inspect|kill|login|logs|prune|ps|pull|push|rm|rmi|run|start|stop)\b"
_OPTIONS = rf"(?: -\S+(?: (?!-|{_OTHER})\S+)?)*?"
# The words of a build, with one blank between two words.
_BUILD = re.compile(rf"(?<!\S)(?:\S*/)?(docker|podman){_OPTIONS}(?: (?:builder|buildx|image){_OPTIONS})? build(?!\S)")
# An engine and a word for building on one line of any text, without another thing that the engine does in between.
_SAYS_BUILD = re.compile(
    rf"(?<![\w./-])(?:\S{{1,99}}/)?(?:docker|podman)\b(?![./=-])(?:(?!\b{_OTHER})[^\n]){{0,200}}?\b(?:build|bake)\b(?![\w./-])"
)
_MOST_READINGS = 64  # of a command whose variables have several values
_MOST_WORDS = 50  # before the word `build`

# Why a build is refused, and what to write instead. The last four only keep a wrapper from standing before it.
_REASONS = {
    "background": ("it is started in the background", "Run it in the foreground, in Python with subprocess.run."),
    "construct": ("it stands inside a construct that is not read, such as case or $( )", "Move it out of there."),
    "engine": ("podman runs it", "Only builds by docker are changed."),
    "keyword": ("its words are a keyword argument", "Pass them as the first argument, without its name."),
    "line": ("its line begins inside another statement, so nothing can be put before it", "Begin a new line with it."),
    "result": ("the call does not return its exit status", "Call subprocess.run."),
    "text": ("it is text for another shell", "Write it as a command of its own, in Python as a list of words."),
    "unclear": (
        "these words are not always a build",
        "Write them here, or assign them once, in Python by = and += only.",
    ),
    "words": ("its words are separate arguments", "Pass them as one list, as the first argument."),
    "dashes": ("`--` stands among its words, and options behind it would be paths", "Leave the `--` out."),
    "exec": ("exec puts it in the place of the script, and nothing runs after it", "Run it without exec, then exit."),
    "own": ("an alias or a function of this script runs it", "Write the words of the build in its place."),
    "user": (
        "another user runs it, and would own its files",
        "Give this user access: group docker, or a rootless engine.",
    ),
}

_Tokens = list[tuple[str | None, int]]  # the text of each word, and the index of the word in the source
_Values = Mapping[str, Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class _Build:
    """A build: the first and the last of the source's words that name it, and the words before and behind."""

    command: Command
    engine: str
    first: int
    last: int
    before: list[str | None]
    behind: list[str | None]


def may_hold(script: Script) -> bool:
    """Whether the text has the words of a build at all."""
    return "build" in script.text and _ENGINE in script.text


def mention(script: Script) -> int | None:
    """The offset of words that say a build, comments left out."""
    said = _SAYS_BUILD.search(_COMMENT.sub(lambda comment: " " * len(comment[0]), script.text))
    return said.start() if said else None


def find(syntax: Syntax) -> Anchor:
    """The build in a script, and each try of it.

    Raises NoBuildError where there is none, RefusedError with ``file:line:col`` where it cannot be changed, or where
    there are several.
    """
    values: dict[str, list[str | None]] = {}
    for name in syntax.names if syntax.script.language == "shell" else ():
        if name.assigned:
            values.setdefault(name.name, []).append(name.value)
    own = _own(syntax)
    places = groupby(syntax.commands, key=lambda command: command.head)
    found = [builds for _, commands in places if (builds := _builds(list(commands), values, own, syntax))]
    tries = [builds[0] for builds in found if builds[0].engine == _ENGINE]
    if not found:
        raise NoBuildError(
            "no command here runs `docker build` or `docker buildx build`",
            where=syntax.script.path,
            hint="Nothing to patch: this script builds no container image.",
        )
    if not tries:
        raise _refused("engine", found[0][0].command, syntax)
    if not all(_again(tries[0], later, syntax) for later in tries[1:]):
        raise RefusedError(
            f"{len(tries)} image builds, and nothing tells which one is meant",
            where=syntax.script.path,
            hint="\n".join(f"{_where(b.command, syntax)}: {syntax.text(b.command.words[: b.last + 1])}" for b in tries),
        )
    statement = syntax.around([build.command.statement for build in tries])
    if statement is None:
        raise _refused("line", tries[0].command, syntax)
    every = [build for builds in found for build in builds if build.engine == _ENGINE]
    return Anchor(
        tuple(build.command for build in tries),
        tuple((build.command.words[build.first].start, build.command.words[build.last].end) for build in tries),
        statement,
        tuple(sorted({build.command.words[build.last].end for build in every})),
        next((barred for build in every if (barred := _barred(build, own, syntax))), None),
    )


def _where(command: Command, syntax: Syntax) -> str:
    return syntax.script.where(command.head[0])


def _refused(reason: str, command: Command, syntax: Syntax) -> RefusedError:
    why, hint = _REASONS[reason]
    return RefusedError(f"the image build cannot be changed: {why}", where=_where(command, syntax), hint=hint)


def _own(syntax: Syntax) -> set[str]:
    """The names of the functions and aliases of a shell script."""
    if syntax.script.language != "shell":
        return set()
    aliases = (syntax.text(command.words) for command in syntax.commands if command.words[0].text == "alias")
    return {statement.defines for statement in syntax.statements} | {
        n for text in aliases for n in _ALIAS.findall(text)
    }


def _builds(commands: Sequence[Command], values: _Values, own: set[str], syntax: Syntax) -> list[_Build]:
    """The builds that one place in the script may run, empty where it runs none.

    Raises RefusedError where it may run something else as well, and where its words cannot be changed.
    """
    readings = [(command, tokens) for command in commands for tokens in _readings(command, values)]
    builds = [build for command, tokens in readings if (build := _build(command, tokens, own))]
    reason = commands[0].bar if builds else ""
    if builds and (len(builds) < len(readings) or len({build.engine for build in builds}) > 1):
        reason = reason or "unclear"
    if not builds and any(_is_text(command, tokens, own, syntax) for command, tokens in readings):
        reason = "text"
    if reason:
        raise _refused(reason, commands[0], syntax)
    return builds


def _readings(command: Command, values: _Values) -> Iterator[_Tokens]:
    """The words of a command, once for each choice of what its variables may be."""
    variables = list(dict.fromkeys(word.variable for word in command.words if word.variable in values))
    choices = (dict.fromkeys(values[variable]) for variable in variables)
    for chosen in islice(product(*choices), _MOST_READINGS):
        known = dict(zip(variables, chosen, strict=True))
        tokens: _Tokens = []
        for index, word in enumerate(command.words):
            value = known.get(word.variable)
            tokens += [(word.text, index)] if value is None else ((token, index) for token in value.split())
        yield tokens


def _build(command: Command, tokens: _Tokens, own: set[str]) -> _Build | None:
    """The build among the words of a command. Where a wrapper cannot stand, a build may be among its arguments."""
    text = " ".join(re.sub(r"\s", "_", token or "?") for token, _ in tokens[:_MOST_WORDS])
    found = _BUILD.search(text)
    if found is None:
        return None
    at, last = text.count(" ", 0, found.start()), text.count(" ", 0, found.end())
    if not (command.bar or _leads(tokens[:at], own)):
        return None
    words = [token for token, _ in tokens]
    return _Build(command, found[1], tokens[at][1], tokens[last][1], words[:at], words[at:])


def _leads(tokens: _Tokens, own: set[str]) -> bool:
    """Whether these words run what stands behind them (``echo`` does not). An unknown one is taken to do so."""
    token = next((token for token, _ in tokens if not _ENVIRONMENT.fullmatch(token or "")), None)
    return token is None or token in own or _name(token) in _WRAPPERS | _SHELLS


def _is_text(command: Command, tokens: _Tokens, own: set[str], syntax: Syntax) -> bool:
    """Whether a command gives the text of a build to another shell."""
    shell = any(_name(token) in _SHELLS for token, _ in tokens) and _leads(tokens, own)
    text = syntax.text(command.words)
    return bool((shell or (command.bar and command.callee)) and _SAYS_BUILD.search(text))


def _name(token: str | None) -> str:
    """A program's name without its folder."""
    return token.rsplit("/", 1)[-1] if token is not None else ""


def _again(first: _Build, later: _Build, syntax: Syntax) -> bool:
    """Whether a build is the first one tried again: the same words, inside the statement that tests the first."""
    same = syntax.text(first.command.words[first.first :]) == syntax.text(later.command.words[later.first :])
    tested = syntax.script.language == "python" or _OR.match(syntax.script.text, first.command.words[-1].end)
    return bool(tested) and same and syntax.statements[first.command.statement] in syntax.chain(later.command.statement)


def _barred(build: _Build, own: set[str], syntax: Syntax) -> RefusedError | None:
    """Why nothing that adds words at the end can be put before the build, if so."""
    holds = {
        "dashes": "--" in build.behind,
        "exec": "exec" in build.before,
        "user": any(_name(token) in _OTHER_USERS for token in build.before),
        "own": any(token in own for token in [*build.before, build.behind[0]]),
    }
    return next((_refused(reason, build.command, syntax) for reason, held in holds.items() if held), None)
