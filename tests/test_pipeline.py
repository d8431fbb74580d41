"""The stages together: which files of a tree are read, which one is patched, and what is said if none is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from patcher import pipeline, recipe, sources
from patcher.errors import InputError, NoBuildError, RefusedError
from patcher.model import Script
from tests.command import WHO, committed, here, script

RECIPE = recipe.load("docker-build-cache", [recipe.bundled()])


def hint(tmp_path: Path, name: str, text: str) -> str:
    """What is said below the message that there is no build."""
    script(tmp_path, text.encode(), f"ci/test/{name}")
    with pytest.raises(NoBuildError) as caught:
        pipeline.examine(sources.tree(tmp_path), RECIPE, RECIPE.values({}))
    return caught.value.hint


SILENT = {
    "nothing": "true\n",
    "comments": "# docker build .\ntrue # docker build .\n",
    "other commands": "docker run a make build\ndocker exec -i a build\ndocker cp a:/build build\n",
    "other programs": "mydocker build .\nrm docker/build docker-build.log docker build-dir\n",
    "other lines": "docker ps\nbuild\n",
    "variables": "DOCKER_BUILD=1 DANGER_DOCKER_BUILD=1 a\n",
}


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT)
def test_a_script_that_does_not_speak_of_a_build(tmp_path: Path, text: str) -> None:
    said = hint(tmp_path, "02_run_container.sh", text)
    assert said == "Looked at: ci/test/02_run_container.sh. Nothing to patch there."


SAID = {
    "a string that is evaluated": ('X="|docker build --tag=$T ."\neval "$X"\n', ".sh"),
    "behind a program that is not known": ("travis_retry |docker build .\n", ".sh"),
    "behind a program with options": ("systemd-run --scope |docker --context=a buildx build .\n", ".sh"),
    "words that come from elsewhere": ("xargs -0 |docker build < a\n", ".sh"),
    "another command of docker": ("|docker compose build ci\n", ".sh"),
    "a file of builds": ("|docker buildx bake ci # all\n", ".sh"),
    "podman": ("x |podman build .\n", ".sh"),
    "a path": ("x |/usr/bin/docker build .\n", ".sh"),
    "a list in Python": ("import x\nx.start(['|docker', 'build', '.'])\n", ".py"),
    "a string in Python": ("import x\nx.start(f'|docker build {x}')\n", ".py"),
}


@pytest.mark.parametrize(("marked", "suffix"), SAID.values(), ids=SAID)
def test_a_script_that_speaks_of_a_build_in_a_way_that_is_not_followed(
    tmp_path: Path, marked: str, suffix: str
) -> None:
    before, _, after = marked.partition("|")
    place = f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
    said = hint(tmp_path, f"02_run_container{suffix}", before + after).splitlines()
    assert said[0] == f"Looked at: ci/test/02_run_container{suffix}."
    assert said[1].startswith(f"ci/test/02_run_container{suffix}:{place} mentions one")
    assert "docker build" in said[2]


# the files of a tree


def planted(root: Path) -> Script:
    """A tree with files, links and paths that lead out of it, and the script that names them all."""
    outside = root.parent / "outside"
    (outside / "folder").mkdir(parents=True)
    for file in (outside / "secret", outside / "folder" / "secret"):
        file.write_text("secret\n")
    for path in ("a.sh", "test/b.sh", "large"):
        script(root, b"#" * (1 << 21) if path == "large" else b"true\n", f"ci/{path}")
    for link, target in (("link", outside / "secret"), ("folder", outside / "folder"), ("near", "a.sh")):
        (root / "ci" / link).symlink_to(target)
    names = ["a.sh", "test/b.sh", "large", "link", "folder/secret", "near", "../../outside/secret", "none"]
    text = "".join(f". ci/{name}\n# ci/{name}\n" for name in names) + "docker build .\n"
    return Script(str(script(root, text.encode()).relative_to(root)), text)


@pytest.mark.parametrize("in_git", [False, True])
def test_a_script_gets_no_file_from_outside_of_its_tree(in_git: bool, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    named = planted(root)
    source = sources.tree(root)
    if in_git:
        source = sources.revision(committed(root), "HEAD")
    assert {path: one.text for path, one in pipeline.named(source, named).items()} == dict.fromkeys(
        ["ci/a.sh", "ci/test/b.sh"], "true\n"
    )


def test_a_script_gets_a_bounded_number_of_files(tmp_path: Path) -> None:
    names = [f"ci/{number:03}" for number in range(200)]
    for name in names:
        script(tmp_path, b"true\n", name)
    main = Script("ci/x.sh", "\n".join(names))
    assert list(pipeline.named(sources.tree(tmp_path), main)) == names[:24]


@pytest.mark.parametrize("path", ["ci/test/02_run_container.sh", "ci/test/00_setup_env.sh"])
def test_no_file_is_patched_through_a_link_out_of_the_tree(path: str, tree: Callable[[str], Path]) -> None:
    root = tree("pr-variable")
    (root / path).rename(root.parent / "outside")
    (root / path).symlink_to(root.parent / "outside")
    with pytest.raises(InputError, match="a link that leads out of the tree"):
        pipeline.change(sources.tree(root), RECIPE, RECIPE.values({}), verify=False)


# two files with a build

FIRST, SECOND = "ci/test/02_run_container.sh", "ci/test/04_install.sh"
CALLED = {
    "the one that is run": (f"# not {SECOND}\nbash ./{FIRST}\n", FIRST),
    "the other one": (f"source ./{SECOND}\n", SECOND),
    "both": (f". {SECOND}\n./{FIRST}\n", None),
    "neither": ("true\n", None),
    "no such file": (None, None),
}


@pytest.mark.parametrize(("text", "chosen"), CALLED.values(), ids=CALLED)
def test_of_two_files_with_a_build_the_one_that_the_tree_runs_is_taken(
    text: str | None, chosen: str | None, tmp_path: Path
) -> None:
    root = tmp_path / "tree"
    for path, content in ((FIRST, "docker build .\n"), (SECOND, "docker build .\n"), ("ci/test_run_all.sh", text)):
        if content is not None:
            script(root, content.encode(), path)
    source = sources.tree(root)
    if chosen:
        assert pipeline.examine(source, RECIPE, RECIPE.values({})).script.path == chosen
        return
    with pytest.raises(RefusedError, match="2 files have an image build") as caught:
        pipeline.examine(source, RECIPE, RECIPE.values({}))
    assert caught.value.hint.splitlines() == [
        f"{FIRST}:1:1",
        f"{SECOND}:1:1",
        f"Name one: ci-patcher patch --file {FIRST}",
    ]
    committed(root)
    for where in ([root], ["--repo", root, "--rev", "main"]):
        done = here(tmp_path, "patch", *where, "--file", SECOND, "--no-verify", *WHO)
        assert (done.status, f"+++ b/{SECOND}" in done.out.decode()) == (0, True), done.error


@pytest.mark.parametrize("path", ["../x.sh", "/x.sh", "ci//x.sh"])
def test_a_file_outside_of_the_tree_is_not_named(path: str, tree: Callable[[str], Path]) -> None:
    done = here(tree("29.x"), "patch", "--file", path)
    assert (done.status, done.first) == (2, f"--file {path}: not a path inside of the tree")
    done = here(tree("28.x"), "patch", FIRST, "--file", FIRST)
    assert (done.status, done.first) == (2, "TREE names a script, and --file another")


# advice


def test_advice_says_first_whom_the_change_is_for(tree: Callable[[str], Path]) -> None:
    root = tree("master")
    for with_lint in (False, True):
        if with_lint:
            script(root, b"true\n", "ci/lint.py")
        source = sources.tree(root)
        notes = pipeline.advice(source, RECIPE, pipeline.examine(source, RECIPE, RECIPE.values({})))
        assert notes[0].startswith("This is for hosts whose engine loses its state")
        assert "DOCKER_BUILD_CACHE_ARG can carry" in notes[1]
        assert notes[-1].startswith("ci/lint.py builds") == with_lint
