"""Stands in for docker where a real engine is behind it: passes builds on, and answers all else as the stub does.

What the script would do to the engine beside its build (prune images, create volumes and networks, start
containers) is only recorded. The build gets an image file, a tag and a label of the review's, so that what it leaves
can be told from what is the user's; nothing is pulled and nothing pushed. ``<run>/engine.json`` holds the settings.
"""

from __future__ import annotations

import json
import os
import signal
import sys

_BUILDS = {"buildx build", "buildx b", "image build", "builder build"}
_REPLACED = ("--file", "-f", "--tag", "-t")
_DROPPED = ("--push", "--pull")


def passed_on(words: list[str], settings: dict[str, object]) -> list[str]:
    """The words of the build without its own file and tags, and with the review's."""
    count = 1 if words[0] == "build" else 2
    kept, left = list(words[:count]), list(words[count:])
    kept += [str(word) for word in settings["words"]]  # type: ignore[attr-defined]
    while left:
        word = left.pop(0)
        if word in _REPLACED:
            del left[:1]
        elif not word.startswith(("--file=", "--tag=", *_DROPPED)):
            kept.append(word)
    return kept


def main() -> None:
    """Becomes docker for a build; else records the call and answers."""
    run, name = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0]))), os.path.basename(sys.argv[0])
    words = sys.argv[1:]
    builds = name == "docker" and (words[:1] == ["build"] or " ".join(words[:2]) in _BUILDS)
    call = ["build" if builds else "other", name, *words]
    log = os.open(f"{run}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(log, "\0".join([str(len(call)), *call, ""]).encode("utf8", "surrogateescape"))
    os.close(log)
    if not builds:
        if words[:1] == ["run"]:
            print("container")
        return
    with open(f"{run}/engine.json", encoding="utf8") as file:
        settings = json.load(file)
    # Python ignores these, and what is ignored stays so in the program that takes this one's place.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "BUILD"))}
    # 0 would ask for the builder that BuildKit replaced, which knows no caches: that is the script's own choice.
    if "DOCKER_BUILDKIT" in os.environ:
        environment["DOCKER_BUILDKIT"] = os.environ["DOCKER_BUILDKIT"]
    os.execve(settings["docker"], ["docker", *passed_on(words, settings)], {**environment, **settings["environment"]})


if __name__ == "__main__":
    main()
