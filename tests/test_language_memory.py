"""Peak memory of scoring a large vocabulary, measured in processes of their own."""

import subprocess
import sys

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
    assert peak("chunked", 1536) < 1536 * row / 4  # of 934 MB
    assert peak("whole", 256) > 2 * 256 * row  # the measurement sees what it should
