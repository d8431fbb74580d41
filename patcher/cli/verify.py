"""``ci-patcher verify``: the contract's scenarios on a tree as it stands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from patcher import pipeline
from patcher.cli.common import on_a_tree, recipe_of, source_of
from patcher.emit import report
from patcher.model import Verdict


@click.command()
@on_a_tree
@click.option("--exhaustive", is_flag=True, help="A signal at every point of the block. Takes minutes.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the sandbox's files in this folder.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def verify(
    tree: Path,
    repo: Path | None,
    rev: str | None,
    recipe_name: str,
    settings: Sequence[str],
    folders: Sequence[Path],
    exhaustive: bool,
    keep: Path | None,
    as_json: bool,
) -> int:
    """Run the scenarios on the script of TREE as it stands: ours, a foreign block or none.

    Exits with 1 where something did not hold.

    Example: ci-patcher verify --repo ~/bitcoin --rev v29.1
    """
    source = source_of(tree, repo, rev)
    recipe, values = recipe_of(recipe_name, settings, folders)
    plan = pipeline.examine(source, recipe, values)
    findings = pipeline.scenarios(
        plan, recipe, plan.values or values, exhaustive=exhaustive, keep=keep, progress=progress()
    )
    if as_json:
        click.echo(json.dumps([report.findings(finding) for finding in findings], indent=2))
    else:
        click.echo(f"{plan.script.path}: {plan.state}")
        click.echo("\n".join(report.table(findings)))
    return 1 if any(finding.verdict is Verdict.BROKEN for finding in findings) else 0


def progress() -> Callable[[int, int], None] | None:
    """A counter on a terminal's standard error, and nothing elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, of: int) -> None:
        click.echo(f"\r{done}/{of} scenarios" + ("\r\x1b[K" if done == of else ""), err=True, nl=False)

    return show
