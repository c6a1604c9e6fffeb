"""The monitor against exact answers, and against gradients taken one piece at a time."""

import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import vantage as vt
from vantage.monitor import contributions
from vantage.monitor.contributions import squares_of
from vantage.statistics.pieces import is_trusted, piece_signal, window_snr
from vantage.statistics.signal import unit_signal


def by_hand(model, losses, weights):
    """(N̂, v̂) from the pieces' gradients, each taken alone with autograd."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for loss in losses:
        gradient = torch.autograd.grad(loss(), parameters, allow_unused=True)
        zeros = [torch.zeros_like(p) for p in parameters]
        full = [z if g is None else g for g, z in zip(gradient, zeros, strict=True)]
        rows.append(torch.cat([g.reshape(-1).double() for g in full]))
    c, w = torch.stack(rows), torch.tensor(weights, dtype=torch.float64)
    pairs = c @ c.T
    norm = (pairs.sum() - pairs.trace()) / (1 - (w / w.sum()).square().sum())
    return float(norm), float(pairs.sum() - norm)


def watched(model, losses, weights, **options):
    monitor = vt.Monitor(model, **options)
    for loss, weight in zip(losses, weights, strict=True):
        with monitor.piece(weight):
            loss().backward()
    row = monitor.step()
    monitor.close()
    return row


def data(n=4, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


class Tied(nn.Module):
    """An embedding that is the head too, and a layer that stands twice."""

    def __init__(self):
        super().__init__()
        self.embed, self.middle = nn.Embedding(7, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(torch.tanh(self.middle(torch.tanh(self.middle(self.embed(x))))))


class Checkpointed(nn.Module):
    """One layer used in two checkpointed segments; reentrant ones bring its gradient in parts."""

    def __init__(self, reentrant):
        super().__init__()
        self.first, self.layer, self.reentrant = nn.Linear(6, 6), nn.Linear(6, 6), reentrant

    def forward(self, x):
        for _ in range(2):
            x = checkpoint(
                lambda y: torch.tanh(self.layer(y)), self.first(x), use_reentrant=self.reentrant
            )
        return x


def frozen():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    model[0].requires_grad_(False)
    return model


def lora():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights=False)
    return peft.get_peft_model(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)), config)


def frames(make):
    """A model and one loss for each of four pieces."""
    torch.manual_seed(1)
    model = make()
    inputs = data()
    if isinstance(model, Tied):
        inputs = torch.randint(0, 7, (4, 5), generator=torch.Generator().manual_seed(2))
    return model, [lambda x=x: model(x[None]).square().mean() for x in inputs]


MODELS = {
    "plain": lambda: nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)),
    "tied": Tied,
    "frozen": frozen,
    "LoRA": lora,
    "checkpointed": lambda: Checkpointed(reentrant=False),
}
WEIGHTS = ([0.25] * 4, [3.0, 1.0, 1.0, 2.0])


@pytest.mark.parametrize("weights", WEIGHTS, ids=["equal", "unequal"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_step_is_measured_as_if_each_piece_were_taken_alone(make, weights):
    model, losses = frames(make)
    norm, variance = by_hand(model, losses, weights)
    row = watched(model, losses, weights)
    assert row["squared_norm"] == pytest.approx(norm, rel=1e-4, abs=1e-9)
    assert row["variance"] == pytest.approx(variance, rel=1e-4, abs=1e-9)
    assert row["pieces"] == 4
    assert {type(value) for value in row.values()} == {float}


def test_gradients_that_come_in_parts_are_put_together():
    """Reentrant checkpoints: the first piece of a step shows which, and every step is exact."""
    model, _ = frames(lambda: Checkpointed(reentrant=True))
    inputs = data().requires_grad_()
    losses = [lambda x=x: model(x[None]).square().mean() for x in inputs]
    twin = Checkpointed(reentrant=False)
    twin.load_state_dict(model.state_dict())
    norm, variance = by_hand(
        twin, [lambda x=x: twin(x[None]).square().mean() for x in inputs], WEIGHTS[1]
    )
    monitor = vt.Monitor(model)
    for _ in range(2):
        model.zero_grad()
        for loss, weight in zip(losses, WEIGHTS[1], strict=True):
            with monitor.piece(weight):
                loss().backward()
        row = monitor.step()
        assert row["squared_norm"] == pytest.approx(norm, rel=1e-4)
        assert row["variance"] == pytest.approx(variance, rel=1e-4)
    assert monitor.skipped == 0


def test_parts_that_are_first_seen_in_a_later_piece_cost_that_step():
    model, losses = frames(MODELS["plain"])
    other = [lambda x=x: model(x[None]).sin().sum() for x in data(seed=5)]
    pieces = [[losses[0]], [losses[1], other[1]], [losses[2]], [losses[3], other[3]]]
    sums = [lambda each=each: sum(loss() for loss in each) for each in pieces]
    norm, variance = by_hand(model, sums, WEIGHTS[1])
    monitor, rows = vt.Monitor(model), []
    for _ in range(2):
        model.zero_grad()
        for each, weight in zip(pieces, WEIGHTS[1], strict=True):
            with monitor.piece(weight):
                for loss in each:
                    loss().backward()
        rows.append(monitor.step())
    assert (monitor.skipped, rows[0]["steps"]) == (1, 0)
    assert rows[1]["squared_norm"] == pytest.approx(norm, rel=1e-4)
    assert rows[1]["variance"] == pytest.approx(variance, rel=1e-4)


def test_gradients_that_are_only_looked_at_do_not_count():
    """autograd.grad inside a piece (a penalty, say) and outside adds nothing to .grad."""
    model, losses = frames(MODELS["plain"])
    expected = watched(model, losses, WEIGHTS[1])
    model.zero_grad()
    monitor = vt.Monitor(model)
    for loss, weight in zip(losses, WEIGHTS[1], strict=True):
        with monitor.piece(weight):
            torch.autograd.grad(loss(), list(model.parameters()))
            loss().backward()
        torch.autograd.grad(loss(), list(model.parameters()))
    assert monitor.step() == expected | {
        k: pytest.approx(v, nan_ok=True) for k, v in expected.items()
    }


def test_two_backward_passes_make_one_piece():
    model, losses = frames(MODELS["plain"])
    other = [lambda x=x: model(x[None]).sin().sum() for x in data(seed=5)]
    both = [lambda a=a, b=b: a() + b() for a, b in zip(losses, other, strict=True)]
    norm, variance = by_hand(model, both, WEIGHTS[1])
    monitor = vt.Monitor(model)
    for _ in range(2):
        model.zero_grad()
        for one, two, weight in zip(losses, other, WEIGHTS[1], strict=True):
            with monitor.piece(weight):
                one().backward()
                two().backward()
        row = monitor.step()
    assert row["squared_norm"] == pytest.approx(norm, rel=1e-4)
    assert row["variance"] == pytest.approx(variance, rel=1e-4)


class Routed(nn.Module):
    """A layer that not every piece uses, and weights that lie in memory the other way round."""

    def __init__(self):
        super().__init__()
        self.all, self.some = nn.Linear(6, 6), nn.Linear(6, 6)
        self.turned = nn.Parameter(torch.randn(5, 6).T)

    def forward(self, x):
        y = self.all(x) @ self.turned
        return y if float(x.detach().sum()) > 0 else y + self.some(x)[:, :5]


@pytest.mark.parametrize("user", [(2, 3), (0, 1), (1,), (3,)], ids=str)
def test_parameters_that_some_pieces_leave_alone_count_as_they_are(user):
    torch.manual_seed(1)
    model, signs = Routed(), torch.ones(4)
    signs[list(user)] = -1
    inputs = signs[:, None] * data().abs()
    losses = [lambda x=x: model(x[None]).square().mean() for x in inputs]
    norm, variance = by_hand(model, losses, WEIGHTS[1])
    monitor = vt.Monitor(model)
    for _ in range(2):
        model.zero_grad()
        for loss, weight in zip(losses, WEIGHTS[1], strict=True):
            with monitor.piece(weight):
                loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        row = monitor.step()
        assert row["squared_norm"] == pytest.approx(norm, rel=1e-4)
        assert row["variance"] == pytest.approx(variance, rel=1e-4)


def test_a_gradient_is_read_once_a_piece_and_their_sum_once(monkeypatch):
    model, losses = frames(MODELS["plain"])
    monitor, read = vt.Monitor(model), []

    def counted(tensor):
        read.append(tensor.numel())
        return squares_of(tensor)

    steps(monitor, model, losses, times=1)
    monkeypatch.setattr(contributions, "squares_of", counted)
    steps(monitor, model, losses, times=1)
    assert sum(read) == (len(losses) + 1) * sum(p.numel() for p in model.parameters())


def test_steps_of_fewer_pieces_cost_one_step_and_are_exact_from_then_on():
    """Clipped before they are read, so that a norm read too late would be 1e-3."""
    model, losses = frames(MODELS["plain"])
    monitor = vt.Monitor(model)
    for count in (4, 2, 3, 2, 4):
        model.zero_grad()
        for loss in losses[:count]:
            with monitor.piece():
                loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        if count == 2 and not monitor.skipped:
            with pytest.warns(UserWarning, match="fewer pieces than any step before"):
                monitor.step()
            continue
        row = monitor.step()
        norm, variance = by_hand(model, losses[:count], [1.0] * count)
        assert row["squared_norm"] == pytest.approx(norm, rel=1e-4)
        assert row["variance"] == pytest.approx(variance, rel=1e-4)
    assert (monitor.skipped, len(monitor.latest)) == (1, 4)


def test_a_gradient_taken_away_between_pieces_is_said():
    model, losses = frames(MODELS["plain"])
    monitor = vt.Monitor(model)
    for loss in losses:
        model.zero_grad()
        with monitor.piece():
            loss().backward()
    with pytest.warns(UserWarning, match="taken away between the pieces"):
        monitor.step()


@pytest.mark.parametrize(("kind", "error"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-5)])
def test_squared_norms_of_long_tensors_do_not_lose_digits(kind, error):
    long = torch.rand(1025, 2049, generator=torch.Generator().manual_seed(0)).to(kind)
    for tensor in (long, long.T, long[:, ::2]):
        exact = float(tensor.double().square().sum())
        assert contributions.added(squares_of(tensor)) == pytest.approx(exact, rel=error)


OUTCOMES = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.5, 0.2]], dtype=torch.float64)
PROBABILITY = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def test_unbiased_for_pieces_of_unequal_weight_by_enumeration():
    """Pieces of one, two and one draws, each a mean: every possible draw of the four."""
    mean = PROBABILITY @ OUTCOMES
    trace = float((PROBABILITY[:, None] * (OUTCOMES - mean) ** 2).sum())
    weights = torch.tensor([1.0, 2.0, 1.0]) / 4
    norm = variance = 0.0
    negative = False
    for draw in itertools.product(range(3), repeat=4):
        g = OUTCOMES[list(draw)] / 4
        c = torch.stack([g[0], g[1] + g[2], g[3]])
        squares, total = float(c.square().sum()), float(c.sum(0).square().sum())
        found = piece_signal(total, squares, float(weights.square().sum()))
        chance = float(PROBABILITY[list(draw)].prod())
        norm, variance = norm + chance * found[0], variance + chance * found[1]
        negative |= found[0] < 0
    assert norm == pytest.approx(float(mean.square().sum()), abs=1e-12)
    assert variance == pytest.approx(trace / 4, abs=1e-12)
    assert negative  # and so it was not clamped


def test_equal_pieces_are_the_units_of_unit_signal():
    g = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = unit_signal(g.sum(0), float(g.square().sum()), 5)
    c = g / 5
    found = piece_signal(float(c.sum(0).square().sum()), float(c.square().sum()), 1 / 5)
    assert found == pytest.approx((whole.squared_norm, whole.variance / 5), rel=1e-12)


def test_the_gradient_is_taken_over_and_not_copied():
    """autograd puts the very memory that a backward pass made into `.grad`, monitor or not."""
    seen = []
    model, losses = frames(MODELS["plain"])
    weight = model[0].weight
    vt.Monitor(model)
    weight.register_hook(lambda g: seen.append(g.data_ptr()))
    monitor = vt.Monitor(model)
    with monitor.piece():
        losses[0]().backward()
    assert seen == [weight.grad.data_ptr()]


def test_clipping_after_the_pieces_changes_nothing_and_zeros_are_no_gradient():
    model, losses = frames(MODELS["plain"])
    expected = watched(model, losses, WEIGHTS[1])
    monitor = vt.Monitor(model)
    for _ in range(2):
        model.zero_grad(set_to_none=False)
        for loss, weight in zip(losses, WEIGHTS[1], strict=True):
            with monitor.piece(weight):
                loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        row = monitor.step()
        assert row["squared_norm"] == expected["squared_norm"]
        assert row["variance"] == expected["variance"]


def test_half_precision_parameters_are_multiplied_in_single():
    model, losses = frames(lambda: nn.Sequential(nn.Linear(6, 3000), nn.Linear(3000, 3)).bfloat16())
    losses = [lambda x=x: model(x[None].bfloat16()).float().square().mean() for x in data()]
    norm, variance = by_hand(model, losses, [1.0] * 4)
    row = watched(model, losses, [1.0] * 4)
    # `.grad` adds the pieces in half precision: crosses with its sum are good to 2^-8
    assert row["squared_norm"] == pytest.approx(norm, abs=0.01 * (abs(norm) + variance))
    assert row["variance"] == pytest.approx(variance, rel=0.02)


def test_the_scale_of_a_scaler_is_divided_out_and_overflow_left_out():
    model, losses = frames(MODELS["plain"])
    expected = watched(model, losses, WEIGHTS[0])
    model.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    monitor = vt.Monitor(model, scaler=scaler)
    for scale in (1024.0, 2048.0):
        assert scaler.get_scale() == scale
        for loss in losses:
            with monitor.piece():
                scaler.scale(loss()).backward()
        row = monitor.step()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert row["squared_norm"] == pytest.approx(expected["squared_norm"], rel=1e-5)
        assert row["variance"] == pytest.approx(expected["variance"], rel=1e-5)
    for loss in losses:
        with monitor.piece():
            (loss() * float("inf")).backward()
    with pytest.warns(UserWarning, match="not finite"):
        monitor.step()
    assert (monitor.skipped, len(monitor.latest)) == (1, 2)


def steps(monitor, model, losses, times=2):
    for _ in range(times):
        for loss in losses:
            with monitor.piece():
                loss().backward()
        row = monitor.step()
        model.zero_grad()
    return row


def test_one_piece_is_said_once_with_how_to_split(recwarn):
    model, losses = frames(MODELS["plain"])
    row = steps(vt.Monitor(model), model, losses[:1], times=3)
    assert [str(w.message) for w in recwarn if "Split the batch" in str(w.message)].__len__() == 1
    assert row["steps"] == 0
    assert row["snr"] != row["snr"]


def test_a_pass_outside_and_a_gradient_left_over_are_said(recwarn):
    model, losses = frames(MODELS["plain"])
    monitor = vt.Monitor(model)
    losses[0]().backward()
    steps(monitor, model, losses, times=1)
    losses[0]().backward()  # the evaluation of a curious user, say
    monitor.step()
    steps(monitor, model, losses, times=1)
    said = [str(w.message) for w in recwarn]
    assert sum("outside of monitor.piece" in text for text in said) == 1
    assert sum("zero_grad() between steps" in text for text in said) == 1
    assert monitor.skipped == 3
    model.zero_grad()
    assert steps(monitor, model, losses, times=1)["steps"] == 1


def test_what_learns_later_is_watched_from_then_on():
    model, losses = frames(frozen)
    monitor = vt.Monitor(model)
    steps(monitor, model, losses, times=1)
    model.requires_grad_(True)
    steps(monitor, model, losses, times=1)
    norm, variance = by_hand(model, losses, [1.0] * 4)
    row = steps(monitor, model, losses, times=1)
    assert row["squared_norm"] == pytest.approx(norm, rel=1e-4)
    assert row["variance"] == pytest.approx(variance, rel=1e-4)
    monitor.close()
    model.zero_grad()
    losses[0]().backward()
    assert not monitor.contributions.squares


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vt.Monitor(nn.Linear(2, 2).requires_grad_(False)), "no parameter"),
        (lambda: vt.Monitor(nn.Linear(2, 2), window=3), "window=3"),
        (lambda: vt.Monitor(nn.Embedding(3, 2, sparse=True)), "sparse=False"),
        (lambda: vt.Monitor(nn.Linear(2, 2, device="meta")), "meta device"),
        (lambda: vt.Monitor(nn.Linear(2, 2)).piece(0.0).__enter__(), "weight=0"),
        (lambda: vt.Monitor(nn.Linear(2, 2)).batch_for(0.0), "target above 0"),
        (lambda: piece_signal(1.0, 1.0, 1.0), "two independent pieces"),
    ],
)
def test_refused_at_the_door(make, message):
    with pytest.raises(vt.InputError, match=message):
        make()


# Exact answers.

GARNET = vt.MDP.garnet(3, 2, 2, discount=1.0, horizon=2, seed=3)
STEPS = 800
SIZES = (4, 8, 4)  # trajectories in the pieces of a step


def law(mdp, policy):
    """Every trajectory, its chance, and REINFORCE's gradient of it, with exact N and tr Σ."""
    batch = vt.exact.enumerate(mdp, policy)
    weights = vt.estimators.reward_to_go().weights(batch) / batch.weight[:, None]
    gradients = vt.row_gradients(policy, batch, weights).detach()
    moments = vt.exact.moments(mdp, policy)
    return batch, weights, gradients, float(moments.mean.square().sum()), float(moments.trace)


