"""Write the generated table into docs/estimators.md: `python docs/estimator_page.py`."""

import re
from pathlib import Path

from vantage.estimators.listing import markdown

PAGE = Path(__file__).with_name("estimators.md")
TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=\n<!-- /table -->)", re.DOTALL)


def main() -> None:
    """Replace what stands between the two marks."""
    PAGE.write_text(TABLE.sub(lambda _: markdown(), PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
