"""Pages of audits and comparisons in a browser: in their frame, letters of one size, on paper."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import hard_to_read, launched
from playwright.sync_api import Browser, Page
from test_audit_page import report

import vantage as vt

LOOK = (Path(__file__).parent / "site_look.js").read_text()
MEASURE = """() => {
  const size = (element) => parseFloat(getComputedStyle(element).fontSize);
  const scaled = (letters) => {
    const svg = letters.closest("svg"), box = svg.viewBox.baseVal;
    return size(letters) * svg.getBoundingClientRect().width / box.width;
  };
  const inside = (mark) => {
    const frame = mark.closest("svg").getBoundingClientRect(), box = mark.getBoundingClientRect();
    return box.left >= frame.left - 1 && box.right <= frame.right + 1;
  };
  const all = (selector) => [...document.querySelectorAll(selector)];
  return {
    letters: all("svg text").map(scaled),
    beyond: all("svg text, svg use").filter((mark) => !mark.closest("defs") && !inside(mark))
      .map((mark) => mark.outerHTML.slice(0, 200)),
    cut: all("svg text").map((each) => each.textContent).filter((text) => text.includes("…")),
    overflowing: all("th, td, dd").filter((each) => each.scrollWidth > each.clientWidth + 1)
      .map((each) => each.textContent),
    large: size(document.querySelector("main p")),
    small: all("td span, th span, .limits, .faint, figcaption span")
      .map((each) => [size(each), size(each.parentElement)]),
    words: document.body.innerText,
  };
}"""
NAMES = ("reinforce_plus_plus_baseline", "reward_to_go", "length_adaptive_gae(lambda_=0.95)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    compared = vt.compare(
        "tensor/CartPole-v1", ["reinforce", "reinforce_baseline"], 2, out=folder / "runs",
        steps=300, batch=4, lanes=4, hidden=(8,), evaluation_episodes=4, workers=1, progress=False,
    )  # fmt: skip
    return {
        "audit": report(*NAMES).save(folder / "audit.html"),
        "comparison": compared.save(folder / "comparison.html"),
    }


def opened(browser: Browser, path: Path, width: int, scheme: Any) -> tuple[Page, list[str]]:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text))
    page.goto(path.as_uri())
    return page, faults


@pytest.mark.parametrize("name", ["audit", "comparison"])
@pytest.mark.parametrize(("width", "scheme"), [(1300, "light"), (400, "dark")])
def test_a_page_stays_in_its_frame_in_letters_of_one_size(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    page, faults = opened(browser, pages[name], width, scheme)
    look, found = page.evaluate(LOOK), page.evaluate(MEASURE)
    assert faults == []
    assert look["out"] == []
    assert not look["sideways"]
    assert found["beyond"] == []
    assert found["cut"] == []
    assert found["overflowing"] == []
    assert min(found["letters"]) >= 8.5
    assert max(found["letters"]) <= 12.5
    assert '{"' not in found["words"]
    assert "null" not in found["words"]
    assert hard_to_read(page) == []
    page.context.close()


@pytest.mark.parametrize("name", ["audit", "comparison"])
def test_on_paper_small_text_is_smaller_than_large(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    page, _ = opened(browser, pages[name], 790, "light")
    page.emulate_media(media="print")
    found = page.evaluate(MEASURE)
    assert found["small"]
    assert all(own <= above + 0.01 for own, above in found["small"])
    assert max(own for own, _ in found["small"]) <= found["large"]
    page.context.close()
