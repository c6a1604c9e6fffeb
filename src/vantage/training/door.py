"""The door of training: what a person gives, as the objects that the loop takes.

A string, a class, an estimator without its parentheses: where the meaning is clear it works, and
elsewhere the message says what to write instead, before anything is collected.
"""

import copy
import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from vantage import estimators
from vantage.environments import making
from vantage.environments.interface import Environment
from vantage.environments.tabular import Tabular
from vantage.environments.terms import Terms
from vantage.errors import InputError, refuse_unless, refuse_unless_within
from vantage.estimators import Estimator
from vantage.estimators.estimator import compares
from vantage.exact.mdp import MDP
from vantage.policies import (
    Bernoulli,
    Categorical,
    Gaussian,
    MaskedCategorical,
    MultiCategorical,
    Policy,
    Recurrent,
    SoftmaxTable,
)
from vantage.runs.seeds import seed_of
from vantage.training import algorithms
from vantage.training.algorithm import Algorithm

LANES, DISCOUNT = 64, 0.99  # of an environment that a run makes, where nothing else is said
POLICY, VALUE, MEMORY = 101, 102, 103  # what the first weights are drawn for

# Which policies act in which spaces.
KINDS: dict[type[gymnasium.Space], tuple[type[Policy], ...]] = {
    gymnasium.spaces.Discrete: (Categorical, SoftmaxTable),
    gymnasium.spaces.MultiDiscrete: (MultiCategorical,),
    gymnasium.spaces.MultiBinary: (Bernoulli,),
    gymnasium.spaces.Box: (Gaussian,),
}


class Entry(NamedTuple):
    """What the loop takes.

    Attributes:
        env, policy, value, estimator: to train with.
        settings: what an algorithm asks for beside its estimator, by argument of `vantage.train`.
        algorithm: the algorithm, or None where an estimator was given.
    """

    env: Any
    policy: Policy
    value: nn.Module | None
    estimator: Estimator
    settings: dict[str, Any]
    algorithm: Algorithm | None


def entry(
    env: object,
    policy: Any,
    estimator: object,
    value: Any,
    *,
    lanes: int | None = None,
    discount: float | None = None,
    normalise: dict[str, Any] | bool | None = None,
    device: Any = None,
    seed: int = 0,
) -> Entry:
    """Environment, policy, value function and estimator, made where they were not given.

    Args:
        env: an environment, or what `vantage.make` makes one of; an MDP is sampled.
        policy: a policy, or None to have one made that fits; may be left out, so that the estimator
            comes second.
        estimator: an estimator, an algorithm, or the name of one.
        value: V, or None: made too, where the policy is and the algorithm trains one.
        lanes, discount, normalise: of an environment that is made here; where None, those of the
            algorithm, or else 64 lanes, γ = 0.99, not normalised.
        device: the device of an environment that is made here, and of the networks with it.
        seed: the seed of the first weights of what is made here.

    Raises:
        InputError: something that cannot be used, saying what to write instead.
    """
    refuse_unless_within(seed, 0, "train", "seed")
    if estimator is None and _weighs(policy):
        policy, estimator = None, policy
    algorithm, weighs = resolve(estimator)
    world = opened(env, algorithm, lanes, discount, normalise, device)
    fresh = policy is None
    network = {} if algorithm is None else algorithm.policy_network()
    actor = world.policy(seed=seed_of(seed, POLICY), **network) if fresh else policy
    check_policy(world, actor)
    wanted = "value" in weighs.needs or (algorithm is not None and algorithm.value)
    if value is None and fresh and wanted:
        network = {} if algorithm is None else algorithm.value_network(actor)
        value = world.value(seed=seed_of(seed, VALUE), **network)
    if value is not None:
        check_value(world, actor, value)
    settings = {} if algorithm is None else algorithm.settings()
    return Entry(world, actor, value, weighs, settings, algorithm)


def _weighs(given: object) -> bool:
    """Whether it was meant as an estimator: one, an algorithm, a name, or a row without `()`."""
    return (
        isinstance(given, Estimator | Algorithm | str | dict)
        or given in tuple(estimators.TABLE.values())
        or given in tuple(algorithms.TABLE.values())
    )