def policy_of(mdp, seed=0):
    policy = vt.SoftmaxTable(mdp.observations, mdp.actions)
    with torch.no_grad():
        policy.logits.normal_(generator=torch.Generator().manual_seed(seed))
    return policy


def test_long_run_averages_are_the_exact_norm_and_variance():
    """A loop of REINFORCE at rest, each mean within four standard errors (1 in 8000).

    The interval of the SNR over them holds the exact value; so does that of the noise scale, which
    is counted in trajectories.
    """
    policy = policy_of(GARNET)
    batch, weights, _, norm, trace = law(GARNET, policy)
    generator = torch.Generator().manual_seed(7)
    monitor = vt.Monitor(policy, window=STEPS)
    for _ in range(STEPS):
        picked = torch.multinomial(batch.weight, sum(SIZES), True, generator=generator)
        for rows_of in picked.split(SIZES):
            piece = batch.select(rows_of)
            with monitor.piece(weight=len(rows_of)):
                log_prob = policy.log_prob(piece.observation, piece.action)
                surrogate = torch.where(piece.mask, weights[rows_of] * log_prob, 0).sum()
                (-surrogate / sum(SIZES)).backward()
        row = monitor.step(batch=sum(SIZES))
        policy.zero_grad()
    found = torch.tensor([(n, v) for n, v, _ in monitor.latest], dtype=torch.float64)
    exact = torch.tensor([norm, trace / sum(SIZES)], dtype=torch.float64)
    error = found.std(0) / len(found) ** 0.5
    assert len(found) == STEPS
    assert ((found.mean(0) - exact).abs() < 4 * error).all()
    assert (error < 0.1 * exact).all()  # precise enough to mean something
    assert row["snr_low"] < norm / trace * sum(SIZES) < row["snr_high"]
    assert row["noise_scale_low"] < trace / norm < row["noise_scale_high"]
    assert row["noise_scale"] == pytest.approx(monitor.batch_for(2.0).value / 2)


