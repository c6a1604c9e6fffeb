"""How a loss is called: people's names for log-probabilities, rewards, masks and groups.

A loss is a function of N completions of T steps, some of them padding, to a scalar that an
optimiser lowers. Its arguments are found by name; a function of five arguments with other names
gets them in the order (log_prob, old_log_prob, reward, mask, group).
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vantage.batch import Batch
from vantage.conformance.claims import parts_by_action
from vantage.errors import InputError, refuse_unless
from vantage.estimators.estimator import Estimator
from vantage.gradients.weighted import weighted_products

Function = Callable[..., object]

# What an argument of a loss may be called.
NAMES = {
    "log_prob": (
        "log_prob", "log_probs", "logprob", "logprobs", "logp", "logps", "per_token_logps",
    ),
    "old_log_prob": (
        "old_log_prob", "old_log_probs", "old_logprobs", "old_logps", "old_per_token_logps",
        "behaviour_log_prob", "rollout_log_probs",
    ),
    "reference_log_prob": (
        "reference_log_prob", "ref_log_prob", "ref_log_probs", "ref_logprobs", "ref_logps",
        "ref_per_token_logps",
    ),
    "reward": ("reward", "rewards", "advantage_or_reward", "score", "scores", "returns"),
    "step_reward": ("step_reward", "step_rewards", "token_rewards", "token_level_rewards"),
    "advantage": ("advantage", "advantages", "adv"),
    "mask": ("mask", "response_mask", "completion_mask", "action_mask", "loss_mask", "eos_mask"),
    "group": ("group", "groups", "group_id", "group_ids", "prompt_id"),
    "index": ("index", "uid", "uids"),
    "logits": ("logits",),
    "action": ("action", "actions", "token", "tokens", "completion_ids", "labels"),
    "temperature": ("temperature",),
    "value": ("value", "values"),
}  # fmt: skip
CANONICAL = ("log_prob", "old_log_prob", "reward", "mask", "group")
CALLED = {name: canonical for canonical, names in NAMES.items() for name in names}


@dataclass(frozen=True)
class Rows:
    """One batch as a loss sees it: N rows of T steps.

    Attributes:
        log_prob, reference_log_prob: [N, T] of the policy and of a reference; padding holds
            arbitrary finite numbers.
        logits: [N, T, A] of which `log_prob` is the log-softmax at `action`, over the temperature.
        batch: the record: action, reward, mask, group, value, and the log-probabilities under the
            policy that sampled.
        scores: [N, T, P] ∇ log π of every step, for estimators that look at scores.
        greedy_return: [N, T].
        temperature: the temperature of the sampling law.
    """

    log_prob: Float[Tensor, "N T"]
    reference_log_prob: Float[Tensor, "N T"]
    logits: Float[Tensor, "N T A"]
    batch: Batch
    scores: Float[Tensor, "N T P"]
    greedy_return: Float[Tensor, "N T"]
    temperature: float = 1.0

    @property
    def mask(self) -> Bool[Tensor, "N T"]:
        """[N, T] which steps count."""
        return self.batch.mask

    @property
    def entropy(self) -> Float[Tensor, "N T"]:
        """[N, T] of the policy at each step, in nats, without a graph."""
        chances = (self.logits.detach() / self.temperature).softmax(-1)
        return torch.special.entr(chances).sum(-1)

    @property
    def group(self) -> Int[Tensor, " N"]:
        """[N] which prompt."""
        return self.batch.group

    @property
    def reward(self) -> Float[Tensor, " N"]:
        """[N] of the whole completion."""
        return torch.where(self.batch.mask, self.batch.reward, 0).sum(1)

    @property
    def leave_one_out(self) -> Float[Tensor, " N"]:
        """[N] the reward less the mean of the prompt's other completions, which biases nothing."""
        same = (self.group[:, None] == self.group).double()
        same.fill_diagonal_(0)
        others = same.sum(1)
        return self.reward - (same @ self.reward) / others.clamp(min=1)


@dataclass(frozen=True)
class Loss:
    """A loss behind its door.

    Attributes:
        name: how reports call it.
        call: rows -> scalar.
        takes: which of `NAMES` it is given.
        shapes: in which form it is given rewards and the mask, in words.
        counted_before: whether what it knows of the whole batch is counted before the batch is
            split into passes, by the trainer; it cannot be called on one pass alone then.
    """

    name: str
    call: Callable[[Rows], Any]
    takes: frozenset[str]
    shapes: str = ""
    counted_before: bool = False


class _Form(NamedTuple):
    """Whether rewards go in as [N] or [N, T], and the mask as booleans or numbers."""

    by_row: bool
    boolean: bool

    def __str__(self) -> str:
        return (
            f"rewards [N{'' if self.by_row else ', T'}], mask {'bool' if self.boolean else 'float'}"
        )


FORMS = (_Form(True, True), _Form(True, False), _Form(False, True), _Form(False, False))


