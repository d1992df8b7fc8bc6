export const STYLE = `
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #2563eb; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem; font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; }
h2 { margin: 2rem 0 .5rem; font-size: 1.1rem; }
h3 { margin: 1rem 0 .25rem; font-size: .9rem; }
#about, .about { white-space: pre-line; }
code, pre, textarea, .path, .type { font: 13px/1.5 ui-monospace, monospace; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0; }
details > :not(summary) { margin-left: 1rem; margin-right: 1rem; }
summary { padding: .5rem .75rem; cursor: pointer; display: flex; gap: .75rem; align-items: baseline; flex-wrap: wrap; }
details[open] > summary { border-bottom: 1px solid var(--line); }
.method { width: 4.2rem; font-weight: 600; font-size: .8rem; color: var(--accent); text-transform: uppercase; }
.summary { margin-left: auto; opacity: .75; }
table { border-collapse: collapse; width: calc(100% - 2rem); font-size: .9rem; }
td { border-top: 1px solid var(--line); padding: .3rem .5rem; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { white-space: nowrap; }
.type { opacity: .75; }
.required { color: #dc2626; }
textarea { width: calc(100% - 2rem); min-height: 8rem; }
input { font: inherit; padding: .2rem .4rem; }
button { font: inherit; margin: .75rem 1rem; padding: .3rem 1rem; }
pre { background: var(--soft); padding: .75rem; max-height: 24rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
`;