def windows_of(seed, window, batches=1):
    """N̂ and v̂ of 100 windows a batch, of REINFORCE on a Garnet; each [100 batches, window]."""
    mdp = vt.MDP.garnet(3, 2, 2, discount=1.0, horizon=2, seed=seed)
    batch, _, gradients, *_ = law(mdp, policy_of(mdp, seed))
    generator = torch.Generator().manual_seed(1)
    share = sum(n * n for n in SIZES) / sum(SIZES) ** 2
    norms, variances = [], []
    for _ in range(batches):
        count = 100 * window * sum(SIZES)
        picked = torch.multinomial(batch.weight, count, True, generator=generator)
        c = gradients[picked].view(100 * window, sum(SIZES), -1) / sum(SIZES)
        c = torch.stack([piece.sum(1) for piece in c.split(SIZES, 1)], 1)
        total, squares = c.sum(1).square().sum(1), c.square().sum((1, 2))
        norms.append(((total - squares) / (1 - share)).view(100, window).numpy())
        variances.append(total.view(100, window).numpy() - norms[-1])
    return np.concatenate(norms), np.concatenate(variances)


@pytest.mark.parametrize("window", [40, 100])
@pytest.mark.parametrize("seed", [3, 5])
def test_intervals_cover(window, seed):
    """93 to 97 % of 2,000 windows hold the exact SNR; at 95 % the error of that share is 0.5 %."""
    mdp = vt.MDP.garnet(3, 2, 2, discount=1.0, horizon=2, seed=seed)
    *_, norm, trace = law(mdp, policy_of(mdp, seed))
    found = [window_snr(n, v) for n, v in zip(*windows_of(seed, window, 20), strict=True)]
    held = sum(each.low < norm * sum(SIZES) / trace < each.high for each in found)
    assert 0.93 <= held / 2000 <= 0.97


