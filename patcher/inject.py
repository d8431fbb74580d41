"""Syntax, anchors and a recipe to edits and new text.

Text is spliced at offsets, last edit first, so that every other byte stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from patcher.errors import InputError, RefusedError
from patcher.model import (
    Anchor,
    Change,
    Command,
    Edit,
    Foreign,
    Name,
    Plan,
    Recipe,
    Script,
    State,
    Statement,
    Syntax,
    Word,
)

Parser = Callable[[Script], Syntax]
Finder = Callable[[str, Syntax], Anchor]

_QUOTED_INSIDE = re.compile(r'\$\{\w+:?\+"')
_BY_HAND = "Take it out by hand, then run `ci-patcher patch` again. Seen: "


def plan(syntax: Syntax, recipe: Recipe, values: Mapping[str, str], parse: Parser, find: Finder) -> Plan:
    """What a recipe with these options does to a script.

    Raises NoBuildError, RefusedError as the anchor's kind does, and RefusedError for a block of an unknown
    form. ``parse`` is asked again only where a block is taken out first.
    """
    script = syntax.script
    change = recipe.changes.get(syntax.language)
    if change is None:
        raise RefusedError(f"the recipe {recipe.name} has no change for {syntax.language}", where=script.path)
    ours = _ours(syntax, recipe, find)
    if ours:
        removal, found, current = ours
        anchor = find(recipe.anchor, syntax)
        reference = script.edited(removal)
        _refuse_called(syntax, recipe, removal)
        if current and found == dict(values):
            return Plan(syntax, State.CURRENT, anchor, reference, script, values=found)
        result, edits = _insertion(bare := parse(reference), recipe, change, values, find(recipe.anchor, bare))
        return Plan(syntax, State.OLDER, anchor, reference, result, edits, values=found)
    foreign = next((form for form in recipe.replaces if _mentions(syntax, form.variables[:1])), None) or next(
        (form for form in recipe.replaces if _mentions(syntax, form.variables)), None
    )
    if foreign:
        removal = removals(syntax, foreign, recipe)
        reference = script.edited(removal)
        try:
            stripped = parse(reference)
        except InputError:  # something of it was all that another statement held
            left = next(name.offset for name in syntax.names if name.name in foreign.variables)
            raise _unknown(syntax, recipe, left) from None
        _refuse_unknown(stripped, recipe, foreign.variables)
        anchor = find(recipe.anchor, syntax)
        result, edits = _insertion(stripped, recipe, change, values, find(recipe.anchor, stripped))
        return Plan(syntax, State.FOREIGN, anchor, reference, result, edits, foreign)
    anchor = find(recipe.anchor, syntax)
    _refuse_unknown(syntax, recipe, ())
    result, edits = _insertion(syntax, recipe, change, values, anchor)
    state = State.NO_CACHE if recipe.hook or recipe.replaces else State.ABSENT
    if recipe.hook and _mentions(syntax, (recipe.hook,)):
        state = State.HOOK
    return Plan(syntax, state, anchor, script, result, edits)


# putting in


def _insertion(
    syntax: Syntax, recipe: Recipe, change: Change, values: Mapping[str, str], anchor: Anchor
) -> tuple[Script, tuple[Edit, ...]]:
    if change.wrap and anchor.barred:
        raise anchor.barred
    edits = _imports(syntax, change.imports)
    if change.before:
        edits.append(_block(syntax, anchor, change, change.render(recipe.options, values, syntax.language)))
    edits += [Edit(at, at, line, "the build") for at, line in _directives(syntax, anchor, change)]
    edits += [_wrap(syntax.script, command, change.wrap) for command in anchor.commands if change.wrap]
    if change.insert and not anchor.behind:
        raise RefusedError(
            "nothing can be put behind the words that name the build",
            where=syntax.script.where(anchor.verbs[0][0]),
            hint="Write these words as elements of a list.",
        )
    edits += [Edit(at, at, change.insert, "the build") for at in anchor.behind if change.insert]
    return syntax.script.edited(edits), tuple(edits)


def _wrap(script: Script, command: Command, wrap: str) -> Edit:
    """Put the wrapper before the build, in Python in the place of the call's ``callee(``."""
    start, end = command.head
    if command.callee and script.text[start:end] != f"{command.callee}(":
        raise RefusedError(
            f"the build is not the first argument of {command.callee}( ... ), so that nothing can be put before it",
            where=script.where(start),
            hint="Write it so that the list of the build's words comes first, directly behind the parenthesis. "
            f"Where {command.callee} is what another recipe put there: take that out first, two do not combine here.",
        )
    text = wrap.replace("{callee}", command.callee)
    return Edit(start, end, text.rstrip(" ") if script.text[end : end + 1] in {"\r", "\n"} else text, "the build")


