"""One self-contained HTML page: a matrix of branches by rows of the contract, and below it each branch's review.

Every text goes through ``_tag``, which escapes it, so that nothing from a script or a repository becomes HTML. The
page's own style and script are named by their hashes in its Content-Security-Policy, which forbids all else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pygments.lexers.python import PythonLexer
from pygments.lexers.shell import BashLexer
from pygments.token import Token

from patcher.emit import git, pull_request, report
from patcher.model import Finding, Outcome, Patch, Recipe, Result, Script, Verdict

_HERE = Path(__file__).parent
_ABSENT = "does not arise in this script"
# What a cell of the matrix says: the verdicts, and None for a row that a script gives no occasion for.
_MARKS = {
    Verdict.HELD: ("held", "✓"),
    Verdict.BROKEN: ("broken", "✗"),
    Verdict.NOT_RUN: ("not-run", "○"),
    None: ("absent", "–"),
}
_COLORS = (
    (Token.Comment, "c"),
    (Token.Literal.String.Interpol, "v"),
    (Token.Literal.String, "s"),
    (Token.Literal.Number, "n"),
    (Token.Keyword, "k"),
    (Token.Operator.Word, "k"),
    (Token.Name.Variable, "v"),
    (Token.Name.Builtin, "b"),
    (Token.Name.Function, "f"),
    (Token.Name.Decorator, "f"),
)


class _Html(str):
    """A text that is HTML already."""

    __slots__ = ()


def _tag(name: str, *children: str, **attributes: str) -> _Html:
    """An element. Children that are not HTML already are escaped, and so are the attributes' values. An attribute's
    name loses a final ``_`` and has ``-`` for every other; without a value it is left out."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"' for key, value in attributes.items() if value
    )
    return _Html(f"<{name}{words}>{_join(*children)}</{name}>")


def _join(*children: str) -> _Html:
    return _Html("".join(child if isinstance(child, _Html) else _escaped(child) for child in children))


def _escaped(text: str) -> str:
    return html.escape(re.sub(r"[^\n\t -~]", _visible, text))


def _visible(match: re.Match[str]) -> str:
    """A character, or what to show for one that would hide or reorder others."""
    code = ord(match[0])
    if code < 32:
        return chr(0x2400 + code)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return match[0] if match[0].isprintable() else f"<U+{code:04X}>"


def page(
    outcomes: Sequence[Outcome],
    recipe: Recipe,
    values: Mapping[str, str],
    message: str,
    contract: Mapping[int, str],
) -> bytes:
    """The page. ``message`` is the commit's, ``contract`` the rows with a few words on what each is about."""
    style, script = (_HERE.joinpath(name).read_text(encoding="utf8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = _join(
        _Html('<meta charset="utf-8">\n'),
        _Html(f'<meta http-equiv="Content-Security-Policy" content="{_escaped(policy)}">\n'),
        _Html('<meta name="viewport" content="width=device-width, initial-scale=1">\n'),
        _Html('<meta name="color-scheme" content="light dark">\n'),
        _tag("title", f"Review: {recipe.subject}"),
        _Html(f"\n<style>{style}</style>\n"),
    )
    opened = len(outcomes) == 1
    buttons = [_tag("button", f"{verb.capitalize()} all", type="button", value=verb) for verb in ("open", "close")]
    tools = _tag("div", *buttons, class_="tools", hidden="hidden")
    main = _join(
        _header(outcomes, recipe, values),
        _matrix(outcomes, contract),
        _details("Commit message", _tag("pre", message.rstrip("\n"), tabindex="0"), class_="message"),
        "" if opened else tools,
        *(_branch(outcome, contract, opened) for outcome in outcomes),
    )
    body = _join(_tag("main", main), _Html(f"\n<script>{script}</script>\n"))
    document = f'<!doctype html>\n<html lang="en">\n{_tag("head", head)}\n{_tag("body", body)}\n</html>\n'
    return document.encode("utf8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf8")).digest()).decode("ascii")


def _details(summary: str, *content: str, open_: bool = False, **attributes: str) -> _Html:
    return _tag("details", _tag("summary", summary), *content, open="open" if open_ else "", **attributes)


def _header(outcomes: Sequence[Outcome], recipe: Recipe, values: Mapping[str, str]) -> _Html:
    counts = {result: sum(outcome.result is result for outcome in outcomes) for result in Result}
    results = [_badge(result, f"{count} {result}") for result, count in counts.items() if count]
    options = "".join(f", {name}={value}" for name, value in values.items())
    return _tag(
        "header",
        _tag("h1", recipe.subject),
        _tag("p", "ci-patcher, recipe ", _tag("code", recipe.name), options),
        _tag("p", *results, class_="counts"),
    )


