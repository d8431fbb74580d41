"""The stages in order: source, syntax, anchors, edits, review. Only this module knows them all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from patcher import anchors, sources
from patcher.emit import git
from patcher.errors import CiPatcherError, InputError, NoBuildError, RefusedError
from patcher.inject import plan, removals, without_comments
from patcher.model import Finding, Patch, Plan, Recipe, Script, Source, State, Syntax, Verdict
from patcher.review import static

Progress = Callable[[int, int], None]

# An engine and a word for building on one line, without another thing that the engine does in between.
_SAYS_BUILD = re.compile(
    r"(?<![\w./-])(?:\S{1,99}/)?(?:docker|podman)\b(?![./=])"
    r"(?:(?!\b(?:run|exec|cp|pull|push|create|start|stop|kill|rm|rmi|ps|prune|inspect|images|logs|info|login)\b)[^\n]){0,200}?"
    r"\b(?:build|bake)\b(?![\w./-])"
)
_TRAILING_COMMENT = re.compile(r"(?<=[ \t])#[^\n]*")


def parse(script: Script) -> Syntax:
    """The syntax of a script, by the parser for its language. Raises InputError where it cannot be parsed."""
    if script.language == "python":
        from patcher.parse import python

        return python.parse(script)
    from patcher.parse import shell

    return shell.parse(script)


def planned(syntax: Syntax, recipe: Recipe, values: Mapping[str, str]) -> Plan:
    """What a recipe does to a script. Raises as ``inject.plan`` does."""
    return plan(syntax, recipe, values, parse, anchors.find)


def may_build(script: Script) -> bool:
    """Whether a build can be in a script at all: it is not parsed for nothing beside one that has it."""
    text = script.text.lower()
    return "build" in text and ("docker" in text or "podman" in text)


def examine(source: Source, recipe: Recipe, values: Mapping[str, str]) -> Plan:
    """Find the one script with the build, and plan the change.

    Raises NoBuildError where no file has one, RefusedError where the choice is not clear, InputError where a
    file cannot be read or parsed.
    """
    plans: list[Plan] = []
    seen: list[Script] = []
    for path in [source.only] if source.only else recipe.files:
        script = sources.read(source, path)
        if script is None:
            continue
        seen.append(script)
        if plans and not may_build(script):
            continue
        try:
            plans.append(planned(parse(script), recipe, values))
        except NoBuildError:
            continue
    if not plans:
        raise NoBuildError("no image build found", where=source.name, hint=_looked_at(seen, source, recipe))
    if len(plans) > 1:
        raise RefusedError(
            f"{len(plans)} files have an image build, and nothing tells which one is meant",
            where=source.name,
            hint="\n".join(f"{found.where}" for found in plans),
        )
    return plans[0]


def _looked_at(seen: list[Script], source: Source, recipe: Recipe) -> str:
    """Where no image build was found, and why that may be."""
    if not seen:
        return f"There is no {' and no '.join(recipe.files)}." + _root(source)
    looked = f"Looked at: {', '.join(script.path for script in seen)}."
    for script in seen:
        code = _TRAILING_COMMENT.sub(lambda comment: " " * len(comment[0]), without_comments(script.text))
        if said := _SAYS_BUILD.search(code):
            return (
                f"{looked}\n{script.where(said.start())} has the words of one, but in a string, or behind a program "
                "that this tool does not know.\n"
                "Write it as a command of its own: `docker build ...` or `docker buildx build ...`."
            )
    return f"{looked} Nothing to patch there: trees from before 2023-01 build no image."


def _root(source: Source) -> str:
    """Which tree is meant where a folder is none."""
    if source.repository and not source.revision and source.root.resolve() != source.repository.resolve():
        return f"\nThe root of the work tree around it: {source.repository}"
    return "\nName the root of the source tree, the script itself, or a revision with --rev."


def state(source: Source, recipe: Recipe, values: Mapping[str, str]) -> tuple[Plan | None, CiPatcherError | None]:
    """For `inspect`: the plan, or what stands in its way. Raises InputError where a file cannot be read."""
    try:
        return examine(source, recipe, values), None
    except RefusedError as error:
        return None, error


def change(
    source: Source,
    recipe: Recipe,
    values: Mapping[str, str],
    *,
    reverse: bool = False,
    verify: bool = True,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Patch:
    """Apply a recipe to a source, or take it out again, and review the result.

    Raises as ``examine`` does; a failed review is no error but BROKEN findings.
    """
    found = examine(source, recipe, values)
    if reverse:
        ours = found.state in {State.CURRENT, State.OLDER}
        result = found.reference if ours else found.script
    else:
        result = found.result
    pairs = [(found.script, result)] if result.text != found.script.text else []
    if not reverse:
        pairs += _companions(source, recipe, found)
    done = Patch(source, recipe, values, found, tuple(pairs))
    if not pairs:
        return done
    findings = _static(done, result, reverse, verify)
    notes = [] if verify else ["--no-verify: the linters and the scenarios were not run"]
    if verify and not reverse and all(finding.verdict is not Verdict.BROKEN for finding in findings):
        findings += scenarios(source, found, recipe, values, result=result, jobs=jobs, progress=progress)
    return replace(done, findings=tuple(findings), notes=tuple(notes))


def _companions(source: Source, recipe: Recipe, found: Plan) -> list[tuple[Script, Script]]:
    """The other files in which a foreign block left something."""
    pairs: list[tuple[Script, Script]] = []
    if found.foreign is None or source.only:
        return pairs
    for path in found.foreign.files:
        script = sources.read(source, path)
        if script is None:
            continue
        edits = removals(parse(script), found.foreign, recipe)
        if edits:
            pairs.append((script, script.edited(edits)))
    return pairs


def _static(done: Patch, result: Script, reverse: bool, verify: bool) -> list[Finding]:
    found = done.plan
    assert found.anchor is not None
    kind = found.syntax.language
    findings = [static.parses(result, kind)]
    try:
        again = planned(parse(result), done.recipe, done.values)
    except InputError as error:
        return [*findings, Finding("parses again", Verdict.BROKEN, str(error))]
    except RefusedError as error:
        return [*findings, Finding("one build", Verdict.BROKEN, str(error), evidence=error.hint)]
    assert again.anchor is not None
    findings.append(static.one_build(len(found.anchor.commands), len(again.anchor.commands)))
    if not reverse:
        reference = found.reference
        findings.append(static.only_intended(reference, result, _builds(done)))
        findings.append(static.style(reference, result))
        findings.append(static.second_run(again.state is not State.CURRENT, f"the state is: {again.state}"))
        findings.append(static.reverse(reference, again.reference if again.state is State.CURRENT else None))
    else:
        ours = again.state in {State.CURRENT, State.OLDER}
        findings.append(static.second_run(ours, "our block is still there"))
    findings.append(static.applies(git.refused(done.pairs, git.diff(done.pairs))))
    if verify:
        findings += static.linted(found.script, result, kind)
    return findings


def _builds(done: Patch) -> list[int]:
    """Where in the reference lines may change: the builds' heads, words and places for more words."""
    found = done.plan
    anchor = found.anchor
    if found.reference.text != found.script.text:
        anchor = anchors.find(done.recipe.anchor, parse(found.reference))
    assert anchor is not None
    places = [place for command in anchor.commands for place in (command.words[0].start, command.head[0])]
    return [*(place for place in places if place >= 0), *anchor.behind]


