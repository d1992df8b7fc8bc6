/** What the front is compared with: Hono on the same server, which answers at once and does nothing. Prints its address. */
import { serve } from '@hono/node-server';
import { Hono } from 'hono';

const app = new Hono();
app.get('*', (c) => c.json({ state: 'ready', queued: 0, running: 0, queue_age_ms: 0 }));
app.post('*', async (c) => c.json(await c.req.json()));
serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }, ({ port }) => process.stdout.write(`http://127.0.0.1:${port}\n`));
