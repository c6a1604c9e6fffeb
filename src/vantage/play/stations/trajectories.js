// Station 1: walk by hand, and see the probability of the walk multiply up.
{
  const WORLDS = {
    article: {
      mdp: ARTICLE,
      states: ["s₁", "s₂", "end"],
      actions: ["a₁", "a₂"],
      place: [
        [0.3, 0.25],
        [0.3, 0.75],
      ],
      outcomes: [
        [0.82, 0.1],
        [0.82, 0.37],
        [0.82, 0.63],
        [0.82, 0.9],
      ],
    },
    corridor: {
      mdp: corridor(),
      states: ["s₁", "s₂", "s₃", "goal"],
      actions: ["left", "right"],
      place: [
        [0.14, 0.5],
        [0.39, 0.5],
        [0.63, 0.5],
        [0.88, 0.5],
      ],
    },
  };

  const policy = (values) =>
    values.world === "article"
      ? [values.first, values.second].map((p) => [Math.log(p), Math.log(1 - p)])
      : [[Math.log(1 - values.right), Math.log(values.right)]];

  const fresh = (world) => ({ world, start: world === "corridor" ? 0 : null, walk: [], seed: 1 });

  // Where the token stands: a state, an outcome of the article's world, or before the start.
  function standing({ world, start, walk }) {
    const { place, outcomes } = WORLDS[world];
    if (start === null) return [0.08, 0.5];
    if (walk.length === 0) return place[start];
    const { s, a, next } = walk.at(-1);
    return outcomes ? outcomes[2 * s + a] : place[next];
  }

  function answer(values, state) {
    const world = WORLDS[values.world];
    const { mdp, states, actions } = world;
    const process = chain(mdp, policy(values));
    const { start, walk } = state;
    const factors =
      start === null ? [] : [{ name: `ρ₀(${states[start]})`, value: mdp.initial[start] }];
    for (const { s, a, next, p } of walk) {
      factors.push({
        name: `π(${actions[a]}|${states[s]})`,
        value: process.pi[s][a],
        policy: true,
      });
      factors.push({ name: `P(${states[next]}|${states[s]}, ${actions[a]})`, value: p });
    }
    let product = 1;
    const products = factors.map(({ value }) => (product *= value));
    const reward = sum(walk.map(({ r }) => r));
    const here = start === null ? null : (walk.at(-1)?.next ?? start);
    const ended = here !== null && !process.acts[here];
    const J = objective(process);
    return {
      numbers: { probability: product, reward, part: product * reward, J },
      words: said(world, state, { here, ended, product, reward, J }),
      view: {
        world: values.world,
        pi: process.pi,
        token: standing(state),
        walked: mdp.edges.map(
          (edge) => walk.filter(({ s, a }) => s === edge.s && a === edge.a).length,
        ),
        started: start ?? -1,
        products,
        kinds: factors.map((factor) => (factor.policy ? "estimate" : "world")),
      },
      height: (width) => (width < 560 ? 340 : 440),
      slots: {
        moves: moves(world, here, ended),
        factors: chips(factors),
        all: listed(values, process, state),
      },
    };
  }

  function said({ states }, { walk }, { here, ended, product, reward, J }) {
    if (here === null) return `Choose a start: both have probability ½. J is ${brief(J, 7)}.`;
    const steps = `${walk.length} ${walk.length === 1 ? "step" : "steps"}`;
    const place = ended
      ? `The trajectory is complete after ${steps}`
      : `In ${states[here]} after ${steps}`;
    return `${place}: probability ${brief(product, 4)}, return ${brief(reward, 4)}. J is ${brief(J, 7)}.`;
  }

  function moves({ mdp, states, actions }, here, ended) {
    const button = (action, argument, text) =>
      `<button type="button" class="main" data-action="${action}" data-argument="${argument}">${text}</button>`;
    if (here === null) {
      return [0, 1].map((s) => button("start", s, `Start in ${states[s]}`)).join("");
    }
    if (ended) return '<p class="note">The end. Take back a step, or start again.</p>';
    return actions.map((name, a) => button("move", a, `Action ${name}`)).join("");
  }

  function chips(factors) {
    if (factors.length === 0) return '<span class="chip">no factor yet</span>';
    const listed = factors
      .slice(-7)
      .map(
        ({ name, value, policy: ours }) =>
          `<span class="chip ${ours ? "policy" : ""}">${name} = ${brief(value, 4)}</span>`,
      );
    const before = factors.length - listed.length;
    return (before ? [`<span class="chip">${before} factors</span>`, ...listed] : listed).join(
      '<span class="times">×</span>',
    );
  }

  // [1] in the article's world: four trajectories, whose parts add up to J.
  function listed({ world }, process, { start, walk }) {
    if (world !== "article") return "";
    const rows = ARTICLE.edges.map(({ s, a, r }) => {
      const p = ARTICLE.initial[s] * process.pi[s][a];
      const ours = s === start && walk[0]?.a === a ? ' class="ours"' : "";
      return `<tr${ours}><th scope="row">s${"₁₂"[s]} a${"₁₂"[a]}</th><td>${written(p)}</td><td>${written(r)}</td><td>${written(p * r)}</td></tr>`;
    });
    const heads = ["trajectory", "P(τ|θ)", "R(τ)", "P·R"].map(
      (name) => `<th scope="col">${name}</th>`,
    );
    return `<table><thead><tr>${heads.join("")}</tr></thead><tbody>${rows.join("")}</tbody></table>`;
  }

  const EDGE_LIMIT = 40; // steps, so that the walk stays on the screen

  function step(values, state, a) {
    const { mdp } = WORLDS[state.world];
    const here = state.walk.at(-1)?.next ?? state.start;
    const edge = mdp.edges.find(({ s, a: action }) => s === here && action === a);
    return edge && state.walk.length < EDGE_LIMIT ? { state: { walk: [...state.walk, edge] } } : {};
  }

  const actions = {
    input: (values, state) => (values.world === state.world ? {} : { state: fresh(values.world) }),
    start: (values, state, s) => ({ state: { start: Number(s), walk: [] } }),
    move: (values, state, a) => step(values, state, Number(a)),
    restart: (values) => ({ state: fresh(values.world) }),
    back: (values, state) => {
      if (state.walk.length > 0) return { state: { walk: state.walk.slice(0, -1) } };
      return { state: { start: values.world === "corridor" ? 0 : null } };
    },
    follow: (values, state) => {
      const uniform = stream(state.seed * 7919 + state.walk.length)();
      const seed = { seed: state.seed + 1 };
      if (state.start === null)
        return { state: { start: drawn(ARTICLE.initial, uniform), walk: [], ...seed } };
      const process = chain(WORLDS[state.world].mdp, policy(values));
      const here = state.walk.at(-1)?.next ?? state.start;
      if (!process.acts[here]) return { state: { ...fresh(state.world), ...seed } };
      const changes = step(values, state, drawn(process.pi[here], uniform));
      return { state: { ...changes.state, ...seed } };
    },
  };

  function draw(pen, view, size) {
    const world = WORLDS[view.world];
    const graph = size.height * (size.narrow ? 0.6 : 0.64);
    const at = ([x, y]) => [x * size.width, 12 + y * (graph - 24)];
    if (view.world === "article") drawArticle(pen, view, world, at);
    else drawCorridor(pen, view, world, at, graph);
    const [x, y] = at(view.token);
    pen(circle(x, y, 26, "token"));
    drawProducts(pen, view, size, graph);
  }

  function drawArticle(pen, view, { mdp, place, outcomes, states }, at) {
    const [x0, y0] = at([0.08, 0.5]);
    place.forEach((spot, s) => {
      const [x, y] = at(spot);
      pen(line(x0, y0, x, y, `edge ${Math.abs(view.started - s) < 0.01 ? "walked" : ""}`));
      pen(label((x0 + x) / 2 - 4, (y0 + y) / 2 + (s ? 18 : -10), "½", "small"));
    });
    mdp.edges.forEach(({ s, a, r }, i) => {
      const [[x1, y1], [x2, y2]] = [at(place[s]), at(outcomes[i])];
      const drawnLine = line(x1, y1, x2, y2, `edge ${view.walked[i] > 0.5 ? "walked" : ""}`);
      drawnLine.style.strokeWidth = 1 + 6 * view.pi[s][a];
      pen(drawnLine);
      const text = `a${"₁₂"[a]}  ${brief(view.pi[s][a], 2)}`;
      pen(label(x1 + 0.5 * (x2 - x1), y1 + 0.5 * (y2 - y1) + (a ? 20 : -9), text, "small"));
      pen(circle(x2, y2, 17, "node end"), label(x2, y2 + 5, written(r)));
    });
    pen(circle(x0, y0, 5, "node dot"));
    place.forEach((spot, s) => {
      const [x, y] = at(spot);
      pen(circle(x, y, 21, "node"), label(x, y + 5, states[s], "name"));
    });
  }

  function drawCorridor(pen, view, { mdp, place, states }, at, graph) {
    mdp.edges.forEach(({ s, a, next }, i) => {
      const [[x1, y1], [x2]] = [at(place[s]), at(place[next])];
      const bow = graph * 0.3 * (next > s ? -1 : 1);
      const loop = next === s;
      const d = loop
        ? `M${x1 - 8},${y1 + 18} C${x1 - 30},${y1 + 75} ${x1 + 30},${y1 + 75} ${x1 + 8},${y1 + 18}`
        : `M${x1},${y1} Q${(x1 + x2) / 2},${y1 + bow * 1.7} ${x2},${y1}`;
      const edge = el("path", { d, class: `edge ${view.walked[i] > 0.5 ? "walked" : ""}` });
      edge.style.strokeWidth = 1 + 6 * view.pi[s][a];
      pen(edge);
      const middle = loop ? [x1, y1 + 78] : [(x1 + x2) / 2, y1 + bow * 0.85 + (bow < 0 ? -10 : 20)];
      pen(label(...middle, "←→"[a] + (i > 1 && i < 4 ? " reversed" : ""), "small"));
    });
    place.forEach((spot, s) => {
      const [x, y] = at(spot);
      pen(
        circle(x, y, s < 3 ? 21 : 23, `node ${s < 3 ? "" : "end"}`),
        label(x, y + 5, states[s], "name"),
      );
    });
  }

  // The product after each factor, on a logarithmic axis: every factor takes its share.
  function drawProducts(pen, { products, kinds }, size, top) {
    const [left, right, low] = [size.narrow ? 8 : 60, size.width - 8, size.height - 24];
    const high = top + 34;
    pen(label(left, high - 12, "P(τ|θ) after each factor", "small", "start"));
    pen(line(left, low, right, low, "axis"));
    const depth = Math.max(3, ...products.map((p) => -Math.log10(p)));
    const y = scale([0, -depth], [high, low]);
    const width = Math.min(46, (right - left) / Math.max(1, products.length));
    if (!size.narrow) {
      for (const power of ticks([0, depth], 3)) {
        pen(
          label(
            left - 8,
            y(-power) + 4,
            power ? `10⁻${[...("" + power)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join("")}` : "1",
            "small",
            "end",
          ),
        );
      }
    }
    products.forEach((p, i) => {
      const height = y(Math.log10(p));
      pen(rectangle(left + i * width + 1, height, width - 2, low - height, `bar ${kinds[i]}`));
      if (height > low - 1)
        pen(line(left + i * width + 1, low, left + (i + 1) * width - 1, low, "walked edge"));
    });
    if (products.length)
      pen(label(left, low + 17, "ρ₀, then π (orange) and P (grey) in turn", "small", "start"));
  }

  station({ name: "trajectories", state: fresh("article"), answer, draw, actions });
}
