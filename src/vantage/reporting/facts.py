"""The facts of a run in few words: how far it is, what it reached, how long it took."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vantage.errors import InputError
from vantage.pages.numbers import number
from vantage.reporting.subject import Subject
from vantage.reporting.summary import signal_at_end
from vantage.runs.checkpoint import POSITION
from vantage.runs.progress import return_text
from vantage.runs.retained import BEST, kept_updates
from vantage.runs.run import CHECKPOINT
from vantage.runs.stored import object_of


def state(subject: Subject) -> str:
    """How far a run is, in a word or two."""
    share, history = subject.share_done, subject.history
    if not history:
        return "not begun"
    if share is None or share >= 1:
        return "finished"
    return f"{share:.0%} done"


def facts(subject: Subject) -> dict[str, str]:
    """What is shown above all else: a name and a value each, those that there are."""
    last = subject.last
    facts_: dict[str, str | None] = {"state": state(subject)}
    if subject.language:
        facts_["reward at the end"] = _text(subject.late_mean("return"))
    else:
        facts_["return, last 100 episodes"] = _text(last("return_100"))
    facts_ |= _evaluations(subject)
    snr = signal_at_end(subject)
    facts_["SNR at the end"] = None if snr is None else number(snr.value)
    facts_["updates"] = f"{len(subject.history):,}"
    for name, label in (("steps", "steps"), ("num_tokens", "tokens")):
        facts_[label] = None if (count := last(name)) is None else f"{count:,.0f}"
    seconds = float(subject.metric("step_time").sum())
    facts_["time"] = duration(seconds) if seconds else None
    for name in ("steps", "tokens"):
        rate = subject.late_mean(f"{name}_per_second")
        facts_[f"{name} a second"] = None if rate is None else f"{rate:,.0f}"
    return {label: text for label, text in facts_.items() if text is not None}


def duration(seconds: float) -> str:
    """Time as people say it.

    >>> duration(0.5), duration(75), duration(3723), duration(200_000)
    ('0.5 s', '1 min 15 s', '1 h 2 min', '2 d 7 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(i for i, (_, size) in enumerate(units) if seconds >= size)
    (name, size), (smaller, divisor) = units[first : first + 2]
    return f"{int(seconds // size):,} {name} {int(seconds % size // divisor)} {smaller}"


def checkpoints(folder: Path) -> list[tuple[str, str, str, str]]:
    """Checkpoints of a run folder: where, of which update, how large, and how they are loaded."""
    every = [("the latest", folder / CHECKPOINT, "")]
    every += [(f"update {n}", path, f"update={n}") for n, path in kept_updates(folder).items()]
    every += [("the best", folder / BEST, "best=True")]
    lines = []
    for name, path, asked in every:
        if path.is_symlink() or not path.is_dir():
            continue
        arguments = ", ".join(filter(None, [repr(str(folder)), asked]))
        size = sum(f.lstat().st_size for f in path.rglob("*") if f.is_file()) / 1e6
        lines.append((name, _update_of(path), f"{size:,.2f} MB", f"vt.load({arguments})"))
    return lines


def _update_of(path: Path) -> str:
    try:
        return str(object_of(path / POSITION).get("updates", "–"))
    except InputError:
        return "cannot be read"


def _evaluations(subject: Subject) -> dict[str, str]:
    """The last evaluation, and that of every held-out set."""
    places = {"evaluated": "eval"}
    places |= {f"on {name}": f"eval/{name}" for name in subject.evaluation_sets}
    every = {label: subject.evaluation(where) for label, where in places.items()}
    return {label + result[1]: result[0] for label, result in every.items() if result}


def _text(value: float | None) -> str | None:
    return None if value is None else return_text(value)


def resumed(config: Mapping[str, Any]) -> list[str]:
    """When a run was carried on with other settings, in sentences."""
    changes = config.get("resumed")
    if not isinstance(changes, list):
        return []
    lines = []
    for change in changes:
        if isinstance(change, Mapping) and isinstance(change.get("before"), Mapping):
            names = ", ".join(map(str, change["before"]))
            lines.append(
                f"Carried on after {change.get('updates', '?')} updates with other {names}."
            )
    return lines
