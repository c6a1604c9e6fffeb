"""The checker of environments: what is healthy passes, and every fault is named."""

import random
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import sick
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from test_cli import vantage

import vantage as vt
from vantage.environments.checking import check as checking
from vantage.environments.checking import costs
from vantage.environments.checking.randomness import global_randomness_kept
from vantage.environments.checking.subject import lane_of
from vantage.environments.tensor import Randomness

QUICK = {"steps": 120, "measure": False}


@pytest.fixture(autouse=True)
def _short_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 20 steps: run-time type checks make every call of a test ten times as slow."""
    monkeypatch.setattr(checking, "SHORT", 20)


@pytest.mark.parametrize("name", ["CartPole-v1", "tensor/CartPole-v1"])
def test_healthy_environments_are_measured(name: str) -> None:
    """More of them, and sick ones, are in the table of the page on environments."""
    report = vt.check_environment(name, steps=300)
    assert report.ok, str(report)
    assert {*checking.VALUES, "ends", "lanes", "length"} <= set(report.passed)
    assert name.startswith("tensor") or set(report.passed) == set(checking.CHECKS)
    assert repr(report).startswith(f"<ok: {name}")
    assert report.steps_per_second is not None
    assert report.policy_share is not None
    assert report.steps_per_second > 100
    assert 0 < report.policy_share < 1


# fault: what it is noticed as, how severely, words of the evidence, and words of the remedy
FAULTS: dict[str, tuple[str, str, str, str]] = {
    "OwnReseeded": ("error", "reseeding", "puts the generator `rng` back", "np_random"),
    "OwnSeedKept": ("error", "reseeding", "`rng` back. Of 28 pairs of seeds 28", "np_random"),
    "SeedAlwaysPassed": ("error", "reseeding", "`np_random` back", "only where seed is not None"),
    "HiddenReseeded": ("error", "reseeding", "the same to the bit. Of 28 pairs", "np_random"),
    "OwnUnseeded": ("warning", "seeding", "generators of its own, `rng`", "np_random"),
    "OwnFromNothing": ("warning", "seeding", "generators of its own, `rng`", "np_random"),
    "GlobalNumpy": ("warning", "seeding", "the global generator np.random", "np_random"),
    "GlobalPython": ("warning", "seeding", "the global generator random", "np_random"),
    "GlobalTorch": ("warning", "seeding", "the global generator torch", "np_random"),
    "SharedClock": ("error", "lanes", "in reward. Lanes share", "keep state on self"),
    "ReusedArray": ("warning", "buffers", "were written to in ", "observation.copy()"),
    "TwoArrays": ("warning", "buffers", "first in step 2", "observation.copy()"),
    "SpoilsAction": ("warning", "buffers", "actions it had been given", "np.array(action)"),
    "KeepsAction": ("warning", "buffers", "actions it had been given", "np.array(action)"),
    "NaNAtEnd": ("error", "finite", "only in observations that end an episode", "end the"),
    "InfinityOnTheWay": ("error", "finite", "first in step 2", "bound the quantity"),
    "IdOut": ("error", "ids", "5, possible are 0 to 4", "count ids"),
    "IdsOut": ("error", "ids", "3 in element [0], possible are 0 to 2", "count ids"),
    "IdBelow": ("error", "ids", "observations['place'] hold ids that do not exist", "count"),
    "MissingPart": ("error", "observation shape", "has no['x']", "every part"),
    "WrongShape": ("error", "observation shape", "(2,)", "declare the shape"),
    "Listed": ("error", "observation shape", "dtype <U1", "declare"),
    "FloatIds": ("warning", "dtype", "float64; observation_space says int64", "np.asarray"),
    "OutOfBounds": ("warning", "bounds", "allowed is [-0.1, 0.1]", "widen"),
    "LargeTimes": ("warning", "precision", "float32 has steps of 128", "subtract"),
    "RewardArray": ("warning", "reward", "shape (1,)", "float(reward)"),
    "RewardVector": ("error", "reward", "not one number", "weighed into one"),
    "RewardNone": ("error", "reward", "None of type NoneType", "float(reward)"),
    "RewardNaN": ("error", "reward", "the reward of step 3 is nan", "mend"),
    "RewardTooLarge": ("error", "reward", "1e+39, which float32 cannot hold", "scale"),
    "RewardLarge": ("warning", "reward", "e+18", "divide rewards"),
    "FlagsAsNumbers": ("warning", "flags", "terminated is 0 of type int", "bool(terminated)"),
    "FlagNone": ("error", "flags", "truncated is None", "bool(truncated)"),
    "OldStep": ("error", "interface", "step() returned 4 things", "shimmy"),
    "OldReset": ("error", "interface", "instead of (observation, info)", "gymnasium.Env"),
    "Raises": ("error", "runs", "RuntimeError: the simulator lost its licence", "possible"),
    "Endless": ("warning", "length", "no episode ended in 120 steps", "TimeLimit"),
    "Worded": ("error", "spaces", "gymnasium.wrappers.TransformObservation", ""),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_named(name: str) -> None:
    severity, check, evidence, remedy = FAULTS[name]
    report = vt.check_environment(getattr(sick, name), **QUICK)
    matching = [f for f in report.findings if f.check == check and f.severity == severity]
    assert matching, str(report)
    assert evidence in matching[0].evidence
    assert remedy in matching[0].remedy
    assert not report.ok
    assert check not in report.passed
    assert "not ok" in repr(report)


@pytest.mark.parametrize("name", ["Healthy", "OwnSeeded", "OwnState", "Clocked", "Masked"])
def test_what_is_no_fault_is_none(name: str) -> None:
    report = vt.check_environment(getattr(sick, name), **QUICK)
    assert report.ok, str(report)
    notes = {finding.check for finding in report.findings}
    wanted = {
        "OwnSeeded": "own generators",
        "OwnState": "buffers",
        "Clocked": "length",
        "Masked": "masks",
    }
    assert wanted.get(name) is None or wanted[name] in notes, str(report)


def test_what_is_left_to_the_policy() -> None:
    """Of 3 + 1 + 2 seconds the policy has 1 + 2."""
    assert costs.Speed(4, environment=3.0, acting=1.0, gradient=2.0).policy_share == 0.5


def test_what_was_not_looked_at_has_not_passed() -> None:
    assert vt.check_environment(sick.Worded, **QUICK).passed == []
    assert "memory" not in vt.check_environment(sick.Healthy, **QUICK).passed
    assert not {"seeding", "ends", "length"} & set(
        vt.check_environment(sick.NaNAtEnd, **QUICK).passed
    )
    assert not {"ends", "gymnasium"} & set(vt.check_environment(sick.Masked, **QUICK).passed)


def test_memory_that_grows() -> None:
    """40 bytes of float, array and list slot are the least that an observation takes."""
    (finding,) = costs.judge_memory(sick.Hoards(), 0, 150, 60.0)
    assert (finding.severity, finding.check) == ("warning", "memory")
    assert "bytes a step" in finding.evidence
    assert costs.judge_memory(sick.Healthy(), 0, 150, 60.0) == []


@pytest.mark.parametrize(
    ("what", "name"),
    [
        (sick.Healthy, "Healthy"),
        (sick.Healthy(), "Healthy"),
        (lambda: sick.Healthy(), "Healthy"),
        (gymnasium.make("CartPole-v1"), "CartPole-v1"),
        (gymnasium.spec("CartPole-v1"), "CartPole-v1"),
        ("sick:Healthy", "sick:Healthy"),
        (SyncVectorEnv([sick.Healthy] * 2), "SyncVectorEnv"),
        (lambda: SyncVectorEnv([sick.Healthy] * 2), "SyncVectorEnv"),
        (vt.Gymnasium("CartPole-v1", 9), "CartPole-v1"),
        (vt.Normalized(vt.CartPole(2)), "tensor/CartPole-v1"),
        (vt.Tabular(vt.MDP.garnet(4, 2, 2, discount=0.9, horizon=5, seed=0), 3), "tabular"),
    ],
)
def test_whatever_is_given(what: Any, name: str) -> None:
    report = vt.check_environment(what, **QUICK)
    assert report.ok, str(report)
    assert report.name == name


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("CartPole-v9", "CartPole-v1"),
        (3, "give an id such as"),
        (lambda size: size, "without arguments"),
        (lambda: 3, "which is no environment"),
    ],
)
def test_what_is_no_environment_is_refused(what: Any, message: str) -> None:
    with pytest.raises(vt.InputError, match=message):
        vt.check_environment(what)


def test_what_cannot_be_copied_is_stepped_itself() -> None:
    class Window(sick.Healthy):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("cannot pickle a window")

    report = vt.check_environment(Window(), **QUICK)
    assert report.ok, str(report)
    assert any("can be neither copied nor made again" in f.evidence for f in report.findings)


def test_an_object_that_is_given_stays_where_it_is() -> None:
    env = sick.Healthy()
    first, _ = env.reset(seed=4)
    time, state = env.time, env.np_random.bit_generator.state
    vt.check_environment(env, **QUICK)
    assert env.time == time
    assert np.array_equal(env.shown(), first)
    assert env.np_random.bit_generator.state == state


def test_shared_generators_stay_as_they_were() -> None:
    def states() -> Any:  # run-time type checks of tests draw from `random`
        return np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    before = states()
    for kind in (sick.GlobalNumpy, sick.GlobalTorch):
        vt.check_environment(kind, **QUICK)
        checking.quick_check(vt.Gymnasium(SyncVectorEnv([kind])))
    assert states() == before
    state = random.getstate()
    with global_randomness_kept():
        random.random()
    assert random.getstate() == state


class Lanes(VectorEnv):
    """Two lanes of a vector environment written by hand, with one fault."""

    def __init__(self, fault: str = "", mode: AutoresetMode | None = AutoresetMode.NEXT_STEP):
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.num_envs, self.fault, self.mode = 2, fault, mode
        self.single_observation_space = spaces.Box(-50, 50, (3,), np.float32)
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = spaces.Box(-50, 50, (2, 3), np.float32)
        self.action_space = spaces.MultiDiscrete([2, 2])
        self.envs = [sick.Healthy(), sick.Healthy()]

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.ended = [False, False]
        apart = self.fault != "alike"
        for lane, env in enumerate(self.envs):
            env.reset(seed=None if seed is None else seed + lane * apart)
        return np.stack([env.shown() for env in self.envs]), {}

    def step(self, actions: Any) -> Any:
        out, info = [], {}
        for lane, env in enumerate(self.envs):
            if self.ended[lane] and self.mode == AutoresetMode.NEXT_STEP:
                env.reset()
                out.append((0.0, False, False))
            else:
                out.append(env.step(actions[lane])[1:4])
        self.ended = [o[1] or o[2] for o in out]
        shown = np.stack([env.shown() for env in self.envs])
        if self.mode == AutoresetMode.SAME_STEP:
            for lane, env in enumerate(self.envs):
                if self.ended[lane]:
                    shown[lane] = env.reset()[0]
        reward, terminated, truncated = (np.array(column) for column in zip(*out, strict=True))
        if self.fault == "column":
            reward = reward[:, None]
        if self.fault == "flags":
            terminated = terminated.astype(float)
        if self.fault == "nan":
            shown[1] = np.nan if self.ended[1] else shown[1]
        return shown, reward, terminated, truncated, info


@pytest.mark.parametrize(
    ("fault", "mode", "check", "words"),
    [
        ("alike", AutoresetMode.NEXT_STEP, "lanes", "all 2 lanes return the same numbers"),
        ("column", AutoresetMode.NEXT_STEP, "reward", "shape (2, 1)"),
        ("flags", AutoresetMode.NEXT_STEP, "flags", "dtype float64"),
        ("nan", AutoresetMode.NEXT_STEP, "finite", "only in observations that end"),
        ("", AutoresetMode.SAME_STEP, "ends", "no 'final_obs'"),
    ],
)
def test_faults_of_vector_environments(
    fault: str, mode: AutoresetMode, check: str, words: str
) -> None:
    report = vt.check_environment(Lanes(fault, mode), **QUICK)
    assert any(f.check == check and words in f.evidence for f in report.errors), str(report)


def test_a_healthy_vector_environment_passes() -> None:
    report = vt.check_environment(Lanes(), **QUICK)
    assert report.ok, str(report)


def test_lanes_that_hear_the_same_noise() -> None:
    class Chorus(vt.CartPole):
        def random(self, generator: torch.Generator, steps: int) -> Randomness:
            fresh, noise = super().random(generator, steps)
            return Randomness(fresh[..., :1].expand_as(fresh), noise)

    report = vt.check_environment(Chorus(4), **QUICK)
    assert any("hear one sequence" in finding.evidence for finding in report.errors), str(report)


def small(env: Any, **settings: Any) -> vt.Run:
    return vt.train(
        env,
        env.policy(hidden=(4,)),
        vt.estimators.reinforce(),
        batch=4,
        updates=1,
        **{"progress": False} | settings,
    )


def lanes_of(kind: type[gymnasium.Env]) -> vt.Gymnasium:
    return vt.Gymnasium(SyncVectorEnv([kind] * 2))


def test_training_says_what_it_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    small(lanes_of(sick.OwnReseeded), progress=True)
    said = capsys.readouterr().err
    assert "reseeding: 7 episodes that followed one another" in said
    assert "vantage.check_environment looks at more" in said
    small(lanes_of(sick.Healthy), progress=True)
    assert "check_environment" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "env",
    [
        vt.Gymnasium("CartPole-v1", 9),
        vt.Gymnasium("Acrobot-v1", 2, wrappers=["gymnasium.wrappers:FlattenObservation"]),
        vt.Gymnasium("Acrobot-v1", 2, vectorization_mode="sync", max_episode_steps=9),
        vt.Gymnasium("sick:Healthy", 2),
        vt.Gymnasium(sick.Healthy, 2),
        vt.Gymnasium(sick.Healthy(), 2),
        vt.Normalized(vt.Gymnasium(sick.Healthy, 2)),
    ],
    ids=str,
)
def test_lanes_are_made_again_as_they_were(env: Any) -> None:
    again = lane_of(env)
    assert again is not None
    one = again()
    assert one.observation_space == env.observations
    assert again() is not one
    assert checking.quick_check(env) == []
    limit = env.settings.get("max_episode_steps")
    assert limit is None or one.spec.max_episode_steps == limit


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (sick.NaNAtEnd, "only in observations that end an episode"),
        (sick.IdOut, "ids that do not exist"),
        (sick.WrongShape, "has shape"),
        (sick.RewardNone, "not one number"),
        (sick.RewardTooLarge, "1e\\+39"),
    ],
)
def test_training_refuses_what_cannot_work(
    kind: type[gymnasium.Env], words: str, tmp_path: Path
) -> None:
    with pytest.raises(vt.InputError, match=words):
        small(lanes_of(kind), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [sick.Healthy, sick.GlobalNumpy])
def test_the_quick_check_changes_no_bit_of_a_run(
    kind: type[gymnasium.Env], monkeypatch: pytest.MonkeyPatch
) -> None:
    def returns() -> list[Any]:
        np.random.seed(0)  # noqa: NPY002
        history = small(lanes_of(kind)).history
        return [row["return"] for row in history]

    with_check = returns()
    monkeypatch.setattr("vantage.training.loop.before_training", lambda env: [])
    assert with_check == returns()


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    written = tmp_path / "report.json"
    sizes = ("--steps", "60", "--json-file", str(written))
    assert vantage(monkeypatch, "check", "CartPole-v1", *sizes) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    assert '"ok": true' in written.read_text()
    gymnasium.register("Sick-v0", sick.NaNAtEnd)
    assert vantage(monkeypatch, "check", "Sick-v0", "--steps", "60") == 1
    printed = capsys.readouterr().out
    assert "finite" in printed
    assert "-> end the episode" in printed
    assert vantage(monkeypatch, "check", "Sick-v7") == 2
