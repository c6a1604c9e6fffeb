"""Where the environment begins: what it is given and gives, how it is counted, who is blamed."""

import os
import random
import time
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from trackers import Heard

import vantage as vt
from vantage.environments.lanes import RealNumbers
from vantage.environments.rollout import episodes
from vantage.reporting.facts import facts
from vantage.reporting.subject import Subject
from vantage.runs.progress import return_text


class Small(gymnasium.Env):
    """One number; episodes of one step."""

    observation_space: gymnasium.Space = spaces.Box(-100, 100, (1,), np.float32)
    action_space: gymnasium.Space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.shown(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return self.shown(), self.reward(action), self.time >= self.length, False, {}

    length = 1

    def shown(self) -> Any:
        return np.full(1, self.time, np.float32)

    def reward(self, action: Any) -> Any:
        return 0.0


def _lanes(kind: str, make: Any, lanes: int = 3) -> Any:
    """The same lanes behind every backend."""
    if kind == "lanes":
        return vt.make(make, lanes=lanes)
    if kind == "async":
        return vt.make(make, lanes=lanes, vectorization_mode="async")
    mode = {"next": AutoresetMode.NEXT_STEP, "same": AutoresetMode.SAME_STEP}[kind]
    return vt.make(SyncVectorEnv([make] * lanes, autoreset_mode=mode, copy=False))


BACKENDS = ("lanes", "next", "same", "async")


# -- memory that is handed out is not the record ------------------------------------------------


class SpoilsActions(Small):
    """What it is given it zeroes, at once and again a step later."""

    kept: Any = None
    length = 2

    def reward(self, action: Any) -> float:
        sought = float(np.sum(action))
        for array in (action, self.kept):
            if isinstance(array, np.ndarray):
                array -= array
        self.kept = action
        return sought


ACTIONS = {
    "MultiDiscrete": spaces.MultiDiscrete([4, 4]),
    "shifted": spaces.MultiDiscrete([4, 4], start=[2, 2]),
    "grid": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "MultiBinary": spaces.MultiBinary(3),
    "Box": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "Box bounded": spaces.Box(-1, 1, (2, 2), np.float32),
}


@pytest.mark.parametrize("kind", ["lanes", "next", "same"])
@pytest.mark.parametrize("name", ACTIONS)
def test_an_environment_cannot_write_into_the_actions_on_record(name: str, kind: str) -> None:
    class Own(SpoilsActions):
        action_space = ACTIONS[name]

    env = _lanes(kind, Own)
    batch = episodes(env, env.policy((4,)), 12, seed=0)
    terms = env.policy((4,)).terms
    played = [np.asarray(each) for each in terms.write(batch.action.flatten(0, 1), False)]
    expected = torch.tensor([float(each.sum()) for each in played]).view_as(batch.reward)
    assert batch.reward[batch.mask].abs().sum() > 0
    torch.testing.assert_close(batch.reward, expected, atol=1e-5, rtol=1e-5)


def test_what_an_environment_does_to_its_actions_does_not_hinder_learning() -> None:
    class Own(Small):
        action_space = spaces.MultiDiscrete([4, 4])

        def reward(self, action: Any) -> float:
            gained = float(action[0] == 2) + float(action[1] == 3)
            action -= action
            return gained

    settings = {"lanes": 8, "fragment": 64, "lr": 1e-2, "epochs": 4, "minibatches": 8}
    run = vt.train(Own, "ppo", steps=4096, seed=0, progress=False, **settings)
    # 2 at best; a policy that does not learn has 0.5, with a standard error of 0.06
    assert run.history[-1]["return_100"] > 1.8


class OneArray(Small):
    """Shows one array again and again, and writes to it, at a reset too."""

    length = 4

    def __init__(self) -> None:
        self.array = np.zeros(self.observation_space.shape or (1,), np.float32)

    def shown(self) -> Any:
        self.array[...] = self.time
        return self._wrapped(self.array)

    def _wrapped(self, array: Any) -> Any:
        return array


class OneArrayInDict(OneArray):
    observation_space = spaces.Dict({"x": spaces.Box(-9, 9, (1,), np.float32)})

    def _wrapped(self, array: Any) -> Any:
        return {"x": array}


class OnePicture(OneArray):
    observation_space = spaces.Box(0, 255, (40, 40, 1), np.float32)


ARRAY = np.zeros(1, np.float32)


class OneArrayForAll(OneArray):
    """All lanes share one."""

    def __init__(self) -> None:
        self.array = ARRAY

    def step(self, action: Any) -> Any:
        self.time += int(action)
        self.length = 3
        return self.shown(), 0.0, self.time >= self.length, False, {}


@pytest.mark.parametrize("kind", ["lanes", "next"])
@pytest.mark.parametrize("make", [OneArray, OneArrayInDict, OnePicture])
def test_observations_on_record_stay_what_they_were(make: Any, kind: str) -> None:
    env = _lanes(kind, make)
    first = env.reset(seed=0)
    shown, finals = [first], []
    for _ in range(6):
        step = env.step(torch.zeros(3, dtype=torch.long))
        shown.append(step.observation)
        finals.append(step.final_observation[step.terminated])
    value = [int(each.flatten()[0]) for each in shown]
    # NEXT_STEP shows the last observation, and then the first in a step of its own
    assert value == ([0, 1, 2, 3, 4, 0, 1] if kind == "next" else [0, 1, 2, 3, 0, 1, 2])
    assert int(torch.cat(finals).flatten()[0]) == 4


@pytest.mark.parametrize("make", [OneArray, OneArrayInDict, OnePicture])
def test_a_last_observation_that_a_reset_overwrote_is_refused(make: Any) -> None:
    """A vector environment that resets in the same step hands out what is no more."""
    env = _lanes("same", make)
    with pytest.raises(vt.InputError, match="Return a copy"):
        vt.evaluate(env, env.policy((2,)), 3)


def test_lanes_that_share_an_array_are_told_apart() -> None:
    env = vt.make(OneArrayForAll, lanes=2)
    env.reset(seed=0)
    step = env.step(torch.tensor([1, 0]))
    assert step.observation.flatten().tolist() == [1, 0]


# -- what is taken is counted --------------------------------------------------------------------


class Counting(Small):
    """Counts its steps, in all lanes, and the rewards it gave."""

    steps = 0
    gained = 0.0
    ended: list[tuple[float, int]] = []  # noqa: RUF012

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        returned = super().reset(seed=seed)
        self.length = int(self.np_random.integers(1, 30))
        self.total = 0.0
        return returned

    def step(self, action: Any) -> Any:
        observation, reward, terminated, *rest = super().step(action)
        type(self).steps += 1
        self.total += reward
        if terminated:
            type(self).ended.append((self.total, self.time))
        return observation, reward, terminated, *rest

    def reward(self, action: Any) -> float:
        return float(action) + 0.1


@pytest.fixture
def counting() -> type[Counting]:
    return type("Own", (Counting,), {"steps": 0, "ended": []})


def _checked_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No steps of the checker's."""
    monkeypatch.setattr("vantage.training.loop.before_training", lambda env: [])


@pytest.mark.parametrize("kind", ["lanes", "same", "next"])
@pytest.mark.parametrize("batch", [4, 16, 50])
def test_steps_of_whole_episodes_are_steps_taken(
    counting: Any, kind: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _checked_apart(monkeypatch)
    env = _lanes(kind, counting, lanes=16)
    counting.steps = 0
    run = vt.train(env, "reinforce", updates=2, batch=batch, progress=False)
    said = run.history[-1]["steps"]
    # one vector environment's reset steps are none of the environment's
    assert said == counting.steps
    if kind == "lanes":  # lanes that gave their episodes wait
        lengths = sum(row["length"] * row["episodes"] for row in run.history)
        assert said == pytest.approx(lengths)


def test_a_normaliser_lets_lanes_wait_too(counting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _checked_apart(monkeypatch)
    env = vt.make(counting, lanes=16, normalise=True)
    counting.steps = 0
    run = vt.train(env, "reinforce", updates=2, batch=4, progress=False)
    lengths = sum(row["length"] * row["episodes"] for row in run.history)
    assert run.history[-1]["steps"] == counting.steps == pytest.approx(lengths)


# -- accounts that add up ------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"batch": 8}, {"fragment": 16}], ids=["episodes", "fragments"])
@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
def test_accounts_add_up(
    counting: Any,
    how: dict[str, int],
    normalise: bool,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Log, tracker, run, checkpoint and report say what the environment itself has counted."""
    _checked_apart(monkeypatch)
    env = vt.make(counting, lanes=8, normalise=normalise)
    counting.steps, counting.ended = 0, []
    heard = Heard()
    asked: dict[str, Any] = {"seed": 1, "out": tmp_path / "run", "progress": False, **how}
    estimator = vt.estimators.reinforce() if "batch" in how else vt.estimators.a2c()
    began = time.perf_counter()
    run = vt.train(env, estimator, updates=5, track=[heard], **asked)
    written = vt.read_run(tmp_path / "run").history
    for rows in (run.history, written, [row for row, _ in heard.rows]):
        assert rows[-1]["steps"] == counting.steps
        assert sum(row["episodes"] for row in rows) == len(counting.ended)
        gained = sum(row["return"] * row["episodes"] for row in rows if row["episodes"])
        assert gained == pytest.approx(sum(total for total, _ in counting.ended))
        lengths = sum(row["length"] * row["episodes"] for row in rows if row["episodes"])
        assert lengths == pytest.approx(sum(length for _, length in counting.ended))
    assert [step for _, step in heard.rows] == [row["steps"] for row in written]
    assert written == run.history
    said = facts(Subject(vt.read_run(tmp_path / "run").config, written))
    assert said["steps"] == f"{counting.steps:,}"
    assert said["updates"] == "5"
    paces = [row["steps_per_second"] * row["step_time"] for row in written]
    assert sum(paces) == pytest.approx(counting.steps)
    assert sum(row["step_time"] for row in written) <= time.perf_counter() - began
    # the checkpoint goes on counting where the log ended, without steps that nobody asked for
    before, ended = counting.steps, len(counting.ended)
    again = vt.train(env, estimator, updates=6, resume=True, **asked)
    replayed = before if "fragment" in how else 0  # of the lanes' way to where they were
    assert again.history[-1]["steps"] - before == counting.steps - before - replayed
    repeated = ended if "fragment" in how else 0
    assert again.history[-1]["episodes"] == len(counting.ended) - ended - repeated


# -- an environment that is in the middle of being trained on ------------------------------------


def test_an_evaluation_in_a_callback_leaves_the_lanes_of_training_alone() -> None:
    env = vt.make("CartPole-v1", lanes=2)

    def evaluate(state: Any, row: dict[str, Any]) -> None:
        assert vt.evaluate(env, state.policy, episodes=2).lengths.min() > 1

    asked: dict[str, Any] = {"steps": 600, "fragment": 10, "seed": 3, "progress": False}
    plain = vt.train("CartPole-v1", "a2c", lanes=2, **asked)
    run = vt.train(env, "a2c", callbacks=[evaluate], **asked)
    for row, other in zip(run.history, plain.history, strict=True):
        assert (row["return"], row["length"]) == (other["return"], other["length"])


@pytest.mark.parametrize("other", ["reset", "step", "episodes", "as many steps"])
@pytest.mark.parametrize("name", ["CartPole-v1", "tensor/CartPole-v1", "tensor/Pendulum-v1"])
def test_a_foreign_reset_or_step_is_noticed(other: str, name: str) -> None:
    env = vt.make(name, lanes=2, normalise=name == "tensor/Pendulum-v1")

    def disturb(state: Any, row: dict[str, Any]) -> None:
        if other == "episodes":
            episodes(env, state.policy, 2, 0)
            return
        if other != "step":
            env.reset(seed=1)
        still = torch.zeros((2, *env.actions.shape))
        for _ in range({"reset": 0, "step": 1, "as many steps": 10}[other]):
            env.step(still if env.actions.shape else still.long())

    with pytest.raises(vt.InputError, match="reset or stepped by somebody else"):
        vt.train(env, "a2c", fragment=10, updates=2, callbacks=[disturb], progress=False)


# -- sums in double precision --------------------------------------------------------------------


class Tenths(Small):
    length = 200

    def reward(self, action: Any) -> float:
        return 0.1


class Cancels(Small):
    length = 102

    def reward(self, action: Any) -> float:
        return {1: 1e8, 102: -1e8}.get(self.time, 1.0)


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("normalise", [False, {"observations": False}], ids=["raw", "normalised"])
def test_returns_are_summed_in_double_precision(kind: str, normalise: Any) -> None:
    env = _lanes(kind, Cancels, 2)
    env = vt.Normalized(env, **normalise) if normalise else env
    assert vt.evaluate(env, env.policy((2,)), episodes=2).mean == 100
    fragments = vt.train(env, "a2c", fragment=103, updates=2, progress=False)
    assert {row["return"] for row in fragments.history} == {100.0}
    whole = vt.train(env, "reinforce", batch=2, updates=1, progress=False)
    assert whole.history[0]["return"] == 100


@pytest.mark.parametrize("kind", BACKENDS)
def test_many_small_rewards_add_up(kind: str) -> None:
    """In single precision 0.1 by itself is off by 1.5e-8 of it."""
    env = _lanes(kind, Tenths, 2)
    assert vt.evaluate(env, env.policy((2,)), 2).mean == pytest.approx(20, rel=1e-9)


# -- integers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.int8])
@pytest.mark.parametrize("squash", [True, False])
def test_every_integer_of_a_box_has_its_share(squash: bool, dtype: Any) -> None:
    """Rounded to the nearest: shares are those of the density on (k − ½, k + ½)."""
    played: list[int] = []

    class Own(Small):
        action_space = spaces.Box(0, 3, (1,), dtype)

        def reward(self, action: Any) -> float:
            assert self.action_space.contains(action)
            played.append(int(action[0]))
            return 0.0

    env = vt.make(Own, lanes=8)
    policy = env.policy((4,), squash=squash)
    batch = episodes(env, policy, 1600, 0)
    played.clear()
    env.step(
        policy.applied(torch.tensor([-0.7, -0.4, 0.4, 0.6, 1.5 + 1e-3, 2.4, 2.6, 3.4])[:, None])
    )
    if not squash:
        assert played == [0, 0, 0, 1, 2, 2, 3, 3]
    applied = policy.applied(batch.action.flatten()[:, None]).double().flatten()
    whole = torch.floor(applied + 0.5).clip(0, 3).long()
    shares = torch.bincount(whole, minlength=4) / len(applied)
    if squash:
        # a squashed normal around the middle: the ends are as likely as symmetry has them
        assert applied.amin() < 0  # half a step beyond the ends, which else had half a share
        assert applied.amax() > 3
        assert shares[3] > 0.05
        assert abs(shares[0] - shares[3]) < 0.06  # 4 standard errors


# -- precision -----------------------------------------------------------------------------------


class Clock(Small):
    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    length = 20

    def shown(self) -> Any:
        return np.array([1.7e9 + 10 * self.np_random.normal()])


class ClockInDict(Clock):
    observation_space = spaces.Dict({"t": Clock.observation_space, "k": spaces.Discrete(3)})

    def shown(self) -> Any:
        return {"t": super().shown(), "k": 1}


class LargeIntegers(Clock):
    observation_space = spaces.Box(-(2**62), 2**62, (1,), np.int64)

    def shown(self) -> Any:
        return np.array([2**53 + 2 * self.time], np.int64)


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("make", [Clock, ClockInDict, LargeIntegers])
def test_a_mean_is_taken_off_before_numbers_are_rounded(make: Any, kind: str) -> None:
    env = vt.Normalized(_lanes(kind, make, 4))
    policy = env.policy((4,))
    batch = episodes(env, policy, 16, 0)
    assert batch.observation.dtype == torch.float32
    seen = batch.observation[batch.mask][100:, -1]
    assert len(seen.unique()) > 15
    assert 0.5 < float(seen.std()) < 2


def test_what_acts_afterwards_takes_the_mean_off_in_double_too() -> None:
    env = vt.make(Clock, lanes=4, normalise=True)
    policy = env.policy((8,))
    episodes(env, policy, 16, 0)
    read = [policy.terms.read(np.array([1.7e9 + t]))[0].item() for t in (-10, -5, 0, 5, 10)]
    assert read == sorted(set(read))


# -- ids -----------------------------------------------------------------------------------------

IDS: dict[str, tuple[gymnasium.Space, Any, str]] = {
    "Discrete": (spaces.Discrete(3), 3, "3 in lane"),
    "shifted": (spaces.Discrete(3, start=2), 1, "1 in lane"),
    "MultiDiscrete": (spaces.MultiDiscrete([3, 3]), np.array([3, 0]), r"\[3, 0\] in lane"),
    "below": (spaces.MultiDiscrete([3, 3]), np.array([0, -1]), r"\[0, -1\] in lane"),
    "in a Dict": (
        spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.Discrete(3)}),
        {"a": np.zeros(2, np.float32), "b": -1},
        r"\['b'\]",
    ),
    "in a Tuple": (
        spaces.Tuple((spaces.Discrete(2), spaces.MultiDiscrete([2, 2]))),
        (0, np.array([2, 0])),
        r"\[1\]",
    ),
}


@pytest.mark.parametrize("kind", ["lanes", "next", "same"])
@pytest.mark.parametrize("name", IDS)
def test_ids_outside_their_space_are_refused(name: str, kind: str) -> None:
    space, wrong, said = IDS[name]
    good = space.sample()

    class Own(Small):
        observation_space = space
        length = 5

        def shown(self) -> Any:
            return wrong if self.time == 3 else good

    env = _lanes(kind, Own)
    with pytest.raises(vt.InputError, match=said) as refused:
        episodes(env, env.policy((4,)), 3, 0)
    assert "step 2" in str(refused.value)


# -- finite, on every path -----------------------------------------------------------------------


class NaNAtTheEnd(Small):
    length = 3

    def shown(self) -> Any:
        return np.full(1, np.nan if self.time == 3 else self.time, np.float32)


class TooLarge(Small):
    length = 3

    def reward(self, action: Any) -> float:
        return 1e39


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("how", [{"batch": 6}, {"fragment": 8}], ids=["episodes", "fragments"])
@pytest.mark.parametrize(
    ("make", "said"),
    [(NaNAtTheEnd, "observation that is not finite"), (TooLarge, "beyond the range of single")],
)
def test_numbers_that_cannot_be_are_refused_on_every_path(
    make: Any, said: str, how: dict[str, int], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _checked_apart(monkeypatch)
    env = _lanes(kind, make)
    estimator = "reinforce" if "batch" in how else "a2c"
    with pytest.raises(vt.InputError, match=said) as refused:
        vt.train(env, estimator, updates=2, progress=False, **how)
    assert "in lane 0" in str(refused.value)
    with pytest.raises(vt.InputError, match=said):
        vt.evaluate(env, env.policy((4,)), 3)


class Huge(Small):
    def reward(self, action: Any) -> float:
        return 1e30 * (self.time - 3)


@pytest.mark.parametrize(
    ("estimator", "settings"),
    [
        ("reinforce", {"batch": 6}),
        ("ppo", {"fragment": 8, "update": vt.updates.Epochs(standardise=False)}),
    ],
)
def test_a_gradient_beyond_single_precision_is_blamed_on_the_rewards(
    estimator: str, settings: dict[str, Any]
) -> None:
    env = vt.make(Huge, lanes=2)
    value = env.value() if estimator == "ppo" else None
    with pytest.raises(vt.NonFiniteError, match=r"rewards reach \de\+30 in size: divide them"):
        vt.train(
            env, env.policy(), vt.estimators.named(estimator), value=value, updates=3,
            progress=False, **settings,
        )  # fmt: skip


# -- a stop in an environment that does not come back --------------------------------------------


ELSEWHERE = np.random.default_rng(0)


class Elsewhere(Small):
    """Lengths of 20 or 40, drawn from a generator that no seed of a reset reaches."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        returned = super().reset(seed=seed)
        self.length = 20 * int(ELSEWHERE.integers(1, 3))
        self.place = float(ELSEWHERE.normal())
        return returned

    def shown(self) -> Any:
        return np.array([self.time + getattr(self, "place", 0.0)], np.float32)


def test_a_resumed_run_has_no_lengths_that_cannot_be(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for attempt in range(3):
        asked: dict[str, Any] = {"fragment": 7, "seed": attempt, "out": tmp_path / str(attempt)}
        vt.train(Elsewhere, "a2c", lanes=1, updates=2, progress=False, **asked)
        run = vt.train(Elsewhere, "a2c", lanes=1, updates=40, resume=True, progress=False, **asked)
        lengths = {row["length"] for row in run.history if row["episodes"]}
        assert lengths <= {20.0, 40.0}
        assert "does not come back to where it was" in capsys.readouterr().err


# -- episodes longer than lanes run on for --------------------------------------------------------


class Long(Small):
    length = 250


def test_an_episode_that_outlasts_the_restart_ends_all_the_same(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {"fragment": 50, "lanes": 2, "restart": 100, "progress": False}
    whole = vt.train(Long, "a2c", updates=14, **asked)
    assert {row["length"] for row in whole.history if row["episodes"]} == {250.0}
    said = capsys.readouterr().err
    assert "has lasted 100 steps" in said
    assert "restart=200" in said
    vt.train(Long, "a2c", updates=7, out=tmp_path / "run", **asked)
    resumed = vt.train(Long, "a2c", updates=14, out=tmp_path / "run", resume=True, **asked)
    for row, other in zip(whole.history, resumed.history, strict=True):
        assert row["grad_norm"] == other["grad_norm"]


def test_lanes_run_on_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vantage.training.control.MOST_STEPS", 200)
    run = vt.train(
        Long, "a2c", lanes=2, updates=20, fragment=50, restart=100, progress=False, signal_every=1
    )
    assert not any(row["episodes"] for row in run.history)
    assert capsys.readouterr().err.count("it is cut off") == 1


# -- processes that die ----------------------------------------------------------------------------


class Dies(Small):
    length = 20

    def reward(self, action: Any) -> float:
        if self.time == 5 and self.np_random.random() < 2:
            os._exit(3)
        return 0.0


@pytest.mark.parametrize("how", [{"batch": 4}, {"fragment": 16}], ids=["episodes", "fragments"])
def test_a_lane_that_dies_is_named_with_its_exit_code(
    how: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _checked_apart(monkeypatch)
    env = _lanes("async", Dies, 2)
    with pytest.raises(vt.InputError, match=r"lane \d with exit code 3"):
        vt.train(env, "reinforce" if "batch" in how else "a2c", updates=2, progress=False, **how)


class Raises(Small):
    length = 9

    def reward(self, action: Any) -> float:
        if self.time == 5:
            raise ArithmeticError("boom")
        return 0.0


def test_an_exception_in_an_environment_names_the_lane() -> None:
    env = _lanes("lanes", Raises, 2)
    with pytest.raises(ArithmeticError) as raised:
        vt.evaluate(env, env.policy((2,)), 2)
    assert "lane 0" in raised.value.__notes__[0]


def test_a_module_and_a_registered_name_step_alike() -> None:
    for lanes in (2, 16):
        one = vt.make("gymnasium.envs.classic_control:CartPole-v1", lanes=lanes)
        other = vt.make("CartPole-v1", lanes=lanes)
        assert type(one.vector) is type(other.vector)
        assert one.vector.metadata == other.vector.metadata


# -- how numbers are written, and scaled ---------------------------------------------------------


def test_returns_are_written_with_significant_digits() -> None:
    assert [return_text(value) for value in (0.014, 21.46, -0.003, 0.0)] == [
        "0.0140",
        "21.5",
        "-0.00300",
        "0.0",
    ]


def test_small_means_are_not_written_as_zero() -> None:
    result = vt.evaluate("FrozenLake-v1", vt.make("FrozenLake-v1").policy((4,)), 200, seed=3)
    assert 0 < result.mean < 0.05
    assert str(result).startswith(f"mean return {return_text(result.mean)}, 95 % interval")
    assert "-0.0," not in str(result)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_rewards_of_any_size_are_scaled_alike(size: float) -> None:
    class Own(Small):
        length = 8

        def reward(self, action: Any) -> float:
            return size * float(self.np_random.normal())

    env = vt.make(Own, lanes=4, normalise={"observations": False})
    batch = episodes(env, env.policy((4,)), 80, 0)
    assert 0.3 < float(batch.reward[batch.mask][64:].std()) < 1.5


# -- lanes that share a start ---------------------------------------------------------------------

SOURCES: dict[str, tuple[Any, Any]] = {
    "Generator": (np.random.default_rng, lambda rng: rng.normal()),
    "RandomState": (np.random.RandomState, lambda rng: rng.normal()),
    "random": (random.Random, lambda rng: rng.gauss(0, 1)),
    "torch": (
        lambda seed: torch.Generator().manual_seed(seed),
        lambda rng: torch.randn((), generator=rng).item(),
    ),
}


def _own_noise(source: str) -> Any:
    """One start; rewards by a generator that `reset` seeds."""
    seeded, draw = SOURCES[source]

    class Own(Small):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            if seed is not None:
                self.rng = seeded(seed)
            return super().reset(seed=seed)

        def reward(self, action: Any) -> float:
            return (2 * int(action) - 1) * 10 * draw(self.rng)

    return Own


@pytest.mark.parametrize("source", SOURCES)
def test_lanes_of_one_start_draw_numbers_of_their_own(source: str) -> None:
    env = vt.make(_own_noise(source), lanes=6).sharing(6)
    env.reset(seed=0, shared=3)
    first = env.step(torch.ones(6, dtype=torch.long)).reward
    assert len(set(first.tolist())) == 6
    env.reset(seed=0, shared=3)
    again = env.step(torch.ones(6, dtype=torch.long)).reward
    assert torch.equal(first, again)


def test_noise_of_its_own_is_no_variance_between_starts() -> None:
    """Of variance 100 within the only start; by one start's noise for all it was between."""
    env = vt.make(_own_noise("Generator"), lanes=16)
    policy = env.policy((2,))
    report = vt.audit(
        env, policy, ["reinforce"], trajectories=2048, batch=16, progress=False, seed=1
    )  # fmt: skip
    between, within = report.rows[0].between, report.rows[0].within
    assert between.low <= 0
    assert within.low > 10 * max(between.value, 1)


# -- real numbers only ---------------------------------------------------------------------------


class TurnsComplex(Small):
    """Real numbers while it is looked at before training, complex ones later on."""

    observation_space = spaces.Dict({"a": spaces.Box(-100, 100, (1,), np.float32)})
    length = 1000
    later: Any = None  # (observation, reward)

    def shown(self) -> Any:
        shown = super().shown()
        return {"a": shown.astype(np.complex64) if self.time > 300 and self.later[0] else shown}

    def reward(self, action: Any) -> Any:
        return self.later[1] if self.time > 300 else 1.0


class TurnsComplexInABox(TurnsComplex):
    observation_space = Small.observation_space

    def shown(self) -> Any:
        return super().shown()["a"]


REWARDS = [1 + 2j, np.complex64(1), np.array([1 + 0j]), "1", None]


@pytest.mark.parametrize("one", [TurnsComplex, TurnsComplexInABox])
@pytest.mark.parametrize("later", [(True, 1.0), *((False, reward) for reward in REWARDS)], ids=str)
def test_what_is_no_real_number_is_refused_whenever_it_comes(
    later: Any, one: type[TurnsComplex]
) -> None:
    """In lanes that are stepped here, and by what stands in each process of its own."""

    class Own(one):  # type: ignore[valid-type, misc]
        pass

    Own.later = later
    env = _lanes("lanes", Own, lanes=2)
    said = "complex numbers; an observation is of real" if later[0] else "a reward is one number"
    with pytest.raises(vt.InputError, match=said):
        vt.train(env, "ppo", fragment=512, epochs=1, minibatches=1, updates=1, progress=False)
    alone = RealNumbers(Own())
    alone.reset()
    with pytest.raises(vt.InputError, match=said):
        [alone.step(0) for _ in range(400)]
