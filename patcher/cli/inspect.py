"""``ci-patcher inspect``: what is there, and what a patch would do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from patcher import pipeline
from patcher.cli import terminal
from patcher.cli.common import on_a_tree, recipe_of, source_of
from patcher.emit import report


@click.command()
@on_a_tree
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@terminal.color_option
def inspect(
    tree: Path,
    repo: Path | None,
    rev: str | None,
    recipe_name: str,
    settings: Sequence[str],
    folders: Sequence[Path],
    as_json: bool,
    color: str,
) -> None:
    """Say which file of TREE builds the image, what it holds already, and what a patch would do.

    \b
    Example:
      ci-patcher inspect --repo ~/bitcoin --rev 29.x
    """
    source = source_of(tree, repo, rev)
    recipe, values = recipe_of(recipe_name, settings, folders)
    plan, problem = pipeline.state(source, recipe, values)
    if as_json:
        click.echo(json.dumps(report.inspection(plan, problem, recipe, values), indent=2))
    else:
        terminal.echo(report.inspected(plan, problem, recipe, values), r"^ +\| +(?P<place>\^+)$", color)
