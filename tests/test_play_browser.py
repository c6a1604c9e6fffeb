"""The page in a browser: what it shows agrees with `vantage.exact` wherever its controls are."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import play_expectations as expected
import pytest
import torch
from browser import VIEWS, launched
from playwright.sync_api import Browser, Locator, Page

import vantage as vt
from vantage import play

STATIONS = list(play.STATIONS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return play.save(tmp_path_factory.mktemp("play") / "article.html").as_uri()


def opened(browser: Browser, address: str, width: int = 1300, scheme: Any = "light") -> Page:
    """A page in a window of that width, offline, whose faults are collected in `page.faults`."""
    context = browser.new_context(
        viewport={"width": width, "height": 850},
        color_scheme=scheme,
        offline=True,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.faults = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.faults.append(str(error)))  # type: ignore[attr-defined]
    page.on("console", lambda said: page.faults.append(said.text))  # type: ignore[attr-defined]
    page.on("request", lambda request: page.faults.append(request.url)  # type: ignore[attr-defined]
            if not request.url.startswith(("file:", "data:")) else None)  # fmt: skip
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    return page


@pytest.fixture(scope="module")
def page(browser: Browser, address: str) -> Iterator[Page]:
    one = opened(browser, address)
    yield one
    assert one.faults == []  # type: ignore[attr-defined]
    one.context.close()


def at(page: Page, station: str) -> Locator:
    """The section of a station, brought into sight."""
    page.evaluate("name => { location.hash = name; }", station)
    section = page.locator(f"#{station}")
    section.wait_for(state="visible")
    return section


def move(section: Locator, values: dict[str, Any]) -> None:
    """Set controls by name, as a hand would: slider, number or choice."""
    for name, value in values.items():
        if isinstance(value, str):
            section.locator(f'[name="{name}"][value="{value}"]').check()
        else:
            section.locator(f'[name="{name}"]').fill(str(value))


def shown(section: Locator) -> dict[str, Any]:
    """Every number of a station as its text says it; lists by index. A dash is NaN."""
    pairs = section.locator("[data-number]").evaluate_all(
        "places => places.map(place => [place.dataset.number, place.textContent, place.value])"
    )
    numbers: dict[str, Any] = {}
    for name, text, full in pairs:
        number = float(text.replace("−", "-").replace("–", "nan").replace("∞", "inf"))
        # the text is the number, rounded
        assert number == pytest.approx(float(full), abs=6e-7, rel=6e-6, nan_ok=True)
        key, _, index = name.partition(".")
        if index:
            numbers.setdefault(key, []).append(number)
        else:
            numbers[key] = number
    return numbers


def compare(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Every expected number within 1e-6 of what the page shows."""
    for name, value in wanted.items():
        truth = torch.as_tensor(value, dtype=torch.float64).flatten().tolist()
        page = found[name] if isinstance(found[name], list) else [found[name]]
        assert page[: len(truth)] == pytest.approx(truth, abs=1e-6, rel=0), name
        assert all(number != number for number in page[len(truth) :]), name


CORRIDOR = {"world": "corridor"}
ARTICLE = {"world": "article"}
REWARDS = (0, 2, 0, 1, 1, 0, 0)


