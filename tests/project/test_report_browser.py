"""
index.html in a real browser: nothing on the console, nothing requested, readable when narrow, accessible.

Needs playwright and a Chromium of the system (SAE_CHECKS_CHROMIUM, or one on the PATH); for the accessibility rules the
file axe.min.js of the npm package axe-core (SAE_CHECKS_AXE). What is missing is skipped and says so.
"""

import os
import shutil
from pathlib import Path

import pytest
import report_record

from sae_checks.report import contents, html

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("SAE_CHECKS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
AXE = os.environ.get("SAE_CHECKS_AXE")

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (group dev)")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
needs_axe = pytest.mark.skipif(AXE is None, reason="SAE_CHECKS_AXE names no axe.min.js (npm pack axe-core)")
schemes = pytest.mark.parametrize("scheme", ["light", "dark"])


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A red report with everything on it, and a name that wants to be a tag."""
    path = tmp_path_factory.mktemp("report") / "index.html"
    run = report_record.run(3, release="<img src=x onerror=alert(1)>")
    path.write_text(html.page(contents.build(run)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        # no sandbox: containers run as root, and the only page is ours
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Open the page with some settings; what the browser said and asked for stands in the lists."""
    contexts, said, asked = [], [], []

    def open_page(**settings):
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda problem: said.append(str(problem)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_load_state()
        return page

    open_page.said, open_page.asked = said, asked
    yield open_page
    for context in contexts:
        context.close()


def unfold(page):
    page.evaluate("document.querySelectorAll('details').forEach(node => { node.open = true })")


@schemes
def test_nothing_on_the_console_and_nothing_requested(visit, address, scheme):
    """The page is its own style and nothing else; its policy is not broken by itself."""
    page = visit(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    assert visit.said == []
    assert visit.asked == [address]
    assert page.locator("h1").inner_text() == "<img src=x onerror=alert(1)>"
    assert page.locator("img").count() == 0


def test_the_console_would_be_heard(visit):
    """The control of the test above: what breaks the policy is said."""
    page = visit()
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('img'), {src: 'https://localhost/x.png'}))"
    )
    page.wait_for_timeout(200)
    assert any("Content Security Policy" in text for text in visit.said)


@pytest.mark.parametrize("width", [320, 400, 768, 1280])
def test_the_page_never_scrolls_sideways(visit, width):
    """Wide tables scroll within themselves; the text does not."""
    page = visit(viewport={"width": width, "height": 800})
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate("[...document.querySelectorAll('.plot text')].map(t => t.getBoundingClientRect().height)")
    assert min(size for size in sizes if size) >= (8 if width < 400 else 10)  # of plots too


def test_it_is_whole_without_scripts(visit):
    """Every section, plot and verdict; links lead to their section."""
    page = visit(java_script_enabled=False)
    assert page.get_by_text("FAILED").first.is_visible()
    assert page.locator("details.sae").count() == 3
    assert page.locator("svg.plot").first.is_visible()
    page.locator(".grid a").nth(1).click()
    assert page.url.endswith("#sae-0")
    assert page.locator("#sae-0").is_visible()


def test_a_page_of_26_saes_is_short(browser, tmp_path):
    """Before anything is unfolded; and it does not scroll sideways on a telephone."""
    path = tmp_path / "index.html"
    path.write_text(html.page(contents.build(report_record.many(26))), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollHeight") <= 8000
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.close()


@schemes
def test_the_reader_s_colours(visit, scheme):
    """Dark on light or light on dark, as the system has it."""
    page = visit(color_scheme=scheme)
    paper, ink = (
        sum(map(int, page.evaluate(f"getComputedStyle(document.body).{name}").removeprefix("rgb(")[:-1].split(",")))
        for name in ("backgroundColor", "color")
    )
    assert (paper < ink) == (scheme == "dark")


def problems_of(page):
    """What axe finds, by rule and impact."""
    page.evaluate(Path(AXE).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return {rule["id"]: rule["impact"] for rule in found["violations"]}


@needs_axe
@pytest.mark.parametrize(("scheme", "width"), [("light", 400), ("dark", 1280)])
def test_axe_finds_nothing(visit, scheme, width):
    """Contrast, names, tables, landmarks, keyboard; everything unfolded."""
    page = visit(color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True)
    unfold(page)
    assert problems_of(page) == {}


@needs_axe
def test_axe_would_find_something(visit):
    """The control of the test above."""
    page = visit(bypass_csp=True)
    page.evaluate("document.querySelector('svg.plot title').remove(); document.body.style.color = '#eee'")
    assert {"color-contrast"} <= problems_of(page).keys()
