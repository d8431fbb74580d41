"""The stages in order: source, syntax, anchors, edits, review. Only this module knows them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from patcher import anchors, inject, sources, takeout
from patcher.emit import git
from patcher.errors import InputError, NoBuildError, RefusedError
from patcher.layout import without_comments
from patcher.model import Anchor, Finding, Patch, Plan, Recipe, Script, Source, State, Syntax, Verdict
from patcher.review import static

Progress = Callable[[int, int], None]
# A script of upstream's names up to five.
_MOST_COMPANIONS = 24


def parse(script: Script) -> Syntax:
    """The syntax of a script, by the parser for its language. Raises InputError if it cannot be parsed."""
    if script.language == "python":
        from patcher.parse import python

        return python.parse(script)
    from patcher.parse import shell

    return shell.parse(script)


def planned(syntax: Syntax, recipe: Recipe, values: Mapping[str, str]) -> Plan:
    """What a recipe with these options does to a script.

    Raises NoBuildError and RefusedError as the anchor's kind does, and RefusedError for a block of an unknown form.
    """
    script = syntax.script
    if script.language not in recipe.changes:
        raise RefusedError(f"the recipe {recipe.name} has no change for {script.language}", where=script.path)
    anchor = anchors.find(recipe.anchor, syntax)
    if ours := takeout.ours(syntax, recipe, anchor):
        plan = Plan(syntax, State.CURRENT, anchor, script.edited(ours.edits), script, values=ours.values)
        if ours.whole and ours.values == values:
            return plan
        state = State.PARTIAL if ours.values == values else State.OPTIONS
        return _put_in(replace(plan, state=state), parse(plan.reference), recipe, values)
    if form := takeout.foreign(syntax, recipe):
        removal = takeout.removals(syntax, form, recipe)
        reference = script.edited(removal)
        try:
            bare = parse(reference)
        except InputError:  # a statement of the script held nothing else
            raise takeout.unknown(syntax, recipe, removal[0].start) from None
        takeout.refuse_unknown(bare, recipe, form.variables)
        return _put_in(Plan(syntax, State.FOREIGN, anchor, reference, script, foreign=form), bare, recipe, values)
    takeout.refuse_unknown(syntax, recipe)
    state = State.NO_CACHE if recipe.hook or recipe.replaces else State.ABSENT
    if recipe.hook in {name.name for name in syntax.names}:
        state = State.HOOK
    return _put_in(Plan(syntax, state, anchor, script, script), syntax, recipe, values)


def _put_in(plan: Plan, bare: Syntax, recipe: Recipe, values: Mapping[str, str]) -> Plan:
    """The plan with its result: ``bare`` is the syntax of its reference."""
    anchor = plan.anchor if bare is plan.syntax else anchors.find(recipe.anchor, bare)
    return replace(plan, result=bare.script.edited(inject.insertion(bare, recipe, values, anchor)), before=anchor)


def examine(source: Source, recipe: Recipe, values: Mapping[str, str]) -> Plan:
    """Find the one script with the build, and plan the change.

    Raises NoBuildError if no file has a build, RefusedError if the choice is not clear, InputError if a file cannot
    be read or parsed.
    """
    plans: list[Plan] = []
    without: list[tuple[Script, NoBuildError]] = []
    for path in [source.only] if source.only else recipe.files:
        script = sources.read(source, path)
        if script is None or (plans and not anchors.may_hold(recipe.anchor, script)):
            continue
        try:
            plans.append(planned(parse(script), recipe, values))
        except NoBuildError as error:
            without.append((script, error))
    if not plans:
        raise NoBuildError("no image build found", where=source.name, hint=_absent(source, recipe, without))
    return plans[0] if len(plans) == 1 else _called(source, recipe, plans)


def _called(source: Source, recipe: Recipe, plans: Sequence[Plan]) -> Plan:
    """The plan for the script that the tree itself runs. Raises RefusedError if the callers do not tell."""
    callers = [caller for path in recipe.callers if (caller := sources.read(source, path))]
    text = "\n".join(without_comments(caller.text) for caller in callers)
    called = [plan for plan in plans if plan.script.path in text]
    if len(called) == 1:
        return called[0]
    raise RefusedError(
        f"{len(plans)} files have an image build, and {' or '.join(recipe.callers) or 'nothing'} does not tell which "
        "one is run",
        where=source.name,
        hint="\n".join([*(plan.where for plan in plans), f"Name one: ci-patcher patch --file {plans[0].script.path}"]),
    )


def _absent(source: Source, recipe: Recipe, without: Sequence[tuple[Script, NoBuildError]]) -> str:
    """Where no image build was found, and what to do."""
    if not without:
        return f"There is no {' and no '.join(recipe.files)}.\n{_root(source)}"
    looked = f"Looked at: {', '.join(script.path for script, _ in without)}."
    for script, error in without:
        at = anchors.mention(recipe.anchor, script)
        if at is not None:
            return (
                f"{looked}\n{script.where(at)} mentions one, in a string or behind a program that this tool does not "
                f"know.\nWrite it as a command of its own. Now {error.what}."
            )
    return f"{looked} Nothing to patch there."


def _root(source: Source) -> str:
    """What to name if a folder is no tree."""
    if source.revision:
        return "If another script builds the image, name it with --file."
    if source.repository and source.root.resolve() != source.repository.resolve():
        return f"The root of the work tree around it: {source.repository}"
    return "Name the root of the source tree, the script itself, or a revision with --rev."


def advice(source: Source, recipe: Recipe, plan: Plan) -> list[str]:
    """What the user of a recipe should know: whom the change is for comes first."""
    hook = recipe.advice.get("hook", ()) if plan.state is State.HOOK else ()
    there = [note for note in recipe.notes if note.path in sources.listing(source, note.path.rpartition("/")[0])]
    return [*recipe.advice.get("about", ()), *hook, *recipe.advice.get("patch", ()), *(note.text for note in there)]


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
    result = found.result
    if reverse:
        result = found.reference if found.ours else found.script
    pairs = [(found.script, result)] if result.text != found.script.text else []
    if not reverse:
        pairs += _companions(source, recipe, found)
    done = Patch(source, recipe, values, found, tuple(pairs), reverse=reverse)
    if not pairs:
        return done
    findings = _static(done, result, reverse, verify)
    notes = [] if verify else ["--no-verify: the linters and the scenarios were not run"]
    if verify and not reverse and all(finding.verdict is not Verdict.BROKEN for finding in findings):
        findings += scenarios(source, found, recipe, values, result=result, jobs=jobs, progress=progress)
    return replace(done, findings=tuple(findings), notes=tuple(notes))


def _companions(source: Source, recipe: Recipe, found: Plan) -> list[tuple[Script, Script]]:
    """The other files in which a foreign block left something."""
    if not found.foreign or source.only:
        return []
    scripts = [script for path in found.foreign.files if (script := sources.read(source, path))]
    changed = [script.edited(takeout.removals(parse(script), found.foreign, recipe)) for script in scripts]
    return [(old, new) for old, new in zip(scripts, changed, strict=True) if old != new]


def _static(done: Patch, result: Script, reverse: bool, verify: bool) -> list[Finding]:
    plan = done.plan
    findings = [static.parses(result)]
    try:
        again = planned(parse(result), done.recipe, done.values)
    except InputError as error:
        return [*findings, Finding("parses again", Verdict.BROKEN, str(error))]
    except RefusedError as error:
        return [*findings, Finding("one build", Verdict.BROKEN, str(error), evidence=error.hint)]
    one_build = static.one_build(len(plan.anchor.commands), len(again.anchor.commands))
    if reverse:
        findings += [one_build, static.second_run(again.ours, "our block is still there")]
    else:
        before = plan.before or plan.anchor
        places = [place for command in before.commands for place in (command.words[0].start, command.head[0])]
        lost = _lost_word(plan.reference, before, result, again.anchor)
        findings += [
            Finding("one build", Verdict.BROKEN, f"the build loses the word {lost}") if lost else one_build,
            static.only_intended(plan.reference, result, [*(place for place in places if place >= 0), *before.behind]),
            static.style(plan.reference, result),
            static.second_run(again.state is not State.CURRENT, f"the state is: {again.state}"),
            static.reverse(plan.reference, again.reference if again.state is State.CURRENT else None),
        ]
    findings.append(static.applies(git.refused(done.pairs, git.diff(done.pairs))))
    return [*findings, *(static.linted(plan.script, result) if verify else ())]


def _lost_word(reference: Script, before: Anchor, result: Script, after: Anchor) -> str:
    """The first word of the reference's build that the result's has not, empty if it has all, in the same order."""
    for old, new in zip(before.commands, after.commands, strict=False):
        left = iter([result.text[word.start : word.end] for word in new.words])
        for word in old.words:
            if (text := reference.text[word.start : word.end]) not in left:
                return text
    return ""


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

    findings = behaviour.run(
        behaviour.load_scenarios(recipe.folder),
        found.reference,
        result or found.script,
        options=values,
        companions=named(source, found.script),
        exhaustive=exhaustive,
        keep=keep,
        jobs=jobs,
        progress=progress,
    )
    return list(findings)


def named(source: Source, script: Script) -> dict[str, Script]:
    """The other files of the tree's CI that a script names. No link is followed.

    Raises InputError if git cannot read the tree.
    """
    found: dict[str, Script] = {}
    for path in sources.listing(source, "ci"):
        if path in script.text and path != script.path and len(found) < _MOST_COMPANIONS:
            with suppress(InputError):
                if companion := sources.read(source, path):
                    found[path] = companion
    return found


def contract(recipe: Recipe) -> dict[int, str]:
    """The rows of the contract of the recipe's scenarios, with a few words on each. Raises UsageError."""
    if not (recipe.folder / "scenarios.toml").is_file():
        return {}
    from patcher.review import scenarios as read  # as above

    loaded = read.load(recipe.folder)
    return {row: loaded.rows.get(row, "") for row in sorted({*loaded.rows, *(one.row for one in loaded.scenarios)})}
