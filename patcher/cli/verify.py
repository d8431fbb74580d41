"""``ci-patcher verify``: the contract's scenarios on a tree as it stands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from patcher import data, pipeline
from patcher.cli import terminal
from patcher.cli.common import on_a_tree, recipe_of, source_of
from patcher.emit import report
from patcher.errors import UsageError
from patcher.model import Finding, Plan, Recipe, Script, Verdict

_VERDICT = r"^ *\d+  .*?  ((?P<good>held)|(?P<bad>broken)|(?P<odd>not run))(?=  |$)"


@click.command()
@on_a_tree
@click.option(
    "--engine",
    "engine_name",
    type=click.Choice(["stub", "docker"]),
    default="stub",
    show_default=True,
    help="What builds: a stub, or the engine that docker reaches.",
)
@click.option(
    "--base-image", help="With --engine docker: an image of the engine with sh, head and sleep to build from."
)
@click.option("--exhaustive", is_flag=True, help="A signal at every point of the block. Takes minutes.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the sandbox's files in this folder.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@terminal.color_option
def verify(
    tree: Path,
    repo: Path | None,
    rev: str | None,
    recipe_name: str,
    settings: Sequence[str],
    folders: Sequence[Path],
    engine_name: str,
    base_image: str | None,
    exhaustive: bool,
    keep: Path | None,
    as_json: bool,
    color: str,
) -> int:
    """Run the scenarios on the script of TREE as it stands: ours, a foreign block or none.

    Exits with 1 where something did not hold, or nothing was run.

    With --engine docker the script's builds run on the real engine, with nothing between the script and the engine's
    socket but the sandbox: only for a tree that you would run. What is made there is removed again.

    \b
    Example:
      ci-patcher verify --repo ~/bitcoin --rev v29.1
    """
    source = source_of(tree, repo, rev)
    recipe, values = recipe_of(recipe_name, settings, folders)
    plan = pipeline.examine(source, recipe, values)
    if engine_name == "docker":
        companions = pipeline.named(source, plan.script)
        findings = _on_docker(plan, recipe, plan.values or values, companions, base_image, exhaustive, keep, as_json)
    elif base_image:
        raise UsageError("--base-image is for --engine docker")
    else:
        findings = pipeline.scenarios(
            source, plan, recipe, plan.values or values, exhaustive=exhaustive, keep=keep, progress=progress()
        )
    if as_json:
        click.echo(json.dumps([report.findings(finding) for finding in findings], indent=2))
    else:
        click.echo(report.verified(plan))
        terminal.echo(report.table(findings), _VERDICT, color)
    verdicts = {finding.verdict for finding in findings}
    if verdicts == {Verdict.NOT_RUN}:
        click.echo(f"Nothing was run: {findings[0].detail}", err=True)
        return 1
    return 1 if Verdict.BROKEN in verdicts else 0


def _on_docker(
    plan: Plan,
    recipe: Recipe,
    values: Mapping[str, str],
    companions: Mapping[str, Script],
    base_image: str | None,
    exhaustive: bool,
    keep: Path | None,
    as_json: bool,
) -> list[Finding]:
    """Says what the engine is, then runs the scenarios on it."""
    from patcher.review import behaviour, engine

    if exhaustive:
        raise UsageError("--exhaustive needs points to stop at, which a real engine has not")
    if not base_image:
        raise UsageError(
            "--engine docker needs --base-image, an image that the engine has, with sh, head and sleep",
            hint="For example: docker pull busybox && ci-patcher verify --engine docker --base-image busybox",
        )
    found = engine.find()
    # Standard output is the findings alone where a program reads it.
    for line in found.lines:
        click.echo(line, err=as_json)
    scenarios = behaviour.load_scenarios(recipe.folder, recipe.name)
    return list(
        engine.run(
            data.load(recipe.folder / "engine.toml", engine.Cases),
            scenarios,
            plan.reference,
            plan.script,
            found,
            base_image,
            options=values,
            companions=companions,
            keep=keep,
            progress=progress(),
        )
    )


def progress() -> Callable[[int, int], None] | None:
    """A counter on a terminal's standard error, and nothing elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, of: int) -> None:
        click.echo(f"\r{done}/{of} scenarios" + ("\r\x1b[K" if done == of else ""), err=True, nl=False)

    return show
