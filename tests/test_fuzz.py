"""The fuzzer for some seconds, and what longer runs of it have found (see ``tests/fuzz.py``)."""

from __future__ import annotations

import pytest

from tests.fuzz import campaign, check

FOUND = {
    "a byte order mark is part of bash's first word": ("shell", "\ufeffdocker build ."),
    "a byte order mark before an import": ("python", "\ufeffsubprocess.run(['docker', 'build', '.'])\n"),
    "a form feed is no blank to bash": ("shell", "}\x0c"),
    "a carriage return alone is no blank to bash": ("shell", "}\r"),
    "time alone": ("shell", "time\n"),
    "a module that is used without an import": ("python", "os.x()\nsubprocess.run(['docker', 'build'])\n"),
    "a blank before the parenthesis": ("python", "subprocess.run (['docker', 'build', '.'])\n"),
    "a comment behind it": ("python", "subprocess.run(\n    # a\n    ['docker', 'build', '.'],\n)\n"),
    "a string that cannot be evaluated": ("python", "x = '\\\\N{no name}'\n"),
    "a directive that is not needed yet": ("shell", "# shellcheck disable=SC2086\n$RETRY docker build .\n"),
}


@pytest.mark.parametrize(("language", "text"), FOUND.values(), ids=FOUND)
def test_what_was_found(language: str, text: str) -> None:
    check(text, language)


@pytest.mark.parametrize("language", ["shell", "python"])
def test_briefly(language: str) -> None:
    assert campaign(language, 3, seed=1)[1] == {}


@pytest.mark.long
@pytest.mark.parametrize("language", ["shell", "python"])
def test_at_length(language: str) -> None:
    assert campaign(language, 60, seed=2)[1] == {}
