"""What an audit looked at, in words of the task: returns, lengths, groups, a few trajectories."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from vantage.auditing.units import Units
from vantage.pages.numbers import number


class Words(NamedTuple):
    """What things are called in the task at hand."""

    one: str
    several: str
    worth: str
    remedy: str


EPISODES = Words("trajectory", "trajectories", "return", "audit a policy that does better at times")
COMPLETIONS = Words("completion", "completions", "reward", "warm the policy up on examples")


@runtime_checkable
class Looked(Protocol):
    """What a report says of that which was looked at, beside the text of it."""

    @property
    def alike(self) -> bool: ...
    @property
    def examples(self) -> list[str]: ...
    def nothing_to_learn(self) -> str: ...


@dataclass(frozen=True)
class Sample:
    """The trajectories of an audit, summed up.

    Attributes:
        words: what a trajectory, several, and what one is worth are called here.
        trajectories: how many.
        mean, least, most: of their undiscounted returns.
        alike: whether all have the same discounted return, as far as numbers tell.
        mean_length, longest: steps.
        groups: groups of trajectories that share a start; 0 where none do.
        dead_groups: those in which all are worth the same: they teach nothing to an estimator that
            compares trajectories.
        examples: a few trajectories as text, with what each was worth.
    """

    words: Words
    trajectories: int
    mean: float
    least: float
    most: float
    alike: bool
    mean_length: float
    longest: int
    groups: int
    dead_groups: int
    examples: list[str]

    def __str__(self) -> str:
        worth = self.words.worth
        among = (
            f"; {self.dead_groups} of {self.groups} groups have equal {worth}s, which teach an "
            "estimator that compares nothing"
            if self.groups
            else ""
        )
        return (
            f"{self.trajectories:,} {self.words.several}: mean {worth} {number(self.mean)} "
            f"({number(self.least)} to {number(self.most)}), mean length "
            f"{number(self.mean_length)} (at most {self.longest:,}){among}."
        )

    def nothing_to_learn(self) -> str:
        """Why there is no signal where all trajectories were worth the same."""
        dead = f", {self.dead_groups} of {self.groups} groups dead" if self.groups else ""
        return (
            f"Every {self.words.one} got {self.words.worth} {number(self.mean)}: there is nothing "
            f"to learn from, for any estimator ({self.trajectories:,} {self.words.several}{dead}); "
            f"{self.words.remedy}, or make the {self.words.worth} reachable."
        )


def sample_of(sets: list[Units], words: Words) -> Sample:
    """Sum up the trajectories of one or more sets."""
    groups = [
        each.returns[first : first + each.design.shared]
        for each in sets
        if each.design.shared > 1
        for first in range(0, len(each.returns), each.design.shared)
    ]
    returns = [value for each in sets for value in each.returns]
    lengths = [length for each in sets for length in each.lengths]
    worth = [value for each in sets for value in each.discounted]
    least, most = min(worth), max(worth)
    return Sample(
        words=words,
        trajectories=len(returns),
        mean=sum(returns) / len(returns),
        least=min(returns),
        most=max(returns),
        alike=most - least <= 1e-6 * max(abs(least), abs(most)),
        mean_length=sum(lengths) / len(lengths),
        longest=max(lengths),
        groups=len(groups),
        dead_groups=sum(max(group) == min(group) for group in groups),
        examples=sets[0].examples,
    )