def _block(syntax: Syntax, anchor: Anchor, change: Change, lines: list[str]) -> Edit:
    text = syntax.script.text
    statement = anchor.statement
    if change.place == "module":
        statement = _outermost(syntax, statement)
    at = max(lead(syntax, statement.start), _first(syntax))
    newline = "\r\n" if text[: text.find("\n") + 1].endswith("\r\n") else "\n"
    indent = re.compile(r"[ \t]*").match(text, at)
    prefix = indent[0] if indent else ""
    block = "".join((prefix + line if line else "") + newline for line in lines)
    blank = newline * (2 if change.place == "module" else 1)
    previous = _line_before(text, at)
    if previous is None or not previous.strip() or _opens(previous):
        return Edit(at, at, block + blank, "the block")
    return Edit(at, at, blank + block, "the block")


def _directives(syntax: Syntax, anchor: Anchor, change: Change) -> list[tuple[int, str]]:
    """The lines that the linter wants above a build which begins with a variable: it lets a command's name
    pass without quotes, an argument not. Where other words have no quotes either, the line is the script's own
    affair, so that what is put in can be told from what was there. Raises RefusedError where it cannot."""
    found: list[tuple[int, str]] = []
    text = syntax.script.text
    for command in anchor.commands if change.directive else ():
        at = text.rfind("\n", 0, syntax.statements[command.statement].start) + 1
        if _bare(command, text) == [command.words[0]] and _begins_line(syntax, command, at):
            if change.directive in text[lead(syntax, at) : at]:
                raise RefusedError(
                    f"{change.directive!r} stands above a build that does not need it",
                    where=syntax.script.where(at),
                    hint="Take the line out first: it comes back with the change, and goes with it.",
                )
            newline = "\r\n" if text[at:].split("\n", 1)[0].endswith("\r") else "\n"
            indent = text[at : len(text) - len(text[at:].lstrip(" \t"))]
            found.append((at, indent + change.directive + newline))
    return found


def _begins_line(syntax: Syntax, command: Command, at: int) -> bool:
    """Whether the line at ``at`` begins with the command's statement or with one around it (``if ! docker ...``)."""
    statement = syntax.statements[command.statement]
    while not statement.begins_line(syntax.script.text):
        if statement.parent < 0 or syntax.statements[statement.parent].start < at:
            return False
        statement = syntax.statements[statement.parent]
    return True


def _bare(command: Command, text: str) -> list[Word]:
    """The words that begin with a variable without quotes, but for ``${NAME:+"..."}``, which is quoted inside."""
    return [
        word
        for word in command.words
        if text.startswith("$", word.start) and not _QUOTED_INSIDE.match(text, word.start, word.end)
    ]


def _outermost(syntax: Syntax, statement: Statement) -> Statement:
    while statement.parent >= 0:
        statement = syntax.statements[statement.parent]
    return statement


def lead(syntax: Syntax, start: int) -> int:
    """Where the lines of a statement begin: its own, or the comment lines directly above it, which stay with it."""
    text = syntax.script.text
    at = text.rfind("\n", 0, start) + 1
    while at > 0:
        above = text.rfind("\n", 0, at - 1) + 1
        line = text[above : at - 1].strip()
        if not line.startswith("#") or line.startswith("#!"):
            break
        if any(statement.start < above < statement.end <= start for statement in syntax.statements):
            break  # the last line of a string
        at = above
    return at


