// What scrolls sideways is reached by the keyboard: tables that the theme puts into frames, formulas.
const reachable = () => {
  document.querySelectorAll(".md-typeset__scrollwrap, div.arithmatex").forEach((frame) => {
    const scrolls = frame.scrollWidth > frame.clientWidth;
    if (scrolls) frame.tabIndex = 0;
    else frame.removeAttribute("tabindex");
  });
};
new ResizeObserver(reachable).observe(document.body);
new MutationObserver(reachable).observe(document.body, { childList: true, subtree: true });
