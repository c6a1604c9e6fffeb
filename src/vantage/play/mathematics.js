// The mathematics of the page: tabular MDPs, exactly, by linear solves. Equation numbers are the
// article's. Nothing here touches the page; tests hold every function against vantage.exact.
//
// An MDP is {actions, observation: [S], initial: [S], discount, edges}, an edge {s, a, next, p, r}
// for every possible transition; a state that no edge leaves is terminal. A policy is a table of
// logits, one row for each observation. Parameters are its entries, row by row. A baseline is [S].

const sum = (numbers) => numbers.reduce((total, x) => total + x, 0);
const dot = (x, y) => x.reduce((total, value, i) => total + value * y[i], 0);
const scaled = (x, factor) => x.map((value) => value * factor);
const plus = (x, y) => x.map((value, i) => value + y[i]);
const minus = (x, y) => x.map((value, i) => value - y[i]);
const zeros = (count) => new Array(count).fill(0);
const zeroRows = (count, width) => Array.from({ length: count }, () => zeros(width));
const norm = (x) => Math.sqrt(dot(x, x));
const cosine = (x, y) => dot(x, y) / (norm(x) * norm(y));

function softmax(logits) {
  const highest = Math.max(...logits);
  const powers = logits.map((x) => Math.exp(x - highest));
  return scaled(powers, 1 / sum(powers));
}

// X with matrix X = columns, by elimination with row exchanges; columns is [n][k].
function solve(matrix, columns) {
  const n = matrix.length;
  const rows = matrix.map((row, i) => [...row, ...columns[i]]);
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let i = k + 1; i < n; i++) {
      if (Math.abs(rows[i][k]) > Math.abs(rows[pivot][k])) pivot = i;
    }
    [rows[k], rows[pivot]] = [rows[pivot], rows[k]];
    for (let i = 0; i < n; i++) {
      const factor = rows[i][k] / rows[k][k];
      if (i === k || factor === 0) continue;
      for (let j = k; j < rows[i].length; j++) rows[i][j] -= factor * rows[k][j];
    }
  }
  return rows.map((row, i) => scaled(row.slice(n), 1 / row[i]));
}

// The process that a policy makes of an MDP: everything that the solves below have in common.
function chain(mdp, logits) {
  const table = logits.map(softmax);
  const states = mdp.observation.length;
  const pi = mdp.observation.map((observed) => table[observed]);
  const parameters = logits.length * mdp.actions;
  const acts = zeros(states);
  for (const { s } of mdp.edges) acts[s] = 1;
  return { mdp, table, pi, states, parameters, acts };
}

// ∇ log π(a|s), flat: 1[a' = a] − π(a'|s) in the row of what is observed in s, 0 in other rows.
function score({ mdp, pi, parameters }, s, a) {
  const gradient = zeros(parameters);
  const row = mdp.observation[s] * mdp.actions;
  pi[s].forEach((chance, other) => {
    gradient[row + other] = (other === a ? 1 : 0) - chance;
  });
  return gradient;
}

// [S][k] E[f(edge) | s] over the action and the transition; f gives a vector of k.
function expected(process, width, f) {
  const mean = zeroRows(process.states, width);
  for (const edge of process.mdp.edges) {
    const chance = process.pi[edge.s][edge.a] * edge.p;
    f(edge).forEach((value, i) => (mean[edge.s][i] += chance * value));
  }
  return mean;
}

// x = source + factor P x, or with Pᵀ where `forward` is set: (I − factor P)⁻¹ source.
function propagate(process, source, factor, forward = false) {
  const matrix = process.pi.map((_, i) => process.pi.map((__, j) => (i === j ? 1 : 0)));
  for (const { s, a, next, p } of process.mdp.edges) {
    const weight = factor * process.pi[s][a] * p;
    if (forward) matrix[next][s] -= weight;
    else matrix[s][next] -= weight;
  }
  return solve(matrix, source);
}

