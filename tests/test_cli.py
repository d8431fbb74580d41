"""The command line as scripts and people use it: forms, exit statuses, what leaks in and what does not."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from patcher.review import sandbox
from tests.command import BUILD, SCRIPT, WHO, Done, call, command, git, here, repository, script, state_of
from tests.conftest import FIXTURES, ROOT, needs


def patched(cwd: Path, *arguments: str | Path | bytes, env: dict[str, str] | None = None) -> Done:
    done = here(cwd, "patch", "--no-verify", *WHO, *arguments, env=env)
    assert done.status == 0, done.error
    return done


def am(root: Path, patch: bytes, *arguments: str) -> None:
    git(root, "am", "--quiet", *arguments, data=patch)
    assert git(root, "status", "--porcelain") == b""


# which form, and where it goes


def test_nothing_to_do(tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    am(root, patched(root).out)
    before = state_of(tmp_path)
    for arguments in ([], ["--check"], ["--json"], ["-o", tmp_path / "out"], ["--format", "diff"]):
        done = here(root, "patch", "--no-verify", *WHO, *arguments)
        assert (done.status, done.out) == (0, b""), done.error
        assert done.error == f"{SCRIPT}: nothing to do: the block is there and current\n"
    assert state_of(tmp_path) == before
    for name in ("29.x", "29.1"):
        done = here(tmp_path, "patch", "--reverse", FIXTURES / name)
        assert (done.status, done.out, "nothing to do" in done.error) == (0, b"", True)


def test_check(tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    before = state_of(tmp_path)
    due = here(root, "patch", "--check", "-o", tmp_path / "out")
    assert (due.status, due.out) == (1, b"")
    assert due.first == f"{SCRIPT}:23:3: a patch is needed: the hook only"
    assert state_of(tmp_path) == before
    am(root, patched(root, "--set", "cache-to=CIRRUS_BRANCH=master").out)
    assert here(root, "patch", "--check", "--set", "cache-to=CIRRUS_BRANCH=master").status == 0
    other = here(root, "patch", "--check")
    assert (other.status, other.first.split(": ", 1)[1]) == (1, "a patch is needed: ours, other options")
    kept = "The block has cache-to=CIRRUS_BRANCH=master; `--set cache-to=CIRRUS_BRANCH=master` keeps that"
    assert kept in other.error
    assert kept in here(root, "inspect").out.decode()
    assert here(root, "patch", "--check", "--reverse").status == 1
    (root / SCRIPT).write_bytes(b"docker build 'cut\n")
    assert here(root, "patch", "--check").status == 4


@pytest.mark.parametrize("fixture", ["25.x", "29.x", "29.1", "pr-variable", "no-final-newline", "master"])
def test_the_reverse_gives_the_old_bytes(fixture: str, tmp_path: Path) -> None:
    root = repository(tmp_path / "clone", fixture)
    am(root, patched(root).out)
    reverse = patched(root, "--reverse")
    assert b'\nSubject: [PATCH] Revert "ci: ' in reverse.out
    am(root, reverse.out)
    if fixture not in {"29.1", "pr-variable"}:  # there the reference is the script without the foreign block
        assert git(root, "diff", "--stat", "HEAD~2") == b""
    assert here(root, "patch", "--reverse").error.endswith("no block of ours to remove (the hook only)\n") or (
        fixture in {"25.x", "no-final-newline"}
    )
    assert patched(root).out.count(b"\n+++ ") == 1


def test_json(tmp_path: Path) -> None:
    script(tmp_path)
    done = patched(tmp_path, "--json")
    data = json.loads(done.out)
    assert data["patch"].encode() == patched(tmp_path).out
    assert (data["file"], data["state"], data["build"]) == (SCRIPT, "no cache", f"{SCRIPT}:2:1")
    assert data["changed"] == [SCRIPT]
    assert {finding["verdict"] for finding in data["findings"]} == {"held"}
    seen = json.loads(here(tmp_path, "inspect", "--json").out)
    assert (seen["file"], seen["state"], seen["builds"]) == (SCRIPT, "no cache", [f"{SCRIPT}:2:1"])
    script(tmp_path, BUILD + b"docker build other\n")
    refused = here(tmp_path, "patch", "--json")
    assert (refused.status, refused.out) == (3, b"")
    assert json.loads(here(tmp_path, "inspect", "--json").out)["state"] == "refused"


def test_a_folder_for_the_patch(tmp_path: Path) -> None:
    script(tmp_path)
    names: list[Path] = []
    for form in ("mbox", "diff", "markdown"):
        done = patched(tmp_path, "--format", form, "-o", "out/below")
        assert done.out == b""
        (path,) = set((tmp_path / "out/below").iterdir()) - set(names)
        assert f"\n{path.relative_to(tmp_path)}\n" in done.error
        assert path.read_bytes() == patched(tmp_path, "--format", form).out
        assert path.stat().st_mode & 0o777 == 0o644
        names.append(path)
    assert [path.suffix for path in names] == [".patch", ".diff", ".md"]
    names[0].write_text("an older one", encoding="ascii")
    patched(tmp_path, "-o", "out/below")
    assert names[0].read_bytes() == patched(tmp_path).out
    assert len(list((tmp_path / "out/below").iterdir())) == len(names)


def test_the_form_where_author_or_date_are_unknown(tmp_path: Path) -> None:
    script(tmp_path)
    both = "give --author, or set user.name and user.email in git; give --date, or set SOURCE_DATE_EPOCH"
    author, date = both.split("; ")
    for known, missing, hint in (
        ([], "author and date", both),
        (WHO[:2], "date", date),
        (WHO[2:], "author", author),
    ):
        done = here(tmp_path, "patch", "--no-verify", *known)
        assert (done.status, done.out[:5]) == (0, b"diff ")
        said = f"\n--format diff, for git apply: the {missing} of the commit is unknown\n  For git am, {hint}\n"
        assert done.error.endswith(said)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "apply", "--check", data=done.out)
    epoch = here(tmp_path, "patch", "--no-verify", *WHO[:2], env={"SOURCE_DATE_EPOCH": "1700000000"})
    assert b"\nDate: Tue, 14 Nov 2023 22:13:20 +0000\n" in epoch.out
    wrong = here(tmp_path, "patch", "--no-verify", env={"SOURCE_DATE_EPOCH": "tomorrow"})
    assert (wrong.status, wrong.out) == (2, b"")


def test_author_and_date_of_a_repository(tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    git(root, "config", "user.name", "J\u00f6rg Configured")
    git(root, "config", "user.email", "joerg@example.org")
    git(root, "commit", "--quiet", "--amend", "--no-edit", "--allow-empty", "--date=2020-01-01T00:00:00Z")
    picked = git(root, "rev-parse", "HEAD").decode().strip()
    done = here(root, "patch", "--no-verify", "--signoff", "--github-pull", "#31545", "--rebased-from", picked)
    am(root, done.out)
    shown = git(root, "log", "-1", "--format=%an <%ae>%n%cd%n%B", "--date=raw").decode().splitlines()
    assert shown[0] == "J\u00f6rg Configured <joerg@example.org>"
    dates = git(root, "log", "--format=%ad|%cd", "--date=raw", "-2").decode().splitlines()
    assert dates[0].split("|")[0] == dates[1].split("|")[1]
    trailers = ["Github-Pull: #31545", f"Rebased-From: {picked}", f"Signed-off-by: {shown[0]}"]
    assert [line for line in shown if line][-3:] == trailers


def test_the_message_says_what_is_replaced(tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    option = ("--set", "cache-to=THE_VALUE=VARIABLE")  # the words of the option's own form
    first = patched(root, *option)
    assert b"\nThe cache is written only if THE_VALUE is VARIABLE." in first.out
    assert b'if [ "${THE_VALUE:-}" != "VARIABLE" ]; then\n' in first.out
    am(root, first.out)
    update = patched(root)
    assert b"\nSubject: [PATCH] ci: update the optional docker build cache on the CI host\n" in update.out
    assert b"\nThis replaces the same with other options.\n" in update.out
    assert b"\nThis replaces the block of #31545.\n" in patched(FIXTURES / "29.1").out
    assert b'\nThis takes out again what "ci: optionally cache' in patched(root, "--reverse", *option).out


def test_the_notes_are_short_lines(tmp_path: Path) -> None:
    root = repository(tmp_path / "clone", "29.1")
    for rev in ([], ["--rev", "main"]):
        below = patched(root, *rev).out.decode().split("\n---\n")[1].split("\n ci/")[0]
        assert "\n    tabs or trailing blanks, " in below
        assert max(map(len, below.splitlines())) <= 72


def test_a_pull_request_is_a_number_with_or_without_its_sign(tmp_path: Path) -> None:
    script(tmp_path)
    done = [patched(tmp_path, "--github-pull", number).out for number in ("31545", "#31545")]
    assert done[0] == done[1]
    assert b"\n\nGithub-Pull: #31545\n---\n" in done[0]


@pytest.mark.parametrize("arguments", [["patch", "--no-verify"], ["patch", "nowhere"], ["patch", "--nonsense"]])
def test_a_full_disk_behind_standard_error(tmp_path: Path, arguments: list[str]) -> None:
    script(tmp_path)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command(*arguments), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=full, check=False)
    assert done.returncode == 4


def test_backport_check_and_reverse(tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    git(root, "checkout", "--quiet", "-b", "29.x")
    am(root, patched(root).out)
    git(
        root,
        "branch",
        "22.x",
        git(root, "commit-tree", "-m", "empty", git(root, "mktree").decode().strip()).decode().strip(),
    )
    before = state_of(tmp_path)
    due = here(root, "backport", "--check", "main", "29.x", "22.x")
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in due.out.decode().splitlines()]
    assert [(row[0], row[-1]) for row in table[2:]] == [
        ("main", "patch needed"),
        ("29.x", "nothing to do"),
        ("22.x", "skipped: no image build"),
    ]
    assert (due.status, "Next: ci-patcher" in due.error) == (1, True)
    assert here(root, "backport", "--check", "29.x", "22.x").status == 0
    assert here(root, "backport", "--check", "29.x", "-o", tmp_path / "out").status == 2
    removed = here(root, "backport", "--reverse", "--no-verify", *WHO, "--json", "29.x", "main")
    assert [one["result"] for one in json.loads(removed.out)["branches"]] == ["removed", "nothing to do"]
    assert re.search(r"\| 29\.x .*\| removed +\|\n", removed.error)
    assert state_of(tmp_path) == before


def test_a_tree_below_the_root_of_its_repository(tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    git(root, "mv", "ci", "below")
    (root / "tree").mkdir()
    git(root, "mv", "below", "tree/ci")
    git(root, "commit", "--quiet", "--message=moved")
    done = patched(root / "tree", "-o", "out")
    said = "The file differs from HEAD, to which git am applies a patch: commit it first"
    assert said not in done.error
    file = root / "tree" / SCRIPT
    file.write_bytes(file.read_bytes() + b"# more\n")
    assert said in patched(root, "tree").error
    git(root, "checkout", "--quiet", ".")
    git(root, *shlex.split(done.error.splitlines()[-1].removeprefix(f"Next: git -C {root} ")))
    assert here(root, "patch", "--check", "tree").status == 0


# verify

NETWORK = ("--recipe", "docker-build-network")


def test_verify_says_what_held_and_what_a_patch_would_add(tmp_path: Path) -> None:
    if sandbox.missing():
        pytest.skip(sandbox.missing())
    root = repository(tmp_path / "clone")
    without = here(root, "verify", *NETWORK)
    lines = without.out.decode().splitlines()
    assert (without.status, lines[0]) == (1, f"{SCRIPT}: not there; a patch would add what does not hold below")
    assert re.fullmatch(r"[1-9]\d* held, [1-9]\d* broken, 0 not run", lines[-1])
    assert without.out.count(b"\n       steps: ") == 2 < without.out.count(b"  broken")
    am(root, patched(root, *NETWORK).out)
    done = here(root, "verify", *NETWORK)
    assert (done.status, done.out.count(b"  broken")) == (0, 0)
    data = json.loads(here(root, "verify", "--json", *NETWORK).out)
    assert {finding["verdict"] for finding in data} == {"held"}


def test_verify_fails_where_nothing_was_run(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "bash"):
        (programs / name).symlink_to(needs(name))
    done = call(tmp_path, "verify", FIXTURES / "29.x", *NETWORK, env={"PATH": str(programs)})
    assert (done.status, done.out.count(b"  not run  ")) == (1, done.out.count(b"\n") - 2)
    assert done.first == "Nothing was run: no bubblewrap (bwrap) on this machine: install the package bubblewrap"


# what a patch is applied to


def test_the_path_of_a_lone_script(tmp_path: Path) -> None:
    fork = repository(tmp_path / "clone")
    git(fork, "mv", "ci", "build-aux")
    git(fork, "commit", "--quiet", "--message=moved")
    for cwd, name in ((fork, "build-aux/test/02_run_container.sh"), (fork / "build-aux/test", "02_run_container.sh")):
        done = patched(cwd, name)
        assert b"\n+++ b/build-aux/test/02_run_container.sh\n" in done.out
    am(fork, done.out)
    file = script(tmp_path / "plain/ci/below")
    for cwd, path in ((tmp_path, str(file)), (file.parent, file.name), (file.parent, f"../test/./{file.name}")):
        assert patched(cwd, path).out.count(b"\n+++ b/ci/test/02_run_container.sh\n") == 1
    shutil.move(file, tmp_path / "build.sh")
    nowhere = here(tmp_path, "patch", "build.sh")
    assert (nowhere.status, nowhere.out) == (2, b"")
    assert "Name the root of its tree instead" in nowhere.error


NAMES = ["ci/a b/\u00e4 \u2603.sh", 'ci/quo"te\\back.sh', "ci/tab\tnew\nline.sh", "ci/-dash/--help.sh", "ci/$(x);'.sh"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(name: str, tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    script(root, BUILD, name)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=odd")
    done = patched(root, "--", name)
    git(root, "apply", "--check", data=patched(root, "--format", "diff", "--", name).out)
    am(root, done.out)
    assert b"docker_build_cached docker build .\n" in (root / name).read_bytes()
    assert here(root, "patch", "--", name).error.endswith("nothing to do: the block is there and current\n")


def test_modes_and_line_ends(tmp_path: Path) -> None:
    for mode, content in (
        (0o644, BUILD),
        (0o755, BUILD.rstrip(b"\n")),
        (0o644, BUILD.replace(b"\n", b"\r\n")),
        (0o755, b"\xef\xbb\xbf# \xff\xfe\xc3\n" + BUILD + b"From here: \xe4\n"),
    ):
        root = tmp_path / "clone"
        git(tmp_path, "init", "--quiet", "clone")
        script(root, content, mode=mode)
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message=base")
        done = patched(root)
        cr = b"\r\n" in content
        assert ("git am needs --keep-cr" in done.error) == (b"git am needs --keep-cr" in done.out) == cr
        git(root, "apply", "--check", data=patched(root, "--format", "diff").out)
        am(root, done.out, *(["--keep-cr"] if cr else []))
        after = (root / SCRIPT).read_bytes()
        assert after.endswith(b"\n") == content.endswith(b"\n")
        assert (after.count(b"\n") == after.count(b"\r\n")) == cr
        assert f"100{mode:o} ".encode() in git(root, "ls-files", "--stage")
        assert here(root, "patch", "--check").status == 0
        git(root, "revert", "--no-edit", "HEAD")
        assert (root / SCRIPT).read_bytes() == content
        shutil.rmtree(root)


# what must not leak in, or out

SETTINGS = dict(
    re.findall(
        r"(\S+)=(\S+)",
        """
    diff.noprefix=true diff.mnemonicPrefix=true diff.context=9 diff.interHunkContext=9 diff.algorithm=patience
    diff.renames=copies diff.external=false diff.orderFile=/dev/null core.abbrev=5 core.autocrlf=true
    core.quotePath=false core.attributesFile=attributes color.ui=always format.signature=sent-by-a-machine
    format.pretty=oneline format.subjectPrefix=RFC format.attach=boundary format.thread=true
    format.from=<else@example.org> format.to=list@example.org format.coverLetter=true format.notes=true
    format.useAutoBase=true format.suffix=.txt i18n.commitEncoding=ISO-8859-1 i18n.logOutputEncoding=ISO-8859-1
    commit.gpgSign=true log.showSignature=true user.useConfigOnly=true
    """,
    )
)


@pytest.mark.parametrize("where", ["local", "global", "environment"])
def test_no_setting_of_git_leaks_in(where: str, tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    who = ("--author", "J\u00f6rg <j@example.org>", *WHO[2:])
    forms = [["--format", form] for form in ("mbox", "diff")]
    expected = [patched(root, *who, *form).out for form in forms]
    environment = {}
    if where == "environment":
        environment = {"GIT_DIFF_OPTS": "-u9", "GIT_EXTERNAL_DIFF": "false", "GIT_PAGER": "false", "GIT_TRACE": "1"}
        environment |= {"GIT_CONFIG_COUNT": str(len(SETTINGS)), "GIT_AUTHOR_NAME": "X", "TZ": "Asia/Tokyo"}
        for number, (key, value) in enumerate(SETTINGS.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    elif where == "global":
        environment = {"GIT_CONFIG_GLOBAL": str(tmp_path / "settings")}
        for key, value in SETTINGS.items():
            git(tmp_path, "config", "--file", "settings", key, value)
    else:
        for key, value in SETTINGS.items():
            git(root, "config", key, value)
    for file in (".gitattributes", "attributes", ".git/info/attributes"):
        (root / file).write_text("* -diff -text ident export-subst\n*.sh binary\n", encoding="ascii")
    assert [patched(root, *who, *form, env=environment).out for form in forms] == expected


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    first, second = (repository(tmp_path / name / "clone") for name in ("a", "b"))
    for arguments in ([], ["--format", "diff"], ["--format", "markdown"], ["--format", "html"], ["--json"]):
        one = patched(first, *arguments)
        environment = {"TMPDIR": str(first), "TZ": "Asia/Tokyo", "LANG": "de_DE", "PYTHONHASHSEED": "1"}
        two = call(tmp_path, "patch", "--no-verify", *WHO, *arguments, second, env=environment)
        assert (one.out, one.error) == (two.out, two.error)
        assert str(tmp_path).encode() not in one.out


ATTACKS = [
    "ci/x\nFrom 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\nFrom: <a@b>\nSubject: x\n\n---/a.sh",
    "ci/x\n---\ndiff --git a/evil b/evil\nnew file mode 100755\n--- /dev/null\n+++ b/evil\n@@ -0,0 +1 @@\n+evil\n/a.sh",
    "ci/x\n--- evil\n+++ evil\n@@ -0,0 +1 @@\n+evil\n-- \n2.39.5\n/a.sh",
    "ci/x\r\nIndex: evil\r\n>From a\r\x0b\x0c\x85\u2028diff --git a/evil b/evil/a.sh",
    "ci/\x1b[2J\x1b]0;title\x07/a.sh",
]


@pytest.mark.parametrize("name", ATTACKS, ids=range(len(ATTACKS)))
def test_no_line_of_the_review_is_taken_for_a_patch(name: str, tmp_path: Path) -> None:
    root = repository(tmp_path / "clone")
    script(root, b"# --- a/x\n# +++ b/x\nFrom () { :; }\n" + BUILD, name)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=odd")
    done = patched(root, "--", name)
    below = done.out.split(b"\n---\n", 1)[1].split(b"\n\n", 1)[0]
    assert len(below.split(b"\n")) in {6, 7}  # text of others is never broken
    assert all(re.match(rb"  [^\x00-\x1f\x7f]+\Z", line) for line in below.split(b"\n"))
    assert not re.search("[\x80-\x9f\u2028]", below.decode())
    assert len(re.findall(rb"(?m)^From ", done.out)) == 1
    am(root, done.out)
    assert git(root, "show", "--format=", "--name-only", "-z", "HEAD").rstrip(b"\0").decode() == name
    assert not any("evil" in path.name for path in root.iterdir())
    assert git(root, "log", "-1", "--format=%an%n%s").startswith(b"A U Thor\nci: ")


# start-up


def test_start_up_imports_nothing_heavy(tmp_path: Path) -> None:
    done = call(tmp_path, "--version", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.status == 0
    assert not re.search(r"\| +(bashlex|libcst|rich|pygments|patcher\.parse)\b", done.error)
    assert re.search(r"\| +click\b", done.error)
    assert os.fsdecode(done.out).startswith("ci-patcher")


# the README


def test_the_patch_in_the_readme_is_what_comes_out(tmp_path: Path) -> None:
    if sandbox.missing():
        pytest.skip(sandbox.missing())
    shown = (ROOT / "README.md").read_text(encoding="utf8").split("```diff\n")[1].split("```")[0].splitlines()
    made = here(tmp_path, "patch", *WHO, FIXTURES / "29.x").out.decode().splitlines()
    for line in shown:
        whole = line.removesuffix(" ...")
        assert line == "..." or any(one.startswith(whole) if whole != line else one == line for one in made), line