def _first(syntax: Syntax) -> int:
    """Where the first line begins: behind a byte order mark, which bash takes for a part of the first word."""
    return int(syntax.language == "python" and syntax.script.text.startswith("\ufeff"))


def _line_before(text: str, at: int) -> str | None:
    return text[text.rfind("\n", 0, at - 1) + 1 : at - 1] if at > 0 else None


def _opens(line: str) -> bool:
    """Whether a line opens a list of statements, so that no blank line is due below it."""
    code = re.sub(r"\s#.*", "", line).rstrip()
    return bool(re.search(r"(^|[\s;])(then|do|else|\{|\()$|[):]$|\bin$", code)) and not code.endswith(";;")


def _imports(syntax: Syntax, modules: Iterable[str]) -> list[Edit]:
    """Lines for the modules that are not imported yet.

    Raises RefusedError where the reverse could not tell later whether an import was there before.
    """
    for module in modules:
        users = _users(syntax, module)
        if bool(users) != (module in syntax.imports):
            what = "used here but not imported as a module at the top" if users else "imported and never used"
            at = users[0].offset if users else syntax.imports[module]
            raise RefusedError(f"{module} is {what}", where=syntax.script.where(at), hint="Mend that first.")
    return import_edits(syntax, modules)


def import_edits(syntax: Syntax, modules: Iterable[str]) -> list[Edit]:
    """The lines that import what is missing of ``modules``, each where the file's order wants it.

    That is before the first plain import of the top block that sorts behind it, else behind the last one; without a
    plain import there, where the parser says that the top block ends.
    """
    text = syntax.script.text
    newline = "\r\n" if "\r\n" in text else "\n"
    top = sorted((offset, name) for name, offset in syntax.imports.items() if offset < syntax.imports_end)
    behind = syntax.imports_end
    if top:
        end = text.find("\n", top[-1][0])
        behind = len(text) if end < 0 else end + 1
    edits: list[Edit] = []
    for module in sorted(set(modules) - set(syntax.imports)):
        at = max(next((offset for offset, name in top if name > module), behind), _first(syntax))
        open_line = at > _first(syntax) and text[at - 1] not in "\r\n"
        line = f"{newline}import {module}" if open_line else f"import {module}{newline}"
        edits.append(Edit(at, at, line, "an import"))
    return edits


# taking out


def _ours(syntax: Syntax, recipe: Recipe, find: Finder) -> tuple[list[Edit], dict[str, str], bool] | None:
    """The edits that take our own change out again, its options, and whether its text is today's and whole."""
    text = syntax.script.text
    defining = [s for s in syntax.statements if recipe.defines and s.defines == recipe.defines]
    if recipe.defines and not defining:
        return None
    lines = (line.start() for line in re.finditer("^", text, re.MULTILINE))
    starts = [lead(syntax, statement.start) for statement in defining] if recipe.defines else list(lines)
    forms = [(recipe.changes[syntax.language], recipe.options, True)]
    forms += [(old[syntax.language], options, False) for old, options in recipe.older if syntax.language in old]
    anchor = find(recipe.anchor, syntax)
    for form, options, current in forms:
        found = [
            (start, *block)
            for start in (starts if form.before else ())
            if (block := form.standing(options, syntax.language, text, start))
        ]
        edits = _unwrap(syntax, form, anchor)
        if not found and (recipe.defines or not edits):
            continue
        values = {name: option.default for name, option in options.items()}
        if found:
            start, end, values = found[0]
            edits.append(_out(text, start, end, form.place))
        edits += _unimported(syntax, form, edits)
        whole = bool(found or not form.before) and _complete(anchor, form, text)
        return edits, values, current and whole
    if not recipe.defines:
        return None
    statement = defining[0]
    raise RefusedError(
        f"{recipe.defines} is defined here, but in none of the forms that this recipe has written",
        where=syntax.script.where(statement.start),
        hint=_BY_HAND + _first_line(text, statement.start),
    )


