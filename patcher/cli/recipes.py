"""``ci-patcher recipes``: what changes there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from patcher import recipe
from patcher.cli.options import json_option, recipes_option
from patcher.cli.terminal import say, say_json
from patcher.model import Recipe


@click.command()
@recipes_option
@json_option
def recipes(folders: Sequence[Path], as_json: bool) -> None:
    """List the recipes: those that come with ci-patcher, and those of --recipes.

    \b
    Example:
      ci-patcher recipes --recipes ~/my-recipes
    """
    found = [recipe.read(path) for path in recipe.names([recipe.bundled(), *folders]).values()]
    if as_json:
        say_json([_data(one) for one in found])
        return
    for one in found:
        say(f"{one.name}\n    {one.summary}\n    {one.folder}")
        for name, option in one.options.items():
            say(f"    --set {name}=...  {option.help} (default {option.default})")


def _data(one: Recipe) -> dict[str, object]:
    return {
        "name": one.name,
        "summary": one.summary,
        "folder": str(one.folder),
        "files": list(one.files),
        "languages": sorted(one.changes),
        "options": {name: {"default": option.default, "help": option.help} for name, option in one.options.items()},
    }
