"""What a column of the estimator table must declare about itself, beside its formula.

A column is a plain function over a `Batch`. Some facts cannot be read off its values and are
declared where it is defined: which inputs it needs, so that a missing one is refused with a remedy;
which rows it couples, so that an interval or a signal-to-noise ratio takes the right unit of
independence; and what it does to the mean of the gradient, so that the claim can be checked by
enumeration.
"""

import inspect
import math
import re
from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any, Literal, TypeVar

from vantage.errors import refuse_unless

Coupling = Literal["none", "group", "batch"]
Bias = Literal["none", "scale", "direction"]
Condition = Literal["undiscounted", "true_value"]
F = TypeVar("F", bound=Callable[..., object])

# What an input is called in `needs`, and what to do when it is missing.
REMEDIES = {
    "value": "a value function: pass value=env.value()",
    "group": (
        "groups of at least two trajectories: draw several per prompt or start state "
        "(num_generations=8), or use a baseline over the batch, such as batch_leave_one_out"
    ),
    "scores": (
        "the scores' norms and inner products: pass scores=vantage.gradients.scores(policy, batch, "
        "estimator); vantage.gradient does so by itself"
    ),
    "greedy_return": (
        "the return of the greedy rollout from each step's start state: pass greedy_return= [N, T]"
    ),
    "reference_log_prob": (
        "a reference policy: pass reference_log_prob= [N, T], its log-probability of each action"
    ),
    "entropy": "the entropy of the policy at each step: pass entropy= [N, T]",
    "reward_parts": (
        "the rewards of each reward function: pass reward_parts= [N, T, K], before their weights, "
        "and reward_weights= [K]; tasks of language models have them"
    ),
    "reward_weights": "the weights of the reward functions: pass reward_weights= [K]",
}
# What a setting of a column may be, by its name.
SETTINGS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "lambda_": ("from 0 to 1", lambda x: 0 <= x <= 1),
    "fraction": ("from 0 to 1", lambda x: 0 <= x <= 1),
    "n": ("a whole number from 1", lambda x: x >= 1 and x.is_integer()),
    "correction": ("0 or 1", lambda x: x in (0, 1)),
    "epsilon": ("0 or above", lambda x: x >= 0),
    "epsilon_high": ("0 or above", lambda x: x >= 0),
    "rho_max": ("above 0", lambda x: x > 0),
    "c_max": ("0 or above", lambda x: x >= 0),
    "maximum": ("above 0", lambda x: x > 0),
    "minimum": ("0 or above", lambda x: x >= 0),
    "low": ("finite", math.isfinite),
    "high": ("finite", math.isfinite),
    "omega": ("0 or above", lambda x: x >= 0),
    "length": ("above 0", lambda x: x > 0),
    "k": ("a whole number from 1", lambda x: x >= 1 and x.is_integer()),
    "threshold": ("0 or above", lambda x: x >= 0),
    "positive": ("0 or above", lambda x: x >= 0),
    "negative": ("0 or above", lambda x: x >= 0),
    "shape": ("0 or above", lambda x: x >= 0),
    "rate": ("0 or above", lambda x: x >= 0),
    "negative_shape": ("0 or above", lambda x: x >= 0),
    "negative_rate": ("0 or above", lambda x: x >= 0),
    "alpha": ("above 0", lambda x: x > 0),
    "shift": ("finite", math.isfinite),
    "level": ("finite", math.isfinite),
    "beta": ("finite", math.isfinite),
    "coefficient": ("0 or above", lambda x: x >= 0),
}
# Conditions under which a claim of no bias holds, in words.
CONDITIONS: dict[Condition, str] = {
    "undiscounted": "γ = 1",
    "true_value": "V is the true value of the policy",
}
# What every estimator has at hand at every pass, for a clip or a penalty that asks for it.
AT_HAND = ("batch", "log_prob")
PARTS = ("Equation", "Shapes", "Source", "Unbiased when")


def declares(
    *,
    needs: tuple[str, ...] = (),
    couples: Coupling = "none",
    bias: "Bias | Callable[..., Bias]" = "none",
    provided: tuple[Condition, ...] = (),
    stepwise: bool = False,
    factor: Callable[..., float] | None = None,
    bounded: Callable[..., bool] | None = None,
) -> Callable[[F], F]:
    """Mark a column with what it needs, couples and claims.

    Args:
        needs: names of inputs beyond the required fields of a Batch. "value" and "group" are in the
            batch; the column receives any other ("scores", "greedy_return", "reference_log_prob",
            "entropy", "log_prob", or, a clip or penalty, the "batch") as a keyword argument.
        couples: "none" if a trajectory's weights depend on that trajectory alone, "group" if on its
            group, "batch" if on the whole batch.
        bias: what the column does to E ĝ on policy: "none" leaves it at ∇J, "scale" multiplies it
            by a constant, "direction" may turn it; or a function of the settings of the column.
        provided: conditions under which `bias` holds; without them it may be "direction".
        factor: (trajectories in a group, **settings of the column) -> the constant by which a
            column of bias "scale" multiplies E ĝ. Without it the constant is not known.
        bounded: (**settings of the column) -> whether it leaves out or cuts down what the policy
            has made likelier or less likely, so that off policy E ĝ is biased with every ratio.
        stepwise: whether a ratio at a step reads the log-probabilities and the mask of that step
            alone, so that minibatches may take the steps of a row apart.
    """

    def mark(function: F) -> F:
        function.needs = needs  # type: ignore[attr-defined]
        function.couples = couples  # type: ignore[attr-defined]
        function.bias = bias  # type: ignore[attr-defined]
        function.provided = frozenset(provided)  # type: ignore[attr-defined]
        function.stepwise = stepwise  # type: ignore[attr-defined]
        function.factor = factor  # type: ignore[attr-defined]
        function.bounded = bounded  # type: ignore[attr-defined]
        return function

    return mark


