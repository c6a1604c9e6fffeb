"""A browser for tests: one that the machine has, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

WITHOUT = """(selectors) => selectors.forEach((selector) =>
  document.querySelectorAll(selector).forEach((each) => { each.textContent = "left out"; }))"""
NAMES = ("chromium", "chromium-browser", "google-chrome")

# Width and colours of the windows that pages are looked at in.
VIEWS = [
    (1300, "light"),
    (400, "dark"),
    pytest.param(400, "light", marks=pytest.mark.long),
    pytest.param(1300, "dark", marks=pytest.mark.long),
]


def on_this_machine() -> str | None:
    """Path of the browser that CHROME names, or that is on the PATH; None without one."""
    named = os.environ.get("CHROME")
    located = [shutil.which(name) for name in ([named] if named else NAMES)]
    path = next((path for path in located if path), None)
    if named and path is None:
        missing(f"CHROME={named}")
    return path


def missing(where: str) -> NoReturn:
    """Fail a test that needs a browser: it must not pass silently."""
    pytest.fail(
        f"no browser ({where}): install one (.ci/browser python3, or apt-get install chromium), or "
        "set CHROME to it.",
        pytrace=False,
    )


@contextmanager
def launched() -> Iterator[Browser]:
    """A headless browser without a network."""
    path = on_this_machine()
    with sync_playwright() as playwright:
        path = (
            path or shutil.which(playwright.chromium.executable_path) or missing(", ".join(NAMES))
        )
        # Chromium refuses its sandbox to root, which continuous integration often is.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def hard_to_read(page: Page, without: tuple[str, ...] = ()) -> list[str]:
    """What of a page breaks WCAG 2, level A or AA, by axe-core: contrast, names, order.

    Args:
        page: as it stands.
        without: selectors of what is not looked at. It leaves the page, a word in its place:
            axe walks through what it leaves out as well, for half a minute where it is large.
    """
    page.evaluate(WITHOUT, list(without))
    levels = {"type": "tag", "values": ["wcag2a", "wcag2aa"]}
    options = {"runOnly": levels, "resultTypes": ["violations"]}
    broken = Axe().run(page, options=options).response["violations"]
    return [f"{rule['id']}: {node['html'][:200]}" for rule in broken for node in rule["nodes"]]