def model(rewards: tuple[float, ...] = REWARDS, **values: Any) -> dict[str, Any]:
    return {f"reward{i}": reward for i, reward in enumerate(rewards)} | values


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("ascent", {"u": 0, "v": 0, "alpha": 1}),
    ("ascent", {"u": 1.5, "v": -0.75, "alpha": 0.5}),
    ("ascent", {"u": -3, "v": 3, "alpha": 6}),
    ("ascent", {"u": 0.25, "v": 2.1, "alpha": 2.45}),
    ("ascent", {"u": -1.1, "v": -2.2, "alpha": 0.05}),
    ("theorem", {"theta": 0, "slip": 0, "horizon": 6}),
    ("theorem", {"theta": 0.5, "slip": 0.1, "horizon": 5}),
    ("theorem", {"theta": -1.35, "slip": 0.27, "horizon": 4}),
    ("theorem", {"theta": 2, "slip": 0.5, "horizon": 6}),
    ("theorem", {"theta": 1, "slip": 0.03, "horizon": 1}),
    ("reinforce", {"u": 0, "v": 0, "size": 0, "weights": "raw"}),
    ("reinforce", {"u": 0, "v": 0, "size": 3, "weights": "raw"}),
    ("reinforce", {"u": 0.5, "v": -1.15, "size": 1.3, "weights": "advantage"}),
    ("reinforce", {"u": -2, "v": 2, "size": 2, "weights": "advantage"}),
    ("reinforce", {"u": 1.05, "v": 0.4, "size": 0.6, "weights": "raw"}),
    ("baseline", {"first": 0, "second": 0, "extra": 0, "chance": 0.5}),
    ("baseline", {"first": 9.5, "second": 3.5, "extra": 0, "chance": 0.5}),
    ("baseline", {"first": 12.3, "second": -1.7, "extra": 0, "chance": 0.83}),
    ("baseline", {"first": 4, "second": 6.1, "extra": 2.5, "chance": 0.3}),
    ("baseline", {"first": -5, "second": 20, "extra": -4, "chance": 0.9}),
    ("optimum", {"world": "bandit", "chance": 0.7, "first": 8, "second": 2, "b": 0}),
    ("optimum", {"world": "bandit", "chance": 0.9, "first": 10, "second": 0, "b": 9}),
    ("optimum", {"world": "bandit", "chance": 0.02, "first": 3.5, "second": 7, "b": -1.9}),
    ("optimum", CORRIDOR | {"right": 0.5, "one": 0, "two": 0, "three": 0}),
    ("optimum", CORRIDOR | {"right": 0.5, "one": -13.3, "two": -11, "three": -12}),
    ("optimum", CORRIDOR | {"right": 0.31, "one": -20, "two": 4.5, "three": -3.2}),
    ("optimum", CORRIDOR | {"right": 0.8, "one": -40, "two": 10, "three": -15.5}),
    ("credit", {"right": 0.5, "gamma": 1, "weights": "total", "step": 0}),
    ("credit", {"right": 0.59, "gamma": 1, "weights": "toGo", "step": 3}),
    ("credit", {"right": 0.5, "gamma": 0.9, "weights": "advantage", "step": 15}),
    ("credit", {"right": 0.25, "gamma": 0.77, "weights": "total", "step": 5}),
    ("credit", {"right": 0.8, "gamma": 0.5, "weights": "advantage", "step": 1}),
    ("language", model(size=2, a=0, b=0, end=0)),
    ("language", model(size=4, a=0.5, b=-0.25, end=0.1)),
    ("language", model(size=8, a=-1.5, b=0.65, end=0.3)),
    ("language", model((1, 1, 1, 0, 0, 0, 0), size=5, a=1, b=0, end=-1)),
    ("language", model((0, 1, 0, 2, 1, 1, 0), size=3, a=0.2, b=0.2, end=2)),
    ("language", model((-1.5, 4, 0.5, 3, -5, 2.5, 1), size=6, a=-0.8, b=-2, end=1.15)),
]
WALKS: list[dict[str, Any]] = [
    ARTICLE | {"first": 0.5, "second": 0.5, "walk": (0,)},
    ARTICLE | {"first": 0.35, "second": 0.5, "walk": (0, 1)},
    ARTICLE | {"first": 0.5, "second": 0.98, "walk": (1, 0)},
    CORRIDOR | {"right": 0.5, "walk": (0, 1, 0, 1)},
    CORRIDOR | {"right": 0.59, "walk": (0, 0, 1, 1, 0)},
    CORRIDOR | {"right": 0.05, "walk": (0, 1, 1, 0, 0, 1, 0, 0, 1)},
    CORRIDOR | {"right": 0.9, "walk": (0, 1)},
]


def test_there_are_settings_enough() -> None:
    assert len(SETTINGS) + len(WALKS) >= 40
    assert {station for station, _ in SETTINGS} == set(STATIONS) - {"trajectories"}


@pytest.mark.parametrize(("station", "values"), SETTINGS)
def test_numbers_agree_with_the_exact_module(
    page: Page, station: str, values: dict[str, Any]
) -> None:
    section = at(page, station)
    move(section, values)
    found = shown(section)
    rule: Callable[..., dict[str, Any]] = getattr(expected, station)
    compare(found, rule(values, found))


