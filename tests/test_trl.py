"""What meets TRL's own trainers. `make peers` runs these in an environment that holds TRL."""

import inspect
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("trl", reason="TRL is not among the dependencies: run `make peers`")
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks/peers"))

import datasets
import draws_trl as small
import transformers
import trl

import vantage as vt
from vantage import language as vl
from vantage.commands.main import main
from vantage.conformance.losses.door import through_the_door
from vantage.conformance.losses.expected import Evaluation, expected
from vantage.conformance.losses.problems import LEVELS, ON_POLICY
from vantage.conformance.losses.trl import trl_loss
from vantage.language.model.trl_names import NAMES
from vantage.monitor import TrainerCallback
from vantage.peers.trl_audit import audit
from vantage.peers.trl_rows import estimator

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SIZE = 4


def arguments(steps: int, passes: int, rows: int, **settings: Any) -> dict[str, Any]:
    common: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": steps,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": passes,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }
    return common | settings


def saved() -> tuple[Any, Any]:
    """The model lies in a folder that it names, where a trainer finds the reference of a KL."""
    model, tokens = small.model_and_tokenizer()
    model.config._name_or_path = tempfile.mkdtemp()
    model.save_pretrained(model.config._name_or_path)
    return model, tokens


def grpo(steps: int, passes: int = 2, rows: int = 4 * SIZE, **settings: Any) -> Any:
    """On many rows of two prompts, so that the prompts of a step are all but independent."""
    model, tokens = saved() if settings.get("beta") else small.model_and_tokenizer()
    own = {"num_generations": SIZE, "max_completion_length": small.LENGTH}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return trl.GRPOTrainer(
            model=model,
            processing_class=tokens,
            reward_funcs=small.reward,
            args=trl.GRPOConfig(**arguments(steps, passes, rows, **own, **settings)),
            train_dataset=datasets.Dataset.from_list(
                [{"prompt": prompt} for prompt in small.PROMPTS] * 1000
            ),
        )


def watched(trainer: Any, window: int = 400) -> TrainerCallback:
    callback = TrainerCallback(trainer, window=window)
    trainer.add_callback(callback)
    trainer.train()
    return callback


def test_an_unmodified_trainer_and_a_callback_measure_the_exact_signal():
    """At rest, clipped to a hundredth: N and tr Cov of a step, by enumeration, within 4 errors.

    The 95 % interval of the SNR holds it, and the noise scale is counted in prompts.
    """
    settings = {"loss_type": "dr_grpo", "scale_rewards": "none", "max_grad_norm": 1e-3}
    trainer = grpo(150, passes=4, learning_rate=0.0, **settings)
    callback = watched(trainer)
    policy = vl.Policy(
        trainer.model, trainer.processing_class, max_completion_length=small.LENGTH
    ).double()
    rows = [{"prompt": prompt} for prompt in small.PROMPTS]
    task = vl.Task(rows, small.reward, num_generations=SIZE, held_out=0.0)
    rule = vt.estimators.dr_grpo(length=float(small.LENGTH))
    one = vl.expectation(task, policy, rule, SIZE, prompts=1)  # a batch of one prompt drawn
    norm, trace, prompts = float(one.mean @ one.mean), float(one.trace), 16
    found = np.array(callback.monitor.latest)[:, :2]
    error = found.std(0) / len(found) ** 0.5
    assert len(found) == 150
    assert (np.abs(found.mean(0) - [norm, trace / prompts]) < 4 * error).all()
    assert (error < 0.15 * found.mean(0)).all()
    row = callback.rows()
    assert row["gradient/snr_low"] < norm / trace * prompts < row["gradient/snr_high"]
    assert row["gradient/noise_scale_low"] < trace / norm < row["gradient/noise_scale_high"]
    assert row["gradient/batch_for_snr_1"] == pytest.approx(SIZE * row["gradient/noise_scale"])


def test_what_is_trained_is_what_would_be_trained_without_it():
    """The same completions and the same steps, to rounding, and the trainer as it was."""
    after = []
    for watch in (False, True):
        trainer = grpo(4, passes=4, rows=SIZE, learning_rate=0.05)
        if watch:
            watched(trainer)
        else:
            trainer.train()
        assert "_prepare_inputs" not in vars(trainer)
        after.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert float((after[0] - after[1]).abs().max()) < 1e-5
    assert not torch.equal(
        after[0], torch.cat([p.flatten() for p in small.model_and_tokenizer()[0].parameters()])
    )


