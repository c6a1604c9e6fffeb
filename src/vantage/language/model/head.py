"""Log-probabilities and entropies from hidden states, without the logits of all of them at once.

The head maps M hidden states to M × V logits: for 2,000 tokens and a vocabulary of 152,000 that is
1.2 GB, several times over. Here it is applied to a few states at a time, forwards and again
backwards, so that what is held is the hidden states, the weight, and one chunk of logits.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vantage.language.model.law import SamplingLaw

CHUNK_NUMBERS = 1 << 21  # logits held at once: 8 MB in float32


class Scored(NamedTuple):
    """Of M tokens: log π of each, and the entropy of the distribution it came from, in nats."""

    log_prob: Float[Tensor, " M"]
    entropy: Float[Tensor, " M"]


@dataclass(frozen=True)
class Head:
    """From hidden states to logits: a linear layer, and what some architectures do to its output.

    Attributes:
        layer: the vocabulary head.
        softcap: logits become c tanh(logits / c), as in Gemma 2 and 3.
        scale: logits are multiplied by it, as in Cohere and Granite.
    """

    layer: nn.Module
    softcap: float | None = None
    scale: float = 1.0

    def logits(self, hidden: Float[Tensor, "*grid H"]) -> Float[Tensor, "*grid V"]:
        """Logits, [..., V]."""
        return self.finished(self.layer(hidden))

    def finished(self, raw: Float[Tensor, "*grid V"]) -> Float[Tensor, "*grid V"]:
        """The linear layer's output as the model's logits."""
        if self.scale != 1:
            raw = raw * self.scale
        return raw if self.softcap is None else torch.tanh(raw / self.softcap) * self.softcap

    @property
    def plain(self) -> bool:
        """Whether it is a linear layer and nothing more (a LoRA adapter on it is more)."""
        return type(self.layer) is nn.Linear and self.softcap is None and self.scale == 1


def chunk(vocabulary: int, width: int) -> int:
    """How many logits to hold at once: a fifth of the head's own weight, or 8 MB if that is more.

    Every chunk reads the whole weight [V, H]: chunks much smaller than it would be spent on that.
    """
    return max(CHUNK_NUMBERS, vocabulary * width // 5)


def score_hidden(
    head: Head,
    law: SamplingLaw,
    hidden: Float[Tensor, "M H"],
    tokens: Int[Tensor, " M"],
    chunk_numbers: int | None = None,
) -> Scored:
    """log π(token | state) and the entropy of π(·|state) of M states, differentiable.

    Neither pass holds more than `chunk_numbers` logits (a few copies of them).

    Args:
        head, law: hidden states to logits, logits to log-probabilities.
        hidden: [M, H].
        tokens: [M], sampled under the law.
        chunk_numbers: logits at once; by default as `chunk` says.
    """
    if chunk_numbers is None:
        chunk_numbers = chunk(_vocabulary(head.layer), hidden.shape[-1])
    if head.plain:
        layer = head.layer
        return Scored(
            *_LinearScore.apply(hidden, layer.weight, layer.bias, tokens, law, chunk_numbers)
        )
    width = max(1, chunk_numbers // _vocabulary(head.layer))
    pieces = []
    for h, a in zip(hidden.split(width), tokens.split(width), strict=True):
        if torch.is_grad_enabled() and len(hidden) > width:
            pieces.append(checkpoint(score_directly, head, law, h, a, use_reentrant=False))
        else:
            pieces.append(score_directly(head, law, h, a))
    return Scored(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))


def score_directly(
    head: Head, law: SamplingLaw, hidden: Float[Tensor, "*grid H"], tokens: Int[Tensor, "*grid"]
) -> Scored:
    """The same the obvious way, all logits at once: the reference, and what vmap can transform."""
    log_probs = law.log_probs(head.logits(hidden), tokens)
    # where: 0 · ∞ outside the support would be NaN, in the gradient too
    finite = torch.where(log_probs.isfinite(), log_probs, 0)
    entropy = -(log_probs.exp() * finite).sum(-1)
    return Scored(log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), entropy)


def _vocabulary(layer: nn.Module) -> int:
    weight: Any = layer.weight
    return int(weight.shape[0])


class _LinearScore(torch.autograd.Function):
    """`score_hidden` for z = (W h + b)/T restricted to the support.

    With p = softmax(z), H the entropy, u and v the gradients of log π(a) and of H:
    dz_j = u (1[j = a] − p_j) − v p_j (log p_j + H), then dh = Wᵀ dz / T and dW = dz hᵀ / T.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        law: SamplingLaw,
        chunk_numbers: int,
    ) -> tuple[Tensor, Tensor]:
        width = max(1, chunk_numbers // len(weight))
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        log_prob = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        entropy = torch.empty_like(log_prob)
        one_chunk = len(hidden) <= width
        saved = None
        for start in range(0, len(hidden), width):
            chunk = slice(start, start + width)
            logs = _log_probs(hidden[chunk], weight, bias, tokens[chunk], law)
            log_prob[chunk] = logs.gather(-1, tokens[chunk, None]).squeeze(-1)
            entropy[chunk] = _entropy(logs, law)
            saved = logs if one_chunk else None
        ctx.law, ctx.width = law, width
        # one chunk's log-probabilities are kept: the backward pass has no need to make them again
        ctx.save_for_backward(hidden, weight, bias, tokens, entropy, saved)
        ctx.set_materialize_grads(False)
        return log_prob, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        u, v = grads
        hidden, weight, bias, tokens, entropy, saved = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        d_weight = torch.zeros_like(weight) if wants_weight else None
        d_bias = torch.zeros_like(bias) if wants_bias and bias is not None else None
        for start in range(0, len(hidden), ctx.width):
            chunk = slice(start, start + ctx.width)
            h = hidden[chunk]
            logs = saved
            if logs is None:
                logs = _log_probs(h, weight, bias, tokens[chunk], ctx.law)
            own_u, own_v = (None if g is None else g[chunk] for g in (u, v))
            dz = _logit_gradient(logs, tokens[chunk], own_u, own_v, entropy[chunk])
            del logs
            dz = dz.div_(ctx.law.temperature).to(h.dtype)
            if d_hidden is not None:
                d_hidden[chunk] = dz @ weight
            if d_weight is not None:
                d_weight.addmm_(dz.T, h)
            if d_bias is not None:
                d_bias += dz.sum(0)
        return d_hidden, d_weight, d_bias, None, None, None


def _log_probs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, law: SamplingLaw
) -> Tensor:
    return law.log_probs(nn.functional.linear(hidden, weight, bias), tokens)


def _entropy(logs: Tensor, law: SamplingLaw) -> Tensor:
    p = logs.exp()
    finite = torch.where(p > 0, logs, 0) if law.truncates else logs
    return -torch.einsum("nv,nv->n", p, finite)


def _logit_gradient(
    logs: Tensor, tokens: Tensor, u: Tensor | None, v: Tensor | None, entropy: Tensor
) -> Tensor:
    # in place where it can be: a chunk of logits is what memory there is
    dz = logs.exp()
    if v is None:
        assert u is not None
        dz.mul_(-u[:, None])
    else:
        scale = torch.where(dz > 0, logs, 0).add_(entropy[:, None]).mul_(v[:, None])
        dz.mul_((scale if u is None else scale.add_(u[:, None])).neg_())
    if u is not None:
        dz.scatter_add_(1, tokens[:, None], u[:, None].to(dz.dtype))
    return dz
