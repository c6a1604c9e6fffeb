// Draws the figures of a report, and those of newer versions of it where the page is served.
(() => {
  const context = { axis: "updates", grids: {}, share: null };

  function figures(data) {
    context.grids = data.grids;
    if (!data.axes.includes(context.axis)) context.axis = "updates";
    document.querySelectorAll(".charts").forEach((host, i) => {
      Charts.clear(host);
      for (const chart of data.charts) if (chart.section === host.dataset.section) Charts.place(host, chart, context);
    });
    const host = document.getElementById("axes");
    if (host) Charts.axisChoice(host, data.axes, context, "axis");
  }

  const data = JSON.parse(document.getElementById("data").textContent);
  const first = document.querySelector(".charts");
  if (first) first.before(Charts.element("div", { id: "axes" }));
  figures(data);
  const browser = document.getElementById("browser");
  if (browser) browse(browser, data.completions);
  if (data.live) follow(data.live.address, data.live.stamp);
  document.documentElement.dataset.ready = "";

  // Ask for the page again when the run has gone on, and take over its words and figures.
  function follow(address, stamp) {
    setInterval(async () => {
      if (document.hidden) return;
      try {
        const now = await (await fetch(address)).json();
        document.documentElement.dataset.live = "";
        if (now.stamp === stamp) return;
        const text = await (await fetch(location.href)).text();
        const newer = new DOMParser().parseFromString(text, "text/html");
        for (const name of ["facts", "found"]) {
          const place = document.getElementById(name), other = newer.getElementById(name);
          if (place && other) place.replaceWith(document.importNode(other, true));
        }
        const island = newer.getElementById("data");
        if (island) { figures(JSON.parse(island.textContent)); stamp = now.stamp; }
      } catch {
        delete document.documentElement.dataset.live; // the server has ended: what is shown stays
      }
    }, 2000);
  }
})();
