"""dm_control through Shimmy, by its ids; skipped where it is not installed."""

import importlib.util

import gymnasium
import pytest

import vantage as vt

NAME = "dm_control/cartpole-balance-v0"
INSTALLED = importlib.util.find_spec("shimmy") and importlib.util.find_spec("dm_control")


@pytest.mark.skipif(bool(INSTALLED), reason="it is installed")
def test_what_is_missing_is_named() -> None:
    with pytest.raises(vt.InputError, match=r"vantage-rl\[dm-control\]"):
        vt.Gymnasium(NAME, 2)


@pytest.mark.skipif(not INSTALLED, reason="shimmy and dm_control are not installed")
@pytest.mark.filterwarnings("ignore")
def test_dm_control_keeps_the_contract() -> None:
    env = vt.Gymnasium(NAME, 2, max_episode_steps=25)
    report = vt.contract(env, lambda: gymnasium.make(NAME, max_episode_steps=25), steps=60)
    assert report.ok, str(report)
    assert vt.check_environment(NAME, steps=1100, measure=False).ok