@pytest.mark.parametrize("values", WALKS)
def test_walks_have_their_probability(page: Page, values: dict[str, Any]) -> None:
    section = at(page, "trajectories")
    move(section, {name: value for name, value in values.items() if name != "walk"})
    section.get_by_role("button", name="Start again").click()
    start, *actions = values["walk"]
    if values["world"] == "article":
        section.locator(f'[data-action="start"][data-argument="{start}"]').click()
    for action in actions:
        section.locator(f'[data-action="move"][data-argument="{action}"]').click()
    compare(shown(section), expected.trajectories(values, {}))


CORNERS = """(station) => {
  // Every slider at its ends and middle with all others at either end: no number may be lost, no
  // picture may be left without its coordinates.
  const root = document.getElementById(station);
  const faults = [];
  const check = (where) => {
    for (const place of root.querySelectorAll("[data-number]")) {
      const said = place.textContent;
      if (said === "–" ? place.value !== "NaN" : !/^−?[0-9.]+(e−?[0-9]+)?$/.test(said)) {
        faults.push(`${where}: ${place.dataset.number} says ${said}`);
      }
    }
    const drawn = root.querySelector("svg[role=img]").innerHTML;
    if (/NaN|Infinity|undefined/.test(drawn)) faults.push(`${where}: picture`);
    if (/NaN|Infinity|undefined/.test(root.querySelector("figcaption").textContent)) {
      faults.push(`${where}: words`);
    }
  };
  const set = (input, value) => {
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const worlds = [...root.querySelectorAll("[name=world]")];
  for (const world of worlds.length ? worlds : [null]) {
    if (world) world.click();
    const inputs = [...root.querySelectorAll("input[type=range], input[type=number]")];
    for (const end of ["min", "max"]) {
      for (const other of inputs) set(other, other[end]);
      check(`all at ${end}`);
      for (const moved of inputs) {
        for (const value of [moved.min, (Number(moved.min) + Number(moved.max)) / 2, moved.max]) {
          set(moved, value);
          check(`others at ${end}, ${moved.name} at ${value}`);
        }
        set(moved, moved[end]);
      }
      for (const button of root.querySelectorAll("button")) {
        if (button.isConnected) button.click();
        check(`at ${end} after ${button.textContent}`);
      }
    }
  }
  return faults;
}"""


@pytest.mark.parametrize("station", STATIONS)
def test_no_setting_breaks_a_station(page: Page, station: str) -> None:
    at(page, station)
    before = len(page.faults)  # type: ignore[attr-defined]
    assert page.evaluate(CORNERS, station) == []
    assert page.faults[before:] == []  # type: ignore[attr-defined]


def test_the_two_samples_of_the_article(page: Page) -> None:
    """Theory: raw weights 7 and 5 give (−1.75, 1.75, −1.25, 1.25), whose cosine is −0.399."""
    section = at(page, "reinforce")
    section.get_by_label("returns R").check()
    section.get_by_role("button", name="two samples").click()
    found = shown(section)
    assert found["counts"] == [0, 1, 0, 1]
    assert found["estimate"] == [-1.75, 1.75, -1.25, 1.25]
    assert found["cosine"] == pytest.approx(-0.399, abs=1e-3)
    section.get_by_label("R − V(s)").check()
    section.get_by_role("button", name="two samples").click()
    assert (
        shown(section)["estimate"] == shown(section)["gradient"] == [0.625, -0.625, -0.375, 0.375]
    )


def test_steps_of_ascent_are_those_of_equation_two(page: Page) -> None:
    section = at(page, "ascent")
    move(section, {"u": 0.5, "v": 0.5, "alpha": 1.5})
    mdp, policy = vt.MDP.article(), expected.article({"u": 0.5, "v": 0.5})
    for _ in range(3):
        section.get_by_role("button", name="One step").click()
        step = 1.5 * vt.exact.gradient(mdp, policy).reshape(2, 2)
        policy.logits.data += step
    found = shown(section)
    compare(found, {"J": vt.exact.objective(mdp, policy), "steps": 3.0})
    compare(found, {"gradient": vt.exact.gradient(mdp, policy)})


