// Station 2: the surface of J over the logits, its gradient, and steps along it.
{
  const REACH = 3.2;
  const EDGE = " This is the edge of the map; the best policy lies infinitely far out.";
  const logits = (u, v) => [
    [u, -u],
    [v, -v],
  ];
  const worth = (u, v) => objective(chain(ARTICLE, logits(u, v)));
  const sloped = (u, v) => gradient(chain(ARTICLE, logits(u, v)));

  // Where J = level, as (u, v): solved for v, since J is a sum of one function of each.
  function contour(level) {
    const points = [];
    const logit = (chance) => Math.log(chance / (1 - chance)) / 2;
    const chance = (logarithm) => 1 / (1 + Math.exp(-2 * logarithm));
    for (let x = -REACH * 2.2; x <= REACH * 2.2; x += 0.05) {
      const second = (7 + 5 * chance(x) + 5 - 2 * level) / 3; // π(a₁|s₂) where u = x
      if (second > 0 && second < 1) points.push([x, logit(second)]);
      const first = (2 * level - 12 + 3 * chance(x)) / 5; // π(a₁|s₁) where v = x
      if (first > 0 && first < 1) points.push([logit(first), x]);
    }
    return points.sort(([u, v], [otherU, otherV]) => u + v - otherU - otherV); // both grow along it
  }
  const LEVELS = Array.from({ length: 15 }, (_, i) => 4.75 + i * 0.25);
  const CONTOURS = LEVELS.map((level) => ({ level, points: contour(level) }));

  function answer({ u, v, alpha }, { trail }) {
    const G = sloped(u, v);
    const J = worth(u, v);
    const next = worth(u + alpha * G[0], v + alpha * G[2]);
    return {
      numbers: {
        gradient: G,
        J,
        promised: alpha * dot(G, G),
        brought: next - J,
        steps: trail.length,
        next: [u + alpha * G[0], v + alpha * G[2]],
      },
      words: `J is ${brief(J, 5)} of at most 8.5. A step of α = ${brief(alpha)} promises ${brief(
        alpha * dot(G, G),
      )} and brings ${brief(next - J)}.${Math.max(Math.abs(u), Math.abs(v)) >= 3 ? EDGE : ""}`,
      view: { at: [u, v], slope: [G[0], G[2]], alpha, trail: trail.map((point) => [...point]) },
      height: (width) => (width < 560 ? 320 : 460),
    };
  }

  const moved = ({ u, v, alpha }) => {
    const G = sloped(u, v);
    return { u: u + alpha * G[0], v: v + alpha * G[2] };
  };

  const actions = {
    input: () => ({ state: { trail: [] } }),
    step: (values, { trail }) => ({
      values: moved(values),
      state: { trail: [...trail, [values.u, values.v]] },
    }),
    run: (values, { trail }) => {
      const points = [...trail];
      let { u, v } = values;
      for (let i = 0; i < 20; i++) {
        points.push([u, v]);
        ({ u, v } = moved({ u, v, alpha: values.alpha }));
      }
      return { values: { u, v }, state: { trail: points } };
    },
    restart: () => ({ values: { u: 0, v: 0 }, state: { trail: [] } }),
  };

  // What does not move is drawn once for every size of the picture.
  let surface = { key: "", elements: [] };
  function surfaceOf(area, size) {
    const key = `${size.width} ${size.height}`;
    if (surface.key !== key) {
      surface = { key, elements: [] };
      drawSurface((...drawn) => surface.elements.push(...drawn), area, size);
    }
    return surface.elements;
  }

  function drawSurface(pen, area, size) {
    CONTOURS.forEach(({ level, points }, i) => {
      const placed = points.map(([u, v]) => [area.x(u), area.y(v)]);
      if (placed.length < 2) return;
      // the higher side of a contour lies to the right and below
      const corners = [
        [size.width * 3, placed.at(-1)[1]],
        [size.width * 3, size.height * 4],
        [placed[0][0], size.height * 4],
      ];
      pen(path([...placed, ...corners], "height"), path(placed, "contour"));
      if (i % 2 === 1) labelled(pen, placed, level, size);
    });
    pen(
      line(0, area.y(0), size.width, area.y(0), "axis"),
      line(area.x(0), 0, area.x(0), size.height, "axis"),
    );
    pen(label(size.width - 8, size.height - 10, "u: s₁ prefers a₁ →", "small halo", "end"));
    pen(label(area.x(0) + 8, 16, "↑ v: s₂ prefers a₁", "small halo", "start"));
  }

  function draw(pen, { at, slope, alpha, trail }, size) {
    const area = plane(size.width, size.height, REACH);
    pen(...surfaceOf(area, size));
    const [x, y] = [area.x(at[0]), area.y(at[1])];
    const trailed = [...trail, at].map(([u, v]) => [area.x(u), area.y(v)]);
    if (trailed.length > 1) pen(path(trailed, "trail"));
    trailed.slice(0, -1).forEach(([px, py]) => pen(circle(px, py, 3, "crumb")));
    const [ex, ey] = [area.x(at[0] + alpha * slope[0]), area.y(at[1] + alpha * slope[1])];
    pen(arrow(x, y, ex, ey, "true", 3), circle(x, y, 8, "handle"));
    pen(label(ex + 10, ey + (ey > y ? 16 : -6), "α∇J", "true-text halo", "start"));
  }

  // A contour's number, where the contour leaves a margin around it.
  function labelled(pen, placed, level, size) {
    const inside = placed.filter(
      ([x, y]) => x > 24 && x < size.width - 24 && y > 26 && y < size.height - 14,
    );
    if (inside.length < 12) return;
    const [x, y] = inside[Math.floor(inside.length * 0.2)];
    pen(label(x, y + 4, written(level), "small halo"));
  }

  const drag = ([px, py], _, size) => {
    const [u, v] = plane(size.width, size.height, REACH).back(px, py);
    const clip = (x) => Math.min(3, Math.max(-3, x));
    return { u: clip(u), v: clip(v) };
  };

  station({ name: "ascent", state: { trail: [] }, answer, draw, actions, drag });
}