def _refuse_called(syntax: Syntax, recipe: Recipe, removal: Sequence[Edit]) -> None:
    """Refuse a script that, without the block, would still call what the block defines."""
    text = without_comments(syntax.script.text)
    for name in re.finditer(rf"\b{re.escape(recipe.defines)}\b", text) if recipe.defines else ():
        if not any(edit.start <= name.start() < edit.end for edit in removal):
            raise RefusedError(
                f"{recipe.defines} is called in a place where this recipe has not put it",
                where=syntax.script.where(name.start()),
                hint=_BY_HAND + _first_line(text, text.rfind("\n", 0, name.start()) + 1),
            )


def _first_line(text: str, offset: int) -> str:
    return text[offset:].split("\n", 1)[0].strip()


def _out(text: str, start: int, end: int, place: str) -> Edit:
    """The block and the blank lines that came with it: those below it, else those above."""
    blank = re.compile(r"(?:\r?\n){2}" if place == "module" else r"\r?\n")
    below = blank.match(text, end)
    if below:
        return Edit(start, below.end(), "", "the block")
    above = re.compile(rf"(?:{blank.pattern})\Z").search(text[:start])
    return Edit(above.start() if above else start, end, "", "the block")


def _unwrap(syntax: Syntax, change: Change, anchor: Anchor) -> list[Edit]:
    text = syntax.script.text
    edits: list[Edit] = []
    for command, (verb, _) in zip(anchor.commands, anchor.verbs, strict=True):
        wrapped = _wrapped(text, command, verb, change)
        bare = [word.start for word in _bare(command, text)]
        above = re.compile(rf"[ \t]*{re.escape(change.directive)}\r?\n\Z" if change.directive else r"\Z(?!\Z)")
        at = text.rfind("\n", 0, syntax.statements[command.statement].start) + 1
        alone = wrapped and (wrapped.start(), [wrapped.end()]) == (command.words[0].start, bare)
        if alone and (line := above.search(text[:at])):
            edits.append(Edit(line.start(), line.end(), "", "the build"))
        if wrapped:
            callee = wrapped.groupdict().get("callee")
            edits.append(Edit(*wrapped.span(), f"{callee}(" if callee else "", "the build"))
    edits += [Edit(at, at + len(change.insert), "", "the build") for at in _inserted(anchor, change, text)]
    return edits


def _inserted(anchor: Anchor, change: Change, text: str) -> list[int]:
    """Where the words stand that were put behind the build's: on that line, where another recipe's may have
    pushed them on, and before the next try."""
    if not change.insert or not anchor.behind:
        return []
    lines = [text.find("\n", at) for at in anchor.behind]
    ends = [*anchor.behind[1:], len(text)]
    stops = [end if line < 0 else min(line, end) for line, end in zip(lines, ends, strict=True)]
    found = [text.find(change.insert, at, stop) for at, stop in zip(anchor.behind, stops, strict=True)]
    return [at for at in found if at >= 0]


def _wrapped(text: str, command: Command, verb: int, change: Change) -> re.Match[str] | None:
    """The wrapper as it stands before the words that name the build, with what it wraps in the group ``callee``."""
    start, end = command.head
    if not change.wrap or start < 0:
        return None
    before, callee, after = change.wrap.partition("{callee}")
    if not callee:  # in shell, where another recipe's may stand before it
        starts = [word.start for word in command.words if word.start < verb]
        return next(filter(None, (re.compile(re.escape(before)).match(text, at) for at in starts)), None)
    # Behind it, in the head, blanks and comments can stand that were there before.
    pattern = rf"{re.escape(before)}(?P<callee>.+){re.escape(after.rstrip(' '))} ?(?=(?:\s|#[^\n]*\n)*\Z)"
    return re.compile(pattern, re.DOTALL).match(text, start, end)


def _complete(anchor: Anchor, change: Change, text: str) -> bool:
    """Whether every try of the build is wrapped, and has what is inserted behind its words."""
    commands = zip(anchor.commands, anchor.verbs, strict=True)
    wrapped = all(not change.wrap or _wrapped(text, command, verb, change) for command, (verb, _) in commands)
    return wrapped and (not change.insert or len(_inserted(anchor, change, text)) == len(anchor.behind))


