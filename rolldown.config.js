// The build: the sources become two entries and what they share, in one scope each. In separate modules every imported constant is a
// memory cell that is loaded and checked at each use; docs/adr/0007-one-scope.md has the numbers.
import { defineConfig } from 'rolldown';

export default defineConfig({
  input: { 'cli/main': 'src/cli/main.ts', index: 'src/index.ts' },
  platform: 'node',
  external: [
    'commander',
    'fzstd',
    'jiti',
    'picocolors',
    'piscina',
    'node-sqlite3-wasm',
    'bullmq',
    'ioredis',
    'typescript',
  ],
  optimization: { inlineConst: { mode: 'all', pass: 3 } },
  output: { dir: 'dist', format: 'esm', sourcemap: true, chunkFileNames: 'chunks/[name].js' },
});
