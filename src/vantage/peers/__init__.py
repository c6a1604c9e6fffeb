"""Gradients of other trainers, as draws to audit. Nothing of theirs is imported here."""

from vantage.peers import trl

__all__ = ["trl"]
