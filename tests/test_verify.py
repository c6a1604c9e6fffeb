"""Claims of `verify`: losses climb what is known of them, and every deliberate fault shows."""

import doctest
import importlib.util
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

import vantage as vt
from vantage.commands.main import main
from vantage.conformance.losses.door import Loss
from vantage.conformance.losses.expected import every_batch, expected
from vantage.conformance.losses.problems import LENGTHS, OFF_POLICY, ON_POLICY, SCALES
from vantage.conformance.losses.trl import trl_loss

FEW = (2, 3)
ROOT = Path(__file__).parents[1]


def script(path: str) -> Any:
    """A script of the repository, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


losses_page = script("docs/losses_page.py")
peer_losses = script("benchmarks/peer_losses.py")


def by_group(reward: torch.Tensor, group: torch.Tensor, rule: Any) -> torch.Tensor:
    out = torch.zeros_like(reward)
    for g in group.unique():
        out[group == g] = rule(reward[group == g])
    return out


def leave_one_out(reward: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    return by_group(reward, group, lambda r: r - (r.sum() - r) / (len(r) - 1))


def surrogate(log_prob: torch.Tensor, advantage: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return -(advantage[:, None] * log_prob * mask).sum() / len(advantage)


def reinforce(log_prob, old_log_prob, reward, mask, group):
    return surrogate(log_prob, reward, mask)


def rloo(log_prob, old_log_prob, reward, mask, group):
    return surrogate(log_prob, leave_one_out(reward, group), mask)


def with_own_sample(log_prob, old_log_prob, reward, mask, group):
    return surrogate(log_prob, by_group(reward, group, lambda r: r - r.mean()), mask)


def over_all_tokens(log_prob, old_log_prob, reward, mask, group):
    advantage = leave_one_out(reward, group)
    return -(advantage[:, None] * log_prob * mask).sum() / mask.sum()


def over_each_length(log_prob, old_log_prob, reward, mask, group):
    advantage = leave_one_out(reward, group)
    return -((advantage[:, None] * log_prob * mask).sum(1) / mask.sum(1)).mean()


def over_the_grid(log_prob, old_log_prob, reward, mask, group):
    advantage = leave_one_out(reward, group)
    return -(advantage[:, None] * log_prob * mask).mean()


def std_of_group(correction: int):
    def loss(log_prob, old_log_prob, reward, mask, group):
        advantage = by_group(
            reward, group, lambda r: (r - r.mean()) / (r.std(correction=correction) + 1e-6)
        )
        return surrogate(log_prob, advantage, mask)

    return loss


def mask_off_by_one(log_prob, old_log_prob, reward, mask, group):
    return surrogate(log_prob, leave_one_out(reward, group), mask.roll(1, 1))


def mask_forgotten(log_prob, old_log_prob, reward, mask, group):
    return surrogate(log_prob, leave_one_out(reward, group), torch.ones_like(mask))


def wrong_sign(log_prob, old_log_prob, reward, mask, group):
    return -rloo(log_prob, old_log_prob, reward, mask, group)


def detached(log_prob, old_log_prob, reward, mask, group):
    return rloo(log_prob.detach(), old_log_prob, reward, mask, group)


def neighbours(log_prob, old_log_prob, reward, mask, group):
    size = int((group == group[0]).sum())
    groups = reward.view(-1, size)
    advantage = (groups - (groups.sum(1, keepdim=True) - groups) / (size - 1)).flatten()
    return surrogate(log_prob, advantage, mask)


def first_is_the_baseline(log_prob, old_log_prob, reward, mask, group):
    """The first completion of a group is the baseline of the others: it never moves itself."""
    first = torch.cat([torch.tensor([True]), group[1:] != group[:-1]])
    level = reward[first][group - group[0]] if group[0] == group.min() else reward
    return surrogate(log_prob, reward - level, mask)


@pytest.mark.parametrize(
    ("loss", "verdict", "formula"),
    [
        (reinforce, "climbs", ""),
        (rloo, "climbs", ""),
        (neighbours, "climbs", ""),
        (with_own_sample, "factor", "(K − 1)/K"),
        (over_the_grid, "factor", "1/T"),
        (over_all_tokens, "tilted", ""),
        (over_each_length, "tilted", ""),
        (std_of_group(0), "tilted", ""),
        (mask_off_by_one, "tilted", ""),
        (mask_forgotten, "tilted", ""),
        (wrong_sign, "downhill", ""),
        (detached, "nothing", ""),
    ],
)  # fmt: skip
def test_losses_get_the_verdict_that_is_known_of_them(loss, verdict, formula):
    found = vt.verify(loss, num_generations=(2,))
    assert found.verdict == verdict, str(found)
    if verdict == "factor":
        assert found.factor.formula.endswith(formula)
    assert (found.counterexample is None) == (verdict == "climbs")
    assert found.unbiased == (verdict == "climbs")


def test_own_sample_in_the_mean_is_a_factor_of_the_group_size_alone():
    found = vt.verify(with_own_sample)
    assert (found.factor.low, found.factor.high) == pytest.approx((1 / 2, 3 / 4))
    assert found.factor.depends_on == ("the number of completions per prompt",)
    assert found.angle < 1e-6
    assert "(K − 1)/K" in found.sentence


def test_a_mean_over_all_tokens_of_a_pass_depends_on_the_passes_and_the_lengths():
    found = vt.verify(over_all_tokens, num_generations=FEW)
    assert "passes" in found.faults[0]
    assert "the length of the completions" in found.factor.depends_on
    assert found.counterexample is not None
    assert "unequal lengths" in found.counterexample.problem
    assert vt.verify(rloo, num_generations=FEW).faults == (
        "a group of one: the step is not finite",
    )


def test_a_mean_over_the_grid_depends_on_padding():
    found = vt.verify(over_the_grid, num_generations=FEW)
    assert any(
        fault.startswith("padding: three masked steps more multiply") for fault in found.faults
    )
    assert "padding" in found.factor.depends_on


@pytest.mark.parametrize("loss", [mask_off_by_one, mask_forgotten])
def test_a_wrong_mask_weighs_padding(loss):
    found = vt.verify(loss, num_generations=FEW)
    assert found.counterexample is not None
    assert any("on padding" in line for line in found.counterexample.batches)
    if loss is mask_off_by_one:
        assert any(
            "step 1 of 'one decision' never gets a weight" in fault for fault in found.faults
        )


def test_the_std_of_a_group_of_one_is_not_a_number():
    bessel = vt.verify(std_of_group(1), num_generations=FEW)
    assert "a group of one: the step is not finite" in bessel.faults
    plain = vt.verify(std_of_group(0), num_generations=FEW)
    assert not [fault for fault in plain.faults if "group of one" in fault]
    assert "the scale of the rewards" in plain.factor.depends_on

    # with no epsilon, a group of equal rewards is 0/0 whatever its size
    def bare(log_prob, old_log_prob, reward, mask, group):
        advantage = by_group(reward, group, lambda r: (r - r.mean()) / r.std(correction=0))
        return surrogate(log_prob, advantage, mask)

    assert vt.verify(bare, num_generations=FEW).verdict == "not finite"


def kl_in_loss(sign: float, kind: str):
    def loss(log_prob, old_log_prob, reward, mask, group, ref_log_prob):
        log_ratio = log_prob - ref_log_prob
        terms = {
            "k1": log_ratio,
            "k2": log_ratio.square() / 2,
            "k3": (-log_ratio).exp() - 1 + log_ratio,
        }
        penalty = (terms[kind] * mask).sum() / len(reward)
        return rloo(log_prob, old_log_prob, reward, mask, group) + sign * 0.2 * penalty

    return loss


def kl_in_reward(log_prob, old_log_prob, reward, mask, group, ref_log_prob):
    penalty = ((log_prob - ref_log_prob).detach() * mask).sum(1)
    return rloo(log_prob, old_log_prob, reward - 0.2 * penalty, mask, group)


@pytest.mark.parametrize(
    ("loss", "aim", "beta"),
    [
        (kl_in_loss(1, "k2"), "exact", 0.2),
        (kl_in_reward, "exact", 0.2),
        (kl_in_loss(1, "k3"), "reverse", 0.2),
        (kl_in_loss(1, "k1"), "none", 0.0),
        (kl_in_loss(-1, "k2"), "wrong sign", None),
        (kl_in_loss(-1, "k3"), "wrong sign", None),
    ],
)
def test_a_kl_term_pulls_where_theory_says_and_a_wrong_sign_shows(loss, aim, beta):
    found = vt.verify(loss, num_generations=(2,))
    assert found.verdict == "climbs"  # where the reference is the policy itself
    assert found.kl is not None
    assert found.kl.aim == aim
    if beta is not None:
        assert found.kl.beta == pytest.approx(beta)
    assert any(fault.startswith("KL") for fault in found.faults) == (aim in ("none", "wrong sign"))


def test_a_missing_temperature_tilts_and_the_right_one_does_not():
    def right(logits, action, reward, mask, group, temperature):
        log_prob = (logits / temperature).log_softmax(-1).gather(-1, action[..., None]).squeeze(-1)
        return rloo(log_prob, None, reward, mask, group)

    def missing(logits, action, reward, mask, group, temperature):
        log_prob = logits.log_softmax(-1).gather(-1, action[..., None]).squeeze(-1)
        return rloo(log_prob, None, reward, mask, group)

    assert vt.verify(right, num_generations=FEW).verdict == "climbs"
    found = vt.verify(missing, num_generations=FEW)
    assert found.verdict == "tilted"
    assert max(cell.angle for cell in found.cells) < 1e-6  # at temperature 1 nothing is missing
    assert found.counterexample is not None
    assert "temperature" in found.counterexample.problem


def test_a_loss_that_takes_groups_for_neighbours_is_told_so():
    found = vt.verify(neighbours, num_generations=FEW)
    assert "order: rows of a group must be neighbours: `group` is not looked at" in found.faults


def test_a_loss_that_looks_at_the_order_is_averaged_over_orders():
    """The first completion is the others' baseline, with weight 0: unbiased but for (K − 1)/K."""
    found = vt.verify(first_is_the_baseline, num_generations=FEW)
    assert found.verdict == "factor"
    assert found.factor.formula == "(K − 1)/K"
    assert any("inside a group" in fault for fault in found.faults)


