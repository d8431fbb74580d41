"""Scripts that nobody wrote, through parse, plan and the static review.

``python -m tests.fuzz shell --minutes 20`` (or ``python``) makes and checks scripts for so long, and prints the first
finding of each kind. ``tests/test_fuzz.py`` runs the same for seconds.
"""

from __future__ import annotations

import argparse
import random
import time
import traceback
from collections import Counter

from patcher import recipe as recipes
from patcher.errors import CiPatcherError, InputError
from patcher.model import Plan, Recipe, Script, State, Verdict
from patcher.pipeline import parse, planned
from patcher.review import static
from tests.conftest import FIXTURES

SECONDS = 5
RECIPES = [recipes.load(name, [recipes.bundled()]) for name in recipes.names([recipes.bundled()])]
PATHS = {"shell": "ci/test/02_run_container.sh", "python": "ci/test/02_run_container.py"}
CORPUS = {
    language: sorted(
        path.read_bytes().decode("utf8", "surrogateescape")
        for path in FIXTURES.glob(f"*/ci/test/0*{suffix}")
        if b"build" in path.read_bytes()
    )
    for language, suffix in (("shell", ".sh"), ("python", ".py"))
}
# With a bar between them.
TOKENS = {
    "shell": (
        'docker build .¦docker¦build¦buildx¦podman build .¦$X¦"${X[@]}"¦X=docker¦sudo¦exec¦'
        "if¦then¦else¦elif¦fi¦for x in a; do¦done¦while¦case x in a)¦;;¦esac¦time¦"
        "{¦}¦(¦)¦[[¦]]¦((¦))¦$(¦`¦'¦\"¦\\¦<<EOF\n¦\nEOF\n¦<<<¦>¦2>&1¦"
        "&&¦||¦|¦&¦;¦!¦#¦\n¦ ¦\t¦\r\n¦f() {¦x=(¦$((¦${¦=¦--¦-t x¦é"
    ),
    "python": (
        "['docker', 'build', '.']¦'docker'¦'build'¦c¦c = ¦c += ¦run(¦subprocess.run(¦[¦]¦*¦"
        "(¦)¦,¦:¦.¦=¦if x:\n    ¦else:\n    ¦def f(cmd):\n    ¦lambda: ¦for c in x:\n    ¦"
        "@¦import os\n¦from x import y\n¦return ¦global c\n¦'¦\"¦'''¦f'{¦\\¦#¦\n¦    ¦"
        "\t¦\r\n¦\f¦;¦shell=True¦not ¦os.getenv('X')¦append¦try:\n    ¦class A:\n    ¦é"
    ),
}


class BrokenError(AssertionError):
    """A property that does not hold."""


def check(text: str, language: str) -> str:
    """Put one script through every recipe, and say what became of it. Raises BrokenError."""
    script = Script(PATHS[language], text)
    began = time.process_time()
    became = "patched"
    try:
        syntax = parse(script)
        for recipe in RECIPES:
            try:
                found = planned(syntax, recipe, recipe.values({}))
            except CiPatcherError as error:
                if error.status not in {3, 4}:
                    raise BrokenError(f"{recipe.name}: exit status {error.status}: {error.what}") from None
                became = "refused"
                continue
            _patched(found, recipe, language)
    except InputError:
        became = "does not parse"
    if time.process_time() - began > SECONDS:
        raise BrokenError(f"takes more than {SECONDS} s")
    return became


def _patched(found: Plan, recipe: Recipe, language: str) -> None:
    """What holds of a result: its language takes it if it took the original, once more changes nothing, the reverse is
    exact, and only what is intended is changed."""
    reference, result = found.reference, found.result
    original = static.parses(found.script)
    if original.verdict is not Verdict.HELD:
        return
    if static.parses(result).verdict is not Verdict.HELD:
        raise BrokenError(f"{recipe.name}: {language} does not take the result")
    again = planned(parse(result), recipe, recipe.values({}))
    if again.state is not State.CURRENT or again.result.text != result.text:
        raise BrokenError(f"{recipe.name}: a second run finds the state {again.state}")
    if again.reference.text != reference.text:
        raise BrokenError(f"{recipe.name}: the reverse is not exact")
    assert found.anchor is not None
    assert again.anchor is not None
    if len(found.anchor.commands) != len(again.anchor.commands):
        raise BrokenError(f"{recipe.name}: another number of builds")
    if reference.text == found.script.text:
        places = [place for c in found.anchor.commands for place in (c.words[0].start, c.head[0])]
        intended = static.only_intended(reference, result, [*places, *found.anchor.behind])
        if intended.verdict is not Verdict.HELD:
            raise BrokenError(f"{recipe.name}: {intended.detail}")


def mutated(source: random.Random, language: str) -> str:
    """A script of the fixtures in which a few places are changed, or a heap of tokens."""
    tokens = TOKENS[language].split("¦")
    if source.random() < 0.3:
        return "".join(source.choice(tokens) + source.choice(["", " ", "\n"]) for _ in range(source.randrange(30)))
    text = source.choice(CORPUS[language])
    for _ in range(source.choice([1, 1, 1, 2, 3, 8])):
        start = source.randrange(len(text) + 1)
        if source.random() < 0.5:  # near a build, where changes matter
            start = max(text.find("docker", source.randrange(len(text) + 1)) + source.randrange(-9, 30), 0)
        match source.randrange(4):
            case 0:
                text = text[:start] + source.choice(tokens) + text[start:]
            case 1:
                text = text[:start] + text[start + source.randrange(1, 12) :]
            case 2:
                text = text[:start] + source.choice(tokens) + text[start + source.randrange(1, 12) :]
            case _:
                lines = text.split("\n")
                line = text.count("\n", 0, start)
                other = source.randrange(len(lines))
                lines[line : line + source.randrange(2)] = lines[other : other + source.randrange(4)]
                text = "\n".join(lines)
    return text


def campaign(language: str, seconds: float, seed: int) -> tuple[Counter[str], dict[str, str]]:
    """Check scripts for so long: what became of how many, and a script for each finding."""
    source = random.Random(seed)
    outcomes: Counter[str] = Counter()
    findings: dict[str, str] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = mutated(source, language)
        try:
            outcomes[check(text, language)] += 1
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            label = str(error) if isinstance(error, BrokenError) else f"{type(error).__name__} in {frame.name}: {error}"
            outcomes["finding"] += 1
            if label not in findings or len(text) < len(findings[label]):
                findings[label] = text
    return outcomes, findings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("language", choices=["shell", "python"])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    outcomes, findings = campaign(given.language, given.minutes * 60, given.seed)
    for label, text in findings.items():
        print(f"{label}\n    {text!r}")
    print(f"{outcomes.total()} scripts: " + ", ".join(f"{n} {what}" for what, n in outcomes.most_common()))


if __name__ == "__main__":
    main()
