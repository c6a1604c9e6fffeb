"""Collection against a reference that steps one environment at a time."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from lanes import Broken, Marked, OneStep, Scripted, SumValue, one_at_a_time, scripted_lanes

import vantage as vt
from vantage.environments.fragments import Fragments
from vantage.environments.rollout import episodes, quotas
from vantage.gradients.passes import AutogradPasses

MODES = list(AutoresetMode)
LANES = 5


def environment_seed(seed: int) -> int:
    """The seed that a rollout gives to the environment; lane i gets this plus i."""
    return int(np.random.SeedSequence(seed).generate_state(2)[0]) >> 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [1, 5, 13])
def test_whole_episodes_equal_the_reference(mode: AutoresetMode, count: int) -> None:
    batch = episodes(scripted_lanes(LANES, mode), Marked(), count, seed=3, value=SumValue()).check()
    expected = []
    for lane, quota in enumerate(quotas(count, LANES).tolist()):
        steps = one_at_a_time(environment_seed(3) + lane, 200)
        expected += [[s for s in steps if s["episode"] == k] for k in range(quota)]
    assert batch.rows == batch.trajectories == count
    for row, episode in enumerate(expected):
        length = len(episode)
        assert batch.mask[row].tolist() == [t < length for t in range(batch.mask.shape[1])]
        for t, step in enumerate(episode):
            torch.testing.assert_close(batch.observation[row, t], step["observation"])
            assert batch.action[row, t] == step["action"]
            assert batch.log_prob[row, t] == step["log_prob"]
            assert batch.reward[row, t] == pytest.approx(step["reward"], rel=1e-6)
            assert batch.value is not None
            assert batch.value[row, t] == pytest.approx(step["value"], rel=1e-6)
            assert batch.discount[row, t] == pytest.approx(0.0 if step["terminated"] else 0.9)
            assert bool(batch.boundary[row, t]) == (t == length - 1)
            cut = step["ended"] and not step["terminated"]
            wanted = step["final_value"] if cut else 0.0
            assert batch.bootstrap[row, t] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_fragments_equal_the_reference(mode: AutoresetMode) -> None:
    fragments = Fragments(scripted_lanes(LANES, mode), AutogradPasses(Marked(), SumValue()))
    fragments.restart(seed=4)
    batches, ended = [], []
    for update, steps in enumerate((7, 1, 12, 9)):
        batch, finished = fragments.collect(steps, seed=update)
        batches.append(batch.check())
        ended += list(zip(finished.returns.tolist(), finished.lengths.tolist(), strict=True))
    told = 0
    for lane in range(LANES):
        reference = one_at_a_time(fragments.seed + lane, 40)
        position = 0
        for batch in batches:
            counted = batch.mask[lane].nonzero().flatten().tolist()
            for t in counted:
                step = reference[position]
                position += 1
                torch.testing.assert_close(batch.observation[lane, t], step["observation"])
                assert batch.reward[lane, t] == pytest.approx(step["reward"], rel=1e-6)
                assert batch.discount[lane, t] == pytest.approx(0.0 if step["terminated"] else 0.9)
                last = t == batch.mask.shape[1] - 1
                assert bool(batch.boundary[lane, t]) == (step["ended"] or last)
                cut = (step["ended"] or last) and not step["terminated"]
                wanted = step["final_value"] if cut else 0.0
                assert batch.bootstrap[lane, t] == pytest.approx(wanted, rel=1e-6)
            ids = [int(batch.episode[lane, t]) for t in counted]
            numbers = [reference[position - len(counted) + i]["episode"] for i in range(len(ids))]
            assert np.diff(ids).tolist() == np.diff(numbers).tolist()
        # whole episodes, told across fragments
        known = [s for s in reference[:position] if s["ended"]]
        whole = [[s for s in reference if s["episode"] == e["episode"]] for e in known]
        for episode in whole:
            total, length = sum(s["reward"] for s in episode), len(episode)
            assert any(r == pytest.approx(total, rel=1e-5) and n == length for r, n in ended)
        told += len(whole)
    assert told == len(ended)
    dummies = sum(int((~batch.mask).sum()) for batch in batches)
    assert (dummies > 0) == (mode is AutoresetMode.NEXT_STEP)


def test_dummy_steps_count_for_nothing() -> None:
    """With and without dummy steps, the same episodes give the same weights and gradient."""
    policy = vt.Gymnasium(SyncVectorEnv([Scripted]), discount=0.9).policy(hidden=(4,))
    found = []
    for mode in MODES:
        batch = episodes(scripted_lanes(LANES, mode), policy, 15, seed=0)
        found.append((batch.steps, batch.reward.sum(), batch.trajectories))
    # sampled actions differ between modes (dummy steps draw too), so compare what they share
    assert all(steps == found[0][0] for steps, _, _ in found)
    fragments = Fragments(scripted_lanes(LANES, AutoresetMode.NEXT_STEP), AutogradPasses(policy))
    fragments.restart(seed=0)
    batch, _ = fragments.collect(30, seed=0)
    spoiled = vt.Batch(
        **{
            **batch.tensors(),
            "reward": torch.where(batch.mask, batch.reward, 1e6),
            "observation": torch.where(batch.mask[..., None], batch.observation, 1e6),
        }
    )
    for row in (vt.estimators.reinforce(), vt.estimators.reward_to_go()):
        torch.testing.assert_close(
            vt.gradient(policy, batch, row), vt.gradient(policy, spoiled, row), rtol=0, atol=0
        )


def test_short_episodes_are_not_over_represented() -> None:
    """Lengths of collected episodes have the environment's mean, 3.5; first to finish have less.

    1,600 lengths uniform on 1..6 have a standard error of 0.043; the bound is 4 of them (an error
    rate below 1e-4).
    """
    env = scripted_lanes(64, AutoresetMode.SAME_STEP)
    batch = episodes(env, Marked(), 1600, seed=0)
    assert batch.steps / batch.trajectories == pytest.approx(3.5, abs=4 * 0.043)
    fragments = Fragments(env, AutogradPasses(Marked()))
    fragments.restart(seed=0)
    batch, _ = fragments.collect(1, seed=0)
    first_to_finish = batch.boundary & (batch.discount == 0)
    assert first_to_finish.any()  # episodes of length 1: all that a race would have taken so far


def test_native_cartpole_has_only_true_transitions() -> None:
    """Each counted step of the native vector CartPole is one step of the single environment."""
    env = vt.Gymnasium("CartPole-v1", lanes=8)
    batch = episodes(env, env.policy(), 24, seed=0).check()
    single = CartPoleEnv()
    single.reset(seed=0)
    for row in range(batch.rows):
        length = int(batch.mask[row].sum())
        for t in range(length):
            single.state = batch.observation[row, t].double().numpy()
            single.steps_beyond_terminated = None
            following, _, terminated, _, _ = single.step(int(batch.action[row, t]))
            assert terminated == (t == length - 1)
            if not terminated:
                np.testing.assert_allclose(batch.observation[row, t + 1], following, atol=1e-5)
        assert batch.reward[row].sum() == length
        assert batch.observation[row, 0].abs().max() <= 0.05


def test_truncation_is_not_termination() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=4, discount=0.9, max_episode_steps=5)
    batch = episodes(env, env.policy(), 4, seed=0, value=SumValue()).check()
    assert (batch.discount == 0.9).all()
    assert (batch.bootstrap[:, -1] != 0).all()
    assert batch.boundary[:, -1].all()
    without = episodes(env, env.policy(), 4, seed=0)
    assert (without.bootstrap == 0).all()


def test_same_seed_same_bits() -> None:
    env = vt.Gymnasium("CartPole-v1", lanes=4)
    policy = env.policy()
    first, again = (episodes(env, policy, 8, seed=5) for _ in range(2))
    other = episodes(env, policy, 8, seed=6)
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor, again.tensors()[name])
    assert not torch.equal(first.observation[:, 0], other.observation[:, 0])


def test_shared_starts_share_the_start_and_nothing_else() -> None:
    """Groups of lanes begin in one state; random numbers and actions are each lane's own."""
    env = vt.Gymnasium("CartPole-v1").sharing(12)
    batch = episodes(env, env.policy(hidden=(4,)), 12, seed=0, shared=4).check()
    assert batch.group.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    first = batch.observation[:, 0].view(3, 4, -1)
    assert (first == first[:, :1]).all()
    assert len({tuple(start.tolist()) for start in first[:, 0]}) == 3
    assert len({tuple(row.tolist()) for row in batch.action}) > 3
    lanes = SyncVectorEnv([Scripted for _ in range(4)])
    with pytest.raises(vt.InputError, match="given as a vector environment"):
        vt.Gymnasium(lanes).sharing(4)
    with pytest.raises(vt.InputError, match="every one of the 12 lanes gives one episode"):
        episodes(env, env.policy(hidden=(4,)), 8, seed=0, shared=4)

    class Chance(OneStep):
        """The reward is drawn: lanes of one start must not draw the same."""

    noisy = vt.Gymnasium(SyncVectorEnv([Chance for _ in range(4)]))
    drawn = episodes(noisy, noisy.policy(hidden=()), 4, seed=0, shared=4)
    assert len(set(drawn.reward[:, 0].tolist())) == 4