def test_the_pair_of_customary_functions_with_the_names_of_verl():
    def advantage(token_level_rewards, response_mask, index, epsilon=1e-6, norm=True):
        score = token_level_rewards.sum(-1)
        out = torch.zeros_like(score)
        for key in set(index.tolist()):
            rows = torch.from_numpy(index == key)
            out[rows] = score[rows] - score[rows].mean()
        out = out[:, None] * response_mask
        return out, out

    def policy_loss(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config=None):
        ratio = (log_prob - old_log_prob).exp()
        steps = -torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        if loss_agg_mode == "token-mean":
            return (steps * response_mask).sum() / response_mask.sum(), {}
        return (steps * response_mask).sum(-1).mean(), {}

    summed = vt.verify((advantage, partial(policy_loss, loss_agg_mode="seq-mean-token-sum")))
    assert summed.verdict == "factor"
    assert summed.factor.formula == "(K − 1)/K"
    by_token = vt.verify(
        (advantage, partial(policy_loss, loss_agg_mode="token-mean")), num_generations=FEW
    )
    assert by_token.verdict == "tilted"


def test_an_advantage_comes_in_the_form_that_the_loss_takes():
    def by_row(log_prob, old_log_prob, advantage, mask, group):
        return surrogate(log_prob, advantage, mask)

    def by_step(log_prob, old_log_prob, advantage, mask, group):
        return -(advantage * log_prob * mask).sum() / len(mask)

    def of_five(a, b, c, d, e):
        return surrogate(a, c, d)

    def of_numbers(log_prob, old_log_prob, advantages, mask, group):
        return -(advantages * log_prob * (1 - (1 - mask))).sum() / len(mask)

    for loss in (by_row, by_step, of_five, of_numbers):
        assert vt.verify(loss, num_generations=(2,)).verdict == "climbs", loss.__name__


