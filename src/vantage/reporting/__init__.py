"""The report of a run: what it learned, how much of its gradient was signal, and what to change."""

from vantage.reporting.writing import report

__all__ = ["report"]
