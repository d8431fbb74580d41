"""How long the scenarios take that `ci-patcher patch` runs, beside as many bare runs of the script in a sandbox.

    python bench/scenarios.py TREE...

For each tree: the scenarios of the recipe on its patched script, wall time; as its peer, in turns with it, one
sandbox after another that only starts bash and ends, as many as there are scenarios. The ratio tells what the
harness costs or saves against the least that a sandbox for each would.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from patcher import pipeline, sources
from patcher import recipe as recipes

RUNS = 3
PEER = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "bash", "-c", "true"]


def main(names: list[str]) -> None:
    """Print one row a tree."""
    if not names or shutil.which("bwrap") is None:
        sys.exit(__doc__ if not names else "bwrap is missing")
    recipe = recipes.load("docker-build-cache", [recipes.bundled()])
    values = recipe.values({})
    print(f"{'tree':<24} {'scenarios':>9} {'held':>5} {'wall s':>7} {'peer s':>7} {'ratio':>6}")
    for name in names:
        source = sources.tree(Path(name))
        plan = pipeline.examine(source, recipe, values)
        ours, peers = [], []
        for _ in range(RUNS):
            start = time.monotonic()
            findings = pipeline.scenarios(source, plan, recipe, values, result=plan.result)
            ours.append(time.monotonic() - start)
            start = time.monotonic()
            for _ in findings:
                subprocess.run(PEER, check=True)
            peers.append(time.monotonic() - start)
        held = sum(finding.verdict == "held" for finding in findings)
        wall, peer = statistics.median(ours), statistics.median(peers)
        print(f"{Path(name).name:<24} {len(findings):>9} {held:>5} {wall:>7.2f} {peer:>7.2f} {wall / peer:>6.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
