import { describe, expect, it } from 'vitest';
import type { TraceEvent } from '../../kvm/trace/events.ts';
import { type NormaliseOptions, normaliseTrace, spteText } from './normalise.ts';

const options: NormaliseOptions = {
  places: { place: (hva) => (hva >= 0x10000 && hva < 0x20000 ? { mem: 1, off: hva - 0x10000 } : null) },
  vendor: 'amd',
  events: 'base',
  afterInterrupted: false,
  limit: Number.POSITIVE_INFINITY,
};

const changed = (gfn: number, old = '0xe67', now = '0xe65', level = 1): TraceEvent => ({
  event: 'kvm_tdp_mmu_spte_changed',
  fields: { as_id: 0, gfn: `0x${gfn.toString(16)}`, level, old, new: now },
});
const exit = (reason: string, intr_info = '0x0'): TraceEvent => ({
  event: 'kvm_exit',
  fields: { vcpu: 0, reason, rip: '0xa000', info1: '0x0', info2: '0x0', intr_info, error_code: '0x2' },
});
const inject = (text: string): TraceEvent => ({ event: 'kvm_inj_exception', fields: { text } });
const texts = (events: readonly TraceEvent[], o: Partial<NormaliseOptions> = {}) =>
  normaliseTrace(events, { ...options, ...o }).map((e) => e.fields['text']);

describe('normalised trace', () => {
  it('prints SPTEs as the recordings do', () => {
    expect(spteText('0x123456e67', 'amd')).toBe('0xe67+pfn');
    expect(spteText('0x80000d0000017', 'amd')).toBe('mmio:0x80000d0000017');
    expect(spteText('0x8000000000000000', 'amd')).toBe('0x8000000000000000');
    expect(spteText('0x80000000000005a0', 'amd')).toBe('0x80000000000005a0');
    expect(spteText('0x8600000123456b77', 'intel')).toBe('0x8600000000000b77+pfn');
    expect(spteText('0xf80080100000000e', 'intel')).not.toContain('mmio');
    expect(spteText('0x780080100000000e', 'intel')).toBe('mmio:0x780080100000000e');
  });

  it('drops the sweep over entries that were never present', () => {
    expect(normaliseTrace([changed(1, '0x8000000000000000', '0x80000000000005a0')], options)).toEqual([]);
  });

  it('merges eight equal changes or more, whatever their frames', () => {
    const eight = Array.from({ length: 8 }, (_, i) =>
      changed(0x800 + i, `0x${(i + 1).toString(16)}000e67`, `0x${(i + 1).toString(16)}000e65`),
    );
    expect(normaliseTrace(eight, options)).toEqual([
      {
        event: 'kvm_tdp_mmu_spte_changed',
        fields: { as_id: 0, gfn: '0x800', level: 1, old: '0xe67+pfn', new: '0xe65+pfn', repeat: 8, gfn_step: '0x1' },
      },
    ]);
    expect(normaliseTrace(eight.slice(1), options)).toHaveLength(7);
  });

  it('keeps notifier events of its own memory only, by object and offset', () => {
    const unmap = (start: number): TraceEvent => ({
      event: 'kvm_unmap_hva_range',
      fields: { start, end: start + 0x1000 },
    });
    expect(normaliseTrace([unmap(0x11000), unmap(0x99000)], options)).toEqual([
      { event: 'kvm_unmap_hva_range', fields: { mem: 1, off: '0x1000', len: '0x1000' } },
    ]);
  });

  it('zeroes the interruption fields of an exit that interrupted nothing, and drops timer exits', () => {
    const [first, second] = normaliseTrace(
      [exit('interrupt'), exit('npf', '0xb0e'), exit('npf', '0x80000b0e')],
      options,
    );
    expect(first?.fields).toMatchObject({ intr_info: '0x0', error_code: '0x0' });
    expect(second?.fields).toMatchObject({ intr_info: '0x80000b0e', error_code: '0x2' });
  });

  it('drops a reinjection that no exit explains', () => {
    expect(texts([inject('#PF (0x2)'), inject('#PF (0x2) [reinjected]')])).toEqual(['#PF (0x2)']);
    expect(texts([inject('#UD'), exit('npf'), inject('#UD [reinjected]')])).toEqual([
      '#UD',
      undefined,
      '#UD [reinjected]',
    ]);
    expect(texts([inject('#UD [reinjected]')], { afterInterrupted: true })).toEqual(['#UD']);
  });

  it('keeps the first events only of a step that was interrupted', () => {
    const many = Array.from({ length: 50 }, () => exit('npf'));
    expect(normaliseTrace(many, { ...options, limit: 18 })).toHaveLength(18);
  });
});
