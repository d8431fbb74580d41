"""Kill it anywhere: each signal at every point of the block, on a script that is executed and one that is sourced."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from patcher import pipeline, sources
from patcher import recipe as recipes
from patcher.model import Script, Verdict
from patcher.review import behaviour
from tests.conftest import FIXTURES
from tests.test_behaviour import EXECUTED, RECIPE, SOURCED, needs_sandbox, patched, plain, python

pytestmark = pytest.mark.long

MASTER = "CIRRUS_BRANCH=master"
SCRIPTS = {
    "executed": (plain(EXECUTED), patched(EXECUTED), "always"),
    "executed, with a condition": (plain(EXECUTED), patched(EXECUTED, option=MASTER), MASTER),
    "sourced": (plain(SOURCED), patched(SOURCED), "always"),
}


@needs_sandbox
@pytest.mark.parametrize(("original", "script", "option"), SCRIPTS.values(), ids=SCRIPTS)
def test_every_point_and_signal(original: Script, script: Script, option: str) -> None:
    scenarios = replace(behaviour.load_scenarios(RECIPE), scenarios=())
    findings = behaviour.run(scenarios, original, script, options={"cache-to": option}, exhaustive=True)
    assert {finding.row for finding in findings} == {7, 8, 14}
    for finding in findings:
        print(f"{finding.row} {finding.check}: {finding.detail}")
        assert finding.verdict is Verdict.HELD, f"{finding.check}: {finding.detail}\n{finding.evidence}"
        assert int(finding.detail.split()[0]) >= 30


@needs_sandbox
def test_every_line_of_python() -> None:
    """In Python each line of the block and of the library that it calls is a point, so fewer kinds of signal."""
    scenarios = behaviour.load_scenarios(RECIPE)
    kinds = {
        "SIGTERM to the group at every point, the build: ok",
        "SIGINT to the group at every point, the build: broken",
        "SIGTERM to the script alone at every point, the build: ok",
        "SIGKILL to the group at every point, the build: ok",
    }
    chosen = replace(
        scenarios, scenarios=(), exhaustive=tuple(one for one in scenarios.exhaustive if one.name in kinds)
    )
    findings = behaviour.run(chosen, python(), python("always"), options={}, exhaustive=True)
    assert {finding.check for finding in findings} == kinds
    for finding in findings:
        print(f"{finding.row} {finding.check}: {finding.detail}")
        assert finding.verdict is Verdict.HELD, f"{finding.check}: {finding.detail}\n{finding.evidence}"
        assert int(finding.detail.split()[0]) >= 100


@needs_sandbox
def test_a_block_that_cleans_up_only_when_all_goes_well_is_caught() -> None:
    """The enumeration can say no: without its traps the block fails where no fixed point of the quick scenarios is."""
    scenarios = replace(behaviour.load_scenarios(RECIPE), scenarios=())
    text = "".join(line for line in patched().text.splitlines(keepends=True) if not line.startswith("  trap "))
    findings = behaviour.run(scenarios, plain(), Script(EXECUTED, text), options={}, exhaustive=True)
    assert {finding.row for finding in findings if finding.verdict is Verdict.BROKEN} >= {7}


@needs_sandbox
@pytest.mark.parametrize(
    "name",
    ["constructs", "engine-variable", "exported-function", "here-document", "podman-beside-docker", "retry-group"],
)
def test_every_row_on_the_odd_shapes(name: str) -> None:
    """What forks have around the build: a retry of their own, functions in a child shell, stderr in a pipe."""
    recipe = recipes.read(RECIPE)
    source = sources.tree(FIXTURES / name)
    plan = pipeline.examine(source, recipe, recipe.values({}))
    findings = pipeline.scenarios(source, plan, recipe, recipe.values({}), result=plan.result)
    assert [f"{f.row} {f.check}: {f.detail}" for f in findings if f.verdict is not Verdict.HELD] == []
