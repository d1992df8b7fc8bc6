import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Real processes and real native runs on machines with two cores: slow is not broken.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // The addon holds native threads: a process a file, so that one file's crash is one file's failure.
    pool: 'forks',
    maxWorkers: 2,
  },
});
