"""A recipe's change as edits that put it into a script.

Text is spliced at offsets, so that every other byte stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from patcher.errors import RefusedError
from patcher.layout import begins_paragraph, code, first, lead, line_end, line_start, next_line, unquoted, users
from patcher.model import Anchor, Change, Command, Edit, Recipe, Script, Syntax
from patcher.recipe import OPTION_LINE


def insertion(syntax: Syntax, recipe: Recipe, values: Mapping[str, str], anchor: Anchor) -> list[Edit]:
    """The edits that put a recipe with these options into a script that has nothing of it. Raises RefusedError where
    there is no place for the change."""
    change = recipe.changes[syntax.script.language]
    if change.wrap and anchor.barred:
        raise anchor.barred
    if change.insert and not anchor.behind:
        raise RefusedError(
            "nothing can be put behind the words that name the build",
            where=syntax.script.where(anchor.verbs[0][0]),
            hint="Write these words as elements of a list.",
        )
    _refuse_odd_imports(syntax, change.imports)
    edits = import_edits(syntax, change.imports)
    if change.before:
        edits.append(_block(syntax, anchor, change, block_lines(recipe, values, syntax.script.language)))
    for command in anchor.commands:
        if change.directive:
            edits += _directive(syntax, command, change.directive)
        if change.wrap:
            edits.append(_wrap(syntax.script, command, change.wrap))
    return edits + [Edit(at, at, inserted(syntax, change)) for at in anchor.behind if change.insert]


def block_lines(recipe: Recipe, values: Mapping[str, str], language: str) -> list[str]:
    """The lines that a recipe with these options puts before the build, without indentation of their own."""
    lines: list[str] = []
    for line in recipe.changes[language].before:
        if place := OPTION_LINE.fullmatch(line):
            option = recipe.options[place["option"]]
            parts = option.split(values[place["option"]])
            lines += [place["indent"] + option.fill(extra, parts) for extra in option.lines(language) if parts]
        else:
            lines.append(line)
    return lines


def inserted(syntax: Syntax, change: Change) -> str:
    """The words that go behind those that name the build, with what separates them."""
    return (", " if syntax.script.language == "python" else " ") + change.insert


def _wrap(script: Script, command: Command, wrap: str) -> Edit:
    """Put the wrapper before the build, in Python in place of the call's ``callee(``."""
    start, end = command.head
    if command.callee and script.text[start:end] != f"{command.callee}(":
        raise RefusedError(
            f"the build is not the first argument of {command.callee}( ... ), so nothing can be put before it",
            where=script.where(start),
            hint="Write the list of the build's words first, directly behind the parenthesis. "
            f"If another recipe put {command.callee} there, take that out first: the two do not combine here.",
        )
    text = wrap.replace("{callee}", command.callee)
    return Edit(start, end, text.rstrip(" ") if script.text[end : end + 1] in {"\r", "\n"} else text)


def _block(syntax: Syntax, anchor: Anchor, change: Change, lines: list[str]) -> Edit:
    """The block, above the build and the comments over it, and set off by blank lines."""
    text, newline = syntax.script.text, line_end(syntax)
    module = change.place == "module"
    statement = anchor.statement
    while module and statement.parent >= 0:
        statement = syntax.statements[statement.parent]
    at = max(lead(syntax, statement.start), first(syntax))
    indent = text[at : code(text, at)]
    written = "".join((indent + line if line else "") + newline for line in lines)
    blank = newline * (2 if module else 1)
    return Edit(at, at, written + blank if begins_paragraph(text, at) else blank + written)


def _directive(syntax: Syntax, command: Command, directive: str) -> list[Edit]:
    """The linter's comment above a build whose first word is a variable without quotes.

    ShellCheck accepts an unquoted variable as a command's name, and not as an argument of the wrapper. If other words
    have no quotes either, the script has to deal with them itself.
    """
    text = syntax.script.text
    at = line_start(text, syntax.statements[command.statement].start)
    start = code(text, at)
    begins_line = any(s.start == start and command.words[0].start < s.end for s in syntax.statements)
    if not begins_line or unquoted(command, text) != [command.words[0]]:
        return []
    return [Edit(at, at, text[at:start] + directive + line_end(syntax))]


def _refuse_odd_imports(syntax: Syntax, modules: Iterable[str]) -> None:
    """Raise RefusedError if taking the change out could not tell later whether an import was there before."""
    for module in modules:
        readers = users(syntax, module)
        if bool(readers) != (module in syntax.imports):
            what = "used here but not imported as a module at the top" if readers else "imported and never used"
            at = readers[0].offset if readers else syntax.imports[module]
            raise RefusedError(f"{module} is {what}", where=syntax.script.where(at), hint="Mend that first.")


def import_edits(syntax: Syntax, modules: Iterable[str]) -> list[Edit]:
    """The lines that import what is missing of ``modules``, in the file's order.

    That is before the first plain import of the top block with a later name, else behind the last one. Without a plain
    import there, it is where the parser says that the top block ends.
    """
    text, newline = syntax.script.text, line_end(syntax)
    top = sorted((offset, name) for name, offset in syntax.imports.items() if offset < syntax.imports_end)
    behind = next_line(text, top[-1][0]) if top else syntax.imports_end
    edits: list[Edit] = []
    for module in sorted(set(modules) - set(syntax.imports)):
        at = max(next((offset for offset, name in top if name > module), behind), first(syntax))
        open_line = at > first(syntax) and text[at - 1] not in "\r\n"
        edits.append(Edit(at, at, f"{newline}import {module}" if open_line else f"import {module}{newline}"))
    return edits
