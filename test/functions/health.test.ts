/** What a worker answers, which has no API: how it is, and its metrics. */
import { describe, expect, test } from 'vitest';

import type { PlatformHealth } from '../../engine/control/platform.ts';
import { healthOnly } from '../../functions/health.ts';
import { Metrics } from '../../functions/metrics.ts';

describe('a worker', () => {
  const health = async (): Promise<PlatformHealth> => ({ state, running: 2, queued: 7, queueAgeMs: 0 });
  let state: PlatformHealth['state'] = 'starting';
  const metrics = new Metrics(health);
  const answer = healthOnly({ health }, metrics.scrape);
  const ask = (path: string, method = 'GET') => answer(new Request(`http://worker${path}`, { method }));
  const statuses = async () => Object.fromEntries(await Promise.all(['live', 'startup', 'ready'].map(async (what) => [what, (await ask(`/health/${what}`)).status])));

  test('that loads its models is alive and not ready, and so is one that hands back what it runs', async () => {
    expect(await statuses()).toEqual({ live: 200, startup: 503, ready: 503 });
    state = 'ready';
    expect(await statuses()).toEqual({ live: 200, startup: 200, ready: 200 });
    expect(await (await ask('/health')).json()).toEqual({ state: 'ready', running: 2, queued: 7, queue_age_ms: 0 });
    state = 'draining';
    expect(await statuses()).toEqual({ live: 200, startup: 200, ready: 503 });
  });

  test('tells its metrics, and answers nothing else', async () => {
    expect(await (await ask('/metrics')).text()).toMatch(/^ruminate_num_requests_running 2$/m);
    expect((await ask('/v1/jobs')).status).toBe(404);
    expect((await ask('/constructor')).status).toBe(404);
    expect((await ask('/health', 'POST')).status).toBe(405);
  });
});