@pytest.mark.parametrize("kind", ["value", "normWeighted", "trajectory"])
def test_a_baseline_taken_is_taken_exactly(page: Page, kind: str) -> None:
    section = at(page, "optimum")
    move(section, CORRIDOR | {"right": 0.37})
    section.locator(f'[data-argument="{kind}"]').click()
    found = shown(section)
    place = ["none", "value", "normWeighted", "trajectory"].index(kind)
    assert found["b"] == pytest.approx(found[kind], abs=1e-6)
    assert found["trace"] == pytest.approx(found["traces"][place], abs=1e-6)


def test_v_can_be_worse_than_nothing(page: Page) -> None:
    section = at(page, "optimum")
    section.get_by_role("button", name="worse than nothing").click()
    traces = shown(section)["traces"]
    assert traces[1] > traces[0] > traces[3]
    assert "worse here than no baseline" in section.locator("figcaption").inner_text()


def test_credit_of_a_step_is_that_of_the_walk_drawn(page: Page) -> None:
    """R_t, V and A of the step that the slider points at, from the rewards of −1 that follow."""
    section = at(page, "credit")
    move(section, {"right": 0.5, "gamma": 0.9, "weights": "advantage", "step": 2})
    found = shown(section)
    steps = [1.0]
    while abs(-sum(steps) - found["toGo"]) > 1e-6:
        steps.append(steps[-1] * 0.9)
        assert len(steps) < 20
    assert found["reward"] == pytest.approx(-1 + 0.9 * (-1 + 0.9 * found["toGo"]), abs=2e-6)
    world = vt.MDP.short_corridor()
    mdp = vt.MDP(
        world.transition, world.reward, world.initial, 0.9, world.terminal, world.observation
    )
    values = vt.exact.value(mdp, expected.right({"right": 0.5}))
    state = (values.V - found["value"]).abs().argmin()
    assert found["value"] == pytest.approx(float(values.V[state]), abs=1e-6)
    assert (values.A[state] - found["advantage"]).abs().min() < 1e-6


def test_group_weights_are_those_of_the_estimators(page: Page) -> None:
    """The group drawn, weighed by the package's own estimators."""
    section = at(page, "language")
    values = model(size=7, a=0.1, b=0, end=-0.2)
    move(section, values)
    found = shown(section)
    counts = torch.tensor(found["counts"]).long()
    assert counts.sum() == 7
    mdp, policy = expected.language_model(values)
    batch = vt.exact.enumerate(mdp, policy)
    tokens = torch.where(batch.mask, batch.action, -1)
    order = {"".join("ab⊣"[a] for a in row if a >= 0): i for i, row in enumerate(tokens.tolist())}
    rows = torch.tensor([order[text] for text in expected.COMPLETIONS]).repeat_interleave(counts)
    group = batch.select(rows)
    apart = torch.arange(7)[:, None].expand_as(group.episode)  # one episode each, though alike
    group = replace(group, episode=apart, weight=torch.full((7,), 1 / 7, dtype=torch.float64))
    estimators = vt.estimators.rloo(), vt.estimators.grpo(), vt.estimators.dr_grpo()
    for k, estimator in enumerate(estimators):
        weights = 7 * estimator.weights(group)[:, 0]
        listed = torch.tensor(found[f"weights{k}"], dtype=torch.float64).repeat_interleave(counts)
        assert listed.tolist() == pytest.approx(weights.tolist(), abs=1e-6), estimator.name


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_mathematics_on_random_worlds(page: Page, seed: int, discount: float) -> None:
    """The page's own code on MDPs that no station has: aliased states, several actions."""
    mdp = vt.MDP.garnet(
        5, 3, 2, discount=discount, termination=0.3, observations=3, seed=seed
    )  # fmt: skip
    policy = vt.SoftmaxTable(mdp.observations, mdp.actions)
    torch.nn.init.normal_(policy.logits, generator=torch.Generator().manual_seed(seed))
    edges = [
        {"s": s, "a": a, "next": following, "p": p, "r": r}
        for s, a, following, p, r in zip(*(column.tolist() for column in mdp.edges), strict=True)
    ]
    world = {
        "actions": mdp.actions,
        "observation": mdp.observation.tolist(),
        "initial": mdp.initial.tolist(),
        "discount": discount,
        "edges": edges,
    }
    found = page.evaluate(
        """([world, logits]) => {
          const process = chain(world, logits);
          const short = chain(withHorizon(world, 3), logits);
          const marks = baselines(process);
          const at = (b) => [toGoMoments(process, b), totalMoments(process, b)];
          return {
            J: objective(process), solved: gradientOfSolve(process), visited: gradient(process),
            short: { scored: gradientByScores(enumerate(short)), solved: gradientOfSolve(short),
                     visited: gradient(short) },
            Q: values(process).Q, marks, at: Object.fromEntries(
              ["value", "normWeighted", "trajectory"].map((name) => [name, at(marks[name])])) };
        }""",
        [world, policy.logits.tolist()],
    )

    def same(page: Any, truth: torch.Tensor) -> None:
        assert torch.allclose(torch.tensor(page, dtype=torch.float64), truth, rtol=1e-9, atol=1e-9)

    live = ~mdp.terminal
    same(found["J"], vt.exact.objective(mdp, policy).detach())
    same(found["Q"], vt.exact.value(mdp, policy).Q)
    for route in ("solved", "visited"):
        same(found[route], vt.exact.gradient(mdp, policy))
    for route in found["short"].values():
        same(route, vt.exact.gradient(replace(mdp, horizon=3), policy))
    for name, kind in (
        ("value", "value"), ("normWeighted", "norm_weighted"), ("trajectory", "trajectory")
    ):  # fmt: skip
        levels = torch.tensor(found["marks"][name], dtype=torch.float64)
        truth = vt.exact.moments(mdp, policy, kind)
        same(levels[live].tolist(), truth.baseline[live])
        for moments, returns in zip(found["at"][name], ("to_go", "total"), strict=True):
            truth = vt.exact.moments(mdp, policy, levels, returns)
            same(moments["mean"], truth.mean)
            same(moments["trace"], truth.trace)