def _badge(result: Result, text: str = "") -> _Html:
    return _tag("span", text or str(result), class_=f"badge {result.name.lower()}")


def _id(outcome: Outcome) -> str:
    return f"branch-{outcome.target.label}"


def verdict(done: Patch, row: int) -> Verdict | None:
    """What a row of the contract came to for a change: the worst of its scenarios, None where none applies."""
    if not any(finding.row for finding in done.findings):
        return Verdict.NOT_RUN
    return report.rows([finding for finding in done.findings if finding.detail != _ABSENT]).get(row)


def _static(done: Patch) -> list[Finding]:
    return [finding for finding in done.findings if not finding.row]


def _worst(done: Patch) -> Verdict:
    """Of the static review, where ``notes`` say that something was not run."""
    verdicts = {finding.verdict for finding in _static(done)} | ({Verdict.NOT_RUN} if done.notes else set())
    return next((one for one in (Verdict.BROKEN, Verdict.NOT_RUN) if one in verdicts), Verdict.HELD)


def _says(value: Verdict | None) -> str:
    return str(value) if value else "not applicable"


def _mark(value: Verdict | None) -> _Html:
    name, sign = _MARKS[value]
    return _tag("span", sign, class_=f"mark {name}", role="img", aria_label=_says(value))


def _matrix(outcomes: Sequence[Outcome], contract: Mapping[int, str]) -> _Html:
    named = [_tag("th", name, scope="col") for name in ("Branch", "Result", "Before", "Lines")]
    rows = [_tag("th", str(row), scope="col", class_="cell", title=title) for row, title in contract.items()]
    table = _tag(
        "table",
        _tag("thead", _tag("tr", *named[:2], _tag("th", "Static", scope="col", class_="cell"), *rows, *named[2:])),
        _tag("tbody", *(_matrix_row(outcome, contract) for outcome in outcomes)),
    )
    legend = [_tag("li", _mark(value), f" {_says(value)}") for value in _MARKS]
    about = [_tag("li", title, value=str(row)) for row, title in contract.items()]
    return _tag(
        "section",
        _tag("h2", "Branches and the rows of the contract", id="matrix"),
        _tag("div", table, class_="scroll", tabindex="0", role="region", aria_labelledby="matrix"),
        _tag("ul", *legend, class_="legend"),
        _details("What the rows are about", _tag("ol", *about, class_="about")) if contract else "",
    )


def _matrix_row(outcome: Outcome, contract: Mapping[int, str]) -> _Html:
    done, name = outcome.change, outcome.target.name
    link = _tag("a", name, href=f"#{_id(outcome)}")
    cells = [_tag("th", link, scope="row"), _tag("td", _badge(outcome.result))]
    if done is None or not done.pairs:
        why = str(done.plan.state) if done else outcome.error.what if outcome.error else ""
        return _tag("tr", *cells, _tag("td", why, colspan=str(3 + len(contract))))
    cells.append(_cell(_worst(done), f"#{_id(outcome)}-static", f"{name}, static review"))
    for row, title in contract.items():
        exists = any(finding.row == row for finding in done.findings)
        target = f"#{_id(outcome)}-row-{row}" if exists else ""
        cells.append(_cell(verdict(done, row), target, f"{name}, row {row}, {title}"))
    cells += [_tag("td", str(done.plan.state)), _tag("td", pull_request.lines(done))]
    return _tag("tr", *cells)


def _cell(value: Verdict | None, target: str, what: str) -> _Html:
    """A cell with a link to what stands behind it. The tab key stops only at those that want a look: else it would
    take hundreds of stops to get past the matrix, and a branch's own link leads to the same places."""
    label = f"{what}: {_says(value)}"
    stop = "" if value in {Verdict.BROKEN, Verdict.NOT_RUN} else "-1"
    link = _tag("a", _mark(value), href=target, title=label, aria_label=label, tabindex=stop)
    return _tag("td", link if target else _mark(value), class_="cell")


def _branch(outcome: Outcome, contract: Mapping[int, str], opened: bool) -> _Html:
    done, target = outcome.change, outcome.target
    facts = {"Revision": "" if target.revision == target.name else target.revision}
    facts["Commit"] = target.commit.name if target.commit else ""
    content: list[str] = []
    if done is None:
        assert outcome.error is not None
        content = [_tag("p", str(outcome.error)), _tag("pre", outcome.error.hint)]
    else:
        found = done.plan
        facts["Build"] = found.where
        facts["Before"] = f"{found.state}" + (f" ({found.foreign.name})" if found.foreign else "")
        facts["Lines"] = pull_request.lines(done) if done.pairs else ""
        facts["Note"] = "; ".join(done.notes)
        content = _review(outcome, done, contract) if done.pairs else [_tag("p", "There is nothing to do.")]
    listed = [_tag("div", _tag("dt", name), _tag("dd", value)) for name, value in facts.items() if value]
    title = _join(_tag("h2", target.name), _badge(outcome.result))
    return _details(title, _tag("dl", *listed), *content, open_=opened, class_="branch", id=_id(outcome))