def rare_windows(windows, steps=100, pieces=4, chance=0.05, pay=10.0):
    """REINFORCE of a bandit that pays 10 with probability .05 or 0.3, one sample a piece."""
    generator = np.random.default_rng(0)
    shape = (windows, steps, pieces)
    arm = generator.random(shape) < 0.5
    reward = np.where(arm, pay * (generator.random(shape) < chance), 0.3)
    score = np.where(arm, 0.5, -0.5)
    c = reward * score / pieces  # of one of two logits; the other's is its negative
    mean, second = 0.25 * (chance * pay - 0.3), 0.125 * (chance * pay**2 + 0.09)
    total, squares = 2 * c.sum(2) ** 2, 2 * (c**2).sum(2)
    norms = (total - squares) / (1 - 1 / pieces)
    return norms, total - norms, pieces * mean**2 / (second - mean**2)


def test_where_rewards_are_rare_the_interval_is_marked():
    """It covers far too little there; but where it is trusted or unbounded, it is not wrong."""
    norms, variances, snr = rare_windows(500)
    found = [window_snr(n, v) for n, v in zip(norms, variances, strict=True)]
    held = np.array([each.low < snr < each.high for each in found])
    trusted = np.array([is_trusted(each) for each in found])
    exact, error = snr * variances.mean(), norms.std() / norms.size**0.5
    assert abs(norms.mean() - exact) < 4 * error
    assert held.mean() < 0.7  # the limit that the documentation states
    assert (trusted & ~held).mean() < 0.05
    garnet = [window_snr(n, v) for n, v in zip(*windows_of(3, 100), strict=True)]
    assert np.mean([is_trusted(each) for each in garnet]) > 0.8  # where nothing is rare