def resolve(given: object) -> tuple[Algorithm | None, Estimator]:
    """The algorithm, or None, and the estimator that is meant.

    Raises:
        InputError: neither, saying what to write instead.
    """
    if isinstance(given, Estimator):
        return None, given
    if isinstance(given, Algorithm):
        return given, given.estimator
    if isinstance(given, str):
        if given in algorithms.TABLE:
            return resolve(algorithms.named(given))
        if given in estimators.TABLE or given in estimators.ALIASES:
            return None, estimators.named(given)
        names = list(dict.fromkeys([*algorithms.TABLE, *estimators.TABLE]))
        near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}."
        raise InputError(f"No algorithm and no estimator is called {given!r}; {hint}")
    for module, table in (("estimators", estimators.TABLE), ("algorithms", algorithms.TABLE)):
        for name, function in table.items():
            if given is function:
                raise InputError(
                    f"vt.{module}.{name} is a function that makes it: write vt.{module}.{name}()."
                )
    if isinstance(given, dict):
        raise InputError(
            "A dict was given for the estimator: settings are keyword arguments of vt.train, as in "
            "vt.train(env, policy, estimator, **settings); vt.algorithms.ppo() is an Algorithm, "
            "which is given as it is."
        )
    raise InputError(
        f"{_shown(given)} is no estimator; give one such as vt.estimators.rloo(), or an algorithm "
        "such as vt.algorithms.ppo(), or the name of either."
    )


def estimator_of(given: object) -> Estimator:
    """The estimator that is meant where estimators are measured: a row goes before an algorithm.

    Raises:
        InputError: neither, saying what to write instead.
    """
    if isinstance(given, str) and (given in estimators.TABLE or given in estimators.ALIASES):
        return estimators.named(given)
    return resolve(given)[1]


def several(given: Any) -> list[object]:
    """What was given as a list, also where it is one thing alone."""
    alone = isinstance(given, Estimator | Algorithm | str) or callable(given)
    return [given] if alone else list(given)


def opened(
    env: object,
    algorithm: Algorithm | None = None,
    lanes: int | None = None,
    discount: float | None = None,
    normalise: dict[str, Any] | bool | None = None,
    device: Any = None,
    **settings: Any,
) -> Any:
    """The environment that is meant: one as it is, or what `vantage.make` makes of it.

    Raises:
        InputError: no environment, or settings for one that has them already.
    """
    settings |= {} if device is None else {"device": device}
    if isinstance(env, MDP):
        return Tabular(env, LANES if lanes is None else lanes, **settings)
    if isinstance(env, Environment):
        given = {"lanes": lanes, "discount": discount, "normalise": normalise} | settings
        named = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None)
        refuse_unless(
            not named,
            f"train({named}): {env.name} is made already, with {env.lanes} lanes and "
            f"γ = {env.discount}; make it with these, or give its id.",
        )
        return env
    asked = algorithm.normalise if algorithm is not None else False
    published = LANES if algorithm is None else algorithm.lanes
    if discount is None and algorithm is not None:
        discount = algorithm.discount
    if isinstance(env, VectorEnv):
        published = env.num_envs
    return making.make(
        env,
        lanes=published if lanes is None else lanes,
        discount=DISCOUNT if discount is None else discount,
        normalise=asked if normalise is None else normalise,
        **settings,
    )


def check_policy(env: Any, policy: object) -> None:
    """Refuse a policy that cannot act in an environment.

    Raises:
        InputError: no policy; one for another kind of action; one that reads other observations or
            gives other actions than the environment's.
    """
    if callable(policy) and not isinstance(policy, nn.Module):
        raise InputError(
            f"{_shown(policy)} was given for the policy; write env.policy(), with parentheses."
            if getattr(policy, "__name__", "") == "policy"
            else f"{_shown(policy)} is no policy; make one with env.policy()."
        )
    if not isinstance(policy, Policy):
        kind = "Gaussian(net, actions=D)" if _is_box(env) else "Categorical(net)"
        wrap = f"wrap it: vt.{kind}." if isinstance(policy, nn.Module) else "use env.policy()."
        raise InputError(f"{_shown(policy)} is no policy; {wrap}")
    actions = getattr(env, "actions", None)
    terms = getattr(env, "terms", None)
    if terms is None or actions is None:
        return  # an environment of the user's own, whose spaces nobody has told
    if policy.terms is None:
        policy.terms = terms
    device, parameter = getattr(env, "device", None), next(policy.parameters(), None)
    refuse_unless(
        device is None or parameter is None or parameter.device == device,
        f"The policy is on {getattr(parameter, 'device', None)} and {env.name} on {device}; write "
        f"policy.to({str(device)!r}), and the value function's likewise.",
    )
    head = policy.head if isinstance(policy, Recurrent) else policy
    fitting = next((kinds for space, kinds in KINDS.items() if isinstance(actions, space)), ())
    known = tuple(kind for kinds in KINDS.values() for kind in kinds)
    refuse_unless(
        not isinstance(head, known) or isinstance(head, fitting),
        f"A {type(head).__name__} cannot act in {env.name}, whose actions are {actions}; use "
        f"{' or '.join(kind.__name__ for kind in fitting)}, or env.policy().",
    )
    refuse_unless(
        getattr(terms, "mask", None) is None or isinstance(head, MaskedCategorical),
        f"{env.name} tells which actions are allowed, and a {type(head).__name__} does not ask; "
        "use env.policy(), or env.policy(net=...) with a network of your own, or make the "
        "environment with action_mask=False.",
    )
    _try(env, policy, terms)


