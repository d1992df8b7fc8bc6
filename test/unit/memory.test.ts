import { expect, test } from 'vitest';
import { availableMemory } from '../../engine/job/memory.ts';

const files = (contents: Record<string, string>) => (path: string) => contents[path] ?? null;
const V2 = { '/sys/fs/cgroup/memory.max': '1000\n', '/sys/fs/cgroup/memory.current': '400\n', '/proc/meminfo': 'MemTotal: 9 kB\nMemAvailable:       2 kB\n' };

test('the smallest of container, machine and operator counts', () => {
  expect(availableMemory({}, files(V2))).toBe(600);
  expect(availableMemory({}, files({ ...V2, '/proc/meminfo': 'MemAvailable: 0 kB\n' }))).toBe(0);
  expect(availableMemory({ RUMINATE_MEMORY_LIMIT: '50' }, files(V2))).toBe(50);
});

test('page cache that is given back under pressure does not count as used', () => {
  expect(availableMemory({}, files({ ...V2, '/sys/fs/cgroup/memory.stat': 'anon 100\ninactive_file 300\n' }))).toBe(900);
});

test('a container without a limit leaves the machine, in both versions of cgroups', () => {
  expect(availableMemory({}, files({ ...V2, '/sys/fs/cgroup/memory.max': 'max\n' }))).toBe(2_048);
  const v1 = { '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n', '/sys/fs/cgroup/memory/memory.usage_in_bytes': '5\n', '/proc/meminfo': 'MemAvailable: 2 kB\n' };
  expect(availableMemory({}, files(v1))).toBe(2_048);
  expect(availableMemory({}, files({ ...v1, '/sys/fs/cgroup/memory/memory.limit_in_bytes': '105\n' }))).toBe(100);
});

test('where there is no limit, the statistics of the whole machine are not asked for: they take long', () => {
  const asked: string[] = [];
  const read = (path: string) => {
    asked.push(path);
    return files({ ...V2, '/sys/fs/cgroup/memory.max': 'max\n' })(path);
  };
  availableMemory({}, read);
  expect(asked.filter((path) => path.endsWith('memory.stat'))).toEqual([]);
});

test('a machine that says nothing refuses nothing', () => {
  expect(availableMemory({}, files({}))).toBe(Number.MAX_SAFE_INTEGER);
});

test('a limit that is not a number of bytes is named', () => {
  expect(() => availableMemory({ RUMINATE_MEMORY_LIMIT: '2GB' }, files({}))).toThrow(expect.objectContaining({ code: 'ERR_OPTION', message: expect.stringContaining('2GB') }));
});
