"""Write the tables of docs/losses.md from the committed results: `python docs/losses_page.py`."""

import json
import re
from pathlib import Path
from typing import Any

from vantage.conformance.losses.problems import OFF_POLICY, ON_POLICY, TEMPERED, Problem

PAGE = Path(__file__).with_name("losses.md")
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "losses.json"
MARK = re.compile(r"(<!-- losses: (?P<framework>[^>]*?) -->\n).*?(\n<!-- /losses -->)", re.DOTALL)
BATTERY = re.compile(r"(<!-- battery -->\n).*?(\n<!-- /battery -->)", re.DOTALL)
PROBLEMS = (*ON_POLICY, *OFF_POLICY, *TEMPERED)
HEADINGS = ("loss", "settings", "climbs", "largest angle", "its length depends on", "beware of")
SHORT = {
    "the number of completions per prompt": "K",
    "the number of prompts in the batch": "prompts",
    "padding": "padding",
    "the scale of the rewards": "reward scale",
    "the level of the rewards": "reward level",
    "the probability of success": "success rate",
    "the length of the completions": "length",
}
KL = {
    "exact": "",
    "reverse": "",
    "none": "KL: no gradient",
    "wrong sign": "KL: **pushes away from the reference**",
    "beside": "KL: gradient of no KL",
}


def main() -> None:
    """Replace what stands between the marks of each framework."""
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")


def filled(page: str) -> str:
    """The page with its tables made anew."""
    losses = json.loads(RESULTS.read_text("utf-8"))["losses"]

    def table(found: re.Match[str]) -> str:
        rows = [_row(loss) for loss in losses if loss["framework"] == found["framework"]]
        lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
        lines += ["| " + " | ".join(cell or "–" for cell in row) + " |" for row in rows]
        return found[1] + "\n".join(lines) + found[3]

    head = ["| problem | prompts, as (probability: reward, …) |", "| --- | --- |"]
    lines = head + [f"| {problem.name} | {_trees(problem)} |" for problem in PROBLEMS]
    page = BATTERY.sub(lambda found: found[1] + "\n".join(lines) + found[2], page)
    return MARK.sub(table, page)


def _trees(problem: Problem) -> str:
    trees = "; ".join(map(str, problem.prompts))
    if problem.behaviour:
        trees += f"; batches {problem.behaviour:g} ∇J old"
    if problem.temperature != 1:
        trees += f"; logits divided by {problem.temperature:g}, for losses that read them"
    return trees


def _row(loss: dict[str, Any]) -> tuple[str, ...]:
    factor = loss["factor"]
    climbs = {
        "climbs": "∇J",
        "factor": f"{factor['formula']} · ∇J",
        "tilted": "tilted",
        "downhill": "−∇J",
        "nothing": "nothing",
        "not finite": "not finite",
    }[loss["verdict"]]
    worst = max(loss["cells"], key=lambda cell: cell["angle"])
    tilted = loss["verdict"] == "tilted"
    return (
        f"`{loss['name']}`",
        loss["settings"].replace("|", "\\|"),
        climbs,
        f"{loss['angle']:.3g}°, {worst['problem']}" if tilted else "",
        ", ".join(SHORT[what] for what in factor["depends_on"]),
        "; ".join(_beware(loss)),
    )


def _beware(loss: dict[str, Any]) -> list[str]:
    kinds = [fault.split(":")[0] for fault in loss["faults"]]
    words = {
        "passes": "passes",
        "padding": "padding",
        "a group of one": "groups of one",
        "no gradient": "steps without gradient",
    }
    found = [words[kind] for kind in kinds if kind in words]
    kl = KL[loss["kl"]["aim"]] if loss["kl"] else ""
    return found + ([kl] if kl else [])


if __name__ == "__main__":
    main()
