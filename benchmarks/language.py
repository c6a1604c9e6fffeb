"""RLOO on a language model, one thread: this package, TRL, and a bare loop, taking turns.

    OMP_NUM_THREADS=1 python benchmarks/language.py --peer TRL_ENVIRONMENT/bin/python

First a check that the gradients agree: TRL's on the completions it drew itself, and this package's
on the same completions. Then, for each case, the three run in processes of their own and take turns
of a few steps; the medians over all turns after the first are compared. The bare loop is what one
would write by hand: transformers' forward with its cache, token by token, then one forward and
backward pass over the batch, without an optimiser. It has no logs, no checks and no statistics.

Memory is the peak of the process above what it held before training, model loaded; "whole logits"
is one tensor of completions × tokens × vocabulary in float32.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import tyro
from machines import file_of, machine, processor
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
from rloo_setup import (  # type: ignore[import-not-found]  # noqa: E402
    CASES,
    Case,
    Turns,
    forget_peak,
    model,
    prompts,
    reward,
    tokenizer,
)

RESULTS = HERE / "results"


class StoppedError(Exception):
    """No more turns."""


def vantage_worker(case: Case, folder: str) -> None:
    """This package's own training, by its public function."""
    import vantage as vt
    from vantage import language

    policy, task = _policy(case, folder), _task(case)
    turns = Turns()
    forget_peak()

    def between(update: int, drawn: Any, advantage: Any) -> None:
        # called within a step: the time of a whole step is from call to call
        now = time.perf_counter()
        if not turns.step_done(now - turns.began):
            raise StoppedError
        turns.began = time.perf_counter()

    turns.wait()
    with suppress(StoppedError):
        language.train(
            task, policy, vt.estimators.rloo(), updates=10**6, batch=case.completions, lr=1e-5,
            max_grad_norm=1.0, watch=between, progress=False,
        )  # fmt: skip


def bare_worker(case: Case, folder: str) -> None:
    """A loop written by hand over transformers' forward pass."""
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens, texts = tokenizer(case), prompts(case)
    turns, update = Turns(), 0
    forget_peak()
    more = turns.wait()
    while more:
        count = case.completions // case.group
        chosen = [texts[(update * count + i) % len(texts)] for i in range(count)]
        ids = torch.tensor(tokens(chosen)["input_ids"]).repeat_interleave(case.group, 0)
        drawn = []
        with torch.no_grad():
            out = own(ids, use_cache=True)
            for step in range(case.tokens):
                drawn.append(torch.multinomial(out.logits[:, -1].softmax(-1), 1))
                if step + 1 < case.tokens:
                    out = own(drawn[-1], past_key_values=out.past_key_values, use_cache=True)
        completion = torch.cat(drawn, 1)
        score = torch.tensor(
            reward(tokens.batch_decode(completion, skip_special_tokens=True))
        ).view(count, -1)
        advantage = (
            (score - score.mean(1, keepdim=True)) * case.group / (case.group - 1)
        ).flatten()
        logits = own(torch.cat([ids, completion], 1)[:, :-1], logits_to_keep=case.tokens).logits
        log_prob = logits.log_softmax(-1).gather(-1, completion[..., None]).squeeze(-1)
        own.zero_grad()
        (-(advantage * log_prob.sum(1)).mean()).backward()
        update += 1
        more = turns.step_done(time.perf_counter() - turns.began)
        turns.began = time.perf_counter()


WORKERS = {"vantage": vantage_worker, "bare": bare_worker}


def _policy(case: Case, folder: str) -> Any:
    from transformers import AutoModelForCausalLM

    from vantage import language

    torch.set_num_threads(1)
    own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return language.Policy(own, tokenizer(case), max_completion_length=case.tokens)


def _task(case: Case) -> Any:
    from vantage import language

    rows = [{"prompt": prompt} for prompt in prompts(case)]
    return language.Task(rows, reward, num_generations=case.group, held_out=0.0)


def gradients_apart(case: Case, folder: str, file: str) -> float:
    """Relative distance of our gradient and the peer's on the peer's own completions."""
    from safetensors.torch import load_file

    import vantage as vt
    from vantage.language.sampling.generation import finished
    from vantage.language.sampling.sequences import as_batch, joined

    theirs = load_file(file)
    policy, task = _policy(case, folder), _task(case)
    prompt = [
        row[mask.bool()].tolist()
        for row, mask in zip(theirs["prompt_ids"], theirs["prompt_mask"], strict=True)
    ]
    completion = theirs["completion_ids"]
    drawn = finished(completion, torch.zeros(completion.shape), (), 0)
    texts = policy.tokenizer.batch_decode(completion, skip_special_tokens=True)
    keys = {text: n for n, text in enumerate(task.prompts)}
    rows = [keys[text] for text in policy.tokenizer.batch_decode(prompt)]
    scored = task.score(rows, texts).total.float()
    batch = as_batch(joined(prompt, drawn, 0), scored, torch.tensor(rows))
    ours = vt.gradient(policy, batch, vt.estimators.rloo())
    names = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    peer = torch.cat([-theirs[f"gradient.{name}"].flatten() for name in names])
    return float((ours - peer).norm() / peer.norm())


