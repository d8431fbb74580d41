"""The static review: what can be told of a result without running it.

Each check takes texts and returns a Finding, so that each can be shown to fail. Programs that read the texts run in
the sandbox.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import sysconfig
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import msgspec

from patcher import lines
from patcher.model import Finding, Script, Verdict
from patcher.review import sandbox

# Upstream's lint: test/lint/lint-shell.py and test/lint/lint-python.py.
SHELLCHECK = ("--external-sources", "--check-sourced", "--source-path=SCRIPTDIR", "--exclude=SC2162", "--format=json")
_RUFF = (
    *("check", "--isolated", "--no-cache", "--output-format=json"),
    *("--select=B006,B008,E,F,PLE,W", "--ignore=E501,E741"),
)
_VULTURE = """import json, sys
sys.path.insert(0, "/ci-patcher")
from vulture import Vulture
messages = []
for name in sys.argv[1:]:
    found = Vulture()
    found.scavenge([name])
    unused = found.get_unused_code(min_confidence=100)
    messages += [{"file": name, "message": item.message} for item in unused]
print(json.dumps(messages))
"""
_LIMITED = 'ulimit -v 1048576 && ulimit -t 60 && ulimit -f 32768 && cd /home && exec "$@"'  # KiB, seconds, blocks


class _Message(msgspec.Struct):
    """What a linter says; ShellCheck and ruff name the file differently."""

    message: str
    code: int | str | None = None
    file: str = ""
    filename: str = ""


def _finding(check: str, problem: str, held: str = "", evidence: str = "") -> Finding:
    return Finding(check, Verdict.BROKEN if problem else Verdict.HELD, problem or held, evidence=evidence)


def _run(argv: Sequence[str], scripts: Mapping[str, Script], bind: Path | None = None) -> sandbox.Completed | str:
    """A program in the sandbox, with the scripts by their paths there as its last words; or why it did not run.

    ``bind`` is a file or directory outside of the system that the program needs; the sandbox has it in /ci-patcher.
    """
    if why := sandbox.missing():
        return why
    entries = []
    for place, script in scripts.items():
        # A CR at each line's end would be all that a linter sees, and bash does not read such a script.
        text = script.text.replace("\r\n", "\n")
        entries += [[os.path.dirname(place), "directory", "755", ""], [place, "file", "644", text]]
    binds = [sandbox.Bind(bind.resolve(), f"/ci-patcher/{bind.name}", read_only=True)] if bind else []
    words = ["/bin/sh", "-c", _LIMITED, "sh", *argv, *scripts]
    done = sandbox.run(words, binds=binds, entries=entries)
    return done.trouble or done


def _placed(*scripts: Script) -> dict[str, Script]:
    """The scripts by their paths in the sandbox."""
    return {f"/home/{number}/{Path(script.path).name}": script for number, script in enumerate(scripts)}


def parses(result: Script) -> Finding:
    """Whether bash or the running Python reads the result."""
    if result.language == "python":
        try:
            compile(result.data, result.path, "exec")
        except SyntaxError as error:
            return _finding("parses", f"compile: line {error.lineno}: {error.msg}")
        return _finding("parses", "", "compile")
    # The patterns that a script may switch on are grammar, and bash -n switches nothing on.
    patterns = ["-O", "extglob"] if "extglob" in result.text else []
    done = _run(["bash", "--norc", *patterns, "-n"], _placed(result))
    if isinstance(done, str):
        return Finding("parses", Verdict.NOT_RUN, done)
    if not done.status:
        return _finding("parses", "", "bash -n")
    said = [*done.stderr.decode("utf8", "replace").strip().splitlines(), f"bash -n: status {done.status}"]
    return Finding("parses", Verdict.BROKEN if 0 < done.status < 126 else Verdict.NOT_RUN, said[0])


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
    held = f"{added} added, {replaced} of them the build's"
    return _finding("only the intended lines", problem, held, "\n".join(lost))


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
    check = "the reverse gives the original"
    if reversed_ is None:
        return _finding(check, "our block is not recognized in the result")
    old, new = reference.text.splitlines(), reversed_.text.splitlines()
    shown = list(difflib.unified_diff(old, new, "original", "reverse", lineterm=""))[:20]
    return _finding(check, "" if reversed_.data == reference.data else "the bytes differ", evidence="\n".join(shown))


def applies(refusal: str) -> Finding:
    """Whether ``git apply --check`` takes the patch."""
    return _finding("git apply --check", refusal)


def linted(original: Script, result: Script) -> list[Finding]:
    """What upstream's linters find in the result that they did not find in the original."""
    pair = _placed(original, result)
    if result.language == "shell":
        shell = [] if result.text.lstrip("\ufeff").startswith("#!") else ["--shell=bash"]
        return [_compared("shellcheck", _program("shellcheck", [*SHELLCHECK, *shell], pair))]
    vulture = [sandbox.python(), "-I", "-S", "-c", _VULTURE]
    return [
        _compared("ruff", _program("ruff", _RUFF, pair)),
        _compared("vulture", _messages("vulture", vulture, pair, Path(str(resources.files("vulture"))))),
        _compared("encoding", [_unencoded(script) for script in pair.values()]),
    ]


def _compared(check: str, found: Sequence[Counter[str]] | str) -> Finding:
    if isinstance(found, str):
        return Finding(check, Verdict.NOT_RUN, found)
    new = sorted((found[1] - found[0]).elements())
    return _finding(check, f"new: {new[0]}" if new else "", "nothing new", "\n".join(new))


def _program(name: str, words: Sequence[str], pair: Mapping[str, Script]) -> list[Counter[str]] | str:
    # The environment's scripts folder comes first, since nobody has to have activated it.
    folders = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    program = shutil.which(name, path=folders)
    if program is None:
        return f"{name} is missing"
    return _messages(name, [f"/ci-patcher/{name}", *words], pair, Path(program).parent.resolve() / name)


def _messages(name: str, argv: Sequence[str], pair: Mapping[str, Script], bind: Path) -> list[Counter[str]] | str:
    """What a linter says of each script, or why it says nothing."""
    done = _run(argv, pair, bind)
    if isinstance(done, str):
        return f"{name}: {done}"
    try:
        found = msgspec.json.decode(done.stdout, type=list[_Message])
    except msgspec.MsgspecError:
        return f"{name} said: {(done.stdout or done.stderr).decode('utf8', 'replace').strip()[-120:]}"
    prefix = "SC" if name == "shellcheck" else ""
    return [
        Counter(f"{prefix}{one.code or ''} {one.message}".strip() for one in found if place in {one.file, one.filename})
        for place in pair
    ]


def _unencoded(script: Script) -> Counter[str]:
    """Lines that open a text file without an encoding, which upstream's lint refuses up to 30.x."""
    return Counter(
        line.strip()
        for line in script.text.splitlines()
        if " open(" in line and "encoding=" not in line and not any(f'"{m}' in line for m in ("rb", "wb", "ab"))
    )
