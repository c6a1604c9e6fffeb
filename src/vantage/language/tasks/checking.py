"""check_reward: a reward proved on answers that are known to be right, and on wrong ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.language.tasks.rewards import RewardError, Rewards
from vantage.language.tasks.rows import Row
from vantage.language.tasks.task import Task

PICK = 0x57524F4E  # word of a seed
TOLERANCE = 1e-9  # of rewards that should be equal


@dataclass(frozen=True)
class RewardCheck:
    """What a reward gave to gold, wrong and empty answers; prints as a table.

    Attributes:
        rows: how many rows were looked at.
        full: the full reward.
        rewards: kind of answer -> [N] rewards of those that could be scored.
        unscorable: kind of answer -> how many could not.
    """

    rows: int
    full: float
    rewards: dict[str, Tensor]
    unscorable: dict[str, int]

    def __str__(self) -> str:
        head = f"{'answers':<16}{'number':>8}{'lowest':>10}{'mean':>10}{'highest':>10}{'None':>6}"
        lines = [f"Reward on {self.rows} rows; full reward {self.full:g}", head]
        for kind, values in self.rewards.items():
            figures = (values.min(), values.mean(), values.max()) if len(values) else ()
            cells = "".join(f"{float(figure):>10.4g}" for figure in figures) or f"{'–':>10}" * 3
            lines.append(f"{kind:<16}{len(values):>8}{cells}{self.unscorable[kind]:>6}")
        return "\n".join([*lines, "Gold answers get the full reward, wrong ones less; repeatable."])


@checked
def check_reward(
    task: Task,
    *,
    rows: int = 200,
    wrong: int = 3,
    full: float | None = None,
    completion: Callable[[Row], str] | None = None,
    tokenizer: Any = None,
    seed: int = 0,
) -> RewardCheck:
    """Prove a task's reward: gold answers get all of it, others do not, and it is repeatable.

    Args:
        task: its column of gold answers is `task.answer`.
        rows: at most so many rows are looked at, drawn at random.
        wrong: how many gold answers of other rows, different from the row's own, are tried on it.
        full: the full reward; the largest one given to any answer where None.
        completion: row -> the completion that gives its gold answer, for rewards that ask for a
            form; the answer as text where None.
        tokenizer: for rewards that ask for completion_ids.
        seed: the seed of the draws.

    Returns:
        RewardCheck, which prints as a table.

    Raises:
        RewardError: naming the row and the completion that disprove it.
        InputError: no gold answers.

    >>> from vantage.language.tasks.verifiers import number
    >>> data = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(4)]
    >>> print(check_reward(Task(data, number())))
    Reward on 4 rows; full reward 1
    answers           number    lowest      mean   highest  None
    gold                   4         1         1         1     0
    of other rows         12         0         0         0     0
    empty                  4         0         0         0     0
    Gold answers get the full reward, wrong ones less; repeatable.
    """
    subset, golds = _gold(task, rows, completion, seed)
    tried = {"gold": (subset, golds), "of other rows": _swapped(subset, golds, wrong, seed)}
    tried["empty"] = (subset, [""] * len(subset))
    given = {kind: _score(task, *pair, tokenizer) for kind, pair in tried.items()}
    for kind, (places, texts) in tried.items():
        _refuse_chance(task, places, texts, given[kind], tokenizer)
    scored = {kind: rewards.total[rewards.scorable] for kind, rewards in given.items()}
    refuse_unless(
        any(len(values) for values in scored.values()),
        "No answer could be scored: the reward is None for all of them.",
    )
    best = float(torch.cat(list(scored.values())).max()) if full is None else full
    _refuse_unfair(task, tried, given, best)
    missing = {kind: int((~rewards.scorable).sum()) for kind, rewards in given.items()}
    return RewardCheck(len(subset), best, scored, missing)


def _gold(
    task: Task, rows: int, completion: Callable[[Row], str] | None, seed: int
) -> tuple[list[int], list[str]]:
    having = [n for n, row in enumerate(task.rows) if row.get(task.answer) is not None]
    refuse_unless(
        having or completion is not None,
        f"No row has a gold answer in column {task.answer!r}; say which column with "
        "Task(answer=...), or give check_reward a function completion=.",
    )
    having = having if completion is None else list(range(len(task.rows)))
    order = np.random.default_rng([seed, PICK]).permutation(len(having))
    places = sorted(having[place] for place in order[:rows])
    write = completion or (lambda row: str(row[task.answer]))
    return places, [write(task.rows[row]) for row in places]


def _swapped(
    numbers: Sequence[int], golds: Sequence[str], wrong: int, seed: int
) -> tuple[list[int], list[str]]:
    """Up to `wrong` answers of other rows for every row, none equal to its own."""
    random = np.random.default_rng([seed, PICK, 1])
    distinct = list(dict.fromkeys(golds))
    places, texts = [], []
    for row, gold in zip(numbers, golds, strict=True):
        picks = random.permutation(len(distinct))[: wrong + 1]
        others = [distinct[pick] for pick in picks if distinct[pick] != gold][:wrong]
        places += [row] * len(others)
        texts += others
    return places, texts


def _score(task: Task, places: Sequence[int], texts: Sequence[str], tokenizer: Any) -> Rewards:
    if not places:
        return Rewards(torch.zeros(0).double(), torch.zeros(0, dtype=torch.bool), {})
    ids = None
    if tokenizer is not None:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return task.score(places, texts, ids)


def _refuse_chance(
    task: Task, places: Sequence[int], texts: Sequence[str], once: Rewards, tokenizer: Any
) -> None:
    """Scored again, the other way round: neither chance nor neighbours may count."""
    again = _score(task, places[::-1], texts[::-1], tokenizer)
    for n, (row, text) in enumerate(zip(places, texts, strict=True)):
        first, second = once.total[n].item(), again.total[-1 - n].item()
        if abs(first - second) > TOLERANCE or once.scorable[n] != again.scorable[-1 - n]:
            raise RewardError(
                f"The reward of {text!r} at {task.label(row)} is {first:g} once and {second:g} in "
                "a batch of another order; it must depend on nothing but the completion and its "
                "row."
            )


def _refuse_unfair(
    task: Task,
    tried: dict[str, tuple[list[int], list[str]]],
    given: dict[str, Rewards],
    full: float,
) -> None:
    for kind, (places, texts) in tried.items():
        rewards = given[kind]
        for n, (row, text) in enumerate(zip(places, texts, strict=True)):
            reward = rewards.total[n].item()
            if not rewards.scorable[n]:
                continue
            if kind == "gold" and abs(reward - full) > TOLERANCE:
                raise RewardError(
                    f"The gold answer {text!r} at {task.label(row)} gets {reward:g}, not the full "
                    f"reward of {full:g}; mend the reward or the answer, or give full= or "
                    "completion=."
                )
            if kind != "gold" and reward > full - TOLERANCE:
                raise RewardError(
                    f"The wrong answer {text!r} at {task.label(row)} gets {reward:g}, as much as "
                    "the gold answer; the reward cannot tell them apart."
                )
