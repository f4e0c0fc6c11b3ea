"""The look of the report page: one column, system fonts, light and dark, tables that scroll on a phone."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --card: #f6f7fb; --ink: #1f2430; --muted: #656d7d; --edge: #e1e4ec; --accent: #4c5fd7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12151b; --card: #1a1e26; --ink: #e4e7ee; --muted: #98a1b3; --edge: #2d333f; --accent: #8b9bff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 68rem; background: var(--ground); color: var(--ink);
  font: 16px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif;
}
h1 { font-size: 1.9rem; letter-spacing: -0.02em; margin: 0; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 3.2rem 0 0.4rem; scroll-margin-top: 1rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 0.6rem; }
p { margin: 0.4rem 0 1rem; max-width: 46rem; }
.muted, figcaption { color: var(--muted); }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
nav { display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; margin-top: 1rem; }
.scroll { overflow-x: auto; margin: 1rem 0 1.5rem; border: 1px solid var(--edge); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 0.82rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.65rem; text-align: left; white-space: nowrap; }
th { color: var(--muted); font-weight: 600; background: var(--card); }
td { border-top: 1px solid var(--edge); }
.number { text-align: right; }
tr.reference td { color: var(--muted); }
.chart { overflow-x: auto; margin: 1.2rem 0; }
.chart svg { display: block; width: 100%; min-width: 36rem; }
.exhibit { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.exhibit img { max-width: 100%; height: auto; border-radius: 6px; background: #ffffff; }
pre {
  margin: 0.6rem 0; padding: 0.9rem 1.1rem; overflow: auto; max-height: 26rem; background: var(--card);
  border: 1px solid var(--edge); border-radius: 8px; font: 0.82rem/1.5 ui-monospace, Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
dt { font-weight: 600; margin-top: 0.9rem; }
dd { margin: 0.1rem 0 0; max-width: 46rem; }
summary { cursor: pointer; color: var(--accent); margin-top: 0.8rem; }
""".strip()
