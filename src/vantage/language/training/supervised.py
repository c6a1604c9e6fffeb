"""Supervised warm-up: cross-entropy on gold answers, for as many steps as are asked for."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.language.model.policy import NOT_COUNTED, Policy
from vantage.language.tasks.task import Task
from vantage.language.training.masters import Masters

WARM = 0x5741524D  # word of a seed


@checked
def warm_up(
    policy: Policy,
    task: Task,
    steps: int,
    *,
    seed: int = 0,
    batch: int = 128,
    lr: float = 1e-3,
    rows: Sequence[int] | None = None,
    until: float = 1.0,
) -> dict[str, float]:
    """Fit gold answers, an end token after each, by Adam on the mean −log π of their tokens.

    A policy that never gets a reward has no gradient: this gives it a start. Only training rows are
    used.

    Args:
        policy: trained in place; its tokenizer writes the answers.
        task: rows with gold answers in the column `task.answer`.
        steps: the steps of the optimiser; the learning rate rises over the first 50.
        seed: the seed of the order of rows.
        batch: rows a step.
        lr: learning rate.
        rows: numbers of the rows to use, of `task.train`; all of those where None.
        until: stop once the policy gives gold answers with this probability, on average over 256 of
            the rows; looked at every 10 steps. It is what exact match would be worth.

    Returns:
        "steps" taken, "loss" of the last, nats a token, and "seconds".

    Raises:
        InputError: no tokenizer, no end token, a row without an answer, or a row that is held out.
    """
    started = time.perf_counter()
    numbers = list(task.train if rows is None else rows)
    observation, action = _examples(policy, task, numbers)
    masters = Masters([p for p in policy.parameters() if p.requires_grad])
    parameters = masters.parameters
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.98))
    masters.attach(optimizer)
    random = np.random.default_rng([seed, WARM])
    loss, done = torch.zeros(()), 0
    looked_at = torch.from_numpy(random.permutation(len(numbers))[:256])
    for step in range(steps):
        if step % 10 == 0 and _probability(policy, observation, action, looked_at) >= until:
            break
        places = torch.from_numpy(random.integers(len(numbers), size=batch))
        tokens, answers = observation[places], action[places]
        loss = -policy.log_prob(tokens, answers).sum() / (answers != NOT_COUNTED).sum()
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 50)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        done = step + 1
    optimizer.zero_grad()
    masters.detach()
    return {"steps": done, "loss": loss.item(), "seconds": time.perf_counter() - started}


@torch.no_grad()
def _probability(
    policy: Policy, observation: Int[Tensor, "N T"], action: Int[Tensor, "N T"], rows: Tensor
) -> float:
    """The mean probability of the whole gold answer."""
    return float(policy.log_prob(observation[rows], action[rows]).sum(1).exp().mean())


def _examples(
    policy: Policy, task: Task, rows: Sequence[int]
) -> tuple[Int[Tensor, "N T"], Int[Tensor, "N T"]]:
    """Observations and actions [N, T] of gold answers, −1 where the prompt is still being read."""
    tokens: Any = policy.tokenizer
    refuse_unless(
        tokens is not None and tokens.eos_token_id is not None,
        "warm_up: the policy needs a tokenizer with an end-of-sequence token.",
    )
    held = set(task.held_out)
    prompts = task.encode(tokens)
    answers = []
    for row in rows:
        refuse_unless(row not in held, f"warm_up: {task.label(row)} is held out; leave it out.")
        gold = task.rows[row].get(task.answer)
        refuse_unless(gold is not None, f"warm_up: {task.label(row)} has no answer to learn.")
        answers.append(str(gold))
    encoded = tokens(answers, add_special_tokens=False)["input_ids"]
    pairs = [
        (prompts[row], [*answer, tokens.eos_token_id])
        for row, answer in zip(rows, encoded, strict=True)
    ]
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs) - 1
    observation = torch.full((len(pairs), longest), policy.pad_id)
    action = torch.full((len(pairs), longest), NOT_COUNTED)
    for n, (prompt, answer) in enumerate(pairs):
        both = torch.tensor(prompt + answer)
        observation[n, : len(both) - 1] = both[:-1]
        action[n, len(prompt) - 1 : len(both) - 1] = both[len(prompt) :]
    return observation.to(policy.device), action.to(policy.device)
