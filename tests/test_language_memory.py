"""Peak memory of scoring a large vocabulary and of audits, in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

SCRIPT = """
import sys, torch
from torch import nn
from vantage.language.model.head import Head, score_hidden, score_directly
from vantage.language.model.law import SamplingLaw
torch.set_num_threads(1)

def kilobytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))

layer = nn.Linear(16, 152_000, bias=False)
count = int(sys.argv[2])
hidden = torch.randn(count, 16, requires_grad=True)
tokens = torch.randint(152_000, (count,))
score = {"chunked": score_hidden, "whole": score_directly}[sys.argv[1]]
few = score(Head(nn.Linear(16, 9)), SamplingLaw(0.9), hidden[:4], tokens[:4] % 9)
(few.log_prob.sum() + few.entropy.sum()).backward()  # what torch sets up once is not counted
held = kilobytes("VmRSS")
found = score(Head(layer), SamplingLaw(0.9), hidden, tokens)
(found.log_prob.sum() + found.entropy.sum()).backward()
print(kilobytes("VmHWM") - held)
"""


def peak(which, count):
    command = [sys.executable, "-c", SCRIPT, which, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return 1024 * int(done.stdout)


def test_neither_pass_holds_all_logits():
    row = 4 * 152_000
    assert peak("chunked", 1024) < 1024 * row / 4  # of 623 MB
    assert peak("whole", 128) > 2 * 128 * row  # the measurement sees what it should


AUDIT = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from audit_memory import problem, resident
from vantage import estimators, language
from vantage.auditing.sizes import size_in_bytes
from vantage.language.auditing.audit import audit, audit_footprint
from vantage.language.scoring.arithmetic import shape_of
torch.set_num_threads(1)

policy, task = problem((2048, 256, 640, 3, 4, 4), 8)
rows = [estimators.named(name) for name in ("reinforce", "rloo")]
counts = {"trajectories": 64, "batch": 8, "memory": size_in_bytes(sys.argv[2])}
sizes = {"num_generations": 8, "prompt": 16, "completion": 8}
plan = audit_footprint(shape_of(policy.base, width=4), rows, **sizes, **counts)[1]
audit(task, policy, rows[1:], trajectories=64, batch=8, progress=False)  # set up once
language.generate(policy, [[3, 4]], 2, torch.Generator(), 2)
open("/proc/self/clear_refs", "w").write("5")  # the peak, from now on
held = resident()
audit(task, policy, rows, progress=False, **counts)
peak = next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith("VmHWM"))
print(plan.peak, plan.sketched or 0, 1024 * peak - held)
"""


def audited(memory):
    """The estimate of an audit of 2.5 million parameters, its sketch, and the measured peak."""
    command = [sys.executable, "-c", AUDIT, str(BENCHMARKS), memory]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from /proc")
def test_the_estimate_bounds_an_audit():
    """Whole, 8 unit gradients of each and 16 pairs would take 330 MB and be sketched to fit."""
    estimate, sketched, peak = audited("160MB")
    assert sketched
    assert peak <= estimate <= 160 << 20


RESULTS = BENCHMARKS / "results/audit_memory.json"


@pytest.mark.parametrize("row", json.loads(RESULTS.read_text())["rows"], ids=lambda r: r["case"])
def test_estimates_lie_above_measured_peaks_and_not_far(row, monkeypatch):
    """Audits that were measured, as they are planned today."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import audit_memory

    plan = audit_memory.planned(row)
    assert plan.sketched == row["sketched"]
    assert row["beyond"] <= plan.peak <= 1.6 * row["beyond"]
    assert max(plan.rows.values()) <= row["batch"]
