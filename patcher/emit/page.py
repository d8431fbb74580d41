"""One HTML page that needs nothing else: a matrix of branches by rows of the contract, and each branch's review.

The template (page.html) escapes every text, so that nothing from a script or a repository becomes HTML. The page's
Content-Security-Policy names its style and script by their hashes and forbids all else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers.python import PythonLexer
from pygments.lexers.shell import BashLexer

from patcher.emit import git, report
from patcher.emit.text import visible
from patcher.model import ABSENT, Finding, Outcome, Patch, Recipe, Result, Script, Verdict

_HERE = Path(__file__).parent
# The class and the sign of a verdict. None stands for a row that has no scenario for a script.
_MARKS = {
    Verdict.HELD: ("held", "✓"),
    Verdict.BROKEN: ("broken", "✗"),
    Verdict.NOT_RUN: ("not-run", "○"),
    None: ("absent", "–"),
}


def page(
    outcomes: Sequence[Outcome],
    recipe: Recipe,
    values: Mapping[str, str],
    message: str,
    contract: Mapping[int, str],
) -> bytes:
    """The page. ``message`` is the commit's, ``contract`` has a title for each row."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (_HERE.joinpath(name).read_text(encoding="utf8") for name in ("page.css", "page.js"))
    environment.globals |= {"marks": _MARKS, "of_finding": _of_finding, "of_row": of_row, "of_static": _of_static}
    environment.globals |= {"report": report, "diff": _diff, "hash": _hash}
    known = {"recipe": recipe, "values": values, "message": message, "contract": contract}
    known |= {"outcomes": outcomes, "style": Markup(style), "script": Markup(script), "results": list(Result)}
    return environment.get_template("page.html").render(known).encode()


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf8")).digest()).decode("ascii")


def _of_finding(finding: Finding) -> Verdict | None:
    return None if finding.detail == ABSENT else finding.verdict


def of_row(done: Patch, row: int) -> Verdict | None:
    """The verdict of a row of the contract: the worst of its scenarios, None where none applies."""
    if not any(finding.row for finding in done.findings):
        return Verdict.NOT_RUN
    return report.rows([finding for finding in done.findings if _of_finding(finding)]).get(row)


def _of_static(done: Patch) -> Verdict:
    """The worst verdict of the static review. ``notes`` say that a part of it was left out."""
    verdicts = {finding.verdict for finding in done.findings if not finding.row}
    if Verdict.BROKEN in verdicts:
        return Verdict.BROKEN
    return Verdict.NOT_RUN if done.notes or Verdict.NOT_RUN in verdicts else Verdict.HELD


def _diff(old: Script, new: Script) -> Iterator[tuple[str, object, object, str]]:
    """The lines of git's diff: what kind of line, its number before and after, its text in colour."""
    text = git.diff(((old, new),)).decode("utf8", "surrogateescape")
    colored = {"-": _colored(old), "+": _colored(new)}
    before = after = 0
    for line in text[text.index("\n@@") + 1 :].removesuffix("\n").split("\n"):
        sign = line[0]
        if sign not in "+- ":
            if hunk := re.match(r"@@ -(\d+)(?:,\d+)? \+(\d+)", line):
                before, after = int(hunk[1]), int(hunk[2])
            yield "hunk", "", "", line
            continue
        code = colored["-"][before - 1] if sign == "-" else colored["+"][after - 1]
        kind = {"+": "added", "-": "gone", " ": "same"}[sign]
        yield kind, "" if sign == "+" else before, "" if sign == "-" else after, Markup(sign) + code
        before += sign != "+"
        after += sign != "-"


def _colored(script: Script) -> list[Markup]:
    """The lines of a script as HTML."""
    lexer = PythonLexer if script.language == "python" else BashLexer
    shown = highlight(visible(script.text), lexer(stripnl=False, ensurenl=False), HtmlFormatter(nowrap=True))
    return [Markup(line) for line in shown.split("\n")]
