import { describe, expect, it } from 'vitest';
import type { VcpuExit } from '../api/index.ts';
import { CODE, makeGuest, mov, type TestGuest } from '../x86/guest.testing.ts';

const vendors = ['silicon-epyc', 'silicon-skylake'] as const;
const HLT = 0xf4;
const KVM_MEM_LOG_DIRTY_PAGES = 1;
const APIC_BASE = 0xfee00000;

const intel = (code: readonly number[], irqchip = false): TestGuest =>
  makeGuest(code, { hardware: 'silicon-skylake', irqchip });

/** Runs until HLT or for ten exits; reads get ones. */
function exits(g: TestGuest): (VcpuExit | string)[] {
  const all: (VcpuExit | string)[] = [];
  for (let i = 0; i < 10; i++) {
    const { exit, errno } = g.vcpu.run({ maxExits: 100 });
    all.push(exit === null ? String(errno) : { ...exit });
    if (exit?.reason !== 'io' && exit?.reason !== 'mmio') break;
    if (exit.reason === 'mmio' && !exit.isWrite) exit.data.fill(0x11);
  }
  return all;
}

describe('a guest sees the same under both vendors:', () => {
  it.each([
    ['ports', [...mov(0, 0x41), 0xe6, 0x80, 0xe4, 0x60, 0x89, 0xc3, HLT]],
    ['MMIO', [...mov(3, 0x10000000), 0x8b, 0x0b, 0x89, 0x0b, HLT]],
    ['CPUID of KVM', [...mov(0, 0x40000000), 0x0f, 0xa2, HLT]],
    ['MSRs', [...mov(1, 0x174), ...mov(0, 0x10), 0x31, 0xd2, 0x0f, 0x30, 0x31, 0xc0, 0x0f, 0x32, 0x89, 0xc3, HLT]],
    ['an MSR that is not there', [...mov(1, 0x5000), 0x0f, 0x32, HLT]],
    ['#UD', [0x0f, 0x0b, HLT]],
    ['INT 3', [0xcc, HLT]],
    ['INT 8 through its gate', [0xcd, 0x08, HLT]],
    ['#DE', [0x31, 0xc9, 0xf7, 0xf1, HLT]],
    ['CR0 and CR4', [0x0f, 0x20, 0xc0, 0x0c, 8, 0x0f, 0x22, 0xc0, 0x0f, 0x20, 0xc3, 0x0f, 0x20, 0xe1, HLT]],
    ['a reserved bit of CR4', [...mov(0, 1 << 30), 0x0f, 0x22, 0xe0, HLT]],
    ['CR8 as MOV has it', [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x89, 0xc3, HLT]],
    ['debug registers', [...mov(0, 0x1234), 0x0f, 0x23, 0xc0, 0x0f, 0x21, 0xc3, 0x0f, 0x21, 0xf1, HLT]],
    ['LMSW and SMSW', [0x0f, 0x01, 0xe0, 0x0c, 2, 0x0f, 0x01, 0xf0, 0x0f, 0x01, 0xe3, HLT]],
    ['OUTSB', [...mov(6, CODE), ...mov(2, 0x70), ...mov(1, 3), 0xf3, 0x6e, HLT]],
    ['the single step', [0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, HLT]],
  ])('%s', (_, code) => {
    const seen = vendors.map((hardware) => {
      const g = makeGuest(code, { hardware });
      const all = exits(g);
      return { all, regs: { ...g.vcpu.getRegs(), rflags: g.vcpu.getRegs().rflags & 0xffffn } };
    });
    expect(seen[1]).toEqual(seen[0]);
  });
});

describe('what Intel does otherwise', () => {
  it('a triple fault leaves the registers alone', () => {
    const g = intel([...mov(0, 7), 0x0f, 0x01, 0x1d, 0, 0x70, 0, 0, 0x0f, 0x0b]);
    expect(g.vcpu.run().exit?.reason).toBe('shutdown');
    expect(g.vcpu.getRegs()).toMatchObject({ rax: 7n, rip: BigInt(CODE + 12) });
  });

  it('the hypercall instruction is VMCALL', () => {
    const g = intel([...mov(0, 5), 0x0f, 0x01, 0xd9, HLT]);
    expect(g.vcpu.run().exit?.reason).toBe('hlt');
    expect(g.peek(CODE + 5, 3)).toEqual([0x0f, 0x01, 0xc1]);
  });

  it('an MMIO access while an event is delivered is an internal error', () => {
    const g = intel([...mov(4, 0x10000100), ...mov(3, 0x10000000), 0x8b, 0x03, 0xcd, 0x03, HLT]);
    g.vcpu.run();
    g.vcpu.run();
    const { exit } = g.vcpu.run();
    expect(exit).toMatchObject({ reason: 'internal-error' });
  });
});

