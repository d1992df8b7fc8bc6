/** The page itself; script.ts fills it from /openapi.json. */
export const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ruminate API</title>
<link rel="stylesheet" href="/docs/docs.css">
<link rel="icon" href="data:,">
<header>
  <a class="brand" href="/docs">Ruminate <small>API</small></a><span id="version"></span>
  <form id="key" hidden><label>API key <input type="password" autocomplete="off" placeholder="kept in this page only"></label></form>
  <a href="/openapi.json">openapi.json</a>
</header>
<div id="columns">
  <nav aria-label="Operations">
    <input id="filter" type="search" placeholder="Filter" aria-label="Filter operations">
    <div id="index"></div>
  </nav>
  <main id="top">
    <section id="about"><p>Loading /openapi.json …</p></section>
    <section id="start" hidden>
      <div class="tabs" role="tablist"></div>
      <div class="code"><pre></pre><button type="button" class="copy">Copy</button></div>
    </section>
    <div id="operations"></div>
    <noscript>This page reads <a href="/openapi.json">/openapi.json</a> with a script.</noscript>
  </main>
</div>
<script src="/docs/docs.js" defer></script>
</html>
`;
