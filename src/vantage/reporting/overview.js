// The table of all runs and their curves over one another, fresh every two seconds.
(() => {
  const { element, number, real } = Charts;
  const SHOWN = 5, MOST = 21;
  const FIRST = ["return", "eval/return", "signal-to-noise ratio", "noise scale", "entropy", "length", "kl", "grad_norm",
    "value_loss", "explained_variance", "frac_reward_zero_std", "steps_per_second", "tokens_per_second"];
  const COLUMNS = [
    ["return", "return"], ["eval/return", "evaluated"], ["snr", "SNR at the end"], ["updates", "updates"],
    ["steps", "steps"], ["num_tokens", "tokens"],
  ];
  const head = document.querySelector(".runs thead tr"), body = document.querySelector(".runs tbody");
  const form = document.getElementById("filters");
  const contexts = { axis: "updates", grids: {}, share: null };
  const curves = new Map();    // name -> what the server drew of it, with its stamp
  const places = new Map();    // name -> its colour
  let runs = [], ticked = null, order = { key: "changed", falling: true }, drawn = "", columns = "";

  const value = (run, key) => key === "name" ? run.name : key === "changed" ? run.changed
    : key === "state" ? run.state || "" : key === "where" ? `${run.how} on ${run.where}` : run.last?.[key] ?? null;

  function sorted() {
    const words = form.words.value.toLowerCase();
    const sign = order.falling ? -1 : 1;
    return runs.filter((run) => `${run.name} ${run.how} ${run.where}`.toLowerCase().includes(words)).sort((a, b) => {
      const one = value(a, order.key), other = value(b, order.key);
      if (one === null || other === null) return (one === null) - (other === null);
      return sign * (one < other ? -1 : one > other ? 1 : 0) || (a.name < b.name ? -1 : 1);
    });
  }

  function shownColumns() {
    const some = COLUMNS.filter(([key]) => runs.some((run) => real(run.last?.[key])));
    const extra = form.metric.value;
    return extra && !some.some(([key]) => key === extra) ? [...some, [extra, extra]] : some;
  }

  // Heads stay the same elements while they are the same columns: the focus is not lost.
  function heads(keys) {
    const all = [["where", "algorithm and environment"], ["state", "state"], ...keys, ["changed", "changed"]];
    const now = JSON.stringify(all);
    if (now !== columns) {
      columns = now;
      head.replaceChildren(element("th", { scope: "col" }, "show"));
      for (const [key, label] of [["name", "run"], ...all]) {
        const cell = element("th", { scope: "col", "data-key": key });
        const button = element("button", { type: "button" }, label);
        button.addEventListener("click", () => {
          order = { key, falling: order.key === key ? !order.falling : !["name", "where", "state"].includes(key) };
          table();
        });
        cell.append(button);
        head.append(cell);
      }
    }
    for (const cell of head.querySelectorAll("[data-key]"))
      cell.setAttribute("aria-sort", cell.dataset.key !== order.key ? "none" : order.falling ? "descending" : "ascending");
  }

  function ago(seconds) {
    const gone = Math.max(0, Date.now() / 1000 - seconds);
    if (gone < 10) return "now";
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (gone >= size) return `${Math.floor(gone / size)} ${unit} ago`;
    return `${Math.floor(gone)} s ago`;
  }

  function table() {
    const keys = shownColumns();
    heads(keys);
    const focused = document.activeElement?.dataset?.run;
    body.replaceChildren();
    for (const run of sorted()) {
      const line = element("tr");
      const tick = element("input", { type: "checkbox", "data-run": run.name, "aria-label": `show ${run.name}` });
      tick.checked = ticked.has(run.name);
      tick.disabled = Boolean(run.fault);
      tick.addEventListener("change", () => { tick.checked ? ticked.add(run.name) : ticked.delete(run.name); table(); refresh(); });
      const swatch = element("i", { class: "swatch" });
      if (ticked.has(run.name)) swatch.style.backgroundColor = `var(--series-${place(run.name) % 7})`;
      const mark = element("td", { class: "mark" });
      mark.append(tick, swatch);
      const name = element("th", { scope: "row" });
      name.append(element("a", { href: `/run?run=${encodeURIComponent(run.name)}` }, run.name));
      line.append(mark, name);
      if (run.fault) {
        line.append(element("td", { class: "flag", colspan: keys.length + 3 }, run.fault));
      } else {
        line.append(element("td", {}, `${run.how} on ${run.where}`), element("td", {}, run.state));
        for (const [key] of keys) line.append(element("td", { class: "number" }, whole(key, run.last[key])));
        line.append(element("td", {}, ago(run.changed)));
      }
      body.append(line);
    }
    document.getElementById("nothing").hidden = runs.length > 0;
    if (focused) body.querySelectorAll("input").forEach((each) => { if (each.dataset.run === focused) each.focus(); });
  }

  function whole(key, value) {
    if (!real(value)) return "–";
    return ["updates", "steps", "num_tokens"].includes(key) ? value.toLocaleString("en") : number(value);
  }

  // Colours are given in the order in which runs are first shown, and kept.
  function place(name) {
    if (!places.has(name)) places.set(name, places.size);
    return places.get(name);
  }

  function figures() {
    const shown = runs.filter((run) => ticked.has(run.name) && curves.has(run.name)).slice(0, MOST);
    const now = JSON.stringify([shown.map((run) => [run.name, curves.get(run.name).stamp]), form.metric.value]);
    if (now === drawn) return;
    drawn = now;
    const host = document.getElementById("charts");
    Charts.clear(host);
    contexts.grids = {};
    const axes = new Set();
    for (const run of shown) {
      const own = curves.get(run.name);
      own.axes.forEach((axis) => axes.add(axis));
      for (const [grid, at] of Object.entries(own.grids)) contexts.grids[`${place(run.name)} ${grid}`] = at;
    }
    const every = [...new Set(shown.flatMap((run) => Object.keys(curves.get(run.name).curves)))];
    const rewards = every.filter((name) => name.startsWith("rewards/"));
    const extra = every.filter((name) => name === form.metric.value && !FIRST.includes(name));
    const order = [...extra, ...FIRST.filter((name) => every.includes(name)), ...(rewards.length > 1 ? rewards : [])];
    if (axes.size) Charts.axisChoice(document.getElementById("axes"), [...axes], contexts, "axis");
    for (const metric of order) {
      const series = shown.flatMap((run) => {
        const curve = curves.get(run.name).curves[metric];
        return curve ? [{ ...curve, label: run.name, place: place(run.name), grid: `${place(run.name)} ${curve.grid}` }] : [];
      });
      if (!series.some((one) => one.y.filter(real).length > 1)) continue;
      Charts.place(host, {
        title: `${metric[0].toUpperCase()}${metric.slice(1)}`.replaceAll("_", " "), note: "", series, lines: metric.startsWith("signal") ? [{ y: 0, label: "" }] : [],
        log: ["noise scale", "kl", "value_loss", "grad_norm"].includes(metric),
      }, contexts);
    }
    document.documentElement.dataset.drawn = String(shown.length);
  }

  async function json(address) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(address);
    return answer.json();
  }

  let asked = false;
  async function refresh() {
    if (asked) return;
    asked = true;
    try {
      runs = (await json("/runs.json")).runs;
      const newest = [...runs].filter((run) => !run.fault).sort((a, b) => b.changed - a.changed);
      if (ticked === null && runs.length) ticked = new Set(newest.slice(0, SHOWN).map((run) => run.name));
      ticked ??= new Set();
      if (!runs.length) ticked = null;
      const metrics = [...new Set(runs.flatMap((run) => Object.keys(run.last || {})))].sort();
      if (form.metric.options.length !== metrics.length + 1) {
        const kept = form.metric.value;
        form.metric.replaceChildren(element("option", { value: "" }, "none"), ...metrics.map((name) => element("option", { value: name }, name)));
        form.metric.value = metrics.includes(kept) ? kept : "";
      }
      if (ticked) {
        table();
        const stale = runs.filter((run) => ticked.has(run.name) && !run.fault && curves.get(run.name)?.stamp !== run.stamp);
        await Promise.all(stale.map(async (run) => curves.set(run.name, await json(`/curves.json?run=${encodeURIComponent(run.name)}`))));
        figures();
      }
      document.getElementById("nothing").hidden = runs.length > 0;
      document.getElementById("said").textContent = `${runs.length} runs, fresh every two seconds`;
    } catch {
      document.getElementById("said").textContent = "The server has ended; what is shown stays.";
    }
    asked = false;
    document.documentElement.dataset.ready = "";
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target === form.metric && form.metric.value) order = { key: form.metric.value, falling: true };
    table();
    figures();
  });
  form.newest.addEventListener("click", () => { ticked = null; refresh(); });
  form.none.addEventListener("click", () => { ticked = new Set(); refresh(); });
  refresh();
  setInterval(() => { if (!document.hidden) refresh(); }, 2000);
})();
