// Station 3: what drops out of ∇ log P(τ|θ), and three routes to one vector.
{
  const logits = (theta) => [[0, theta]];

  function answer({ theta, slip, horizon }, { seed }) {
    const process = chain(withHorizon(corridor(1, slip), horizon), logits(theta));
    const all = enumerate(process);
    const solved = gradientOfSolve(process);
    const visited = gradient(process);
    const scored = gradientByScores(all);
    const difference = Math.max(
      ...[visited, scored].flatMap((route) => route.map((x, i) => Math.abs(x - solved[i]))),
    );
    const byState = gradientByState(process);
    const states = [0, 1, 2].map((s) =>
      sum(byState.filter((_, i) => i % 4 === s).map((g) => g[1])),
    );
    const lengths = Array.from({ length: horizon }, (_, i) =>
      sum(all.filter((t) => t.path.length === i + 1).map((t) => t.probability * t.R * t.score[1])),
    );
    const one =
      all[
        drawn(
          all.map((t) => t.probability),
          stream(seed)(),
        )
      ];
    const right = process.table[0][1];
    return {
      numbers: { J: objective(process), solved, visited, scored, difference, count: all.length },
      words: `This trajectory: return ${brief(one.R)}, its scores for θ(right) add up to ${brief(
        one.score[1],
      )}. All ${all.length} trajectories together, and both other routes, give ${brief(solved[1], 6)}.`,
      view: {
        steps: one.path.map(({ s, a, next }) => [s % 4, a, next % 4]),
        terms: one.path.map(({ a }) => (a === 1 ? 1 - right : -right)),
        total: one.score[1],
        R: one.R,
        routes: [[solved[1]], states, lengths],
      },
      height: (width) => (width < 560 ? 440 : 470),
      outputs: { horizon: String(horizon) },
    };
  }

  const STATES = ["s₁", "s₂", "s₃", "goal"];

  function draw(pen, view, size) {
    const tiles = size.narrow ? 150 : 165;
    drawTiles(pen, view, size, tiles);
    drawRoutes(pen, view.routes, size, tiles + 18);
  }

  // log P(τ|θ) term by term: the terms of the world fade, those of the policy have a slope.
  function drawTiles(pen, { steps, terms, total, R }, size, bottom) {
    const count = 2 * steps.length + 1;
    const wide = Math.min(74, (size.width - 16) / count);
    const start = 8;
    const middle = bottom * 0.65;
    const unit = bottom * 0.17;
    const caption = "the terms of log P(τ|θ), and the slope of each in θ(right)";
    pen(label(start, 16, caption, "small", "start"));
    pen(line(start, middle, start + count * wide, middle, "axis"));
    const tile = (i, name, alive) => {
      pen(rectangle(start + i * wide + 1, 28, wide - 2, 30, alive ? "tile alive" : "tile"));
      pen(label(start + (i + 0.5) * wide, 48, name, alive ? "small strong" : "small"));
      if (!alive) pen(label(start + (i + 0.5) * wide, middle - 5, "0", "small"));
    };
    tile(0, size.narrow ? "ρ₀" : "ρ₀(s₁)", false);
    steps.forEach(([, a, next], t) => {
      const x = start + (2 * t + 1) * wide;
      tile(2 * t + 1, size.narrow ? "π" : `π(${"←→"[a]})`, true);
      const tip = middle - terms[t] * unit;
      pen(arrow(x + wide / 2, middle, x + wide / 2, tip, "sample", size.narrow ? 2 : 3));
      if (!size.narrow)
        pen(label(x + wide / 2, tip + (terms[t] > 0 ? -7 : 17), brief(terms[t], 2), "small"));
      tile(2 * t + 2, size.narrow ? "P" : `P(${STATES[next]})`, false);
    });
    const text = `R(τ) · sum of the slopes = ${brief(R)} · ${brief(total)} = ${brief(R * total)}`;
    pen(label(start, bottom + 2, text, "small", "start"));
  }

  // Three walks from 0 that end in one place, each made of other pieces, a row for each piece.
  function drawRoutes(pen, routes, size, top) {
    const names = [[""], ["s₁", "s₂", "s₃"], routes[2].map((_, i) => `${i + 1}`)];
    const titles = [
      "differentiating J",
      "visits × values, by state",
      "scores × returns, by length of the trajectory",
    ];
    const reached = routes.flatMap((pieces) => {
      let at = 0;
      return [0, ...pieces.map((piece) => (at += piece))];
    });
    const [low, high] = [Math.min(...reached, -0.02), Math.max(...reached, 0.02)];
    const x = scale([low, high], [size.narrow ? 40 : 60, size.width - 60]);
    const bottom = size.height - 22;
    const row = (bottom - top) / (3 * 1.25 + sum(routes.map((pieces) => pieces.length)));
    const end = x(sum(routes[0]));
    pen(line(x(0), top, x(0), bottom, "axis"), line(end, top, end, bottom, "goal"));
    const close = Math.abs(end - x(0)) < 20;
    if (!close) pen(label(x(0), size.height - 6, "0", "small"));
    pen(
      label(
        end,
        size.height - 6,
        `∂J/∂θ(right) = ${brief(sum(routes[0]), 4)}`,
        "label true-text",
        end > size.width * 0.6 ? "end" : end < size.width * 0.4 ? "start" : "middle",
      ),
    );
    let y = top;
    routes.forEach((pieces, i) => {
      pen(label(8, y + row * 0.9, titles[i], "small halo", "start"));
      y += row * 1.25;
      let at = 0;
      pieces.forEach((piece, k) => {
        pen(label(size.narrow ? 14 : 24, y + row / 2 + 4, names[i][k], "small halo", "start"));
        pen(
          arrow(
            x(at),
            y + row / 2,
            x(at + piece),
            y + row / 2,
            i === 0 ? "true" : "estimate",
            i === 0 ? 4 : 2.5,
          ),
        );
        at += piece;
        y += row;
      });
    });
  }

  station({
    name: "theorem",
    state: { seed: 4 },
    answer,
    draw,
    actions: { again: (_, { seed }) => ({ state: { seed: seed + 1 } }) },
  });
}
