"""Conformance: what an estimator says of itself, checked by enumeration and on random batches."""

from vantage.conformance.checks import (
    RULES,
    ConformanceError,
    check,
    claim_holds,
    coupling_is_declared,
    order_is_irrelevant,
    padding_is_invisible,
    passes_add_up,
    random_batch,
    weights_are_sound,
)

__all__ = [
    "RULES",
    "ConformanceError",
    "check",
    "claim_holds",
    "coupling_is_declared",
    "order_is_irrelevant",
    "padding_is_invisible",
    "passes_add_up",
    "random_batch",
    "weights_are_sound",
]
