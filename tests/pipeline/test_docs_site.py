"""The built documentation site: no warnings, no requests to other hosts, no horizontal scrolling, a working search."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
WIDTHS = (1280, 390)
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
LOADED = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("material") is None or find_spec("mkdocstrings_handlers") is None:
        pytest.skip("MkDocs is not installed (the extra `docs`)")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "WARNING -" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: make system")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        opened = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """Yield an empty page; fail the test if there is an error or a request to another host."""
    opened = browser.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else problems.append(r.url))
    yield opened
    opened.close()
    assert problems == []


def test_pages_refer_to_no_external_script_or_font(site: Path) -> None:
    for name in ("fonts.googleapis.com", "fonts.gstatic.com", "iframe-worker/shim"):
        assert not [path for path in site.rglob("*.html") if name in path.read_text()], name


@pytest.mark.slow
def test_pages_fit_the_screen_and_load_no_external_files(site: Path, page: Any) -> None:
    files = sorted(site.rglob("*.html"))
    assert len(files) > 40
    for file in files:
        page.goto(file.as_uri())
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_function(FITS, timeout=5_000)  # panels move briefly after a change of width
        page.wait_for_function(LOADED, timeout=5_000)


@pytest.mark.parametrize("width", WIDTHS)
def test_search_finds_pages_without_a_server(site: Path, page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((site / "results" / "shrink.html").as_uri())
    if width < 1_000:
        page.click("label[for=__search].md-header__button")
    page.click("input[name=query]")
    page.keyboard.type("label budget")
    page.wait_for_selector(".md-search-result__item", timeout=15_000)
    found = page.locator(".md-search-result__link").evaluate_all("links => links.map(link => link.href)")
    assert any("how_to/labels.html" in link for link in found)
    assert all(link.startswith(site.as_uri()) for link in found)
