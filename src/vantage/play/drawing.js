// Pictures: SVG elements, scales, arrows, and a picture that glides from one view to the next.

const SVG = "http://www.w3.org/2000/svg";

function el(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A straight map of [from, to] onto pixels [low, high].
const scale =
  ([from, to], [low, high]) =>
  (x) =>
    low + ((x - from) / (to - from)) * (high - low);

// A plane with equal units on both axes: `reach` units from the centre to the nearer border.
function plane(width, height, reach, centre = [0, 0]) {
  const unit = Math.min(width, height) / 2 / reach;
  return {
    unit,
    x: (value) => width / 2 + (value - centre[0]) * unit,
    y: (value) => height / 2 - (value - centre[1]) * unit,
    back: (px, py) => [centre[0] + (px - width / 2) / unit, centre[1] - (py - height / 2) / unit],
  };
}

const line = (x1, y1, x2, y2, kind) => el("line", { x1, y1, x2, y2, class: kind });
const circle = (cx, cy, r, kind) => el("circle", { cx, cy, r, class: kind });
const rectangle = (x, y, width, height, kind) =>
  el("rect", { x, y, width: Math.max(0, width), height: Math.max(0, height), class: kind });

function label(x, y, text, kind = "", anchor = "middle") {
  return el("text", { x, y, class: `label ${kind}`, "text-anchor": anchor }, text);
}

const path = (points, kind) =>
  el("path", {
    d: "M" + points.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`).join("L"),
    class: kind,
  });

// An arrow with a filled head; a dot where it has no length to speak of.
function arrow(x1, y1, x2, y2, kind, width = 2) {
  const length = Math.hypot(x2 - x1, y2 - y1);
  if (length < 1.5) return circle(x1, y1, width * 1.2, `${kind} head`);
  const head = Math.min(4 + 3 * width, length);
  const [ux, uy] = [(x2 - x1) / length, (y2 - y1) / length];
  const [bx, by] = [x2 - ux * head, y2 - uy * head];
  const half = head * 0.42;
  const points = [
    [x2, y2],
    [bx - uy * half, by + ux * half],
    [bx + uy * half, by - ux * half],
  ];
  return el(
    "g",
    { class: kind },
    el("line", { x1, y1, x2: bx, y2: by, class: "shaft", style: `stroke-width: ${width}` }),
    el("polygon", { points: points.map((p) => p.join(",")).join(" "), class: "head" }),
  );
}

// The ellipse of `deviations` standard deviations of a 2 × 2 covariance.
function spread(area, mean, [[a, b], [, d]], deviations, kind) {
  const middle = (a + d) / 2;
  const root = Math.sqrt(((a - d) / 2) ** 2 + b * b);
  const angle = (Math.atan2(2 * b, a - d) / 2) * (180 / Math.PI);
  const [cx, cy] = [area.x(mean[0]), area.y(mean[1])];
  return el("ellipse", {
    cx,
    cy,
    rx: deviations * Math.sqrt(Math.max(0, middle + root)) * area.unit,
    ry: deviations * Math.sqrt(Math.max(0, middle - root)) * area.unit,
    transform: `rotate(${-angle} ${cx} ${cy})`,
    class: kind,
  });
}

// Round numbers between two limits, at most about `count`.
function ticks([from, to], count = 5) {
  const rough = (to - from) / count;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * size).find((k) => k >= rough);
  const places = [];
  for (let k = Math.ceil(from / step); k * step <= to + 1e-9 * step; k++) places.push(k * step);
  return places;
}

// A view is nested arrays and records of numbers. Between two of one shape there is a straight way;
// from another shape the picture jumps.
function between(from, to, share) {
  if (typeof to === "number" && typeof from === "number") return from + (to - from) * share;
  if (Array.isArray(to)) {
    const same = Array.isArray(from) && from.length === to.length;
    return same ? to.map((value, i) => between(from[i], value, share)) : to;
  }
  if (to && typeof to === "object" && from && typeof from === "object") {
    return Object.fromEntries(
      Object.entries(to).map(([key, value]) => [
        key,
        key in from ? between(from[key], value, share) : value,
      ]),
    );
  }
  return to;
}

const GLIDE = 260; // milliseconds
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

// An SVG that is drawn at its true size by draw(pen, view, {width, height}), pen(...elements).
function picture(svg, draw) {
  let shown = null;
  let target = null;
  let height = () => 420;
  let frame = 0;

  function paint(view) {
    const width = Math.max(280, svg.clientWidth);
    const size = { width, height: height(width), narrow: width < 560 };
    svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    svg.style.height = `${size.height}px`;
    const elements = [];
    draw((...drawn) => elements.push(...drawn), view, size);
    svg.replaceChildren(...elements);
    shown = view;
  }

  function glide(from, began) {
    frame = requestAnimationFrame((now) => {
      const share = Math.min(1, Math.max(0, now - began) / GLIDE);
      paint(share < 1 ? between(from, target, 1 - (1 - share) ** 3) : target);
      if (share < 1) glide(from, began);
    });
  }

  new ResizeObserver(() => target && svg.clientWidth > 0 && paint(target)).observe(svg);
  return function show(view, tall) {
    const from = shown;
    target = view;
    height = tall;
    cancelAnimationFrame(frame);
    if (svg.clientWidth === 0) return; // not on the screen; drawn when it comes
    if (from === null || still.matches) paint(view);
    else glide(from, performance.now());
  };
}
