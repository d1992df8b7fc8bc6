/** A task that asks ECS's agent to be kept while it works: what it asks, when, and that no answer of the agent stops it. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';

import { protectWhileBusy } from '../../engine/adapters/task-protection.ts';
import { ManualClock } from '../helpers/clock.ts';

const MINUTE = 60_000;
const LOOK_MS = 1_000;

let server: Server | null = null;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

/** Counts pauses between looks: when another one has begun, whatever the look before it asked has been answered. */
class LookClock extends ManualClock {
  looks = 0;

  override timeout(delayMs: number): { readonly signal: AbortSignal } & Disposable {
    if (delayMs === LOOK_MS) this.looks++;
    return super.timeout(delayMs);
  }
}

type Answer = (enabled: boolean) => { readonly status: number; readonly body: unknown } | null;

/** As ECS's agent answers. */
const GRANTED: Answer = (enabled) => ({ status: 200, body: { protection: { ProtectionEnabled: enabled, TaskArn: 'arn:aws:ecs:us-west-2:1:task/a/b' } } });

async function task({ answer = GRANTED, longestMs }: { readonly answer?: Answer; readonly longestMs?: number } = {}) {
  const clock = new LookClock();
  const stop = new AbortController();
  const [asked, troubles]: [{ readonly atMs: number; readonly minutes: number | null }[], string[]] = [[], []];
  const state = { isBusy: false, answer };
  server = createServer((request, response) => {
    let text = '';
    request.on('data', (chunk: Buffer) => { text += chunk.toString(); }).on('end', () => {
      const { ProtectionEnabled, ExpiresInMinutes, ...rest } = JSON.parse(text);
      expect([request.method, request.url, request.headers['content-type'], rest]).toEqual(['PUT', '/api/1234/task-protection/v1/state', 'application/json', {}]);
      expect(ProtectionEnabled).toBe(ExpiresInMinutes !== undefined);
      asked.push({ atMs: clock.nowMs(), minutes: ExpiresInMinutes ?? null });
      const said = state.answer(ProtectionEnabled);
      if (said !== null) response.writeHead(said.status).end(JSON.stringify(said.body));
    });
  });
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
  const agent = `http://127.0.0.1:${(server.address() as AddressInfo).port}/api/1234`;
  const ended = protectWhileBusy({ clock, signal: stop.signal, agent, isBusy: () => state.isBusy, longestMs, onTrouble: (error) => troubles.push((error as Error).message) });
  const look = async (from: number) => { while (clock.looks === from) await turn(); };
  /** Looks for as long, each to its end. */
  const pass = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += LOOK_MS) {
      const from = clock.looks;
      clock.advance(LOOK_MS);
      await look(from);
    }
  };
  return { clock, stop, asked, troubles, state, ended, pass, look };
}

test('a task is protected while jobs run, asks again before that ends, and is released when it is idle', async () => {
  const { state, pass, asked, troubles, stop, ended } = await task();
  await pass(MINUTE);
  expect(asked).toEqual([]);
  state.isBusy = true;
  await pass(7 * MINUTE);
  expect(asked.map(({ minutes }) => minutes)).toEqual([5, 5, 5]);
  for (const [i, { atMs }] of asked.entries()) if (i > 0) expect(atMs - (asked[i - 1]?.atMs ?? 0)).toBeLessThan(5 * MINUTE);
  // Between two slices it is idle for a moment.
  state.isBusy = false;
  await pass(5_000);
  state.isBusy = true;
  await pass(5_000);
  expect(asked).toHaveLength(3);
  state.isBusy = false;
  await pass(20_000);
  expect(asked.slice(3).map(({ minutes }) => minutes)).toEqual([null]);
  stop.abort();
  await ended;
  expect(asked).toHaveLength(4);
  expect(troubles).toEqual([]);
});

test('a worker that stops is released at once, busy or not', async () => {
  const { state, pass, asked, stop, ended } = await task();
  state.isBusy = true;
  await pass(2_000);
  stop.abort();
  await ended;
  expect(asked.map(({ minutes }) => minutes)).toEqual([5, null]);
});

test('one that is never idle lets ECS have its way for a minute after each slice', async () => {
  const { state, pass, asked } = await task({ longestMs: 10 * MINUTE });
  state.isBusy = true;
  await pass(23 * MINUTE);
  const released = asked.filter(({ minutes }) => minutes === null);
  expect(released).toHaveLength(2);
  for (const { atMs } of released) {
    const next = asked.find((one) => one.atMs > atMs);
    expect((next?.atMs ?? 0) - atMs).toBeGreaterThanOrEqual(MINUTE);
    expect((next?.atMs ?? 0) - atMs).toBeLessThan(2 * MINUTE);
  }
});

test.each([
  ['refuses as ECS does', 400, { error: { Code: 'AccessDeniedException', Message: 'not authorized to perform: ecs:UpdateTaskProtection' } }],
  ['fails in an answer that is none of a failure', 200, { failure: { Reason: 'TASK_NOT_VALID', Detail: 'not of a service' } }],
  ['says what nobody can read', 200, 'protected'],
])('an agent that %s is asked again later, is complained of once, and stops nothing', async (_, status, body) => {
  const { state, pass, asked, troubles } = await task({ answer: () => ({ status, body }) });
  state.isBusy = true;
  await pass(2 * MINUTE);
  expect(troubles).toEqual([expect.stringContaining('did not protect this task')]);
  expect(asked.length).toBeGreaterThanOrEqual(4);
  expect(asked.length).toBeLessThanOrEqual(5);
  state.answer = GRANTED;
  await pass(MINUTE);
  const granted = asked.length;
  await pass(MINUTE);
  expect(asked.length).toBeLessThanOrEqual(granted + 1);
  // What may hold is released, also after trouble.
  state.isBusy = false;
  await pass(MINUTE);
  expect(asked.at(-1)?.minutes).toBeNull();
});

test('an agent that never answers holds up neither looks nor the end of a worker', async () => {
  const { clock, state, asked, troubles, stop, ended, look } = await task({ answer: () => null });
  const until = async (n: number) => { while (asked.length < n) await turn(); };
  state.isBusy = true;
  const from = clock.looks;
  clock.advance(LOOK_MS);
  await until(1);
  clock.advance(2_000);
  await look(from);
  expect(troubles).toHaveLength(1);
  stop.abort();
  // The release has a bound of its own.
  await until(2);
  clock.advance(2_000);
  await ended;
  expect(asked.map(({ minutes }) => minutes)).toEqual([5, null]);
});
