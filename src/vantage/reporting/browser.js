// The browser of transcripts: what was said, token by token. Text is only ever set as text.
function browse(root, data) {
  const [UPDATE, GROUP, PROMPT, REWARD, LENGTH, CUT, PARTS, TOKENS, WEIGHTS, LOGS] = Array(10).keys();
  const { element, number, real } = Charts;
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const [list, tokens, numbers, form] = ["list", "tokens", "numbers", "filters"].map(part);
  const rows = data.rows;
  // texts are put together when they are asked for: a page of thousands must open at once
  const texts = new Array(rows.length);
  const said = (i) => texts[i] ??= rows[i][TOKENS].map((place) => data.tokens[place]).join("");
  const weight = (row, i) => Array.isArray(row[WEIGHTS]) ? row[WEIGHTS][i] : row[WEIGHTS];
  const surprise = (row) => row[LOGS].filter(real).reduce((sum, each) => sum - each, 0);
  const scale = largest();
  const PAGE = 60;
  let shown = [], selected = -1, cursor = -1, built = 0;

  // The weight that has the full colour: all but the largest two in a hundred are below it.
  function largest() {
    const all = [];
    for (const row of rows)
      for (const each of Array.isArray(row[WEIGHTS]) ? row[WEIGHTS] : [row[WEIGHTS]]) if (real(each)) all.push(Math.abs(each));
    const sizes = Float64Array.from(all).sort();
    return sizes[Math.floor(0.98 * (sizes.length - 1))] || sizes[sizes.length - 1] || 1;
  }

  part("said").textContent = [data.said, ...data.faults].join(" ");
  const updates = [...new Set(rows.map((row) => row[UPDATE]))];
  form.update.append(element("option", { value: "" }, "all"));
  for (const update of updates) form.update.append(element("option", { value: update }, update));

  const reward = (row) => real(row[REWARD]) ? number(row[REWARD]) : "not scored";
  const byReward = (sign) => (a, b) =>
    (real(rows[a][REWARD]) ? sign * rows[a][REWARD] : Infinity) - (real(rows[b][REWARD]) ? sign * rows[b][REWARD] : Infinity) || a - b;
  const ORDERS = {
    worst: byReward(1),
    best: byReward(-1),
    long: (a, b) => rows[b][LENGTH] - rows[a][LENGTH] || a - b,
    unlikely: (a, b) => surprise(rows[b]) - surprise(rows[a]) || a - b,
  };

  function filter() {
    const least = form.least.value === "" ? -Infinity : Number(form.least.value);
    const most = form.most.value === "" ? Infinity : Number(form.most.value);
    const words = form.words.value.toLowerCase();
    const bounded = form.least.value !== "" || form.most.value !== "";
    const asked = form.update.value;
    shown = [...rows.keys()].filter((i) => {
      const row = rows[i];
      if (asked !== "" && String(row[UPDATE]) !== asked) return false;
      if (bounded && !(real(row[REWARD]) && row[REWARD] >= least && row[REWARD] <= most)) return false;
      return !words || said(i).toLowerCase().includes(words) || data.prompts[row[PROMPT]].toLowerCase().includes(words);
    });
    if (form.order.value !== "drawn") shown.sort(ORDERS[form.order.value]);
    const rewards = shown.map((i) => rows[i][REWARD]).filter(real);
    const mean = rewards.length ? `, mean reward ${number(rewards.reduce((a, b) => a + b, 0) / rewards.length)}` : "";
    part("count").textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} completions${mean}`;
    list.replaceChildren();
    built = 0;
    more();
    choose(shown.length ? 0 : -1); // a new list is at its top: to ask where would lay out the page
  }

  // Lines are made as they are scrolled to.
  function more() {
    for (const end = Math.min(shown.length, built + PAGE); built < end; built++) {
      const row = rows[shown[built]];
      const line = element("li", { role: "option", id: `completion-${built}`, "aria-selected": "false" });
      line.append(
        element("span", { class: "worth" }, reward(row)),
        element("span", { class: "start" }, said(shown[built]).slice(0, 80).replace(/\s+/g, " ") || "(nothing)"),
        element("span", { class: "where" }, `update ${row[UPDATE]}, ${row[LENGTH]} tokens${row[CUT] ? ", cut" : ""}`),
      );
      list.append(line);
    }
  }

  function choose(place) {
    list.querySelector('[aria-selected="true"]')?.setAttribute("aria-selected", "false");
    selected = place;
    cursor = -1;
    while (built <= place && built < shown.length) more();
    const line = list.children[place];
    list.setAttribute("aria-activedescendant", line ? line.id : "");
    if (line) line.setAttribute("aria-selected", "true");
    show();
    return line;
  }

  function select(place) {
    const line = choose(place);
    if (line) {
      // never the page: only the list scrolls
      const above = line.offsetTop - list.offsetTop, below = above + line.offsetHeight - list.clientHeight;
      if (list.scrollTop > above) list.scrollTop = above;
      if (list.scrollTop < below) list.scrollTop = below;
    }
  }

  function show() {
    const row = rows[shown[selected]];
    for (const name of ["facts", "prompt", "tokens", "numbers"]) part(name).replaceChildren();
    if (!row) return;
    const facts = { reward: reward(row) };
    if (data.parts.length > 1) data.parts.forEach((name, i) => { facts[name] = number(row[PARTS][i]); });
    facts.update = row[UPDATE];
    facts.group = row[GROUP] ?? "–";
    facts.tokens = `${row[LENGTH]}${row[CUT] ? ", cut at the limit" : ""}`;
    if (!Array.isArray(row[WEIGHTS])) facts["weight of each token"] = number(row[WEIGHTS]);
    for (const [name, value] of Object.entries(facts)) {
      const pair = element("div");
      pair.append(element("dt", {}, name), element("dd", {}, value));
      part("facts").append(pair);
    }
    part("prompt").textContent = data.prompts[row[PROMPT]];
    const chance = form.colour.value === "chance";
    row[TOKENS].forEach((place, i) => {
      const text = data.tokens[place];
      const token = element("span", { class: "token", "data-place": i }, text.replaceAll("\n", "⏎\n") || "∅");
      const value = chance ? row[LOGS][i] : weight(row, i);
      if (real(value)) {
        const share = chance ? Math.min(1, -value / 5) : Math.min(1, Math.abs(value) / scale);
        const colour = chance ? "--unlikely" : value > 0 ? "--raised-token" : "--lowered-token";
        token.style.backgroundColor = `color-mix(in srgb, var(${colour}) ${Math.round(60 * Math.max(0, share))}%, transparent)`;
        if (!chance && value < 0) token.classList.add("lowered");
      }
      tokens.append(token);
    });
    part("legend").textContent = chance
      ? "The stronger the colour, the less likely the token was when it was drawn: full at log π = −5."
      : "Green: the update makes the token likelier. Red, dotted: less likely. The stronger, the larger its weight.";
    numbers.textContent = "Point at a token, or go to it with ← and →, for its numbers.";
  }

  function touch(place) {
    const row = rows[shown[selected]];
    if (!row || place < 0 || place >= row[TOKENS].length) return;
    tokens.children[cursor]?.classList.remove("here");
    cursor = place;
    tokens.children[cursor].classList.add("here");
    const log = row[LOGS][place];
    const text = data.tokens[row[TOKENS][place]].replaceAll("\n", "⏎");
    const likely = real(log) ? `log π ${log === 0 ? "0" : number(log)}, π ${number(Number(Math.exp(log).toPrecision(3)))}` : "log π unknown";
    numbers.textContent = `Token ${place + 1} of ${row[TOKENS].length}, “${text}”: weight ${number(weight(row, place))}, ${likely}`;
  }

  tokens.addEventListener("pointerover", (event) => {
    if (event.target.dataset.place !== undefined) touch(Number(event.target.dataset.place));
  });
  list.addEventListener("click", (event) => {
    const line = event.target.closest("li");
    if (line) select([...list.children].indexOf(line));
  });
  list.addEventListener("scroll", () => {
    if (built < shown.length && list.scrollTop + list.clientHeight > list.scrollHeight - 200) more();
  });
  root.querySelector(".reader").addEventListener("keydown", (event) => {
    const count = selected < 0 ? 0 : rows[shown[selected]][TOKENS].length;
    const inTokens = event.target === tokens;
    const moves = {
      ArrowDown: () => select(Math.min(shown.length - 1, selected + 1)),
      ArrowUp: () => select(Math.max(0, selected - 1)),
      ArrowRight: () => touch(Math.min(count - 1, cursor + 1)),
      ArrowLeft: () => touch(Math.max(0, cursor - 1)),
      Home: () => inTokens ? touch(0) : select(0),
      End: () => inTokens ? touch(count - 1) : select(shown.length - 1),
    };
    if (!moves[event.key] || event.ctrlKey || event.altKey || event.metaKey || !shown.length) return;
    event.preventDefault();
    moves[event.key]();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => event.target.name === "colour" ? show() : filter());
  filter();
}
