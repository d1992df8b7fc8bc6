/** Where pulled models are kept, for users who have no home: services, and containers that run as any number. */
import { describe, expect, test, vi } from 'vitest';

import { cacheRoot } from '../../engine/model/cache.ts';

vi.mock('node:os', async (original) => ({
  ...(await original<typeof import('node:os')>()),
  homedir: () => {
    throw new Error('A system error occurred: uv_os_homedir returned ENOENT');
  },
}));

describe('a user without a home', () => {
  test('has its models where it says, and is asked to say so', () => {
    expect(cacheRoot({ RUMINATE_CACHE: '/var/cache' })).toBe('/var/cache/ruminate');
    expect(cacheRoot({ XDG_CACHE_HOME: '/tmp/cache' })).toBe('/tmp/cache/ruminate');
    expect(cacheRoot({ HOME: '/h' })).toBe('/h/.cache/ruminate');
    expect(() => cacheRoot({})).toThrow(expect.objectContaining({ code: 'ERR_OPTION', message: expect.stringContaining('RUMINATE_CACHE') }));
  });
});
