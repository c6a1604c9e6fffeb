"""How long the page to play with takes to answer: every control moved, in a browser.

    python benchmarks/play.py

For each station the longest of the times from the input event to the end of its handling (numbers
and words stand), and to the end of the next frame (the picture too), in milliseconds, over every
slider at nine places and every button. A move is made three times and the shortest counts, so that
other work of the machine does not. Needs a Chromium or Chrome; set CHROME where it is not on the
PATH.
"""

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table

from vantage import play

MOVES = """async (station) => {
  const root = document.getElementById(station);
  const handled = [], drawn = [];
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const timed = async (act) => {
    const times = [];
    for (let again = 0; again < 3; again++) {
      const began = performance.now();
      act();
      const done = performance.now();
      await frame();
      times.push([done - began, performance.now() - began]);
    }
    handled.push(Math.min(...times.map(([time]) => time)));
    drawn.push(Math.min(...times.map(([, time]) => time)));
  };
  const worlds = [...root.querySelectorAll("[name=world]")];
  for (const world of worlds.length ? worlds : [null]) {
    if (world) await timed(() => world.click());
    for (const slider of root.querySelectorAll("input[type=range]")) {
      if (!slider.checkVisibility()) continue;
      const [low, high] = [Number(slider.min), Number(slider.max)];
      for (let i = 0; i <= 8; i++) {
        await timed(() => {
          slider.value = low + ((high - low) * i) / 8;
          slider.dispatchEvent(new Event("input", { bubbles: true }));
        });
      }
    }
    for (const button of root.querySelectorAll("button")) {
      if (button.isConnected) await timed(() => button.click());
    }
  }
  return [handled.length, Math.max(...handled), Math.max(...drawn)];
}"""


def main() -> None:
    """Measure and print."""
    console = Console()
    table = Table(title="The page's answer to a control, milliseconds, longest of all moves")
    for heading in ("station", "moves", "numbers and words", "next frame ended"):
        table.add_column(heading, justify="left" if heading == "station" else "right")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 850})
        page.goto(play.save(Path(folder) / "article.html").as_uri())
        page.wait_for_selector("html[data-ready]")
        for station in play.STATIONS:
            table.add_row(station, *measured(page, station))
        browser.close()
    console.print(table)


def measured(page: Page, station: str) -> tuple[str, str, str]:
    """Moves made, and the two longest times."""
    page.evaluate("name => { location.hash = name; }", station)
    page.wait_for_selector(f"#{station}", state="visible")
    moves, handled, drawn = page.evaluate(MOVES, station)
    return str(moves), f"{handled:.1f}", f"{drawn:.1f}"


def browser_path() -> str:
    """The browser of this machine."""
    names = [os.environ["CHROME"]] if "CHROME" in os.environ else ["chromium", "google-chrome"]
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        looked = ", ".join(names)
        raise SystemExit(f"no browser ({looked}): apt-get install chromium, or set CHROME.")
    return path


if __name__ == "__main__":
    main()
