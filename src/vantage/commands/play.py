"""`vantage play`: the article as a page that one can play, written to a file and opened."""

import webbrowser
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from vantage.errors import InputError, refuse_unless
from vantage.play import save
from vantage.runs.progress import terminal


def play(
    out: Path = Path("vantage-article.html"), show: Annotated[bool, arg(name="open")] = True
) -> None:
    """Write the article as one page to play with, and open it. It needs no network.

    Args:
        out: where the page goes; a file of that name is replaced.
        show: open it in the browser of this machine.
    """
    refuse_unless(not out.is_dir(), f"vantage play --out {out}: this is a folder; name a file.")
    try:
        path = save(out).resolve()
    except OSError as error:
        raise InputError(
            f"vantage play --out {out}: {error.strerror}; name a file that can be written."
        ) from error
    opened = show and webbrowser.open(path.as_uri())
    hint = "It is open in your browser." if opened else "Open it in any browser."
    terminal.print(f"{out}: {path.stat().st_size / 1e6:.2f} MB, whole in itself. {hint}")
