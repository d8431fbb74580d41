"""What all tests share: a sealed environment, and the rule for tools that are missing."""

from __future__ import annotations

import os
import shutil
import signal
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from patcher.review import behaviour
from patcher.review.scenarios import Scenarios

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"

_KEPT = (
    *("PATH", "CI", "BITCOIN_REPO", "SHELLCHECK_080", "VIRTUAL_ENV", "COVERAGE_FILE", "CI_PATCHER_PICTURE"),
    *("DOCKER_HOST", "DOCKER_CONFIG", "CI_PATCHER_BASE_IMAGE"),
)

# A shell's background job and nohup pass ignored signals on, and tests send these signals.
for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _sealed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, clock, locale or git configuration of the machine leaks in."""
    for name in list(os.environ):
        if name not in _KEPT and not name.startswith(("PYTEST_", "PIP_", "SSL_", "REQUESTS_")):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    for name, value in {
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }.items():
        monkeypatch.setenv(name, value)


def needs(tool: str) -> str:
    """The path of a tool. Without it the test is skipped; in CI, which can install it, it fails."""
    # As the program does: its environment's scripts come first, whether it is activated or not.
    found = shutil.which(tool, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is missing, and CI could install it")
        pytest.skip(f"{tool} is missing")
    return found


@pytest.fixture
def bitcoin_repo() -> Path:
    """A clone of Bitcoin Core with the release branches."""
    name = os.environ.get("BITCOIN_REPO")
    if not name:
        pytest.skip("BITCOIN_REPO is unset: it names a clone with the release branches")
    return Path(name)


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a fixture's tree to work in."""

    def copy(name: str) -> Path:
        target = tmp_path / name
        shutil.copytree(FIXTURES / name, target)
        return target

    return copy


@pytest.fixture(scope="session")
def scenarios() -> Scenarios:
    """The contract of the cache block."""
    return behaviour.load_scenarios(ROOT / "snippets" / "docker-build-cache")
