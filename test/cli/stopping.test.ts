/** What makes a worker stop, beside being told to. */
import { afterEach, describe, expect, test, vi } from 'vitest';

import { type Notices, checkMemory, tooLittleMemory, untilStopped } from '../../cli/stopping.ts';
import { ManualClock } from '../helpers/clock.ts';

const CONFIG = { timeLimitMs: null, graceMs: 1_000, memoryLimitBytes: null, spot: false };

afterEach(() => {
  vi.restoreAllMocks();
});

function watched(config: Partial<Parameters<typeof untilStopped>[0]>, notices: Notices | null = null) {
  const clock = new ManualClock();
  const told = new AbortController();
  const stopped = untilStopped({ ...CONFIG, ...config }, { clock, startMs: 0, signal: told.signal, notices, onTrouble: () => undefined });
  return { clock, told, stopped };
}

describe('a worker', () => {
  test('with a memory limit that is less than it has before it takes anything is refused, with both numbers', () => {
    vi.spyOn(process.memoryUsage, 'rss').mockReturnValue(95 << 20);
    expect(() => checkMemory({ memoryLimitBytes: 60 << 20 })).toThrow(expect.objectContaining({ code: 'ERR_OPTION', message: expect.stringMatching(/--memory-limit.*62914560 bytes.*99614720 resident/) as unknown }));
    expect(() => checkMemory({ memoryLimitBytes: 95 << 20 })).not.toThrow();
    expect(() => checkMemory({ memoryLimitBytes: null })).not.toThrow();
    expect(tooLittleMemory({ memoryLimitBytes: 1 }, 2).code).toBe('ERR_OPTION');
  });

  test('stops within a second of growing over its memory limit, and says how much it had', async () => {
    const rss = vi.spyOn(process.memoryUsage, 'rss').mockReturnValue(100);
    const { clock, stopped } = watched({ memoryLimitBytes: 200 });
    clock.advance(1_000);
    await clock.settle();
    rss.mockReturnValue(201);
    clock.advance(1_000);
    expect(await stopped).toEqual({ why: 'it has 201 bytes resident, above its limit of 200', residentBytes: 201 });
  });

  test('stops before its time limit, its grace earlier', async () => {
    const { clock, stopped } = watched({ timeLimitMs: 5_000 });
    clock.advance(4_000);
    expect(await stopped).toEqual({ why: 'its time limit of 5000 ms is near', residentBytes: null });
  });

  test('stops for a notice at once; what is left to do about it is for whoever exits', async () => {
    const settled = new Promise<void>(() => undefined);
    const { stopped } = watched({}, async () => ({ action: 'terminate', at: '2026-11-25T12:00:00Z', instance: 'i-1', task: null, settled }));
    const found = await stopped;
    expect(found?.why).toBe('EC2 takes this machine back (terminate at 2026-11-25T12:00:00Z)');
    expect(found?.settled).toBe(settled);
  });

  test('that is told to stop says nothing of its own', async () => {
    const { told, stopped } = watched({ memoryLimitBytes: 2 ** 50, timeLimitMs: 86_400_000 });
    told.abort();
    expect(await stopped).toBeNull();
  });
});
