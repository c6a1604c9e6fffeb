// Exact mean and covariance of estimators that compare the completions of one prompt, by listing
// every group of G completions, order aside.
//
// A kind of completion is {probability, reward, length, score}; a group is how many of its G
// completions are of each kind. An estimator is the weight of each kind in a group:
// ĝ = Σ_kinds count · weight · score, score the sum of ∇ log π over the completion's tokens.

const groupMean = (kinds, counts, size) =>
  kinds.reduce((m, k, i) => m + counts[i] * k.reward, 0) / size;

const GROUP_WEIGHTS = {
  // The mean of the others is the baseline (Ahmadian et al. 2024).
  rloo(kinds, counts, size) {
    const total = groupMean(kinds, counts, size) * size;
    return kinds.map(({ reward }) => (reward - (total - reward) / (size - 1)) / size);
  },
  // Group mean, group standard deviation, mean over tokens (Shao et al. 2024).
  grpo(kinds, counts, size) {
    const mean = groupMean(kinds, counts, size);
    const square = kinds.reduce((m, k, i) => m + counts[i] * (k.reward - mean) ** 2, 0) / size;
    if (square < 1e-20) return zeros(kinds.length); // equal rewards: no signal
    const spread = Math.sqrt(square) + 1e-4;
    return kinds.map(({ reward, length }) => (reward - mean) / spread / length / size);
  },
  // Group mean, no division by either (Liu et al. 2025).
  drGrpo(kinds, counts, size) {
    const mean = groupMean(kinds, counts, size);
    return kinds.map(({ reward }) => (reward - mean) / size);
  },
};

// ĝ of one group.
function groupEstimate(kinds, counts, size, weigh) {
  const weights = weigh(kinds, counts, size);
  const g = zeros(kinds[0].score.length);
  kinds.forEach(({ score: S }, i) => {
    for (let p = 0; counts[i] > 0 && p < g.length; p++) g[p] += counts[i] * weights[i] * S[p];
  });
  return g;
}

// Every way to draw `size` of `kinds` kinds, order aside: calls visit(counts, orderings).
function multisets(kinds, size, visit) {
  const counts = zeros(kinds);
  function place(kind, left, orderings) {
    if (kind === kinds - 1) {
      counts[kind] = left;
      visit(counts, orderings);
      return;
    }
    let ways = 1; // left choose count
    for (let count = 0; count <= left; count++) {
      counts[kind] = count;
      place(kind + 1, left - count, orderings * ways);
      ways = (ways * (left - count)) / (count + 1);
    }
  }
  place(0, size, 1);
}

// Mean [P], covariance [P][P] and its trace of ĝ of one group of `size`, for every estimator of the
// list, in one pass over the groups.
function groupMoments(kinds, size, estimators) {
  const parameters = kinds[0].score.length;
  const sums = estimators.map(() => ({
    mean: zeros(parameters),
    second: zeroRows(parameters, parameters),
  }));
  const powers = kinds.map(({ probability }) =>
    Array.from({ length: size + 1 }, (_, count) => probability ** count),
  );
  multisets(kinds.length, size, (counts, orderings) => {
    let chance = orderings;
    for (let i = 0; i < counts.length; i++) chance *= powers[i][counts[i]];
    estimators.forEach((weigh, k) => {
      const g = groupEstimate(kinds, counts, size, weigh);
      const { mean, second } = sums[k];
      for (let i = 0; i < parameters; i++) {
        mean[i] += chance * g[i];
        for (let j = 0; j < parameters; j++) second[i][j] += chance * g[i] * g[j];
      }
    });
  });
  return sums.map(({ mean, second }) => {
    const covariance = second.map((row, i) => row.map((x, j) => x - mean[i] * mean[j]));
    return { mean, covariance, trace: sum(covariance.map((row, i) => row[i])) };
  });
}
