"""Trackers for tests."""

from typing import Any


class Heard:
    """A tracker that remembers the rows it is given, with their steps."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, Any], int]] = []

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((dict(row), step))

    def close(self) -> None:
        pass
