import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts'],
    setupFiles: ['src/cpu/compiler/engine.setup.testing.ts'],
    testTimeout: 60_000,
    pool: 'threads',
  },
});
