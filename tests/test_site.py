"""The documentation as a site: built with warnings as errors, and opened in a browser."""

import contextlib
import functools
import http.server
import importlib.util
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest

from data.paths import ROOT

pytestmark = pytest.mark.full

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: `make docs` installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        f"--site-dir={folder}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Links(HTMLParser):
    """What a page leads to and fetches, and the anchors that it has."""

    def __init__(self, text: str):
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src") and value is not None and (tag, name) != ("base", "href"):
                self.targets.append(value)
            if name == "id" and value:
                self.anchors.add(value)


def test_no_link_of_the_site_is_dead_and_nothing_is_fetched_from_elsewhere(site):
    pages = {path: Links(path.read_text()) for path in site.rglob("*.html")}
    assert len(pages) > 25
    dead, foreign = [], []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # Its links are absolute: a server shows it in place of any page.
        here = "http://site/" + path.relative_to(site).as_posix()
        for target in page.targets:
            url, anchor = urldefrag(urljoin(here, target))
            if urlparse(url).netloc != "site":
                continue
            found = site / unquote(urlparse(url).path).lstrip("/")
            found = found / "index.html" if found.is_dir() else found
            if not found.is_file() or (
                found in pages
                and anchor
                and not anchor.startswith("__")  # The theme's own, of its buttons.
                and unquote(anchor) not in pages[found].anchors
            ):
                dead.append((path.relative_to(site), target))
    for path in pages:
        text = path.read_text()
        foreign += [
            (path.name, word)
            for word in ('<script src="http', 'rel="stylesheet" href="http', '<img src="http')
            if word in text
        ]
    assert not dead
    assert not foreign


def test_the_reference_shows_objects_and_not_the_modules_of_the_same_name(site):
    pages = {path.parent.name: path.read_text() for path in site.glob("api/*/index.html")}
    assert 'id="surnn_jax.layers.Recurrent"' in pages["layers"]
    assert [name for name, text in pages.items() if "doc-symbol-module" in text] == []


@contextlib.contextmanager
def served(folder: Path):
    """The address at which a folder is served."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_browser_shows_every_page_without_an_error_and_finds_what_it_searches(site):
    playwright = pytest.importorskip("playwright.sync_api")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("there is no Chromium")
    errors = []
    with served(site) as address, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append((page.url, str(error))))
        page.on(
            "console",
            lambda told: told.type in ("error", "warning") and errors.append((page.url, told.text)),
        )
        page.on("response", lambda got: got.status >= 400 and errors.append((page.url, got.url)))
        for path in sorted(site.rglob("index.html")):
            for width in (1280, 390):
                page.set_viewport_size({"width": width, "height": 800})
                page.goto(f"{address}/{path.relative_to(site).parent.as_posix()}/")
                # Nothing but tables and code may be wider than the window, and those scroll.
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > width:
                    errors.append((page.url, f"{wide} pixels wide in a window of {width}"))
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto(f"{address}/")
        page.locator(".md-search__input").click()
        page.locator(".md-search__input").press_sequentially("calibrate")
        # Hits within a page may be folded together below that page's own.
        hit = page.locator(".md-search-result__link[href*='#surnn_jax.layers.calibrate']").first
        hit.wait_for(state="attached")
        page.goto(hit.get_attribute("href"))
        page.locator("[id='surnn_jax.layers.calibrate']").wait_for()
        browser.close()
    assert not errors
