"""The static review: what can be told of a result without running it.

Each check takes texts and returns a Finding, so that each can be shown to fail.
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from patcher.model import Finding, Script, Verdict

# Upstream's lint: test/lint/lint-shell.py and test/lint/lint-python.py.
_SHELLCHECK = ["--external-sources", "--check-sourced", "--source-path=SCRIPTDIR", "--exclude=SC2162"]
_RUFF = [
    "check",
    "--isolated",
    "--no-cache",
    "--select=B006,B008,E,F,PLE,W",
    "--ignore=E501,E741",
    "--output-format=json",
]
_SECONDS = 60


def _finding(check: str, problem: str, held: str = "", evidence: str = "") -> Finding:
    return Finding(check, Verdict.BROKEN if problem else Verdict.HELD, problem or held, evidence=evidence)


def _not_run(check: str, why: str) -> Finding:
    return Finding(check, Verdict.NOT_RUN, why)


def parses(result: Script, language: str) -> Finding:
    """Whether bash or the running Python reads the result."""
    if language == "python":
        try:
            compile(result.data, result.path, "exec")
        except SyntaxError as error:
            return _finding("parses", f"compile: line {error.lineno}: {error.msg}")
        return _finding("parses", "", "compile")
    bash = shutil.which("bash")
    if bash is None:
        return _not_run("parses", "bash is missing")
    # In a file, since bash reads a pipe byte by byte.
    with tempfile.TemporaryFile(prefix="ci-patcher-") as file:
        # bash takes no CR LF, upstream's editors may: whoever runs such a file has the CRs taken out first.
        file.write(result.data.replace(b"\r\n", b"\n"))
        # The patterns that a script may switch on are grammar, and bash -n switches nothing on.
        for patterns in ([], *([["-O", "extglob"]] if b"extglob" in result.data else [])):
            file.seek(0)
            done = subprocess.run(
                [bash, "--norc", *patterns, "-n"], stdin=file, capture_output=True, check=False, env={"LC_ALL": "C"},
                timeout=_SECONDS,
            )  # fmt: skip
            if not done.returncode:
                break
    problem = done.stderr.decode("utf8", "replace").strip().splitlines()
    return _finding("parses", problem[0] if done.returncode and problem else "", "bash -n")


def one_build(before: int, after: int) -> Finding:
    """Whether the result still has the one build, tried as often as before."""
    problem = "" if before == after else f"{before} tries of the build before, {after} after"
    return _finding("one build", problem, "one" if after == 1 else f"one, tried {after} times")


def _lines(script: Script) -> list[str]:
    """The lines with their ends, which are newlines only: a form feed ends none. A byte order mark, which stays in
    front whatever is put in behind it, is of none."""
    return [line for line in re.split(r"(?<=\n)", script.text.removeprefix("\ufeff")) if line]


def changed_lines(
    reference: Script, result: Script, builds: Sequence[int]
) -> tuple[list[str], list[tuple[str, str]], int]:
    """The lines of the reference that are gone without being a build's, the builds' lines before and after,
    and how many lines were added. ``builds`` are offsets in the reference."""
    old, new = _lines(reference), _lines(result)
    wanted = {reference.text.count("\n", 0, offset) for offset in builds}
    top = 0
    while top < min(len(old), len(new)) and old[top] == new[top]:
        top += 1
    bottom = 0
    while bottom < min(len(old), len(new)) - top and old[-1 - bottom] == new[-1 - bottom]:
        bottom += 1
    lost: list[str] = []
    replaced: list[tuple[str, str]] = []
    added = 0
    middle = difflib.SequenceMatcher(None, old[top : len(old) - bottom], new[top : len(new) - bottom], autojunk=False)
    for tag, i1, i2, j1, j2 in middle.get_opcodes():
        if tag == "equal":
            continue
        added += j2 - j1
        candidates = new[top + j1 : top + j2]
        for i in range(top + i1, top + i2):
            match = next((line for line in reversed(candidates) if _extends(line, old[i])), None)
            if i in wanted and match:
                replaced.append((old[i], match))
            else:
                lost.append(old[i].rstrip("\r\n"))
    return lost, replaced, added


def _extends(new: str, old: str) -> bool:
    """Whether a line is another one with words put in: same indentation, same line end, no word lost."""
    margin = [line[: len(line) - len(line.lstrip())] + line[len(line.rstrip()) :] for line in (new, old)]
    return margin[0] == margin[1] and set(re.findall(r"\w+", old)) <= set(re.findall(r"\w+", new))


def only_intended(reference: Script, result: Script, builds: Sequence[int]) -> Finding:
    """Whether no line changed but the build command's."""
    lost, replaced, added = changed_lines(reference, result, builds)
    problem = f"{len(lost)} other lines are changed, the first: {lost[0].strip()}" if lost else ""
    return _finding(
        "only the intended lines", problem, f"{added} added, {len(replaced)} of them the build's", "\n".join(lost)
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
    lines = difflib.unified_diff(
        reference.text.splitlines(), reversed_.text.splitlines(), "original", "reverse", lineterm=""
    )
    return _finding("the reverse gives the original", "the bytes differ", evidence="\n".join(list(lines)[:20]))


def applies(refusal: str) -> Finding:
    """Whether ``git apply --check`` takes the patch."""
    return _finding("git apply --check", refusal)


def linted(original: Script, result: Script, language: str) -> list[Finding]:
    """What upstream's linters find in the result that they did not find in the original."""
    if language == "shell":
        return [_compared("shellcheck", _shellcheck(original), _shellcheck(result))]
    findings = [
        _compared("ruff", _ruff(original), _ruff(result)),
        _compared("vulture", _vulture(original), _vulture(result)),
    ]
    findings.append(_compared("encoding", _unencoded(original), _unencoded(result)))
    return findings


def _compared(check: str, before: Counter[str] | str, after: Counter[str] | str) -> Finding:
    if isinstance(before, str) or isinstance(after, str):
        return _not_run(check, before if isinstance(before, str) else str(after))
    new = after - before
    lines = sorted(new.elements())
    return _finding(check, f"new: {lines[0]}" if lines else "", "nothing new", "\n".join(lines))


def _program(name: str) -> str | None:
    """A linter of this environment: its scripts folder comes first, since nobody has to have activated it."""
    return shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]))


