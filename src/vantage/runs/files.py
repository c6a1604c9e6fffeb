"""Objects of the user's own Python files, named on a command line as FILE.py:FUNCTION."""

import difflib
import importlib.util
from pathlib import Path

from vantage.errors import InputError, refuse_unless


def named_in_file(spec: str, what: str, example: str) -> object:
    """What `my_file.py:name` names. The file is run: name only files of your own.

    Args:
        spec: FILE.py:FUNCTION, or the name of anything else in the file.
        what: what it is to be, for messages: "Reward".
        example: a spec that would do, for messages.

    Raises:
        InputError: no such file or name, or the file cannot be run.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    refuse_unless(
        file and name and path.suffix == ".py",
        f"{what} {spec!r}: give FILE.py:FUNCTION, such as {example}.",
    )
    refuse_unless(path.is_file(), f"{what} {spec!r}: there is no file {path}.")
    module_spec = importlib.util.spec_from_file_location(f"vantage_file_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{what} {spec!r}: running {path} failed: {error!r}.") from error
    there = [key for key, value in vars(module).items() if getattr(value, "__module__", None)
             == module.__name__ and callable(value)]  # fmt: skip
    near = difflib.get_close_matches(name, there, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(there) or 'none'}."
    refuse_unless(hasattr(module, name), f"{what} {spec!r}: {path} has no function {name}; {hint}")
    return getattr(module, name)
