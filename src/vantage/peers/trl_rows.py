"""The row of the table that a TRL trainer's configuration is, column by column.

Written against TRL 1.16, and read off `_compute_loss` and the advantages of its trainers. What the
table has no column for is refused by name.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from vantage.conformance.losses.trl import is_trl_trainer
from vantage.errors import refuse_unless
from vantage.estimators import aggregates, baselines, penalties, ratios, scales, selections
from vantage.estimators.estimator import Column, Estimator

# How a loss_type averages over steps and completions, and whether a pass counts its tokens alone.
AGGREGATES: dict[str, Column] = {
    "grpo": aggregates.per_sequence,
    "bnpo": aggregates.per_token,
    "dapo": aggregates.per_token,
    "cispo": aggregates.per_token,
    "dr_grpo": aggregates.constant_length,
    "luspo": aggregates.per_trajectory,
    "sapo": aggregates.per_sequence,
    "vespo": aggregates.per_token,
}
SCALES: dict[str, Column] = {
    "group": partial(scales.group_std, correction=1),  # torch.std's, plus 1e-4
    "none": scales.none,
}
RATIOS: dict[str, Column] = {"token": ratios.token, "sequence": ratios.sequence}
# Arguments that change the weights in a way no column does, and what leaves them as they are.
PLAIN: dict[str, tuple[Any, ...]] = {
    "use_vllm": (False,),
    "mask_truncated_completions": (False,),
    "entropy_coef": (0.0,),
    "use_adaptive_entropy": (False,),
    "normalize_advantages": (False,),
    "reward_clip_range": (None,),
}


def estimator(trainer: Any) -> Estimator:
    """The row of the table whose gradient the first step of a trainer takes.

    Of GRPOTrainer: `loss_type` with its settings, `scale_rewards`, `importance_sampling_level`,
    `epsilon`, `epsilon_high`, `delta`, `off_policy_mask_threshold`, `beta`,
    `use_bias_correction_kl`, `max_completion_length`, `top_entropy_quantile`,
    `multi_objective_aggregation`; of RLOOTrainer: `epsilon`, `epsilon_high`,
    `beta`. Its name is that of the configuration.

    Raises:
        InputError: not such a trainer, or no row is its configuration.
    """
    kind = type(trainer).__name__
    refuse_unless(
        is_trl_trainer(trainer), f"estimator({kind}): give a GRPOTrainer or RLOOTrainer of TRL."
    )
    arguments = trainer.args
    for name, plain in PLAIN.items():
        value = getattr(arguments, name, plain[0])
        refuse_unless(
            value in plain,
            f"estimator({kind}): no row of the table has {name}={value!r}; set it to {plain[0]!r}.",
        )
    refuse_unless(
        not getattr(trainer, "aux_loss_enabled", False),
        f"estimator({kind}): the loss of the experts' router is in no row; set "
        "router_aux_loss_coef=0.",
    )
    return _grpo(trainer) if hasattr(trainer, "loss_type") else _rloo(trainer)


def _rloo(trainer: Any) -> Estimator:
    return Estimator(
        baseline=baselines.leave_one_out,
        ratio=ratios.trajectory,
        clip=_clip(trainer),
        kl_in_reward=_penalty(penalties.k1, trainer.beta),
        name="rloo (TRL's)",
    )


def _grpo(trainer: Any) -> Estimator:
    arguments, loss, scale = trainer.args, trainer.loss_type, trainer.scale_rewards
    level = trainer.importance_sampling_level
    for name, value, known in (
        ("loss_type", loss, AGGREGATES),
        ("scale_rewards", scale, SCALES),
        ("importance_sampling_level", level, RATIOS),
    ):
        refuse_unless(
            value in known,
            f"estimator(GRPOTrainer): no row of the table has {name}={value!r}; those with one: "
            f"{', '.join(known)}.",
        )
    weighted = bool(trainer.beta) and arguments.use_bias_correction_kl
    refuse_unless(
        not weighted or level == "token",
        f"estimator(GRPOTrainer): beta={trainer.beta:g} with use_bias_correction_kl=True weighs "
        "the KL by the whole completion's ratio, and no row does; set it to False.",
    )
    aggregate = AGGREGATES[loss]
    passes, generated = arguments.gradient_accumulation_steps, arguments.steps_per_generation
    refuse_unless(
        loss != "bnpo" or passes == 1,
        f"estimator(GRPOTrainer): loss_type='bnpo' divides each of {passes} passes by its own "
        "tokens, and no row does; set gradient_accumulation_steps=1.",
    )
    refuse_unless(
        aggregate is not aggregates.per_token or generated <= passes or loss == "bnpo",
        f"estimator(GRPOTrainer): loss_type={loss!r} divides by the tokens of {generated} passes, "
        f"of which a step takes {passes}, and no row does; set steps_per_generation={passes}.",
    )
    if loss == "dr_grpo":
        aggregate = partial(aggregate, length=float(trainer.max_completion_length))
    fraction, summed = arguments.top_entropy_quantile, "sum_then_normalize"
    refuse_unless(
        fraction == 1 or passes == 1,
        f"estimator(GRPOTrainer): top_entropy_quantile={fraction:g} ranks the tokens of each of "
        f"{passes} passes, and no row does; set gradient_accumulation_steps=1.",
    )
    together = arguments.multi_objective_aggregation == summed
    return Estimator(
        baseline=baselines.group_mean if together else baselines.none,
        scale=SCALES[scale] if together else partial(scales.decoupled, correction=1),
        selection=selections.none
        if fraction == 1
        else partial(selections.highest_entropy, fraction=fraction),
        ratio=ratios.trajectory if loss == "vespo" else RATIOS[level],
        clip=SURROGATES.get(loss, _clipped)(trainer),
        aggregate=aggregate,
        kl_in_loss=_penalty(
            penalties.weighted_k3_in_loss if weighted else penalties.k3_in_loss, trainer.beta
        ),
        name=f"{loss}, {f'scale_rewards={scale}' if together else 'normalize_then_sum'}"
        + (", sequence ratio" if level == "sequence" else "")
        + ("" if fraction == 1 else f", top_entropy_quantile={fraction:g}"),
    )


def _clipped(trainer: Any) -> Column:
    """The surrogate of the losses that clip: two-sided with δ, masked with a threshold."""
    arguments = trainer.args
    bounds = {"epsilon": trainer.epsilon_low, "epsilon_high": trainer.epsilon_high}
    delta, threshold = arguments.delta, arguments.off_policy_mask_threshold
    refuse_unless(
        delta is None or threshold is None,
        f"estimator(GRPOTrainer): no row of the table has delta={delta} and "
        f"off_policy_mask_threshold={threshold} together; set one of them to None.",
    )
    refuse_unless(
        delta is None or delta > 1 + trainer.epsilon_high,
        f"estimator(GRPOTrainer): delta={delta} below 1 + epsilon_high clips good completions too, "
        "and no row does.",
    )
    if delta is not None:
        return partial(ratios.dual, **bounds, maximum=delta)
    if threshold is not None:
        return partial(ratios.sequence_masked, **bounds, threshold=threshold)
    return partial(ratios.ppo, **bounds)


def _cispo(trainer: Any) -> Column:
    _refuse_mask(trainer)
    return ratios.truncated(trainer.epsilon_high)  # a bound of the ratio itself


def _sapo(trainer: Any) -> Column:
    _refuse_mask(trainer)
    positive, negative = trainer.args.sapo_temperature_pos, trainer.args.sapo_temperature_neg
    return partial(ratios.soft, positive=positive, negative=negative)


def _vespo(trainer: Any) -> Column:
    _refuse_mask(trainer)
    arguments = trainer.args
    return partial(
        ratios.gamma,
        shape=arguments.vespo_k_pos,
        rate=arguments.vespo_lambda_pos,
        negative_shape=arguments.vespo_k_neg,
        negative_rate=arguments.vespo_lambda_neg,
    )


def _refuse_mask(trainer: Any) -> None:
    threshold = trainer.args.off_policy_mask_threshold
    refuse_unless(
        threshold is None,
        f"estimator(GRPOTrainer): no row of the table has loss_type={trainer.loss_type!r} with "
        f"off_policy_mask_threshold={threshold}; set that to None.",
    )


# Losses that do not clip, and the clip column that each is; the others are `_clipped`.
SURROGATES: dict[str, Callable[[Any], Column]] = {"cispo": _cispo, "sapo": _sapo, "vespo": _vespo}


def _clip(trainer: Any) -> Column:
    return partial(ratios.ppo, epsilon=trainer.epsilon_low, epsilon_high=trainer.epsilon_high)


def _penalty(penalty: Column, beta: float) -> Column | None:
    return partial(penalty, beta=beta) if beta else None
