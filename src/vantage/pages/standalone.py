"""A figure as a file of its own, for documents: in the colours of the reader's system."""

import re

from vantage.pages import series
from vantage.pages.style import COLOURS

PIXELS = 4 / 3  # of a point, the unit of the view box
# A picture has no canvas to colour; its page does.
STYLE = f"""{COLOURS}{series.STYLE}svg {{ font-family: system-ui, "DejaVu Sans", sans-serif; }}
svg * {{ stroke-linejoin: round; stroke-linecap: butt; }}""".replace(
    "color-scheme: light dark; ", ""
)


def standalone(inline: str) -> str:
    """An SVG file from the inline element that the figures of pages are.

    Its text alternative becomes its title, its size that of its view box, and colours that a page
    would give it come with it, for light and dark.

    Args:
        inline: the output of `vantage.pages.forest.svg` and what is made with it.
    """
    box = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', inline)[0]
    width, height = (f"{float(side) * PIXELS:.0f}" for side in box)
    title = re.findall(r'aria-label="([^"]*)"', inline)[0]
    opening, rest = inline.split(">", 1)
    named = opening.replace(
        "<svg", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"', 1
    )
    return f"{named}><title>{title}</title><style>{STYLE}</style>{rest}\n"