class Reporter:
    """A callback that reports, added first."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_, **__: None

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.seen.append(dict(logs))


def test_the_trainers_own_logs_and_reporters_hold_it():
    trainer = grpo(20, learning_rate=0.0, logging_strategy="steps", logging_steps=10)
    reporter = Reporter()
    trainer.add_callback(reporter)
    watched(trainer)
    at_rest, told = trainer.state.log_history[0], trainer.state.log_history[1]
    assert "gradient/snr_low" not in at_rest  # ten steps are too few for an interval
    assert {"reward", "gradient/snr", "gradient/noise_scale", "gradient/snr_low"} <= told.keys()
    assert reporter.seen[1]["gradient/snr"] == told["gradient/snr"]


def test_completions_used_again_are_left_out():
    callback = watched(grpo(6, learning_rate=0.0, num_iterations=2))
    assert (len(callback.monitor.latest), callback.monitor.skipped) == (3, 3)


def test_several_passes_make_a_piece_where_a_group_is_longer_than_a_pass():
    callback = watched(grpo(3, passes=8, rows=SIZE // 2, learning_rate=0.0))
    assert callback.split.passes_per_piece == 2
    assert (len(callback.monitor.latest), callback.monitor.skipped) == (3, 0)


@pytest.mark.parametrize(
    ("passes", "rows", "message"),
    [(1, 4 * SIZE, "a step is one piece"), (3, 6, "does not hold whole groups of 4")],
)
def test_where_nothing_can_be_told_it_is_said_and_training_goes_on(passes, rows, message):
    settings = {"generation_batch_size": 36} if rows == 6 else {}
    trainer = grpo(2, passes=passes, rows=rows, learning_rate=0.0, **settings)
    with pytest.warns(UserWarning, match=message):
        callback = watched(trainer)
    assert callback.rows() == {}
    assert trainer.state.global_step == 2


@pytest.mark.parametrize("kind", ["SFT", "DPO", "RLOO"])
def test_other_trainers(kind):
    model, tokens = small.model_and_tokenizer()
    settings = arguments(20, 2, 8, learning_rate=0.0)
    rows = {
        "SFT": [{"prompt": "a", "completion": "ab"}, {"prompt": "b", "completion": "b"}],
        "DPO": [
            {"prompt": "a", "chosen": "aa", "rejected": "b"},
            {"prompt": "b", "chosen": "b", "rejected": "ab"},
        ],
        "RLOO": [{"prompt": "a"}, {"prompt": "b"}],
    }[kind]
    more = {
        "SFT": {},
        "DPO": {"ref_model": small.model_and_tokenizer()[0]},
        "RLOO": {"reward_funcs": small.reward},
    }[kind]
    if kind == "RLOO":
        settings |= {"num_generations": SIZE, "max_completion_length": small.LENGTH, "beta": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = getattr(trl, f"{kind}Trainer")(
            model=model,
            processing_class=tokens,
            args=getattr(trl, f"{kind}Config")(**settings),
            train_dataset=datasets.Dataset.from_list(rows * 200),
            **more,
        )
        callback = watched(trainer)
    assert len(callback.monitor.latest) == 20
    assert callback.split.units == (4 if kind == "RLOO" else 16)
    assert "gradient/snr" in callback.rows()


SEQUENCE = {"importance_sampling_level": "sequence"}


def rloo(**settings: Any) -> Any:
    model, tokens = saved() if settings.get("beta") else small.model_and_tokenizer()
    own = {"num_generations": SIZE, "max_completion_length": small.LENGTH, "beta": 0.0} | settings
    return trl.RLOOTrainer(
        model=model,
        processing_class=tokens,
        reward_funcs=small.reward,
        args=trl.RLOOConfig(**arguments(1, 1, 2 * SIZE, **own)),
        train_dataset=datasets.Dataset.from_list([{"prompt": p} for p in small.PROMPTS]),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss_type": "grpo", "epsilon": 0.1, "epsilon_high": 0.3},
        {"loss_type": "bnpo", "scale_rewards": "none"},
        {"loss_type": "dr_grpo"},
        {"loss_type": "dr_grpo", "scale_rewards": "none"},
        {"loss_type": "cispo", "epsilon_high": 1.1},
        {"loss_type": "cispo", "epsilon_high": 0.2},
        {"loss_type": "luspo", **SEQUENCE},
        {"loss_type": "sapo"},
        {"loss_type": "vespo"},
        {"loss_type": "grpo", "delta": 1.5},
        {"loss_type": "grpo", "off_policy_mask_threshold": 0.01},
        {"loss_type": "grpo", **SEQUENCE},
        {"loss_type": "dapo", **SEQUENCE},
        None,
    ],
    ids=str,
)
def test_the_row_of_a_configuration_is_what_its_own_code_does(settings):
    """Every step of every problem of the battery, on policy and one step off it, enumerated."""
    trainer = rloo() if settings is None else grpo(1, passes=1, **settings)
    theirs = vt.verify(trainer, num_generations=(2,)).cells
    ours = vt.verify(estimator(trainer), num_generations=(2,)).cells
    assert [cell.problem for cell in theirs] == [cell.problem for cell in ours]
    compared = 0
    for here, there in zip(ours, theirs, strict=True):
        for name, off in (
            ("angle", {"abs": 1e-3}),
            ("factor", {"rel": 1e-5}),
            ("snr", {"rel": 1e-4}),
        ):
            now, then = getattr(here, name), getattr(there, name)
            # nan where a gradient is 0, None where it is no multiple of the other
            expected = then if then is None else pytest.approx(then, nan_ok=True, **off)
            assert now == expected, (here.problem, name)
            compared += then is not None and then == then
    assert compared > 10


@pytest.mark.parametrize("behaviour", [0.0, 0.2], ids=["on policy", "a step off it"])
@pytest.mark.parametrize(
    "settings",
    [
        {"beta": 0.3, "use_bias_correction_kl": False},
        {"beta": 0.3, "use_bias_correction_kl": True},
        {"beta": 0.3, "use_bias_correction_kl": True, "loss_type": "grpo"},
        {"beta": 0.3, "use_bias_correction_kl": True, "loss_type": "dr_grpo"},
        {"beta": 0.3, "use_bias_correction_kl": False, "loss_type": "grpo", **SEQUENCE},
        None,
    ],
    ids=str,
)
def test_the_kl_of_a_configuration_is_what_its_own_code_pulls(settings, behaviour):
    """The mean step with a reference apart from the policy, less that with the policy as its own.

    A KL that is weighed by the ratio pulls elsewhere than one that is not, and its row with it.
    """
    problem = replace(LEVELS, behaviour=behaviour)
    policy = problem.policy.logits.detach()
    reference = policy + torch.tensor([0.7, -0.4], dtype=policy.dtype)
    trainer = rloo(beta=0.3) if settings is None else grpo(1, passes=1, **settings)
    probe = Evaluation(problem).rows(torch.arange(4), torch.tensor([0, 0, 1, 1]), policy)

    def pulled(loss):
        at = [expected(loss, problem, 2, reference=to).mean for to in (reference, policy)]
        return at[0] - at[1]

    theirs = pulled(trl_loss(trainer))
    own = pulled(through_the_door(estimator(trainer), probe))
    assert theirs.norm() > 0.02
    torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-6)
    if settings is not None and "importance_sampling_level" not in settings:
        trainer.args.use_bias_correction_kl ^= True
        other = (pulled(trl_loss(trainer)) - theirs).norm()
        assert other > 0.05 * theirs.norm()


@pytest.mark.parametrize("fraction", [0.3, 0.6, 1.0])
def test_the_tokens_of_highest_entropy_are_those_of_its_own_code(fraction):
    """Slopes of one batch with a policy that is sure of some states and not of others."""
    problem = next(p for p in ON_POLICY if p.name == "two decisions")
    z = 0.3 * torch.randn(problem.policy.logits.shape, generator=torch.Generator().manual_seed(3))
    z = z.double().requires_grad_()
    evaluation = Evaluation(problem)
    first = (evaluation.every.group == 0).nonzero().flatten()
    members = first[torch.arange(8) % len(first)]
    trainer = grpo(1, passes=1, loss_type="dapo", top_entropy_quantile=fraction)
    row = estimator(trainer)

    def slope(of):
        rows = evaluation.rows(members, torch.arange(8) // 4, z)
        loss = of if not isinstance(of, vt.Estimator) else through_the_door(of, rows)
        return torch.autograd.grad(loss.call(rows), z)[0]

    ours = slope(row)
    torch.testing.assert_close(ours, slope(trl_loss(trainer)).to(ours), rtol=1e-4, atol=1e-6)
    left_out = not torch.allclose(slope(row.replace(selection=vt.selections.none)), ours)
    assert left_out == (fraction < 1)


def test_reward_functions_scaled_apart_are_gdpos():
    """Advantages of TRL's own code, of two functions with weights, one silent of a completion."""
    trainer = grpo(1, passes=1, multi_objective_aggregation="normalize_then_sum")
    rewards = torch.rand(2 * SIZE, 2, generator=torch.Generator().manual_seed(0)).double()
    rewards[1, 1] = torch.nan
    weights = torch.tensor([1.0, 0.25]).double()
    vars(trainer).update(
        reward_funcs=[small.reward] * 2, reward_func_names=["a", "b"], reward_weights=weights,
        num_generations=SIZE, _calculate_rewards=lambda *_: rewards,
    )  # fmt: skip
    inputs = [{"prompt": prompt} for prompt in small.PROMPTS[:2] for _ in range(SIZE)]
    theirs = trainer._generate_and_score_completions(inputs)["advantages"].double()
    row = estimator(trainer)
    assert row.name == "dapo, normalize_then_sum"
    ones = torch.ones(2 * SIZE, 1).double()
    batch = vt.Batch(
        observation=0 * ones, action=0 * ones, reward=0 * ones, discount=0 * ones,
        boundary=ones.bool(), bootstrap=0 * ones, log_prob=-ones, mask=ones.bool(),
        episode=torch.arange(2 * SIZE)[:, None], group=torch.arange(2).repeat_interleave(SIZE),
        weight=ones[:, 0] / (2 * SIZE),
    )  # fmt: skip
    ours = row.advantage(batch, reward_parts=rewards[:, None], reward_weights=weights)
    torch.testing.assert_close(ours[:, 0], theirs.flatten(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": "sapo", "off_policy_mask_threshold": 0.1}, "loss_type='sapo' with off"),
        ({"delta": 1.1}, "delta=1.1 below 1 \\+ epsilon_high"),
        ({"scale_rewards": "batch"}, "scale_rewards='batch'"),
        (
            {"top_entropy_quantile": 0.5, "gradient_accumulation_steps": 2},
            "top_entropy_quantile=0.5 ranks the tokens of each of 2 passes",
        ),
        (
            {"beta": 0.3, "use_bias_correction_kl": True, **SEQUENCE},
            "use_bias_correction_kl=True weighs the KL by the whole completion's ratio",
        ),
        ({"loss_type": "bnpo", "gradient_accumulation_steps": 2}, "divides each of 2 passes"),
        ({"steps_per_generation": 2}, "divides by the tokens of 2 passes"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions=True"),
        (None, "normalize_advantages=True"),
    ],
    ids=str,
)
def test_a_configuration_without_a_row_is_refused_by_name(settings, message):
    if settings is None:
        trainer = rloo(normalize_advantages=True)
    else:
        passes = settings.pop("gradient_accumulation_steps", 1)
        trainer = grpo(1, passes=passes, **settings)
    with pytest.raises(vt.InputError, match=message):
        estimator(trainer)


def test_what_a_trainer_climbs_beside_its_row():
    """The default turns away from ∇J, Dr. GRPO without scaling does not; rows say the same."""
    tilted = audit(small.make_trainer(), draws=64, progress=False).rows
    straight = audit(
        small.make_trainer(loss_type="dr_grpo", scale_rewards="none"), draws=64, progress=False
    ).rows
    assert [row.estimator for row in tilted] == [
        "TRL's GRPOTrainer dapo",
        "row dapo, scale_rewards=group",
    ]
    for row in tilted:
        assert row.cosine.low < 0.614 < row.cosine.high < 0.8
    for row in straight:
        assert row.cosine.low > 0.8
        assert row.cosine.high > 0.99
    assert tilted[0].variance.low < tilted[1].variance.value < tilted[0].variance.high


def test_without_a_row_or_an_exact_gradient_the_report_says_so():
    trainer = small.make_trainer(scale_rewards="batch")
    trainer.args.max_completion_length = 12  # too many completions to list
    report = audit(trainer, draws=16, progress=False)
    assert [row.estimator for row in report.rows] == ["TRL's GRPOTrainer dapo", "rloo"]
    assert any("scale_rewards='batch'" in note for note in report.notes)
    assert any("sampled by rloo" in note for note in report.notes)


def test_the_command(tmp_path, capsys, monkeypatch):
    peers = Path(small.__file__).parent
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(peers)!r})\nfrom draws_trl import *\n")
    out = tmp_path / "report.json"
    spec = f"{script}:make_trainer"
    monkeypatch.setattr(
        sys, "argv", ["vantage", "audit", "trl", spec, "--draws", "16", "--json", str(out)]
    )
    main()
    assert "row dapo, scale_rewards=group" in out.read_text("utf-8")
    monkeypatch.setattr(sys, "argv", ["vantage", "audit", "trl", f"{script}:reward"])
    with pytest.raises(SystemExit):
        main()
    assert "reward" in capsys.readouterr().err


