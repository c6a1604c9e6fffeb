"""Checks that a language policy is what it says: shipped, so that you can run them on your model.

    language.conformance(policy)

draws completions, scores them again, and compares; refuses what differs by more than rounding.
"""

from dataclasses import dataclass

import torch

from vantage.arguments import checked
from vantage.batch import Batch
from vantage.errors import refuse_unless
from vantage.language.model.masks import layer_kinds
from vantage.language.model.policy import Policy
from vantage.language.sampling.generation import Decoding, Engine, synchronise
from vantage.language.sampling.sequences import as_batch, joined
from vantage.language.scoring.scoring import Passes, score_batch, scored_passes

# rounding of a log-probability, by the precision of the weights
ROUNDING = {torch.float64: 1e-8, torch.float32: 1e-4, torch.bfloat16: 0.25, torch.float16: 0.05}


@dataclass(frozen=True)
class Conformance:
    """What was found.

    Attributes:
        completions, tokens: how many were compared.
        sampled: largest |log π when sampled − log π scored by the model's own forward pass|.
        scored: largest difference between that pass and the package's scoring.
        shared: largest difference with prompts shared.
        gradient: relative distance of the gradients with and without shared prompts.
        tolerance: the tolerance of log-probabilities, by the precision of the weights.
    """

    completions: int
    tokens: int
    sampled: float
    scored: float
    shared: float
    gradient: float
    tolerance: float


@checked
def conformance(
    policy: Policy,
    prompts: list[list[int]] | None = None,
    num_generations: int = 4,
    seed: int = 0,
    engine: Engine | None = None,
    tolerance: float | None = None,
) -> Conformance:
    """Compare sampled log-probabilities with scored ones, and gradients with prompts shared or not.

    The reference is the model's own forward pass on each sequence by itself, its logits whole, and
    the policy's law applied to them.

    Args:
        policy: what to check.
        prompts: token ids; a few of different lengths, made up, where None.
        num_generations: completions of each.
        seed: the seed of what is drawn.
        engine: draws; the package's own where None.
        tolerance: the tolerance of log-probabilities; by the precision of the weights where None.

    Raises:
        InputError: a difference beyond rounding, saying where.
    """
    if prompts is None:
        prompts = _made_up(policy, seed)
    generator = torch.Generator().manual_seed(seed)
    engine = engine or Decoding()
    synchronise(engine, policy)
    drawn = engine.generate(policy, prompts, num_generations, generator)
    repeated = [prompt for prompt in prompts for _ in range(num_generations)]
    group = torch.arange(len(prompts)).repeat_interleave(num_generations)
    batch = as_batch(joined(repeated, drawn, policy.pad_id), torch.zeros(len(repeated)), group)
    batch.check()
    reference = _by_whole_logits(policy, batch)
    alone, together = Passes(1, 4096), Passes(num_generations, 4096)
    scored, _ = score_batch(policy, batch, alone)
    shared, _ = score_batch(policy, batch, together)
    allowed = tolerance or ROUNDING.get(next(policy.base.parameters()).dtype, 1e-4)
    differences = Conformance(
        completions=batch.rows,
        tokens=batch.steps,
        sampled=_apart(batch.log_prob, reference),
        scored=_apart(scored, reference),
        shared=_apart(shared, reference),
        gradient=_gradients_apart(policy, batch, alone, together),
        tolerance=allowed,
    )
    for name in ("sampled", "scored", "shared"):
        difference = getattr(differences, name)
        refuse_unless(
            difference <= allowed,
            f"conformance: {name} log-probabilities differ by {difference:.3g} from the model's "
            f"own, more than {allowed:.3g}, on {type(policy.base).__name__} with layers of kind "
            f"{sorted(layer_kinds(policy.base.config))} and attn_implementation="
            f"{policy.base.config._attn_implementation!r}.",
        )
    return differences


def _made_up(policy: Policy, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    size = policy.base.config.get_text_config().vocab_size
    lengths = (3, 9, 1, 17)
    return [torch.randint(size, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def _by_whole_logits(policy: Policy, batch: Batch) -> torch.Tensor:
    log_prob = torch.zeros_like(batch.log_prob)
    for n in range(batch.rows):
        counted = batch.mask[n]
        end = int(counted.nonzero().max()) + 1
        tokens = batch.observation[n : n + 1, :end].to(policy.device)
        action = batch.action[n, :end].clamp(min=0).to(policy.device)
        logits = policy.base(input_ids=tokens, use_cache=False).logits[0]
        logs = policy.law.log_probs(logits, action).gather(-1, action[:, None])[:, 0]
        log_prob[n, :end] = torch.where(counted[:end], logs.to(log_prob), 0)
    return log_prob


def _gradients_apart(policy: Policy, batch: Batch, one: Passes, other: Passes) -> float:
    """Of Σ ± log π with signs that alternate over rows, so that nothing is symmetric."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    sums = []
    for passes in (one, other):
        total = [torch.zeros_like(p) for p in trained]
        for scored in scored_passes(policy, batch, passes):
            sign = (1.0 - 2.0 * (scored.rows % 2))[:, None].expand_as(scored.mask)
            weight = sign[scored.mask].to(scored.log_prob)
            pieces = torch.autograd.grad(
                (weight * scored.log_prob).sum(), trained, allow_unused=True
            )
            total = [t if g is None else t + g for t, g in zip(total, pieces, strict=True)]
        sums.append(torch.cat([t.flatten().double() for t in total]))
    return float((sums[0] - sums[1]).norm() / sums[0].norm())


def _apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())
