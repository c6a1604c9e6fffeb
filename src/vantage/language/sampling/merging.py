"""Groups of one rollout in place of dead groups of another."""

import torch
from jaxtyping import Bool
from torch import Tensor

from vantage.language.sampling.rollout import Rollout
from vantage.language.sampling.sequences import Sequences, as_batch


def exchanged(
    drawn: Rollout, dead: Bool[Tensor, " groups"], more: Rollout, mask_truncated: bool
) -> Rollout:
    """`drawn` with its dead groups, in order, replaced by the groups of `more`.

    Args:
        dead: which groups of `drawn` go; as many as `more` has.
        mask_truncated: as `more` and `drawn` were made.
    """
    size = len(drawn.rows) // len(dead)
    place = torch.arange(len(drawn.rows)).view(-1, size).clone()
    place[dead] = len(drawn.rows) + torch.arange(len(more.rows)).view(-1, size)
    index = place.flatten()
    both = [_widened(r.sequences, max(_width(drawn), _width(more))) for r in (drawn, more)]
    sequences = Sequences(
        *(torch.cat([getattr(s, name) for s in both])[index] for name in Sequences.__annotations__)
    )
    reward = torch.cat([drawn.reward, more.reward])[index]
    scorable = torch.cat([drawn.scorable, more.scorable])[index]
    counted = scorable & ~sequences.truncated if mask_truncated else scorable
    numbers = index.tolist()
    every_row, every_id = drawn.rows + more.rows, drawn.completion_ids + more.completion_ids
    group = torch.arange(len(dead)).repeat_interleave(size)
    return Rollout(
        rows=[every_row[n] for n in numbers],
        sequences=sequences,
        batch=as_batch(sequences, reward, group, counted),
        completion_ids=[every_id[n] for n in numbers],
        reward=reward,
        parts={name: torch.cat([p, more.parts[name]])[index] for name, p in drawn.parts.items()},
        scorable=scorable,
        tokens=drawn.tokens + more.tokens,
        environment=drawn.environment,
        turns=drawn.turns,
        state=drawn.state,
        metrics={
            name: [*drawn.metrics.get(name, []), *more.metrics.get(name, [])]
            for name in {**drawn.metrics, **more.metrics}
        },
        extra={
            column: _exchanged(drawn, more, column, numbers)
            for column in {**drawn.extra, **more.extra}
        },
    )


def _exchanged(drawn: Rollout, more: Rollout, column: str, numbers: list[int]) -> list[object]:
    """A column of both, where one that a rollout does not have is None throughout."""
    every = [each.extra.get(column, [None] * len(each.rows)) for each in (drawn, more)]
    both = [*every[0], *every[1]]
    return [both[n] for n in numbers]


def _width(drawn: Rollout) -> int:
    return drawn.sequences.tokens.shape[1]


def _widened(sequences: Sequences, width: int) -> Sequences:
    extra = (0, width - sequences.tokens.shape[1])
    pad = torch.nn.functional.pad
    return Sequences(
        pad(sequences.tokens, extra),
        pad(sequences.sampled, extra),
        pad(sequences.log_prob, extra),
        sequences.truncated,
    )
