"""What TRL's trainer climbs, against ∇J by enumeration: writes benchmarks/results/trl_draws.json.

    python benchmarks/trl_draws.py --peer TRL_ENVIRONMENT/bin/python

Two prompts, rewards of scales 1 and 0.1, groups of 8, a Llama small enough to enumerate. TRL's
interpreter draws the gradients (`peers/draws_trl.py`, which also says what is asked); here they are
compared with the exact gradient and with the exact mean of the row that the configuration is. The
figure of the page is drawn from the results: docs/figures/trl_draws.svg.
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from peers.draws_trl import CASES, LENGTH, PROMPTS, SIZE, model_and_tokenizer, reward

import vantage as vt
import vantage.language as vl

HERE = Path(__file__).parent
OUT = HERE / "results" / "trl_draws.json"
FIGURE = HERE.parent / "docs" / "figures" / "trl_draws.svg"
COMMAND = "python benchmarks/trl_draws.py --peer PYTHON"
BESSEL = partial(vt.scales.group_std, correction=1)
ROWS = {  # as vantage.peers.trl_rows reads them off the trainers
    "default": vt.estimators.dapo().replace(scale=BESSEL),
    "grpo": vt.estimators.grpo(correction=1),
    "dr_grpo": vt.estimators.dr_grpo(length=float(LENGTH)).replace(scale=BESSEL),
    "dr_grpo, scale_rewards=none": vt.estimators.dr_grpo(length=float(LENGTH)),
}


def main() -> None:
    """Draw, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", default=os.environ.get("VANTAGE_TRL_PYTHON"))
    parser.add_argument("--draws", type=int, default=6000)
    parser.add_argument("--folder", type=Path, help="draws that were made before, or go here")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if not (folder / "peer.json").exists():
            if given.peer is None:
                sys.exit("Name TRL's interpreter: --peer PYTHON, or VANTAGE_TRL_PYTHON=PYTHON.")
            drawn(given.peer, folder, given.draws)
        found = compared(folder)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    given.out.write_text(text + "\n", encoding="utf-8")
    draw(found, FIGURE)


def drawn(python: str, folder: Path, draws: int) -> None:
    """The gradients of TRL's trainers, by TRL's interpreter."""
    environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src"), "HF_HUB_OFFLINE": "1"}
    worker = [python, str(HERE / "peers" / "draws_trl.py"), str(folder), str(draws)]
    subprocess.run(worker, check=True, env=environment)


def compared(folder: Path) -> dict[str, Any]:
    """Cosines with ∇J: TRL's with its interval, the row's exactly; and the two means beside."""
    task, policy, gradient = small_world()
    cases = {}
    for name, row in ROWS.items():
        vectors = torch.from_numpy(np.load(folder / f"{name}.npy")).double()
        report = vt.audit_draws(
            {"trl": vectors},
            draws=len(vectors),
            batch=SIZE * len(PROMPTS),
            reference=gradient,
            progress=False,
        )
        exact = vl.expectation(task, policy, row, SIZE)
        theirs, mean = report.rows[0], vectors.mean(0)
        # ‖mean − row‖² in units of what it would be on average if the row were the mean: 1
        error = vectors.var(0).sum() / len(vectors)
        apart = (mean - exact.mean).square().sum() / error
        cases[name] = {
            "settings": CASES[name],
            "cosine": interval(theirs.cosine),
            "row_cosine": cosine(exact.mean, gradient),
            "cosine_with_row": cosine(mean, exact.mean),
            "squared_distance_from_row_over_error": float(apart),
            "snr": interval(theirs.snr),
            "row_snr": float(exact.mean @ exact.mean / exact.trace),
        }
    said = json.loads((folder / "peer.json").read_text(encoding="utf-8"))
    return {
        "command": COMMAND,
        "processor": processor(),
        "versions": said["versions"] | {"vantage": vt.__version__},
        "draws": said["draws"],
        "completions_of_a_draw": SIZE * len(PROMPTS),
        "parameters": len(gradient),
        "seconds_per_draw": said["seconds_per_draw"],
        "cases": cases,
    }


def small_world() -> tuple[vl.Task, vl.Policy, torch.Tensor]:
    """What is asked, the model that answers, and the exact gradient of its mean reward."""
    model, tokens = model_and_tokenizer()
    policy = vl.Policy(model, tokens, max_completion_length=LENGTH).double()
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    task = vl.Task(rows, reward, num_generations=SIZE, held_out=0.0)
    return task, policy, vl.expectation(task, policy, vt.estimators.reinforce()).mean


def cosine(left: torch.Tensor, right: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(left, right, dim=0))


def interval(estimate: Any) -> list[float | None]:
    """Value and ends, None where there is none."""
    ends = (estimate.value, estimate.low, estimate.high)
    return [each if math.isfinite(each) else None for each in ends]


def processor() -> str:
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return platform.processor()


def draw(found: dict[str, Any], target: Path) -> None:
    """Cosine with ∇J by configuration: TRL's intervals, and the rows' exact values."""
    cases = found["cases"]
    figure, axes = plt.subplots(figsize=(6.4, 2.4), layout="constrained")
    for line, case in enumerate(cases.values()):
        value, low, high = case["cosine"]
        axes.plot([low, high], [line, line], color="#1f4e79", lw=3, solid_capstyle="butt")
        axes.plot(value, line, "o", color="#1f4e79", label="TRL, 95 % interval" if not line else "")
        axes.plot(case["row_cosine"], line, "|", color="#c0392b", ms=16, mew=2,
                  label="the row of the table, exact" if not line else "")  # fmt: skip
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xlim(0.4, 1.02)
    axes.set_xlabel("cosine of the mean gradient with ∇J")
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
