"""What an environment says of itself: in a line, and as a table in a notebook."""

from typing import Any

from vantage.runs import notebook


def described(env: Any) -> str:
    """In one line: class, name, lanes, discount and spaces."""
    spaces = f", observations={env.observations}, actions={env.actions}"
    long = "" if len(spaces) > 200 else spaces
    return f"{type(env).__name__}({env.name!r}, lanes={env.lanes}, discount={env.discount:g}{long})"


def shown(env: Any) -> str:
    """As HTML: the same, and its settings."""
    rows = {
        "lanes": env.lanes,
        "discount": env.discount,
        "observations": env.observations,
        "actions": env.actions,
        **getattr(env, "settings", {}),
        **getattr(env, "normalised", {}),
    }
    return notebook.facts(env.name, rows)
