"""A browser for tests: one that the machine has, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable(own: str) -> str:
    """Path of a Chromium or Chrome; a test that needs one fails where there is none.

    Args:
        own: where Playwright keeps its own, if it has been installed.
    """
    named = os.environ.get("CHROME")
    located = [shutil.which(name) for name in ([named] if named else (*NAMES, own))]
    path = next((path for path in located if path), None)
    if path is None:
        looked = f"CHROME={named}" if named else ", ".join(NAMES)
        pytest.fail(
            f"no browser ({looked}): install one (.ci/browser python3, or apt-get install chromium), "
            "or set CHROME to it.",
            pytrace=False,
        )
    return path


@contextmanager
def launched() -> Iterator[Browser]:
    """A headless browser without a network."""
    with sync_playwright() as playwright:
        path = executable(playwright.chromium.executable_path)
        # Chromium refuses its sandbox to root, which continuous integration often is.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
