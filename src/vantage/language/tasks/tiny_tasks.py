"""Tasks for tiny models: arithmetic and strings, with gold answers and exact match as reward.

Every character is a token, most significant digit first and without padding: "37+85=" is answered
by "122". Nothing is done to make the carry easier.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from vantage.errors import refuse_unless
from vantage.language.model.tiny import LETTERS
from vantage.language.tasks.task import Task, split
from vantage.language.tasks.verifiers import exact_match

DRAW = 0x44524157  # word of a seed


def addition(
    digits: int = 2, *, num_generations: int = 8, held_out: float = 0.1, seed: int = 0
) -> Task:
    """a + b of two numbers of `digits` digits: all pairs, 8,100 of them for two digits.

    A pair is held out in both orders, so that a + b is never seen in training as b + a.

    Args:
        digits: the digits of each number, without leading zeros; 1 to 3.
        num_generations, held_out, seed: as in `Task`.

    >>> task = addition()
    >>> task.rows[0], len(task.rows), len(task.held_out)
    ({'prompt': '10+10=', 'answer': '20'}, 8100, 814)
    """
    refuse_unless(1 <= digits <= 3, f"addition(digits={digits}): 1, 2 or 3.")
    numbers = range(10 ** (digits - 1), 10**digits)
    pairs = [(a, b) for a in numbers for b in numbers]
    rows = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a, b in pairs]
    keys = [f"{min(pair)} {max(pair)}" for pair in pairs]
    return _task("addition", rows, keys, num_generations, held_out, seed)


def copy(**settings: Any) -> Task:
    """Say the word again: "cab>" -> "cab". Settings as in `strings`."""
    return strings("copy", lambda word: word, **settings)


def reverse(**settings: Any) -> Task:
    """Say the word backwards: "cab>" -> "bac". Settings as in `strings`."""
    return strings("reverse", lambda word: word[::-1], **settings)


def sort_letters(**settings: Any) -> Task:
    """Put the letters in order: "cab>" -> "abc". Settings as in `strings`."""
    return strings("sort_letters", lambda word: "".join(sorted(word)), **settings)


def strings(
    name: str,
    rule: Callable[[str], str],
    *,
    letters: int = 8,
    lengths: tuple[int, int] = (2, 5),
    count: int = 4000,
    num_generations: int = 8,
    held_out: float = 0.1,
    seed: int = 0,
) -> Task:
    """Words of random letters, all different, and what a rule makes of them.

    Args:
        name: how logs call the task.
        rule: word -> answer.
        letters: how many of the alphabet are used.
        lengths: the lengths of the words, least and largest.
        count: how many words, or all there are if those are fewer.
        num_generations, held_out, seed: as in `Task`.

    >>> reverse(count=3).rows[1]
    {'prompt': 'cfedf>', 'answer': 'fdefc'}
    """
    low, high = lengths
    refuse_unless(
        1 <= low <= high and 1 <= letters <= len(LETTERS) and count >= 1,
        f"{name}(letters={letters}, lengths={lengths}, count={count}): lengths rise from 1 or more "
        f"and letters are 1 to {len(LETTERS)}.",
    )
    possible = sum(letters**size for size in range(low, high + 1))
    random = np.random.default_rng([seed, DRAW])
    words: dict[str, None] = {}
    while len(words) < min(count, possible):
        size = int(random.integers(low, high + 1))
        words["".join(LETTERS[k] for k in random.integers(letters, size=size))] = None
    rows = [{"prompt": f"{word}>", "answer": rule(word)} for word in words]
    return _task(name, rows, list(words), num_generations, held_out, seed)


def longest_answer(task: Task) -> int:
    """Characters, and so tokens, of the longest gold answer."""
    return max(len(row[task.answer]) for row in task.rows)


def _task(
    name: str,
    rows: list[dict[str, str]],
    keys: list[str],
    num_generations: int,
    held_out: float,
    seed: int,
) -> Task:
    refuse_unless(
        0 <= held_out < 1, f"{name}(held_out={held_out}): a share of the rows, in [0, 1)."
    )
    train, held = split(keys, held_out, seed)
    return Task(
        _rows_at(rows, train),
        exact_match(),
        num_generations=num_generations,
        held_out=_rows_at(rows, held) if held else 0.0,
        seed=seed,
        name=name,
    )


def _rows_at(rows: list[dict[str, str]], places: Iterable[int]) -> list[dict[str, str]]:
    return [rows[place] for place in places]


TASKS: dict[str, Callable[..., Task]] = {
    "addition": addition,
    "copy": copy,
    "reverse": reverse,
    "sort_letters": sort_letters,
}