def measure(name: str, peer: str | None, turns: int, steps: int) -> dict[str, Any]:
    """One case: agreement, then times and memory of the workers in turn."""
    case, script = CASES[name], str(HERE / "peers" / "rloo_trl.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as folder:
        model(case).save_pretrained(folder)
        commands = {who: [sys.executable, __file__, "worker", who, name, folder] for who in WORKERS}
        found: dict[str, Any] = {"case": vars(case)}
        if peer is not None:
            file = str(Path(folder) / "gradient.safetensors")
            subprocess.run(
                [peer, script, name, folder, file], check=True, env=environment,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            found["gradients_apart"] = gradients_apart(case, folder, file)
            commands["trl"] = [peer, script, name, folder]
        processes = {
            who: subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, text=True, env=environment,
            )
            for who, command in commands.items()
        }  # fmt: skip
        held = {who: _answer(process)["peak"] for who, process in processes.items()}
        times: dict[str, list[float]] = {who: [] for who in processes}
        peak = dict(held)
        for turn in range(turns + 1):
            for who, process in processes.items():
                assert process.stdin is not None
                process.stdin.write(f"{steps}\n")
                process.stdin.flush()
                answer = _answer(process)
                peak[who] = answer["peak"]
                if turn:  # the first is warm-up
                    times[who] += answer["times"]
        for process in processes.values():
            process.communicate("end\n")
    whole = 4 * case.completions * case.tokens * case.vocabulary
    found["seconds"] = {who: statistics.median(own) for who, own in times.items()}
    found["times"] = times
    found["peak_bytes"] = {who: 1024 * (peak[who] - held[who]) for who in peak}
    found["whole_logits_bytes"] = whole
    return found


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith('{"times"'):
            return json.loads(line)
    raise RuntimeError(f"{process.args!r} ended with {process.wait()}")


def show(results: dict[str, Any]) -> None:
    """The table of the results."""
    table = Table("case", "TRL", "bare", "Vantage", "TRL / ours", "ours / bare", "peak MB: ours")
    table.add_column("TRL's")
    table.add_column("whole logits")
    table.add_column("gradients apart")
    for name, found in results.items():
        s, m = found["seconds"], found["peak_bytes"]
        trl = s.get("trl")
        table.add_row(
            name,
            f"{trl:.3f}" if trl else "–",
            f"{s['bare']:.3f}",
            f"{s['vantage']:.3f}",
            f"{trl / s['vantage']:.2f}" if trl else "–",
            f"{s['vantage'] / s['bare']:.2f}",
            f"{m['vantage'] / 1e6:.0f}",
            f"{m['trl'] / 1e6:.0f}" if trl else "–",
            f"{found['whole_logits_bytes'] / 1e6:.0f}",
            f"{found['gradients_apart']:.1e}" if trl else "–",
        )
    Console(width=150).print(table)


def main(
    peer: str | None = None,
    cases: tuple[str, ...] = tuple(CASES),
    turns: int = 5,
    steps: int = 4,
    out: Path | None = None,
) -> None:
    """Compare step times and memory.

    Args:
        peer: the interpreter of an environment with trl 1.16; without it TRL is left out.
        cases: which.
        turns: of each worker, after one for warming up.
        steps: in a turn.
        out: where the results go, added to the cases that are there; results/ by the processor.
    """
    torch.set_num_threads(1)
    about: dict[str, Any] = {"machine": machine(), "torch": torch.__version__}
    results = {name: measure(name, peer, turns, steps) for name in cases}
    command = f"python benchmarks/language.py --peer PYTHON --turns {turns} --steps {steps}"
    file = out or RESULTS / file_of("language", processor())
    old = json.loads(file.read_text()) if file.exists() else {"cases": {}}
    new = {name: {"command": command} | about | found for name, found in results.items()}
    file.write_text(json.dumps({"cases": old["cases"] | new}, indent=1) + "\n")
    show(results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        WORKERS[sys.argv[2]](CASES[sys.argv[3]], sys.argv[4])
    else:
        tyro.cli(main)
