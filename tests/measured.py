"""Parsing in a process of its own, with limits on time and memory."""

from __future__ import annotations

import subprocess
import sys

from patcher.parse.limits import MOST_CHARACTERS

_CODE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (15, 15))
resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))
from patcher.errors import InputError
from patcher.model import Script
from patcher.pipeline import parse
try:
    parse(Script(sys.argv[1], sys.stdin.read()))
except InputError as error:
    print(error)
else:
    print("parsed")
"""


def measured(path: str, unit: str) -> str:
    """What comes of a script in which a unit is repeated as often as the limit allows."""
    text = unit * (MOST_CHARACTERS // len(unit))
    command = [sys.executable, "-c", _CODE, path]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.stdout.strip() or f"{done.returncode}: {done.stderr}"


def measured_python(unit: str) -> str:
    return measured("x.py", unit)


def measured_shell(unit: str) -> str:
    return measured("x.sh", unit)
