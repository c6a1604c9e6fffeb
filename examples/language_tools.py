"""A language model that plays guess-the-number: what the game says is read, not learned from.

The model sees "guess:", says a digit, hears "higher" or "lower" (as ">" or "<"), and may guess
again, three times in all. The environment is a function; the reward looks at the whole exchange.
Compare with training on single answers: the one difference is `environment=`.

    python examples/language_tools.py
"""

import torch

import vantage as vt
from vantage import language
from vantage.language.model import tiny

GUESSES = 3


def game(said: str, turn: int, row: dict[str, str]) -> str | None:
    """What the game answers to a guess; None once it is right, or no guess at all."""
    if not said.isdigit() or said == row["secret"]:
        return None
    return ":" if int(said) < int(row["secret"]) else ">"  # ":" higher, ">" lower


def reward(completions: list[str], secret: list[str]) -> list[float]:
    """1 if the last guess is the secret, and a little for a first guess that is one digit."""
    return [
        float(text.endswith(answer)) + 0.1 * float(text[:1].isdigit())
        for text, answer in zip(completions, secret, strict=True)
    ]


def main() -> None:
    """Train, then show a few games."""
    task = language.Task(
        [{"prompt": "guess", "secret": str(digit)} for digit in range(8)],
        reward,
        num_generations=8,
        held_out=0.0,
    )
    # one token a turn: the guess itself, without an end
    policy = tiny.policy(hidden=64, heads=4, intermediate=128, max_completion_length=1)
    run = language.train(
        task, policy, vt.estimators.rloo(), updates=150, batch=64, lr=2e-3, environment=game,
        turns=GUESSES, seed=0,
    )  # fmt: skip
    won = [row["reward"] for row in run.history]
    early, late = sum(won[:10]) / 10, sum(won[-10:]) / 10
    print(f"reward of the first 10 updates {early:.2f}, of the last 10 {late:.2f}")
    found = language.rollout(
        task, policy, list(range(8)), torch.Generator().manual_seed(1), num_generations=1,
        environment=game, turns=GUESSES,
    )  # fmt: skip
    for row, ids in zip(found.rows, found.completion_ids, strict=True):
        print(f"secret {task.rows[row]['secret']}: {policy.tokenizer.decode(ids)}")


if __name__ == "__main__":
    main()
