"use strict";
// Curves as SVG, drawn at the width that there is. Text is only ever set as text.
// A chart: {title, note, log, series: [{label, grid, y, low, high, band, trusted, colour}], lines}.
const Charts = (() => {
  const SPACE = "http://www.w3.org/2000/svg";
  const HEIGHT = 190;
  const PAD = { top: 8, right: 10, bottom: 26 };
  const drawn = new Set();

  function element(name, attributes = {}, text = null) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  }

  function shape(name, attributes, text = null) {
    const made = document.createElementNS(SPACE, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    return made;
  }

  // A number in three digits, with letters for thousands: short enough for an axis.
  function number(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size === 0) return "0";
    const sign = value < 0 ? "−" : "";
    for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]])
      if (size >= unit) {
        const base = unit === 1e4 ? 1e3 : unit;
        return size >= 1e15 ? sign + size.toExponential(1) : sign + trimmed(size / base) + letter;
      }
    if (size < 1e-3) return sign + size.toExponential(1).replace("e-", "e−");
    return sign + trimmed(size);
  }

  function trimmed(size) {
    return String(Number(size.toPrecision(size >= 1000 ? 4 : 3)));
  }

  function ticks(low, high, log, count) {
    const found = [];
    if (log) {
      const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
      const every = Math.max(1, Math.ceil((last - first) / count));
      const steps = last - first <= 2 ? [1, 2, 5] : [1];
      for (let power = first; power <= last; power += every)
        for (const step of steps) found.push(step * 10 ** power);
    } else {
      const raw = (high - low) / count;
      const unit = 10 ** Math.floor(Math.log10(raw));
      const step = unit * ([1, 2, 2.5, 5, 10].find((m) => m * unit >= raw) || 10);
      for (let k = Math.ceil(low / step); k <= Math.floor(high / step); k++)
        found.push(Math.abs(k * step) < step / 1e6 ? 0 : k * step);
    }
    return found.filter((tick) => tick >= low && tick <= high);
  }

  const real = (value) => typeof value === "number" && Number.isFinite(value);

  function quantile(values, share) {
    const sorted = [...values].sort((a, b) => a - b);
    return sorted[Math.round(share * (sorted.length - 1))];
  }

  // Limits that hold every line and interval, and of ranges all but what is rare.
  function extent(chart) {
    const lines = chart.series.flatMap((s) => s.y).filter(real);
    const bands = chart.series.flatMap((s) => {
      const ends = [...s.low, ...s.high].filter(real);
      if (!ends.length) return [];
      return [quantile(ends, 0.02), quantile(ends, 0.98)];
    });
    const marks = chart.lines.map((line) => line.y);
    let all = [...lines, ...bands];
    if (!all.length) return null;
    const least = Math.min(...all), most = Math.max(...all);
    const log = chart.log && Math.min(...lines) > 0 && Math.max(...lines, ...bands) / Math.min(...lines) > 30;
    if (log) {
      all = [...all, ...marks].filter((value) => value > 0 && value > Math.min(...lines) / 30);
      return { log, low: Math.min(...all) / 1.2, high: Math.max(...all) * 1.2 };
    }
    // a line for comparison must not flatten the curves
    for (const mark of marks) if (mark > least - 2 * (most - least) && mark < most + 2 * (most - least)) all.push(mark);
    const low = Math.min(...all), high = Math.max(...all);
    const margin = (high - low) * 0.05 || Math.max(Math.abs(high) * 0.05, 1e-9);
    return { log: false, low: low >= 0 && low - margin < 0 ? 0 : low - margin, high: high + margin };
  }

  // Strokes of a path that breaks where there is no number.
  function path(xs, ys) {
    let text = "", open = false;
    for (let i = 0; i < xs.length; i++) {
      if (!real(xs[i]) || !real(ys[i])) { open = false; continue; }
      text += `${open ? "L" : "M"}${xs[i].toFixed(1)} ${ys[i].toFixed(1)}`;
      open = true;
    }
    return text;
  }

  function area(xs, lows, highs) {
    let text = "", run = [];
    const close = () => {
      if (run.length > 1) {
        const up = run.map((i) => `${xs[i].toFixed(1)} ${highs[i].toFixed(1)}`);
        const down = run.reverse().map((i) => `${xs[i].toFixed(1)} ${lows[i].toFixed(1)}`);
        text += `M${up.join("L")}L${down.join("L")}Z`;
      }
      run = [];
    };
    for (let i = 0; i < xs.length; i++) real(lows[i]) && real(highs[i]) ? run.push(i) : close();
    close();
    return text;
  }

  function words(chart) {
    return chart.series.map((s) => {
      const values = s.y.filter(real);
      if (!values.length) return `${s.label}: nothing to see`;
      return `${s.label} from ${number(values[0])} to ${number(values[values.length - 1])}, ` +
        `least ${number(Math.min(...values))}, largest ${number(Math.max(...values))}`;
    }).join("; ");
  }

  function place(host, chart, context) {
    const figure = element("figure", { class: "chart" });
    const caption = element("figcaption", {}, chart.title);
    if (chart.note) caption.append(element("span", {}, chart.note));
    const key = element("div", { class: "key" });
    const readout = element("div", { class: "readout", "aria-live": "polite" });
    const svg = shape("svg", { role: "img", tabindex: "0" });
    figure.append(caption, key, svg, readout);
    host.append(figure);
    const one = { chart, context, figure, svg, readout, key, width: 0, cursor: null };
    drawn.add(one);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      point((event.clientX - box.left - one.left) / (one.width - one.left - PAD.right), context);
    });
    svg.addEventListener("pointerleave", () => point(null, context));
    svg.addEventListener("blur", () => point(null, context));
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
      if (move === undefined) return;
      event.preventDefault();
      const count = Math.max(2, ...chart.series.map((s) => s.y.length));
      const now = context.share === null ? 1 : context.share;
      point(Math.min(1, Math.max(0, now + move / (count - 1))), context);
    });
    watcher.observe(figure);
    return one;
  }

  function grid(one, series) {
    const axes = one.context.grids[series.grid] || {};
    return axes[one.context.axis] || [];
  }

  function draw(one) {
    const { chart, svg, context } = one;
    const width = Math.max(200, one.width);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.setAttribute("aria-label", `${chart.title}. ${words(chart)}. Arrow keys read it.`);
    svg.replaceChildren();
    one.key.replaceChildren();
    const box = extent(chart);
    const xs = chart.series.flatMap((s) => grid(one, s)).filter(real);
    if (!box || !xs.length) { one.cursor = null; one.readout.textContent = "Nothing to see against this."; return; }
    const first = Math.min(...xs), last = Math.max(...xs);
    const { log, low, high } = box;
    const sides = ticks(low, high, log, 4);
    const labels = sides.map(number);
    one.left = 12 + 7.2 * Math.max(2, ...labels.map((label) => label.length));
    const wide = width - one.left - PAD.right, tall = HEIGHT - PAD.top - PAD.bottom;
    const x = (value) => one.left + (last > first ? (value - first) / (last - first) : 0.5) * wide;
    const share = log
      ? (value) => Math.log(value / low) / Math.log(high / low)
      : (value) => (value - low) / (high - low);
    const y = (value) => PAD.top + (1 - share(value)) * tall;
    one.x = x; one.y = y; one.first = first; one.last = last; one.box = box;
    const limited = (value, open) => !real(value) ? open : Math.min(high, Math.max(low, value));
    sides.forEach((tick, i) => {
      svg.append(shape("line", { x1: one.left, x2: width - PAD.right, y1: y(tick), y2: y(tick), stroke: "var(--grid)" }));
      svg.append(shape("text", { x: one.left - 6, y: y(tick) + 4, "text-anchor": "end" }, labels[i]));
    });
    const below = ticks(first, last > first ? last : first + 1, false, Math.max(2, Math.floor(wide / 90)));
    const whole = below.filter((tick) => tick <= last);
    whole.forEach((tick, i) => {
      const end = i === whole.length - 1 && x(tick) > width - PAD.right - 24;
      svg.append(shape("text", { x: end ? width - PAD.right : x(tick), y: HEIGHT - 8, "text-anchor": end ? "end" : "middle" }, number(tick)));
    });
    for (const line of chart.lines) {
      if (line.y < low || line.y > high || (log && line.y <= 0)) continue;
      svg.append(shape("line", { x1: one.left, x2: width - PAD.right, y1: y(line.y), y2: y(line.y), stroke: "var(--mark)", "stroke-width": 1.2, "stroke-dasharray": "4 3" }));
      if (line.label) svg.append(shape("text", { x: width - PAD.right, y: y(line.y) - 5, "text-anchor": "end", style: "fill: var(--mark)" }, line.label));
    }
    const clip = `clip${++count}`;
    const frame = shape("clipPath", { id: clip });
    frame.append(shape("rect", { x: one.left - 4, y: 0, width: wide + 8, height: HEIGHT - PAD.bottom + 4 }));
    const body = shape("g", { "clip-path": `url(#${clip})` });
    svg.append(frame, body);
    chart.series.forEach((series, i) => {
      const colour = series.colour || (chart.series.length > 1 || series.place !== undefined ? `var(--series-${(series.place ?? i) % 7})` : "var(--accent)");
      const at = grid(one, series).map((value) => real(value) ? x(value) : null);
      const banded = series.y.map((value, k) => real(value) && (real(series.low[k]) || real(series.high[k])));
      const lows = series.low.map((value, k) => banded[k] ? y(limited(value, low)) : null);
      const highs = series.high.map((value, k) => banded[k] ? y(limited(value, high)) : null);
      const values = series.y.map((value) => !real(value) || (log && value <= 0) ? null : y(limited(value, low)));
      const dash = (series.place ?? i) >= 7 ? "5 3" : "none";
      body.append(shape("path", { d: area(at, lows, highs), fill: colour, "fill-opacity": series.band === "range" ? 0.13 : 0.2 }));
      body.append(shape("path", { d: path(at, values), fill: "none", stroke: colour, "stroke-width": 1.8, "stroke-linejoin": "round", "stroke-dasharray": dash }));
      if (at.length <= 40) values.forEach((value, k) => {
        if (value === null || !real(at[k])) return;
        const trusted = !series.trusted || series.trusted[k];
        body.append(shape("circle", { cx: at[k], cy: value, r: 2.6, stroke: colour, "stroke-width": 1.3, fill: trusted ? colour : "var(--paper)" }));
        if (at.length === 1 && lows[k] !== null) body.append(shape("line", { x1: at[k], x2: at[k], y1: lows[k], y2: highs[k], stroke: colour }));
      });
      if (chart.series.length > 1 || series.place !== undefined) {
        const name = element("span", {}, series.label);
        const swatch = element("i");
        swatch.style.borderColor = colour;
        if (dash !== "none") swatch.style.borderTopStyle = "dashed";
        name.prepend(swatch);
        one.key.append(name);
      }
    });
    one.cursor = shape("line", { y1: PAD.top, y2: HEIGHT - PAD.bottom, stroke: "var(--faint)", visibility: "hidden" });
    svg.append(one.cursor);
    one.rest = `${context.axis}: ${number(first)} to ${number(last)}`;
    one.readout.textContent = one.rest;
  }

  // Where the pointer is, as a share of the x axis, in all figures of the page.
  function point(share, context) {
    context.share = share;
    for (const one of drawn) if (one.context === context && one.cursor) read(one, share);
  }

  function read(one, share) {
    one.cursor.setAttribute("visibility", share === null ? "hidden" : "visible");
    if (share === null) { one.readout.textContent = one.rest; return; }
    const value = one.first + Math.min(1, Math.max(0, share)) * (one.last - one.first);
    one.cursor.setAttribute("x1", one.x(value));
    one.cursor.setAttribute("x2", one.x(value));
    const said = one.chart.series.filter((series) => grid(one, series).length).map((series) => {
      const at = grid(one, series);
      let near = 0;
      at.forEach((each, i) => { if (real(each) && Math.abs(each - value) < Math.abs(at[near] - value)) near = i; });
      const low = series.low[near], high = series.high[near];
      const ends = real(low) || real(high)
        ? series.band === "range" ? (low === high ? "" : ` (${number(low)} to ${number(high)})`)
          : ` [${real(low) ? number(low) : "−∞"}, ${real(high) ? number(high) : "∞"}]` : "";
      const name = one.chart.series.length > 1 ? `${series.label} ` : "";
      return `${name}${number(series.y[near])}${ends}`;
    });
    one.readout.textContent = `${one.context.axis} ${number(value)}: ${said.join(" · ")}`;
  }

  let count = 0;
  const watcher = new ResizeObserver((entries) => {
    for (const entry of entries)
      for (const one of drawn)
        if (one.figure === entry.target && Math.floor(entry.contentRect.width) !== one.width) {
          one.width = Math.floor(entry.contentRect.width);
          draw(one);
        }
  });

  // Take away what was drawn inside a host.
  function clear(host) {
    for (const one of [...drawn]) if (host.contains(one.figure)) { watcher.unobserve(one.figure); drawn.delete(one); }
    host.replaceChildren();
  }

  // Radio buttons for what the figures are drawn against.
  function axisChoice(host, axes, context, name) {
    const set = element("fieldset", { class: "axis-choice" });
    set.append(element("legend", { class: "sr" }, "Draw against"), element("span", { "aria-hidden": "true" }, "against"));
    for (const axis of axes) {
      const label = element("label");
      const input = element("input", { type: "radio", name, value: axis });
      input.checked = axis === context.axis;
      input.addEventListener("change", () => { context.axis = axis; redraw(context); });
      label.append(input, axis);
      set.append(label);
    }
    host.replaceChildren(set);
  }

  function redraw(context) {
    for (const one of drawn) if (one.context === context && one.width) draw(one);
  }

  return { axisChoice, clear, draw, element, number, place, real, redraw };
})();
