"""Write the generated tables into docs/estimators.md, docs/columns.md and docs/control.md.

Run `python docs/estimator_page.py`.
"""

import re
from collections.abc import Callable
from pathlib import Path

from vantage.estimators.listing import columns_markdown, markdown
from vantage.training.listing import tuned_markdown

FOLDER = Path(__file__).parent
PAGES: dict[str, Callable[[], str]] = {
    "estimators.md": markdown,
    "columns.md": columns_markdown,
    "control.md": tuned_markdown,
}
GENERATED = re.compile(r"(?<=<!-- table -->\n).*?(?=\n<!-- /table -->)", re.DOTALL)


def main() -> None:
    """Replace what stands between the two marks of each page."""
    for name, text in PAGES.items():
        page = FOLDER / name
        page.write_text(GENERATED.sub(lambda _: text(), page.read_text("utf-8")), "utf-8")  # noqa: B023


if __name__ == "__main__":
    main()
