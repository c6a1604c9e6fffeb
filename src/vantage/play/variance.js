// Mean and variance of one trajectory's gradient estimate, without sampling, and the baselines that
// minimise it. See mathematics.js for what an MDP and a process are.

// ĝ = Σ_t γ^t ∇ log π(a_t|s_t) (R_t − b(s_t)), R_t the reward-to-go [8]. From a state on,
// g = ψ (G − b) + γ g' with G = r + γ G'; its moments solve linear equations one after the other.
function toGoMoments(process, b) {
  const gamma = process.mdp.discount;
  const { Q, Q2 } = values(process);
  const e = meansToGo(process, b);
  const shape = process.parameters;
  const crossed = expected(process, shape, ({ s, a, next, r }) =>
    plus(scaled(score(process, s, a), Q2[s][a] - b[s] * Q[s][a]), scaled(e[next], gamma * r)),
  );
  const c = propagate(process, crossed, gamma ** 2); // E[G g | s]
  const squares = expected(process, 1, ({ s, a, next, r }) => {
    const psi = score(process, s, a);
    const later = plus(scaled(e[next], r - b[s]), scaled(c[next], gamma));
    const centred = Q2[s][a] - 2 * b[s] * Q[s][a] + b[s] ** 2;
    return [dot(psi, psi) * centred + 2 * gamma * dot(psi, later)];
  });
  const q = propagate(process, squares, gamma ** 2).flat(); // E[‖g‖² | s]
  return atStart(process, e, q);
}

// E[g | s], [S][P].
function meansToGo(process, b) {
  const { Q } = values(process);
  const pushes = expected(process, process.parameters, ({ s, a }) =>
    scaled(score(process, s, a), Q[s][a] - b[s]),
  );
  return propagate(process, pushes, process.mdp.discount);
}

function atStart({ mdp, parameters }, means, squares) {
  const mean = means.reduce((m, row, s) => plus(m, scaled(row, mdp.initial[s])), zeros(parameters));
  return { mean, trace: dot(mdp.initial, squares) - dot(mean, mean) };
}

// ĝ = Σ_t ∇ log π(a_t|s_t) (R(τ) − b(s_t)), R the whole return [5], [6]: ĝ = R S − B with
// S = Σ_t ψ_t and B = Σ_t ψ_t b(s_t). The moments E[G^k X | s] and E[G^k X·Y | s] of S and B close.
function totalMoments(process, b) {
  const { Q, Q2 } = values(process);
  const powers = [Q.map((row) => row.map(() => 1)), Q, Q2];
  const one = b.map(() => 1);
  const S = firstMoments(process, one, powers);
  const B = firstMoments(process, b, powers);
  const SS = secondMoments(process, [one, one], [S, S], powers);
  const SB = secondMoments(process, [one, b], [S, B], powers);
  const BB = secondMoments(process, [b, b], [B, B], powers);
  const squares = SS[2].map((value, s) => value - 2 * SB[1][s] + BB[0][s]);
  return atStart(process, S[1], squares);
}

const CHOOSE = [[1], [1, 1], [1, 2, 1]];
const power = (x, k) => (k === 0 ? 1 : x ** k);

// E[G^k X | s] for k = 0, 1, 2 of X = Σ_t ψ_t x(s_t); E[X | s] is 0, as scores have zero mean.
function firstMoments(process, x, powers) {
  const gamma = process.mdp.discount;
  const n = [zeroRows(process.states, process.parameters)];
  for (const k of [1, 2]) {
    const known = expected(process, process.parameters, ({ s, a, next, r }) => {
      let total = scaled(score(process, s, a), x[s] * powers[k][s][a]);
      for (let j = 1; j < k; j++) {
        total = plus(total, scaled(n[j][next], CHOOSE[k][j] * gamma ** j * power(r, k - j)));
      }
      return total;
    });
    n.push(propagate(process, known, gamma ** k));
  }
  return n;
}

