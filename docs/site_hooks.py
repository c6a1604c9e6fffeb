"""What the site adds to pages as they are written: KaTeX, typeset notation, links to equations.

Docstrings are read in a terminal, by `help()` and `--help`, more often than on the site. So they
are written in letters that read well there, R_t = Σ_{k≥t} γ^{k−t} r_k, and the site sets them:
subscripts and superscripts wherever that notation stands outside code, in docstrings and pages
alike, and [1] to [8] as links to the page of the equations.
"""

import re
from pathlib import Path
from typing import Any

from markdown.extensions.toc import slugify
from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

KATEX = Path(__file__).parents[1] / "src/vantage/play/katex"
EQUATIONS = Path(__file__).parent / "equations.md"

VERBATIM = {"code", "script", "style", "svg", "math", "title", "textarea", "arithmatex"}
LINKED = {"a", "h1", "h2", "h3", "h4", "h5", "h6"}
VOID = ("br", "hr", "img", "input", "wbr")
DISPLAYED = re.compile(
    r'<div class="highlight"><pre><span></span><code>([^<]*[Σ∇∏π‖γ√][^<]*)</code>'
)
# One letter, perhaps with a hat and a digit, or the few words that take an index.
BASE = r"(?<![\w.&#])((?:[^\W\d_][\u0300-\u036f]?\d?|max|min|mean|sum|log|softmax|\)|∇|∏))"
WORDS = "ref|old|high|low|max|min|start|inter|intra|greedy|target|auto"
INDEX = rf"(\{{[^{{}}]*\}}|(?:{WORDS}|[^\W\d_]{{1,2}}|\d+)(?![^\Wᵀ])['′]?)"
SUBSCRIPT = re.compile(f"{BASE}_{INDEX}")
SUPERSCRIPT = re.compile(r"(?<=[\w)\]|‖}>\u0300-\u036f])\^(\{[^{}]*\}|\([^()]*\)|[−-]?[^\W_]+|\*)")
NUMBERED = re.compile(r"\[([1-8])\]")


def on_files(files: Files, config: Any) -> Files:
    """Add KaTeX to the site, so that formulas are typeset without a network."""
    for path in sorted(KATEX.rglob("*")):
        if path.is_file():
            name = f"katex/{path.relative_to(KATEX).as_posix()}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Set the notation of a page, and link the equations it names."""
    return typeset(html, get_relative_url("equations/", page.url))


def anchors() -> dict[str, str]:
    """The anchor of each numbered equation, by its number, from the headings of its page."""
    headings = re.findall(r"^## (\[(\d)\].*)$", EQUATIONS.read_text("utf-8"), flags=re.M)
    return {number: slugify(heading, "-") for heading, number in headings}


def typeset(html: str, equations: str) -> str:
    """Subscripts, superscripts and links in the text of a page, its code left as it is.

    Args:
        html: of the page's content.
        equations: address of the page of the equations, seen from this one.

    >>> typeset("R_t = Σ_{k≥t} γ^{k−t} r_k, <code>r_k</code>", "")
    'R<sub>t</sub> = Σ<sub>k≥t</sub> γ<sup>k−t</sup> r<sub>k</sub>, <code>r_k</code>'
    """
    at = anchors()
    open_tags: list[str] = []
    parts = re.split(r"(<!--.*?-->|<[^>]+>)", DISPLAYED.sub(_displayed, html), flags=re.DOTALL)
    for place, part in enumerate(parts):
        if place % 2:
            _follow(open_tags, part)
        elif not set(open_tags) & VERBATIM:
            parts[place] = _set(part)
            if not set(open_tags) & LINKED:
                parts[place] = NUMBERED.sub(
                    lambda found: f'<a href="{equations}#{at[found[1]]}">{found[0]}</a>',
                    parts[place],
                )
    return "".join(parts)


def _displayed(block: re.Match[str]) -> str:
    """An indented block without a prompt: an equation by itself, if it is one."""
    return block[0] if "&gt;&gt;&gt;" in block[1] else block[0].replace(block[1], _set(block[1]))


def _set(text: str) -> str:
    while (changed := SUBSCRIPT.sub(_lowered, text)) != text:  # an index may have one of its own
        text = changed
    return SUPERSCRIPT.sub(lambda found: f"<sup>{found[1].strip('{}()')}</sup>", text)


def _lowered(found: re.Match[str]) -> str:
    return f"{found[1]}<sub>{found[2].strip('{}')}</sub>"


def _follow(open_tags: list[str], tag: str) -> None:
    """Keep the tags that are open; a formula that KaTeX will set goes by that name."""
    name = re.match(r"</?([a-zA-Z0-9]+)", tag)
    if name is None or tag.endswith("/>") or name[1] in VOID:
        return
    if not tag.startswith("</"):
        open_tags.append("arithmatex" if 'class="arithmatex"' in tag else name[1])
    elif open_tags:
        open_tags.pop()