def scenarios(
    source: Source,
    found: Plan,
    recipe: Recipe,
    values: Mapping[str, str],
    *,
    result: Script | None = None,
    exhaustive: bool = False,
    keep: Path | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """The recipe's scenarios on the reference and a result, by default the script as it stands.

    Where the recipe has none, that is the finding. Raises UsageError where they are broken.
    """
    if not (recipe.folder / "scenarios.toml").is_file():
        return [Finding("scenarios", Verdict.NOT_RUN, "the recipe has none")]
    from patcher.review import behaviour  # not for a run without scenarios

    loaded = behaviour.load_scenarios(recipe.folder, recipe.name)
    return list(
        behaviour.run(
            loaded,
            found.reference,
            result or found.script,
            options=values,
            companions=named(source, found.script),
            exhaustive=exhaustive,
            keep=keep,
            jobs=jobs,
            progress=progress,
        )
    )


def named(source: Source, script: Script) -> dict[str, Script]:
    """The other files of the tree's CI that a script names and may want to find there."""
    named: dict[str, Script] = {}
    for path in sorted({match[0] for match in re.finditer(r"\bci/[\w./-]*\w", script.text)} - {script.path}):
        try:
            companion = sources.read(source, path)
        except InputError:
            continue
        if companion is not None:
            named[path] = companion
    return named


def contract(recipe: Recipe) -> dict[int, str]:
    """The rows of the contract that the recipe's scenarios stand for, each with a few words on what it is about.

    Empty where the recipe has none. Raises UsageError where they are broken.
    """
    if not (recipe.folder / "scenarios.toml").is_file():
        return {}
    from patcher.review import scenarios as read  # as above

    loaded = read.load(recipe.folder, recipe.name)
    return {row: loaded.rows.get(row, "") for row in sorted({*loaded.rows, *(one.row for one in loaded.scenarios)})}
