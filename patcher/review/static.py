"""The static review: what can be told of a result without running it.

Each check takes texts and returns a Finding, so that each can be shown to fail. Programs that read the texts run in
the sandbox.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import shutil
import sysconfig
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from patcher import lines
from patcher.model import Finding, Script, Verdict
from patcher.review import sandbox

# Upstream's lint: test/lint/lint-shell.py and test/lint/lint-python.py.
SHELLCHECK = ("--external-sources", "--check-sourced", "--source-path=SCRIPTDIR", "--exclude=SC2162", "--format=json")
_RUFF = ("check", "--isolated", "--no-cache", "--select=B006,B008,E,F,PLE,W", "--ignore=E501,E741")
_VULTURE = """import sys
sys.path.insert(0, "/ci-patcher")
from vulture import Vulture
for name in sys.argv[1:]:
    found = Vulture()
    found.scavenge([name])
    for item in found.get_unused_code(min_confidence=100):
        print(name, item.message)
"""
_SECONDS = 30
_LIMITED = 'ulimit -v 1048576 && ulimit -t 60 && ulimit -f 32768 && cd /home && exec "$@"'  # KiB, seconds, blocks


class _Message(msgspec.Struct):
    """What a linter says; ShellCheck and ruff name the file differently."""

    code: int | str | None
    message: str
    file: str = ""
    filename: str = ""


def _finding(check: str, problem: str, held: str = "", evidence: str = "") -> Finding:
    return Finding(check, Verdict.BROKEN if problem else Verdict.HELD, problem or held, evidence=evidence)


def _not_run(check: str, why: str) -> Finding:
    return Finding(check, Verdict.NOT_RUN, why)


def _run(argv: Sequence[str], scripts: Sequence[Script], bind: Path | None = None) -> sandbox.Completed | str:
    """A program in the sandbox on scripts, which lie in the folders 0, 1, ...; or why it did not run.

    ``bind`` is what it is, where that lies outside of the system; in the sandbox it is in /ci-patcher.
    """
    if why := sandbox.missing():
        return why
    # A CR at each line's end would be all that a linter sees, and bash does not read such a script.
    texts = [script.text.replace("\r\n", "\n") for script in scripts]
    entries = []
    for number, (script, text) in enumerate(zip(scripts, texts, strict=True)):
        entries += [[f"/home/{number}", "directory", "755", ""], [_place(number, script), "file", "644", text]]
    binds = [sandbox.Bind(bind.resolve(), f"/ci-patcher/{bind.name}", read_only=True)] if bind else []
    done = sandbox.run(["/bin/sh", "-c", _LIMITED, "sh", *argv], binds=binds, entries=entries, seconds=_SECONDS)
    return done.trouble or done


def _place(number: int, script: Script) -> str:
    return f"/home/{number}/{Path(script.path).name}"


def parses(result: Script, language: str) -> Finding:
    """Whether bash or the running Python reads the result."""
    if language == "python":
        try:
            compile(result.data, result.path, "exec")
        except SyntaxError as error:
            return _finding("parses", f"compile: line {error.lineno}: {error.msg}")
        return _finding("parses", "", "compile")
    # The patterns that a script may switch on are grammar, and bash -n switches nothing on.
    patterns = ["-O", "extglob"] if "extglob" in result.text else []
    done = _run(["bash", "--norc", *patterns, "-n", _place(0, result)], [result])
    if isinstance(done, str):
        return _not_run("parses", done)
    if not done.status:
        return _finding("parses", "", "bash -n")
    said = [*done.stderr.decode("utf8", "replace").strip().splitlines(), f"bash -n: status {done.status}"]
    return _finding("parses", said[0]) if 0 < done.status < 126 else _not_run("parses", said[0])


def one_build(before: int, after: int) -> Finding:
    """Whether the result still has the one build, tried as often as before."""
    problem = "" if before == after else f"{before} tries of the build before, {after} after"
    return _finding("one build", problem, "one" if after == 1 else f"one, tried {after} times")


def _lines(script: Script) -> list[str]:
    """The lines with their ends. A byte order mark stays in front of whatever is put in, so no line has it."""
    return lines.split(script.text.removeprefix("\ufeff"))


def _extends(new: str, old: str) -> bool:
    """Whether a line is another one with words put in: same indentation, same line end, no word lost."""
    margin = [line[: len(line) - len(line.lstrip())] + line[len(line.rstrip()) :] for line in (new, old)]
    return margin[0] == margin[1] and set(re.findall(r"\w+", old)) <= set(re.findall(r"\w+", new))


def only_intended(reference: Script, result: Script, builds: Sequence[int]) -> Finding:
    """Whether no line changed but the build command's. ``builds`` are offsets in the reference."""
    wanted = {reference.text.count("\n", 0, offset) for offset in builds}
    lost: list[str] = []
    added = replaced = 0
    for hunk in lines.hunks(_lines(reference), _lines(result)):
        added += len(hunk.new)
        for number, old in enumerate(hunk.old, hunk.old_at):
            if number in wanted and any(_extends(new, old) for new in hunk.new):
                replaced += 1
            else:
                lost.append(old.rstrip("\r\n"))
    problem = f"{len(lost)} other lines are changed, the first: {lost[0].strip()}" if lost else ""
    return _finding(
        "only the intended lines", problem, f"{added} added, {replaced} of them the build's", "\n".join(lost)
    )