def test_the_keyboard_reaches_and_moves_everything(page: Page) -> None:
    at(page, "trajectories")
    page.locator("#trajectories h2").focus()
    for key, station in (("ArrowRight", "ascent"), ("7", "credit"), ("ArrowLeft", "optimum")):
        page.keyboard.press(key)
        page.wait_for_selector(f"#{station}", state="visible", timeout=2000)
        assert page.locator("section.station:visible").count() == 1
        assert page.evaluate("document.activeElement.id") == f"{station}-title"
    for station in STATIONS:
        section = at(page, station)
        wanted = section.locator("input:visible, button:visible").count()
        page.locator(f"#{station} h2").focus()
        reached = set()
        for _ in range(wanted + 3):  # a group of radio buttons is one stop
            page.keyboard.press("Tab")
            reached.add(page.evaluate(f"{FOCUSED}('{station}')"))
        radios = section.locator("input[type=radio]:visible").count()
        groups = len(set(section.locator("input[type=radio]:visible").evaluate_all(
            "all => all.map(one => one.name)")))  # fmt: skip
        assert len(reached - {-1}) == wanted - radios + groups, station


FOCUSED = """((station) => [...document.querySelectorAll(`#${station} input, #${station} button`)]
  .indexOf(document.activeElement))"""


def test_arrows_move_a_slider_and_its_numbers(page: Page) -> None:
    section = at(page, "baseline")
    move(section, {"first": 0, "second": 0, "extra": 0, "chance": 0.5})
    before = shown(section)["trace"]
    section.locator("[name=first]").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#baseline").is_visible()  # the arrow belongs to the slider here
    assert shown(section)["trace"] < before


def test_words_follow_the_controls(page: Page) -> None:
    """Live text, and the same as the picture's text alternative."""
    for station in STATIONS:
        section = at(page, station)
        status = section.locator("figcaption[role=status]")
        assert status.get_attribute("aria-live") == "polite"
        said = set()
        for end in ("Home", "End"):
            section.locator("input[type=range]:visible").first.focus()
            page.keyboard.press(end)
            said.add(status.inner_text())
            picture = section.locator("svg[role=img]").first
            assert picture.get_attribute("aria-label") == status.inner_text()
        assert len(said) == 2, station
        for control in section.locator("input").all():
            assert control.evaluate(
                "one => one.labels.length > 0 || one.hasAttribute('aria-label')"
            ), station


