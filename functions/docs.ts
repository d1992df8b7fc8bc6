/** /openapi.json, made of the schemas that validate, and /docs, which shows it: a page of our own that loads nothing from elsewhere. */
import type { Registry } from './endpoint.ts';
import { PAGE } from './docs/page.ts';
import { SCRIPT } from './docs/script.ts';
import { STYLE } from './docs/style.ts';

const DESCRIPTION = `Long reasoning that outlives its machine: every request is a stored job with a budget of length, width and KV reads.

What OpenAI's clients ask for is answered as OpenAI's, with the extension object \`hyperscale\`. \`/v1/jobs\` shows all that a job is, \`/v1/quotes\` what it would
cost, \`/v1/checkpoints\` what is stored of it. A parameter that is not supported is refused by name, never ignored; every answer has an \`x-request-id\`.`;

/** What the page may load: itself. */
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const FILES = {
  '/docs': ['text/html; charset=utf-8', PAGE],
  '/docs/docs.js': ['text/javascript; charset=utf-8', SCRIPT],
  '/docs/docs.css': ['text/css; charset=utf-8', STYLE],
} as const;

export function docs({ app, auth, methods }: Registry, version: string): void {
  if (auth !== null) app.openAPIRegistry.registerComponent('securitySchemes', 'key', { type: 'http', scheme: 'bearer' });
  let text: string | null = null;
  methods.set('/openapi.json', ['get']);
  app.get('/openapi.json', () => {
    text ??= JSON.stringify(app.getOpenAPI31Document({ openapi: '3.1.0', info: { title: 'Ruminate', version, description: DESCRIPTION } }));
    return new Response(text, { headers: { 'content-type': 'application/json' } });
  });
  for (const [path, [type, body]] of Object.entries(FILES)) {
    methods.set(path, ['get']);
    app.get(path, () => new Response(body, { headers: { 'content-type': type, 'content-security-policy': POLICY, 'x-content-type-options': 'nosniff' } }));
  }
}