def _unimported(syntax: Syntax, change: Change, gone: Sequence[Edit]) -> list[Edit]:
    """The imports that only what is taken out needs."""
    text = syntax.script.text
    edits: list[Edit] = []
    for module in change.imports:
        at = syntax.imports.get(module)
        if at is None:
            continue
        end = text.find("\n", at) + 1
        users = _users(syntax, module)
        spans = [(out.start, out.end) for out in gone if not out.text]  # not what a wrapper leaves behind
        if users and all(any(start <= name.offset < end for start, end in spans) for name in users):
            edits.append(Edit(max(text.rfind("\n", 0, at) + 1, _first(syntax)), end, "", "an import"))
    return edits


def _users(syntax: Syntax, module: str) -> list[Name]:
    """Where a name is read or assigned, but for the import of the module."""
    at = syntax.imports.get(module, -1)
    end = syntax.script.text.find("\n", at) if at >= 0 else -1
    return [name for name in syntax.names if name.name == module and not at <= name.offset < end]


def removals(syntax: Syntax, foreign: Foreign, recipe: Recipe) -> list[Edit]:
    """The edits that take a foreign block out of a script, its comments and spare blank lines with it."""
    text = syntax.script.text
    spans: list[tuple[int, int]] = []
    names = [name for name in syntax.names if not name.name.isdigit()]
    skip_to = -1
    for statement in sorted(syntax.statements, key=lambda s: (s.start, -s.end)):
        if statement.start < skip_to:
            continue
        inside = [name for name in names if statement.start <= name.offset < statement.end]
        if _belongs(inside, foreign, recipe.hook) and _has_its_lines(statement, text):
            at = lead(syntax, statement.start)
            end = text.find("\n", statement.end)
            spans.append((at, len(text) if end < 0 else end + 1))
            skip_to = statement.end
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return [_with_blank(text, start, end) for start, end in merged]


def _has_its_lines(statement: Statement, text: str) -> bool:
    """Whether nothing else stands on a statement's lines, so that they can go."""
    end = text.find("\n", statement.end)
    behind = text[statement.end : len(text) if end < 0 else end].strip()
    return statement.begins_line(text) and (not behind or behind.startswith("#") or behind == ";")


def _belongs(inside: list[Name], foreign: Foreign, hook: str) -> bool:
    found = {name.name for name in inside}
    allowed = {*foreign.variables, *foreign.reads, hook}
    if found == {hook}:  # DOCKER_BUILD_CACHE_ARG="", which only such a block needs
        return len(inside) == 1 and inside[0].assigned and inside[0].value == ""
    return bool(found & set(foreign.variables)) and found <= allowed


def _with_blank(text: str, start: int, end: int) -> Edit:
    """Take a blank line along where two would meet, or where one would open a list of statements."""
    previous = _line_before(text, start)
    following = re.compile(r"[ \t]*\r?\n").match(text, end)
    if following and (previous is None or not previous.strip() or _opens(previous)):
        end = following.end()
    return Edit(start, end, "", "a foreign block")


def _mentions(syntax: Syntax, variables: Iterable[str]) -> bool:
    wanted = set(variables)
    return any(name.name in wanted for name in syntax.names)


def _refuse_unknown(syntax: Syntax, recipe: Recipe, gone: Iterable[str]) -> None:
    """Refuse a script in which a cache block stands, or is left, that is like none of the known forms."""
    wanted = set(gone)
    left = next((name.offset for name in syntax.names if name.name in wanted), None)
    if left is None:
        code = without_comments(syntax.script.text)
        found = [match.start() for pattern in recipe.seen for match in pattern.finditer(code)]
        left = min(found, default=None)
    if left is not None:
        raise _unknown(syntax, recipe, left)


def _unknown(syntax: Syntax, recipe: Recipe, offset: int) -> RefusedError:
    return RefusedError(
        f"what stands here is like none of the forms that the recipe {recipe.name} knows",
        where=syntax.script.where(offset),
        hint=_BY_HAND + _first_line(syntax.script.text, offset),
    )


def without_comments(text: str) -> str:
    """The text with its full-line comments blanked, offsets unchanged."""
    return re.sub(r"(?m)^[ \t]*#.*$", lambda match: " " * len(match[0]), text)
