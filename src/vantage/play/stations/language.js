// Station 8: a language model small enough to list, and estimators that compare its completions.
{
  const NAMES = [
    ["rloo", "RLOO", "best"],
    ["grpo", "GRPO", "estimate"],
    ["drGrpo", "Dr. GRPO", "seven"],
  ];

  // Gradients add up to nothing over the tokens, so they lie in a plane: ⊣ up, a left, b right.
  const flat = ([a, b, end]) => [(b - a) / Math.SQRT2, (2 * end - a - b) / Math.sqrt(6)];
  const AXES = [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ].map(flat);

  function flatCovariance(covariance) {
    const rows = covariance.map(flat);
    const columns = rows[0].map((_, j) => flat(rows.map((row) => row[j])));
    return columns; // symmetric
  }

  function kindsOf(process) {
    const order = (path) => COMPLETIONS.indexOf(path.map(({ a }) => "ab⊣"[a]).join(""));
    return enumerate(process)
      .sort((one, other) => order(one.path) - order(other.path))
      .map(({ probability, R, score: S, path }) => ({
        probability,
        reward: R,
        score: S,
        length: path.length,
      }));
  }

  function answer(values, { seed }) {
    const rewards = COMPLETIONS.map((_, i) => values[`reward${i}`]);
    const { size } = values;
    const process = chain(languageModel(rewards), [[values.a, values.b, values.end]]);
    const kinds = kindsOf(process);
    const G = gradient(process);
    const moments = groupMoments(
      kinds,
      size,
      NAMES.map(([name]) => GROUP_WEIGHTS[name]),
    );
    const uniform = stream(seed);
    const counts = zeros(kinds.length);
    for (let i = 0; i < size; i++)
      counts[
        drawn(
          kinds.map((kind) => kind.probability),
          uniform(),
        )
      ] += 1;
    const groups = NAMES.map(([name]) => groupEstimate(kinds, counts, size, GROUP_WEIGHTS[name]));
    const weights = NAMES.map(([name]) =>
      GROUP_WEIGHTS[name](kinds, counts, size).map((weight, i) =>
        counts[i] ? weight * size : NaN,
      ),
    );
    const tilts = moments.map(({ mean }) => angle(mean, G));
    return {
      numbers: {
        chances: kinds.map(({ probability }) => probability),
        counts,
        weights0: weights[0],
        weights1: weights[1],
        weights2: weights[2],
        gradient: G,
        rloo: moments[0].mean,
        grpo: moments[1].mean,
        drGrpo: moments[2].mean,
        tilts,
        traces: moments.map(({ trace }) => trace),
      },
      words: said(G, moments, tilts, size),
      view: {
        true: flat(G),
        means: moments.map(({ mean }) => flat(mean)),
        covariances: moments.map(({ covariance }) => flatCovariance(covariance)),
        groups: groups.map(flat),
        reach: Math.max(
          0.05,
          ...moments.map(({ mean }) => 1.5 * norm(mean)),
          1.5 * norm(G),
          norm(moments[0].mean) + 0.85 * Math.sqrt(moments[0].trace),
        ),
      },
      height: (width) => (width < 560 ? 330 : 325),
    };
  }

  function angle(x, y) {
    if (norm(x) < 1e-12 || norm(y) < 1e-12) return NaN;
    // the sine is exact where the angle is small
    const [[a, b], [c, d]] = [flat(x), flat(y)];
    return Math.abs(Math.atan2(a * d - b * c, a * c + b * d)) * (180 / Math.PI);
  }

  function said(G, moments, tilts, size) {
    if (norm(G) < 1e-12) return "∇J is nothing here: there is no gradient to estimate.";
    const length = (i) => brief(norm(moments[i].mean) / norm(G));
    const tilt = tilts[1] < 1e-3 ? "not tilted" : `tilted by ${brief(tilts[1])}°`;
    return [
      `Groups of ${size}: RLOO’s mean is ∇J; Dr. GRPO’s is ${length(2)} of it;`,
      `GRPO’s is ${length(1)} as long and ${tilt}.`,
      "Ellipses: one standard deviation of one group; dots: the group drawn.",
    ].join(" ");
  }

  function draw(pen, view, size) {
    const area = plane(size.width, size.height, view.reach);
    const [x0, y0] = [area.x(0), area.y(0)];
    ["more a", "more b", "more ⊣"].forEach((text, i) => {
      const [x, y] = AXES[i].map((part) => part * view.reach * 0.98);
      pen(line(x0, y0, area.x(x), area.y(y), "axis"));
      pen(
        label(
          area.x(x * 1.08),
          area.y(y * 0.93) + (i < 2 ? 14 : 4),
          text,
          "small halo",
          i === 2 ? "start" : "middle",
        ),
      );
    });
    view.covariances.forEach((covariance, i) =>
      pen(spread(area, view.means[i], covariance, 1, `ellipse ${NAMES[i][2]}`)),
    );
    pen(arrow(x0, y0, area.x(view.true[0]), area.y(view.true[1]), "true", 6));
    view.means.forEach(([x, y], i) => pen(arrow(x0, y0, area.x(x), area.y(y), NAMES[i][2], 2.5)));
    view.groups.forEach(([x, y], i) => pen(circle(area.x(x), area.y(y), 5, `mark ${NAMES[i][2]}`)));
    const left = 10;
    [["∇J", "true"], ...NAMES.map(([, text, kind]) => [text, kind])].forEach(([text, kind], i) => {
      pen(
        line(left, 18 + 20 * i, left + 22, 18 + 20 * i, `key ${kind}`),
        label(left + 30, 22 + 20 * i, text, "small", "start"),
      );
    });
  }

  station({
    name: "language",
    state: { seed: 1 },
    answer,
    draw,
    actions: {
      again: (_, { seed }) => ({ state: { seed: seed + 1 } }),
      rewards: (_, __, listed) => ({
        values: Object.fromEntries(listed.split(",").map((reward, i) => [`reward${i}`, reward])),
      }),
    },
  });
}
