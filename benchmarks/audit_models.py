"""A small sequence model whose every kind of layer matters to trajectory gradients."""

import torch
from torch import Tensor, nn

import vantage as vt
from vantage.batch import Batch

VOCABULARY, WIDTH, HEADS, LAYERS, LENGTH, ROWS = 64, 32, 4, 2, 24, 32


class Block(nn.Module):
    """Causal attention and a perceptron, normalised first."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.project, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], 3, HEADS, WIDTH // HEADS)
        query, key, value = self.project(self.before(x)).view(shape).unbind(-3)
        products = torch.einsum("...thd,...shd->...hts", query, key) / (WIDTH // HEADS) ** 0.5
        causal = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool).tril()
        share = products.masked_fill(~causal, -1e9).softmax(-1)
        mixed = torch.einsum("...hts,...shd->...thd", share, value).flatten(-2)
        x = x + self.out(mixed)
        return x + self.down(torch.nn.functional.gelu(self.up(self.after(x))))


class Sequence(nn.Module):
    """Embedding, two blocks, LayerNorm, and a head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.place = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, token: Tensor) -> Tensor:
        x = self.embedding(token) + self.place[: token.shape[-1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embedding.weight.T


class SequencePolicy(vt.Categorical):
    """A categorical policy whose logits look at earlier steps."""

    memoryless = False


def sequence_policy() -> vt.Policy:
    """The policy, from a fixed seed."""
    torch.manual_seed(0)
    return SequencePolicy(Sequence())


def sequence_batch() -> Batch:
    """Random tokens, every row of full length."""
    generator = torch.Generator().manual_seed(1)
    shape = (ROWS, LENGTH)
    last = (torch.arange(LENGTH) == LENGTH - 1).expand(shape)
    return Batch(
        observation=torch.randint(VOCABULARY, shape, generator=generator),
        action=torch.randint(VOCABULARY, shape, generator=generator),
        reward=torch.randn(shape, generator=generator),
        discount=torch.ones(shape),
        boundary=last,
        bootstrap=torch.zeros(shape),
        log_prob=torch.zeros(shape),
        mask=torch.ones(shape, dtype=torch.bool),
        episode=torch.arange(ROWS)[:, None].expand(shape),
        group=torch.arange(ROWS),
        weight=torch.full((ROWS,), 1 / ROWS),
    )
