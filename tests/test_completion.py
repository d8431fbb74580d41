"""Completions in real shells, and that every command's help has an example."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from patcher.cli import COMMANDS
from tests.command import call, git, repository
from tests.conftest import needs

BASH = """
eval "$(_CI_PATCHER_COMPLETE=bash_source ci-patcher)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_ci_patcher_completion "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""
# What zsh's completion system would define is given here, since it wants a line editor.
ZSH = """
compdef() { :; }
_describe() { print -l -- ${${(P)3}%%:*} }
compadd() { print -l -- ${(P)@[-1]} }
source <(_CI_PATCHER_COMPLETE=zsh_source ci-patcher)
words=("$@"); CURRENT=$#
_ci_patcher_completion
"""
FISH = '_CI_PATCHER_COMPLETE=fish_source ci-patcher | source; complete --do-complete "$argv"'


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ci-patcher as a command, in a folder with a clone."""
    root = repository(tmp_path / "there")
    git(root, "branch", "29.x")
    git(tmp_path, "clone", "--quiet", "there", "clone")
    git(tmp_path / "clone", "branch", "28.x")
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "bin" / "ci-patcher"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom patcher.cli import main\n\nmain()\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def completed(shell: str, *words: str) -> set[str]:
    needs(shell)
    arguments = {
        "bash": ["bash", "--norc", "-c", BASH, "bash", *words],
        "zsh": ["zsh", "-f", "-c", ZSH, "zsh", *words],
        "fish": ["fish", "--no-config", "-c", FISH, " ".join(words)],
    }[shell]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    return {line.split("\t")[0] for line in done.stdout.splitlines()}


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["pat"], {"patch"}),
        (["patch", "--int"], {"--interactive"}),
        (["patch", "--format", "m"], {"mbox", "markdown"}),
        (["backport", "--recipe", "docker-build-c"], {"docker-build-cache"}),
        (["backport", "--repo", "clone", "2"], {"28.x", "29.x"}),
        (["patch", "clone", "--rev", "29"], {"29.x"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_completion(shell: str, words: list[str], found: set[str]) -> None:
    assert completed(shell, "ci-patcher", *words) == found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_on_a_line_of_its_own(tmp_path: Path, name: str) -> None:
    shown = call(tmp_path, name, "--help").out.decode().splitlines()
    at = next(number for number, line in enumerate(shown) if line.strip() in {"Example:", "Examples:"})
    assert shown[at + 1].strip().startswith(f"ci-patcher {name}")
    assert max(map(len, shown)) <= 100
