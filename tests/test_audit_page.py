"""The audit's page: whole, honest about what is undetermined, safe, and the same every time."""

import math
import re
from dataclasses import fields, replace
from functools import lru_cache
from html.parser import HTMLParser

import pytest

from vantage.auditing.page import page
from vantage.auditing.planner import Plan
from vantage.auditing.reading import READING
from vantage.auditing.record import Row
from vantage.auditing.report import Report
from vantage.pages.numbers import number
from vantage.statistics.intervals import Estimate

NAN, INF = math.nan, math.inf
WHY = "undetermined: ||G||^2 cannot be told from zero; draw more units"
FEW = "optimistic: 6.6 of 16 units carry it; draw more units"
VOID = {"meta", "br", "wbr", "link", "img", "hr", "input"}


def row(name: str, **changed: Estimate) -> Row:
    """A row whose statistics are all different, so that each can be looked for."""
    statistics = [f.name for f in fields(Row) if f.type in (Estimate, "Estimate")]
    found = {
        statistic: Estimate(0.101 * (i + 1), 0.09 * (i + 1), 0.12 * (i + 1))
        for i, statistic in enumerate(statistics)
    }
    return Row(name, "none", 8, "always", **(found | changed))


def report(*names: str) -> Report:
    """A report with ordinary, exact, undetermined, optimistic, negative and unbounded numbers."""
    odd = {
        "noise_scale": Estimate(NAN, 82.1, INF, note=WHY),
        "scale": Estimate(-0.5, -1.5, 0.5, note=FEW),
        "cosine": Estimate(NAN, NAN, NAN, note="undetermined: the sign is unknown"),
        "bias": Estimate(0.0, 0.0, 0.0, exact=True),
        "cost": Estimate(0.01, 0.01, 0.01, note="measured once: no interval"),
        "variance": Estimate(2.0e7, 1.0e6, INF),
    }
    first, *rest = names
    rows = [row(first), *(row(name, **odd) for name in rest)]
    needed = {r.estimator: r.noise_scale for r in rows}
    return Report(
        rows=rows,
        summary=[f"{name}: SNR 3 at batch 64" for name in names] + [f"Use {first} & <nothing>"],
        plan=Plan(4.0, needed, {first: 0.5}, first),
        reference="the exact gradient",
        settings={
            "environment": "CartPole-v1",
            "trajectories": 4096,
            "steps": 123456,
            "batch": 64,
            "seed": 7,
            "mean_return": 195.2,
            "gradients": {
                "method": "layers",
                "seconds_per_trajectory": {"loop": 0.004, "layers": 0.001},
                "refused": {"vmap": "an operator <it> does not know"},
            },
            "estimators": {name: {"baseline": "none"} for name in names},
            "versions": {"torch": "2.13.0"},
        },
        notes=["a limit of <these> numbers"],
    )


@lru_cache
def whole_page(*names: str) -> str:
    """The page of `report(*names)`, made once."""
    return page(report(*names))


class Reader(HTMLParser):
    """Checks that tags balance, and keeps text, tags and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_tags_balance_and_everything_is_there() -> None:
    found = read(whole_page("reinforce", "rloo"))
    for name in ("reinforce", "rloo"):
        assert name in found.text
    for name, estimate in row("reinforce").statistics().items():
        assert READING[name].title in found.text
        assert READING[name].formula in found.text
        assert number(estimate.value) in found.text, name
    for wanted in ("123,456", "2.13.0", "the exact gradient", "taken", "Use reinforce & <nothing>"):
        assert wanted in found.text
    assert "an operator <it> does not know" in found.text
    assert "a limit of <these> numbers" in found.text


def test_every_statistic_of_a_row_is_explained() -> None:
    assert set(READING) == set(row("reinforce").statistics())


def test_what_is_undetermined_or_optimistic_says_why() -> None:
    found = read(whole_page("reinforce", "rloo"))
    assert "||G||^2 cannot be told from zero; draw more units" in found.text
    assert "the sign is unknown" in found.text
    assert f"* {FEW}" in found.text
    assert "measured once: no interval" in found.text
    assert "exact" in found.text
    assert "[82.1, ∞]" in found.text


HOSTILE = '<script>alert("$x$")</script>&amp;_\'"'


def test_a_hostile_name_stays_text() -> None:
    text = page(report("reinforce", HOSTILE))
    found = read(text)
    assert "script" not in {tag for tag, _ in found.tags}
    assert HOSTILE in found.text
    assert not [name for _, own in found.tags for name in own if name.startswith("on")]


def test_the_same_report_gives_the_same_bytes() -> None:
    assert page(report("reinforce", "rloo")) == whole_page("reinforce", "rloo")


def test_nothing_is_loaded_from_anywhere() -> None:
    text = whole_page("reinforce", "rloo")
    found = read(text)
    for tag, own in found.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img")
        for name in ("src", "href", "srcset", "data", "action"):
            assert (own.get(name) or "#").startswith("#")
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    for target in re.findall(r"url\(([^)]*)\)", text):
        assert target.startswith("#")


def test_figures_and_tables_are_accessible() -> None:
    found = read(whole_page("reinforce", "rloo"))
    ids = [own["id"] for _, own in found.tags if "id" in own]
    assert len(ids) == len(set(ids))
    figures = [own for tag, own in found.tags if tag == "svg"]
    assert len(figures) == 2 + 2 + 4  # bias, one signal each, needs
    assert all(own["role"] == "img" and own["aria-label"] for own in figures)
    assert "undetermined" in " ".join(str(own["aria-label"]) for own in figures)
    assert all(own.get("scope") in ("row", "col") for tag, own in found.tags if tag == "th")


@pytest.mark.parametrize("value", [NAN, INF, 0.0, -3.0, 1e-30, 1e30])
def test_no_number_breaks_the_page(value: float) -> None:
    whole = report("reinforce")
    odd = Estimate(value, -INF, INF, note=WHY if math.isnan(value) else "")
    rows = [row("reinforce", **dict.fromkeys(READING, odd))]
    plan = Plan(4.0, {"reinforce": odd}, {}, None)
    found = read(page(replace(whole, rows=rows, plan=plan)))
    assert "No batch can be recommended" in found.text


def test_a_report_without_rows_is_still_a_page() -> None:
    empty = replace(report("reinforce"), rows=[], summary=[], plan=Plan(4.0, {}, {}, None))
    assert "No estimator was audited" in read(page(empty)).text
