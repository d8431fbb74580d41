"""Compare the patch of every real version of the CI scripts with the one that a table has.

    python bench/hashes.py REPO... [--write]

The table, tests/real_versions.tsv, has a line for each version: its path, its git blob, and for each recipe the state
and the first 20 digits of the SHA-256 of its diff (no digits where there is nothing to patch). ``--write`` writes it
anew. The exit status is 1 where a version differs from its line. A version without a line is only counted.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from pathlib import Path

from replay import Version, versions

from patcher import pipeline, recipe
from patcher.emit import git
from patcher.errors import CiPatcherError
from patcher.model import Recipe

TABLE = Path(__file__).resolve().parent.parent / "tests" / "real_versions.tsv"
RECIPES = ("docker-build-cache", "docker-build-network")


def cell(version: Version, chosen: Recipe) -> str:
    """What comes of a version: its state and the hash of its diff, or the class of the error."""
    try:
        done = pipeline.change(version, chosen, chosen.values({}), verify=False)
    except CiPatcherError as error:
        return type(error).__name__
    if done.broken:
        return f"review failed: {done.broken[0].check}"
    digest = hashlib.sha256(git.diff(done.pairs)).hexdigest()[:20] if done.pairs else ""
    return f"{done.plan.state} {digest}".rstrip()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", metavar="REPO", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="write the table anew")
    options = parser.parse_args()
    recipes = [recipe.load(name, [recipe.bundled()]) for name in RECIPES]
    known = dict(line.split("\t", 2)[1:] for line in TABLE.read_text("utf8").splitlines()) if TABLE.exists() else {}
    counts: Counter[str] = Counter()
    lines: dict[str, str] = {}
    for version in versions(options.repositories, recipes[0].files):
        found = "\t".join(cell(version, chosen) for chosen in recipes)
        lines[version.blob] = f"{version.script.path}\t{version.blob}\t{found}\n"
        if version.blob not in known:
            counts["without a line"] += 1
        elif known[version.blob] == found:
            counts["as before"] += 1
        elif not options.write:
            counts["different"] += 1
            print(f"{version.script.path} {version.blob}\n  was {known[version.blob]}\n  is  {found}")
    if options.write:
        TABLE.write_text("".join(sorted(lines.values())), encoding="utf8")
    print(", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    return int(bool(counts["different"]))


if __name__ == "__main__":
    sys.exit(main())