def _try(env: Any, policy: Policy, terms: Terms) -> None:
    """Let the policy see one observation of the space and act."""
    observation = first_sight(policy, terms)
    try:
        with torch.no_grad():
            action = policy.mode(observation)
            score = policy.log_prob(observation[:, None], action[:, None])
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"The policy cannot read an observation of {env.name}, which it sees as "
            f"{tuple(observation.shape[1:])} {observation.dtype}: {_first_line(error)}. Make "
            "one that fits with env.policy(), or env.policy(net=...) with a network of your own."
        ) from error
    refuse_unless(
        tuple(score.shape) == (1, 1),
        f"The policy gives log-probabilities of shape {tuple(score.shape[2:])} an action; "
        "log_prob(observation, action) must give one number each.",
    )
    choices = getattr(env.actions, "n", None)
    logits = getattr(policy, "net", None) if isinstance(policy, Categorical) else None
    if logits is not None and choices is not None:
        width = policy(observation).shape[-1]
        refuse_unless(
            width == choices,
            f"The policy's network gives {width} logits; {env.name} has {choices} actions.",
        )
    if isinstance(env.actions, gymnasium.spaces.Box):
        expected = int(torch.tensor(env.actions.shape).prod())
        refuse_unless(
            action.shape[-1] == expected,
            f"The policy gives actions of {action.shape[-1]} numbers; those of {env.name} have "
            f"{expected}.",
        )


def check_value(env: Any, policy: Policy, value: Any) -> None:
    """Refuse a value function that cannot read what the policy records.

    Raises:
        InputError: it is no network; or it fails on an observation, or gives other than one number.
    """
    refuse_unless(
        isinstance(value, nn.Module),
        f"{_shown(value)} was given for the value function; write env.value(), or give a network.",
    )
    terms = getattr(env, "terms", None)
    if terms is None:
        return
    observation = first_sight(policy, terms)
    memory = (
        f" The policy records its memory: make the value function with "
        f"env.value(recurrent={policy.memory})."
        if isinstance(policy, Recurrent)
        else " Make one that fits with env.value()."
    )
    try:
        with torch.no_grad():
            worth = value(observation)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"The value function cannot read an observation of {env.name}, which it sees as "
            f"{tuple(observation.shape[1:])} {observation.dtype}: {_first_line(error)}.{memory}"
        ) from error
    refuse_unless(
        isinstance(worth, Tensor) and tuple(worth.shape) == (1,),
        f"The value function gives shape {tuple(getattr(worth, 'shape', ()))} for one observation, "
        f"where (1,) is one number each; wrap a network [..., 1] in vt.Value(net).{memory}",
    )


def check_starts(env: Environment, estimator: Estimator, group: int) -> None:
    """Refuse an estimator that compares episodes of one start where lanes cannot share one.

    Raises:
        InputError: saying why they cannot, and which estimator compares.
    """
    if not compares(estimator):
        return
    try:
        env.sharing(group)
    except InputError as error:
        raise InputError(
            f"train: {estimator.name!r} compares episodes of one start state. {error} Or use a "
            "baseline over the batch, such as batch_leave_one_out."
        ) from error


def shared(policy: nn.Module, value: nn.Module | None) -> bool:
    """Whether a policy and a value function have parameters in common."""
    numbers = {id(parameter) for parameter in policy.parameters()}
    return value is not None and any(id(p) in numbers for p in value.parameters())


def first_sight(policy: Policy, terms: Terms) -> Tensor:
    """What the policy records of an observation of the space, [1, ...]."""
    space = copy.deepcopy(terms.observations)  # seeding it must not seed the environment's
    space.seed(0)
    observation, _ = terms.read(space.sample())
    parameter = next(policy.parameters(), None)
    if parameter is not None:
        kind = parameter.dtype if observation.is_floating_point() else observation.dtype
        observation = observation.to(parameter.device, kind)
    started = torch.ones(1, dtype=torch.bool, device=observation.device)
    return policy.see(observation, started, policy.begin(1))


def _is_box(env: object) -> bool:
    return isinstance(getattr(env, "actions", None), gymnasium.spaces.Box)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def _shown(given: object) -> str:
    name = getattr(given, "__qualname__", None)
    return f"The function {name}" if isinstance(given, Callable) and name else repr(given)[:120]  # type: ignore[arg-type]
