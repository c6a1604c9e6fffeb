"""Problems small enough that every batch of a loss can be listed, and checked by hand.

A problem is one or more prompts. Each is a tree of decisions whose leaves are rewards:

    choice(1/2, 1.0, choice(1/4, 3.0, 0.0))

is a prompt of which half of the completions end at once with reward 1, and the others take a second
decision. Every decision has logits of its own, so that ∇J has a block for each.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vantage import exact
from vantage.batch import Batch
from vantage.exact.mdp import MDP
from vantage.policies import SoftmaxTable


@dataclass(frozen=True)
class Decision:
    """What may happen, as pairs: a probability, and a reward (the end) or the next decision."""

    options: tuple[tuple[float, "float | Decision"], ...]

    def __str__(self) -> str:
        shown = (f"{p:g}: {outcome:g}" if isinstance(outcome, float) else f"{p:g}: {outcome}"
                 for p, outcome in self.options)  # fmt: skip
        return "(" + ", ".join(shown) + ")"


def choice(p: float, first: float | Decision, second: float | Decision) -> Decision:
    """A decision between two actions, the first of probability p."""
    return Decision(((p, first), (1 - p, second)))


@dataclass(frozen=True)
class Problem:
    """Prompts, each equally likely, and who answers them.

    Attributes:
        name: what it is there to show.
        prompts: their trees, with equal numbers of actions.
        behaviour: the policy that samples is so many steps of ∇J behind; 0 is on policy.
        temperature: the temperature of the sampling law, π = softmax(logits/temperature). The
            parameters are the logits.
    """

    name: str
    prompts: tuple[Decision, ...]
    behaviour: float = 0.0
    temperature: float = 1.0

    @cached_property
    def process(self) -> "Process":
        """The prompts' trees as one MDP that starts in each with equal probability."""
        return _process(self.prompts)

    @cached_property
    def policy(self) -> SoftmaxTable:
        """The policy whose gradient is examined: its logits are those of the law, z/τ."""
        return self.process.policy

    @cached_property
    def sampler(self) -> SoftmaxTable:
        """The policy that samples."""
        if self.behaviour == 0:
            return self.policy
        other = SoftmaxTable(*self.policy.logits.shape)
        step = exact.gradient(self.process.mdp, self.policy).detach().view_as(self.policy.logits)
        other.logits.data = self.policy.logits.data - self.behaviour * step
        return other

    @cached_property
    def every(self) -> Batch:
        """All completions; weight: their probability under the policy that samples.

        There is a masked step more than the longest needs, so that padding is always there.
        """
        value = exact.value(self.process.mdp, self.policy).V.detach()
        listed = exact.enumerate(self.process.mdp, self.sampler, value=value)
        return listed.map(lambda tensor: with_padding(tensor) if tensor.ndim > 1 else tensor)

    @cached_property
    def gradient(self) -> Float[Tensor, " P"]:
        """∇J with respect to the logits."""
        return exact.gradient(self.process.mdp, self.policy).detach() / self.temperature

    @cached_property
    def greedy_return(self) -> Float[Tensor, " prompts"]:
        """The return of the likeliest completion of every prompt."""
        return torch.tensor([_greedy(prompt) for prompt in self.prompts], dtype=torch.float64)

    def __str__(self) -> str:
        heading = "one prompt" if len(self.prompts) == 1 else f"{len(self.prompts)} prompts"
        return (
            f"{self.name}: {heading}, probability: reward = {' and '.join(map(str, self.prompts))}"
        )


class Process(NamedTuple):
    """A problem as an MDP.

    Attributes:
        mdp: its states are the decisions, those of the prompts first, and then the end.
        policy: π of each decision.
        labels: a name for every decision.
    """

    mdp: MDP
    policy: SoftmaxTable
    labels: tuple[str, ...]


def _process(prompts: tuple[Decision, ...]) -> Process:
    decisions = list(prompts)
    labels = [f"prompt {n + 1}" if len(prompts) > 1 else "step 1" for n in range(len(prompts))]
    arrows: list[tuple[int, int, int | None, float]] = []  # state, action, next, reward
    for state, decision in enumerate(decisions):  # grows as later decisions are met
        for action, (_, outcome) in enumerate(decision.options):
            if isinstance(outcome, Decision):
                arrows.append((state, action, len(decisions), 0.0))
                decisions.append(outcome)
                labels.append(f"{labels[state]}, after action {action + 1}")
            else:
                arrows.append((state, action, None, outcome))
    states, actions = len(decisions) + 1, len(prompts[0].options)
    transition, reward = torch.zeros(2, states, actions, states, dtype=torch.float64)
    for state, action, following, worth in arrows:
        target = states - 1 if following is None else following
        transition[state, action, target], reward[state, action, target] = 1, worth
    initial = torch.zeros(states, dtype=torch.float64)
    initial[: len(prompts)] = 1 / len(prompts)
    policy = SoftmaxTable(states, actions)
    policy.logits.data[: states - 1] = torch.tensor(
        [[p for p, _ in decision.options] for decision in decisions], dtype=torch.float64
    ).log()
    end = torch.arange(states) == states - 1
    mdp = MDP(transition=transition, reward=reward, initial=initial, terminal=end)
    return Process(mdp, policy, tuple(labels))


def _greedy(outcome: float | Decision) -> float:
    if not isinstance(outcome, Decision):
        return outcome
    return _greedy(max(outcome.options, key=lambda option: option[0])[1])


def with_padding(steps: Tensor, more: int = 1) -> Tensor:
    """A [N, T, ...] tensor with masked steps behind, which hold 0: prompt 1, its first action."""
    return torch.cat([steps, torch.zeros_like(steps[:, :1]).repeat_interleave(more, 1)], 1)


ONE = Problem("one decision", (choice(0.5, 1.0, 0.0),))
LENGTHS = Problem("unequal lengths", (choice(0.5, 1.0, choice(0.5, 3.0, 0.0)),))
SCALES = Problem("rewards of unequal scale", (choice(0.5, 1.0, 0.0), choice(0.5, 10.0, 0.0)))
LEVELS = Problem("rewards of unequal level", (choice(0.5, 1.0, 0.0), choice(0.25, 12.0, 7.0)))
ON_POLICY = (
    ONE,
    Problem("a likely success", (choice(0.75, 1.0, 0.0),)),
    Problem("costs", (choice(0.5, -1.0, -2.0),)),
    Problem("nothing to learn", (choice(0.75, 1.0, 1.0),)),
    Problem("three choices", (Decision(((0.5, 3.0), (0.25, 1.0), (0.25, 0.0))),)),
    LENGTHS,
    Problem("two decisions", (choice(0.5, choice(0.25, 1.0, 0.0), choice(0.5, 2.0, 3.0)),)),
    SCALES,
    Problem("rare success", (choice(0.125, 1.0, 0.0), choice(0.5, 1.0, 0.0))),
    LEVELS,
    Problem("lengths of two prompts", (*LENGTHS.prompts, choice(0.5, 1.0, 0.0))),
    Problem("three prompts", (*LEVELS.prompts, choice(0.5, 2.0, 5.0))),
)
OFF_POLICY = (
    Problem("one step behind, unequal scale", SCALES.prompts, behaviour=0.1),
    Problem("one step behind, unequal lengths", LENGTHS.prompts, behaviour=0.3),
)
UNEVEN = (choice(0.75, 1.0, choice(0.25, 2.0, 0.0)),)
TEMPERED = (
    Problem("temperature 2", UNEVEN, temperature=2.0),
    Problem("temperature 1/2", UNEVEN, temperature=0.5),
)