def test_a_reward_model_scores_as_the_trainer_has_it_score(tmp_path: Path) -> None:
    """Texts of several lengths in one batch, the last of them ended by the padding token."""
    model, tokens = small.model_and_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_labels=1, pad_token_id=tokens.pad_token_id,
    )  # fmt: skip
    judge = transformers.LlamaForSequenceClassification(config)
    judge.save_pretrained(tmp_path / "judge")
    tokens.save_pretrained(tmp_path / "judge")
    rows = [{"prompt": prompt} for prompt in small.PROMPTS]
    trainer = trl.GRPOTrainer(
        model=model,
        processing_class=tokens,
        reward_funcs=str(tmp_path / "judge"),
        args=trl.GRPOConfig(**arguments(1, 1, SIZE), num_generations=SIZE),
        train_dataset=datasets.Dataset.from_list(rows),
    )
    said = [small.PROMPTS[0], small.PROMPTS[1] * 2, ""]
    asked = [small.PROMPTS[0]] * 3
    given = [{"prompt": prompt} for prompt in asked]
    expected = trainer._calculate_rewards(given, asked, said, [[]] * 3)[:, 0].tolist()
    own = vl.reward_model(tmp_path / "judge")(prompts=asked, completions=said)
    assert own == pytest.approx(expected, abs=1e-6)
    assert len({round(score, 6) for score in own}) > 1
    task = vl.Task.from_trl(trainer)
    assert task.score([0, 0, 0], said).total.tolist() == pytest.approx(expected, abs=1e-6)