// E[G^k X·Y | s] for k = 0, 1, 2.
function secondMoments(process, [x, y], [X, Y], powers) {
  const gamma = process.mdp.discount;
  const m = [];
  for (const k of [0, 1, 2]) {
    const known = expected(process, 1, ({ s, a, next, r }) => {
      const psi = score(process, s, a);
      let total = dot(psi, psi) * x[s] * y[s] * powers[k][s][a];
      for (let j = 0; j <= k; j++) {
        const weight = CHOOSE[k][j] * gamma ** j * power(r, k - j);
        const later = plus(scaled(Y[j][next], x[s]), scaled(X[j][next], y[s]));
        total += weight * dot(psi, later);
        if (j < k) total += weight * m[j][next];
      }
      return [total];
    });
    m.push(propagate(process, known, gamma ** k).flat());
  }
  return m;
}

// The trace of reward-to-go weights is V(b*) + Σ_s curvature(s) (b(s) − b*(s))²: a parabola in each
// b(s). Returns b* (the trajectory optimum), [7] and V, [S] each, and the curvature.
function baselines(process) {
  const gamma = process.mdp.discount;
  const { V, Q } = values(process);
  const visits = occupancy(process, gamma ** 2); // E Σ_t γ^{2t} 1{s_t = s}
  const size = expected(process, 1, ({ s, a }) => {
    const psi = score(process, s, a);
    return [dot(psi, psi)];
  }).flat();
  const pushed = expected(process, 1, ({ s, a }) => {
    const psi = score(process, s, a);
    return [dot(psi, psi) * Q[s][a]];
  }).flat();
  const coupled = couplings(process, visits, Q);
  const curvature = visits.map((weight, s) => weight * size[s]);
  const ratio = (above, s) => (curvature[s] > 0 ? above / curvature[s] : 0);
  return {
    curvature,
    value: V.map((v, s) => (process.acts[s] ? v : 0)),
    normWeighted: pushed.map((push, s) => ratio(visits[s] * push, s)),
    trajectory: pushed.map((push, s) => ratio(visits[s] * push + coupled[s], s)),
  };
}

// What the other decisions of the trajectory add to E[ψ_t · ĝ0 | s], times visits, [S].
function couplings(process, visits, Q) {
  const { mdp, parameters } = process;
  const gamma = mdp.discount;
  const e = meansToGo(process, zeros(process.states));
  const later = expected(process, 1, ({ s, a, next }) => [
    gamma * dot(score(process, s, a), e[next]),
  ]).flat();
  const entering = zeroRows(process.states, parameters);
  for (const { s, a, next, p } of mdp.edges) {
    const weight = gamma ** 2 * visits[s] * process.pi[s][a] * p;
    entering[next] = plus(entering[next], scaled(score(process, s, a), weight));
  }
  const earlier = propagate(process, entering, gamma ** 2, true); // E Σ_t γ^{2t} 1{s_t=s} Σ_{t'<t} ψ_t'
  const push = expected(process, parameters, ({ s, a }) => scaled(score(process, s, a), Q[s][a]));
  return visits.map((weight, s) => weight * later[s] + dot(earlier[s], push[s]));
}

// The covariance [P][P] of a sum of one decision's pushes, for one-step MDPs: E[g gᵀ] − E g E gᵀ,
// g = ψ (R − b(s, a)). `weight` gives R − b of an edge.
function oneStepMoments(process, weight) {
  const { mdp, pi, parameters } = process;
  let mean = zeros(parameters);
  const second = zeroRows(parameters, parameters);
  for (const edge of mdp.edges) {
    const chance = mdp.initial[edge.s] * pi[edge.s][edge.a] * edge.p;
    const g = scaled(score(process, edge.s, edge.a), weight(edge));
    mean = plus(mean, scaled(g, chance));
    g.forEach((x, i) => g.forEach((y, j) => (second[i][j] += chance * x * y)));
  }
  const covariance = second.map((row, i) => row.map((x, j) => x - mean[i] * mean[j]));
  return { mean, covariance, trace: sum(covariance.map((row, i) => row[i])) };
}