WANTED = {"none": "climbs", "scale": "factor", "direction": "tilted"}


# of each kind: plain, of groups, scaled, clipped by step and by sequence, of another objective
SHORT = {"reinforce", "rloo", "dr_grpo", "grpo", "ppo", "dapo", "gspo", "tis", "vtrace", "maxrl",
         "pass_at_k", "weighted_reinforce"}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in SHORT else pytest.mark.long)
     for name in vt.estimators.TABLE],
)  # fmt: skip
def test_every_row_of_the_table_gets_the_verdict_that_its_columns_claim(name):
    estimator = vt.estimators.named(name)
    # the best of two of two is the same for both: nothing is left to learn
    found = vt.verify(estimator, num_generations=(3 if name == "pass_at_k" else 2,))
    assert estimator.bias is not None
    # rewards are never below 0 there: one factor is all that is left of two
    wanted = "factor" if name == "weighted_reinforce" else WANTED[estimator.bias]
    assert found.verdict == wanted, str(found)


def test_factors_are_those_of_theory():
    """GRPO's, [7] of the group estimators: E[√(p̂(1 − p̂))]/(p(1 − p)), one prompt."""
    grpo = vt.estimators.Estimator(
        baseline=vt.baselines.group_mean, scale=partial(vt.scales.group_std, epsilon=0.0)
    )
    cells = {(c.problem, c.num_generations): c for c in vt.verify(grpo).cells}
    for name, p in (("one decision", 0.5), ("a likely success", 0.75)):
        for K in (2, 3, 4):
            k = np.arange(K + 1)
            chance = scipy.stats.binom.pmf(k, K, p)
            c = (chance * np.sqrt(k / K * (1 - k / K))).sum() / (p * (1 - p))
            assert cells[name, K].factor == pytest.approx(c, rel=1e-9)


