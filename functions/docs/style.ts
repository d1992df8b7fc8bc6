export const STYLE = `
:root {
  color-scheme: light dark;
  --paper: light-dark(#fff, #14161a); --panel: light-dark(#f7f8fa, #1b1e24); --ink: light-dark(#1c2330, #e6e9ef); --dim: light-dark(#5d6778, #98a2b3);
  --line: light-dark(#e2e6ec, #2c313a); --accent: light-dark(#0f6b5c, #4fd1b5); --code: light-dark(#f1f4f7, #0e1013);
  --get: light-dark(#0b6e99, #6cc7ee); --post: light-dark(#0f6b5c, #4fd1b5); --put: light-dark(#8a5a00, #e8b95a); --delete: light-dark(#b42318, #ff8a80);
  --mono: ui-monospace, 'SF Mono', 'Cascadia Mono', 'DejaVu Sans Mono', Menlo, monospace;
}
* { box-sizing: border-box; }
html { scroll-padding-top: 4.5rem; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, 'Segoe UI', sans-serif; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
code, pre, textarea, .path, .type, .name { font-family: var(--mono); font-size: 13px; }
p code, .about code { background: var(--code); padding: .05rem .3rem; border-radius: 4px; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }

header { position: sticky; top: 0; z-index: 1; display: flex; gap: .75rem 1rem; align-items: baseline; padding: .8rem 1.5rem; background: var(--paper); border-bottom: 1px solid var(--line); }
.brand { font-weight: 700; font-size: 1.1rem; color: var(--ink); }
.brand small { font-weight: 400; color: var(--dim); }
#version { color: var(--dim); font-size: .85rem; margin-right: auto; }
#key label { font-size: .85rem; color: var(--dim); }

#columns { display: grid; grid-template-columns: 17rem minmax(0, 1fr); max-width: 88rem; margin: 0 auto; }
nav { position: sticky; top: 3.4rem; align-self: start; height: calc(100vh - 3.4rem); overflow-y: auto; padding: 1.25rem 1rem 2rem 1.5rem; border-right: 1px solid var(--line); }
nav h2 { margin: 1.1rem 0 .25rem; font-size: .72rem; letter-spacing: .06em; text-transform: uppercase; color: var(--dim); }
nav a { display: flex; gap: .5rem; padding: .16rem .4rem; border-radius: 5px; color: var(--ink); font-size: .84rem; }
nav a:hover { background: var(--panel); text-decoration: none; }
#filter { width: 100%; }
main { padding: 1.5rem 2rem 5rem; min-width: 0; }
main > section { max-width: 56rem; }
h2 { margin: 2.4rem 0 .6rem; font-size: 1.15rem; }
h3 { margin: 1.3rem 0 .4rem; font-size: .78rem; letter-spacing: .05em; text-transform: uppercase; color: var(--dim); }
h3:first-child { margin-top: 0; }

.method { flex: none; width: 3.9rem; font: 600 .7rem/1.6 var(--mono); text-transform: uppercase; color: var(--post); }
nav .method { width: 2.6rem; font-size: .62rem; line-height: 2; }
.get { color: var(--get); } .put { color: var(--put); } .delete { color: var(--delete); }

details.operation { border: 1px solid var(--line); border-radius: 8px; margin: .5rem 0; background: var(--paper); }
.operation > summary { display: flex; gap: .75rem; align-items: baseline; padding: .6rem .9rem; cursor: pointer; list-style: none; border-radius: 8px; }
.operation > summary::-webkit-details-marker { display: none; }
.operation > summary:hover { background: var(--panel); }
.operation[open] > summary { border-bottom: 1px solid var(--line); border-radius: 8px 8px 0 0; background: var(--panel); }
.path { font-weight: 600; overflow-wrap: anywhere; }
.summary { margin-left: auto; color: var(--dim); text-align: right; }
.inside { display: grid; grid-template-columns: minmax(0, 1.15fr) minmax(0, 1fr); gap: 1.5rem; padding: 1rem 1.1rem 1.3rem; }
.try { align-self: start; position: sticky; top: 4.2rem; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .9rem; min-width: 0; }
.about p { margin: 0 0 .7rem; }

.fields { margin: 0; padding: 0; list-style: none; }
.fields li { padding: .42rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
.fields li:first-child { border-top: 0; }
.name { font-weight: 600; }
.name .above { font-weight: 400; color: var(--dim); }
.type { color: var(--dim); margin-left: .6rem; }
.required { margin-left: .6rem; font-size: .7rem; color: var(--delete); }
.fields p { margin: .1rem 0 0; color: var(--dim); font-size: .88rem; }
.inside details { margin: .3rem 0; }
.inside details > summary { cursor: pointer; font-size: .88rem; padding: .2rem 0; }
.status { font: 600 .8rem var(--mono); margin-right: .5rem; }

input, textarea, button { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line); border-radius: 6px; padding: .35rem .55rem; }
.try label { display: block; font: .8rem var(--mono); color: var(--dim); margin-bottom: .5rem; }
.try input { display: block; width: 100%; margin-top: .15rem; }
textarea { font: 13px/1.5 var(--mono); display: block; width: 100%; min-height: 9rem; resize: vertical; line-height: 1.5; field-sizing: content; max-height: 26rem; }
button { cursor: pointer; }
button:hover { border-color: var(--accent); }
.send { background: var(--accent); border-color: var(--accent); color: light-dark(#fff, #10201c); font-weight: 600; }
.buttons { display: flex; gap: .5rem; margin-top: .7rem; }
pre { margin: .7rem 0 0; padding: .8rem; background: var(--code); border: 1px solid var(--line); border-radius: 6px; max-height: 26rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.tabs { display: flex; gap: .25rem; margin-top: 1rem; }
.tabs button { border-bottom: 0; border-radius: 6px 6px 0 0; background: none; color: var(--dim); font-size: .85rem; }
.tabs button[aria-selected=true] { background: var(--code); color: var(--ink); }
.code { position: relative; }
.code pre { margin: 0; border-radius: 0 6px 6px 6px; }
.copy { position: absolute; top: .45rem; right: .45rem; font-size: .75rem; padding: .15rem .5rem; }
[hidden] { display: none !important; }

@media (max-width: 70rem) {
  .inside { grid-template-columns: minmax(0, 1fr); }
  .try { position: static; }
}
@media (max-width: 52rem) {
  header { padding: .7rem 1rem; flex-wrap: wrap; }
  #columns { grid-template-columns: minmax(0, 1fr); }
  nav { position: static; height: auto; padding: .9rem 1rem 0; border-right: 0; }
  #index { display: none; }
  main { padding: .5rem 1rem 4rem; }
  .operation > summary { flex-wrap: wrap; gap: .1rem .6rem; }
  .summary { width: 100%; margin-left: 0; text-align: left; }
  .inside { padding: .8rem; }
}
`;
