"""Published algorithms: an estimator, an update rule, and the settings that came with them.

Each function gives the keyword arguments of `vantage.train`, as data:

    vt.train(env, policy, value=value, steps=500_000, **vt.algorithms.ppo())
    vt.train(env, policy, value=value, steps=500_000, **vt.algorithms.ppo(epochs=10) | {"lr": 3e-4})

An algorithm of your own is a dict too. What is random, where it is kept and how long it runs are
the run's, not the algorithm's.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch.optim import RMSprop

from vantage import estimators
from vantage.errors import refuse_unless
from vantage.training import schedules, updates

Settings = dict[str, Any]


def reinforce(batch: int = 64) -> Settings:
    """REINFORCE: whole episodes weighted by their returns, one step a batch.

    Source: Williams 1992 [williams1992].
    """
    return {"estimator": estimators.reinforce(), "update": updates.Ascent(), "batch": batch}


def vpg(fragment: int = 4000, lambda_: float = 0.97) -> Settings:
    """Vanilla policy gradient: generalised advantages, standardised, one step a batch; V is fitted
    in 80 steps over the whole batch.

    Source: Schulman et al. 2016 [schulman2016], with the settings of Achiam 2018, Spinning Up.
    """
    row = estimators.ppo(lambda_=lambda_)
    plain = estimators.Estimator(
        returns=row.returns,
        baseline=row.baseline,
        scale=row.scale,
        aggregate=row.aggregate,
        name="vpg",
    )
    fit = updates.Fit(lr=1e-3, epochs=80, minibatch=1 << 30)
    return {
        "estimator": plain,
        "update": updates.Ascent(fit=fit, lr=3e-4),
        "fragment": fragment,
    }


def a2c(fragment: int = 5, entropy: float = 0.0) -> Settings:
    """Synchronous advantage actor-critic: one step a short fragment, RMSprop.

    Source: Mnih et al. 2016 [mnih2016].
    """
    return {
        "estimator": estimators.a2c(entropy=entropy),
        "update": updates.Epochs(epochs=1, minibatches=1),
        "fragment": fragment,
        "optimizer": partial(RMSprop, lr=7e-4, alpha=0.99, eps=1e-5),
    }


def ppo(
    fragment: int = 128,
    epochs: int = 4,
    minibatches: int = 4,
    lr: float = 2.5e-4,
    lambda_: float = 0.95,
    epsilon: float = 0.2,
    value_clip: float | None = None,
    value_coefficient: float = 0.5,
    entropy: float = 0.0,
    standardise: bool = True,
    target_kl: float | None = None,
    max_grad_norm: float | None = 0.5,
    anneal: bool = True,
) -> Settings:
    """Proximal policy optimisation, with the details that were published with it, each a setting.

    Others are elsewhere: orthogonal weights with gain 0.01 for the policy's output are how
    `env.policy()` starts; Adam's ε is `updates.Epochs.eps`; observations and rewards are
    normalised by `vantage.Normalized(env)`.

    Args:
        fragment: steps per lane and update.
        epochs: over each batch.
        minibatches: of each epoch.
        lr: of Adam.
        lambda_: of the generalised advantage.
        epsilon: the clip of the ratio.
        value_clip: the clip of V about its earlier prediction; None: none.
        value_coefficient: of the value's loss.
        entropy: coefficient of the bonus.
        standardise: each minibatch's advantages.
        target_kl: stop an update's epochs early; None: never.
        max_grad_norm: of both networks together.
        anneal: the learning rate falls to 0 in a straight line.

    Source: Schulman et al. 2017 [schulman2017]; details: Huang et al. 2022, Engstrom et al. 2020.
    """
    return {
        "estimator": estimators.ppo(
            epsilon=epsilon, lambda_=lambda_, normalise=False, entropy=entropy
        ),
        "update": updates.Epochs(
            epochs=epochs,
            minibatches=minibatches,
            value_coefficient=value_coefficient,
            value_clip=value_clip,
            standardise=standardise,
            target_kl=target_kl,
            max_grad_norm=max_grad_norm,
        ),
        "fragment": fragment,
        "lr": lr,
        "schedule": schedules.linear if anneal else schedules.constant,
    }


def ppo_continuous(**changes: Any) -> Settings:
    """PPO with the settings published for MuJoCo: one lane × 2048 steps, 10 epochs × 32.

    Source: Schulman et al. 2017 [schulman2017], table 3.
    """
    published = {"fragment": 2048, "epochs": 10, "minibatches": 32, "lr": 3e-4}
    return ppo(**{**published, **changes})


def natural(
    fragment: int = 1024, max_kl: float = 0.01, damping: float = 0.1, lambda_: float = 0.95
) -> Settings:
    """Natural policy gradient with steps of a given KL.

    Args:
        fragment: steps per lane and update.
        max_kl: KL of a step, nats.
        damping: of the Fisher information. A table's is small wherever a state is seldom visited:
            10⁻³ there, where 0.1 would leave hardly more than the plain gradient.
        lambda_: of the generalised advantage.

    Source: Kakade 2002 [kakade2002].
    """
    return _second_order(fragment, max_kl, damping, lambda_, line_search=False)


def trpo(
    fragment: int = 1024, max_kl: float = 0.01, damping: float = 0.1, lambda_: float = 0.95
) -> Settings:
    """Trust-region policy optimisation: the natural gradient with a line search.

    Args:
        fragment: steps per lane and update.
        max_kl: KL of a step, nats.
        damping: of the Fisher information.
        lambda_: of the generalised advantage.

    Source: Schulman et al. 2015 [schulman2015].
    """
    return _second_order(fragment, max_kl, damping, lambda_, line_search=True)


def impala(fragment: int = 20, delay: int = 1, entropy: float = 0.01) -> Settings:
    """V-trace actor-critic: the policy that acts is `delay` updates old.

    Source: Espeholt et al. 2018 [espeholt2018].
    """
    row = estimators.vtrace()
    return {
        "estimator": replace(row, aggregate=estimators.per_token, entropy=entropy),
        "update": updates.Epochs(epochs=1, minibatches=1, refresh=True),
        "fragment": fragment,
        "delay": delay,
        "lr": 6e-4,
    }


def _second_order(
    fragment: int, max_kl: float, damping: float, lambda_: float, line_search: bool
) -> Settings:
    row = estimators.ppo(lambda_=lambda_)
    plain = estimators.Estimator(
        returns=row.returns,
        baseline=row.baseline,
        scale=row.scale,
        aggregate=row.aggregate,
        name="trpo" if line_search else "natural",
    )
    fit = updates.Fit(lr=1e-3, epochs=10, minibatch=256)
    return {
        "estimator": plain,
        "update": updates.Natural(max_kl=max_kl, line_search=line_search, damping=damping, fit=fit),
        "fragment": fragment,
    }


def named(name: str, **settings: Any) -> Settings:
    """The algorithm of that name, with its settings: `named("ppo", epochs=10)`.

    Raises:
        InputError: no such algorithm or setting, with near matches.
    """
    near = difflib.get_close_matches(name, TABLE, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(TABLE)}."
    refuse_unless(name in TABLE, f"No algorithm is called {name!r}; {hint}")
    known = list(inspect.signature(TABLE[name]).parameters)
    if "changes" in known:  # passed on to another algorithm
        known = list(inspect.signature(ppo).parameters)
    for setting in settings:
        refuse_unless(
            setting in known,
            f"Algorithm {name!r} has no setting {setting!r}; it has {', '.join(known)}.",
        )
    return TABLE[name](**settings)


TABLE: dict[str, Callable[..., Settings]] = {
    function.__name__: function
    for function in (reinforce, vpg, a2c, ppo, ppo_continuous, natural, trpo, impala)
}
