"""Every word of the block is load-bearing: each mutant is noticed, or stands below with the reason why not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from patcher.model import Script, Verdict
from patcher.review import behaviour, sandbox
from tests.test_behaviour import EXECUTED, RECIPE, block, needs_sandbox, patched, plain, python
from tests.test_behaviour import PYTHON as PYTHON_PATH

pytestmark = pytest.mark.long

OPTION = "CIRRUS_BRANCH=master"

# What is replaced, wherever it stands outside of comments. An empty second part deletes.
SHELL = [
    (r" -T\b", ""),
    (r" \|\| exit$", ""),
    (r" && ", " || "),
    (r" \|\| ", " && "),
    (r" 2> /dev/null", ""),
    (r" >&2", ""),
    (r"\[ -z ", "[ -n "),
    (r"\[ -[ew] ", r"! \g<0>"),
    (r'\[ "', r"! \g<0>"),
    (r" = ", " != "),
    (r" != ", " = "),
    (r"if (?=flock)", "if ! "),
    (r":-\}", "}"),
    (r":\?\}", "}"),
    (r"/\.\"", '"'),
    (r"exit 1\b", "exit 0"),
    (r'exit "\$build_status"', "exit 0"),
    (r" --dry-run", ""),
    (r" --shared", ""),
    (r" --shared", " --exclusive"),
    (r" --exclusive", " --shared"),
    (r" --nonblock", ""),
    (r">>", ">"),
    (r",mode=max", ""),
    (r",ignore-error=true", ""),
    (r' --cache-from "[^"]*"', ""),
    (r' --cache-to "[^"]*"', ""),
    (r"\.old\b", ""),
    (r"~new\.X", ".X"),
    (r"~lock", ""),
    (r"rm -rf", "rm -r"),
    (r"rm -rf", "rm -f"),
    (r"\bHUP (?=INT)", ""),
    (r"\bINT (?=TERM)", ""),
    (r" TERM$", ""),
    (r"; trap '' PIPE", ""),
    (r"'' PIPE", ": PIPE"),
    (r"trap 'received=\w+' \w+;? ?", ""),
    (r"received=(?=HUP|INT|TERM)", "other="),
    (r"\$BASHPID", "$$"),
    (r'kill -s "\$received"', "kill -s KILL"),
    (r'"\$@"', "$@"),
    (r'"\$(?!@|\()\w+"', "unquote"),
    (r'"\$\{[^"]*"', "unquote"),
    (r"-rf \"\$new_cache\" ", "-rf "),
    (r' "\$\{new_cache\}\.old"(?= \|\||$)', ""),
    (r"; exit; \}", "; }"),
]

PYTHON = [
    (r"\bnot ", ""),
    (r" and (?!sub)", " or "),
    (r" or (?=sys)", " and "),
    (r"/\.\"", '"'),
    (r"os\.W_OK", "os.R_OK"),
    (r"\"ab\"", '"wb"'),
    (r"LOCK_SH", "LOCK_EX"),
    (r"LOCK_EX", "LOCK_SH"),
    (r" \| fcntl\.LOCK_NB", ""),
    (r"(?<=\()signal\.SIGHUP, ", ""),
    (r"signal\.SIGINT, ", ""),
    (r", signal\.SIGTERM", ""),
    (r" if signal\.getsignal.*SIG_IGN", ""),
    (r"received\.append\(args\[0\]\)", "None"),
    (r",mode=max", ""),
    (r",ignore-error=true", ""),
    (r', f"--cache-from=[^"]*"', ""),
    (r', f"--cache-to=[^"]*"', ""),
    (r", \*args, \*\*kwargs(?=\)$)", ""),
    (r"getattr\(result, \"returncode\", result\)", "result"),
    (r"getattr\(result, \"returncode\", result\)", "result.returncode"),
    (r"os\.path\.exists\(.*?\"\)", "True"),
    (r"not getattr\(.*?result\) and ", ""),
    (r"lexists", "exists"),
    (r"\.old\b", ""),
    (r"~new\.(?=\{)", "."),
    (r"\.\{os\.urandom\(8\)\.hex\(\)\}", ""),
    (r"~lock", ""),
    (r"glob\.escape\(cache\)", "cache"),
    (r"~new\.\*", "~*"),
    (r"\"-rf\"", '"-r"'),
    (r"\"-rf\"", '"-f"'),
    (r" and subprocess\.call.*$", ""),
    (r"OSError", "KeyError"),
    (r", file=sys\.stderr", ""),
    (r"received\[0\]", "signal.SIGKILL"),
    (r"signal\.signal\(s, handler\)", "None"),
    (r"\[new, f\"\{new\}\.old\"\]", "[new]"),
    (r"\[new, f\"\{new\}\.old\"\]", '[f"{new}.old"]'),
]

REMOVE = 'rm -rf "$new_cache" "${new_cache}.old" || rm -rf "$new_cache" "${new_cache}.old"'
CACHE = '"${DANGER_DOCKER_BUILD_CACHE_HOST_DIR}/${CONTAINER_NAME:?}"'
LOCK = 'exec {cache_lock}>> "${old_cache}~lock" && flock --shared "$cache_lock" || exit'
A_NUMBER = "a number has nothing to split; quoted as every other word is"
ONE_SIGNAL = "the second is there for a signal that ended the first, and by then only $new_cache can be left"
# Mutants that nothing can notice, and why.
EQUIVALENT_SHELL = {
    f"old_cache={CACHE} | {CACHE} -> {CACHE[1:-1]} at 10": "the value of an assignment is not split into words",
    f"{LOCK} | >> -> > at 17": "the file is empty and stays so",
    f'{LOCK} | "$cache_lock" -> $cache_lock at 58': A_NUMBER,
    'if flock --exclusive --nonblock "$cache_lock"; then | "$cache_lock" -> $cache_lock at 32': A_NUMBER,
    'if [ "$build_status" = 0 ] && [ -e "${new_cache}/index.json" ]; then | "$build_status" -> $build_status at 5': A_NUMBER,  # noqa: E501
    'mv -T "$old_cache" "${new_cache}.old" 2> /dev/null | -T ->  at 2': "nothing has this name",
    f"{REMOVE} | .old ->  at {REMOVE.rindex('.old')}": ONE_SIGNAL,
    f'{REMOVE} | "${{new_cache}}.old" ->  at {REMOVE.rindex(" ")}': ONE_SIGNAL,
    f"{REMOVE} | rm -rf -> rm -f at 0": "the second does what the first could not",
    f"{REMOVE} | rm -rf -> rm -r at {REMOVE.rindex('rm')}": "only a message after a signal",
    '[ -z "$received" ] || kill -s "$received" "$BASHPID" | "$BASHPID" -> $BASHPID at 42': A_NUMBER,
    'exit "$build_status" | "$build_status" -> $build_status at 5': A_NUMBER,
}


EQUIVALENT_PYTHON = {
    'cache = f"{host_dir}/" + (os.getenv("CONTAINER_NAME") or sys.exit("Error: CONTAINER_NAME must not be empty.")) | not ->  at 94': "a message",  # noqa: E501
    'with open(f"{cache}~lock", "ab") as lock: | "ab" -> "wb" at 27': "the file is empty and stays so",
    "handlers = {s: signal.signal(s, lambda *args: received.append(args[0])) for s in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN} | if signal.getsignal(s) != signal.SIG_IGN ->  at 127": "a scenario's script starts with no signal ignored; tests/test_block_python.py has one",  # noqa: E501
    'leftovers += glob.glob(f"{glob.escape(cache)}~new.*") | glob.escape(cache) -> cache at 26': "tests/test_block_python.py has a directory with brackets",  # noqa: E501
    'if not getattr(result, "returncode", result) and os.path.exists(f"{new}/index.json"): | getattr(result, "returncode", result) -> result.returncode at 7': "for a script whose own run gives the status itself",  # noqa: E501
    'if os.path.lexists(f"{new}.old"): | lexists -> exists at 11': "only a link that leads nowhere differs, and then the second rename would have to fail too",  # noqa: E501
    'print(f"The docker build cache was not replaced: {e}", file=sys.stderr) | not ->  at 35': "a message",
    'subprocess.call(["rm", "-rf", *leftovers]) and subprocess.call(["rm", "-rf", *leftovers]) | "-rf" -> "-r" at 70': "only a message after a signal",  # noqa: E501
}


def mutants(text: str, mutations: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Each mutant with its name: the line's number and what was done to it."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        code = re.split(" +# ", line)[0].rstrip("\n")
        if code.strip().startswith("#") or not code.strip():
            continue
        yield f"{code.strip()} | deleted", "".join(lines[:number] + lines[number + 1 :])
        for pattern, replacement in mutations:
            for match in re.finditer(pattern, code):
                found = match[0]
                new = found.strip('"') if replacement == "unquote" else match.expand(replacement)
                changed = code[: match.start()] + new + code[match.end() :] + line[len(code) :]
                at = match.start() - len(code) + len(code.lstrip())
                name = f"{code.strip()} | {found.strip()} -> {new.strip()} at {at}"
                yield name, "".join([*lines[:number], changed, *lines[number + 1 :]])


def statically(script: Script, folder: Path) -> str:
    """What bash -n or ShellCheck, or Python and ruff, say against a mutant."""
    if script.path == PYTHON_PATH:
        try:
            compile(script.text, script.path, "exec")
        except SyntaxError:
            return "compile"
        file = folder / "script.py"
        file.write_text(script.text)
        ruff = ["ruff", "check", "--isolated", "--quiet", "--select=F", str(file)]
        return "ruff" if subprocess.run(ruff, capture_output=True, check=False).returncode else ""
    file = folder / "script.sh"
    file.write_text(script.text)
    if subprocess.run(["bash", "-n", str(file)], capture_output=True, check=False).returncode:
        return "bash -n"
    checked = ["shellcheck", "--shell=bash", "--exclude=SC2162,SC2086", str(file)]
    strict = ["shellcheck", "--shell=bash", "--include=SC2086", str(file)]
    if subprocess.run(checked, capture_output=True, check=False).returncode:
        return "shellcheck"
    # The build itself has an unquoted hook, which the real scripts exempt; a second place is the block's.
    said = subprocess.run(strict, capture_output=True, text=True, check=False).stdout
    return "shellcheck" if said.count("SC2086 ") > ORIGINAL_SC2086 else ""


ORIGINAL_SC2086 = 2  # one finding, and its link at the end


BLOCKS = {
    "shell": (plain(EXECUTED), block(OPTION), SHELL, EQUIVALENT_SHELL),
    "Python": (python(), block(OPTION, "py"), PYTHON, EQUIVALENT_PYTHON),
}


@needs_sandbox
@pytest.mark.parametrize("language", BLOCKS)
def test_every_mutant_is_noticed(language: str, tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None and "CI" not in os.environ:
        pytest.skip("no shellcheck on this machine")
    assert not sandbox.missing()
    original, whole, mutations, equivalent = BLOCKS[language]
    make = patched if language == "shell" else python
    # Many a mutant hangs.
    scenarios = replace(behaviour.load_scenarios(RECIPE, "docker-build-cache"), seconds=6)
    assert statically(make(text=whole), tmp_path) == ""
    missed = []
    for name, text in mutants(whole, mutations):
        script = make(text=text)
        by = statically(script, tmp_path)
        if not by:
            findings = behaviour.run(scenarios, original, script, options={"cache-to": OPTION}, first=True)
            by = next((f"{f.row} {f.check}" for f in findings if f.verdict is Verdict.BROKEN), "")
        print(f"{name}\t{by or 'NOT NOTICED'}", flush=True)
        if not by:
            missed.append(name)
    # Two of them show where a signal comes at the right moment, which is not forced.
    assert set(missed) <= set(equivalent)
