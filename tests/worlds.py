"""Small random worlds, and the slow and obvious way to list what can happen in them."""

import torch
from hypothesis import strategies as st

from vantage.exact.mdp import MDP
from vantage.policies import Categorical, SoftmaxTable


def random_policy(mdp, seed, observations=None):
    policy = SoftmaxTable(observations or mdp.observations, mdp.actions)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        policy.logits.normal_(generator=generator)
    return policy


def network_policy(mdp, seed):
    """A policy with parameters that every observation shares: features, a hidden layer, logits."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(mdp.observations, 3, generator=generator, dtype=torch.float64)
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(2, mdp.actions)
    net = torch.nn.Sequential(Features(features), first, torch.nn.Tanh(), second).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(generator=generator)
    return Categorical(net)


class Features(torch.nn.Module):
    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, observation):
        return self.table[observation]


def acyclic(seed, discount, aliased):
    """Five states in a line, each leading to random later ones; the last is terminal."""
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(5, 2, 5, generator=generator, dtype=torch.float64).triu(1)
    for s in range(5):
        chance[s, :, : s + 1] = 0
    chance[4] = 1
    initial = torch.tensor([0.6, 0.4, 0, 0, 0], dtype=torch.float64)
    reward = torch.randn(5, 2, 5, generator=generator, dtype=torch.float64)
    observation = [0, 1, 0, 1, 1] if aliased else None
    return MDP(
        chance / chance.sum(2, keepdim=True),
        reward,
        initial,
        discount=discount,
        terminal=torch.arange(5) == 4,
        observation=observation,
    )


@st.composite
def worlds(draw, discounts=(0.7, 1.0)):
    """An MDP with few trajectories and a policy on it; horizon, aliasing, network: yes and no."""
    seed = draw(st.integers(0, 10_000))
    discount = draw(st.sampled_from(discounts))
    aliased = draw(st.booleans())
    if draw(st.booleans()):
        mdp = acyclic(seed, discount, aliased)
    else:
        observations = 2 if aliased else None
        end = draw(st.sampled_from([0.0, 0.2]))
        mdp = MDP.garnet(
            3,
            2,
            2,
            discount=discount,
            horizon=3,
            termination=end,
            observations=observations,
            seed=seed,
        )
    make = draw(st.sampled_from([random_policy, network_policy]))
    return mdp, make(mdp, seed)


def trajectories(mdp, policy):
    """Every trajectory as (probability, [(state, action, reward), ...]), by plain recursion."""
    pi = torch.zeros(mdp.states, mdp.actions, dtype=torch.float64)
    for s in range(mdp.states):
        if not mdp.terminal[s]:
            seen = mdp.observation[s].expand(mdp.actions)
            pi[s] = policy.log_prob(seen, torch.arange(mdp.actions)).exp().detach()

    def onward(s, probability, steps):
        if mdp.terminal[s] or (mdp.horizon is not None and len(steps) == mdp.horizon):
            yield probability, steps
            return
        for a in range(mdp.actions):
            for following in range(mdp.states):
                p = float(pi[s, a] * mdp.transition[s, a, following])
                if p > 0:
                    step = (s, a, float(mdp.reward[s, a, following]))
                    yield from onward(following, probability * p, [*steps, step])

    for s in range(mdp.states):
        if mdp.initial[s] > 0:
            yield from onward(s, float(mdp.initial[s]), [])


def score_of(mdp, policy):
    """ψ(s, a) by one backward pass each, remembered."""
    memory = {}

    def score(s, a):
        if (s, a) not in memory:
            log_prob = policy.log_prob(mdp.observation[s], torch.tensor(a))
            pieces = torch.autograd.grad(log_prob, list(policy.parameters()))
            memory[s, a] = torch.nn.utils.parameters_to_vector(pieces)
        return memory[s, a]

    return score


def brute_moments(mdp, policy, baseline, returns, discounted=True):
    """Mean and per-parameter variance of ĝ = Σ_t κ^t ψ_t (R_t − b), trajectory by trajectory."""
    score, gamma = score_of(mdp, policy), mdp.discount
    kappa = gamma if discounted and returns == "to_go" else 1.0
    estimates, weights = [], []
    for probability, steps in trajectories(mdp, policy):
        g = 0
        for t, (s, a, _) in enumerate(steps):
            if returns == "to_go":
                R = sum(gamma ** (k - t) * steps[k][2] for k in range(t, len(steps)))
            else:
                R = sum(gamma**k * steps[k][2] for k in range(len(steps)))
            b = baseline[t, s] if baseline.ndim == 2 else baseline[s]
            g = g + kappa**t * score(s, a) * (R - b)
        estimates.append(g)
        weights.append(probability)
    g, w = torch.stack(estimates), torch.tensor(weights, dtype=torch.float64)
    mean = w @ g
    return mean, w @ (g - mean).square()
