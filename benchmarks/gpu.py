"""What runs on a GPU, and how fast: `python benchmarks/gpu.py --out results.json`.

Parts, each caught by itself so that one that fails leaves the others their numbers:

checks     control and language models on the device against the CPU
control    PPO on tensor CartPole, steps a second end to end
rejax      the same of rejax, compiled whole; not a default: --rejax names its interpreter
gymnasium  PPO on Gymnasium lanes with networks on the device, and copies of a step
monitor    what watching the signal adds to a step
language   a model of 0.5 billion parameters, random, in bfloat16: tokens a second of generation and
           of the gradient, peak memory, beside transformers' `generate` and a plain backward pass
"""

import json
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from gpu_control import guarded, gymnasium_lanes, synchronise, tensor_lanes
from gpu_control import monitor as watched
from gpu_control import rejax as peer

import vantage as vt

Measured = dict[str, Any]


@dataclass(frozen=True)
class Arguments:
    """What to measure.

    Attributes:
        out: where results are written, JSON.
        device: where to measure; "cpu" tries the program itself.
        parts: which of them.
        repeats: of every timing.
        lanes: of the control part.
        layers: of the language model; 24 is that of 0.5 billion parameters.
        completions: of a batch, 8 of each prompt.
        length: tokens of a completion.
        prompt: tokens of a prompt.
        rejax: an interpreter with rejax; this one if none is named.
    """

    out: Path = Path("gpu.json")
    device: str = "cuda"
    parts: tuple[str, ...] = ("checks", "control", "language", "gymnasium", "monitor")
    repeats: int = 3
    lanes: tuple[int, ...] = (4096, 65536)
    layers: int = 24
    completions: int = 64
    length: int = 256
    prompt: int = 512
    rejax: str | None = None


def main(arguments: Arguments) -> None:
    """Run the parts asked for and write what they found."""
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    results: Measured = {
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor(),
        "torch": torch.__version__,
        "vantage": vt.__version__,
        "parts": {},
    }
    for name in arguments.parts:
        started = time.perf_counter()
        try:
            found = PARTS[name](arguments, device)
        except Exception:
            found = {"error": traceback.format_exc()}
        results["parts"][name] = found | {"seconds": time.perf_counter() - started}
        print(json.dumps({name: results["parts"][name]}, indent=1), flush=True)
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