def test_what_rewards_log_is_what_the_trainer_is_given() -> None:
    def counts(completions, log_metric, log_extra, trainer_state, **columns):
        log_extra("backwards", [text[::-1] for text in completions])
        log_metric("step", trainer_state.global_step)
        for text in completions:
            log_metric("length", len(text))
        return [0.0 for _ in completions]

    async def later(completions, log_metric, **kwargs):
        log_metric("late", len(completions))
        return [None for _ in completions]

    model, tokens = small.model_and_tokenizer()
    trainer = trl.GRPOTrainer(
        model=model,
        processing_class=tokens,
        reward_funcs=[counts, later],
        args=trl.GRPOConfig(**arguments(1, 1, SIZE), num_generations=SIZE),
        train_dataset=datasets.Dataset.from_list([{"prompt": p} for p in small.PROMPTS]),
    )
    asked, said = [small.PROMPTS[0]] * 3, ["a", "bb", ""]
    trainer._calculate_rewards([{"prompt": p} for p in asked], asked, said, [[]] * 3)
    own = vl.Task.from_trl(trainer).score([0, 0, 0], said, [[], [], []])
    assert dict(own.metrics) == dict(trainer._pending_metrics)
    assert dict(own.extra) == dict(trainer._pending_extra_logs)
    assert set(own.metrics) == {"length", "late", "step"}


def test_settings_of_grpo_are_taken_named_or_known_to_have_no_counterpart() -> None:
    """What a script may set in GRPOConfig is refused by name, unless it bears ours."""
    without = (
        "cache_implementation", "cast_lm_head_to_fp32", "chat_template_kwargs", "disable_dropout",
        "ds3_gather_for_generation",
        "generation_kwargs", "log_", "num_completions_to_print",
        "num_generations_eval", "off_policy_mask_threshold", "pad_to_multiple_of",
        "ref_model_", "remove_unused_columns", "repetition_penalty", "router_aux_loss_coef",
        "sapo_",
        "shuffle_dataset", "sync_ref_model", "trust_remote_code",
        "transformers_continuous_batching_config", "use_adaptive_entropy", "entropy_",
        "use_bias_correction_kl", "use_transformers_paged", "vespo_", "vllm_",
    )  # fmt: skip
    ours = {*inspect.signature(vl.train).parameters, *NAMES}
    own = [name for name in vars(trl.GRPOConfig)["__annotations__"] if not name.startswith("_")]
    assert {"num_generations", "beta", "learning_rate"} <= set(own)
    assert [n for n in own if n not in ours and not n.startswith(without)] == []
