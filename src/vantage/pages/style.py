"""The style sheet of all pages: light and dark, narrow and wide, and paper."""

COLOURS = """
:root { color-scheme: light dark; --ink: #1d2129; --faint: #667085; --grid: #e3e6ec;
  --paper: #ffffff; --raised: #f6f7f9; --accent: #2456c8; --mark: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ee; --faint: #98a1b2; --grid: #333945;
  --paper: #14171c; --raised: #1d2129; --accent: #8ab0ff; --mark: #ff9d5c; } }
"""
STYLE = (
    COLOURS
    + """* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main, header { max-width: 1320px; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p, li { max-width: 78ch; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; margin: .5rem 0; }
li { margin: .25rem 0; }
.advice { background: var(--raised); border-left: 4px solid var(--accent); padding: .6rem .9rem;
  max-width: 80ch; font-weight: 600; overflow-wrap: anywhere; }
.faint, .why { color: var(--faint); }
.limits { font-size: .85rem; color: var(--faint); }
.figures { display: grid; gap: 1.2rem 2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.small { grid-template-columns: repeat(auto-fit, minmax(min(100%, 270px), 1fr)); }
figure { margin: 0; break-inside: avoid; }
figcaption { font-weight: 600; margin-bottom: .2rem; overflow-wrap: anywhere; }
figcaption span { display: block; font-weight: 400; font-size: .85rem; color: var(--faint); }
svg { display: block; width: 100%; height: auto;
  font-family: system-ui, "DejaVu Sans", sans-serif; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem;
  border-bottom: 1px solid var(--grid); }
thead th { border-bottom: 2px solid var(--faint); }
tbody th { font-weight: 600; }
.full tbody th { position: sticky; left: 0; background: var(--paper); min-width: 8rem;
  max-width: 13rem; overflow-wrap: anywhere; }
.full td { min-width: 8rem; }
td strong { display: block; font-weight: 600; white-space: nowrap; }
td span, th span { display: block; font-size: .94em; font-weight: 400; line-height: 1.35; }
th span { color: var(--faint); }
.flag { color: var(--mark); }
.settings { columns: 21rem; column-gap: 2.2rem; }
.record { margin-bottom: 1rem; } .record .record { margin: .3rem 0 0 .9rem; }
.record h3 { margin: 0 0 .15rem; font-size: .95rem; break-after: avoid; }
.record .record h3 { font-size: .85rem; }
table.pairs { width: 100%; table-layout: fixed; }
.pairs th, .pairs td { padding: .18rem .4rem .18rem 0; overflow-wrap: anywhere; font-weight: 400; }
.pairs th { color: var(--faint); }
.pairs tr { break-inside: avoid; }
dl { display: grid; grid-template-columns: minmax(7rem, 14rem) 1fr; gap: .3rem 1rem;
  font-size: .9rem; margin: .4rem 0; }
dt { font-weight: 600; overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 600px) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin: 0 0 .5rem; }
  body { font-size: 15px; } th, td { padding: .3rem .45rem; }
  .full tbody th { max-width: 7rem; min-width: 6rem; } }
@media print { :root { color-scheme: light; --ink: #000; --faint: #444; --grid: #ccc;
  --paper: #fff; --raised: #fff; --accent: #2456c8; --mark: #b03a00; }
  html, body { font-size: 10pt; } .scroll { overflow: visible; } table { font-size: 6.8pt; }
  table.pairs { font-size: 8pt; } .settings { columns: 2; }
  th, td { padding: .15rem .25rem; } .full td, .full tbody th, thead th { min-width: 0; }
  .full tbody th { position: static; } tr, li { break-inside: avoid; }
  h2, h3 { break-after: avoid; } }
"""
)
