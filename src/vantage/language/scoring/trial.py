"""A trial before the first update: does the model score what it samples as it sampled it?

Prompts share memory with their completions, in sampling and in scoring, which needs a model that
goes by the positions and masks it is given. Some go by places in memory; a few change with the
length of the longest row. The trial is on the task's own prompts and on completions of full length.
"""

import copy
import math
from collections.abc import Sequence

import torch

from vantage.batch import Batch
from vantage.errors import InputError, refuse_unless
from vantage.language.model.head import score_hidden
from vantage.language.model.policy import Policy
from vantage.language.sampling.generation import Decoding
from vantage.language.sampling.sequences import as_batch, joined
from vantage.language.scoring.conformance import ROUNDING
from vantage.language.scoring.scoring import Passes, score_batch
from vantage.runs.progress import note

ONE_TOKEN = 10  # times the mean difference that is allowed, a single token may differ


def settle_packing(
    caller: str, policy: Policy, prompts: Sequence[list[int]], num_generations: int
) -> None:
    """Leave `policy.packed` True where that changes no law, else set it False and say so.

    Args:
        caller: named in messages.
        prompts: token ids of those that will be sampled from; the shortest and longest are tried.
        num_generations: completions of each.

    Raises:
        InputError: sampled and scored log-probabilities differ beyond rounding either way.
    """
    ordered = sorted(prompts, key=len)
    tried = [ordered[0], ordered[-1]]
    allowed = _rounding(policy)
    model = type(policy.base).__name__
    reason = ""
    for packed in [True, False] if policy.packed else [False]:
        mean, most, raised = _apart(policy, tried, num_generations, packed)
        if not beyond_rounding(policy, mean, most):
            if policy.packed and not packed:
                note(
                    f"{caller}: {model} goes by places instead of the positions it is given "
                    f"({reason}); prompts are computed for each completion, which is exact and "
                    "slow."
                )
            policy.packed = packed
            return
        reason = raised or f"differing by {most:.2g} nats where prompts are shared"
        why = raised or (
            f"log-probabilities differ by {mean:.2g} nats on average and {most:.2g} at most"
        )
    refuse_unless(
        False,
        f"{caller}: {model} does not score what it samples as it sampled it, on prompts of "
        f"{len(tried[0])} and {len(tried[1])} tokens and completions of "
        f"{policy.max_completion_length}: {why}; rounding explains {allowed:.2g}. Its law hangs on "
        "more than the tokens of a row. Try shorter texts (a model whose positions are scaled from "
        "some length on is exact below it), or another architecture.",
    )


def beyond_rounding(policy: Policy, mean: float, most: float) -> bool:
    """Whether log-probabilities differ by more than the precision of the weights explains.

    Args:
        mean, most: of the differences' sizes.
    """
    return mean > _rounding(policy) or most > ONE_TOKEN * _rounding(policy)


def _rounding(policy: Policy) -> float:
    return ROUNDING.get(next(policy.base.parameters()).dtype, 1e-4)


def _apart(
    policy: Policy, prompts: list[list[int]], size: int, packed: bool
) -> tuple[float, float, str]:
    """Mean and largest difference to the model's own pass over each row; or what it raised."""
    endless = copy.copy(policy)
    endless.end_ids, endless.packed = (), packed
    try:
        drawn = Decoding().generate(endless, prompts, size, torch.Generator().manual_seed(0))
        repeated = [prompt for prompt in prompts for _ in range(size)]
        group = torch.arange(len(prompts)).repeat_interleave(size)
        batch = as_batch(joined(repeated, drawn, policy.pad_id), torch.zeros(len(repeated)), group)
        alone = _alone(endless, batch)
        scored = [batch.log_prob]
        for together in {1, size if packed else 1}:
            scored.append(score_batch(endless, batch, Passes(together, 1 << 30))[0])
    except InputError:
        raise
    except Exception as error:  # architectures fail in ways of their own
        return math.inf, math.inf, f"it raises {type(error).__name__}: {error}"
    apart = [(log_prob - alone)[batch.mask].abs() for log_prob in scored]
    means, largest = [float(d.mean()) for d in apart], [float(d.max()) for d in apart]
    return max(means), max(largest), ""


@torch.no_grad()
def _alone(policy: Policy, batch: Batch) -> torch.Tensor:
    """log π by the model's own forward pass over each row by itself, as transformers calls it."""
    log_prob = torch.zeros_like(batch.log_prob)
    for n in range(batch.rows):
        counted = batch.mask[n]
        end = int(counted.nonzero().max()) + 1
        tokens = batch.observation[n : n + 1, :end].to(policy.device)
        hidden = policy.decoder(input_ids=tokens, use_cache=False).last_hidden_state[0]
        sampled = batch.action[n][counted].to(policy.device)
        scored = score_hidden(policy.head, policy.law, hidden[counted[:end]], sampled)
        log_prob[n, counted] = scored.log_prob.to(log_prob)
    return log_prob