def test_asynchronous_lanes_are_the_synchronous_ones() -> None:
    batches = []
    for mode in ("sync", "async"):
        env = vt.Gymnasium("Acrobot-v1", lanes=2, vectorization_mode=mode, max_episode_steps=20)
        batches.append(episodes(env, env.policy(hidden=(8,)), 4, seed=0))
        env.close()
    assert torch.equal(batches[0].observation, batches[1].observation)


@pytest.mark.parametrize("fault", ["reward", "observation"])
def test_nan_names_step_and_lane(fault: str) -> None:
    def lane(i: int) -> Broken:
        return Broken(fault if i == 1 else "")

    env = vt.Gymnasium(SyncVectorEnv([lambda i=i: lane(i) for i in range(3)]))
    with pytest.raises(vt.InputError, match=rf"{fault} that is not finite at step 2 in lane 1"):
        episodes(env, env.policy(hidden=(4,)), 3, seed=0)


def test_box_actions_are_stored_raw_and_clipped_for_the_environment() -> None:
    env = vt.Gymnasium("Pendulum-v1", lanes=2, max_episode_steps=30)
    policy = env.policy(hidden=(8,))
    policy.log_std.data.fill_(2.0)  # σ = 7.4, far beyond the bounds ±2
    batch = episodes(env, policy, 2, seed=0)
    assert batch.action.abs().max() > 2
    torch.testing.assert_close(
        policy.log_prob(batch.observation, batch.action).detach(), batch.log_prob
    )


