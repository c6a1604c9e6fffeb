"""A figure in a page, with its caption, never drawn larger than its letters are meant to be."""

import re

from vantage.pages.standalone import PIXELS
from vantage.pages.tables import escaped


def figure(title: str, caption: str, drawn: str) -> str:
    """An SVG of `vantage.pages.forest.svg` with what it shows, in words.

    Its width is at most that of its view box, so that the letters of all figures of a page are of
    one size where there is room for them.
    """
    box = re.search(r'viewBox="0 0 ([\d.]+) ', drawn)
    wide = f' style="max-width:{float(box[1]) * PIXELS:.0f}px"' if box else ""
    note = f"<span>{escaped(caption)}</span>" if caption else ""
    return f"<figure{wide}><figcaption>{escaped(title)}{note}</figcaption>{drawn}</figure>"