describe('INVPCID', () => {
  const DESCRIPTOR = 0x6070;
  // invpcid edx, [ebx + 8 * ecx - 16], with the types 0 to 4
  const invpcid = [0x66, 0x0f, 0x38, 0x82, 0x54, 0xcb, 0xf0];
  const code = [
    ...mov(3, 0x6000),
    ...mov(1, 0x10),
    ...mov(2, 0),
    ...Array(5)
      .fill([...invpcid, 0x42])
      .flat(),
  ];

  it.each([
    ['EPT', {}, 0],
    ['shadow paging, where it exits', { params: { ept: false } }, 5],
  ])('reads its descriptor, and is #GP for a type that is not there: %s', (_, options, exited) => {
    const g = makeGuest(code, { hardware: 'silicon-skylake', ...options });
    g.poke(DESCRIPTOR - 0x70, Array(0x100).fill(0xff));
    g.poke(DESCRIPTOR, [...Array(9).fill(0), 0x30, 0, 0, 0, 0, 0, 0]);
    expect(g.vcpu.run({ maxExits: 100 }).exit?.reason).toBe('hlt');
    expect(g.vcpu.getRegs()).toMatchObject({ rdx: 4n, rsi: 13n });
    const reasons = g.events.filter((e) => e.event === 'kvm_exit').map((e) => (e.fields as { reason: string }).reason);
    expect(reasons.filter((r) => r === 'INVPCID')).toHaveLength(exited);
  });

  it('that exits is #GP for a bad identifier, and #PF where no descriptor is', () => {
    const bad = makeGuest(code, { hardware: 'silicon-skylake', params: { ept: false } });
    bad.poke(DESCRIPTOR + 2, [1]);
    bad.vcpu.run({ maxExits: 100 });
    expect(bad.vcpu.getRegs()).toMatchObject({ rdx: 0n, rsi: 13n });
    // A page table that has the first 4 MiB, and the descriptor behind them.
    const DIRECTORY = 0x9000;
    const load = [...mov(0, DIRECTORY), 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xe0, 0x0c, 0x10, 0x0f, 0x22, 0xe0];
    const enable = [0x0f, 0x20, 0xc0, 0x0d, 0, 0, 0, 0x80, 0x0f, 0x22, 0xc0];
    const paged = makeGuest([...load, ...enable, ...mov(3, 0x400010), ...mov(1, 0), ...mov(2, 0), ...invpcid], {
      hardware: 'silicon-skylake',
      params: { ept: false },
    });
    paged.poke(DIRECTORY, [0x83, 0, 0, 0]);
    paged.vcpu.run({ maxExits: 100 });
    expect(paged.vcpu.getRegs()).toMatchObject({ rsi: 14n });
    expect(paged.vcpu.getSregs().cr2).toBe(0x400000n);
  });
});

describe('the log of modified pages', () => {
  it('marks what was written, without a fault', () => {
    const write = [0xc6, 0x05, 0, 0x60, 0, 0, 1, HLT];
    const g = intel([...write, ...write]);
    g.vcpu.run();
    const region = { slot: 0, guestPhysAddr: 0, memorySize: 0x200000, userspaceAddr: g.hva };
    g.vm.setUserMemoryRegion({ ...region, flags: KVM_MEM_LOG_DIRTY_PAGES });
    const faults = g.vcpu.stats()['pf_taken'];
    g.vcpu.run();
    expect(g.vcpu.stats()['pf_taken']).toBe(faults);
    expect(g.vm.getDirtyLog(0)[0]! & (1 << 6)).not.toBe(0);
    expect(g.vm.getDirtyLog(0)[0]).toBe(0);
  });

  it('takes part in the size of a dirty ring', () => {
    const g = intel([HLT]);
    const other = g.kvm.createVm();
    const KVM_CAP_DIRTY_LOG_RING = 192;
    expect(() => other.enableCap(KVM_CAP_DIRTY_LOG_RING, 0, [0x1000n])).toThrow(/EINVAL/);
    expect(other.enableCap(KVM_CAP_DIRTY_LOG_RING, 0, [0x10000n])).toBe(0);
  });
});

describe('APIC virtualization', () => {
  it('reads of the version need no exit once the page is mapped, writes are emulated', () => {
    const read = [0x8b, 0x0b];
    const g = intel(
      [
        ...mov(3, APIC_BASE + 0x30),
        ...read,
        ...read,
        0xc7,
        0x83,
        0xc0,
        0,
        0,
        0,
        0xff,
        1,
        0,
        0,
        0x8b,
        0x93,
        0xc0,
        0,
        0,
        0,
        HLT,
      ],
      true,
    );
    g.vcpu.run({ maxExits: 100 });
    expect(g.vcpu.getRegs()).toMatchObject({ rcx: 0x50014n, rdx: 0x1ffn });
    const reasons = g.events.filter((e) => e.event === 'kvm_exit').map((e) => (e.fields as { reason: string }).reason);
    expect(reasons.filter((r) => r === 'APIC_ACCESS')).toHaveLength(1);
  });

  it('a slot of userspace at its address keeps vCPUs from being made', () => {
    const g = intel([HLT]);
    const vm = g.kvm.createVm();
    vm.createIrqchip();
    vm.setUserMemoryRegion({ slot: 1, guestPhysAddr: APIC_BASE, memorySize: 4096, userspaceAddr: g.hva });
    expect(() => vm.createVcpu(0)).toThrow(/EEXIST/);
  });
});

it('two vCPUs keep their MSRs and segments apart', () => {
  const LSTAR = 0xc0000082;
  const g = intel([HLT]);
  const other = g.vm.createVcpu(1);
  g.vcpu.setMsrs([{ index: LSTAR, data: 1n }]);
  other.setMsrs([{ index: LSTAR, data: 2n }]);
  g.vcpu.run();
  const read = [g.vcpu, other].map((vcpu) => {
    const entries = [{ index: LSTAR, data: 0n }];
    vcpu.getMsrs(entries);
    return entries[0]!.data;
  });
  expect(read).toEqual([1n, 2n]);
  expect(g.vcpu.getSregs().cs.base).toBe(0n);
  expect(other.getSregs().cs.base).toBe(0xffff0000n);
});
