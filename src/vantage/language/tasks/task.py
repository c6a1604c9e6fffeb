"""Task: prompts to draw from, what a completion is worth, and what is held out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vantage.arguments import checked
from vantage.errors import refuse_unless
from vantage.language.model.trl_names import hinted
from vantage.language.tasks.prompts import (
    Message,
    Prompt,
    as_completion,
    check_prompt,
    decoded,
    encode_prompts,
)
from vantage.language.tasks.rewards import (
    GIVEN,
    REWARD_TIMEOUT,
    RewardFunction,
    Rewards,
    names_parameter,
    score,
    scorers,
)
from vantage.language.tasks.rows import Row, Source, held_out_sets, read_rows
from vantage.language.tasks.trl import of_trainer

# Words of a seed, so that its uses draw from different streams; large, because [seed, update] is
# the seed of an update.
SPLIT, ORDER = 0x53504C49, 0x4F524445


@hinted
@checked
class Task:
    """Rows with prompts, and reward functions.

    Args:
        rows: a list of dicts, the path of a JSONL, CSV or Parquet file, a `datasets.Dataset`, or a
            table of pandas, polars or pyarrow.
        reward: a function (completions, **columns) -> list of numbers or None, or several. They
            get `prompts`, `completion_ids` and every column but the prompt by name, as far as their
            signature asks, and TRL's `log_metric`, `log_extra` and `trainer_state`. Completions are
            strings where prompts are, and lists with one message where prompts are conversations.
            Functions may be asynchronous. None means that a function cannot score a completion: its
            term is dropped.
        num_generations: completions per prompt, which are compared with one another.
        weights: the weights of the reward functions; 1 each by default.
        prompt: the column with the prompts: strings, or lists of {role, content} messages.
        answer: the column with gold answers, which `check_reward` and the verifiers read; it may be
            absent.
        held_out: share of the prompts that are never trained on; or the rows that are, in any form
            that `rows` takes. Several sets are given by name, `{"easy": rows, "hard": rows}`, and
            evaluated each by itself; one of them may be a share.
        seed: the seed of the split and of the order of prompts.
        system: a system message to put in front of every prompt; plain prompts become
            conversations.
        skip_special_tokens: whether rewards see texts without any special token; by default they
            see all but those that start, end and pad a text.
        reward_timeout: seconds that the rewards of a batch may take, all functions together; None:
            any. It holds in the main thread, and not on Windows.
        name: how logs call it.

    Attributes:
        rows: all rows, the training rows and then those held out as a set of their own.
        prompts: their prompts, as given to reward functions.
        train, held_out: numbers of the rows that are trained on, and of those that are not.

    Raises:
        InputError: naming the row or the setting at fault.
    """

    def __init__(
        self,
        rows: Source,
        reward: RewardFunction | Sequence[RewardFunction],
        *,
        num_generations: int = 8,
        weights: Sequence[float] | None = None,
        prompt: str = "prompt",
        answer: str = "answer",
        held_out: float | Source | Mapping[str, float | Source] = 0.1,
        seed: int = 0,
        system: str | None = None,
        skip_special_tokens: bool = False,
        reward_timeout: float | None = REWARD_TIMEOUT,
        name: str = "task",
    ):
        refuse_unless(
            num_generations >= 1, f"Task(num_generations={num_generations}): must be at least 1."
        )
        refuse_unless(
            reward_timeout is None or reward_timeout > 0,
            f"Task(reward_timeout={reward_timeout}): give seconds, or None.",
        )
        given = read_rows(rows)
        (shared, share), apart = held_out_sets(held_out)
        self.rows: list[Row] = [*given]
        # of every set, by name: the numbers of its rows
        self._sets: dict[str, list[int]] = {}
        for name_of_set, held in apart.items():
            self._sets[name_of_set] = list(range(len(self.rows), len(self.rows) + len(held)))
            self.rows += held
        self._own = len(given)
        columns = [column for column in given[0] if column != prompt]
        self._check_columns(prompt, columns)
        self.columns = columns
        self.prompts: list[Prompt] = [
            check_prompt(row[prompt], self.label(n), system) for n, row in enumerate(self.rows)
        ]
        forms = {isinstance(p, str) for p in self.prompts}
        refuse_unless(
            len(forms) == 1,
            "Some prompts are strings and some conversations; give all of them in one form.",
        )
        keys = [repr(p) for p in self.prompts[: len(given)]]
        self.train, drawn = split(keys, share, seed)
        self._sets[shared] = drawn + self._sets.get(shared, [])
        self.held_out = sorted(row for rows in self._sets.values() for row in rows)
        self._refuse_leaks(len(given))
        self.scoring = scorers(reward, weights, columns)
        self.prompt, self.answer, self.system, self.name = prompt, answer, system, name
        self.num_generations, self.seed = num_generations, seed
        self.skip_special_tokens, self.reward_timeout = skip_special_tokens, reward_timeout

    @classmethod
    def from_trl(cls, trainer: Any) -> "Task":
        """The prompts, reward functions, weights and group size of a GRPOTrainer or RLOOTrainer.

        Raises:
            InputError: models of several labels for rewards, tools or environments of the trainer's
                own, or data that cannot be listed.
        """
        return cls(**of_trainer(trainer))

    def __len__(self) -> int:
        """How many rows are trained on."""
        return len(self.train)

    def label(self, row: int) -> str:
        """How messages call a row: by its number in the data that it came from, from 0."""
        if row < self._own:
            return f"row {row}"
        name, rows = next((n, rows) for n, rows in self._sets.items() if row in rows)
        return f"held-out row {row - rows[0]}" + (f" of {name!r}" if name else "")

    @property
    def held_out_sets(self) -> dict[str, list[int]]:
        """Numbers of the rows of every named set that is held out; none where it has no names."""
        held = set(self.held_out)
        return {
            name: [row for row in rows if row in held] for name, rows in self._sets.items() if name
        }

    def encode(self, tokenizer: object) -> list[list[int]]:
        """Token ids of the prompt of every row.

        Raises:
            InputError: conversations, and a tokenizer without a chat template; an empty prompt.
        """
        return encode_prompts(tokenizer, self.prompts)

    def draw(self, update: int, prompts: int, seed: int | None = None) -> list[int]:
        """Rows of the prompts of an update (from 0), where every update takes the same number.

        A function of (seed, update): updates run through a stream of permutations of the training
        rows, one an epoch, so that each row is used once an epoch. An update across the end of an
        epoch may hold a row twice; it then makes two groups.
        """
        return self.stream(update * prompts, prompts, seed)

    def stream(self, start: int, prompts: int, seed: int | None = None) -> list[int]:
        """The rows at places start, start + 1, ... of the stream that `draw` runs through."""
        first_seed = self.seed if seed is None else seed
        first, last = start // len(self), (start + prompts - 1) // len(self)
        orders = [
            np.random.default_rng([first_seed, ORDER, epoch]).permutation(len(self))
            for epoch in range(first, last + 1)
        ]
        places = np.concatenate(orders)[start - first * len(self) :][:prompts]
        return [self.train[place] for place in places]

    def score(
        self,
        rows: Sequence[int],
        completions: Sequence[str | list[Message]],
        completion_ids: Sequence[Sequence[int]] | None = None,
        state: Any = None,
    ) -> Rewards:
        """Rewards of completions; completion n answers the prompt of row rows[n].

        Args:
            rows: [N] numbers of rows, one for every completion.
            completions: [N] texts; or messages, of a conversation.
            completion_ids: [N] their token ids, for functions that ask for them.
            state: how far training is, for functions that ask for `trainer_state`.

        Raises:
            RewardError: a reward function failed or took too long, naming function, row and
                completion.
        """
        held = [self.rows[row] for row in rows]
        prompts = [self.prompts[row] for row in rows]
        self._refuse_missing_ids(completion_ids)
        ids = completion_ids if completion_ids is not None else [[] for _ in rows]
        arguments: dict[str, list[Any]] = {
            "prompts": prompts,
            "completions": [
                as_completion(*pair) for pair in zip(completions, prompts, strict=True)
            ],
            "completion_ids": [[int(token) for token in row] for row in ids],
        }
        arguments |= {column: [row[column] for row in held] for column in self.columns}
        labels = [self.label(row) for row in rows]
        return score(self.scoring, arguments, labels, self.reward_timeout, state)

    def score_ids(
        self,
        rows: Sequence[int],
        completion_ids: Sequence[Sequence[int]],
        tokenizer: Any,
        state: Any = None,
    ) -> Rewards:
        """`score` of token ids; see `decoded`."""
        plain = [[int(token) for token in row] for row in completion_ids]
        texts = decoded(tokenizer, plain, self.skip_special_tokens)
        return self.score(rows, texts, plain, state)

    def describe(self) -> dict[str, object]:
        """What a run folder says of the task; two tasks with other rows differ in it."""
        sets = self.held_out_sets
        data = json.dumps([self.rows, self.prompts], sort_keys=True, default=str)
        return {
            "name": self.name,
            "rows": len(self.rows),
            "train": len(self.train),
            "held_out": len(self.held_out),
            **({"held_out_sets": {n: len(rows) for n, rows in sets.items()}} if sets else {}),
            "rows_sha256": hashlib.sha256(data.encode()).hexdigest(),
            "rewards": dict(zip(self.scoring.functions, self.scoring.weights, strict=True)),
            "num_generations": self.num_generations,
            "seed": self.seed,
        }

    def _refuse_missing_ids(self, completion_ids: object) -> None:
        for name, function in self.scoring.functions.items():
            refuse_unless(
                completion_ids is not None or not names_parameter(function, "completion_ids"),
                f"Reward {name!r} takes completion_ids, and there are only texts; give the ids, or "
                "the tokenizer that makes them.",
            )

    def _check_columns(self, prompt: str, columns: Sequence[str]) -> None:
        refuse_unless(
            prompt in self.rows[0],
            f"The rows have no column {prompt!r}; they have {', '.join(columns)}. Say which holds "
            "the prompts with prompt=.",
        )
        for column in GIVEN:
            refuse_unless(
                column not in columns,
                f"The rows have a column {column!r}, which reward functions get by that name "
                "already; rename it.",
            )
        for number in range(self._own, len(self.rows)):
            missing = [each for each in (prompt, *columns) if each not in self.rows[number]]
            refuse_unless(
                not missing, f"{self.label(number)} has no {', '.join(missing)}; the others have."
            )

    def _refuse_leaks(self, rows: int) -> None:
        trained = {repr(self.prompts[row]) for row in self.train}
        leaked = [row for row in self.held_out if repr(self.prompts[row]) in trained]
        refuse_unless(
            not leaked,
            f"{len(leaked)} prompts are trained on and held out, the first at "
            f"{self.label((leaked or [0])[0])}; take them out of one of the two.",
        )
        refuse_unless(
            self.train, f"All {rows} rows are held out; lower held_out, or give more rows."
        )


def split(keys: Sequence[str], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the rows to train on, and of those to hold out, each in order.

    Rows of equal keys fall on one side. About `share` of the distinct keys are held out, and at
    least one where share > 0 and there are two.

    >>> train, held_out = split(["a", "b", "a", "c"], 0.3, seed=0)
    >>> sorted(train + held_out), len(held_out)
    ([0, 1, 2, 3], 1)
    """
    distinct = list(dict.fromkeys(keys))
    count = round(share * len(distinct))
    if share > 0 and len(distinct) > 1:
        count = max(1, count)
    order = np.random.default_rng([seed, SPLIT]).permutation(len(distinct))
    held = {distinct[place] for place in order[:count]}
    train = [number for number, key in enumerate(keys) if key not in held]
    return train, [number for number, key in enumerate(keys) if key in held]
