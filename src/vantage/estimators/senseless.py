"""What no row may be: a column that is none, a setting without meaning, columns that contradict."""

from typing import Any

from vantage.errors import refuse_unless
from vantage.estimators import aggregates, columns, ratios, returns

# Where the columns of each name are found, for messages and for the generated table.
MODULES = {
    "returns": "returns",
    "baseline": "baselines",
    "scale": "scales",
    "selection": "selections",
    "ratio": "ratios",
    "clip": "ratios",
    "importance": "importance",
    "aggregate": "aggregates",
    "discounting": "aggregates",
    "kl_in_reward": "penalties",
    "kl_in_loss": "penalties",
    "restraint": "selections",
}
OPTIONAL = ("kl_in_reward", "kl_in_loss", "restraint")  # None where there is none


def refuse_senseless(estimator: Any) -> None:
    """Refuse columns of an Estimator that make no sense, alone or together.

    Raises:
        InputError: naming the column and the remedy.
    """
    for name, module in MODULES.items():
        column = getattr(estimator, name)
        optional = name in OPTIONAL and column is None
        refuse_unless(
            callable(column) or optional,
            f"Estimator({name}={column!r}): a column is a function over a Batch; "
            f"take one from vantage.{module} or write your own.",
        )
        if not optional:
            columns.check_settings(column)
    refuse_unless(
        not (estimator.returns is returns.total and estimator.discounting is aggregates.discounted),
        "Estimator(returns=total, discounting=discounted): the total return is discounted "
        "already and a second γ^t would bias it; use discounting=undiscounted, or "
        "returns=to_go.",
    )
    refuse_unless(
        estimator.clip is ratios.unclipped or estimator.ratio is not ratios.none,
        f"Estimator(clip={columns.describe(estimator.clip)}, ratio=none): a ratio that is always 1 "
        "is never clipped; give ratio=token or ratio=sequence, or clip=unclipped.",
    )
