// Station 6: the variance as a parabola in each b(s), and where V, [7] and the optimum stand on it.
{
  const MARKS = [
    ["value", "V"],
    ["normWeighted", "[7]"],
    ["trajectory", "optimum"],
  ];
  const CLASSES = { value: "value", normWeighted: "seven", trajectory: "best" };

  function world(values) {
    if (values.world === "bandit") {
      const logits = [[Math.log(values.chance), Math.log(1 - values.chance)]];
      return { process: chain(bandit([values.first, values.second]), logits), b: [values.b] };
    }
    const logits = [[Math.log(1 - values.right), Math.log(values.right)]];
    return { process: chain(corridor(), logits), b: [values.one, values.two, values.three] };
  }

  const padded = (process, b) => process.acts.map((_, s) => b[s] ?? 0);

  function answer(values) {
    const { process, b } = world(values);
    const marks = baselines(process);
    const at = (levels) => toGoMoments(process, padded(process, levels)).trace;
    const named = Object.fromEntries(MARKS.map(([name]) => [name, marks[name].slice(0, b.length)]));
    const traces = [at(zeros(b.length)), ...MARKS.map(([name]) => at(named[name]))];
    const trace = at(b);
    const least = traces[3];
    const columns = (levels) => [...levels, NaN, NaN].slice(0, 3);
    const deviation = b.map((x, s) => marks.curvature[s] * (x - named.trajectory[s]) ** 2);
    return {
      numbers: {
        trace,
        traces,
        b: columns(b),
        none: columns(zeros(b.length)),
        ...Object.fromEntries(MARKS.map(([name]) => [name, columns(named[name])])),
      },
      words: said(traces, trace, values.world === "bandit"),
      view: {
        panels: b.map((x, s) => ({
          b: x,
          curvature: marks.curvature[s],
          floor: least + sum(deviation) - deviation[s],
          marks: MARKS.map(([name]) => named[name][s]),
        })),
        range: values.world === "bandit" ? [-2, 12] : [-40, 10],
        top: Math.max(traces[0], traces[1], trace, 1e-6) * 1.12,
      },
      height: (width) => (width < 560 ? 320 : 420),
    };
  }

  function said([none, value, seven, best], trace, twoArms) {
    const lowest = twoArms
      ? "at the optimum, which is [7], every draw gives ∇J itself and nothing is left"
      : `[7] leaves ${brief(seven, 4)}, the optimum ${brief(best, 4)}`;
    const verdict =
      value > none * (1 + 1e-12)
        ? `V is worse here than no baseline: ${brief(value, 4)} against ${brief(none, 4)}`
        : `V leaves ${brief(value, 4)} of ${brief(none, 4)}`;
    return `tr Cov of one trajectory is ${brief(trace, 4)} with your baseline. ${verdict}; ${lowest}.`;
  }

  function layout(count, { width, height, narrow }) {
    const first = narrow ? 38 : 50;
    const each = (width - first) / count;
    return Array.from({ length: count }, (_, i) => ({
      left: first + i * each,
      right: first + (i + 1) * each - 16,
      top: 30,
      bottom: height - 40,
    }));
  }

  function draw(pen, { panels, range, top }, size) {
    layout(panels.length, size).forEach((box, s) =>
      drawPanel(pen, panels[s], { box, range, top, s, size, count: panels.length }),
    );
  }

  // One parabola, with its marks; where there is little room their colours say which is which.
  function drawPanel(pen, { b, curvature, floor, marks }, { box, range, top, s, size, count }) {
    const x = scale(range, [box.left, box.right]);
    const y = scale([0, top], [box.bottom, box.top]);
    const best = marks[2];
    const height = (level) => floor + curvature * (level - best) ** 2;
    pen(line(box.left, box.bottom, box.right, box.bottom, "axis"));
    for (const place of ticks(range, count === 1 ? 7 : size.narrow ? 2 : 4)) {
      pen(
        line(x(place), box.bottom, x(place), box.bottom + 4, "axis"),
        label(x(place), box.bottom + 18, written(place), "small"),
      );
    }
    if (s === 0) {
      for (const place of ticks([0, top], 4)) {
        pen(
          label(
            box.left - 6,
            y(place) + 4,
            place >= 1000 ? `${brief(place / 1000)}k` : brief(place),
            "small",
            "end",
          ),
          line(box.left, y(place), box.right, y(place), "grid"),
        );
      }
    }
    const points = [];
    for (let i = 0; i <= 100; i++) {
      const level = range[0] + ((range[1] - range[0]) * i) / 100;
      points.push([x(level), y(height(level))]);
    }
    const inside = points.filter(([, py]) => py >= box.top - 14);
    if (inside.length > 1) pen(path(inside, "parabola"));
    pen(
      label(
        (box.left + box.right) / 2,
        box.bottom + 33,
        count > 1 ? `b(s${"₁₂₃"[s]})` : "b",
        "small",
      ),
    );
    if (s === 0) pen(label(box.left + 4, box.top - 12, "tr Cov", "small halo", "start"));
    MARKS.forEach(([name, text], i) => {
      const [px, py] = [x(marks[i]), y(height(marks[i]))];
      pen(
        line(px, box.bottom, px, py, `stem ${CLASSES[name]}`),
        circle(px, py, 5, `mark ${CLASSES[name]}`),
      );
      if (!size.narrow || count === 1)
        pen(label(px, py - 12 - 16 * ((i + 1) % 3), text, `small halo ${CLASSES[name]}-text`));
    });
    pen(circle(x(b), y(height(b)), 8, "handle"));
  }

  function drag([px], { view }, size) {
    const boxes = layout(view.panels.length, {
      width: size.width,
      height: size.height,
      narrow: size.width < 560,
    });
    const names = view.panels.length > 1 ? ["one", "two", "three"] : ["b"];
    const s = Math.max(
      0,
      boxes.findLastIndex((box) => px >= box.left),
    );
    const level = scale([boxes[s].left, boxes[s].right], view.range)(px);
    return {
      [names[s]]: Math.round(Math.min(view.range[1], Math.max(view.range[0], level)) * 10) / 10,
    };
  }

  function take(values, _, name) {
    const { process, b } = world(values);
    const levels = baselines(process)[name];
    return {
      values:
        b.length === 1 ? { b: levels[0] } : { one: levels[0], two: levels[1], three: levels[2] },
    };
  }

  station({
    name: "optimum",
    answer,
    draw,
    drag,
    actions: {
      take,
      worse: () => ({ values: { world: "bandit", chance: 0.9, first: 10, second: 0, b: 9 } }),
    },
  });
}
