import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

// The runner itself has little to do: on two cores both are for tests.
const maxWorkers = Math.max(2, availableParallelism() - 1);

/** Test files that put other modules in the place of some: what they load is theirs alone. */
const mocking = ['src/kvm/mmu/fault-path.test.ts', 'src/kvm/mmu/revisions/linux-6.12.test.ts'];
/** Folders whose tests share a worker's modules: half of their time was loading the same source again. */
const sharing = ['arch', 'host', 'kvm', 'vmm'].map((folder) => `src/${folder}/**/*.test.ts`);

export default defineConfig({
  test: {
    setupFiles: ['src/cpu/compiler/engine.setup.testing.ts'],
    testTimeout: 60_000,
    pool: 'threads',
    maxWorkers,
    projects: [
      { extends: true, test: { name: 'alone', include: ['src/**/*.test.ts'], exclude: sharing } },
      { extends: true, test: { name: 'mocking', include: mocking } },
      { extends: true, test: { name: 'sharing', include: sharing, exclude: mocking, isolate: false } },
    ],
  },
});
