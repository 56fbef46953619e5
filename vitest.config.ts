import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

// The runner itself has little to do: on two cores both are for tests.
const maxWorkers = Math.max(2, availableParallelism() - 1);

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts'],
    setupFiles: ['src/cpu/compiler/engine.setup.testing.ts'],
    testTimeout: 60_000,
    pool: 'threads',
    maxWorkers,
  },
});