def test_the_exact_gradient_and_variance_of_a_problem_are_a_second_route_away():
    """RLOO's mean and trace on every problem, from the published formulas of one prompt."""
    loss = Loss("rloo", partial(_rloo_of_rows), frozenset())
    for problem in ON_POLICY:
        found = expected(loss, problem, 3)
        assert torch.allclose(found.mean, problem.gradient, atol=1e-12)
        assert found.trace == pytest.approx(found.rloo, abs=1e-12)
        exact = vt.exact.expectation(
            problem.process.mdp, problem.policy, vt.estimators.rloo(), group_size=3
        )
        assert torch.allclose(exact.mean, problem.gradient, atol=1e-12)
        if len(problem.prompts) == 1:
            assert found.trace == pytest.approx(float(exact.trace), abs=1e-12)


def _rloo_of_rows(rows):
    return rloo(rows.log_prob, None, rows.reward, rows.mask, rows.group)


def test_ordered_batches_have_the_probability_of_their_multisets():
    for problem in (LENGTHS, SCALES, OFF_POLICY[1]):
        for size in (1, 2, 3):
            multisets, tuples = every_batch(problem, size), every_batch(problem, size, ordered=True)
            assert float(multisets.probability.sum()) == pytest.approx(1, abs=1e-12)
            assert float(tuples.probability.sum()) == pytest.approx(1, abs=1e-12)
            assert len(tuples.members) > len(multisets.members) or size == 1


def test_the_counterexample_can_be_checked_by_hand():
    """Half of the groups of two are mixed; their weights ±1/4 move (1/8, −1/8) of (1/4, −1/4)."""
    found = vt.verify(with_own_sample).counterexample
    assert found is not None
    assert found.batches == (
        "probability 0.25: actions 1 reward 1 weight 0; actions 1 reward 1 weight 0",
        "probability 0.5: actions 1 reward 1 weight 0.25; actions 2 reward 0 weight -0.25",
        "probability 0.25: actions 2 reward 0 weight 0; actions 2 reward 0 weight 0",
    )
    assert found.step[0] == pytest.approx((1 / 8, -1 / 8))
    assert found.gradient[0] == pytest.approx((1 / 4, -1 / 4))


