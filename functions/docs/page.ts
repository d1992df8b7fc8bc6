/** The page itself; script.ts fills it from /openapi.json. */
export const PAGE = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ruminate API</title>
<link rel="stylesheet" href="/docs/docs.css">
<link rel="icon" href="data:,">
<header>
  <h1>Ruminate API</h1>
  <p id="about"></p>
  <label id="key" hidden>API key <input type="password" autocomplete="off" placeholder="kept in this page only"></label>
</header>
<main id="operations"><p>Loading /openapi.json …</p></main>
<noscript>This page reads <a href="/openapi.json">/openapi.json</a> with a script.</noscript>
<script src="/docs/docs.js" defer></script>
</html>
`;
