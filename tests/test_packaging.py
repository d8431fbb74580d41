"""What is installed: the wheel, the sdist and the editable install find the recipes, and nothing else comes along."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from patcher import __version__
from patcher.review import sandbox
from tests.command import git, repository
from tests.conftest import FIXTURES, ROOT


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_wheel_has_the_package_the_recipes_and_the_licences_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"patcher", f"bitcoin_ci_patcher-{__version__}.dist-info"}
    recipes = ROOT / "snippets"
    shipped = {name.removeprefix("patcher/_snippets/") for name in names if name.startswith("patcher/_snippets/")}
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "snippets"], capture_output=True, text=True, check=True
    ).stdout
    assert (
        shipped == {str(Path(name).relative_to("snippets")) for name in tracked.split()} or not (ROOT / ".git").exists()
    )
    assert recipes.is_dir()
    licences = {Path(name).name for name in names if "/licenses/" in name}
    assert licences == {"LICENSE"}
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_the_sdist_keeps_the_folders(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    wanted = {
        "snippets/docker-build-cache/recipe.toml",
        "fixtures/29.x/ci/test/02_run_container.sh",
        "tests/conftest.py",
        ".ci/run",
    }
    assert wanted | {"README.md", "LICENSE", "snippets/LICENSE", "pyproject.toml"} <= names


@pytest.mark.parametrize("kind", ["*.whl", pytest.param("*.tar.gz", marks=pytest.mark.long)])
def test_it_works_where_it_is_installed(built: Path, tmp_path: Path, kind: str) -> None:
    (archive,) = built.glob(kind)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    # The dependencies are this environment's: only the project itself is installed anew.
    (purelib,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = f"-m pip --python {python} install --quiet --no-deps --no-build-isolation --no-index --ignore-installed"
    subprocess.run([sys.executable, *install.split(), archive], check=True, cwd=tmp_path)
    command = tmp_path / "venv" / "bin" / "ci-patcher"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(tmp_path) in run("recipes")
    assert run("--version") == f"ci-patcher, version {__version__}\n"
    assert "docker_build_cached docker" in run("patch", "--format", "diff", "--no-verify", FIXTURES / "29.x")
    assert "the hook only" in run("inspect", FIXTURES / "29.x")
    root = repository(tmp_path / "clone")
    who = ["--author", "A U Thor <author@example.org>", "--no-verify"]
    assert "| patched |" in run("backport", "--repo", root, "main", "-o", tmp_path / "out", *who)
    (patch,) = (tmp_path / "out" / "main").iterdir()
    git(root, "am", "--quiet", patch)
    if not sandbox.missing():
        network = ["--recipe", "docker-build-network"]
        git(root, "am", "--quiet", data=run("patch", *who, *network, root).encode())
        assert " held, 0 broken, 0 not run" in run("verify", *network, root)


def test_the_editable_install_finds_the_recipes_in_the_work_tree() -> None:
    from patcher import recipe

    assert recipe.bundled() in {ROOT / "snippets", Path(recipe.__file__).parent / "_snippets"}
