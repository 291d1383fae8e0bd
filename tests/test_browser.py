"""Pages in a real browser, where one is installed: they open without an error, and their controls work."""

import os
import shutil

import pytest

from mobtk.report.animation import animate
from mobtk.report.run import run_page

CHROMIUM = next(
    (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt install chromium)"),
]


@pytest.fixture
def page():
    """An open page, of which no console error is left at the end."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        options = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
        browser = p.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_context(offline=True).new_page()
        errors = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        assert errors == []
        browser.close()


@pytest.mark.parametrize("width", [380, 1100])
def test_the_report_opens_and_fits_a_phone(scored, page, tmp_path, width):
    run_page(scored, tmp_path / "report.html")
    page.set_viewport_size({"width": width, "height": 800})
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator("h2").count() > 6
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the screen"


def test_the_report_is_used_by_keyboard_and_printed(scored, page, tmp_path):
    run_page(scored, tmp_path / "report.html")
    page.goto((tmp_path / "report.html").as_uri())
    for _ in range(4):
        page.keyboard.press("Tab")
    chosen = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash == '#s4'")
    assert page.locator("#s4 h2").inner_text() == chosen
    assert page.evaluate("document.querySelector('#s4').getBoundingClientRect().top") < 50
    page.pdf(path=tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes()[:5] == b"%PDF-"


def test_the_controls_of_the_animation_work(scored, page, tmp_path):
    animate([scored], tmp_path / "week.html", drawn=4)
    page.goto((tmp_path / "week.html").as_uri())
    now = page.locator("#now0")
    assert "after 0 of 3 passes" in now.inner_text()
    page.click("#next")
    assert "after 1 of 3 passes" in now.inner_text()
    page.click("#back")
    assert "after 0 of 3 passes" in now.inner_text()
    page.focus("#at")
    page.keyboard.press("End")
    assert "after 3 of 3 passes" in now.inner_text() and "cell 0.00" in now.inner_text()
    picture = "document.getElementById('week0').toDataURL()"
    before = page.evaluate(picture)
    page.focus("#at")
    page.keyboard.press("Home")
    assert page.evaluate(picture) != before
    fine = page.evaluate(picture)
    page.select_option("#level", "3")
    assert page.evaluate(picture) != fine, "the level does not change the week"
    page.click("#play")
    assert page.locator("#play").inner_text() == "Pause"
    page.wait_for_function("document.getElementById('now0').textContent.includes('after 3 of 3')", timeout=10_000)
    page.wait_for_function("document.getElementById('play').textContent == 'Play'", timeout=5_000)