def through_the_door(loss: Any, probe: Rows, name: str | None = None) -> Loss:
    """The loss as `verify` calls it.

    Args:
        loss: a function, a pair (advantage function, policy loss), an Estimator, or a Loss.
        probe: a batch to try it on, with N, T and A all different.
        name: how reports call it; the function's own where None.

    Raises:
        InputError: arguments that are not known, or a function that fails on the probe.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, Estimator):
        reads = frozenset({"reference_log_prob"} & loss.needs)
        return Loss(name or loss.name, partial(_of_estimator, loss), reads)
    pair = isinstance(loss, tuple | list)
    refuse_unless(
        all(map(callable, loss)) and len(loss) == 2 if pair else callable(loss),
        f"verify({loss!r}): give a function loss(log_prob, old_log_prob, reward, mask, group) -> "
        "scalar, a pair of functions (advantage, policy loss), or an Estimator.",
    )
    advantage, policy_loss = loss if pair else (None, loss)
    shown = name or _name(policy_loss)
    takes = _arguments(policy_loss)
    if advantage is None:
        return _first_form(
            lambda form: partial(_called, policy_loss, takes, form), shown, probe, takes
        )
    of_advantage = _arguments(advantage)
    first = _first_form(
        lambda form: partial(_called, advantage, of_advantage, form),
        _name(advantage),
        probe,
        of_advantage,
        shapes=(probe.mask.shape[:1], probe.mask.shape, probe.mask[:, :1].shape),
    )
    both = _first_form(
        lambda form: partial(_paired, first, policy_loss, takes, form), shown, probe, takes
    )
    return replace(both, takes=both.takes | first.takes, shapes=first.shapes)


def _first_form(
    build: Callable[[_Form], Callable[[Rows], object]],
    shown: str,
    probe: Rows,
    arguments: tuple[tuple[str | None, str], ...],
    shapes: tuple[torch.Size, ...] = (torch.Size([]), torch.Size([1])),
) -> Loss:
    """The function in the first form of rewards and mask that it can take."""
    problems: list[Exception] = []
    for form in FORMS:
        call = build(form)
        try:
            value = call(probe)
        except Exception as error:  # a user's function may fail in any way
            problems.append(error)
            continue
        if isinstance(value, Tensor) and value.shape in shapes:
            return Loss(shown, call, frozenset(ours for _, ours in arguments), str(form))
        what = f"of shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
        problems.append(InputError(f"it returned {what}, not a tensor of shape {list(shapes[0])}"))
    rows, steps = probe.mask.shape
    raise InputError(
        f"verify: {shown} fails on {rows} rows of {steps} steps, with rewards [{rows}] and "
        f"[{rows}, {steps}] alike: {type(problems[0]).__name__}: {problems[0]}."
    ) from problems[0]


def _called(
    function: Function,
    arguments: tuple[tuple[str | None, str], ...],
    form: _Form,
    rows: Rows,
    advantage: Tensor | None = None,
) -> object:
    given = [(name, _argument(rows, ours, form, advantage)) for name, ours in arguments]
    value = function(
        *(each for name, each in given if name is None),
        **{name: each for name, each in given if name is not None},
    )
    # customary losses return metrics beside the loss, advantage functions the returns
    return value[0] if isinstance(value, tuple | list) else value


def _paired(
    advantage: Loss,
    function: Function,
    arguments: tuple[tuple[str | None, str], ...],
    form: _Form,
    rows: Rows,
) -> object:
    return _called(function, arguments, form, rows, advantage.call(rows).detach())


def _argument(rows: Rows, ours: str, form: _Form, advantage: Tensor | None) -> object:
    if ours in ("reward", "advantage"):
        each = rows.reward if ours == "reward" else rows.leave_one_out
        if ours == "advantage" and advantage is not None:
            each = advantage
        return each if form.by_row or each.ndim == 2 else each[:, None] * rows.mask
    simple = {
        "log_prob": rows.log_prob,
        "old_log_prob": rows.batch.log_prob,
        "reference_log_prob": rows.reference_log_prob,
        "step_reward": rows.batch.reward,
        "mask": rows.mask if form.boolean else rows.mask.to(rows.log_prob.dtype),
        "group": rows.group,
        "logits": rows.logits,
        "action": rows.batch.action,
        "temperature": rows.temperature,
        "value": rows.batch.value,
    }
    if ours == "index":  # keys of a dict, as tensors cannot be
        return np.array([str(g) for g in rows.group.tolist()], dtype=object)
    # a copy: what a loss changes in place must not be what the next one is given
    given = simple[ours]
    return given if not isinstance(given, Tensor) or given.requires_grad else given.clone()


def _arguments(function: Function) -> tuple[tuple[str | None, str], ...]:
    """Pairs of the function's own name of an argument (None: by position) and ours."""
    bound = function.keywords if isinstance(function, partial) else {}
    parameters = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in bound
    ]
    required = [p for p in parameters if p.default is p.empty]
    unknown = [p.name for p in required if p.name not in CALLED]
    if unknown:
        refuse_unless(
            len(required) == len(CANONICAL),
            f"verify: {_name(function)} has an argument {unknown[0]!r}, which is none of those "
            f"known: {', '.join(NAMES)}. Bind it with functools.partial, or take five arguments "
            f"({', '.join(CANONICAL)}).",
        )
        return tuple((None, ours) for ours in CANONICAL)
    return tuple(
        (None if p.kind is p.POSITIONAL_ONLY else p.name, CALLED[p.name])
        for p in parameters
        if p.name in CALLED
    )


def _name(function: Function) -> str:
    if isinstance(function, partial):
        return _name(function.func)
    return getattr(function, "__name__", type(function).__name__)


def _of_estimator(estimator: Estimator, rows: Rows) -> Tensor:
    """The surrogate whose gradient is −ĝ."""
    inputs: dict[str, Any] = {
        "greedy_return": rows.greedy_return,
        "reference_log_prob": rows.reference_log_prob,
        "entropy": rows.entropy,
        **parts_by_action(rows.batch),
    }
    inputs = {name: value for name, value in inputs.items() if name in estimator.needs}
    if "scores" in estimator.needs:
        inputs["scores"] = weighted_products(rows.scores, rows.batch, estimator, **inputs)
    weights = estimator.weights(rows.batch, rows.log_prob.detach(), **inputs)
    return -torch.where(rows.mask, weights * rows.log_prob, 0).sum()
