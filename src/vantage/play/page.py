"""The page is put together from its parts: a template, a style, scripts, stations, KaTeX."""

import base64
import re
from importlib.resources import files
from pathlib import Path

STATIONS = {
    "trajectories": "Trajectories",
    "ascent": "Ascent",
    "theorem": "Theorem",
    "reinforce": "REINFORCE",
    "baseline": "Baselines",
    "optimum": "Optimum",
    "credit": "Credit",
    "language": "Language",
}
SCRIPTS = ("mathematics", "variance", "groups", "worlds", "drawing", "frame")
COMPLETIONS = ("⊣", "a⊣", "b⊣", "aa", "ab", "ba", "bb")
REWARDS = (0, 2, 0, 1, 1, 0, 0)
FACE = re.compile(r"@font-face\{.*?\}", re.DOTALL)


def page() -> str:
    """The whole page as HTML; the same parts give the same bytes."""
    parts = {
        "style": _katex_style() + _text("style.css"),
        "links": "\n".join(
            f'<li><a href="#{name}"><b>{i}</b><span>{title}</span></a></li>'
            for i, (name, title) in enumerate(STATIONS.items(), 1)
        ),
        "stations": "\n".join(_station(name) for name in STATIONS),
        "katex": _text("katex/katex.min.js"),
        "scripts": "\n".join(
            _text(f"{name}.js")
            for name in (*SCRIPTS, *(f"stations/{name}" for name in STATIONS), "begin")
        ),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _text("page.html"))


def save(path: str | Path) -> Path:
    """Write the page to `path`; folders above it are made."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(), encoding="utf-8")
    return target


def _text(name: str) -> str:
    return (files("vantage.play") / name).read_text(encoding="utf-8")


def _station(name: str) -> str:
    """One section: the first is in sight before any script runs."""
    hidden = "" if name == next(iter(STATIONS)) else " hidden"
    title = f"{name}-title"
    body = _text(f"stations/{name}.html").replace("{{completions}}", _completions())
    body = body.replace("<h2>", f'<h2 id="{title}" tabindex="-1">', 1)
    opening = f'<section class="station" id="{name}" aria-labelledby="{title}"{hidden}>'
    return f"{opening}\n{body}</section>"


def _completions() -> str:
    """A row for each completion of the three-token model."""
    number = '<td><data data-number="{}.{}"></data></td>'
    rows = []
    for i, (text, reward) in enumerate(zip(COMPLETIONS, REWARDS, strict=True)):
        entry = (
            f'<td><input type="number" form="language-form" name="reward{i}" value="{reward}" '
            f'min="-5" max="5" step="0.5" aria-label="reward of {text}"></td>'
        )
        weights = "".join(number.format(f"weights{k}", i) for k in range(3))
        rows.append(
            f'<tr><th scope="row">{text}</th>{number.format("chances", i)}{entry}'
            f"{number.format('counts', i)}{weights}</tr>"
        )
    return "\n".join(rows)


def _katex_style() -> str:
    """KaTeX's style sheet with the fonts that are shipped inside it, without the others."""
    fonts = files("vantage.play") / "katex" / "fonts"
    shipped = {font.name: font.read_bytes() for font in fonts.iterdir()}

    def face(rule: re.Match[str]) -> str:
        name = re.search(r"fonts/([\w-]+\.woff2)", rule[0])
        if name is None or name[1] not in shipped:
            return ""
        data = base64.b64encode(shipped[name[1]]).decode()
        source = f'src:url(data:font/woff2;base64,{data}) format("woff2")'
        return re.sub(r"src:.*(?=\})", source, rule[0], flags=re.DOTALL)

    return FACE.sub(face, _text("katex/katex.min.css"))
