"""A seed gives the same bits whatever number of threads the process was started with."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import hashlib

import torch
import vantage as vt


def bits(*modules):
    held = [p.detach().numpy().tobytes() for m in modules for p in m.parameters()]
    return hashlib.sha256(b"".join(held)).hexdigest()


assert torch.get_num_threads() == int({threads!r})
env = vt.make("Pendulum-v1", lanes=4)
print(bits(env.policy(seed=3, hidden=(256, 256)), env.value(seed=4), env.policy(recurrent=64)))
for algorithm, settings in (("ppo", dict(fragment=32, epochs=2)), ("reinforce", dict(batch=4))):
    run = vt.train("Pendulum-v1", algorithm, lanes=4, updates=1, progress=False, **settings)
    print(bits(run.policy, *([run.value] if run.value else [])))
assert torch.get_num_threads() == int({threads!r})
"""


def bits(threads: str) -> str:
    script = SCRIPT.format(threads=threads)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    )  # fmt: skip
    return done.stdout


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="torch has one thread at most here")
def test_weights_do_not_depend_on_the_threads_of_the_process() -> None:
    one = bits("1")
    assert len(one.split()) == 3
    assert bits("2") == one
