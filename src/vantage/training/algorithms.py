"""Published algorithms: an estimator, an update rule, and the settings that came with them.

    run = vt.train("CartPole-v1", vt.algorithms.ppo(), steps=100_000)
    run = vt.train("CartPole-v1", vt.algorithms.ppo(epochs=10).replace(lr=3e-4), steps=100_000)

An `Algorithm` is data: what weighs a batch, what is done with it, how many environments step side
by side and how far, at what learning rate. It is accepted wherever an estimator is. What is random,
where a run is kept and how long it takes are the run's, not the algorithm's.

An estimator may bear the name of an algorithm, for it is what that algorithm weighs a batch with:
`vt.estimators.ppo()` is the clipped surrogate on generalised advantages, `vt.algorithms.ppo()` all
that was published with it. Where a name alone is given, the algorithm is meant.
"""

import dataclasses
import difflib
import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ParamSpec

from torch.optim import RMSprop

from vantage import estimators
from vantage.arguments import check_kinds
from vantage.errors import refuse_unless
from vantage.estimators import Estimator
from vantage.estimators.columns import parts
from vantage.training import schedules, updates
from vantage.training.algorithm import Algorithm

P = ParamSpec("P")
TABLE: dict[str, Callable[..., Algorithm]] = {}
# Where the settings of a variant of `ppo` differ from its own.
ATARI: dict[str, Any] = {
    "fragment": 128, "epochs": 3, "minibatches": 4, "lr": 2.5e-4, "epsilon": 0.1,
    "value_coefficient": 1.0, "entropy": 0.01, "anneal": True,
}  # fmt: skip
MUJOCO: dict[str, Any] = {"anneal": True}
VARIANTS = {"ppo_atari": ATARI, "ppo_continuous": MUJOCO}


def row(function: Callable[P, Algorithm]) -> Callable[P, Algorithm]:
    """Put a function that returns an Algorithm into the table, under the function's name.

    The algorithm is given that name, and the Source part of the docstring, unless it has its own.

    Raises:
        InputError: the table has an algorithm of that name.
    """
    name = function.__name__
    refuse_unless(name not in TABLE, f"There is an algorithm {name!r} already; give yours another.")

    @wraps(function)
    def build(*args: P.args, **kwargs: P.kwargs) -> Algorithm:
        algorithm = function(*args, **kwargs)
        return dataclasses.replace(
            algorithm,
            name=name if algorithm.name == "custom" else algorithm.name,
            source=algorithm.source or parts(function).get("Source", ""),
        )

    TABLE[name] = build
    return build


def named(name: str, **settings: object) -> Algorithm:
    """The algorithm of that name, with its settings: `named("ppo", epochs=10)`.

    >>> named("ppo", epochs=10).update.epochs
    10

    Raises:
        InputError: no such algorithm or setting, with near matches; a setting of another kind.
    """
    near = difflib.get_close_matches(name, TABLE, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(TABLE)}."
    refuse_unless(name in TABLE, f"No algorithm is called {name!r}; {hint}")
    known = settings_of(name)
    for setting in settings:
        near = difflib.get_close_matches(setting, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}."
        refuse_unless(setting in known, f"Algorithm {name!r} has no setting {setting!r}; {hint}")
    check_kinds(f"Algorithm {name!r}", settings, known)
    return TABLE[name](**settings)


def settings_of(name: str) -> dict[str, inspect.Parameter]:
    """The settings of an algorithm of the table, with their defaults."""
    known = dict(inspect.signature(TABLE[name]).parameters)
    if "changes" not in known:
        return known
    # passed on to the one that it is a variant of
    general = inspect.signature(ppo).parameters.items()
    defaults = VARIANTS.get(name, {})
    return {key: item.replace(default=defaults.get(key, item.default)) for key, item in general}


@row
def reinforce(batch: int = 64) -> Algorithm:
    """REINFORCE: whole episodes weighted by their returns, one step a batch.

    Args:
        batch: whole episodes per update.

    Source: Williams 1992 [williams1992].
    """
    return Algorithm(estimators.reinforce(), updates.Ascent(), batch=batch, value=False)


