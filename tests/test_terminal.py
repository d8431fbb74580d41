"""What a terminal gets, by a pseudo-terminal: colours, the pager, the question. A pipe gets plain bytes."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.command import SCRIPT, WHO, call, command, git, repository
from tests.conftest import needs

PATCH = ("patch", "--no-verify", *WHO)
MARK = "sed s/^/PAGED:/"


@dataclass(frozen=True)
class Seen:
    """How a call on a terminal ended: what was on the screen, and what went down the pipe if there was one."""

    status: int
    screen: str
    pipe: bytes


def on_terminal(
    cwd: Path,
    *arguments: str | Path,
    env: Mapping[str, str | None] | None = None,
    typed: bytes = b"",
    piped: bool = False,
) -> Seen:
    """Run ci-patcher on a terminal of 500 lines, and type at the first question. ``piped`` is standard output."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 500, 200, 0, 0))
    wanted = {**os.environ, "TERM": "xterm", "PAGER": MARK, **(env or {})}
    environment = {name: value for name, value in wanted.items() if value is not None}
    with subprocess.Popen(
        command(*arguments), cwd=cwd, env=environment, stdin=slave, stderr=slave,
        stdout=subprocess.PIPE if piped else slave, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(slave)
        screen, end = b"", time.monotonic() + 60
        while True:
            assert select.select([master], [], [], end - time.monotonic())[0], screen
            try:
                screen += os.read(master, 1 << 16)
            except OSError as error:
                if error.errno != errno.EIO:  # what Linux says when the last one has closed the terminal
                    raise
                break
            if b"[y/N]: " in screen and typed:
                os.write(master, typed)
                typed = b""
        pipe = process.stdout.read() if process.stdout else b""
    os.close(master)
    text = screen.decode("utf8", "backslashreplace").replace("\r\n", "\n")
    assert "Traceback" not in text
    return Seen(process.returncode, text, pipe)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return repository(tmp_path / "repo")


def plain(screen: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", screen)


def test_a_pipe_and_a_file_get_the_same_plain_bytes(repo: Path, tmp_path: Path) -> None:
    env = {"PAGER": MARK, "GIT_PAGER": MARK, "TERM": "xterm"}
    piped = call(repo, *PATCH, env=env).out
    assert piped.startswith(b"From ")
    assert b"\x1b" not in piped
    assert b"PAGED" not in piped
    assert call(repo, *PATCH, "--color", "never").out == piped
    done = call(repo, *PATCH, "-o", tmp_path / "out")
    (file,) = (tmp_path / "out").iterdir()
    assert file.read_bytes() == piped
    assert f"git am {file}" in done.error
    assert on_terminal(repo, *PATCH, piped=True).pipe == piped


def test_a_terminal_gets_the_diff_in_colour_through_the_pager(repo: Path) -> None:
    seen = on_terminal(repo, *PATCH)
    assert seen.status == 0
    assert "PAGED:Subject: [PATCH] ci:" in seen.screen
    assert "| git am" in seen.screen
    pages = [line.removeprefix("PAGED:") for line in plain(seen.screen).split("\n") if line.startswith("PAGED:")]
    assert "\n".join(pages) + "\n" == call(repo, *PATCH).out.decode()


@pytest.mark.parametrize(
    ("env", "by"),
    [({}, "PAGED:"), ({"PAGER": "cat"}, ""), ({"PAGER": "no-such-pager-here"}, "")],
)
def test_the_pager_is_the_users(repo: Path, tmp_path: Path, env: Mapping[str, str], by: str) -> None:
    # A repository's own configuration may come from anyone.
    git(repo, "config", "core.pager", f"touch {tmp_path}/pwned; cat")
    seen = on_terminal(repo, *PATCH, env=env)
    assert seen.status == 0
    assert re.search(rf"^{by}diff --git a/", plain(seen.screen), re.MULTILINE)
    assert not (tmp_path / "pwned").exists()


def test_without_a_choice_the_pager_is_less_and_it_does_not_stay_for_what_fits(repo: Path) -> None:
    needs("less")
    seen = on_terminal(repo, *PATCH, env={"PAGER": None})
    assert seen.status == 0
    assert "\x1b[36m@@ -" in seen.screen
    assert "\x1b[32m+  docker_build_cached() (\x1b[0m" in seen.screen
    assert "\nSubject: [PATCH] ci:" in seen.screen  # what is not diff has no colour


@pytest.mark.parametrize(
    ("arguments", "env", "piped", "colors"),
    [
        ([], {}, False, True),
        ([], {"NO_COLOR": "1"}, False, False),
        ([], {"NO_COLOR": ""}, False, True),
        ([], {"TERM": "dumb"}, False, False),
        (["--color", "never"], {}, False, False),
        (["--color", "always"], {"NO_COLOR": "1"}, False, True),
        (["--color", "always"], {}, True, True),
        ([], {}, True, False),
    ],
)
def test_colours(repo: Path, arguments: list[str], env: Mapping[str, str], piped: bool, colors: bool) -> None:
    seen = on_terminal(repo, *PATCH, *arguments, env=env, piped=piped)
    assert ("\x1b[3" in (seen.pipe.decode() if piped else seen.screen)) == colors


def test_the_place_of_the_build_is_in_colour(repo: Path) -> None:
    shown = call(repo, "inspect", "--color", "always").out.decode()
    assert re.search(r"\x1b\[32m\x1b\[1m\^\^\^+\x1b\[0m\n", shown)
    assert plain(shown) == call(repo, "inspect").out.decode()


HOSTILE = "\x1b]52;c;aGk=\x07\x9b31m\u202e"
HARMLESS = "␛]52;c;aGk=␇<U+009B>31m<U+202E>"


def test_text_of_others_does_nothing_to_the_terminal(repo: Path, tmp_path: Path) -> None:
    script = repo / SCRIPT
    text = script.read_text(encoding="utf8").replace(
        "docker buildx build \\\n", f"docker buildx build --x={HOSTILE} \\\n"
    )
    script.write_text(text, encoding="utf8")
    git(repo, "commit", "--quiet", "--all", f"--message={HOSTILE}")
    branch = "\x9b31m\u202e|`x`"  # git refuses the other characters
    git(repo, "update-ref", f"refs/heads/{branch}", "HEAD")
    (tmp_path / HOSTILE).mkdir()
    shown = [
        on_terminal(repo, "inspect"),
        on_terminal(repo, *PATCH, env={"PAGER": "cat"}),
        on_terminal(repo, *PATCH, "--rev", branch, "--format", "markdown", env={"PAGER": "cat"}),
        on_terminal(repo, *PATCH, "--color", "always", "--interactive", typed=b"n\n", env={"PAGER": "cat"}),
        on_terminal(repo, "patch", f"{HOSTILE}/nowhere"),
        on_terminal(repo, "patch", f"--{HOSTILE}"),
        on_terminal(tmp_path, "inspect", HOSTILE),
        on_terminal(repo, "backport", branch, "--no-verify", *WHO),
        on_terminal(repo, "backport", branch, f"no-{HOSTILE}", "--no-verify", "--pr-body", *WHO),
        on_terminal(repo, "backport", branch, "--json", "--no-verify", *WHO),
    ]
    for seen in shown:
        rest = re.sub(r"\x1b\[[0-9;]*[mK]", "", seen.screen)  # the colours and the counter are the program's own
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", rest), seen.screen
    assert [HARMLESS in seen.screen for seen in shown[:5]] == [True] * 5
    assert "| `` <U+009B>31m<U+202E>\\|`x` `` " in plain(shown[8].screen)  # a table in Markdown


def test_the_hint_below_the_pager_works_where_it_stands(repo: Path, tmp_path: Path) -> None:
    for key, value in (("user.name", "A U Thor"), ("user.email", "author@example.org")):
        git(repo, "config", key, value)
    for cwd, arguments in ((repo, ["."]), (tmp_path, ["repo"]), (tmp_path, ["--repo", "repo", "--rev", "main"])):
        hint = on_terminal(cwd, "patch", "--no-verify", *arguments).screen.splitlines()[-1]
        assert hint.startswith("Next")
        run = f'ci-patcher() {{ "{sys.executable}" -P -m patcher "$@"; }}; {hint.split(": ", 1)[1]}'
        subprocess.run(["bash", "-o", "pipefail", "-c", run], cwd=cwd, check=True, capture_output=True)
        assert call(repo, "patch", "--check").status == 0
        git(repo, "reset", "--quiet", "--hard", "HEAD~1")


def test_yes_writes_and_no_does_not(repo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments: list[str | Path] = [*PATCH, "--interactive", "-o", out]
    for typed in (b"n\n", b"\n"):
        refused = on_terminal(repo, *arguments, typed=typed)
        assert refused.status == 1
        assert "Nothing was emitted." in refused.screen
        assert not out.exists()
    interrupted = on_terminal(repo, *arguments, typed=b"\x04")
    assert interrupted.status == 130
    assert not out.exists()
    agreed = on_terminal(repo, *arguments, typed=b"y\n")
    assert agreed.status == 0
    review, diff, question = (agreed.screen.index(text) for text in ("Static review, held", "PAGED:", "[y/N]"))
    assert review < diff < question
    (file,) = out.iterdir()
    assert file.read_bytes() == call(repo, *PATCH).out


def test_the_question_leaves_standard_output_to_the_patch(repo: Path) -> None:
    arguments = [*PATCH, "--interactive"]
    agreed = on_terminal(repo, *arguments, typed=b"y\n", piped=True)
    assert agreed.status == 0
    assert "diff --git a/" in plain(agreed.screen)
    assert agreed.pipe == call(repo, *PATCH).out
    assert on_terminal(repo, *arguments, typed=b"n\n", piped=True).pipe == b""


def test_without_a_terminal_nobody_can_be_asked(repo: Path) -> None:
    done = call(repo, *PATCH, "--interactive", data=b"y\n")
    assert (done.status, done.out) == (2, b"")
    assert done.first == "--interactive needs a terminal"
    assert call(repo, *PATCH, "--interactive", "--check").status == 2
