import fs from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ABSENT } from './absent.ts';
import { harvestFile } from './harvest.ts';
import { renderMap } from './render.ts';

const src = path.resolve(import.meta.dirname, '../..');

function harvest() {
  return fs
    .readdirSync(src, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !/\.(test|testing)\.ts$/.test(file))
    .filter((file) => !file.startsWith('tools/kvm-map/'))
    .sort()
    .flatMap((file) => harvestFile(file, fs.readFileSync(path.join(src, file), 'utf8')));
}

describe('the KVM map', () => {
  it('reads tags', () => {
    const source = [
      '/** A file. @kvm mmu.c (not a list) */',
      "import { x } from './x.ts';",
      '',
      '/**',
      ' * Words. @kvm mmu.c fast_page_fault, is_access_allowed; tdp_mmu.c',
      ' * kvm_tdp_mmu_map: and more words. @partial one level only. @apm 15.25.6, 15.25.8 HOT',
      ' */',
      'export function fastPageFault(): void {}',
    ].join('\n');
    const entry = { file: 'a.ts', symbol: 'fastPageFault', partial: 'one level only' };
    expect(harvestFile('a.ts', source)).toEqual([
      { source: 'mmu.c', name: 'fast_page_fault', ...entry },
      { source: 'mmu.c', name: 'is_access_allowed', ...entry },
      { source: 'tdp_mmu.c', name: 'kvm_tdp_mmu_map', ...entry },
      { source: 'apm', name: '15.25.6', ...entry },
      { source: 'apm', name: '15.25.8', ...entry },
    ]);
  });

  it('docs/kvm-map.md is current (npm run kvm-map writes it)', async () => {
    await expect(renderMap(harvest(), ABSENT)).toMatchFileSnapshot('../../../docs/kvm-map.md');
  });
});