@row
def vpg(fragment: int = 4000, lambda_: float = 0.97) -> Algorithm:
    """Vanilla policy gradient: generalised advantages, standardised, one step a batch.

    V is fitted in 80 steps over the whole batch.

    Args:
        fragment: steps per update, of one environment.
        lambda_: the λ of the generalised advantage.

    Source: Schulman et al. 2016 [schulman2016], with the settings of Achiam 2018, Spinning Up.
    """
    fit = updates.Fit(lr=1e-3, epochs=80, minibatch=updates.WHOLE_BATCH)
    return Algorithm(
        _plain("vpg", lambda_), updates.Ascent(fit=fit, lr=3e-4), lanes=1, fragment=fragment
    )


@row
def a2c(fragment: int = 5, entropy: float = 0.0) -> Algorithm:
    """Synchronous advantage actor-critic: one step a short fragment, RMSprop.

    Args:
        fragment: steps per lane and update.
        entropy: coefficient of the bonus.

    Source: Mnih et al. 2016 [mnih2016], 16 actors of 5 steps.
    """
    return Algorithm(
        estimators.a2c(entropy=entropy),
        updates.Epochs(epochs=1, minibatches=1),
        lanes=16,
        fragment=fragment,
        optimizer=partial(RMSprop, lr=7e-4, alpha=0.99, eps=1e-5),
    )


@row
def ppo(
    fragment: int = 2048,
    epochs: int = 10,
    minibatches: int = 32,
    lr: float = 3e-4,
    lambda_: float = 0.95,
    epsilon: float = 0.2,
    value_clip: float | None = None,
    value_coefficient: float = 0.5,
    entropy: float = 0.0,
    standardise: bool = True,
    target_kl: float | None = None,
    max_grad_norm: float | None = 0.5,
    anneal: bool = False,
) -> Algorithm:
    """Proximal policy optimisation: one lane × 2048 steps, 10 epochs × 32 minibatches of 64.

    The details that were published with it are settings here or stand elsewhere: orthogonal weights
    with gain 0.01 for the policy's output are how `env.policy()` starts; Adam's ε is
    `updates.Epochs.eps`; observations and rewards are normalised by `vantage.Normalized(env)`.

    Args:
        fragment: steps per lane and update.
        epochs: over each batch.
        minibatches: the minibatches of each epoch.
        lr: the learning rate of Adam.
        lambda_: the λ of the generalised advantage.
        epsilon: the clip of the ratio.
        value_clip: the clip of V about its earlier prediction; None: none.
        value_coefficient: the weight of the value's loss.
        entropy: coefficient of the bonus.
        standardise: each minibatch's advantages.
        target_kl: stop an update's epochs early; None: never.
        max_grad_norm: the largest gradient norm of both networks together.
        anneal: the learning rate falls to 0 in a straight line.

    Source: Schulman et al. 2017 [schulman2017], table 3; details: Huang et al. 2022, Engstrom et
        al. 2020.
    """
    return Algorithm(
        estimators.ppo(epsilon=epsilon, lambda_=lambda_, normalise=False, entropy=entropy),
        updates.Epochs(
            epochs=epochs,
            minibatches=minibatches,
            value_coefficient=value_coefficient,
            value_clip=value_clip,
            standardise=standardise,
            target_kl=target_kl,
            max_grad_norm=max_grad_norm,
        ),
        lanes=1,
        fragment=fragment,
        lr=lr,
        schedule=schedules.linear if anneal else schedules.constant,
    )


@row
def ppo_continuous(**changes: object) -> Algorithm:
    """PPO for MuJoCo: as `ppo`, annealed, with observations and rewards normalised.

    Args:
        **changes: settings of `ppo`.

    Source: Schulman et al. 2017 [schulman2017], table 3, and the code that was published with it.
    """
    return ppo(**MUJOCO | changes).replace(name="ppo_continuous", normalise=True, source="")


@row
def ppo_atari(**changes: object) -> Algorithm:
    """PPO for games: 8 lanes × 128 steps, 3 epochs × 4 minibatches, annealed.

    The clip is not annealed with the learning rate, as it was there.

    Args:
        **changes: settings of `ppo`.

    Source: Schulman et al. 2017 [schulman2017], table 5.
    """
    return ppo(**ATARI | changes).replace(name="ppo_atari", lanes=8, source="")


