"""The sampling law: how logits become the distribution that tokens are drawn from and scored under.

One object owns temperature, top-k, top-p and min-p. Generation draws from `log_probs`, scoring
reads from it, and so log π(a|s) is of the distribution that a was drawn from.

What a truncated law means for gradients. With top-k, top-p or min-p the support of π(·|s) is a
function of the parameters. Where the policy that is scored is the one that sampled, every sampled
token lies in the support and ∇ log π is that of the law, almost everywhere: a change of parameters
that moves a token across the edge of the support changes J by a jump, which no score sees. Where it
is another policy, the support has moved too: a sampled token may have left it (ratio 0) and tokens
that could not be sampled have entered it (no ratio corrects for those). Training with ratios, or
with a KL to a reference model, therefore refuses a truncated law; see `training.train`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vantage.arguments import checked
from vantage.errors import refuse_unless

NEVER = float("-inf")


@checked
@dataclass(frozen=True)
class SamplingLaw:
    """Temperature, then top-k, then top-p, then min-p, in the order that transformers applies them.

    Attributes:
        temperature: logits are divided by it; > 0.
        top_k: keep the k likeliest tokens (ties with the k-th are kept), or None.
        top_p: keep the fewest likeliest tokens whose probability reaches p, or None.
        min_p: keep tokens at least min_p times as likely as the likeliest, or None.

    >>> law = SamplingLaw(top_k=2)
    >>> law.log_probs(torch.tensor([0.0, 0.0, -1.0])).exp()
    tensor([0.5000, 0.5000, 0.0000])
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        refuse_unless(
            0 < self.temperature < float("inf"),
            f"SamplingLaw(temperature={self.temperature}): must be positive; for the likeliest "
            "completion use generate(..., greedy=True).",
        )
        refuse_unless(
            self.top_k is None or self.top_k >= 1,
            f"SamplingLaw(top_k={self.top_k}): keep at least one token, or None for all.",
        )
        for name in ("top_p", "min_p"):
            share = getattr(self, name)
            refuse_unless(
                share is None or 0 < share <= 1,
                f"SamplingLaw({name}={share}): a probability in (0, 1], or None.",
            )

    @property
    def truncates(self) -> bool:
        """Whether some tokens have probability 0."""
        return self.top_k is not None or self.top_p is not None or self.min_p is not None

    def log_probs(
        self, logits: Float[Tensor, "*grid V"], sampled: Int[Tensor, "*grid"] | None = None
    ) -> Float[Tensor, "*grid V"]:
        """log π(·|s) from a model's logits, −∞ outside the support; in float32 at least.

        Args:
            sampled: tokens [...] drawn under this law, which belong to the support by
                that: rounding may not push one on its edge out.
        """
        return torch.log_softmax(self.scaled(logits, sampled), -1)

    def scaled(
        self, logits: Float[Tensor, "*grid V"], sampled: Int[Tensor, "*grid"] | None = None
    ) -> Float[Tensor, "*grid V"]:
        """Logits over the temperature, −∞ outside the support: log π up to a constant."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        z = wide if self.temperature == 1 else wide / self.temperature
        if not self.truncates:
            return z
        keep = self.support(z.detach())
        if sampled is not None:
            keep = keep.scatter(-1, sampled.unsqueeze(-1), True)
        return torch.where(keep, z, NEVER)

    def support(self, z: Float[Tensor, "*grid V"]) -> Bool[Tensor, "*grid V"]:
        """Which tokens can be sampled, from logits that are divided by the temperature already."""
        keep = torch.ones_like(z, dtype=torch.bool)
        if self.top_k is not None and self.top_k < z.shape[-1]:
            keep &= z >= z.topk(self.top_k, -1).values[..., -1:]
        if self.top_p is not None and self.top_p < 1:
            p, order = torch.where(keep, z, NEVER).softmax(-1).sort(-1, descending=True)
            # a token is kept while those likelier than it do not yet reach top_p
            among = p.cumsum(-1) - p < self.top_p
            keep &= torch.zeros_like(keep).scatter(-1, order, among)
        if self.min_p is not None:
            p = torch.where(keep, z, NEVER).softmax(-1)
            keep &= p >= self.min_p * p.amax(-1, keepdim=True)
        return keep


def draw(
    log_probs: Float[Tensor, "N V"], uniform: Float[Tensor, " N"]
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """One token a row by inverting the distribution function at a uniform number; its log π.

    One random number a token, whatever the vocabulary: a row's draw is a function of its own
    distribution and number alone, and so is a sequence's.
    """
    cumulative = log_probs.exp().cumsum(-1)
    total = cumulative[:, -1:]
    # below the total even if the product rounds up to it: past the last possible token is nothing
    point = uniform[:, None].to(total.dtype) * total
    point = torch.minimum(point, torch.nextafter(total, torch.zeros_like(total)))
    token = torch.searchsorted(cumulative, point, right=True)
    return token.squeeze(-1), log_probs.gather(-1, token).squeeze(-1)
