"""Replay the pipeline on every version of the CI scripts that some repositories' histories hold.

    python bench/replay.py REPO... [--lint] [--verify]

Each distinct version of the recipe's files is patched; on the same versions, ``git cherry-pick`` of the commit
that upstream merged and ``patch -F3`` do what text can, and the results are judged alike. The exit status is 1
where a version with an image build was refused or came out wrong.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from patcher import anchors, pipeline, recipe
from patcher.errors import CiPatcherError, InputError, NoBuildError, RefusedError
from patcher.model import Command, Finding, Patch, Recipe, Script, Source, State, Syntax, Verdict
from patcher.repository import git
from patcher.review import static

MERGED = "e87429a2d0f23eb59526d335844fa5ff5b50b21f"  # PR #31545
MERGED_FILE = "ci/test/02_run_container.sh"
TARGET = 1.8
SCRATCH = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "LC_ALL": "C",
    **{f"GIT_{who}_{what}": "replay" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


_EMPTY = Script("", "")


@dataclass(frozen=True, slots=True)
class Version(Source):
    """One version of one script, as a source of its own."""

    script: Script = _EMPTY
    blob: str = ""


@dataclass(slots=True)
class Tally:
    """What came of the versions: counts by row and column of the table, and lines about what stands out."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    remarks: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    failed: bool = False

    def add(self, row: str, version: Version) -> None:
        self.counts[row][version.script.path] += 1

    def remark(self, version: Version, what: str, detail: str) -> None:
        self.remarks[f"{what}: {detail}"].append(f"{version.name} ({version.blob[:12]})")


# reading


def versions(repositories: Sequence[Path], paths: Sequence[str]) -> Iterator[Version]:
    """Every distinct version of the paths in the histories of all refs, each once."""
    seen: set[str] = set()
    for repository in repositories:
        log = git(
            repository,
            ["log", "--all", "--full-history", "-m", "--raw", "--no-abbrev", "--no-renames", "-z", "--format=%x01%H",
             "--", *paths],
        )  # fmt: skip
        found: dict[str, tuple[str, str, str]] = {}
        commit = ""
        fields = log.stdout.decode("utf8", "surrogateescape").replace("\n", "\0").split("\0")
        for entry, path in zip(fields, [*fields[1:], ""], strict=True):
            if entry.startswith("\x01"):
                commit = entry[1:]
            elif entry.startswith(":"):
                _, mode, _, blob, _ = entry.split()
                if mode in {"100644", "100755"} and blob not in seen:
                    seen.add(blob)
                    found[blob] = (path, mode, commit)
        for blob, data in _blobs(repository, found):
            path, mode, commit = found[blob]
            script = Script(path, data.decode("utf8", "surrogateescape"), mode)
            name = f"{repository.parent.name if repository.name in {'repo', '.git'} else repository.name}@{commit[:12]}"
            held = {path: script}
            yield Version(name, repository, repository, commit, only=path, held=held, script=script, blob=blob)


