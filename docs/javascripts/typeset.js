// Formulas that the build has marked, $...$ in a line and $$...$$ by themselves, typeset by KaTeX.
document.querySelectorAll(".arithmatex").forEach((place) => {
  const text = place.textContent.trim();
  const display = text.startsWith("\\[");
  katex.render(text.slice(2, -2), place, { displayMode: display, throwOnError: true });
});
document.documentElement.dataset.typeset = "";
