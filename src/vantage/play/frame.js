// What the stations have in common: controls, numbers, words, the way from one to the next.

// As people read it: up to six decimals, no needless zeros, a true minus.
function written(x) {
  if (!Number.isFinite(x)) return x > 0 ? "∞" : x < 0 ? "−∞" : "–";
  if (Math.abs(x) < 5e-13) return "0";
  const plain = Math.abs(x) >= 1e-3 && Math.abs(x) < 1e7;
  const text = plain ? x.toFixed(6).replace(/\.?0+$/, "") : x.toExponential(5).replace("e+", "e");
  return text.replaceAll("-", "−");
}

// For sentences and labels of pictures.
const brief = (x, digits = 3) =>
  Number.isFinite(x) ? written(Number(x.toPrecision(digits))) : written(x);

// A stream of numbers in [0, 1) that a seed determines (mulberry32).
function stream(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// Which entry of a distribution a number in [0, 1) falls on.
function drawn(distribution, uniform) {
  let left = uniform;
  const last = distribution.length - 1;
  const index = distribution.findIndex((chance) => (left -= chance) < 0);
  return index < 0 ? last : index;
}

function valueOf(input) {
  if (input.type === "checkbox") return input.checked;
  return input.type === "range" || input.type === "number" ? Number(input.value) : input.value;
}

function read(form) {
  const values = {};
  for (const input of form.elements) {
    if (!input.name || (input.type === "radio" && !input.checked)) continue;
    values[input.name] = valueOf(input);
  }
  return values;
}

function write(form, changes) {
  for (const [name, value] of Object.entries(changes)) {
    const input = form.elements[name];
    if (input.type === "checkbox") input.checked = value;
    else input.value = value;
  }
}

// Numbers go where [data-number] names them; lists are "name.0", "name.1", …
function showNumbers(root, numbers) {
  for (const place of root.querySelectorAll("[data-number]")) {
    const [name, index] = place.dataset.number.split(".");
    const value = index === undefined ? numbers[name] : numbers[name][Number(index)];
    place.value = String(value);
    place.textContent = written(value);
  }
}

// Parts of the page that only some settings need: data-when="name=value".
function showParts(root, values) {
  for (const place of root.querySelectorAll("[data-when]")) {
    const [name, value] = place.dataset.when.split("=");
    place.hidden = String(values[name]) !== value;
  }
}

// A station is
//   name, state: of what controls do not hold; answer(values, state): what follows from both,
//   {numbers, words, view, height(width), slots, outputs}; draw(pen, view, size);
//   actions: name → (values, state, argument) → {values, state} changes;
//   drag: (point, answer, size) → changes of values, while a pointer is down on the picture.
function station({ name, state = {}, answer, draw, actions = {}, drag = null }) {
  const root = document.getElementById(name);
  const form = root.querySelector("form");
  const svg = root.querySelector("svg");
  const show = picture(svg, draw);
  const words = root.querySelector("[role=status]");
  let latest = null;

  function update() {
    const values = read(form);
    latest = answer(values, state);
    showParts(root, values);
    showNumbers(root, latest.numbers);
    for (const output of root.querySelectorAll("output[for]")) {
      const key = output.htmlFor.value.split("-").pop();
      output.value = latest.outputs?.[key] ?? written(values[key]);
    }
    for (const [slot, markup] of Object.entries(latest.slots ?? {})) {
      const place = root.querySelector(`[data-slot="${slot}"]`);
      if (place.innerHTML !== markup) place.innerHTML = markup;
    }
    words.textContent = latest.words;
    svg.setAttribute("aria-label", latest.words);
    show(latest.view, latest.height ?? ((width) => (width < 560 ? 320 : 440)));
  }

  function act(action, argument) {
    const changes = actions[action](read(form), state, argument);
    Object.assign(state, changes.state);
    write(form, changes.values ?? {});
    update();
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  root.addEventListener("input", ({ target }) => {
    const grid = Number(target.dataset.snap); // a hand finds round values, buttons set exact ones
    if (grid) target.value = Number((Math.round(target.value / grid) * grid).toFixed(6));
    if (actions.input) Object.assign(state, actions.input(read(form), state).state);
    update();
  });
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-action]");
    if (!button) return;
    const { action, argument } = button.dataset;
    act(action, argument);
    if (!button.isConnected) {
      // its row was written anew: the focus stays where it was
      const again = [...root.querySelectorAll(`[data-action="${action}"]:not(:disabled)`)];
      (again.find((one) => one.dataset.argument === argument) ?? again[0])?.focus();
    }
  });
  if (drag)
    followPointer(svg, (point, size) => {
      write(form, drag(point, latest, size));
      root.dispatchEvent(new Event("input"));
    });
  update();
}

function followPointer(svg, move) {
  const follow = (event) => {
    const box = svg.getBoundingClientRect();
    move([event.clientX - box.left, event.clientY - box.top], box);
    event.preventDefault();
  };
  svg.classList.add("draggable");
  svg.addEventListener("pointerdown", (event) => {
    svg.setPointerCapture(event.pointerId);
    follow(event);
  });
  svg.addEventListener("pointermove", (event) => {
    if (svg.hasPointerCapture(event.pointerId)) follow(event);
  });
}

// One station at a time, by the address (#reinforce), the list, the arrow keys or a digit.
function travel() {
  const sections = [...document.querySelectorAll("section.station")];
  const links = [...document.querySelectorAll("nav a")];
  const current = () =>
    Math.max(
      0,
      sections.findIndex(({ id }) => `#${id}` === location.hash),
    );

  function go(index, focus) {
    const place = Math.min(Math.max(index, 0), sections.length - 1);
    sections.forEach((section, i) => (section.hidden = i !== place));
    links.forEach((link, i) => {
      if (i === place) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    const title = sections[place].querySelector("h2");
    document.title = `${place + 1} · ${title.textContent} – Policy gradients, played`;
    for (const [kind, step] of [
      ["before", -1],
      ["after", 1],
    ]) {
      const link = document.querySelector(`a.${kind}`);
      const neighbour = sections[place + step];
      link.hidden = !neighbour;
      if (neighbour) {
        link.href = `#${neighbour.id}`;
        link.querySelector("span").textContent = neighbour.querySelector("h2").textContent;
      }
    }
    if (focus) {
      title.focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
  }

  window.addEventListener("hashchange", () => go(current(), true));
  window.addEventListener("keydown", (event) => {
    const busy = event.target.closest("input, select, textarea, svg, .scroll");
    if (busy || event.altKey || event.ctrlKey || event.metaKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const digit = /^[1-8]$/.test(event.key) ? Number(event.key) - 1 : null;
    if (step === undefined && digit === null) return;
    const place = digit ?? Math.min(Math.max(current() + step, 0), sections.length - 1);
    location.hash = sections[place].id;
    event.preventDefault();
  });
  go(current(), false);
}

// Light or dark: as the system says, until the button says otherwise.
function theme() {
  const button = document.querySelector("button.theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = (chosen) => {
    document.documentElement.dataset.theme = chosen;
    const other = chosen === "dark" ? "light" : "dark";
    button.setAttribute("aria-label", `Use ${other} colours`);
    button.textContent = chosen === "dark" ? "☀" : "☾";
  };
  const system = () => (dark.matches ? "dark" : "light");
  let chosen = null;
  dark.addEventListener("change", () => chosen === null && apply(system()));
  button.addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    apply(chosen);
  });
  apply(system());
}

function typeset() {
  for (const place of document.querySelectorAll(".math")) {
    katex.render(place.textContent, place, {
      displayMode: place.tagName === "DIV",
      throwOnError: true,
    });
  }
}
