"""``ci-patcher patch``: the main job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from patcher import pipeline, sources
from patcher.cli import common
from patcher.cli.common import (
    author_option,
    emits,
    file_name,
    folder_for,
    on_a_tree,
    raw_date,
    recipe_of,
    source_of,
    trailers_of,
    write_beside,
)
from patcher.emit import report
from patcher.model import UsageError


@click.command()
@on_a_tree
@emits
@click.option("--check", is_flag=True, help="Emit nothing; exit 1 where a patch is due.")
@click.option(
    "--json", "as_json", is_flag=True, help="The review as JSON on stderr... and the patch inside it on stdout."
)
def patch(
    tree: Path,
    repo: Path | None,
    rev: str | None,
    recipe_name: str,
    settings: Sequence[str],
    folders: Sequence[Path],
    form: str | None,
    output: Path | None,
    author: str,
    date: str,
    signoff: bool,
    github_pull: Sequence[str],
    rebased_from: Sequence[str],
    reverse: bool,
    no_verify: bool,
    strict: bool,
    check: bool,
    as_json: bool,
) -> int:
    """Emit the reviewed patch for TREE: on stdout, the review on stderr.

    Example: ci-patcher patch ~/bitcoin | git -C ~/bitcoin am
    """
    date = raw_date(date)
    source = source_of(tree, repo, rev)
    found_recipe, values = recipe_of(recipe_name, settings, folders)
    # What cannot be emitted in the end is refused before the review, which takes long.
    author, date = sources.identity(source, author_option(author), date)
    trailers = trailers_of(github_pull, rebased_from, signoff, author)
    folder = folder_for(output) if output and not check else None
    missing = " and ".join(name for name, known in (("author", author), ("date", date)) if not known)
    if form == "mbox" and missing and not check:
        raise UsageError(
            f"an mbox needs an author and a date, and the {missing} is unknown",
            hint="Give --author 'Name <mail>' and --date.",
        )
    done = pipeline.change(source, found_recipe, values, reverse=reverse, verify=not (no_verify or check))
    if not done.pairs:
        click.echo(report.nothing(done, reverse), err=True)
        return 0
    if check:
        click.echo(f"{pipeline.where(done.plan)}: a patch is due: {done.plan.state}", err=True)
        return 1
    failed = bool(done.broken) or (strict and (no_verify or bool(done.not_run)))
    click.echo(report.text(done), err=True, nl=False)
    if failed:
        click.echo(
            "The review failed, so there is no patch." if done.broken else "--strict: not all was run.", err=True
        )
        return 1
    if form is None:
        form = "diff" if missing else "mbox"
        if missing:
            click.echo(f"--format diff, since the {missing} of a commit is unknown: --author, --date", err=True)
    if form == "mbox" and common.keeps_cr(done):
        click.echo(common.KEEP_CR, err=True)
    emitted = common.emitted(done, form, author, date, trailers, reverse=reverse)
    if as_json:
        emitted = (
            json.dumps(report.data(done) | {"patch": emitted.decode("utf8", "replace")}, indent=2) + "\n"
        ).encode()
    if folder is None:
        click.echo(emitted, nl=False)
    else:
        path = folder / file_name(found_recipe, form)
        write_beside(path, emitted)
        click.echo(str(path), err=True)
    return 0
