"""The stages together: what is said of a tree in which no build was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from patcher import pipeline, recipe, sources
from patcher.errors import NoBuildError

RECIPE = recipe.load("docker-build-cache", [recipe.bundled()])


def hint(tmp_path: Path, name: str, text: str) -> str:
    """What is said below the message that there is no build."""
    file = tmp_path / "ci" / "test" / name
    file.parent.mkdir(parents=True)
    file.write_text(text, encoding="utf8")
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
    "a string for bash": ("true\nbash -c '|docker build .'\n", ".sh"),
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
