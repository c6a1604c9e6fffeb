() => {
  const wide = document.documentElement.clientWidth;
  const scrolls = (element) => {
    for (let e = element; e; e = e.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(e).overflowX)) return true;
    return false;
  };
  const frame = document.querySelector(".md-content") || document.body;
  const out = [...frame.querySelectorAll("*")].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && box.right > wide + 1 && !scrolls(e) && !e.closest(".katex-mathml");
  });
  const text = [];
  const walk = document.createTreeWalker(frame, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const said = walk.currentNode.data;
    const verbatim = "code, pre, script, style, .katex";
    if (/[$]|\\[a-z]|[_^][{]/.test(said) && !walk.currentNode.parentElement.closest(verbatim))
      text.push(said.trim());
  }
  const all = (selector) => [...document.querySelectorAll(selector)];
  return {
    out: out.map((e) => `${e.tagName} ${e.textContent.trim().slice(0, 60)}`),
    text,
    words: frame.innerText,
    sideways: document.documentElement.scrollWidth > wide + 1,
    scrolling: all(".md-content pre > code, div.arithmatex")
      .filter((e) => e.scrollWidth > e.clientWidth + 1 && !e.closest("details:not([open])"))
      .map((e) => e.textContent.trim().slice(0, 60)),
    untypeset: all(".arithmatex").filter((e) => !e.querySelector(".katex")).length,
    mute: all("img").filter((e) => !e.alt.trim()).map((e) => e.src),
    broken: all("img").filter((e) => !e.complete || !e.naturalWidth).map((e) => e.src),
    anchors: all("a[href^='#']")
      .map((e) => decodeURIComponent(e.getAttribute("href").slice(1)))
      .filter((id) => id && !document.getElementById(id)),
  };
}