def test_discrete_observations_get_a_table() -> None:
    env = vt.Gymnasium("FrozenLake-v1", lanes=4)
    policy = env.policy()
    assert isinstance(policy, vt.SoftmaxTable)
    batch = episodes(env, policy, 8, seed=0, value=env.value()).check()
    assert batch.observation.dtype == torch.int64
    assert vt.gradient(policy, batch, vt.estimators.reinforce_baseline()).shape == (64,)


def test_bad_input_is_refused_with_a_remedy() -> None:
    with pytest.raises(
        vt.InputError, match=r"Unknown environment 'CartPol-v1'; did you mean .*CartPole-v1"
    ):
        vt.Gymnasium("CartPol-v1")
    with pytest.raises(vt.InputError, match="give at least one lane"):
        vt.Gymnasium("CartPole-v1", lanes=0)
    with pytest.raises(vt.InputError, match=r"must lie in \(0, 1\]"):
        vt.Gymnasium("CartPole-v1", discount=1.5)
    env = vt.Gymnasium("CartPole-v1", lanes=1)
    with pytest.raises(vt.InputError, match="collect at least one"):
        episodes(env, env.policy(), 0, seed=0)

    class Words(Scripted):
        action_space = gymnasium.spaces.Text(3)

    with pytest.raises(vt.InputError, match=r"action space Text.*supported are Discrete"):
        vt.Gymnasium(SyncVectorEnv([Words]))

    class Nested(Scripted):
        observation_space = gymnasium.spaces.Dict({"x": gymnasium.spaces.Text(3)})

    with pytest.raises(vt.InputError, match=r"observation space Text at \['x'\]"):
        vt.Gymnasium(SyncVectorEnv([Nested]))

    unknown = SyncVectorEnv([Scripted])
    unknown.metadata = {**unknown.metadata, "autoreset_mode": "Sometimes"}
    with pytest.raises(vt.InputError, match="autoreset_mode='Sometimes'"):
        vt.Gymnasium(unknown)
