"""Settings that are known to work, environment by environment.

    run = vt.train("LunarLander-v3", vt.tuned("LunarLander-v3"))

The rows are data, in `tuned.json`: an algorithm of the table with settings, who published them, and
the returns of runs with them that were made with this package.
"""

import difflib
import json
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from vantage.errors import refuse_unless
from vantage.training import algorithms
from vantage.training.algorithm import Algorithm

BACKENDS = ("tensor/", "envpool/")  # other engines of environments of the same name


@dataclass(frozen=True)
class Row:
    """Settings for one environment.

    Attributes:
        env: its Gymnasium id.
        algorithm: name of an algorithm of the table.
        steps: environment steps of a run.
        lanes: copies of the environment.
        discount: γ.
        source: who published the settings, and what differs here.
        settings: the settings of the algorithm.
        normalise: as in `vantage.make`.
        network: keyword arguments of `env.policy` and `env.value`.
        returns: the returns of the runs that were made with them, one a seed: mean return of the
            last 100 episodes of training, actions sampled.
    """

    env: str
    algorithm: str
    steps: int
    lanes: int
    discount: float
    source: str
    settings: dict[str, Any] = field(default_factory=dict)
    normalise: dict[str, Any] | bool = False
    network: dict[str, Any] = field(default_factory=dict)
    returns: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Of the returns, over seeds."""
        return sum(self.returns) / len(self.returns)

    def build(self, **changes: Any) -> Algorithm:
        """The algorithm with these settings, `changes` in place of its own."""
        return algorithms.named(self.algorithm, **self.settings | changes).replace(
            name=f"{self.algorithm}_tuned",
            lanes=self.lanes,
            discount=self.discount,
            steps=self.steps,
            normalise=self.normalise,
            network=self.network,
            source=self.source,
        )

    def outcome(self) -> str:
        """The return that the runs reached: their mean, least and largest."""
        low, high, runs = min(self.returns), max(self.returns), len(self.returns)
        if runs == 1:
            return f"{low:,.4g}, 1 run"
        return f"{self.mean:,.4g} ({low:,.4g} to {high:,.4g}), {runs} runs"

    def __str__(self) -> str:
        algorithm = self.build()
        scaled = ", normalised" if self.normalise else ""
        nets = "".join(f", {name} {each}" for name, each in self.network.items())
        return (
            f"{algorithm}; γ {self.discount:g}{scaled}{nets}; {self.steps:,} steps. "
            f"Source: {self.source} Return here: {self.outcome()}."
        )


@cache
def rows() -> dict[str, Row]:
    """Every row, by environment."""
    text = (files("vantage.training") / "tuned.json").read_text("utf-8")
    return {name: Row(env=name, **row) for name, row in json.loads(text).items()}


def row_of(env: str) -> Row:
    """The row of an environment, whatever engine runs it.

    Raises:
        InputError: there is none, with near matches.
    """
    name, table = env, rows()
    for backend in BACKENDS:
        name = name.removeprefix(backend)
    near = difflib.get_close_matches(name, table, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(table)}."
    refuse_unless(name in table, f"No settings are known to work on {env!r}; {hint}")
    return table[name]


def tuned(env: str, **settings: Any) -> Algorithm:
    """An algorithm with settings that are known to work on an environment.

    They are published ones wherever there are any (`source` says whose), and each row was run with
    this package: `vantage algorithms tuned` lists what came out. Its lanes, γ, normalisers and
    networks count where the run makes the environment, so give `vantage.train` its id; its
    `steps`, where the run is told neither steps nor updates.

    Args:
        env: a Gymnasium id; "tensor/" or "envpool/" before it change nothing.
        **settings: of the algorithm, in place of the row's.

    Raises:
        InputError: no settings for that environment; no such setting.

    >>> tuned("tensor/CartPole-v1").discount
    0.98
    """
    return row_of(env).build(**settings)