def needs(column: Callable[..., object]) -> tuple[str, ...]:
    """The optional inputs a column declares, looking through `functools.partial`."""
    return getattr(function_of(column), "needs", ())


def look_at(name: str, *chosen: Callable[..., object] | None) -> bool:
    """Whether any of the columns declares that it needs an input."""
    return any(name in needs(column) for column in chosen if column is not None)


def couples(column: Callable[..., object]) -> Coupling:
    """The rows a column declares that it couples, looking through `functools.partial`.

    A column that averages over steps with a common `key` couples what that key couples.
    """
    key = column.keywords.get("key") if isinstance(column, partial) else None
    return couples(key) if key is not None else getattr(function_of(column), "couples", "none")


def bias(column: Callable[..., object]) -> Bias | None:
    """What a column declares that it does to the mean of the gradient; None if it does not say."""
    declared = getattr(function_of(column), "bias", None)
    return declared(**settings_of(column)) if callable(declared) else declared


def cutting_one(kind: Bias) -> Callable[..., Bias]:
    """The claim of bounds of a ratio: `kind` where they cut 1 too, which it is on policy."""

    def claim(maximum: float = math.inf, minimum: float = 0.0, **settings: object) -> Bias:
        return kind if maximum < 1 or minimum > 1 else "none"

    return claim


def cut_one(group: int, maximum: float = math.inf, **settings: object) -> float:
    """What an upper bound leaves of the ratio 1."""
    return min(1.0, maximum)


def provided(column: Callable[..., object]) -> frozenset[Condition]:
    """The conditions of the column's claim."""
    return getattr(function_of(column), "provided", frozenset())


def factor(column: Callable[..., object], group: int) -> float | None:
    """The constant by which a column multiplies E ĝ, with groups of `group` trajectories.

    None where the column does not declare it.
    """
    if bias(column) == "none":
        return 1.0
    rule = getattr(function_of(column), "factor", None)
    return None if rule is None else rule(group, **settings_of(column))


def bounded(column: Callable[..., object]) -> bool:
    """Whether a column declares that it bounds ratios, with the settings that it has."""
    rule = getattr(function_of(column), "bounded", None)
    return False if rule is None else rule(**settings_of(column))


def always(**settings: object) -> bool:
    """That a column is bounded, whatever the settings."""
    return True


def stepwise(column: Callable[..., object]) -> bool:
    """Whether a ratio, or an importance by one, declares that it looks at one step at a time."""
    ratio = column.keywords.get("ratio") if isinstance(column, partial) else None
    declared: bool = getattr(function_of(column), "stepwise", False)
    return declared and (ratio is None or stepwise(ratio))


def describe(column: Callable[..., object] | None) -> str:
    """A column as a user would write it: `gae(lambda_=0.95)`."""
    if column is None:
        return "–"
    function = function_of(column)
    settings = settings_of(column)
    arguments = ", ".join(f"{name}={_written(value)}" for name, value in settings.items())
    name = getattr(function, "__name__", type(function).__name__)
    return name + (f"({arguments})" if arguments else "")


def check_settings(column: Callable[..., Any]) -> None:
    """Refuse numbers bound to a column that its formula has no meaning for.

    Raises:
        InputError: naming the column, the setting, its value and what it may be.
    """
    for name, value in (column.keywords if isinstance(column, partial) else {}).items():
        if not isinstance(value, Real):
            continue
        allowed, holds = SETTINGS.get(name, ("a number", lambda x: x == x))
        refuse_unless(
            holds(float(value)),
            f"{describe(column)}: {name}={value!r} must be {allowed}.",
        )


def parts(column: Callable[..., Any]) -> dict[str, str]:
    """The fixed parts of a column's docstring, "Summary" before them; absent ones are left out."""
    text = inspect.getdoc(function_of(column)) or ""
    pieces = re.split(rf"^({'|'.join(PARTS)}):", text, flags=re.MULTILINE)
    named = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    flat = {"Summary": pieces[0], **named}
    return {name: " ".join(body.split()) for name, body in flat.items()}


def function_of(column: Callable[..., object]) -> Callable[..., object]:
    """The function itself, without the settings bound to it."""
    return column.func if isinstance(column, partial) else column


def settings_of(column: Callable[..., object]) -> dict[str, Any]:
    """The settings bound to it."""
    return column.keywords if isinstance(column, partial) else {}


def _written(value: object) -> str:
    return describe(value) if callable(value) else repr(value)
