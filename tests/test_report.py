"""The report of a run: what it says, what it draws, and that nothing in a folder can act in it."""

import base64
import hashlib
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_folders import HOSTILE, control_row, write_run

import vantage as vt
from vantage.commands.main import main
from vantage.reporting import writing as module
from vantage.reporting.completions import completions
from vantage.reporting.curves import POINTS, Curves
from vantage.reporting.facts import facts
from vantage.reporting.page import page
from vantage.reporting.panels import charts, constant
from vantage.reporting.subject import Subject
from vantage.reporting.summary import difference, summarise
from vantage.statistics.pieces import window_snr


def subject(updates: int, rise: float = 1.0, **changed: Any) -> Subject:
    draw = random.Random(1)
    rows = [control_row(update, draw, rise) | changed for update in range(1, updates + 1)]
    return Subject({"environment": {"name": "CartPole-v1"}, "estimator": {"name": "rloo"}}, rows)


class Reader(HTMLParser):
    """Elements, text and the JSON that a page carries."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag in ("script", "style", "title"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.words.append(data)


def island(text: str) -> dict[str, Any]:
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


# ---- curves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [1, 2, 7, 239, 241, 10_000])
def test_points_are_means_of_neighbours_and_hold_every_update(updates: int) -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=updates)
    curves = Curves([{"return": float(v), "steps": 10 * (i + 1)} for i, v in enumerate(values)])
    curve = curves.curve("return")
    assert curve is not None
    assert len(curve["y"]) == min(POINTS, updates)
    assert min(curve["low"]) == pytest.approx(values.min(), rel=1e-5)
    assert max(curve["high"]) == pytest.approx(values.max(), rel=1e-5)
    pieces = np.split(values, np.unique(np.linspace(0, updates, len(curve["y"]), endpoint=False).astype(int))[1:])  # fmt: skip  # noqa: E501
    assert curve["y"] == pytest.approx([piece.mean() for piece in pieces], rel=1e-5, abs=1e-5)
    grid = curves.grids[curve["grid"]]
    assert grid["steps"] == pytest.approx([10 * at for at in grid["updates"]], rel=1e-4)


def test_what_only_some_updates_have_stands_where_they_are() -> None:
    rows = [{"update": i, "return": 1.0} for i in range(1, 31)]
    for i in (10, 20, 30):
        rows[i - 1] |= {"eval/return": float(i), "eval/return_low": i - 1.0,
                        "eval/return_high": i + 2.0}  # fmt: skip
    curves = Curves(rows)
    curve = curves.curve("eval/return")
    assert curve is not None
    assert curves.grids[curve["grid"]]["updates"] == [10, 20, 30]
    assert (curve["low"], curve["high"], curve["band"]) == ([9, 19, 29], [12, 22, 32], "interval")


def test_the_snr_is_a_ratio_of_sums_with_the_interval_of_its_window() -> None:
    rows = subject(40).history
    curves = Curves(rows)
    found = curves.signal()
    assert found is not None
    snr, scale = found
    norm = np.array([row["gradient_squared_norm"] for row in rows[-10:]])
    noise = np.array([row["gradient_variance"] / row["units"] for row in rows[-10:]])
    last = window_snr(norm, noise)
    assert (snr["y"][-1], snr["low"][-1], snr["high"][-1]) == pytest.approx(
        (norm.sum() / noise.sum(), last.low, last.high), rel=1e-5
    )
    assert scale["y"][-1] == pytest.approx(64 / last.value, rel=1e-5)
    assert (scale["low"][-1], scale["high"][-1]) == pytest.approx(
        (64 / last.high, 64 / last.low), rel=1e-5
    )
    assert curves.grids[snr["grid"]]["updates"][-1] == 40


def test_a_noise_scale_without_signal_has_no_upper_end() -> None:
    draw = random.Random(3)
    rows = [control_row(i, draw) | {"gradient_squared_norm": draw.gauss(0.2, 5)} for i in range(60)]
    found = Curves(rows).signal()
    assert found is not None
    for low, high in zip(found[0]["low"], found[1]["high"], strict=True):
        assert (high is None) == (low is None or low <= 0)


# ---- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rise", "said"),
    [(1.0, "It learned."), (-0.4, "It got worse."), (0.0, "Nothing says that it learned.")],
)
def test_it_says_whether_it_learned(rise: float, said: str) -> None:
    assert summarise(subject(100, rise))[0].startswith(said)


def test_the_interval_of_a_difference_covers() -> None:
    """2,000 differences of 8 and 12 normal numbers of unlike spread: 95 % hold the true one.

    The number of misses is binomial, 100 on average with a standard deviation of 9.7; the limits
    are four of them away, which chance crosses once in 16,000 times.
    """
    draw = np.random.default_rng(0)
    missed = 0
    for _ in range(2000):
        found = difference(draw.normal(3, 1, 8), draw.normal(1, 4, 12))
        missed += not found.low <= 2 <= found.high
    assert 61 < missed < 139


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gradient_variance": 64 * 1e4}, "more noise than signal"),
        ({"gradient_variance": 10.0}, "far more signal than a step needs"),
        ({"clip_fraction": 0.5}, "0.500 of the steps is clipped"),
        ({"kl": 0.2}, "a KL of 0.200"),
        ({"explained_variance": -0.5}, "V explains a share of −0.5"),
        ({"entropy": 0.0}, None),
    ],
)
def test_it_says_what_to_change(changed: dict[str, float], said: str | None) -> None:
    sentences = " ".join(summarise(subject(100, **changed))).replace("-0.5", "−0.5")
    assert said is None or said in sentences
    assert said is None or "asks for a change" not in sentences
    plain = " ".join(summarise(subject(100)))
    assert said is None or said not in plain


def test_a_run_that_gives_no_cause_is_left_as_it_is() -> None:
    assert summarise(subject(300))[-1] == "Nothing in these numbers asks for a change."


def test_what_never_changes_is_named_and_not_drawn() -> None:
    one = subject(30)
    assert constant(one)["kl"] == "0.0100"
    titles = [chart["title"] for chart in charts(one)]
    assert "KL" not in titles
    assert {"Return", "Signal-to-noise ratio", "Noise scale", "Entropy", "Value loss"} <= {*titles}


# ---- the page ------------------------------------------------------------------------------------


def test_every_held_out_set_is_told_and_drawn(tmp_path: Path) -> None:
    scores = {"easy": 0.75, "<b>hard</b>": 0.125}
    ends = {"return": 0.0, "return_low": -0.0625, "return_high": 0.0625}
    changed = {
        f"eval/{name}/{end}": score + shift
        for name, score in scores.items()
        for end, shift in ends.items()
    } | {"eval/return": 0.5}
    rows = [row | changed | {"eval/easy/return": 0.25 * i} for i, row in enumerate(subject(4).history)]  # fmt: skip  # noqa: E501
    run = Subject({"task": {"name": "sums"}, "estimator": {"name": "rloo"}}, rows)
    assert {"on easy [0.688, 0.812]": "0.750", "evaluated": "0.500"}.items() <= facts(run).items()
    said = " ".join(summarise(run))
    assert "By set: easy 0.750 [0.688, 0.812], <b>hard</b> 0.125 [0.0625, 0.188]." in said
    titles = [each["title"] for each in charts(run)]
    assert [title for title in titles if "easy" in title or "hard" in title] == ["Reward on easy"]
    assert constant(run)["eval/<b>hard</b>/return"] == "0.125"
    assert "b" not in Reader(page(run, tmp_path)).tags


def test_text_of_strangers_stays_text(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "<i>run", 30, language=True, said={1: 8, 30: 8})
    text = vt.report(folder).read_text()
    read = Reader(text)
    assert "img" not in read.tags
    assert "b" not in read.tags
    assert "i" not in read.tags
    assert not {name for name in read.attributes if name.startswith("on")}
    assert read.tags.count("script") == 2  # the data, and the page's own
    data = island(text)
    assert HOSTILE.replace("\u202e", "\\u202e").replace("\u2028", "\\u2028") in data["completions"]["tokens"]  # fmt: skip  # noqa: E501
    assert not {"\u202e", "\x1b"} & {c for token in data["completions"]["tokens"] for c in token}


def test_only_the_script_of_the_page_runs(tmp_path: Path) -> None:
    text = vt.report(write_run(tmp_path / "run", 5)).read_text()
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', text)[1]
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "connect-src 'none'" in policy
    assert not re.findall(r'(?:src|href)="(?!#)', text)


def test_settings_are_tables_and_not_code(tmp_path: Path) -> None:
    words = " ".join(Reader(vt.report(write_run(tmp_path / "run", 5)).read_text()).words)
    assert "{" not in words
    assert "0.9, 0.999" in words
    assert "None" not in words.split("Settings")[-1]


def test_completions_of_evenly_chosen_updates_fit_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vantage.reporting.completions.COMPLETIONS", 500)
    folder = write_run(tmp_path / "run", 3, language=True, said=dict.fromkeys(range(1, 21), 40))
    found = completions(folder)
    assert found is not None
    assert 400 <= len(found["rows"]) <= 500
    updates = sorted({row[0] for row in found["rows"]})
    assert updates[0] == 1
    assert updates[-1] == 20
    assert max(np.diff(updates)) <= 2
    row = found["rows"][0]
    assert [found["tokens"][place] for place in row[7]]
    assert len(row[7]) == len(row[8]) == len(row[9]) == row[4]


def test_a_damaged_transcript_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 3, language=True, said={1: 4, 2: 4})
    (folder / "transcripts" / "000002.parquet").write_bytes(b"PAR1 nothing")
    found = completions(folder)
    assert found is not None
    assert {row[0] for row in found["rows"]} == {1}
    assert "000002.parquet" in found["faults"][0]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["update", "steps", "return", "units", "unit", "gradient_squared_norm", "gradient_variance",
     "eval/return", "eval/return_low", "step_time", "kl", "num_tokens", "batch", "rewards/a"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["environment", "task", "estimator", "algorithm", "steps", "updates", "resumed", "command"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    config=st.dictionaries(KEYS, JSON),
    history=st.lists(st.dictionaries(NAMES, JSON | st.floats(-1e9, 1e9)), max_size=24),
)
def test_any_json_in_a_run_folder_gives_a_page(config: Any, history: Any) -> None:
    text = page(Subject(config, history), Path("nowhere"))
    island(text)
    assert text.encode()


# ---- where it is written -------------------------------------------------------------------------


def test_train_writes_a_report_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ["train", "tensor/CartPole-v1", "--updates", "2", "--batch", "8", "--lanes", "4"]
    command = ["vantage", *arguments, "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    main()
    text = (out / "report.html").read_text()
    assert f"<pre>{' '.join(command)}</pre>" in text
    monkeypatch.setattr("sys.argv", ["vantage", "report", str(out), "--out", str(out / "b.html")])
    main()
    assert (out / "b.html").read_text() == text
    assert "b.html" in capsys.readouterr().out


def test_a_report_that_fails_does_not_hide_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> str:
        raise ZeroDivisionError("of the page")

    monkeypatch.setattr(module, "page", fail)
    run = vt.train("tensor/CartPole-v1", "reinforce", lanes=4, batch=8, updates=2,
                   out=tmp_path / "run", progress=False)  # fmt: skip
    assert len(run.history) == 2
    assert not (tmp_path / "run" / "report.html").exists()
    assert "ZeroDivisionError: of the page" in capsys.readouterr().err


def test_links_are_not_written_through(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 2)
    (tmp_path / "precious").write_text("as it was")
    (folder / "report.html").symlink_to(tmp_path / "precious")
    with pytest.raises(vt.InputError, match="is a link"):
        vt.report(folder)
    assert (tmp_path / "precious").read_text() == "as it was"


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(vt.InputError, match="holds no run"):
        vt.report(tmp_path)
    run = vt.train("tensor/CartPole-v1", "reinforce", lanes=4, batch=8, updates=1, progress=False)
    with pytest.raises(vt.InputError, match="train with out="):
        vt.report(run)
