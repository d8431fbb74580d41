"""The edits that take a block out of a script again: the recipe's own, or one of another origin."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from patcher.errors import RefusedError
from patcher.inject import block_lines, inserted
from patcher.layout import begins_paragraph, first, lead, line_start, next_line, unquoted, users, without_comments
from patcher.model import Anchor, Change, Command, Edit, Foreign, Recipe, Statement, Syntax


@dataclass(frozen=True, slots=True)
class Standing:
    """Our change in a script: how to take it out, its options, and whether every try of the build has it."""

    edits: list[Edit]
    values: dict[str, str]
    whole: bool


def ours(syntax: Syntax, recipe: Recipe, anchor: Anchor) -> Standing | None:
    """The recipe's own change in a script, None if there is none.

    Raises RefusedError if its function stands there in another form, or is called in other places.
    """
    change = recipe.changes[syntax.script.language]
    block = _block(syntax, recipe, change)
    edits, whole = _at_the_build(syntax, change, anchor)
    if block is None and (recipe.defines or not edits):
        return None
    edits += [block[0]] if block else []
    values = block[1] if block else recipe.values({})
    edits += _unimport(syntax, change, edits)
    _refuse_called(syntax, recipe, edits)
    return Standing(edits, values, whole and bool(block or not change.before))


def _block(syntax: Syntax, recipe: Recipe, change: Change) -> tuple[Edit, dict[str, str]] | None:
    """What takes the block out, and its options. Raises RefusedError if its function has another text."""
    if not change.before:
        return None
    text = syntax.script.text
    defining = [s for s in syntax.statements if recipe.defines and s.defines == recipe.defines]
    starts = [lead(syntax, statement.start) for statement in defining]
    if not recipe.defines:  # the text alone tells, so it may be at any line
        starts = [0, *(newline.end() for newline in re.finditer("\n", text))]
    for start in starts:
        if standing := _standing(syntax, recipe, start):
            return _with_blank_lines(text, start, standing[0], change.place), standing[1]
    if defining:
        what = f"{recipe.defines} is defined here, but not in the form that this recipe has written"
        raise _by_hand(syntax, what, defining[0].start)
    return None


def _standing(syntax: Syntax, recipe: Recipe, start: int) -> tuple[int, dict[str, str]] | None:
    """Where the block that begins at an offset ends, and its options. It may have any indentation and line ends."""
    language, text = syntax.script.language, syntax.script.text
    values = {}
    for name, option in recipe.options.items():
        lines = r"\r?\n[ \t]*".join(map(re.escape, option.lines(language)))
        added = re.compile(option.pattern(lines)).search(text, start)
        values[name] = option.fill(option.form, added.groupdict()) if added else option.default
    at = start
    for line in block_lines(recipe, values, language):
        end = next_line(text, at)
        here = text[at:end].rstrip("\r\n")
        if not here.endswith(line) or here.removesuffix(line).strip(" \t"):
            return None
        at = end
    return at, values


def _with_blank_lines(text: str, start: int, end: int, place: str) -> Edit:
    """Take out the block and the blank lines that came with it: those below it, else those above."""
    blank = r"(?:\r?\n){2}" if place == "module" else r"\r?\n"
    below = re.compile(blank).match(text, end)
    above = re.compile(rf"(?:{blank})\Z").search(text[:start])
    if below:
        return Edit(start, below.end(), "")
    return Edit(above.start() if above else start, end, "")


def _refuse_called(syntax: Syntax, recipe: Recipe, edits: Sequence[Edit]) -> None:
    """Refuse a script that, without the block, would still call what the block defines."""
    text = without_comments(syntax.script.text)
    for name in re.finditer(rf"\b{re.escape(recipe.defines)}\b", text) if recipe.defines else ():
        if not any(edit.start <= name.start() < edit.end for edit in edits):
            what = f"{recipe.defines} is called in a place where this recipe has not put it"
            raise _by_hand(syntax, what, name.start())


def _by_hand(syntax: Syntax, what: str, at: int) -> RefusedError:
    text = syntax.script.text
    line = text[line_start(text, at) : next_line(text, at)].strip()
    hint = f"Take it out by hand, then run `ci-patcher patch` again. Seen: {line}"
    return RefusedError(what, where=syntax.script.where(at), hint=hint)


# what stands at the build itself


def _at_the_build(syntax: Syntax, change: Change, anchor: Anchor) -> tuple[list[Edit], bool]:
    """What takes out the wrappers and inserted words, and whether every try of the build has them."""
    text = syntax.script.text
    edits: list[Edit] = []
    whole = True
    for command in anchor.commands if change.wrap else ():
        wrapped = _wrapped(text, command, change)
        if not wrapped:
            whole = False
            continue
        if change.directive and wrapped.start() == command.words[0].start:
            at = line_start(text, syntax.statements[command.statement].start)
            above = re.compile(rf"[ \t]*{re.escape(change.directive)}\r?\n\Z").search(text[:at])
            if above and [word.start for word in unquoted(command, text)] == [wrapped.end()]:
                edits.append(Edit(above.start(), above.end(), ""))
        callee = wrapped.groupdict().get("callee")
        edits.append(Edit(*wrapped.span(), f"{callee}(" if callee else ""))
    words = inserted(syntax, change)
    for behind, following in pairwise([*anchor.behind, len(text)]) if change.insert else ():
        # On the line of the words that name the build, where another recipe's words may stand before them.
        at = text.find(words, behind, min(following, next_line(text, behind)))
        whole = whole and at >= 0
        edits += [Edit(at, at + len(words), "")] if at >= 0 else []
    return edits, whole


def _wrapped(text: str, command: Command, change: Change) -> re.Match[str] | None:
    """The wrapper before the words that name the build, with what it wraps in the group ``callee``."""
    start, end = command.head
    if start < 0:
        return None
    before, callee, after = change.wrap.partition("{callee}")
    if not callee:
        return re.compile(re.escape(before)).match(text, start)
    # Behind it, in the head, blanks and comments can stand that were there before.
    pattern = rf"{re.escape(before)}(?P<callee>.+){re.escape(after.rstrip(' '))} ?(?=(?:\s|#[^\n]*\n)*\Z)"
    return re.compile(pattern, re.DOTALL).match(text, start, end)


def _unimport(syntax: Syntax, change: Change, gone: Sequence[Edit]) -> list[Edit]:
    """Take out the imports that only what is taken out needs."""
    text = syntax.script.text
    edits: list[Edit] = []
    spans = [edit for edit in gone if not edit.text]  # not what a wrapper leaves behind
    for module in change.imports:
        readers = users(syntax, module) if module in syntax.imports else []
        if readers and all(any(span.start <= name.offset < span.end for span in spans) for name in readers):
            at = syntax.imports[module]
            edits.append(Edit(max(line_start(text, at), first(syntax)), next_line(text, at), ""))
    return edits


# blocks of another origin


def foreign(syntax: Syntax, recipe: Recipe) -> Foreign | None:
    """The form of the foreign block in a script, if there is one."""
    names = {name.name for name in syntax.names}
    forms = [form for form in recipe.replaces if names & set(form.variables)]
    return min(forms, key=lambda form: form.variables[0] not in names, default=None)


def removals(syntax: Syntax, form: Foreign, recipe: Recipe) -> list[Edit]:
    """The edits that take a foreign block out of a script, with its comments and spare blank lines."""
    text = syntax.script.text
    spans: list[tuple[int, int]] = []
    skip_to = -1
    for statement in sorted(syntax.statements, key=lambda s: (s.start, -s.end)):
        if statement.start < skip_to or not _belongs(syntax, statement, form, recipe.hook):
            continue
        skip_to = statement.end
        start, end = lead(syntax, statement.start), next_line(text, statement.end)
        if spans and start <= spans[-1][1]:
            start = spans.pop()[0]
        spans.append((start, end))
    edits: list[Edit] = []
    for start, end in spans:
        # A blank line goes along where two would meet, or where one would open a list of statements.
        following = re.compile(r"[ \t]*\r?\n").match(text, end)
        spare = following and begins_paragraph(text, start)
        edits.append(Edit(start, following.end() if following and spare else end, ""))
    return edits


def _belongs(syntax: Syntax, statement: Statement, form: Foreign, hook: str) -> bool:
    """Whether a statement is one of the block, and alone on its lines."""
    text = syntax.script.text
    behind = text[statement.end :].split("\n", 1)[0].strip()
    if not statement.begins_line(text) or (behind and behind != ";" and not behind.startswith("#")):
        return False
    inside = [n for n in syntax.names if statement.start <= n.offset < statement.end and not n.name.isdigit()]
    found = {name.name for name in inside}
    if found == {hook}:  # an assignment of nothing, which only such a block needs
        return len(inside) == 1 and inside[0].assigned and inside[0].value == ""
    return bool(found & set(form.variables)) and found <= {*form.variables, *form.reads, hook}


def refuse_unknown(syntax: Syntax, recipe: Recipe, gone: Iterable[str] = ()) -> None:
    """Raise RefusedError if a block stands here that is like none of the known forms, or if one of the variables
    ``gone`` with a foreign block is left."""
    variables = set(gone)
    left = [name.offset for name in syntax.names if name.name in variables][:1]
    if not left:
        code = without_comments(syntax.script.text)
        left = [match.start() for pattern in recipe.seen for match in pattern.finditer(code)]
    if left:
        raise unknown(syntax, recipe, min(left))


def unknown(syntax: Syntax, recipe: Recipe, offset: int) -> RefusedError:
    """The error for a block of an unknown form."""
    return _by_hand(syntax, f"this is like none of the forms that the recipe {recipe.name} knows", offset)