def test_the_angle_is_that_of_the_numbers_printed():
    """Unequal scale: each prompt's factor is 1/(its scale), so that (1, 10) becomes (1, 1)."""
    found = {c.problem: c for c in vt.verify(std_of_group(0), num_generations=(2,)).cells}
    angle = np.degrees(np.arccos(11 / np.sqrt(2 * 101)))
    assert found[SCALES.name].angle == pytest.approx(angle, abs=1e-3)


def test_variance_stands_beside_reinforce_and_rloo():
    cells = vt.verify(reinforce, num_generations=FEW).cells
    assert all(cell.snr == pytest.approx(cell.reinforce_snr) for cell in cells)
    cells = vt.verify(rloo, num_generations=FEW).cells
    assert all(
        cell.snr == pytest.approx(cell.rloo_snr) for cell in cells if np.isfinite(cell.rloo_snr)
    )


def test_off_policy_only_the_whole_ratio_is_exact():
    def whole(log_prob, old_log_prob, reward, mask, group):
        ratio = ((log_prob - old_log_prob) * mask).sum(1).exp()
        return -(ratio * reward).mean()

    def by_token(log_prob, old_log_prob, reward, mask, group):
        return -((log_prob - old_log_prob).exp() * reward[:, None] * mask).sum() / len(reward)

    assert max(cell.angle for cell in vt.verify(whole, num_generations=FEW).off_policy) < 1e-6
    stale = vt.verify(by_token, num_generations=FEW)
    assert stale.verdict == "climbs"
    assert max(cell.angle for cell in stale.off_policy) > 0.1


def test_bad_losses_are_refused_at_the_door():
    def unknown(log_prob, entropy_of_everything):
        return log_prob.sum()

    def not_scalar(log_prob, old_log_prob, reward, mask, group):
        return log_prob

    def fails(log_prob, old_log_prob, reward, mask, group):
        raise KeyError("values")

    cases: list[tuple[Any, str]] = [
        (unknown, "has an argument 'entropy_of_everything'"),
        (not_scalar, "returned of shape"),
        (fails, "KeyError: 'values'"),
        (3, "give a function"),
        ((rloo,), "give a function"),
    ]
    for loss, message in cases:
        with pytest.raises(vt.InputError, match=message):
            vt.verify(loss)
    with pytest.raises(vt.InputError, match="at least 1"):
        vt.verify(rloo, num_generations=())


def test_problems_that_a_loss_refuses_are_named():
    def pairs_only(log_prob, old_log_prob, reward, mask, group):
        if any(int((group == g).sum()) != 2 for g in group.unique()):
            raise ValueError("groups of two")
        return rloo(log_prob, old_log_prob, reward, mask, group)

    with pytest.raises(vt.InputError, match="groups of two"):
        vt.verify(pairs_only)  # the probe has groups of three


LOSS_FILE = """
import torch

def advantage(rewards, group):
    out = torch.zeros_like(rewards)
    for g in group.unique():
        out[group == g] = rewards[group == g] - rewards[group == g].mean()
    return out

def climbs(log_prob, old_log_prob, reward, mask, group):
    return -(reward[:, None] * log_prob * mask).sum() / len(reward)

def tilted(log_prob, old_log_prob, reward, mask, group):
    return -((reward[:, None] * log_prob * mask).sum(1) / mask.sum(1)).mean()

def plain(log_prob, advantages, mask):
    return -(advantages[:, None] * log_prob * mask).sum() / len(mask)
"""


def test_the_command_says_it_and_its_status_does_too(tmp_path: Path, monkeypatch, capsys):
    file = tmp_path / "my_loss.py"
    file.write_text(LOSS_FILE)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vantage", "verify", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return int(left.value.code or 0), printed.out, printed.err

    status, out, _ = run(f"{file}:climbs", "--num-generations", "2")
    assert status == 0
    assert "climbs ∇J" in out
    out_file = tmp_path / "out.json"
    status, out, _ = run(f"{file}:tilted", "--num-generations", "2", "--json", str(out_file))
    assert status == 1
    assert "tilted against ∇J" in out
    assert json.loads(out_file.read_text())["verdict"] == "tilted"
    status, _, error = run(f"{file}:tilt")
    assert status == 2
    assert "did you mean tilted?" in error
    status, out, _ = run(
        f"{file}:plain", "--advantage", f"{file}:advantage", "--num-generations", "2"
    )
    assert status == 0
    assert "(K − 1)/K" in out
    assert run("grpo", "--num-generations", "2")[0] == 1
    assert "runs its code" in run("--help")[1]


