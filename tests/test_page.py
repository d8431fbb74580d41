"""The page: what is on it, that nothing on it runs or leads elsewhere, and what a browser makes of it."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from patcher import pipeline, recipe, sources
from patcher.cli import main
from patcher.emit import git, page
from patcher.errors import InputError, NoBuildError
from patcher.model import ABSENT, Finding, Outcome, Target, Verdict
from tests.command import call, repository
from tests.conftest import FIXTURES, ROOT, needs

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

RECIPE = recipe.load("docker-build-cache", [recipe.bundled()])
VALUES = RECIPE.values({})
CONTRACT = pipeline.contract(RECIPE)
ATTACK = '</pre></style></script><script>window.pwned=1</script><img src=x onerror="window.pwned=1"><b>\'&amp;'
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "section", "div", "script"),
    *("h1", "h2", "h3", "p", "b", "i", "small", "code", "pre", "span", "a", "ul", "ol", "li", "dl", "dt", "dd"),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure", "figcaption", "button"),
}
FINDINGS = (
    Finding("parses", Verdict.HELD, "bash -n"),
    Finding("shellcheck", Verdict.NOT_RUN, "it is missing"),
    Finding("variable not set", Verdict.HELD, row=1),
    Finding("the retry succeeds", Verdict.HELD, ABSENT, 6),
    Finding("SIGTERM to the group", Verdict.HELD, row=7),
    Finding("SIGINT to the group", Verdict.BROKEN, "H/C is gone", 7, f"found in /host:\n  {ATTACK}"),
    Finding("two build at once", Verdict.NOT_RUN, "bwrap is missing", 12),
)


def outcome(name: str, fixture: str | Path, findings: tuple[Finding, ...] = FINDINGS, label: str = "") -> Outcome:
    source = sources.tree(FIXTURES / fixture)
    done = pipeline.change(source, RECIPE, VALUES, verify=False)
    return Outcome(Target(name, label or name, name, None), replace(done, findings=findings, notes=()))


def made(*outcomes: Outcome, message: str = "ci: cache\n\nBody.\n") -> bytes:
    return page.page(outcomes, RECIPE, VALUES, message, CONTRACT)


@pytest.fixture
def hostile(tmp_path: Path) -> bytes:
    """A page on which everything that can come from outside tries to run."""
    name = "ci/<img src=x onerror='window.pwned=1'>.sh"
    script = tmp_path / name
    script.parent.mkdir()
    text = (FIXTURES / "29.x/ci/test/02_run_container.sh").read_text(encoding="utf8")
    at = text.index("docker buildx build")
    at = text.rindex("\n", 0, at) + 1
    hidden = "  # \u202etsoh eht no\u2066 \x1b[31m \x07 \u00e9\n"
    script.write_text(f"{text[:at]}  echo '{ATTACK.replace(chr(39), '')}' # {ATTACK}\n{hidden}{text[at:]}", "utf8")
    error = NoBuildError(ATTACK, where=ATTACK, hint=ATTACK)
    return made(
        replace(outcome(ATTACK, script, label="hostile"), strict=True),
        Outcome(Target(ATTACK, "gone", ATTACK, None), error=error),
        Outcome(Target("undecodable \udcff", "undecodable", "x", None), error=InputError(ATTACK)),
        message=ATTACK,
    )


@pytest.fixture
def two() -> bytes:
    return made(outcome("29.x", "29.x"), outcome("master", "master", ()))


def test_what_would_hide_or_reorder_text_is_shown_and_the_policy_forbids_the_rest(hostile: bytes) -> None:
    text = hostile.decode("utf8")
    assert "&lt;U+202E&gt;tsoh eht no&lt;U+2066&gt; ␛[31m ␇ é" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", text)
    hashed = "style-src 'sha256-[^' ]*'; script-src 'sha256-[^' ]*'"
    assert re.search(f"\"default-src 'none'; {hashed}; base-uri 'none'; form-action 'none'\">", text)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [(1, Verdict.HELD), (6, None), (7, Verdict.BROKEN), (12, Verdict.NOT_RUN), (20, None)],
)
def test_a_cell_says_the_worst_of_its_row(row: int, verdict: Verdict | None) -> None:
    done = outcome("29.x", "29.x").change
    assert done is not None
    assert page.of_row(done, row) is verdict
    assert page.of_row(replace(done, findings=FINDINGS[:2]), row) is Verdict.NOT_RUN


@pytest.mark.parametrize("fixture", ["25.x", "master", "29.1", "no-final-newline", "crlf"])
def test_the_diff_has_every_line_of_gits(fixture: str) -> None:
    one = outcome(fixture, fixture)
    assert one.change is not None
    wanted = git.diff(one.change.pairs[:1]).decode("utf8").replace("\r", "␍")
    shown = re.search(r"aria-label=.The change of[^>]*><code>(.*?)</code></pre>", made(one).decode("utf8"), re.DOTALL)
    assert shown is not None
    assert unescape(re.sub(r"<[^>]*>", "", shown[1])) == wanted[wanted.index("\n@@") + 1 :]


def test_a_failed_review_gives_no_patch_but_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    change = pipeline.change
    monkeypatch.setattr(pipeline, "change", lambda *one, **two: replace(change(*one, **two), findings=FINDINGS))
    for form, shown in (("diff", False), ("html", True)):
        result = CliRunner().invoke(main, ["patch", "--no-verify", "--format", form, str(FIXTURES / "29.x")])
        assert result.exit_code == 1
        assert ("H/C is gone" in result.stdout) == shown
        assert "The review failed, so there is no patch." in result.stderr


def test_backport_writes_one_page_for_all_branches(tmp_path: Path) -> None:
    repository(tmp_path / "clone")
    arguments = ["backport", "--repo", "clone", "--format", "html", "--no-verify", "main", "nowhere"]
    done = call(tmp_path, *arguments, "-o", "out")
    assert done.status == 4
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["review.html"]
    assert "out/review.html" in done.out.decode()
    written = (tmp_path / "out/review.html").read_bytes()
    assert written.count(b'class="branch"') == 2
    assert call(tmp_path, *arguments).out == written
    assert json.loads(call(tmp_path, *arguments, "--json").out)["page"] == written.decode()
    refused = call(tmp_path, *arguments, "--pr-body")
    assert refused.status == 2
    assert "-o DIR" in refused.error


# in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    chromium, driver = needs("chromium"), needs("chromedriver")
    try:
        from selenium import webdriver
    except ModuleNotFoundError:
        if os.environ.get("CI"):
            raise
        pytest.skip("selenium is missing")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in (
        *("--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--disable-dev-shm-usage"),
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


class Opened:
    """A page in the browser, of which nothing may be said on the console and from which no request may leave."""

    def __init__(self, browser: Chrome, folder: Path) -> None:
        self.browser, self.folder = browser, folder

    def open(self, content: bytes, width: int = 1280, scheme: str = "light") -> None:
        file = self.folder / "review.html"
        file.write_bytes(content)
        self.logs()
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.browser.get("about:blank")
        self.browser.get(file.as_uri())

    def run(self, script: str) -> Any:
        return self.browser.execute_script(f"return {script}")

    def soon(self, script: str) -> bool:
        """Whether it becomes true: what a click or a key sets off takes its time."""
        deadline = time.monotonic() + 5
        while not (found := self.run(script)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return bool(found)

    def logs(self) -> tuple[list[Any], list[str]]:
        said = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        log = self.browser.get_log("performance")  # type: ignore[no-untyped-call]
        events = [json.loads(entry["message"])["message"] for entry in log]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        # The page of a new tab, with which Chromium starts, may still be loading.
        return said, [one["request"]["url"] for one in sent if not one["documentURL"].startswith("chrome")]

    def is_quiet(self) -> None:
        said, urls = self.logs()
        assert said == []
        assert {url.split("#")[0] for url in urls} <= {(self.folder / "review.html").as_uri(), "about:blank"}
        assert self.run("performance.getEntriesByType('resource').length") == 0


@pytest.fixture
def opened(browser: Chrome, tmp_path: Path) -> Opened:
    return Opened(browser, tmp_path)


def test_a_click_shows_a_branch_and_the_scenarios_of_a_cell(opened: Opened, two: bytes) -> None:
    from selenium.webdriver.common.by import By

    opened.open(two)
    (diff, other) = opened.browser.find_elements(By.CSS_SELECTOR, ".branch .diff")
    assert not diff.is_displayed()
    opened.browser.find_element(By.LINK_TEXT, "29.x").click()
    assert opened.soon("document.getElementById('branch-29.x').open")
    assert "docker_build_cached() (" in diff.text
    assert (diff.is_displayed(), other.is_displayed()) == (True, False)
    colors = [opened.run(f"getComputedStyle(document.querySelector('.diff {one}')).color") for one in (".k", "code")]
    assert colors[0] != colors[1]
    for _ in range(2):  # also when it was closed by hand, and the address stays the same
        opened.run("document.querySelector('details.branch').open = false")
        opened.browser.find_element(By.CSS_SELECTOR, "a[href='#branch-29.x-row-1']").click()
        assert opened.soon("document.getElementById('branch-29.x-row-1').checkVisibility()")
        assert "variable not set" in opened.browser.find_element(By.ID, "branch-29.x-row-1").text
    opened.is_quiet()


def test_the_keyboard_is_enough(opened: Opened, two: bytes) -> None:
    from selenium.webdriver.common.keys import Keys

    def press(key: str) -> Any:
        opened.browser.switch_to.active_element.send_keys(key)
        return opened.run("document.activeElement.textContent")

    for text, key, opens in (("29.x", Keys.ENTER, 1), ("Open all", Keys.SPACE, 2)):
        opened.open(two)
        assert any(press(Keys.TAB) == text for _ in range(12)), f"the tab key does not reach {text}"
        assert opened.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        press(key)
        assert opened.soon(f"document.querySelectorAll('.branch[open]').length == {opens}")
    opened.is_quiet()


def test_a_hostile_page_runs_nothing(opened: Opened, hostile: bytes) -> None:
    opened.open(hostile)
    opened.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert opened.run("window.pwned") is None
    shown = opened.run("document.body.innerText")
    assert shown.count(ATTACK) >= 6
    assert "ci/<img src=x onerror='window.pwned=1'>.sh" in shown
    assert "undecodable \\xff" in shown
    assert set(opened.run("[...document.querySelectorAll('*')].map(one => one.localName)")) <= TAGS
    names = set(opened.run("[...document.querySelectorAll('*')].flatMap(one => one.getAttributeNames())"))
    assert not {name for name in names if name.startswith("on") or name in {"src", "style", "action"}}
    assert opened.run("document.scripts.length") == 1
    opened.is_quiet()  # the browser would complain of a style or script that the policy does not name


def test_every_link_leads_to_a_place_on_the_page(opened: Opened, two: bytes) -> None:
    opened.open(two)
    ids = opened.run("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
    assert set(opened.run("[...document.links].map(one => one.getAttribute('href'))")) <= {f"#{name}" for name in ids}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_the_screen(opened: Opened, two: bytes, width: int, scheme: str) -> None:
    opened.open(two, width, scheme)
    opened.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert opened.run("innerWidth") == width
    assert opened.run("document.documentElement.scrollWidth") == width
    matrix = opened.run("[document.querySelector('.scroll')].map(one => one.scrollWidth > one.clientWidth)[0]")
    assert matrix == (width == 400)
    dark = opened.run("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    opened.is_quiet()


def test_the_picture_in_the_readme(opened: Opened) -> None:
    """``CI_PATCHER_PICTURE=docs/page.png`` makes it anew."""
    name = os.environ.get("CI_PATCHER_PICTURE")
    if not name:
        pytest.skip("CI_PATCHER_PICTURE is unset: it names the picture to write")
    outcomes = []
    for branch in ("25.x", "26.x", "27.x", "28.x", "29.x", "30.x", "31.x", "master"):
        done = pipeline.change(sources.tree(FIXTURES / branch), RECIPE, VALUES)
        outcomes.append(Outcome(Target(branch, branch, branch, None), done))
    opened.open(made(*outcomes))
    opened.run("(document.getElementById('branch-25.x').open = true, scrollTo(0, 165))")
    (ROOT / name).write_bytes(opened.browser.get_screenshot_as_png())