def _review(outcome: Outcome, done: Patch, contract: Mapping[int, str]) -> list[str]:
    """What is changed, and what the review found."""
    checks = _tag("ul", *map(_finding, _static(done)), class_="findings", id=f"{_id(outcome)}-static")
    content: list[str] = [_diff(old, new) for old, new in done.pairs]
    content += [_tag("h3", "Static review"), checks, _tag("h3", "Scenarios of the contract, with a stub engine")]
    by_row: dict[int, list[Finding]] = {}
    for finding in done.findings:
        if finding.row:
            by_row.setdefault(finding.row, []).append(finding)
    if not by_row:
        content.append(_tag("p", "They were not run."))
    for row, findings in sorted(by_row.items()):
        value = verdict(done, row)
        count = f"{len(findings)} scenario{'s' if len(findings) > 1 else ''}, {_says(value)}"
        about = _tag("span", contract.get(row, ""))
        title = _join(_mark(value), _tag("b", str(row)), about, _tag("small", count))
        bad = any(finding.verdict is not Verdict.HELD for finding in findings)
        listed = _tag("ul", *map(_finding, findings), class_="findings")
        content.append(_details(title, listed, open_=bad, class_="contract", id=f"{_id(outcome)}-row-{row}"))
    return content


def _finding(finding: Finding) -> _Html:
    value = None if finding.detail == _ABSENT else finding.verdict
    line = _join(_mark(value), _tag("span", finding.check), _tag("small", finding.detail))
    if not finding.evidence:
        return _tag("li", _tag("div", line, class_="finding"))
    shown = _tag("pre", finding.evidence, tabindex="0")
    return _tag("li", _details(line, shown, open_=finding.verdict is Verdict.BROKEN, class_="finding"))


def _diff(old: Script, new: Script) -> _Html:
    """The lines of git's own diff, each with its number before and after and the colours of its language."""
    text = git.diff([(old, new)]).decode("utf8", "surrogateescape")
    sources = {"-": _colored(old), "+": _colored(new)}
    lines: list[str] = []
    before = after = 0
    for line in text[text.find("\n@@") + 1 :].split("\n")[:-1]:
        sign = line[0]
        if hunk := re.match(r"@@ -(\d+)(?:,\d+)? \+(\d+)", line):
            before, after = int(hunk[1]), int(hunk[2])
            lines.append(_tag("span", f"{line}\n", class_="line hunk"))
        elif sign == "+":
            lines.append(_line("added", "", str(after), "+", sources["+"][after - 1]))
            after += 1
        elif sign == "-":
            lines.append(_line("gone", str(before), "", "-", sources["-"][before - 1]))
            before += 1
        elif sign == " ":
            lines.append(_line("", str(before), str(after), " ", sources["+"][after - 1]))
            before, after = before + 1, after + 1
        else:
            lines.append(_tag("span", f"{line}\n", class_="line hunk"))
    code = _tag("code", *lines)
    label = f"The change of {new.path}"
    return _tag(
        "figure",
        _tag("figcaption", new.path),
        _tag("pre", code, class_="diff", tabindex="0", role="region", aria_label=label),
    )


def _line(kind: str, before: str, after: str, sign: str, code: _Html) -> _Html:
    numbers = _tag("i", data_before=before, data_after=after)
    return _tag("span", numbers, sign, code, _Html("\n"), class_=f"line {kind}".rstrip())


def _colored(script: Script) -> list[_Html]:
    """The lines of a script as HTML, without their ends."""
    lines: list[list[str]] = [[]]
    for name, text in _pieces(script):
        first, *others = text.split("\n")
        for number, piece in enumerate([first, *others]):
            if number:
                lines.append([])
            if piece:
                lines[-1].append(_tag("span", piece, class_=name) if name else _join(piece))
    return [_Html("".join(line)) for line in lines]


def _pieces(script: Script) -> Iterator[tuple[str, str]]:
    """A script's text in pieces, each with the class of its colour."""
    lexer = PythonLexer() if script.language == "python" else BashLexer()
    # Not get_tokens, which changes the ends of lines.
    for _, kind, text in lexer.get_tokens_unprocessed(script.text):
        yield next((name for known, name in _COLORS if kind in known), ""), text