def _blobs(repository: Path, blobs: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    out = git(repository, ["cat-file", "--batch"], data="".join(f"{blob}\n" for blob in blobs).encode()).stdout
    at = 0
    while at < len(out):
        end = out.index(b"\n", at)
        name, *kind = out[at:end].decode().split()
        at = end + 1
        if len(kind) == 2:  # else: "missing", in a partial clone
            yield name, out[at : at + int(kind[1])]
            at += int(kind[1]) + 1


# what text can do


def merged(repositories: Sequence[Path]) -> tuple[bytes, bytes] | None:
    """The file before and after the commit that upstream merged."""
    for repository in repositories:
        pair = [git(repository, ["show", f"{rev}:{MERGED_FILE}"], check=False) for rev in (f"{MERGED}^", MERGED)]
        if all(done.returncode == 0 for done in pair):
            return pair[0].stdout, pair[1].stdout
    return None


class Scratch:
    """A repository in which each version, and the merged change, is a commit of its own."""

    def __init__(self, folder: Path, upstream: tuple[bytes, bytes], scripts: Sequence[Script]) -> None:
        self.folder = folder
        self.old, self.new = upstream
        self._git("init", "--quiet")
        trees = [("theirs", MERGED_FILE, "100755", self.old), ("theirs", MERGED_FILE, "100755", self.new)]
        trees += [(f"v{i}", script.path, script.mode, script.data) for i, script in enumerate(scripts)]
        stream = b"".join(
            b"commit refs/heads/%b\ncommitter a <a> 0 +0000\ndata 1\n.\nM %b inline %b\ndata %d\n%b\n"
            % (branch.encode(), mode.encode(), path.encode(), len(data), data)
            for branch, path, mode, data in trees
        )
        self._git("fast-import", "--quiet", data=stream)
        self._git("diff", "--output=../merged.diff", "theirs^", "theirs")

    def _git(self, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, input=data, capture_output=True, check=False,
            env=SCRATCH | {"PATH": _path(), "HOME": str(self.folder)},
        )  # fmt: skip

    def cherry_pick(self, index: int, script: Script) -> str | None:
        """The script with the merged change picked onto it, or None where git stops."""
        self._git("reset", "--quiet", "--hard", f"v{index}")
        self._git("checkout", "--quiet", "--detach")
        if self._git("cherry-pick", "--keep-redundant-commits", "theirs").returncode:
            return None
        return (self.folder / script.path).read_bytes().decode("utf8", "surrogateescape")

    def patch(self, index: int, script: Script) -> str | None:
        """The script as ``patch -F3`` leaves it, or None where a hunk is refused."""
        file, out = self.folder.parent / f"in{index}", self.folder.parent / f"out{index}"
        file.write_bytes(script.data)
        done = subprocess.run(
            ["patch", "-F3", "--forward", "--silent", "--reject-file=-", f"--output={out}", file, "../merged.diff"],
            cwd=self.folder, capture_output=True, check=False, env={"PATH": _path(), "LC_ALL": "C"},
        )  # fmt: skip
        return None if done.returncode else out.read_bytes().decode("utf8", "surrogateescape")


def _path() -> str:
    return ":".join(
        sorted({str(Path(found).parent) for tool in ("git", "patch", "sh") if (found := shutil.which(tool))})
    )


# judging


def wrong(result: Script, before: int, hook: str) -> str:
    """What is wrong with a script into which the merged block was carried, or empty where it works."""
    parsed = static.parses(result)
    if parsed.verdict is Verdict.BROKEN:
        return parsed.detail
    try:
        syntax = pipeline.parse(result)
        anchor = anchors.find("image-build", syntax)
    except CiPatcherError as error:
        return str(error)
    if static.one_build(before, len(anchor.commands)).verdict is Verdict.BROKEN:
        return "another number of builds"
    passed = {_passed(command, syntax, hook) for command in anchor.commands}
    if passed != {1}:
        return f"the cache argument is passed {' or '.join(map(str, sorted(passed)))} times"
    build = anchor.verbs[0][0]
    assigned = [name.offset for name in syntax.names if name.assigned and name.name == hook]
    moves = [command.words[0].start for command in syntax.commands if command.words[0].text == "mv"]
    if len(assigned) != 2 or max(assigned) > build or not any(move > build for move in moves):
        return "the parts of the block are not where they belong"
    return ""


def _passed(command: Command, syntax: Syntax, hook: str) -> int:
    """How many times a build is given the cache arguments."""
    words = [syntax.script.text[word.start : word.end] for word in command.words]
    return sum(hook in word or word.startswith("--cache-to") for word in words)


def doubled(done: Patch) -> bool:
    """Whether a build of ours would be given the cache arguments twice: wrapped twice, or beside another block's."""
    after = pipeline.parse(done.pairs[0][1])
    commands = anchors.find(done.recipe.anchor, after).commands
    wraps = [done.pairs[0][1].text[c.head[0] : c.words[-1].end].count(done.recipe.defines) for c in commands]
    code = "".join(line for line in done.plan.reference.text.splitlines() if not line.lstrip().startswith("#"))
    return "type=local" in code or max(wraps) > 1


# the run


@dataclass(slots=True)
class Times:
    """Processor time of this process in seconds."""

    pipeline: float = 0
    parsing: float = 0
    linters: float = 0
    count: int = 0


def replay(version: Version, chosen: Recipe, tally: Tally, times: Times) -> tuple[Version, Patch | None] | None:
    """One version through the pipeline. Gives None where there is no build to change."""
    values = chosen.values({})
    done: Patch | None = None
    problem: CiPatcherError | None = None
    before = time.process_time()
    try:
        done = pipeline.change(version, chosen, values, verify=False)
    except (RefusedError, InputError) as error:
        problem = error
    times.pipeline += time.process_time() - before
    times.count += 1
    before = time.process_time()
    for script in [version.script, *(new for _, new in (done.pairs if done else ()))]:
        try:
            pipeline.parse(script)
        except InputError:
            continue
    times.parsing += time.process_time() - before
    tally.add("versions", version)
    if isinstance(problem, NoBuildError):
        tally.add("  no image build", version)
        return None
    if isinstance(problem, InputError) and _broken(version.script):
        tally.add("  no script that its own shell reads", version)
        tally.remark(version, "no script", str(problem))
        return None
    if problem is not None or done is None:
        tally.add("  with an image build", version)
        tally.add("ci-patcher: refused", version)
        tally.remark(version, "refused", " ".join([str(problem), *(problem.hint if problem else "").split("\n")]))
        tally.failed = True
    else:
        tally.add("  with an image build", version)
        _judge(version, done, tally)
    return version, done


def _broken(script: Script) -> bool:
    return static.parses(script).verdict is Verdict.BROKEN


def _judge(version: Version, done: Patch, tally: Tally) -> None:
    if not done.pairs:
        tally.add("ci-patcher: nothing to do", version)
        if done.plan.state is not State.CURRENT:
            tally.remark(version, "nothing to do", str(done.plan.state))
            tally.failed = True
    elif done.broken or doubled(done):
        tally.add("ci-patcher: wrong", version)
        details = [f"{finding.check}: {finding.detail}" for finding in done.broken]
        tally.remark(version, "wrong", "; ".join(details) or "the cache argument is passed twice")
        tally.failed = True
    else:
        tally.add("ci-patcher: patched", version)
        tally.add(f"  from: {done.plan.state}", version)


def by_text(
    found: Sequence[tuple[Version, Patch | None]], upstream: tuple[bytes, bytes], hook: str, tally: Tally
) -> None:
    """Carry the merged commit over by text, and judge what comes of it."""
    with tempfile.TemporaryDirectory(prefix="ci-patcher-") as name:
        folder = Path(name) / "scratch"
        folder.mkdir()
        scratch = Scratch(folder, upstream, [version.script for version, _ in found])
        for index, (version, done) in enumerate(found):
            before = len(done.plan.anchor.commands) if done and done.plan.anchor else 1
            for tool, carry in (("git cherry-pick", scratch.cherry_pick), ("patch -F3", scratch.patch)):
                text = carry(index, version.script)
                if text is None:
                    tally.add(f"{tool}: refused", version)
                elif text == version.script.text:
                    tally.add(f"{tool}: there already", version)
                elif wrong(Script(version.script.path, text), before, hook):
                    tally.add(f"{tool}: silently wrong", version)
                else:
                    tally.add(f"{tool}: works", version)


def lint(version: Version, done: Patch, tally: Tally) -> None:
    """What upstream's linters say of a result."""
    for old, new in done.pairs:
        for finding in static.linted(old, new):
            tally.add(f"{finding.check}: {finding.verdict}", version)
            if finding.verdict is Verdict.BROKEN:
                tally.remark(version, finding.check, finding.detail)
                tally.failed = True


def verify(version: Version, done: Patch, tally: Tally) -> None:
    """What the contract's scenarios say of a result."""
    findings = pipeline.scenarios(done.source, done.plan, done.recipe, done.values, result=done.pairs[0][1])
    for verdict in Verdict:
        tally.counts[f"scenarios: {verdict}"][version.script.path] += sum(f.verdict is verdict for f in findings)
    bad: dict[tuple[Verdict, str], list[Finding]] = {}
    for finding in findings:
        if finding.verdict is not Verdict.HELD:
            bad.setdefault((finding.verdict, finding.detail), []).append(finding)
    for (verdict, detail), same in bad.items():
        names = ", ".join(sorted({f"row {finding.row} {finding.check}" for finding in same}))
        tally.remark(version, f"{verdict}, {names}", detail)
        tally.failed = tally.failed or verdict is Verdict.BROKEN


ROWS = [
    *("versions", "  no image build", "  no script that its own shell reads", "  with an image build"),
    *("ci-patcher: patched", *(f"  from: {state}" for state in State), "ci-patcher: nothing to do"),
    *("ci-patcher: refused", "ci-patcher: wrong"),
    *(
        f"{tool}: {end}"
        for tool in ("git cherry-pick", "patch -F3")
        for end in ("works", "there already", "silently wrong", "refused")
    ),
]
ALWAYS = {"ci-patcher: refused", "ci-patcher: wrong"}


def table(tally: Tally, paths: Sequence[str]) -> str:
    """The counts, a column a path."""
    rows = [*ROWS, *(row for row in tally.counts if row not in ROWS)]
    lines = [["", *(path.rsplit("/", 1)[-1] for path in paths), "all"]]
    for row in rows:
        counts = tally.counts.get(row, Counter())
        if counts.total() or row in ALWAYS:
            lines.append([row, *(str(counts[path]) for path in paths), str(counts.total())])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repositories", metavar="REPO", nargs="+", type=Path)
    parser.add_argument("--lint", action="store_true", help="run upstream's linters on each result, timed apart")
    parser.add_argument("--verify", action="store_true", help="run the contract's scenarios on each result")
    parser.add_argument("--no-text", action="store_true", help="leave out git cherry-pick and patch")
    options = parser.parse_args(arguments)
    chosen = recipe.load("docker-build-cache", [recipe.bundled()])
    tally, times = Tally(), Times()
    replayed = (replay(version, chosen, tally, times) for version in versions(options.repositories, chosen.files))
    built = [pair for pair in replayed if pair]
    found = [(version, done) for version, done in built if done and done.pairs]
    upstream = None if options.no_text else merged(options.repositories)
    if upstream and shutil.which("patch"):
        by_text(built, upstream, chosen.hook, tally)
    elif not options.no_text:
        tally.remarks["not run: git cherry-pick and patch"].append(f"{'patch' if upstream else MERGED} is missing")
    if options.lint:
        before = _children()
        for version, done in found:
            lint(version, done, tally)
        times.linters = _children() - before
    for version, done in found if options.verify else ():
        verify(version, done, tally)
    print(table(tally, chosen.files))
    for what, names in tally.remarks.items():
        print(f"\n{what}\n  {len(names)}: {', '.join(names)}")
    print(
        f"\nProcessor time: {1000 * times.pipeline / max(times.count, 1):.1f} ms a version; "
        f"{times.pipeline:.2f} s in the pipeline, {times.parsing:.2f} s for parsing the old and the new text once: "
        f"x {times.pipeline / max(times.parsing, 1e-9):.2f} (target: at most {TARGET})"
        + (f"; the linters {times.linters:.1f} s" if options.lint else "")
    )
    return int(tally.failed)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
