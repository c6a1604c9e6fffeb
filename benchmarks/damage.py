"""Run folders damaged in every way on a list: is each refused by name, or read as it was?

    python benchmarks/damage.py --out benchmarks/results/damage.json

A run in an environment (PPO, normalised, with a best checkpoint), one whose update rule has a
memory (ACER) and one of a language model are copied, one file of the copy is damaged, and the copy
is read by all that read run folders: `vantage.load`, `vantage.read_run` and a resumed run. An
outcome is

refused     one InputError, which names the file or the folder
as it was   nothing was said, and weights and metrics are those of the undamaged folder
before      what is wrong was said on standard error, and the checkpoint before was loaded
other       nothing was said, and they are not
raw         any other exception: a fault of ours
"""

import io
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from machines import processor
from transformers.utils import logging

import vantage as vt
from vantage import language
from vantage.language.model import tiny
from vantage.language.tasks import tiny_tasks

Damage = Callable[[bytes], bytes | None]  # what a file holds -> what it holds after; None: nothing
SOUND = ("refused", "as it was", "before")
TIMES = ("_time", "per_second", "seconds")  # metrics that no two runs share


def in_an_environment(folder: Path, updates: int, resume: bool = False) -> None:
    """A run with a value function, an optimiser, a normaliser and lanes to carry on."""
    vt.train(
        "tensor/CartPole-v1", vt.algorithms.ppo(fragment=8, epochs=1, minibatches=1), lanes=4,
        normalise=True, updates=updates, out=folder, resume=resume, progress=False, keep_best=True,
        evaluate_every=1, evaluation_episodes=2,
    )  # fmt: skip


def of_a_language_model(folder: Path, updates: int, resume: bool = False) -> None:
    """A run of two layers on the addition of two digits."""
    policy = tiny.policy(hidden=16, layers=1, heads=2, max_completion_length=2)
    language.train(
        tiny_tasks.addition(digits=1, num_generations=2), policy, vt.estimators.rloo(), batch=4,
        updates=updates, out=folder, resume=resume, progress=False,
    )  # fmt: skip


def with_a_memory(folder: Path, updates: int, resume: bool = False) -> None:
    """A run of ACER, whose checkpoint holds an average policy and the steps to be replayed."""
    vt.train(
        "tensor/CartPole-v1", vt.algorithms.acer(fragment=8, begin=16, capacity=64), lanes=2,
        updates=updates, out=folder, resume=resume, progress=False,
    )  # fmt: skip


KINDS: dict[str, Callable[..., None]] = {
    "control": in_an_environment,
    "memory": with_a_memory,
    "language": of_a_language_model,
}


# ---- ways to damage a file ---------------------------------------------------------------------


def flipped(content: bytes, share: float) -> bytes:
    """The content with one bit flipped, at that share of its length."""
    at = min(int(share * len(content)), len(content) - 1)
    return content[:at] + bytes([content[at] ^ 1 << at % 7]) + content[at + 1 :]


def flipping(share: float) -> Damage:
    return lambda content: flipped(content, share) if content else content


ANY: dict[str, Damage] = {
    "deleted": lambda content: None,
    "emptied": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "last byte lost": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "twice": lambda content: content * 2,
    "not UTF-8": lambda content: b"\xff\xfe" + content,
    "nested lists": lambda content: b"[" * 200_000,
    "nested objects": lambda content: b'{"a":' * 200_000,
    "a list": lambda content: b"[]",
    "a number": lambda content: b"3",
    "null": lambda content: b"null",
    "empty object": lambda content: b"{}\n",
    "NaN": lambda content: b'{"update": NaN}\n',
    "a number of 5,000 digits": lambda content: b'{"update": ' + b"9" * 5000 + b"}\n",
    "a header of 2^60 bytes": lambda content: (1 << 60).to_bytes(8, "little") + content[8:],
    **{f"a bit flipped at {share:.0%}": flipping(share) for share in (0, 0.2, 0.4, 0.6, 0.8, 1)},
}
VALUES: dict[str, Any] = {
    "null": None, "a list": [], "an object": {}, "a text": "text", "-1": -1, "1e300": 1e300,
    "2^70": 1 << 70, "true": True,
}  # fmt: skip


def keys_of(content: bytes) -> list[tuple[str, ...]]:
    """Where a JSON object has values, two deep; that of the first line, where lines are objects."""
    try:
        plain = json.loads(content.split(b"\n")[0] if b"}\n{" in content else content)
    except ValueError:
        return []
    if not isinstance(plain, dict):
        return []
    inner = [(k, i) for k, part in plain.items() if isinstance(part, dict) for i in part]
    return [*((key,) for key in plain), *inner]


