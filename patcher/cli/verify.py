"""``ci-patcher verify``: the contract's scenarios on a tree as it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click

from patcher import data, pipeline
from patcher.cli import terminal
from patcher.cli.options import json_option, on_a_tree
from patcher.cli.terminal import say, say_json
from patcher.emit import report
from patcher.errors import UsageError
from patcher.model import Finding, Plan, Recipe, Source, State, Verdict

_COLORS = {
    rf"  {verdict}(?=  |$)": {"fg": color, "bold": True}
    for verdict, color in zip(Verdict, ("green", "red", "yellow"), strict=True)
}
_MOST_EVIDENCE = 2


@click.command()
@on_a_tree
@click.option(
    "--engine",
    type=click.Choice(["stub", "docker"]),
    default="stub",
    show_default=True,
    help="What builds: a stub, or the engine that docker reaches.",
)
@click.option("--base-image", help="With --engine docker: an image with sh, head and sleep that the engine has.")
@click.option("--exhaustive", is_flag=True, help="Send each signal at every point of the block. Takes minutes.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the sandbox's files in this folder.")
@json_option
@terminal.color_option
def verify(
    source: Source,
    recipe: Recipe,
    values: Mapping[str, str],
    engine: str,
    base_image: str | None,
    exhaustive: bool,
    keep: Path | None,
    as_json: bool,
    color: str,
) -> int:
    """Run the scenarios on the script of TREE as it stands: with our block, a foreign one or none.

    Exits with 1 if a scenario is broken or none was run.

    With --engine docker the script's builds run on the real engine. The script gets full access to your engine: use
    it on trusted trees only. Everything that the builds make there is removed again.

    \b
    Example:
      ci-patcher verify --repo ~/bitcoin --rev v29.1
    """
    plan = pipeline.examine(source, recipe, values)
    options = plan.values or values
    if engine == "docker":
        if exhaustive:
            raise UsageError("--exhaustive needs the stub engine, because a real one cannot be stopped at a point")
        if not base_image:
            hint = "For example: docker pull busybox && ci-patcher verify --engine docker --base-image busybox"
            raise UsageError("--engine docker needs --base-image, an image with sh, head and sleep", hint=hint)
        findings = _on_docker(source, plan, recipe, options, base_image, keep, as_json)
    elif base_image:
        raise UsageError("--base-image is for --engine docker")
    else:
        findings = pipeline.scenarios(
            source, plan, recipe, options, exhaustive=exhaustive, keep=keep, progress=terminal.counter("scenarios")
        )
    if as_json:
        say_json(report.findings(findings))
    else:
        to_add = plan.state in {State.NO_CACHE, State.ABSENT, State.HOOK}
        say(f"{plan.script.path}: {plan.state}" + ("; a patch would add what does not hold below" if to_add else ""))
        terminal.say_in_color(_table(findings), _COLORS, color)
    verdicts = {finding.verdict for finding in findings}
    if verdicts == {Verdict.NOT_RUN}:
        say(f"Nothing was run: {findings[0].detail}", err=True)
    return int(Verdict.BROKEN in verdicts or verdicts == {Verdict.NOT_RUN})


def _table(findings: Sequence[Finding]) -> Iterable[str]:
    """A line for each scenario, below the first broken ones the evidence, and a line that counts them."""
    width = max((len(finding.check) for finding in findings), default=0)
    broken = 0
    for finding in sorted(findings, key=lambda finding: finding.row):
        detail = f"  {finding.detail}" if finding.detail else ""
        yield f"{finding.row:>3}  {finding.check:<{width}}  {finding.verdict}{detail}"
        broken += finding.verdict is Verdict.BROKEN
        if finding.verdict is Verdict.BROKEN and broken <= _MOST_EVIDENCE:
            yield from (f"       {line}" for line in finding.evidence.splitlines())
    if broken > _MOST_EVIDENCE:
        yield f"The evidence is shown for the first {_MOST_EVIDENCE} of them; --json has all of it."
    yield ", ".join(f"{sum(f.verdict is verdict for f in findings)} {verdict}" for verdict in Verdict)


def _on_docker(
    source: Source,
    plan: Plan,
    recipe: Recipe,
    options: Mapping[str, str],
    base_image: str,
    keep: Path | None,
    as_json: bool,
) -> list[Finding]:
    """Print what the engine is, then run the scenarios on it."""
    from patcher.review import behaviour, engine

    found = engine.find()
    for line in found.lines:
        say(line, err=as_json)
    findings = engine.run(
        data.load(recipe.folder / "engine.toml", engine.Cases),
        behaviour.load_scenarios(recipe.folder),
        plan.reference,
        plan.script,
        found,
        base_image,
        options=options,
        companions=pipeline.named(source, plan.script),
        keep=keep,
        progress=terminal.counter("scenarios"),
    )
    return list(findings)
