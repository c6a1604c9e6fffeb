"""What is printed is text as it is: no markup, no emoji, and nothing in it acts on the terminal."""

import unicodedata
from typing import Any

from rich.console import Console
from rich.text import Text


def printable(text: str, keep: str = "\n\t") -> str:
    """Text in which control and direction characters are written out, but for those to keep.

    >>> printable("a" + chr(27) + "[2J"), printable("a[/b] :smile:")
    ('a\\\\x1b[2J', 'a[/b] :smile:')
    """
    return "".join(c if c in keep else _written(c) for c in text)


class Terminal(Console):
    """A console whose strings are shown as they are; a `Text` is the way to give them a style."""

    def __init__(self, **settings: Any):
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Of every string that is printed, in a table or alone."""
        return super().render_str(printable(text), **settings)


def _written(character: str) -> str:
    acts = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return character.encode("unicode_escape").decode() if acts else character
