"""The frame of every page: one file, whole in itself, that asks nothing of any network.

The page's own policy says so to the browser: only the script that is named by its hash runs, so
that text of strangers which got past its escaping would still be text.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from vantage.pages.style import STYLE
from vantage.pages.tables import escaped


def document(
    title: str,
    header: str,
    body: str,
    *,
    style: str = "",
    script: str = "",
    data: Mapping[str, Any] | None = None,
    connect: str = "'none'",
) -> str:
    """A page as HTML; the same parts give the same bytes.

    Args:
        title: in words; escaped here.
        header, body: HTML.
        style: beside that of all pages.
        script: that runs when the page is there.
        data: for the script, which finds it as JSON in the element "data".
        connect: what the script may ask for more of; nothing by default.
    """
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src {connect}"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    island = (
        "" if data is None else f'<script type="application/json" id="data">{island_of(data)}'
        "</script>\n"
    )  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title><style>{STYLE}{style}</style></head><body>\n"
        f"<header><h1>{escaped(title)}</h1>{header}</header>\n<main>\n{body}\n</main>\n{island}"
        + (f"<script>{script}</script>\n" if script else "")
        + "</body></html>\n"
    )


def section(title: str, content: str, name: str = "") -> str:
    """A section with its heading; nothing where there is no content.

    Args:
        title: in words; escaped here.
        name: what links to it say after #.
    """
    place = f' id="{name}"' if name else ""
    return f"<section{place}><h2>{escaped(title)}</h2>\n{content}</section>" if content else ""


def island_of(data: Mapping[str, Any]) -> str:
    """JSON that can stand inside a script element: no text in it can end that element.

    >>> island_of({"name": "</script><b>"})
    '{"name":"\\\\u003c/script\\\\u003e\\\\u003cb\\\\u003e"}'
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # half of a pair of surrogates is no text that a file could hold
    return text.encode("utf-8", "backslashreplace").decode()


def script_of(room: str, *names: str) -> str:
    """The scripts of a room of the package, one after another."""
    return "\n".join(
        (files(f"vantage.{room}") / f"{name}.js").read_text(encoding="utf-8") for name in names
    )
