"""Colours that tell several series apart, on a light page, a dark one and paper.

Okabe & Ito 2008, which those who see fewer colours can tell apart, without black and yellow;
lightened for a dark page. Placeholders while matplotlib draws, as in `vantage.pages.forest`.
"""

LIGHT = ("#0072b2", "#d55e00", "#009e73", "#b0568a", "#8a6d00", "#2f8fc4", "#555d6b")
DARK = ("#6db8ee", "#ff9a57", "#41cfa3", "#e79cc6", "#e3c55a", "#a5d8f7", "#b3bac6")
PLACES = tuple(f"#1010{10 + i}" for i in range(len(LIGHT)))
DASHES = ((), (5, 2), (2, 1.5), (6, 2, 1.5, 2))
STYLE = (
    ":root {"
    + "".join(f" --series-{i}: {colour};" for i, colour in enumerate(LIGHT))
    + " }\n@media (prefers-color-scheme: dark) { :root {"
    + "".join(f" --series-{i}: {colour};" for i, colour in enumerate(DARK))
    + " } }\n@media print { :root {"
    + "".join(f" --series-{i}: {colour};" for i, colour in enumerate(LIGHT))
    + " } }\n"
)


def look(place: int) -> tuple[str, tuple[float, ...]]:
    """Colour and dashes of the series in that place: colours first, then dashes."""
    return PLACES[place % len(PLACES)], DASHES[place // len(PLACES) % len(DASHES)]


def coloured(svg: str) -> str:
    """An SVG whose placeholders are custom properties of `STYLE`."""
    for i, placeholder in enumerate(PLACES):
        svg = svg.replace(placeholder, f"var(--series-{i})")
    return svg
