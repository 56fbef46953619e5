import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import { describedReport, reportLines, scenarioReport } from './explain-report.ts';
import { textOf } from './explain-text.ts';
import type { Explanation } from './explanation.ts';
import type { FaultFlags } from './fault-flags.ts';
import { parseTraceLine } from './trace-line.ts';
import { parseVmDescription } from './vm-description.ts';

const scenario = (name: string): string =>
  fileURLToPath(new URL(`../../../conformance/npt/${name}.json`, import.meta.url));

function report(flags: FaultFlags, revision = 'linux-6.12') {
  return describedReport({ flags, vm: null, traced: null, revision: revisionByName(revision), compare: null });
}

function explain(flags: FaultFlags, revision?: string): Explanation {
  return report(flags, revision).explanation!;
}

const words = (e: Explanation): string => textOf(e).join('\n').replace(/\s+/g, ' ');

const write = { 'error-code': '0x100000006' };
const snp = { 'error-code': '0x500000006', 'vm-type': 'snp' };

describe('a fault made from flags', () => {
  it('is mapped where there is a slot', () => {
    const e = explain({ ...write, gpa: '0x812345' });
    expect(e.fault).toMatchObject({ gpa: '0x812345', gfn: '0x812', entry: 'fault' });
    expect(e.before.slot).toMatchObject({ gpa: '0x800000', readonly: false });
    expect(e.left.ret).toBeNull();
    expect(e.result.verdict).toBe('RET_PF_FIXED');
    expect(e.stages.at(-1)).toMatchObject({ name: 'map', kvmFunction: 'kvm_tdp_mmu_map' });
    expect(e.notReached).toEqual([]);
    expect(e.before.spte?.words).toBe('nothing is mapped');
    expect(e.after.spte?.words).toMatch(/^4K page RWX, host frame 0x/);
    expect(e.after.stats).toMatchObject({ pf_taken: 1, pf_fixed: 1 });
    expect(e.code).toMatchObject({ value: '0x100000006', kind: 'npf', impossible: null, notes: [] });
    expect(e.code.bits.map((b) => b.name)).toEqual(['W', 'U', 'GUEST_FINAL']);
  });

  it('leaves with a memory fault where attribute and slot do not fit, and says what to do and what happens otherwise', () => {
    const e = explain({ ...write, attribute: 'private', 'vm-type': 'sw-protected' });
    expect(e.left).toMatchObject({ ret: -1, errno: 'EFAULT', run: { exit_name: 'MEMORY_FAULT', flags: '0x8' } });
    expect(e.stages.at(-1)).toMatchObject({ name: 'fault-in-private', verdict: 'EFAULT' });
    expect(e.notReached[0]).toBe('fault-in-shared');
    expect(e.notReached.at(-1)).toBe('map');
    expect(words(e)).toContain('no guest_memfd: bind one');
    expect(words(e)).toContain('PRIVATE_ACCESS: added by KVM on entry');
    expect(e.advice.otherwise).toMatch(/private already: a VMM that answers .* by converting "to match" .* loops/);
  });

  it('maps private memory from guest_memfd', () => {
    const e = explain({ ...write, slot: 'gmem', attribute: 'private', 'vm-type': 'sw-protected' });
    expect(e.result.verdict).toBe('RET_PF_FIXED');
  });

  it('is to be converted where the guest means what the attribute does not say', () => {
    const e = explain({ ...snp, slot: 'gmem' });
    expect(e.stages.at(-1)).toMatchObject({ name: 'private-mismatch', verdict: 'EFAULT' });
    expect(e.advice.vmm).toMatch(/meant private memory and the attribute says shared: convert the range/);
    expect(e.advice.vmm).not.toContain('not enough');
    expect(e.advice.otherwise).toMatch(/takes the same fault .* for ever, and the guest makes no progress/);
    expect(explain({ ...snp, slot: 'rw' }).advice.vmm).toContain('Converting is not enough here: the slot has no');
    const shared = explain({ 'error-code': '0x100000004', 'vm-type': 'snp', slot: 'none', attribute: 'private' });
    expect(shared.advice.vmm).toContain('once it is shared, the access is MMIO');
  });

  it('never emulates on private memory: converting to match would loop', () => {
    const e = explain({ ...snp, 'no-mmio-caching': true, slot: 'none', attribute: 'private' });
    expect(e.advice.vmm).toContain('private memory is never MMIO');
    const apic = explain({ ...write, 'vm-type': 'sw-protected', slot: 'apic-inhibited', attribute: 'private' });
    expect(apic.stages.at(-1)).toMatchObject({ name: 'private-emulation', verdict: 'EFAULT' });
    expect(apic.advice.vmm).toMatch(/^apic-access-page asked for emulation: .* KVM never emulates/);
    expect(apic.advice.otherwise).toContain('converting "to match" changes nothing, and loops');
    expect(apic.after.log.map((l) => l.where)).toEqual(['kvm_mmu_do_page_fault']);
  });

  it('says of a bare EFAULT that kvm_run knows nothing', () => {
    const e = explain({ ...write, backing: 'absent' });
    expect(e.left).toMatchObject({ ret: -1, errno: 'EFAULT', run: { exit_name: 'UNKNOWN' } });
    expect(e.advice.vmm).toMatch(/the host address behind the slot gives no memory .*exit_reason is not/);
    const rsvd = explain({ 'error-code': '0x50000000f', 'vm-type': 'snp', slot: 'none', spte: 'mmio' });
    expect(rsvd.stages).toMatchObject([{ name: 'reserved-bits', verdict: 'EFAULT' }]);
    expect(rsvd.after.log).toMatchObject([{ kind: 'warn' }]);
    expect(rsvd.advice.vmm).toMatch(/^a private access hit an MMIO SPTE/);
  });

  it('says of a retry what it waits for', () => {
    const race = explain({ ...write, invalidation: 'done-at=error-pfn' });
    expect(race.stages.find((s) => s.name === 'invalidation')?.reason).toContain('another thread invalidates');
    expect(race.stages.at(-1)).toMatchObject({ name: 'invalidation-recheck', verdict: 'RET_PF_RETRY' });
    expect(race.after.invalidateSeq).toBe(race.before.invalidateSeq + 1);
    expect(race.left.words).toEqual(['not at all: the guest is entered again and repeats the access']);
    expect(race.advice.otherwise).toContain('until no invalidation of the gfn is in progress');
    expect(explain({ ...write, slot: 'invalid' }).advice.vmm).toContain('the thread that deletes or moves the slot');
    expect(explain({ ...write, backing: 'poisoned' }).after.signals).toEqual(['SIGBUS MCEERR_AR']);
    expect(explain({ ...write, backing: 'would-block' }).after.asyncPf).toMatch(/^queued/);
  });

  it('goes to the emulator where there is no slot', () => {
    const e = explain({ 'error-code': '0x100000004', slot: 'none' });
    expect(e.left.words).toEqual(['to the instruction emulator (EMULTYPE_PF)']);
    expect(e.after.mmioCache).toEqual({ gfn: '0x800', generation: expect.any(Number) });
    expect(e.advice.otherwise).toContain('a load that is not answered completes with whatever is in kvm_run.mmio.data');
  });

  it('can be one that KVM makes itself', () => {
    const mapped = explain({ entry: 'pre-fault' });
    expect(mapped.left.words).toEqual(['KVM_PRE_FAULT_MEMORY returned 0']);
    expect(textOf(mapped)[0]).toMatch(/^KVM_PRE_FAULT_MEMORY asked for gpa/);
    expect(explain({ entry: 'pre-fault', slot: 'none' }).left.errno).toBe('ENOENT');
    const unknown = explain({ entry: 'pre-fault' }, 'linux-6.9');
    expect(unknown.result.words).toBe('linux-6.9 has no KVM_PRE_FAULT_MEMORY');
    expect(explain({ entry: 'page-ready' }).fault.prefetch).toBe(true);
  });

  it('is of the revision that was asked for', () => {
    const before = explain({ ...snp, slot: 'invalid' }, 'linux-6.9');
    expect(before.revision).toBe('linux-6.9');
    expect(before.stages.at(-1)).toMatchObject({ name: 'invalid-slot', verdict: 'RET_PF_RETRY' });
    expect(before.code.seen).toBe('0x6');
    expect(before.code.changes.join()).toContain('bits 63:32 (0x5) do not reach the stages of linux-6.9');
    const after = explain({ ...snp, slot: 'invalid' });
    expect(after.stages.at(-1)).toMatchObject({ name: 'private-mismatch', verdict: 'EFAULT' });
  });

  it('with a code that hardware cannot produce is explained anyway', () => {
    const e = explain({ 'error-code': '0x2000100000006' });
    expect(e.code.impossible).toMatch(/bits 48 and 49 are KVM's own/);
    expect(e.code.changes.join()).toContain('PRIVATE_ACCESS: dropped by KVM');
    expect(e.after.log).toMatchObject([{ kind: 'warn' }]);
    expect(e.result.verdict).toBe('RET_PF_FIXED');
    expect(words(e)).toContain('Explained anyway');
  });

  it('is the same every time', () => {
    expect(explain(write)).toEqual(explain(write));
  });

  it.each([
    ['a private default VM', { ...write, attribute: 'private' }, /no VM can be in this state: only a VM type with/],
    [
      'an address that does not fit',
      { ...write, gpa: '0x20000000000' },
      /--gpa 0x20000000000: expected an address below/,
    ],
    ['one too small', { ...write, gpa: '0x1000', slot: 'none-beyond' }, /--gpa 0x1000: expected an address from/],
    ['a slot of another kind', { ...write, slot: 'rx' }, /--slot rx: expected one of none, none-beyond, rw/],
    [
      'an unknown stage',
      { ...write, invalidation: 'done-at=x' },
      /--invalidation: revision linux-6.12 has no stage x: it has/,
    ],
    [
      'a stage under mmu_lock',
      { ...write, invalidation: 'done-at=map' },
      /--invalidation: mmu_lock is held when stage map/,
    ],
    ['no number', { 'error-code': 'W' }, /--error-code W: expected/],
  ])('refuses %s', (_what, flags, message) => {
    expect(() => explain(flags)).toThrow(message);
  });
});

describe('a line of a trace', () => {
  const line = (text: string, flags: FaultFlags = {}, vm: object | null = null) =>
    describedReport({
      flags,
      vm: vm === null ? null : parseVmDescription('vm.json', JSON.stringify(vm)),
      traced: parseTraceLine(text, '--trace-line'),
      revision: revisionByName('linux-6.12'),
      compare: null,
    });
  const ram = { slots: [{ gpa: '0x0', size: '0x80000000' }] };

  it('is explained in a described VM', () => {
    const text = 'kvm_page_fault: vcpu 0 rip 0xa005 address 0x00000000d0000000 error_code 0x100000004';
    const r = line(text, {}, ram);
    expect(r.source).toMatchObject({ kind: 'trace-line', event: 'kvm_page_fault', vm: 'vm.json', assumed: [] });
    expect(r.explanation).toMatchObject({ before: { slot: null }, result: { verdict: 'RET_PF_EMULATE' } });
    const inRam = line(text.replace('d0000000', '0a000123'), {}, ram).explanation!;
    expect(inRam.fault.gpa).toBe('0xa000123');
    expect(inRam.before.slot).toMatchObject({ id: 0, gpa: '0x0', bytes: 0x80000000 });
    expect(inRam.result.verdict).toBe('RET_PF_FIXED');
  });

  it('says what was taken for granted', () => {
    const r = line('recorder-288 [000] ..... 8.254082: handle_mmio_page_fault: addr:0 gfn d0000 access 6');
    expect(r.source).toMatchObject({
      assumed: [
        expect.stringMatching(/^--error-code 0x10000000d: the event does not say/),
        expect.stringMatching(/^--slot none/),
        expect.stringMatching(/^--spte mmio/),
      ],
    });
    expect(r.explanation!.stages).toMatchObject([{ name: 'reserved-bits', verdict: 'RET_PF_EMULATE' }]);
    const readOnly = line(
      'fast_page_fault: vcpu 0 gva 800000 error_code P|W|U|0x100000000 sptep 00000000461811a1 old 0x1428d1825 new 1428d1825 spurious 0 fixed 0',
    );
    expect(readOnly.explanation!.stages.at(-1)).toMatchObject({ name: 'error-pfn', verdict: 'RET_PF_EMULATE' });
    expect(reportLines(readOnly).join('\n')).toContain("taken for granted: --slot ro: the line's old SPTE");
    const logged = line(
      'fast_page_fault: vcpu 0 gva 800000 error_code P|W|U|0x100000000 sptep 00000000461811a1 old 0x1428d1e65 new 1428d1e67 spurious 0 fixed 1',
    );
    expect(logged.explanation!.stages.at(-1)).toMatchObject({ name: 'fast-path', verdict: 'RET_PF_FIXED' });
  });

  it('has an exit qualification on Intel, which KVM translates', () => {
    const e = line('kvm_page_fault: vcpu 0 rip 0xfff0 address 0x812000 error_code 0x182', { cpu: 'intel' })
      .explanation!;
    expect(e.code).toMatchObject({ value: '0x182', kind: 'ept', seen: '0x100000002' });
    expect(e.code.changes.join()).toContain('translates the exit qualification into error code 0x100000002');
    expect(e.fault.translation).toBe('ept');
    expect(e.result.verdict).toBe('RET_PF_FIXED');
  });

  it('takes the private ranges and the APIC page of the description', () => {
    const vm = {
      vmType: 'sw-protected',
      apicAccessPage: 'inhibited',
      slots: [{ gpa: 0, size: 0x200000, guestMemfd: true }],
      attributes: [{ gpa: 0x1000, size: 0x1000 }],
    };
    const at = (gpa: string) =>
      line(`kvm_page_fault: vcpu 0 address ${gpa} error_code 0x100000006`, {}, vm).explanation!;
    expect(at('0x1000').before.attribute).toBe('private');
    expect(at('0x2000').before.attribute).toBe('shared');
    expect(at('0xfee00300').stages.at(-1)).toMatchObject({ name: 'apic-access-page', verdict: 'RET_PF_EMULATE' });
  });

  it('refuses flags that the description says otherwise', () => {
    const text = 'kvm_page_fault: vcpu 0 address 0x1000 error_code 0x100000006';
    expect(() => line(text, { slot: 'ro' }, ram)).toThrow(
      '--slot: expected either --vm vm.json or this flag, found both',
    );
  });
});

describe('the faults of a scenario', () => {
  it('follows the MMIO path: made, then found', () => {
    const first = scenarioReport({ path: scenario('mmio-cache-evict'), step: 0 }).explanation!;
    expect(first).toMatchObject({
      fault: { gpa: '0xd0000000' },
      before: { slot: null },
      result: { verdict: 'RET_PF_EMULATE' },
    });
    expect(first.after.spte?.words).toMatch(/^MMIO: gfn 0xd0000, generation 2/);
    const third = scenarioReport({ path: scenario('mmio-cache-evict'), step: 2 });
    expect(third.source).toMatchObject({ kind: 'scenario', step: 2, fault: 0, faults: [{ gpa: '0xd0000000' }] });
    expect(third.explanation!.result.words).toMatch(/^reserved-bits: /);
    const text = reportLines(third).join('\n');
    expect(text).toContain('KVM_EXIT_MMIO');
    expect(text).toContain('RSVD without P');
    expect(third.explanation!.advice.vmm).toContain('put what the device answers into kvm_run.mmio.data');
  });

  it('names a step or a fault that is not there', () => {
    const path = scenario('mmio-cache-evict');
    expect(() => scenarioReport({ path, step: 99 })).toThrow(/--step 99: .* has steps 0 to 4/);
    expect(() => scenarioReport({ path, step: 0, fault: 99 })).toThrow(/--fault 99: step 0 has faults 0 to/);
  });
});

describe('two revisions side by side', () => {
  it('shows where the check moved', () => {
    const r = describedReport({
      flags: { ...snp, slot: 'invalid' },
      vm: null,
      traced: null,
      revision: revisionByName('linux-6.9'),
      compare: revisionByName('linux-6.12'),
    });
    const lines = reportLines(r);
    expect(lines.find((l) => l.includes('private-mismatch  '))).toMatch(
      /\* private-mismatch +\(not asked\) +\d\. EFAULT/,
    );
    expect(lines.at(-1)).toBe('  They differ in: result, left (marked *).');
    const same = describedReport({
      flags: write,
      vm: null,
      traced: null,
      revision: revisionByName('linux-6.10'),
      compare: revisionByName('linux-6.12'),
    });
    expect(reportLines(same).at(-1)).toBe('  What came of the fault is the same in both.');
  });
});