def style(reference: Script, result: Script) -> Finding:
    """Whether the added lines have neither tabs nor trailing blanks where the others have none."""
    had = set(_lines(reference))
    added = [line for line in _lines(result) if line not in had]
    bad = [line for line in added if "\t" in line.strip() or re.search(r"[ \t]\r?\n?\Z", line)]
    bad = [line.rstrip("\r\n") for line in bad if not any(_extends(line, old) for old in had)]
    return _finding("no tabs or trailing blanks", f"added: {bad[0]!r}" if bad else "")


def second_run(changes: bool, why: str = "") -> Finding:
    """Whether a second run finds nothing to do."""
    return _finding("a second run changes nothing", (why or "it would change the result again") if changes else "")


def reverse(reference: Script, reversed_: Script | None) -> Finding:
    """Whether taking the block out again gives the reference's bytes."""
    if reversed_ is None:
        return _finding("the reverse gives the original", "our block is not recognized in the result")
    if reversed_.data == reference.data:
        return _finding("the reverse gives the original", "")
    shown = difflib.unified_diff(
        reference.text.splitlines(), reversed_.text.splitlines(), "original", "reverse", lineterm=""
    )
    return _finding("the reverse gives the original", "the bytes differ", evidence="\n".join(list(shown)[:20]))


def applies(refusal: str) -> Finding:
    """Whether ``git apply --check`` takes the patch."""
    return _finding("git apply --check", refusal)


def linted(original: Script, result: Script, language: str) -> list[Finding]:
    """What upstream's linters find in the result that they did not find in the original."""
    pair = (original, result)
    if language == "shell":
        return [_compared("shellcheck", _shellcheck(pair))]
    unencoded = [_unencoded(script) for script in pair]
    return [_compared("ruff", _ruff(pair)), _compared("vulture", _vulture(pair)), _compared("encoding", unencoded)]


def _compared(check: str, found: Sequence[Counter[str]] | str) -> Finding:
    if isinstance(found, str):
        return _not_run(check, found)
    new = sorted((found[1] - found[0]).elements())
    return _finding(check, f"new: {new[0]}" if new else "", "nothing new", "\n".join(new))


def _program(name: str) -> str | None:
    """A linter of this environment: its scripts folder comes first, since nobody has to have activated it."""
    return shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]))


def _messages(name: str, words: Sequence[str], pair: Sequence[Script]) -> list[Counter[str]] | str:
    """What a linter says of each script, or why it says nothing."""
    program = _program(name)
    if program is None:
        return f"{name} is missing"
    places = [_place(number, script) for number, script in enumerate(pair)]
    done = _run([f"/ci-patcher/{name}", *words, *places], pair, Path(program).parent.resolve() / name)
    if isinstance(done, str):
        return f"{name}: {done}"
    try:
        found = msgspec.json.decode(done.stdout, type=list[_Message])
    except msgspec.MsgspecError:
        return f"{name} said: {(done.stdout or done.stderr).decode('utf8', 'replace').strip()[:120]}"
    prefix = "SC" if name == "shellcheck" else ""
    return [
        Counter(f"{prefix}{one.code} {one.message}" for one in found if place in {one.file, one.filename})
        for place in places
    ]


def _shellcheck(pair: Sequence[Script]) -> list[Counter[str]] | str:
    shell = [] if pair[1].text.lstrip("\ufeff").startswith("#!") else ["--shell=bash"]
    return _messages("shellcheck", [*SHELLCHECK, *shell], pair)


def _ruff(pair: Sequence[Script]) -> list[Counter[str]] | str:
    return _messages("ruff", [*_RUFF, "--output-format=json"], pair)


def _vulture(pair: Sequence[Script]) -> list[Counter[str]] | str:
    spec = importlib.util.find_spec("vulture")
    if spec is None or not spec.origin:
        return "vulture is missing"
    places = [_place(number, script) for number, script in enumerate(pair)]
    done = _run([sandbox.python(), "-I", "-S", "-c", _VULTURE, *places], pair, Path(spec.origin).parent)
    if isinstance(done, str) or done.status not in {0, 1, 3}:
        return f"vulture: {done if isinstance(done, str) else done.stderr.decode('utf8', 'replace').strip()[-120:]}"
    said = [line.split(" ", 1) for line in done.stdout.decode("utf8", "replace").splitlines()]
    return [Counter(message for name, message in said if name == place) for place in places]


def _unencoded(script: Script) -> Counter[str]:
    """Lines that open a text file without an encoding, which upstream's lint refuses up to 30.x."""
    return Counter(
        line.strip()
        for line in script.text.splitlines()
        if " open(" in line and "encoding=" not in line and not any(f'"{m}' in line for m in ("rb", "wb", "ab"))
    )
