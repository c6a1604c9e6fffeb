"""The random generators that an environment holds, beside the one that Gymnasium gives it."""

import random
from typing import Any

import gymnasium
import numpy as np
import torch

Generators = np.random.Generator | np.random.RandomState | random.Random | torch.Generator


def generators(env: gymnasium.Env) -> dict[str, Generators]:
    """Generators that an environment and its wrappers hold, by attribute, two levels deep."""
    layers: dict[str, Generators] = {}
    layer: Any = env
    while layer is not None:
        for name, thing in list(getattr(layer, "__dict__", {}).items()):
            if isinstance(thing, Generators):
                layers[name.removeprefix("_")] = thing
            elif not isinstance(thing, gymnasium.Env | gymnasium.Space):
                for inner, deeper in list(getattr(thing, "__dict__", {}).items()):
                    if isinstance(deeper, Generators):
                        layers[f"{name}.{inner}"] = deeper
        layer = layer.env if isinstance(layer, gymnasium.Wrapper) else None
    return layers


def reseed(env: gymnasium.Env, words: list[int]) -> None:
    """Give an environment random numbers of its own from here on, whatever generators it holds.

    Those it made by itself, from the seed of its reset say, would else repeat in every lane that
    was reset with that seed.

    Args:
        words: that tell this environment from all others; other numbers for every generator.
    """
    env.unwrapped.np_random = np.random.default_rng(words)
    for place, (name, thing) in enumerate(sorted(generators(env).items())):
        if name == "np_random":
            continue
        sequence = np.random.SeedSequence([*words, place])
        word = int(sequence.generate_state(1)[0])
        if isinstance(thing, np.random.Generator):
            # in place, so that whoever else holds it draws the same
            thing.bit_generator.state = type(thing.bit_generator)(sequence).state
        elif isinstance(thing, torch.Generator):
            thing.manual_seed(word)
        else:
            thing.seed(word)
