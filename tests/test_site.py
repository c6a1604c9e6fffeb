"""The built site in a browser: every page, as wide as a desk and as narrow as a phone."""

import functools
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import filelock
import pytest
from browser import hard_to_read, launched
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT / "docs").with_suffix("").as_posix()
    for path in (ROOT / "docs").rglob("*.md")
)
WIDE, NARROW = 1300, 400
# one page of each kind: words, formulas, code with results, a long reference; the others are among
# the long checks
SAMPLE = ("index", "equations", "monitor", "language")
EVERY = [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.long) for name in PAGES]
DARK = [pytest.param("index"), *(
    pytest.param(name, marks=pytest.mark.long) for name in ("equations", "estimators", "audit")
)]  # all pages share their colours  # fmt: skip

# tens of thousands of elements that are all alike: descriptions of functions, formulas
ALIKE = (".doc-object", ".katex")

# What a page shows beyond its frame, what is left of formulas, pictures that say nothing.
LOOK = (Path(__file__).parent / "site_look.js").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The site, built once for all processes of a run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "site"
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.exists():
            new = folder.with_name("site.new")
            command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d"]
            subprocess.run([*command, str(new)], cwd=ROOT, check=True, capture_output=True)
            new.rename(folder)
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site, served to this machine alone."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *said: Any) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


def opened(
    browser: Browser, address: str, name: str, width: int, scheme: Any = "light"
) -> tuple[Page, list[str]]:
    """A page in a window of that width, and what went wrong in it."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((address, "data:")) else faults.append(asked.url)
        ),
    )
    path = name.removesuffix("index").strip("/")
    page.goto(f"{address}/{path}/" if path else address)
    page.wait_for_selector("html[data-typeset]")
    return page, faults


@pytest.fixture(scope="module", params=EVERY)
def desk(request: Any, browser: Browser, address: str) -> Iterator[tuple[Page, list[str]]]:
    """Every page as wide as a desk, opened once for all that look at it."""
    page, faults = opened(browser, address, request.param, WIDE)
    yield page, faults
    page.context.close()


def whole(page: Page, faults: list[str], width: int) -> None:
    look = page.evaluate(LOOK)
    assert faults == []
    assert look["out"] == []
    assert not look["sideways"]
    assert look["text"] == []
    assert width < WIDE or look["scrolling"] == []
    assert look["untypeset"] == 0
    assert not re.search("--8 ?<", look["words"])  # the name of a file, not what is in it
    assert look["mute"] == look["broken"] == look["anchors"] == []


def test_a_page_is_whole_on_a_desk(desk: tuple[Page, list[str]]) -> None:
    whole(*desk, WIDE)


def test_a_page_can_be_read_by_everybody(desk: tuple[Page, list[str]]) -> None:
    assert hard_to_read(desk[0], without=ALIKE) == []


@pytest.mark.parametrize("name", EVERY)
def test_a_page_is_whole_on_a_phone(browser: Browser, address: str, name: str) -> None:
    page, faults = opened(browser, address, name, NARROW)
    whole(page, faults, NARROW)
    page.context.close()


@pytest.mark.parametrize("name", DARK)
def test_a_page_can_be_read_in_the_dark(browser: Browser, address: str, name: str) -> None:
    page, _ = opened(browser, address, name, NARROW, "dark")
    assert hard_to_read(page, without=ALIKE) == []
    page.context.close()


def test_links_between_pages_are_alive(site: Path) -> None:
    """Those that the build makes itself, such as [7] in a docstring, anchors included."""
    texts = {path: path.read_text("utf-8") for path in site.rglob("index.html")}
    names = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in texts.items()}
    equations = 0
    for path, text in texts.items():
        for link, anchor in re.findall(r'<a [^>]*href="([^":#?]+)#([^"]+)"', text):
            target = (path.parent / link / "index.html").resolve()
            assert unquote(anchor) in names[target], f"{path.parent.name}: {link}#{anchor}"
            equations += bool(re.match("[1-8]-", anchor))
    assert equations > 20


def test_examples_in_docstrings_are_code(site: Path) -> None:
    """A prompt that Markdown reads becomes a quotation of a quotation of a quotation."""
    for name in ("reference", "language"):
        text = (site / name / "index.html").read_text("utf-8")
        assert text.count("&gt;&gt;&gt;") > 10
        assert "<blockquote" not in text


def test_formulas_are_typeset(browser: Browser, address: str) -> None:
    page, _ = opened(browser, address, "equations", WIDE)
    assert page.locator(".katex").count() > 8
    page.context.close()
