"""EnvPool: lanes stepped by C++ threads, behind the same interface as Gymnasium's.

EnvPool resets as Gymnasium's NEXT_STEP mode does: the final observation is returned, the next step
ignores its action, gives reward 0 and returns the first observation of the new episode.
"""

import difflib
import warnings
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from torch import Tensor

from vantage.arguments import checked
from vantage.environments.gymnasium import Gymnasium
from vantage.errors import InputError, refuse_unless


@checked
class EnvPool(Gymnasium):
    """Many lanes of an EnvPool environment, stepped together.

    EnvPool takes its seed when a pool is made: `reset` makes the pool anew, which costs what making
    the lanes costs (64 of CartPole 1.5 ms, 16 of HalfCheetah 77 ms on one core).

    An episode that terminates at the very step at which the time limit falls due is reported by
    EnvPool as truncated, and so here: its last step is bootstrapped with V of the final
    observation. The information is not in what EnvPool returns.

    Args:
        env: an id of `envpool.list_all_envs()`.
        lanes: how many copies run side by side.
        discount: γ of the objective, in (0, 1].
        **settings: passed to `envpool.make_gymnasium`, e.g. `num_threads=1`,
            `max_episode_steps=200`.

    Raises:
        InputError: EnvPool is not installed; unknown id (with near matches); a setting that belongs
            to `lanes` or `reset`; else as `Gymnasium`.
    """

    def __init__(self, env: str, lanes: int = 64, discount: float = 0.99, **settings: Any):
        for name, remedy in _NOT_SETTINGS.items():
            refuse_unless(name not in settings, f"EnvPool({name}={settings.get(name)}): {remedy}.")
        super().__init__(env, lanes, discount, **settings)

    def reset(self, seed: int, shared: int = 1) -> Tensor:
        """Start every lane afresh from `seed`, in a new pool; returns the first observations.

        Raises:
            InputError: shared starts, which EnvPool cannot give.
        """
        refuse_unless(
            shared == 1,
            f"{self.name} in EnvPool cannot start {shared} lanes from one state; use "
            "vantage.Gymnasium for shared starts.",
        )
        self.vector.close()
        self.vector = self._make(self.name, self.lanes, self.settings | {"seed": seed})
        self._begin()
        return self._read(self.vector.reset()[0]).to(self.device)

    def sharing(self, lanes: int) -> Gymnasium:
        """Refused: EnvPool cannot start several lanes from one state.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self.name} in EnvPool cannot start several lanes from one state; give its id to "
            "vantage.Gymnasium instead."
        )

    def _make(self, env: Any, lanes: int, settings: dict[str, Any]) -> VectorEnv:
        envpool = _package()
        name = self.name = str(env)
        if name not in envpool.list_all_envs():
            near = difflib.get_close_matches(name, envpool.list_all_envs(), n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else "see envpool.list_all_envs()."
            raise InputError(f"EnvPool has no environment {name!r}; {hint}")
        # EnvPool takes seeds of 31 bits
        seed = int(np.random.SeedSequence(settings.get("seed", 0)).generate_state(1)[0]) >> 1
        with warnings.catch_warnings():
            # its own spaces are declared in float64 and cast to float32, which Gymnasium remarks on
            warnings.filterwarnings("ignore", message=".*precision lowered by casting.*")
            pool = envpool.make_gymnasium(name, **settings | {"num_envs": lanes, "seed": seed})
            pool.single_observation_space, pool.single_action_space  # noqa: B018, made once
        return pool


_NOT_SETTINGS = {
    "num_envs": "say lanes=... instead",
    "batch_size": "lanes are stepped together; leave it out",
    "seed": "it is given to reset, by training and evaluation",
}


def _package() -> ModuleType:
    try:
        import envpool
    except ImportError as error:
        raise InputError(
            "vantage.EnvPool needs the package envpool; install it with "
            "pip install 'vantage-rl[envpool]'."
        ) from error
    return envpool