def test_a_full_window_that_is_not_trusted_is_said_once(recwarn):
    monitor = vt.Monitor(nn.Linear(2, 2), window=100)
    norms, variances, _ = rare_windows(1)
    monitor.latest.extend((n, v, v) for n, v in zip(norms[0], variances[0], strict=True))
    assert monitor._row()["trusted"] == monitor._row()["trusted"] == 0
    assert [str(w.message) for w in recwarn if "widen the window" in str(w.message)].__len__() == 1


def test_no_interval_from_few_steps_or_few_carriers():
    few = window_snr(np.ones(5), np.ones(5))
    assert (few.value, few.low, few.high) == (1.0, -float("inf"), float("inf"))
    assert "5 steps" in few.note
    rare = np.zeros(100)
    rare[3] = 1000.0
    found = window_snr(rare, np.ones(100))
    assert found.high == float("inf")
    assert "of 100 steps carry it" in found.note


# Ranks.


KINDS = ("ranks alone", "no_sync", "sync each pass")


def rank_of_two(rank, address, inputs, out):
    """All kinds in one process: starting it takes longer than they do."""
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    for kind in KINDS:
        torch.save(row_of_rank(rank, inputs, kind), f"{out}/{kind} {rank}.pt")
    torch.distributed.destroy_process_group()


