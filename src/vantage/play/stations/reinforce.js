// Station 4: samples, their mean and the true gradient; a cloud of other draws.
{
  const DRAWS = 150;
  const logits = (u, v) => [
    [u, -u],
    [v, -v],
  ];

  // How often each pair of state and action occurs in m trajectories.
  function sampled(chances, m, seed) {
    const uniform = stream(seed);
    const counts = zeros(chances.length);
    let total = 0;
    const upTo = chances.map((chance) => (total += chance));
    const last = chances.length - 1;
    for (let i = 0; i < m; i++) {
      const at = uniform();
      let k = 0;
      while (k < last && at >= upTo[k]) k++;
      counts[k] += 1;
    }
    return counts;
  }

  const mean = (counts, gradients) => {
    const m = sum(counts);
    return gradients.reduce((g, one, i) => plus(g, scaled(one, counts[i] / m)), zeros(4));
  };

  function answer({ size, u, v, weights }, { seed, counts: given }) {
    const process = chain(ARTICLE, logits(u, v));
    const { V } = values(process);
    const { edges, initial } = ARTICLE;
    const chances = edges.map(({ s, a }) => initial[s] * process.pi[s][a]);
    const pushes = edges.map(({ s, r }) => r - (weights === "raw" ? 0 : V[s]));
    const gradients = edges.map(({ s, a }, i) => scaled(score(process, s, a), pushes[i]));
    const m = given ? sum(given) : Math.round(10 ** size);
    const counts = given ?? sampled(chances, m, seed);
    const estimate = mean(counts, gradients);
    const G = gradient(process);
    const baseline = weights === "raw" ? [0, 0, 0] : V;
    const trace = toGoMoments(process, baseline).trace / m;
    const cloud = Array.from({ length: DRAWS }, (_, k) =>
      mean(sampled(chances, m, 1000 * seed + k + 1), gradients),
    );
    const away = cosine(estimate, G);
    return {
      numbers: {
        counts,
        pushes,
        estimate,
        gradient: G,
        m,
        cosine: away,
        trace,
        snr: dot(G, G) / trace,
      },
      words: [
        m === 1 ? "One trajectory:" : `${m} trajectories:`,
        direction(away),
        `In repeated draws (dots) ĝ strays by ${brief(Math.sqrt(trace))}, and ∇J is ${brief(norm(G))} long.`,
      ].join(" "),
      view: {
        gradients: gradients.map((g) => [g[0], g[2]]),
        shares: counts.map((count) => count / m),
        estimate: [estimate[0], estimate[2]],
        true: [G[0], G[2]],
        cloud: cloud.map((g) => [g[0], g[2]]),
        reach: 1.35 + 5.4 / Math.sqrt(m),
      },
      height: (width) => (width < 560 ? 330 : 430),
      outputs: { size: String(m) },
    };
  }

  function direction(cosineWithTruth) {
    if (Number.isNaN(cosineWithTruth)) return "ĝ is nothing, and there is no step.";
    const said = `the cosine of ĝ and ∇J is ${brief(cosineWithTruth)}.`;
    return `${said} A short step ${cosineWithTruth < 0 ? "would lower J." : "raises J."}`;
  }

  function draw(pen, view, size) {
    const area = plane(size.width, size.height, view.reach);
    const [x0, y0] = [area.x(0), area.y(0)];
    pen(line(0, y0, size.width, y0, "axis"), line(x0, 0, x0, size.height, "axis"));
    for (const place of ticks([-view.reach, view.reach], 6).filter((t) => Math.abs(t) > 1e-9)) {
      pen(
        label(area.x(place), y0 + 16, brief(place), "small"),
        line(area.x(place), y0 - 3, area.x(place), y0 + 3, "axis"),
      );
    }
    pen(label(size.width - 8, size.height - 10, "s₁: a₁ up, a₂ down →", "small halo", "end"));
    pen(label(x0 + 8, 15, "↑ s₂: a₁ up, a₂ down", "small halo", "start"));
    view.cloud.forEach(([x, y]) => pen(circle(area.x(x), area.y(y), 2.5, "dot")));
    view.gradients.forEach(([x, y], i) => {
      if (view.shares[i] < 1e-6) return;
      pen(arrow(x0, y0, area.x(x), area.y(y), "sample", 1.5 + 5 * view.shares[i]));
    });
    pen(arrow(x0, y0, area.x(view.true[0]), area.y(view.true[1]), "true", 4));
    pen(arrow(x0, y0, area.x(view.estimate[0]), area.y(view.estimate[1]), "estimate", 4));
    named(pen, area, view.true, "∇J", "true-text", size);
    named(pen, area, view.estimate, "ĝ", "estimate-text", size);
  }

  function named(pen, area, [x, y], text, kind, { width, height }) {
    const px = Math.min(width - 24, Math.max(24, area.x(x) + (x < 0 ? -16 : 16)));
    const py = Math.min(height - 8, Math.max(16, area.y(y) + (y < 0 ? 18 : -8)));
    pen(label(px, py, text, `${kind} halo`));
  }

  station({
    name: "reinforce",
    state: { seed: 3, counts: null },
    answer,
    draw,
    actions: {
      input: () => ({ state: { counts: null } }),
      again: (_, { seed }) => ({ state: { seed: seed + 1, counts: null } }),
      article: () => ({
        values: { u: 0, v: 0, size: Math.log10(2) },
        state: { counts: [0, 1, 0, 1] },
      }),
    },
  });
}