def timed(work: Callable[[], Any], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each repeat, after one that warms up."""
    work()
    seconds = []
    for _ in range(repeats):
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    return seconds


# ---- checks ------------------------------------------------------------------------------------


def checks(arguments: Arguments, device: torch.device) -> Measured:
    """Every check by name: "ok", or its error."""
    every: dict[str, Callable[[torch.device], None]] = {
        **{f"train {name}": _training(name) for name in ("CartPole", "Pendulum", "Acrobot")},
        "gradient equals the CPU's": _gradient,
        "whole episodes": _episodes,
        "a memory": _memory,
        "audit": _audit,
        "tabular": _tabular,
        "language: generate, score, train": _language,
    }
    found: Measured = {}
    for name, check in every.items():
        try:
            check(device)
            found[name] = "ok"
        except Exception:
            found[name] = traceback.format_exc()[-1500:]
    return found


def _training(name: str) -> Callable[[torch.device], None]:
    def check(device: torch.device) -> None:
        env = getattr(vt, name)(lanes=64, device=device)
        run = vt.train(
            env, vt.algorithms.ppo(fragment=16, minibatches=4, epochs=2), updates=3, progress=False
        )
        assert all(row["grad_norm"] > 0 for row in run.history)
        assert next(run.policy.parameters()).device.type == device.type

    return check


def _gradient(device: torch.device) -> None:
    """The same batch and weights give the same ĝ to rounding."""
    env = vt.CartPole(lanes=16)
    policy = env.policy()
    from vantage.environments.rollout import episodes

    batch = episodes(env, policy, 16, seed=0)
    here = vt.gradient(policy, batch, vt.estimators.reinforce_leave_one_out())
    moved = vt.gradient(
        policy.to(device), batch.to(device), vt.estimators.reinforce_leave_one_out()
    )
    torch.testing.assert_close(moved.cpu(), here, rtol=1e-3, atol=1e-3 * float(here.abs().max()))


def _episodes(device: torch.device) -> None:
    vt.train(
        vt.CartPole(lanes=32, device=device), vt.estimators.reinforce_baseline(), batch=32,
        updates=2, progress=False,
    )  # fmt: skip
    env = vt.CartPole(lanes=32, device=device)
    assert len(vt.evaluate(env, env.policy(), 32).returns) == 32


def _memory(device: torch.device) -> None:
    env = vt.CartPole(lanes=16, device=device)
    algorithm = vt.algorithms.ppo(fragment=16, minibatches=2, epochs=2)
    vt.train(
        env, env.policy(recurrent=8), algorithm, value=env.value(recurrent=8), updates=2,
        progress=False,
    )  # fmt: skip


def _audit(device: torch.device) -> None:
    env = vt.CartPole(lanes=64, device=device)
    rows = ["reinforce", "reward_to_go", "rloo"]
    report = vt.audit(env, env.policy(), rows, trajectories=256, batch=16, progress=False)
    assert report.row("reward_to_go").snr.value == report.row("reward_to_go").snr.value


def _tabular(device: torch.device) -> None:
    env = vt.Tabular(vt.MDP.short_corridor(), lanes=64, device=device)
    vt.train(env, "reinforce", updates=2, progress=False)


def _language(device: torch.device) -> None:
    from vantage import language as vl

    tokens = vl.tiny.tokenizer()
    model = vl.tiny.model(tokens, hidden=32, layers=2, heads=2, intermediate=64)
    policy = vl.Policy(model, tokens, max_completion_length=4, device=device)
    task = vl.Task(
        [{"prompt": f"{n}+1="} for n in range(8)],
        lambda completions, **_: [float(len(text)) for text in completions],
        num_generations=4,
        held_out=0,
    )
    run = vl.train(task, policy, vt.estimators.grpo(), batch=16, updates=2, progress=False)
    assert len(run.history) == 2
    report = vl.audit(
        task, policy, [vt.estimators.rloo()], trajectories=128, batch=16, progress=False
    )
    assert report.rows


# ---- control -----------------------------------------------------------------------------------


def control(arguments: Arguments, device: torch.device) -> Measured:
    """PPO on tensor CartPole: 32 steps of every lane, 4 epochs × 4 minibatches."""
    return {
        f"{lanes} lanes": guarded(partial(tensor_lanes, lanes, 3 + 4 * arguments.repeats, device))
        for lanes in arguments.lanes
    }


def rejax(arguments: Arguments, device: torch.device) -> Measured:
    """The same of rejax, on the device that its JAX finds."""
    return {
        f"{lanes} lanes": guarded(
            partial(peer, lanes, max(2, 2**18 // lanes), arguments.rejax or sys.executable)
        )
        for lanes in arguments.lanes
    }


def gymnasium(arguments: Arguments, device: torch.device) -> Measured:
    """PPO on Gymnasium lanes, the networks on the device and on the CPU."""
    return gymnasium_lanes(device)


def monitor(arguments: Arguments, device: torch.device) -> Measured:
    """What `vt.Monitor` adds to a step."""
    return {"cost": watched(arguments.repeats, device)}


# ---- language ----------------------------------------------------------------------------------


def language(arguments: Arguments, device: torch.device) -> Measured:
    """Generation and gradient of one batch, ours and plain, in turn."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from vantage import language as vl

    tokens = vl.tiny.tokenizer()
    config = Qwen2Config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, tie_word_embeddings=True,
        num_hidden_layers=arguments.layers, num_attention_heads=14, num_key_value_heads=2,
        max_position_embeddings=4096, bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)  # transformers draws its first weights from torch's own generator
    model: Any = Qwen2ForCausalLM(config)
    model = model.to(device, torch.bfloat16)
    policy = vl.Policy(model, tokens, max_completion_length=arguments.length, device=device)
    groups = arguments.completions // 8
    letters = torch.randint(0, 26, (groups, arguments.prompt - 1))
    prompts = ["".join(chr(97 + int(n)) for n in row) for row in letters]
    task = vl.Task(
        [{"prompt": prompt} for prompt in prompts],
        lambda completions, **_: [float(i % 2) for i in range(len(completions))],
        num_generations=8, held_out=0,
    )  # fmt: skip
    rows = list(range(groups))
    ids = torch.tensor([tokens(prompt)["input_ids"] for prompt in prompts], device=device)
    drawn = vl.rollout(task, policy, rows, torch.Generator().manual_seed(0))
    count = int(drawn.batch.mask.sum())
    found: Measured = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": count,
        "prompt": int(ids.shape[1]),
    }

    def generation() -> None:
        vl.rollout(task, policy, rows, torch.Generator().manual_seed(1))

    def plain_generation() -> None:
        model.generate(
            ids.repeat_interleave(8, 0), max_new_tokens=arguments.length,
            min_new_tokens=arguments.length, do_sample=True, top_k=0,
            attention_mask=torch.ones_like(ids).repeat_interleave(8, 0),
        )  # fmt: skip

    estimator = vt.estimators.rloo()
    weights = estimator.weights(drawn.batch)
    from vantage.language.scoring.scoring import plan_passes, scored_passes

    plan = plan_passes(drawn.batch, policy)

    def gradient() -> None:
        model.zero_grad(set_to_none=True)
        for one in scored_passes(policy, drawn.batch, plan):
            weight = weights[one.rows][one.mask].to(one.log_prob)
            (-(weight * one.log_prob).sum()).backward()

    def plain_gradient() -> None:
        model.zero_grad(set_to_none=True)
        whole = torch.cat([ids.repeat_interleave(8, 0), completion_ids], 1)
        for part in whole.split(8):
            logits = model(part).logits[:, ids.shape[1] - 1 : -1].float()
            score = logits.log_softmax(-1).gather(-1, part[:, ids.shape[1] :, None])
            (-score.sum()).backward()

    length = max(1, arguments.length)
    completion_ids = torch.randint(5, 40, (arguments.completions, length), device=device)
    for name, work in (
        ("generation", generation),
        ("plain generation", plain_generation),
        ("gradient", gradient),
        ("plain gradient", plain_gradient),
    ):
        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds = timed(work, arguments.repeats, device)
            amount = arguments.completions * length if name.startswith("plain") else count
            found[name] = {
                "seconds": statistics.median(seconds),
                "tokens_per_second": amount / statistics.median(seconds),
                "peak_gigabytes": torch.cuda.max_memory_allocated() / 1e9
                if device.type == "cuda"
                else None,
            }
        except Exception:
            found[name] = {"error": traceback.format_exc()[-1500:]}
    return found


PARTS: dict[str, Callable[[Arguments, torch.device], Measured]] = {
    "checks": checks,
    "control": control,
    "rejax": rejax,
    "gymnasium": gymnasium,
    "monitor": monitor,
    "language": language,
}


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