def _run(name: str, arguments: Sequence[str], script: Script) -> str | tuple[int, str]:
    """The output of a linter on a script alone in a folder, or why it did not run."""
    program = _program(name)
    if program is None:
        return f"{name} is missing"
    with tempfile.TemporaryDirectory(prefix="ci-patcher-") as folder:
        file = Path(folder) / Path(script.path).name
        file.write_bytes(script.data.replace(b"\r\n", b"\n"))  # a CR at each line's end would be all that it sees
        try:
            done = subprocess.run(
                [program, *arguments, file.name], cwd=folder, capture_output=True, check=False, timeout=_SECONDS,
                env={"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "LC_ALL": "C.UTF-8"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"{name} took more than {_SECONDS} s"
    return done.returncode, done.stdout.decode("utf8", "replace") or done.stderr.decode("utf8", "replace")


def _shellcheck(script: Script) -> Counter[str] | str:
    shell = [] if script.text.lstrip("\ufeff").startswith("#!") else ["--shell=bash"]
    done = _run("shellcheck", [*_SHELLCHECK, *shell, "--format=json"], script)
    return done if isinstance(done, str) else _messages("shellcheck", done[1])


def _messages(name: str, output: str) -> Counter[str] | str:
    import json  # not for a run without linters

    try:
        found = json.loads(output)
    except json.JSONDecodeError:
        return f"{name} said: {output.strip()[:120]}"
    return Counter(f"{'SC' if name == 'shellcheck' else ''}{entry['code']} {entry['message']}" for entry in found)


def _ruff(script: Script) -> Counter[str] | str:
    done = _run("ruff", _RUFF, script)
    return done if isinstance(done, str) else _messages("ruff", done[1])


def _vulture(script: Script) -> Counter[str] | str:
    done = _run("vulture", ["--min-confidence=100"], script)
    if isinstance(done, str):
        return done
    return Counter(line.split(": ", 1)[-1] for line in done[1].splitlines())


def _unencoded(script: Script) -> Counter[str]:
    """Lines that open a text file without an encoding, which upstream's lint refuses up to 30.x."""
    return Counter(
        line.strip()
        for line in script.text.splitlines()
        if " open(" in line and "encoding=" not in line and not any(f'"{m}' in line for m in ("rb", "wb", "ab"))
    )