def row_of_rank(rank, inputs, kind):
    torch.manual_seed(1)
    model = nn.parallel.DistributedDataParallel(MODELS["plain"]())
    monitor = vt.Monitor(model)
    for _ in range(2):
        model.zero_grad()
        passes = inputs[2 * rank : 2 * rank + 2]
        if kind == "ranks alone":
            with monitor.piece():
                (sum(model(x[None]).square().mean() for x in passes) / 2).backward()
        else:
            for number, x in enumerate(passes):
                quiet = model.no_sync() if kind == "no_sync" and number == 0 else nullcontext()
                with quiet, monitor.piece(weight=0.5):
                    (model(x[None]).square().mean() / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        row = monitor.step()
    return row


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """A folder of what each rank measured, by kind."""
    out = tmp_path_factory.mktemp("ranks")
    given = (f"file://{out}/meeting", data(), str(out))
    torch.multiprocessing.spawn(rank_of_two, given, nprocs=2, join=True)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_are_measured_as_one_process_with_all_pieces(kind, two_ranks):
    """Gloo: the communication hook sees the average before it is clipped."""
    inputs = data()
    torch.manual_seed(1)
    model = MODELS["plain"]()
    terms = [lambda x=x: model(x[None]).square().mean() / 4 for x in inputs]
    if kind == "ranks alone":
        terms = [lambda i=i: terms_of(model, inputs[i : i + 2]) for i in (0, 2)]
    norm, variance = by_hand(model, terms, [1.0] * len(terms))
    for rank in range(2):
        row = torch.load(two_ranks / f"{kind} {rank}.pt")
        assert row["pieces"] == len(terms)
        assert row["squared_norm"] == pytest.approx(norm, rel=1e-4)
        assert row["variance"] == pytest.approx(variance, rel=1e-4)


def terms_of(model, inputs):
    return sum(model(x[None]).square().mean() for x in inputs) / 4