class Trainer:
    """What the adapter answers for, as TRL's trainers have it; the statistics are its own."""

    loss_type, beta, num_generations = "dr_grpo", 0.0, 8

    def __init__(self) -> None:
        self.model = torch.nn.Linear(1, 1)
        self.reward_weights = torch.ones(1)

    def _generate(self, prompts: list[Any]) -> Any:
        raise AssertionError("it generates nothing here")

    def _calculate_rewards(self, *_: Any) -> Any:
        raise AssertionError("nor calls reward functions")

    def _get_per_token_logps_and_entropies(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nor runs the model")

    def _generate_and_score_completions(self, inputs: list[Any]) -> dict[str, Any]:
        prompts, completions, *_ = self._generate([row["prompt"] for row in inputs])
        longest = max(map(len, completions))
        length = torch.tensor([len(row) for row in completions])
        reward = self._calculate_rewards(inputs, prompts, completions, completions)[:, 0]
        groups = reward.view(-1, self.num_generations)
        advantages = (groups - groups.mean(1, keepdim=True)).flatten()
        mask = (torch.arange(longest) < length[:, None]).long()
        return {"advantages": advantages, "completion_mask": mask}

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        assert model.training
        log_prob, _, _ = self._get_per_token_logps_and_entropies(model)
        assert log_prob.shape == inputs["completion_mask"].shape
        ratio = (log_prob - inputs["old_per_token_logps"]).exp()
        steps = -ratio * inputs["advantages"][:, None] * inputs["completion_mask"]
        return steps.sum() / len(steps)


def test_a_trainer_is_examined_by_its_own_code_and_left_as_it_was():
    trainer = Trainer()
    trainer.model.eval()
    before = dict(vars(trainer))
    found = vt.verify(trainer, num_generations=FEW)
    assert found.verdict == "factor"
    assert found.factor.formula == "(K − 1)/K"
    assert found.name == "Trainer dr_grpo"
    assert vars(trainer) == before
    assert not trainer.model.training
    assert trainer.num_generations == 8
    assert any("neighbours" in fault for fault in found.faults)


def test_a_trainer_without_the_methods_is_no_trainer():
    with pytest.raises(vt.InputError, match="give a GRPOTrainer"):
        trl_loss(object())


@pytest.mark.skipif(
    "VANTAGE_TRL_PYTHON" not in os.environ,
    reason="TRL is not among the dependencies: name its interpreter in VANTAGE_TRL_PYTHON",
)
def test_trl_installed_gives_what_is_committed(tmp_path: Path):
    out = tmp_path / "trl.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    worker = [os.environ["VANTAGE_TRL_PYTHON"], str(ROOT / "benchmarks/peers/losses_trl.py"), out]
    subprocess.run(worker, check=True, env=environment)
    now = {loss["name"]: loss for loss in json.loads(out.read_text())["losses"]}
    then = {loss["name"]: loss for loss in committed() if loss["framework"] == "TRL"}
    assert now.keys() == then.keys()
    for name, loss in then.items():
        assert now[name]["verdict"] == loss["verdict"]
        assert now[name]["angle"] == pytest.approx(loss["angle"], rel=1e-4, abs=1e-4)


def committed() -> list[dict[str, Any]]:
    return json.loads((ROOT / "benchmarks/results/losses.json").read_text("utf-8"))["losses"]


def test_the_page_is_made_of_the_committed_results():
    page = (ROOT / "docs/losses.md").read_text("utf-8")
    assert losses_page.filled(page) == page
    assert page.count("| tilted |") > 20


@pytest.mark.parametrize("name", ["rloo, summed", "Dr. GRPO", "gpg"])
def test_recipes_give_what_is_committed(name):
    recipe = next(r for r in peer_losses.VERL if r.name == name)
    found = vt.verify(peer_losses.loss_of(recipe))
    then = next(e for e in committed() if e["framework"] == "verl" and e["name"] == name)
    assert found.verdict == then["verdict"]
    assert found.angle == pytest.approx(then["angle"], rel=1e-4, abs=1e-4)
    assert found.factor.formula == then["factor"]["formula"]


def test_the_page_prints_what_it_says():
    failed, tried = doctest.testfile(str(ROOT / "docs" / "losses.md"), module_relative=False)
    assert failed == 0
    assert tried >= 4


def test_a_loss_that_changes_its_arguments_changes_nothing_for_the_next():
    def careless(log_prob, old_log_prob, token_level_rewards, mask, group):
        reward = token_level_rewards.sum(1)
        loss = surrogate(log_prob, reward, mask)
        token_level_rewards.zero_()
        old_log_prob.zero_()
        return loss

    for _ in range(2):
        assert vt.verify(careless, num_generations=(2,)).verdict == "climbs"


def test_groups_of_one_and_of_many_are_examined_too():
    alone = vt.verify(reinforce, num_generations=(1,))
    assert alone.verdict == "climbs"
    assert vt.verify(with_own_sample, num_generations=(1,)).verdict == "nothing"
    many = vt.verify(with_own_sample, num_generations=(5,))
    assert many.factor.low == pytest.approx(4 / 5)
    with pytest.raises(vt.InputError, match="in every order"):
        vt.verify(first_is_the_baseline, num_generations=(8,))


def test_a_function_without_arguments_makes_the_loss():
    assert vt.verify(lambda: rloo, num_generations=(2,)).verdict == "climbs"
    assert vt.verify(Trainer, num_generations=(2,)).verdict == "factor"


def test_advantages_of_rows_are_spread_over_steps_where_the_loss_wants_them():
    def of_rows(rewards, group):
        return leave_one_out(rewards, group)

    def by_step(log_prob, advantages, mask):
        return -(advantages * log_prob * mask).sum() / len(mask)

    assert vt.verify((of_rows, by_step), num_generations=(2,)).verdict == "climbs"


def test_the_kl_of_a_pair_is_examined_too():
    def policy_loss(log_prob, advantages, response_mask, ref_log_prob):
        log_ratio = (log_prob - ref_log_prob) * response_mask
        steps = -log_prob * advantages[:, None] * response_mask + 0.1 * log_ratio.square() / 2
        return steps.sum() / len(steps)

    found = vt.verify((leave_one_out_of, policy_loss), num_generations=(2,))
    assert found.kl is not None
    assert found.kl.aim == "exact"
    assert found.kl.beta == pytest.approx(0.1)


def leave_one_out_of(rewards, group):
    return leave_one_out(rewards, group)


BESSEL = partial(vt.scales.group_std, correction=1)  # TRL's standard deviation
TRLS = {
    "dapo (the default)": vt.estimators.dapo().replace(scale=BESSEL),
    "grpo": vt.estimators.grpo(correction=1),
    "cispo": vt.estimators.cispo().replace(scale=BESSEL),
    "dr_grpo, scale_rewards=none": vt.estimators.dr_grpo(length=4),
    "RLOO": vt.estimators.rloo(),
}


@pytest.mark.parametrize("name", TRLS)
def test_rows_of_the_table_are_the_losses_of_trl(name):
    """Mean and variance of TRL's own code, as committed, on every problem with groups of two."""
    then = next(e for e in committed() if e["framework"] == "TRL" and e["name"] == name)
    ours = vt.verify(TRLS[name], num_generations=(2,)).cells
    theirs = [cell for cell in then["cells"] if cell["num_generations"] == 2]
    assert [cell["problem"] for cell in theirs] == [cell.problem for cell in ours]
    for here, there in zip(ours, theirs, strict=True):
        assert here.angle == pytest.approx(there["angle"], abs=1e-3)
        if there["factor"] is not None:
            assert here.factor == pytest.approx(there["factor"], rel=1e-5)
            assert here.snr == pytest.approx(there["snr"], rel=1e-5)
