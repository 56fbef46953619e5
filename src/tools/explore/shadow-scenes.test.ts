import { describe, expect, it } from 'vitest';
import { outcome, visited } from './checked-schedules.testing.ts';
import { search } from './explorer.ts';
import type { Scene } from './scene.ts';
import { shadowScenes } from './scenes/shadow.ts';
import { ShadowModel } from './shadow-model/model.ts';

function expected(scene: Scene): string {
  return typeof scene.expect === 'string' ? scene.expect : scene.expect.violates;
}

function named(name: string): Scene {
  return shadowScenes.find((s) => s.name === name)!;
}

describe('scenes under shadow paging', () => {
  for (const scene of shadowScenes) {
    it(`${scene.name}: ${scene.title}`, async () => {
      const wanted = expected(scene);
      expect((await outcome(new ShadowModel(scene))).slice(0, wanted.length)).toBe(wanted);
    });
  }

  it('have a guard behind every twin', () => {
    for (const scene of shadowScenes) {
      if (scene.expect === 'safe' || scene.guardOf === undefined) continue;
      expect(named(scene.guardOf).expect).toBe('safe');
    }
  });
});

describe('fixes of the shadow MMU', () => {
  /** Patch of linux-6.12, scene, what the revision before it violates, and what comes of that if KVM's warning is not looked at. */
  const fixes = [
    [17, 'shadow-mmio-over-present', 'WARN in mmu_spte_set', 'what leads from a frame to its entries'],
    [18, 'shadow-other-table', 'where a table is write-protected', 'where a table is write-protected'],
    [18, 'shadow-other-huge-page', 'WARN in kvm_mmu_page_set_translation', 'no mapping of a gfn that no slot has'],
    [19, 'shadow-huge-page-to-table', 'WARN in kvm_mmu_page_set_translation', 'no mapping of a gfn that no slot has'],
    [17, 'shadow-mmio-over-present-alone', 'WARN in mmu_spte_set', 'what leads from a frame to its entries'],
    [18, 'shadow-other-table-raced', 'where a table is write-protected', 'where a table is write-protected'],
    [
      18,
      'shadow-other-huge-page-raced',
      'WARN in kvm_mmu_page_set_translation',
      'no mapping of a gfn that no slot has',
    ],
    [
      19,
      'shadow-huge-page-to-table-raced',
      'WARN in kvm_mmu_page_set_translation',
      'no mapping of a gfn that no slot has',
    ],
    [21, 'shadow-smm-table', 'WARN in mmu_try_to_unsync_pages', 'no entry is writable whose page holds a table'],
  ] as const;
  for (const [n, name, warns, comes] of fixes) {
    const scene = named(name);
    it(`linux-6.12@${n - 1} is found by ${name}, linux-6.12@${n} is not`, async () => {
      const before = { revision: `linux-6.12@${n - 1}` };
      const result = await search(new ShadowModel(scene, before), { reduce: true, livelock: true });
      const model = new ShadowModel(scene, before);
      expect(result.verdict).toBe('violation');
      for (const move of result.moves) model.step(move.actor, move.choice);
      expect(model.violationText(model.violation()).slice(0, warns.length)).toBe(warns);
      for (const revision of [`linux-6.12@${n}`, 'linux-6.12'])
        expect(await outcome(new ShadowModel(scene, { revision }))).toBe('safe');
    });

    it(`${name} shows what comes of the warning`, async () => {
      const deaf = { ...scene, vm: { ...scene.vm, passesOver: ["KVM's own checks"] }, revision: `linux-6.12@${n - 1}` };
      expect((await outcome(new ShadowModel(deaf))).slice(0, comes.length)).toBe(comes);
    });
  }
});

describe('a captured state', () => {
  function leavesNoStray(model: ShadowModel, _words: Int32Array, stage: string): void {
    if (model.missesEntries()) throw new Error(`${stage} made entries that are not looked at`);
  }

  for (const scene of shadowScenes.filter((s) => s.expect === 'safe')) {
    it(`comes back as it was, in another model too: ${scene.name}`, () => {
      const model = new ShadowModel(scene);
      const other = new ShadowModel(scene);
      const again = new Int32Array(model.stateWords);
      for (const words of visited(model, 150, leavesNoStray)) {
        other.restore(words, 0);
        other.capture(again, 0);
        const same = again.every((word, i) => word === words[i]);
        if (!same || other.enabled() !== model.enabled() || other.violation() !== model.violation())
          expect(again).toEqual(words);
        if (other.describe().join() !== model.describe().join()) expect(other.describe()).toEqual(model.describe());
      }
    });
  }
});

describe('the reduction', () => {
  for (const name of [
    'shadow-page-moves',
    'shadow-unsync-page-moves',
    'shadow-emulated-write',
    'shadow-no-recheck',
    'shadow-slot-deleted',
  ]) {
    it(`finds what the full search finds: ${name}`, async () => {
      expect(await outcome(new ShadowModel(named(name)), false)).toBe(await outcome(new ShadowModel(named(name))));
    });
  }
});
