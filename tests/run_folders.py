"""Run folders for tests of reports: of any length, holding what strangers may have written."""

import json
import math
import random
from pathlib import Path
from typing import Any

from vantage.language.transcripts.records import write_transcripts
from vantage.runs.run import line_of

HOSTILE = '</script><img src=x onerror="window.hurt=1">&\u202e\u2028<b>"\''
VOCABULARY = [" the", " answer", " is", "\n", "4", "2", HOSTILE, "é", "\x1b[2J", "<eos>"]


def control_row(update: int, draw: random.Random, rise: float = 1.0) -> dict[str, Any]:
    """A row of metrics of a run whose return rises from 20 to 20 + 100 · rise over 100 updates."""
    share = min(1.0, update / 100)
    worth = 20 + 100 * rise * share + draw.gauss(0, 5)
    row = {
        "update": update, "batch": 64, "steps": 2048 * update, "episodes": 64, "return": worth,
        "return_std": 5 + draw.random(), "return_100": worth, "length": worth,
        "entropy": 0.69 * (1 - 0.5 * share), "units": 64, "unit": 1,
        "gradient_squared_norm": 100 * draw.gauss(1, 0.3), "gradient_variance": 3200.0,
        "snr": 2.0, "noise_scale": 32.0, "grad_norm": 10 + draw.random(), "kl": 0.01,
        "clip_fraction": 0.05 + 0.01 * draw.random(), "value_loss": 100 * math.exp(-share),
        "explained_variance": share, "learning_rate": 3e-4 * (1 - share / 2), "step_time": 0.5,
        "steps_per_second": 4096.0 + draw.random(), HOSTILE: draw.random(),
    }  # fmt: skip
    if update % 10 == 0:
        row |= {"eval/return": worth, "eval/return_low": worth - 4, "eval/return_high": worth + 4}
    return row


def language_row(update: int, draw: random.Random) -> dict[str, Any]:
    """A row of metrics of a language model with two rewards."""
    worth = min(0.9, 0.3 + update / 200) + draw.gauss(0, 0.03)
    return {
        "update": update, "batch": 256, "return": worth, "length": 20 + draw.random(),
        "reward": worth, "reward_std": 0.3, "frac_reward_zero_std": min(0.8, update / 100),
        "rewards/exact": worth, f"rewards/{HOSTILE}": 0.1 + 0.01 * draw.random(),
        "scorable": 1.0, "completions": 256, "completions/mean_length": 20.0,
        "completions/clipped_ratio": 0.1 * draw.random(), "num_tokens": 5000 * update,
        "entropy": 1.0 - worth / 2, "grad_norm": 2 + draw.random(), "units": 2, "unit": 128.0,
        "gradient_squared_norm": draw.gauss(1, 0.5), "gradient_variance": 3.0,
        "step_time": 0.7, "tokens_per_second": 6000 + draw.random(), "generation_time": 0.3,
    }  # fmt: skip


def records(update: int, count: int, draw: random.Random, tokens: int = 12) -> list[dict[str, Any]]:
    """Transcripts of an update."""
    made = []
    for i in range(count):
        said = [draw.choice(VOCABULARY) for _ in range(draw.randint(2, tokens))]
        worth = float(draw.randint(0, 4)) / 4
        made.append({
            "prompt": f"{i % 50} + {update}? {HOSTILE}", "completion": "".join(said),
            "tokens": said, "token_ids": [VOCABULARY.index(text) for text in said],
            "advantage": [worth - 0.5 + 0.1 * k for k in range(len(said))],
            "log_prob": [-draw.expovariate(1.0) for _ in said], "reward": worth,
            "reward/exact": worth, f"reward/{HOSTILE}": 0.5, "row": i, "group": i // 4,
            "length": len(said), "truncated": False,
        })  # fmt: skip
    return made


def write_run(
    folder: Path,
    updates: int,
    *,
    language: bool = False,
    said: dict[int, int] | None = None,
    seed: int = 0,
    rise: float = 1.0,
    config: dict[str, Any] | None = None,
) -> Path:
    """A run folder of so many updates, with names of environments that are hostile.

    Args:
        said: how many completions the transcripts of an update hold.
    """
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    world = {"task": {"name": HOSTILE}} if language else {"environment": {"name": HOSTILE}}
    settings = world | {
        "estimator": {"name": "rloo", "baseline": "leave_one_out"}, "algorithm": None,
        "updates": updates, "steps": None, "seed": seed, "lr": 0.0003, "batch": 64,
        "optimizer": {"class": "Adam", "betas": [0.9, 0.999], "fused": None},
        "versions": {"vantage": "0.1.0"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings | (config or {})))
    rows = [
        language_row(update, draw) if language else control_row(update, draw, rise)
        for update in range(1, updates + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(line_of(row) for row in rows))
    for update, count in (said or {}).items():
        write_transcripts(folder, update, records(update, count, draw))
    return folder
