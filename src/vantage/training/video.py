"""Films of a policy at work: whole episodes, frame by frame, as an MP4."""

from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor

from vantage.arguments import checked
from vantage.environments.gymnasium import Gymnasium
from vantage.environments.interface import Environment, Step
from vantage.environments.normalise import Normalized
from vantage.environments.rollout import episodes as collect
from vantage.errors import InputError, refuse_unless
from vantage.policies import Policy
from vantage.runs.progress import return_text
from vantage.runs.threads import torch_threads
from vantage.training.load import load

FRAMES_PER_SECOND = 30  # where the environment does not say

Frame = Callable[[np.ndarray], None]


@checked
def record_video(
    env: Environment,
    policy: Policy,
    path: str | Path,
    episodes: int = 1,
    seed: int = 1,
    greedy: bool = False,
) -> list[float]:
    """Film whole episodes: a frame at the start of each and one after every step.

    The environment is made again with one lane that can be drawn; the one given is left where it
    is. Statistics of a normalised environment are used and not changed.

    Args:
        env: a `vantage.Gymnasium` made from an id, normalised or not.
        policy: acts; sampled unless `greedy`.
        path: an .mp4 (H.264), written whole or not at all.
        episodes: how many.
        seed: the seed of the first episode; the next take the seeds that follow it.
        greedy: take the likeliest action instead of sampling.

    Returns:
        The undiscounted return of each episode.

    Raises:
        InputError: an environment that cannot be drawn; another ending of the name; imageio is not
            installed.
    """
    target = Path(path)
    refuse_unless(target.suffix == ".mp4", f"record_video({str(path)!r}): end the name in .mp4.")
    refuse_unless(episodes >= 1, f"record_video(episodes={episodes}): film one at least.")
    imageio = _imageio()
    drawn = _drawable(env)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.stem}.unfinished.mp4")
    rate = drawn.vector.metadata.get("render_fps") or FRAMES_PER_SECOND
    returns = []
    try:
        with (
            closing(drawn),
            torch_threads(1),
            # blocks of 2: H.264 wants even sides, and no more is scaled than that
            imageio.get_writer(unfinished, fps=rate, macro_block_size=2) as film,
        ):
            filmed = _Filmed(drawn, film.append_data)
            actor = env.frozen(filmed) if isinstance(env, Normalized) else filmed
            for episode in range(episodes):
                batch = collect(actor, policy, 1, seed + episode, greedy=greedy)
                returns.append(batch.reward.sum().item())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return returns


def film_run(
    run: str | Path,
    path: str | Path,
    episodes: int = 1,
    seed: int = 1,
    greedy: bool = False,
    *,
    env: Any = None,
    trust: bool = False,
) -> str:
    """`vantage evaluate RUN --video PATH`: film the policy of a run folder; returns what to print.

    Raises:
        InputError: as `vantage.load` and `record_video`.
    """
    world, policy, *_ = load(run, 1, env=env, trust=trust)
    returns = record_video(world, policy, path, episodes, seed, greedy)
    shown = ", ".join(return_text(value) for value in returns)
    return f"Video: {path}, {len(returns)} episodes of return {shown}"


class _Filmed:
    """A lane that hands on a frame at every reset and after every step."""

    def __init__(self, env: Gymnasium, keep: Frame):
        self.env, self.keep = env, keep
        self.lanes, self.discount, self.name = env.lanes, env.discount, env.name

    def reset(self, seed: int, shared: int = 1) -> Tensor:
        observation = self.env.reset(seed, shared)
        self._film()
        return observation

    def sharing(self, lanes: int) -> Environment:
        return self.env.sharing(lanes)

    def step(self, action: Tensor) -> Step:
        step = self.env.step(action)
        self._film()
        return step

    def _film(self) -> None:
        frames: Any = self.env.vector.render()
        self.keep(np.asarray(frames[0], np.uint8))


def _drawable(env: Environment) -> Gymnasium:
    """The environment with one lane, drawn as it is before it starts anew."""
    inner = env.env if isinstance(env, Normalized) else env
    known = isinstance(inner, Gymnasium) and inner.name in gymnasium.registry
    if not isinstance(inner, Gymnasium) or not known:
        raise InputError(
            f"record_video: {env.name} cannot be drawn; give a vantage.Gymnasium made from an id."
        )
    settings = {k: v for k, v in inner.settings.items() if not k.startswith("vector")}
    modes = gymnasium.spec(inner.name).make(**settings).metadata.get("render_modes", [])
    refuse_unless(
        "rgb_array" in modes,
        f"record_video: {inner.name} draws no pictures (its render modes: "
        f"{', '.join(modes) or 'none'}).",
    )

    def make() -> gymnasium.Env:
        try:
            return gymnasium.make(inner.name, **(settings | {"render_mode": "rgb_array"}))
        except gymnasium.error.DependencyNotInstalled as error:
            raise InputError(
                f"record_video: drawing {inner.name} needs a package: {error}"
            ) from error

    # with the lane reset at the step after the last, the last frame is that of the end
    lane = SyncVectorEnv([make], autoreset_mode=AutoresetMode.NEXT_STEP)
    return Gymnasium(lane, discount=inner.discount)


def _imageio() -> Any:
    try:
        import imageio.v2

        import_module("imageio_ffmpeg")
    except ImportError as error:
        raise InputError(
            "record_video needs imageio with ffmpeg: pip install 'vantage-rl[video]'."
        ) from error
    return imageio.v2
