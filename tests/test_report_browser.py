"""Reports in a browser: whole, in their frame, quick, safe, and read with the keyboard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import VIEWS, hard_to_read, launched
from playwright.sync_api import Browser, Page
from run_folders import HOSTILE, write_run

import vantage as vt

LOOK = (Path(__file__).parent / "site_look.js").read_text()
LARGE_UPDATES, LARGE_SAID = 10_000, 5_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    control = write_run(folder / f"control {'long-name-' * 9}", 300)
    language = write_run(folder / "language", 60, language=True, said={1: 40, 30: 40, 60: 40})
    return {"control": vt.report(control), "language": vt.report(language)}


def opened(
    browser: Browser, path: Path, width: int = 1300, scheme: Any = "light"
) -> tuple[Page, list[str]]:
    """A page in a window of that width, and what went wrong in it."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text))
    page.on("request", lambda asked: (
        None if asked.url.startswith("file:") else faults.append(asked.url)
    ))  # fmt: skip
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector(".chart svg path")
    return page, faults


@pytest.mark.parametrize("name", ["control", "language"])
@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_a_report_is_whole_and_stays_in_its_frame(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    page, faults = opened(browser, pages[name], width, scheme)
    look = page.evaluate(LOOK)
    assert faults == []
    assert look["out"] == []
    assert not look["sideways"]
    assert look["anchors"] == []
    assert page.evaluate("window.hurt") is None
    assert hard_to_read(page) == []
    assert page.locator("img").count() == 0
    drawn = page.locator(".chart svg").evaluate_all("all => all.map((svg) => svg.innerHTML)")
    assert len(drawn) >= 10
    assert not [svg for svg in drawn if "NaN" in svg or "undefined" in svg]
    page.context.close()


def test_the_pointer_and_the_keys_read_every_figure(
    browser: Browser, pages: dict[str, Path]
) -> None:
    page, faults = opened(browser, pages["control"])
    figure = page.locator(".chart").first
    figure.locator("svg").focus()
    page.keyboard.press("End")
    page.keyboard.press("Home")
    readouts = page.locator(".chart .readout").all_text_contents()
    assert {said.split(":")[0].split()[0] for said in readouts} == {"updates"}
    assert "training" in readouts[0]
    page.get_by_label("steps", exact=True).check()
    figure.locator("svg").hover()
    assert figure.locator(".readout").text_content().startswith("steps ")
    assert faults == []
    page.context.close()


def test_transcripts_are_read_with_the_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    page, faults = opened(browser, pages["language"])
    box = page.get_by_role("listbox")
    selected = page.locator('[role="option"][aria-selected="true"]')
    box.focus()
    first = selected.text_content()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert selected.count() == 1
    assert selected.get_attribute("id") == "completion-2" == box.get_attribute("aria-activedescendant")  # fmt: skip  # noqa: E501
    page.keyboard.press("Home")
    assert selected.text_content() == first
    numbers = page.locator('[data-part="numbers"]')
    page.keyboard.press("ArrowRight")
    assert numbers.text_content().startswith("Token 1 of ")
    page.keyboard.press("ArrowRight")
    assert "Token 2 of " in numbers.text_content()
    assert "weight" in numbers.text_content()
    assert "log π −" in numbers.text_content()
    page.locator(".token").first.hover()
    assert numbers.text_content().startswith("Token 1 of ")
    page.get_by_label("reward from").fill("1")
    worths = {said.split("update")[0] for said in page.locator(".worth").all_text_contents()}
    assert worths == {"1"}
    page.get_by_label("reward from").fill("")
    page.locator("select[name=update]").select_option("30")
    assert "40 of 120 completions" in page.locator('[data-part="count"]').text_content()
    page.locator("select[name=order]").select_option("worst")
    worths = [float(said) for said in page.locator(".worth").all_text_contents()]
    assert worths == sorted(worths)
    page.get_by_label("with the words").fill("no such words")
    assert page.locator('[role="option"]').count() == 0
    page.get_by_label("with the words").fill("onerror")
    assert page.locator('[role="option"]').count() == 40
    assert HOSTILE.split("&")[0] in page.locator('[data-part="prompt"]').text_content()
    assert faults == []
    page.context.close()


def test_a_page_of_a_long_run_is_light(browser: Browser, tmp_path: Path) -> None:
    """10,000 updates and 5,000 completions: what a browser has to lay out stays small."""
    said = dict.fromkeys(range(1000, 10_001, 1000), LARGE_SAID // 10)
    path = vt.report(write_run(tmp_path / "run", LARGE_UPDATES, language=True, said=said))
    page, faults = opened(browser, path)
    assert faults == []
    assert f"{LARGE_SAID:,} completions" in page.locator('[data-part="count"]').text_content()
    assert path.stat().st_size < 1_000_000
    assert page.locator("*").count() < 1000  # what is not in view is not there
    page.context.close()