def test_dragging_the_picture_moves_the_controls(page: Page) -> None:
    section = at(page, "ascent")
    box = section.locator("svg[role=img]").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2 - 30)
    page.mouse.up()
    u, v = (float(section.locator(f"[name={name}]").input_value()) for name in ("u", "v"))
    assert u == pytest.approx(2 * v, abs=1e-6)
    assert u > 0
    found = shown(section)
    compare(found, {"J": vt.exact.objective(vt.MDP.article(), expected.article({"u": u, "v": v}))})


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_nothing_overflows_and_everything_can_be_read(
    browser: Browser, address: str, width: int, scheme: str
) -> None:
    page = opened(browser, address, width, scheme)
    for station in STATIONS:
        section = at(page, station)
        for world in section.locator('[name="world"]').all() or [None]:
            if world is not None:
                world.check()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, station
            assert page.evaluate(OUTSIDE) == [], station
            assert page.evaluate(FAINT) == [], station
            if width == 1300:  # one screen
                assert page.evaluate("document.documentElement.scrollHeight") <= 850, station
    assert page.faults == []  # type: ignore[attr-defined]
    page.context.close()


# Text that is cut by the window, unless its own region scrolls.
OUTSIDE = """[...document.querySelectorAll("main *, header *, footer *")]
  .filter((one) => one.checkVisibility() && !one.closest(".scroll, .katex-mathml")
    && [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
  .filter((one) => { const box = one.getBoundingClientRect();
    return box.width && (box.left < -0.5 || box.right > innerWidth + 0.5); })
  .map((one) => one.textContent.slice(0, 60))"""

# Text below a contrast of 4.5 (3 where it is large) on the nearest background: WCAG 2.2 AA.
FAINT = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((x) => x / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((total, x, i) => total + x * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const one of document.querySelectorAll("main *, header *, footer *")) {
    const text = [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!text || !one.checkVisibility() || one.closest(".katex-mathml")) continue;
    const style = getComputedStyle(one);
    let [on, under] = [parts(one.tagName === "text" ? style.fill : style.color), behind(one)];
    const solid = Number(style.opacity);
    on = on.slice(0, 3).map((x, i) => solid * x + (1 - solid) * under[i]);
    if (one.classList.contains("on")) continue; // on a filled mark, not on the paper
    const [low, high] = [light(on), light(under)].sort((x, y) => x - y);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) {
      faint.push(`${one.textContent.slice(0, 40)}: ${contrast.toFixed(2)}`);
    }
  }
  return faint;
})()"""


def test_the_checks_of_sight_can_fail(browser: Browser, address: str) -> None:
    page = opened(browser, address, 400)
    page.evaluate("document.querySelector('h2').style.cssText = 'position: relative; left: 300px'")
    assert page.evaluate(OUTSIDE) == ["MDP and trajectories"]
    page.evaluate("document.querySelector('h2').style.color = '#bbb'")
    assert [line.split(":")[0] for line in page.evaluate(FAINT)] == ["MDP and trajectories"]
    page.context.close()


def test_dark_and_light_can_be_exchanged(browser: Browser, address: str) -> None:
    page = opened(browser, address, 1300, "dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Use light colours").click()
    assert page.evaluate(colour) != dark
    page.get_by_role("button", name="Use dark colours").click()
    assert page.evaluate(colour) == dark
    page.context.close()


def test_a_link_to_a_station_opens_it(browser: Browser, address: str) -> None:
    page = opened(browser, f"{address}#optimum")
    assert page.locator("#optimum").is_visible()
    assert not page.locator("#trajectories").is_visible()
    assert page.locator("#optimum svg[role=img]").evaluate("svg => svg.childElementCount") > 5
    assert json.loads(page.evaluate("JSON.stringify(document.title)")).startswith("6 · ")
    page.context.close()


def test_a_missing_browser_fails_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROME", str(Path("/no/such/browser")))
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"), launched():
        pass
