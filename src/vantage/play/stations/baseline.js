// Station 5: a baseline moves the cloud and not its mean, unless it looks at the action.
{
  const DRAWS = 300;
  const M = 10; // trajectories of one estimate
  const policy = (chance) => [0, 1].map(() => [Math.log(chance), Math.log(1 - chance)]);

  function answer({ first, second, extra, chance }) {
    const process = chain(ARTICLE, policy(chance));
    const b = [first, second];
    const weight = ({ s, a, r }) => r - b[s] - (a === 0 ? extra : 0);
    const { mean, covariance, trace } = oneStepMoments(process, weight);
    const G = gradient(process);
    const bias = norm(minus(mean, G));
    const raw = toGoMoments(process, [0, 0, 0]).trace;
    const least = toGoMoments(process, baselines(process).trajectory).trace;
    const pushes = ARTICLE.edges.map((edge) =>
      scaled(score(process, edge.s, edge.a), weight(edge)),
    );
    const chances = ARTICLE.edges.map(({ s, a }) => ARTICLE.initial[s] * process.pi[s][a]);
    return {
      numbers: { mean, gradient: G, bias, trace, raw, least },
      words: [
        bias < 1e-12
          ? "The mean of ĝ is ∇J exactly."
          : `The mean of ĝ is off by ${brief(bias)}: a bias that no number of samples removes.`,
        `The variance is ${brief(trace, 4)},`,
        `${brief((100 * trace) / raw)} % of what it is without a baseline.`,
        `Dots: ${DRAWS} means of ${M} trajectories; ellipse: two standard deviations.`,
      ].join(" "),
      view: {
        mean: [mean[0], mean[2]],
        true: [G[0], G[2]],
        covariance: [
          [covariance[0][0] / M, covariance[0][2] / M],
          [covariance[2][0] / M, covariance[2][2] / M],
        ],
        cloud: clouded(pushes, chances),
      },
      height: (width) => (width < 560 ? 330 : 440),
    };
  }

  // The same random numbers for every setting, so that a dot can be followed.
  function clouded(pushes, chances) {
    const uniform = stream(11);
    return Array.from({ length: DRAWS }, () => {
      let [x, y] = [0, 0];
      for (let i = 0; i < M; i++) {
        const push = pushes[drawn(chances, uniform())];
        x += push[0] / M;
        y += push[2] / M;
      }
      return [x, y];
    });
  }

  function draw(pen, view, size) {
    const area = plane(size.width, size.height, 2.5);
    const [x0, y0] = [area.x(0), area.y(0)];
    pen(line(0, y0, size.width, y0, "axis"), line(x0, 0, x0, size.height, "axis"));
    pen(label(size.width - 8, size.height - 10, "s₁: a₁ up, a₂ down →", "small halo", "end"));
    pen(label(x0 + 8, 15, "↑ s₂: a₁ up, a₂ down", "small halo", "start"));
    pen(spread(area, view.mean, view.covariance, 2, "ellipse"));
    view.cloud.forEach(([x, y]) => pen(circle(area.x(x), area.y(y), 2.5, "dot")));
    const [tx, ty] = [area.x(view.true[0]), area.y(view.true[1])];
    const [mx, my] = [area.x(view.mean[0]), area.y(view.mean[1])];
    pen(arrow(x0, y0, tx, ty, "true", 4), arrow(x0, y0, mx, my, "estimate", 2.5));
    const side = mx < tx ? 1 : -1; // names stand on either side of the gap
    const gap = Math.hypot(tx - mx, ty - my);
    if (gap > 4) {
      pen(line(tx, ty, mx, my, "gap"));
      pen(label(mx - 14 * side, my + 6, "E ĝ", "estimate-text halo", side > 0 ? "end" : "start"));
    }
    if (gap > 70) pen(label((tx + mx) / 2, (ty + my) / 2 - 8, "bias", "small halo"));
    pen(label(tx + 14 * side, ty + 6, "∇J", "true-text halo", side > 0 ? "start" : "end"));
  }

  station({
    name: "baseline",
    answer,
    draw,
    actions: {
      none: () => ({ values: { first: 0, second: 0, extra: 0 } }),
      constant: ({ chance }) => {
        const J = objective(chain(ARTICLE, policy(chance)));
        return { values: { first: J, second: J, extra: 0 } };
      },
      value: ({ chance }) => {
        const { V } = values(chain(ARTICLE, policy(chance)));
        return { values: { first: V[0], second: V[1], extra: 0 } };
      },
    },
  });
}
