// Station 7: which rewards a step is credited with, along one walk through the corridor.
{
  const LONGEST = 16; // steps of a walk that fits the picture
  const NAMES = ["s₁", "s₂", "s₃", "goal"];

  // A walk of at most LONGEST steps, from the first seed on that gives one; uniform numbers are
  // compared with the policy, so that the walk changes little when the policy does.
  function walked(process, seed) {
    for (let attempt = 0; ; attempt++) {
      const uniform = stream(seed * 1009 + attempt);
      const walk = [];
      for (let s = 0; process.acts[s] && walk.length <= LONGEST; s = walk.at(-1).next) {
        const a = drawn(process.pi[s], uniform());
        walk.push(process.mdp.edges.find((edge) => edge.s === s && edge.a === a));
      }
      if (walk.length >= 3 && walk.length <= LONGEST) return walk;
    }
  }

  function answer({ weights, step, right, gamma }, { seed }) {
    const process = chain(corridor(gamma), [[Math.log(1 - right), Math.log(right)]]);
    const { V, Q } = values(process);
    const none = zeros(4);
    const total = totalMoments(process, none);
    const toGo = toGoMoments(process, none);
    const advantage = toGoMoments(process, V);
    const walk = walked(process, seed);
    const returns = [];
    for (let t = walk.length - 1; t >= 0; t--)
      returns[t] = walk[t].r + gamma * (returns[t + 1] ?? 0);
    const t = Math.min(step, walk.length - 1);
    const { s, a } = walk[t];
    const shown = {
      total: () => returns[0],
      toGo: (i) => returns[i],
      advantage: (i) => returns[i] - V[walk[i].s],
    }[weights];
    return {
      numbers: {
        totalMean: total.mean,
        toGoMean: toGo.mean,
        advantageMean: advantage.mean,
        traces: [total.trace, toGo.trace, advantage.trace],
        reward: returns[0],
        toGo: returns[t],
        value: V[s],
        advantage: Q[s][a] - V[s],
      },
      words: [
        `Step ${t}: ${["left", "right"][a]} in ${NAMES[s]} is weighed by ${brief(shown(t))}.`,
        "All three weights have the same mean; their variance is",
        `${brief(total.trace, 4)}, ${brief(toGo.trace, 4)} and ${brief(advantage.trace, 4)}.`,
        `The walk shown is one of at most ${LONGEST} steps.`,
      ].join(" "),
      view: {
        walk: walk.map((edge) => [edge.s, edge.a, edge.next]),
        bars: walk.map((_, i) => shown(i)),
        t,
        from: weights === "total" ? 0 : t,
      },
      height: (width) => (width < 560 ? 390 : 450),
      outputs: { step: step > t ? `${t}, the last` : String(t) },
    };
  }

  function draw(pen, { walk, bars, t, from }, size) {
    const left = size.narrow ? 40 : 56;
    const cell = (size.width - left - 10) / walk.length;
    const middle = (i) => left + (i + 0.5) * cell;
    const rows = scale([3, 0], [24, size.height * 0.38]);
    NAMES.forEach((name, s) => {
      pen(
        line(left, rows(s), size.width - 8, rows(s), "grid"),
        label(left - 8, rows(s) + 5, name, "small", "end"),
      );
    });
    walk.forEach(([s, , next], i) => {
      const x2 = i + 1 < walk.length ? middle(i + 1) : middle(i) + cell / 2;
      pen(line(middle(i), rows(s), x2, rows(next), `walk ${i >= from - 0.5 ? "counted" : ""}`));
    });
    walk.forEach(([s, a], i) => {
      const chosen = Math.abs(i - t) < 0.5;
      pen(circle(middle(i), rows(s), chosen ? 12 : 9, chosen ? "node chosen" : "node"));
      pen(label(middle(i), rows(s) + 4, "←→"[a], chosen ? "small on" : "small"));
    });
    drawRewards(pen, { walk, from }, { left, cell, y: size.height * 0.38 + 28 });
    drawBars(
      pen,
      { bars, t },
      { left, cell, middle, top: size.height * 0.38 + 78, bottom: size.height - 26, size },
    );
  }

  function drawRewards(pen, { walk, from }, { left, cell, y }) {
    pen(label(left - 8, y + 15, "rₜ", "small", "end"));
    walk.forEach((_, i) => {
      const counted = i >= from - 0.5;
      pen(rectangle(left + i * cell + 1.5, y, cell - 3, 22, counted ? "tile alive" : "tile"));
      pen(label(left + (i + 0.5) * cell, y + 15, "−1", counted ? "small strong" : "small"));
    });
  }

  function drawBars(pen, { bars, t }, { left, cell, middle, top, bottom, size }) {
    const [low, high] = [Math.min(-1, ...bars), Math.max(1, ...bars)];
    const y = scale([low, high], [bottom, top]);
    pen(
      label(left - 8, y(0) + 4, "0", "small", "end"),
      line(left, y(0), size.width - 8, y(0), "axis"),
    );
    bars.forEach((weight, i) => {
      const chosen = Math.abs(i - t) < 0.5;
      const [from, to] = [Math.min(y(0), y(weight)), Math.max(y(0), y(weight))];
      pen(
        rectangle(
          left + i * cell + cell * 0.16,
          from,
          cell * 0.68,
          to - from,
          `bar estimate ${chosen ? "" : "pale"}`,
        ),
      );
      if (!size.narrow || chosen)
        pen(label(middle(i), weight > 0 ? from - 5 : to + 15, brief(weight, 3), "small"));
    });
    pen(label(left, top - 12, "weight of each step’s score", "small", "start"));
  }

  station({
    name: "credit",
    state: { seed: 2 },
    answer,
    draw,
    actions: { again: (_, { seed }) => ({ state: { seed: seed + 1 } }) },
  });
}