def with_value(content: bytes, place: tuple[str, ...], value: Any, lost: bool = False) -> bytes:
    """JSON with another value at a place, or with none."""
    lines = b"}\n{" in content
    head, _, tail = content.partition(b"\n") if lines else (content, b"", b"")
    plain = json.loads(head)
    part = plain
    for key in place[:-1]:
        part = part[key]
    if lost:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    return json.dumps(plain).encode() + (b"\n" + tail if lines else b"")


def ways(name: str, content: bytes) -> Iterator[tuple[str, Damage]]:
    """Every way to damage a file of that name and content."""
    yield from ANY.items()
    if not name.endswith((".json", ".jsonl")) or len(content) > 1 << 14:
        return
    for place in keys_of(content):
        yield f"{'.'.join(place)} lost", partial(with_value, place=place, value=None, lost=True)
        for kind, value in VALUES.items():
            yield f"{'.'.join(place)} is {kind}", partial(with_value, place=place, value=value)


# ---- what comes of it --------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What reading a damaged folder came to: the kind of it, and the message or the difference."""

    kind: str
    said: str


def what_is_read(folder: Path, train: Callable[..., None], updates: int) -> dict[str, Any]:
    """Weights and metrics of a run folder, before and after it went on to `updates` updates."""
    _, policy, value = vt.load(folder)
    before = {**policy.state_dict(), **(value.state_dict() if value is not None else {})}
    rows = [_without_times(row) for row in vt.read_run(folder).history]
    train(folder, updates, True)
    after = [_without_times(row) for row in vt.read_run(folder).history]
    return {"weights": before, "rows": rows, "resumed": after}


def outcome(
    original: Path, name: Path, damage: Damage, train: Callable[..., None], expected: dict[str, Any]
) -> Outcome:
    """Damage one file of a copy, and read it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(original, Path(temporary) / "run"))
        content = damage((folder / name).read_bytes())
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                got = what_is_read(folder, train, len(expected["resumed"]))
        except vt.InputError as error:
            named = str(folder) in str(error)
            return Outcome("refused" if named else "refused without a name", str(error))
        except Exception as error:
            return Outcome(f"raw {type(error).__name__}", str(error)[:300])
        for part in ("rows", "resumed"):
            if got[part] != expected[part]:
                return Outcome("other", part)
        same = got["weights"].keys() == expected["weights"].keys() and all(
            torch.equal(got["weights"][key], tensor) for key, tensor in expected["weights"].items()
        )
        if not same and f"{folder}" in said.getvalue() and "what is loaded is" in said.getvalue():
            return Outcome("before", said.getvalue())
        return Outcome("as it was", "") if same else Outcome("other", "weights")


def prepared(root: Path, kind: str) -> tuple[Path, dict[str, Any]]:
    """A run of two updates of that kind, and what is read of it undamaged."""
    original = root / kind
    KINDS[kind](original, 2)
    copy = Path(shutil.copytree(original, root / f"{kind}_resumed"))
    return original, what_is_read(copy, KINDS[kind], 3)


def files_of(original: Path) -> list[Path]:
    """The files of a run folder, relative to it."""
    return sorted(f.relative_to(original) for f in original.rglob("*") if f.is_file())


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.endswith(TIMES)}


def main(out: Path | None = None, kinds: tuple[str, ...] = tuple(KINDS), every: int = 1) -> None:
    """Damage run folders in every way, and count what comes of it.

    Args:
        out: where the counts are written, JSON.
        kinds: of runs.
        every: take each so-manieth way only.
    """
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    cases: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as root:
        for kind in kinds:
            original, expected = prepared(Path(root), kind)
            number = 0
            for name in files_of(original):
                for way, damage in ways(name.name, (original / name).read_bytes()):
                    number += 1
                    if number % every:
                        continue
                    came = outcome(original, name, damage, KINDS[kind], expected)
                    counts[kind][came.kind] += 1
                    if came.kind not in SOUND:
                        case = {"run": kind, "file": str(name), "damage": way,
                                "outcome": came.kind, "said": came.said}  # fmt: skip
                        cases.append(case)
                        print(json.dumps(case), flush=True)
            print(kind, dict(counts[kind]), flush=True)
    if out is not None:
        about = {
            "command": " ".join(["python", "benchmarks/damage.py", *sys.argv[1:]]),
            "processor": processor(),
            "vantage": vt.__version__,
        }
        text = {"about": about, "counts": counts, "neither refused nor as it was nor before": cases}
        out.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
