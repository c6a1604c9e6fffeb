"""Films are playable, whole, and show what the policy did."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import vantage as vt
from vantage.environments.rollout import episodes
from vantage.errors import InputError
from vantage.training.video import film_run, record_video

imageio = pytest.importorskip("imageio.v2")
pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("pygame")
# the reader of the tests leaves pipes to the garbage collector; the writer does not
READS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def frames(path: Path) -> np.ndarray:
    with imageio.get_reader(path) as film:
        return np.stack([np.asarray(frame) for frame in film])


@READS
def test_a_film_has_a_frame_for_the_start_and_for_every_step(tmp_path: Path) -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    policy = env.policy()
    returns = record_video(env, policy, tmp_path / "film.mp4", episodes=2, seed=3)
    assert len(returns) == 2
    lengths = [int(value) for value in returns]  # CartPole gives 1 a step
    found = frames(tmp_path / "film.mp4")
    assert len(found) == sum(length + 1 for length in lengths)
    assert found.shape[1:] == (400, 600, 3)
    moved = np.abs(np.diff(found.astype(int), axis=0)).max((1, 2, 3))
    assert moved.min() > 3  # every frame differs from the one before
    assert np.median(moved) > 100
    # the frame before the second start is that of the end: the pole has fallen
    first, end, second = found[0], found[lengths[0]], found[lengths[0] + 1]
    gap = [np.abs(f.astype(int) - first.astype(int)).mean() for f in (end, second)]
    assert gap[0] > 2 * gap[1]
    assert not list(tmp_path.glob(".*"))


def test_the_episode_filmed_is_that_of_its_seed(tmp_path: Path) -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=1)
    policy = env.policy(seed=5)
    batch = episodes(env, policy, 1, 3)
    assert record_video(env, policy, tmp_path / "a.mp4", seed=3) == [batch.reward.sum().item()]
    greedy = episodes(env, policy, 1, 3, greedy=True)
    found = record_video(env, policy, tmp_path / "b.mp4", seed=3, greedy=True)
    assert found == [greedy.reward.sum().item()]


@READS
def test_a_normalised_environment_is_filmed_with_its_statistics(tmp_path: Path) -> None:
    from vantage.environments.normalise import Normalized

    env = Normalized(vt.Gymnasium("CartPole-v1", lanes=8))
    policy = env.policy()
    episodes(env, policy, 16, 0)
    before = {k: v.clone() for k, v in env.statistics.state_dict().items()}
    (value,) = record_video(env, policy, tmp_path / "film.mp4")
    assert len(frames(tmp_path / "film.mp4")) == value + 1
    assert all(torch.equal(before[k], v) for k, v in env.statistics.state_dict().items())


def test_a_run_folder_is_filmed(tmp_path: Path) -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    vt.train(env, env.policy(), vt.estimators.reinforce(), updates=1, batch=4,
             out=tmp_path / "run", progress=False)  # fmt: skip
    assert "1 episodes of return" in film_run(tmp_path / "run", tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").stat().st_size > 1000


def test_what_cannot_be_filmed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=1)
    policy = env.policy()
    with pytest.raises(InputError, match="end the name"):
        record_video(env, policy, tmp_path / "film.gif")
    table = vt.Tabular(vt.MDP.short_corridor(), 1)
    with pytest.raises(InputError, match="cannot be drawn"):
        record_video(table, table.policy(), tmp_path / "film.mp4")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=r"vantage-rl\[video\]"):
        record_video(env, policy, tmp_path / "film.mp4")
    assert not list(tmp_path.iterdir())
