"""Examples in docstrings are doctests; the site shows them as code and not as quotations."""

import griffe


def fenced(docstring: str) -> str:
    """Put every doctest, from its first prompt to the blank line after it, between code fences.

    >>> fenced("One.\\n\\n>>> 1 + 1\\n2\\n\\nTwo.").splitlines()
    ['One.', '', '```pycon', '>>> 1 + 1', '2', '```', '', 'Two.']
    """
    lines: list[str] = []
    indent: str | None = None  # of the example that is open
    for line in [*docstring.splitlines(), ""]:
        text = line.lstrip()
        if indent is None and text.startswith(">>> "):
            indent = line[: len(line) - len(text)]
            lines.append(f"{indent}```pycon")
        elif indent is not None and not text:
            lines.append(f"{indent}```")
            indent = None
        lines.append(line)
    return "\n".join(lines[:-1])


class Examples(griffe.Extension):
    """Applied to every docstring as it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Fence the examples of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