@row
def ppg(
    fragment: int = 128,
    phase: int = 32,
    epochs: int = 1,
    minibatches: int = 8,
    auxiliary_epochs: int = 6,
    auxiliary_minibatches: int = 16,
    beta_clone: float = 1.0,
    lr: float = 5e-4,
    auxiliary_lr: float = 5e-4,
    lambda_: float = 0.95,
    epsilon: float = 0.2,
    value_coefficient: float = 0.5,
    entropy: float = 0.01,
) -> Algorithm:
    """Phasic policy gradient: PPO, and after 32 updates a phase that trains V through the policy.

    All settings are the published ones, γ = 0.999 and rewards normalised among them, but for the
    batch: 16 lanes × 128 steps, where Procgen's hundred million steps had 256 × 256. β is for
    rewards of that size: where the environment is yours, give it as `vantage.Normalized(env,
    observations=False)`. A run of fewer than `phase` updates is PPO.

    Args:
        fragment: steps per lane and update.
        phase: N_π, the updates of a policy phase.
        epochs: E_π and E_V, over each batch as it comes, of policy and V alike.
        minibatches: the minibatches of each of these epochs.
        auxiliary_epochs: E_aux, over all batches of a phase.
        auxiliary_minibatches: the minibatches of each of these epochs for each batch of the phase.
        beta_clone: the weight of KL(π_old ‖ π) in the auxiliary phase.
        lr: the learning rate of Adam in the policy phase.
        auxiliary_lr: that of the auxiliary phase.
        lambda_: the λ of the generalised advantage.
        epsilon: the clip of the ratio.
        value_coefficient: the weight of the value's loss in the policy phase.
        entropy: coefficient of the bonus.

    Source: Cobbe et al. 2021 [cobbe2021], and the code that was published with it.
    """
    return Algorithm(
        estimators.ppo(epsilon=epsilon, lambda_=lambda_, entropy=entropy),
        updates.Phasic(
            epochs=epochs,
            minibatches=minibatches,
            value_coefficient=value_coefficient,
            phase=phase,
            auxiliary_epochs=auxiliary_epochs,
            auxiliary_minibatches=auxiliary_minibatches,
            beta_clone=beta_clone,
            auxiliary_lr=auxiliary_lr,
        ),
        lanes=16,
        fragment=fragment,
        lr=lr,
        normalise={"observations": False},
        discount=0.999,
    )


@row
def natural(
    fragment: int = 1024,
    max_kl: float = 0.01,
    damping: float = 0.1,
    lambda_: float = 0.95,
    every_action: bool = True,
) -> Algorithm:
    """Natural policy gradient with steps of a given KL.

    Args:
        fragment: steps per lane and update.
        max_kl: KL of a step, nats.
        damping: the damping of the Fisher information. A table's is small wherever a state is
            seldom visited: 10⁻³ there, where 0.1 would leave hardly more than the plain gradient.
        lambda_: the λ of the generalised advantage.
        every_action: whether the Fisher information is that of all actions, as in the source, or
            estimated from the sampled ones.

    Source: Kakade 2002 [kakade2002].
    """
    rule = {"max_kl": max_kl, "damping": damping, "every_action": every_action}
    return _second_order("natural", fragment, lambda_, **rule)


@row
def trpo(
    fragment: int = 1024,
    max_kl: float = 0.01,
    damping: float = 0.1,
    lambda_: float = 0.95,
    iterations: int = 10,
    value_epochs: int = 10,
    value_minibatch: int = 256,
    every_action: bool = True,
) -> Algorithm:
    """Trust-region policy optimisation: the natural gradient with a line search.

    Args:
        fragment: steps per lane and update.
        max_kl: KL of a step, nats.
        damping: the damping of the Fisher information.
        lambda_: the λ of the generalised advantage.
        iterations: the iterations of conjugate gradients.
        value_epochs: passes over a batch to fit V.
        value_minibatch: steps of a batch per step of that fit.
        every_action: whether the Fisher information and the KL are those of all actions, as in the
            source, or estimated from the sampled ones.

    Source: Schulman et al. 2015 [schulman2015]; 1,024 steps a batch: Henderson et al. 2018.
    """
    fit = updates.Fit(lr=1e-3, epochs=value_epochs, minibatch=value_minibatch)
    rule = {"max_kl": max_kl, "damping": damping, "iterations": iterations, "fit": fit}
    return _second_order(
        "trpo", fragment, lambda_, line_search=True, every_action=every_action, **rule
    )