// V [S], Q [S][A] and the second moments of the return from there on, Q2 [S][A] and m2 [S].
function values(process) {
  const gamma = process.mdp.discount;
  const v = propagate(
    process,
    expected(process, 1, ({ r }) => [r]),
    gamma,
  ).flat();
  const square = ({ r, next }) => r * r + 2 * gamma * r * v[next];
  const m2 = propagate(
    process,
    expected(process, 1, (edge) => [square(edge)]),
    gamma ** 2,
  ).flat();
  const Q = zeroRows(process.states, process.mdp.actions);
  const Q2 = zeroRows(process.states, process.mdp.actions);
  for (const edge of process.mdp.edges) {
    Q[edge.s][edge.a] += edge.p * (edge.r + gamma * v[edge.next]);
    Q2[edge.s][edge.a] += edge.p * (square(edge) + gamma ** 2 * m2[edge.next]);
  }
  return { V: v, Q, Q2 };
}

// [1] J = ρ0 · V.
const objective = (process) => dot(process.mdp.initial, values(process).V);

// Σ_t γ^t P(s_t = s), [S].
function occupancy(process, factor = process.mdp.discount) {
  const start = process.mdp.initial.map((chance) => [chance]);
  return propagate(process, start, factor, true).flat();
}

// What each state adds to ∇J: d(s) Σ_a ∇π(a|s) Q(s,a), [S][P].
function gradientByState(process) {
  const { Q } = values(process);
  const d = occupancy(process);
  return d.map((visits, s) => {
    let total = zeros(process.parameters);
    if (!process.acts[s]) return total;
    process.pi[s].forEach((chance, a) => {
      total = plus(total, scaled(score(process, s, a), visits * chance * Q[s][a]));
    });
    return total;
  });
}

const gradient = (process) => gradientByState(process).reduce(plus, zeros(process.parameters));

// ∂J/∂θ by differentiating the equations of J themselves: V = r + γ P V gives
// V' = (I − γP)⁻¹ (r' + γ P' V). Probabilities are differentiated, no logarithm occurs.
function gradientOfSolve(process) {
  const { mdp, pi, parameters } = process;
  const { V } = values(process);
  const slopes = expected(process, parameters, ({ s, a, r, next }) =>
    scaled(score(process, s, a), r + mdp.discount * V[next]),
  );
  const moved = propagate({ mdp, pi }, slopes, mdp.discount);
  return moved.reduce(
    (total, row, s) => plus(total, scaled(row, mdp.initial[s])),
    zeros(parameters),
  );
}

// An MDP that ends after `horizon` steps, as one whose states are (time, state).
function withHorizon(mdp, horizon) {
  const states = mdp.observation.length;
  const end = horizon * states;
  const edges = [];
  for (let t = 0; t < horizon; t++) {
    for (const edge of mdp.edges) {
      const next = t + 1 < horizon ? (t + 1) * states + edge.next : end;
      edges.push({ ...edge, s: t * states + edge.s, next });
    }
  }
  const observation = [...Array(horizon).fill(mdp.observation).flat(), mdp.observation[0]];
  const initial = [...mdp.initial, ...zeros(end + 1 - states)];
  return { ...mdp, observation, initial, edges };
}

// [3] Every trajectory with its probability, return R and summed score; for MDPs without cycles.
function enumerate(process) {
  const { mdp, pi, parameters } = process;
  const leaving = process.pi.map(() => []);
  const scores = process.pi.map((row, s) => row.map((_, a) => score(process, s, a)));
  for (const edge of mdp.edges) leaving[edge.s].push(edge);
  const found = [];
  function walk(s, probability, R, factor, S, path) {
    if (leaving[s].length === 0) {
      found.push({ probability, R, score: S, path });
      return;
    }
    for (const edge of leaving[s]) {
      walk(
        edge.next,
        probability * pi[s][edge.a] * edge.p,
        R + factor * edge.r,
        factor * mdp.discount,
        plus(S, scores[s][edge.a]),
        [...path, edge],
      );
    }
  }
  mdp.initial.forEach((chance, s) => {
    if (chance > 0) walk(s, chance, 0, 1, zeros(parameters), []);
  });
  return found;
}

// [4] Σ_τ P(τ|θ) R(τ) Σ_t ∇ log π(a_t|s_t).
const gradientByScores = (trajectories) =>
  trajectories.map(({ probability, R, score: S }) => scaled(S, probability * R)).reduce(plus);
