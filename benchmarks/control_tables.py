"""The arithmetic and the tables of `benchmarks/control.py`: pure functions of its measurements."""

import statistics
from typing import Any

from control_work import WORKS, Work

Measurement = dict[str, Any]


def rate(work: Work, measured: Measurement) -> float:
    """Environment steps a second: of the timed part, or of the whole process where that counts."""
    seconds = measured["total_seconds"] if work.total else measured["seconds"]
    return float(measured["steps"] / seconds)


def rates(name: str, trainer: str, measurements: list[Measurement]) -> dict[int, float]:
    """Steps a second by round, of one work and trainer; failures are left out."""
    return {
        row["round"]: rate(WORKS[name], row)
        for row in measurements
        if row["work"] == name and row["trainer"] == trainer and "error" not in row
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratios(ours: dict[int, float], other: dict[int, float]) -> list[float]:
    """ours / other of every round that has both."""
    return [ours[number] / other[number] for number in sorted(ours.keys() & other.keys())]


def speed_rows(measurements: list[Measurement]) -> list[dict[str, Any]]:
    """One row a work and trainer: steps a second, ratio ours / it, the ratio to reach."""
    rows = []
    for name in dict.fromkeys(row["work"] for row in measurements):
        work = WORKS[name]
        ours = rates(name, work.trainers[0], measurements)
        for trainer in work.trainers:
            found = rates(name, trainer, measurements)
            row: dict[str, Any] = {"work": name, "trainer": trainer, "rounds": len(found)}
            if found:
                row["rate"] = spread(list(found.values()))
                compared = ratios(ours, found)
                if compared and trainer != work.trainers[0]:
                    row["ratio"] = spread(compared)
            else:
                row["error"] = _error(name, trainer, measurements)
            if trainer in work.goals:
                row["goal"] = work.goals[trainer]
            rows.append(row)
    return rows


def _error(name: str, trainer: str, measurements: list[Measurement]) -> str:
    for row in measurements:
        if row["work"] == name and row["trainer"] == trainer:
            return str(row["error"])
    return "not measured"


def solve_rows(measurements: list[Measurement]) -> list[dict[str, Any]]:
    """One row a trainer: seconds to the target; a seed that did not reach it took for ever."""
    rows = []
    for trainer in dict.fromkeys(row["trainer"] for row in measurements):
        runs = [row for row in measurements if row["trainer"] == trainer]
        failed = [row["error"] for row in runs if "error" in row]
        solved = [row["seconds"] for row in runs if row.get("solved")]
        seconds = solved + [float("inf")] * (len(runs) - len(solved))
        row = {"trainer": trainer, "seeds": len(runs), "solved": len(solved)}
        row |= {"seconds": spread(seconds)} if solved else {"error": (failed or ["never"])[0]}
        rows.append(row)
    return rows


def cells(record: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Every table as (title, heads, rows of text)."""
    tables = []
    if record.get("speed"):
        heads = ["work", "trainer", "steps/s (range)", "ours / it (range)"]
        body = [_speed_cells(row) for row in speed_rows(record["speed"])]
        tables.append(("Steps per second", heads, body))
    if record.get("solve"):
        heads = ["trainer", "solved", "seconds (range)"]
        body = [_solve_cells(row) for row in solve_rows(record["solve"])]
        title = "Seconds from process start to a mean return of 475"
        tables.append((title, heads, body))
    if record.get("check"):
        heads = ["check", "relative difference", "allowed"]
        body = [
            [row["name"], f"{row['difference']:.1e}", f"{row['allowed']:.0e}"]
            if "difference" in row
            else [row["name"], row["error"], ""]
            for row in record["check"]
        ]
        tables.append(("Vantage against SB3 on the same batch", heads, body))
    if record.get("gpu"):
        tables.append(("On a GPU", ["work", "steps/s (range)"], _gpu(record["gpu"])))
    return tables


def _gpu(measurements: list[Measurement]) -> list[list[str]]:
    found = [row["steps"] / row["seconds"] for row in measurements if "error" not in row]
    shown = _ranged(spread(found), "{:,.0f}") if found else str(measurements[0]["error"])
    return [["tensor CartPole 4096", shown]]


def _speed_cells(row: dict[str, Any]) -> list[str]:
    shown = _ranged(row["rate"], "{:,.0f}") if "rate" in row else row["error"]
    ratio = _ranged(row["ratio"], "{:.2f}") if "ratio" in row else ""
    return [row["work"], row["trainer"], shown, ratio]


def _solve_cells(row: dict[str, Any]) -> list[str]:
    shown = _ranged(row["seconds"], "{:.1f}") if "seconds" in row else row["error"]
    return [row["trainer"], f"{row['solved']} of {row['seeds']}", shown]


def _ranged(values: dict[str, float], form: str) -> str:
    low, high = form.format(values["low"]), form.format(values["high"])
    return f"{form.format(values['median'])} ({low}–{high})"


def markdown(record: dict[str, Any]) -> str:
    """The tables of a record for the documentation."""
    parts = []
    for title, heads, body in cells(record):
        lines = [heads, ["---"] * len(heads), *body]
        table = "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)
        parts.append(f"**{title}**\n\n{table}\n")
    machine = record.get("machine", {})
    parts.append(
        f"`{record.get('command', '')}`; {', '.join(f'{k} {v}' for k, v in machine.items())}\n"
    )
    return "\n".join(parts)


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