@row
def acer(
    fragment: int = 20,
    ratio: float = 4.0,
    capacity: int = 50_000,
    begin: int = 10_000,
    maximum: float = 10.0,
    trust_region: float | None = 1.0,
    decay: float = 0.99,
    entropy: float = 0.001,
    lr: float = 7e-4,
    value_coefficient: float = 0.5,
    max_grad_norm: float | None = 10.0,
) -> Algorithm:
    """Actor-critic with experience replay: a step on each batch and four on a memory, by Retrace.

    For Discrete actions. The value function is one of Q(s, ·).

    Args:
        fragment: steps per lane and update.
        ratio: replayed batches per batch, in the mean.
        capacity: steps that the memory holds; in the paper every one of 16 actors had as many.
        begin: steps that it holds before any are replayed.
        maximum: c, the bound of the importance weights.
        trust_region: δ, how far a step may go from the average policy; None: any.
        decay: α of the average policy.
        entropy: coefficient of the bonus.
        lr: the learning rate of RMSprop.
        value_coefficient: the weight of the value's loss.
        max_grad_norm: the largest gradient norm of both networks together.

    Source: Wang et al. 2017 [wangziyu2017], with the targets of Munos et al. 2016 [munos2016], 16
        actors of 20 steps; the learning rate, where replay begins, the value's coefficient and the
        largest norm: OpenAI Baselines.
    """
    return Algorithm(
        estimators.a2c(entropy=entropy),
        updates.Replay(
            ratio=ratio,
            capacity=capacity,
            begin=begin,
            maximum=maximum,
            trust_region=trust_region,
            decay=decay,
            value_coefficient=value_coefficient,
            max_grad_norm=max_grad_norm,
        ),
        lanes=16,
        fragment=fragment,
        lr=lr,
        action_value=True,
    )


@row
def acktr(
    fragment: int = 20,
    lr: float = 0.25,
    max_kl: float = 0.001,
    value_lr: float = 0.25,
    value_max_kl: float = 0.3,
    value_steps: int = 1,
    damping: float = 0.01,
    decay: float = 0.99,
    momentum: float = 0.9,
    entropy: float = 0.01,
) -> Algorithm:
    """Actor-critic by Kronecker-factored trust regions: A2C's gradient, K-FAC's step.

    For perceptrons. Networks are separate here, where the published code for games has one of both.

    Args:
        fragment: steps per lane and update.
        lr: η_max, the largest multiple of the natural gradient, annealed in a straight line.
        max_kl: KL of a step of the policy, nats.
        value_lr: η_max of V, annealed alike.
        value_max_kl: ½ mean (ΔV)² of a step of V, in squared units of the return.
        value_steps: steps of V per update.
        damping: added to the factored Fisher information.
        decay: how much of the running averages of the factors stays at an update.
        momentum: how much of the last move a step keeps.
        entropy: coefficient of the bonus.

    Source: Wu et al. 2017 [wu2017], with the settings of the code published with it: those for
        games, and the bound of V's steps that it has for continuous control.
    """
    rule = updates.KFAC(
        max_kl=max_kl,
        value_lr=value_lr,
        value_max_kl=value_max_kl,
        value_steps=value_steps,
        damping=damping,
        decay=decay,
        momentum=momentum,
    )
    return Algorithm(
        estimators.a2c(entropy=entropy),
        rule,
        lanes=32,
        fragment=fragment,
        lr=lr,
        schedule=schedules.linear,
    )


@row
def impala(fragment: int = 20, delay: int = 1, entropy: float = 0.01) -> Algorithm:
    """V-trace actor-critic: the policy that acts is `delay` updates old.

    Args:
        fragment: steps per lane and update.
        delay: updates.
        entropy: coefficient of the bonus.

    Source: Espeholt et al. 2018 [espeholt2018], 32 fragments of 20 steps a batch.
    """
    weighed = estimators.vtrace()
    return Algorithm(
        dataclasses.replace(weighed, aggregate=estimators.per_token, entropy=entropy),
        updates.Epochs(epochs=1, minibatches=1, refresh=True),
        lanes=32,
        fragment=fragment,
        delay=delay,
        lr=6e-4,
    )


def _plain(name: str, lambda_: float) -> Estimator:
    """Standardised generalised advantages, without a ratio."""
    ppo_row = estimators.ppo(lambda_=lambda_)
    return Estimator(
        returns=ppo_row.returns,
        baseline=ppo_row.baseline,
        scale=ppo_row.scale,
        aggregate=ppo_row.aggregate,
        name=name,
    )


def _second_order(name: str, fragment: int, lambda_: float, **rule: Any) -> Algorithm:
    settings = {"fit": updates.Fit(lr=1e-3, epochs=10, minibatch=256)} | rule
    return Algorithm(_plain(name, lambda_), updates.Natural(**settings), lanes=1, fragment=fragment)
