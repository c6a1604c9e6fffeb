"""Peak memory of audits of language models against their parameters, each in a process of its own.

    OMP_NUM_THREADS=1 python benchmarks/audit_memory.py

Models are Llamas with random weights, the largest of SmolLM2-135M's shape. `peak` is the largest
resident size of the process (ru_maxrss), `began` what it held when the audit began: the libraries
and the model. `beyond` is their difference, which `memory` bounds and `estimate` says beforehand.
"""

import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

RESULTS = Path(__file__).parent / "results" / "audit_memory.json"
SHAPES = {
    "1M": (1024, 128, 384, 4, 4, 4),
    "12M": (8192, 320, 896, 8, 5, 5),
    "135M": (49152, 576, 1536, 30, 9, 3),
}
NAMES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
         "num_attention_heads", "num_key_value_heads")  # fmt: skip
ROWS = ("reinforce_leave_one_out", "rloo", "grpo")
WORDS, SIZE = 16, 8  # of a prompt; completions of it


@dataclass
class Arguments:
    """Measure peaks."""

    cases: tuple[str, ...] = ("1M 4GB", "12M 4GB", "12M 500MB", "135M 4GB")
    """each a model and a bound"""
    completions: int = 128
    batch: int = 16
    length: int = 32
    """tokens of a completion"""
    add: bool = False
    """keep the rows of other cases that the results file holds already"""
    replan: bool = False
    """measure nothing: put today's estimates beside the peaks that the results file holds"""
    out: Path = RESULTS
    child: str = ""


def main(arguments: Arguments) -> None:
    if arguments.child:
        print(json.dumps(measured(arguments)))
        return
    rows: list[dict[str, Any]] = []
    if (arguments.add or arguments.replan) and arguments.out.exists():
        rows = json.loads(arguments.out.read_text())["rows"]
    if arguments.replan:
        rows = [row | {"estimate": planned(row).peak} for row in rows]
        record = json.loads(arguments.out.read_text()) | {"rows": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
        return
    for case in arguments.cases:
        command = [sys.executable, __file__, "--child", case]
        for name in ("completions", "batch", "length"):
            command += [f"--{name}", str(getattr(arguments, name))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{case}: {done.stderr[-2000:]}")
        rows = [row for row in rows if row["case"] != case]
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
        record = {
            "command": "OMP_NUM_THREADS=1 python benchmarks/audit_memory.py "
            + shlex.join(sys.argv[1:]),
            "processor": processor(),
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def planned(row: dict[str, Any]) -> Any:
    """The footprint of a row's audit, from the sizes of its model alone."""
    import torch
    import transformers as tf

    from vantage import estimators
    from vantage.language.auditing.audit import audit_footprint
    from vantage.language.scoring.arithmetic import shape_of

    with torch.device("meta"):
        model = tf.LlamaForCausalLM(configuration(SHAPES[row["case"].split()[0]]))
    return audit_footprint(
        shape_of(model, width=4),
        [estimators.named(name) for name in ROWS],
        num_generations=SIZE,
        prompt=WORDS,
        completion=row["length"],
        trajectories=row["completions"],
        batch=row["batch"],
        memory=row["memory"],
    )[1]


def measured(arguments: Arguments) -> dict[str, Any]:
    """One case, in this process."""
    import torch

    from vantage import estimators, language
    from vantage.auditing.sizes import size_in_bytes
    from vantage.language.auditing.audit import audit

    torch.set_num_threads(1)
    size, bound = arguments.child.split()
    policy, task = problem(SHAPES[size], arguments.length)
    rows = [estimators.named(name) for name in ROWS]
    sizes = {name: getattr(arguments, name) for name in ("completions", "batch", "length")}
    memory = size_in_bytes(bound)
    plan = planned({"case": arguments.child, "memory": memory, **sizes})
    counts: dict[str, Any] = {
        "trajectories": arguments.completions,
        "batch": arguments.batch,
        "memory": memory,
    }
    language.generate(policy, [[3, 4]], 2, torch.Generator(), 2)  # what torch sets up once
    began, clock = resident(), time.perf_counter()
    report = audit(task, policy, rows, progress=False, **counts)
    seconds = time.perf_counter() - clock
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "case": arguments.child,
        "parameters": plan.parameters,
        "model": 4 * plan.parameters,
        "memory": memory,
        **sizes,
        "sketched": plan.sketched,
        "method": report.settings["gradients"]["method"],
        "seconds_per_trajectory": report.settings["gradients"]["seconds_per_trajectory"],
        "began": began,
        "peak": peak,
        "beyond": peak - began,
        "estimate": plan.peak,
        "seconds": round(seconds, 1),
        "load": os.getloadavg()[0],
    }


def configuration(sizes: tuple[int, ...]) -> Any:
    """A Llama of these sizes."""
    import transformers as tf

    named: dict[str, Any] = dict(zip(NAMES, sizes, strict=True))
    return tf.LlamaConfig(
        **named, tie_word_embeddings=True,
        max_position_embeddings=512, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip


def problem(sizes: tuple[int, ...], length: int) -> tuple[Any, Any]:
    """A policy with random weights, and a task of 20 prompts."""
    import torch
    import transformers as tf
    from tokenizers import Tokenizer, models, pre_tokenizers

    from vantage import language

    torch.manual_seed(0)
    words = ["<pad>", "<end>", "<unk>", *(f"w{i}" for i in range(sizes[0] - 3))]
    plain: Any = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = tf.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )

    def reward(completions: list[str], completion_ids: list[list[int]]) -> list[float]:
        return [float(sum(i % 5 for i in ids)) for ids in completion_ids]

    rows = [{"prompt": " ".join(f"w{(7 * i + j) % 50}" for j in range(WORDS))} for i in range(20)]
    task = language.Task(rows, reward, num_generations=SIZE, held_out=0)
    model = tf.LlamaForCausalLM(configuration(sizes))
    return language.Policy(model, tokens, max_completion_length=length), task


def resident() -> int:
    """Bytes that this process holds now."""
    text = Path("/proc/self/status").read_text()
    return 1024 * next(int(x.split()[1]) for x in text.splitlines() if x.startswith("VmRSS"))


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main(tyro.cli(Arguments))
