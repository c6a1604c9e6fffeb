"""Environments of other packages that register themselves with Gymnasium once they are imported."""

import importlib

from vantage.errors import InputError

# What ids begin with -> the module that registers them, and the extra that installs it.
PLUGINS = {"dm_control/": ("shimmy", "dm-control")}


def register(name: str) -> None:
    """Import what registers the environment of that name, where it is one of `PLUGINS`.

    Raises:
        InputError: the package is not installed, with the command that does.
    """
    for beginning, (module, extra) in PLUGINS.items():
        if name.startswith(beginning):
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise InputError(
                    f"Environment {name!r} needs the package {module}; install it with pip install "
                    f"'vantage-rl[{extra}]' (it brings dm_control, which needs MuJoCo 3)."
                ) from error
