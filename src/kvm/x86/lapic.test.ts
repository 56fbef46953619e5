import { expect, test } from 'vitest';
import { makeGuest, mov } from './guest.testing.ts';

const HLT = 0xf4;
const STI = 0xfb;
const APIC = 0xfee00000;

/** mov dword [addr], value */
function store(addr: number, value: number): number[] {
  const le = (v: number): number[] => [v & 0xff, (v >>> 8) & 0xff, (v >>> 16) & 0xff, (v >>> 24) & 0xff];
  return [0xc7, 0x05, ...le(addr), ...le(value)];
}

test('the registers of the in-kernel APIC answer inside KVM', () => {
  // mov eax,[0xfee00030]; hlt
  const { vcpu, texts } = makeGuest([0xa1, 0x30, 0, 0xe0, 0xfe, ...mov(3, 1), 0xeb, 0xfe], { irqchip: true });
  vcpu.run({ maxInstructions: 10_000 });
  expect(vcpu.getRegs().rax).toBe(0x50014n);
  expect(texts('kvm_apic')).toEqual(['apic_read APIC_LVR = 0x50014']);
});

test('without an APIC in KVM its page is plain MMIO', () => {
  const { vcpu } = makeGuest([0xa1, 0x30, 0, 0xe0, 0xfe, HLT]);
  expect(vcpu.run().exit).toMatchObject({ reason: 'mmio', physAddr: 0xfee00030, len: 4 });
});

test('an interrupt to oneself waits for STI and is delivered once', () => {
  const code = [...store(APIC + 0xf0, 0x1ff), ...store(APIC + 0x300, 0x0004_001f), STI, 0x90, 0x90, 0xeb, 0xfe];
  const { vcpu, texts } = makeGuest(code, { irqchip: true });
  vcpu.run({ maxInstructions: 10_000 });
  expect(vcpu.getRegs().rsi).toBe(0x1fn);
  // Its delivery faults twice: on the interrupt descriptor table's page and on the stack's.
  expect(texts('kvm_inj_virq')).toEqual(['IRQ 0x1f', 'IRQ 0x1f [reinjected]', 'IRQ 0x1f [reinjected]']);
});

test('the timer ends a halt, at once in virtual time', () => {
  const code = [
    ...store(APIC + 0xf0, 0x1ff),
    ...store(APIC + 0x320, 0x1e),
    ...store(APIC + 0x380, 1_000_000),
    STI,
    HLT,
    0xeb,
    0xfe,
  ];
  const { vcpu, vm } = makeGuest(code, { irqchip: true });
  vcpu.run({ maxInstructions: 10_000 });
  expect(vcpu.getRegs().rsi).toBe(0x1en);
  expect(vm.state.x86.idleTime).toBeGreaterThan(1_900_000);
});

test('the I/O APIC is at 0xfec00000: version and a redirection entry', () => {
  const code = [...store(0xfec00000, 1), 0xa1, 0x10, 0, 0xc0, 0xfe, 0x89, 0xc3, 0xeb, 0xfe];
  const { vcpu } = makeGuest(code, { irqchip: true });
  vcpu.run({ maxInstructions: 10_000 });
  expect(vcpu.getRegs().rbx).toBe(0x170011n);
});

test('a second vCPU waits for INIT and SIPI', () => {
  const code = [
    ...store(APIC + 0xf0, 0x1ff),
    ...store(APIC + 0x310, 0x01000000),
    ...store(APIC + 0x300, 0x4500),
    ...store(APIC + 0x300, 0x4606),
    0xeb,
    0xfe,
  ];
  const { vm, vcpu, kvm, poke } = makeGuest(code, { irqchip: true });
  poke(0x6000, [0xb8, 0x34, 0x12, HLT]); // mov ax,0x1234; hlt
  const second = vm.createVcpu(1);
  second.setCpuid2(kvm.getSupportedCpuid());
  expect(second.getMpState()).toBe(1);
  expect(second.run()).toMatchObject({ ret: -1, errno: 'EINTR' });
  vcpu.run({ maxInstructions: 10_000 });
  expect(second.run()).toMatchObject({ ret: -1, errno: 'EAGAIN' });
  expect(second.run({ maxInstructions: 10_000 })).toMatchObject({ errno: 'EINTR' });
  expect(second.getRegs().rax).toBe(0x1234n);
});

test('a one-shot timer that becomes periodic fires again', () => {
  const code = [
    ...store(APIC + 0xf0, 0x1ff),
    ...store(APIC + 0x320, 0x1001e),
    ...store(APIC + 0x380, 500_000),
    ...store(APIC + 0x320, 0x3001e),
    0xeb,
    0xfe,
  ];
  const { vcpu, vm } = makeGuest(code, { irqchip: true });
  vcpu.run({ maxInstructions: 3_500_000 });
  const apic = vm.state.vcpus[0]!.x86.lapic!;
  expect(apic.timerPeriod).toBe(1_000_000);
  expect(apic.timer.expires).toBeGreaterThan(3_500_000);
});

test('KVM_HC_SEND_IPI: a bitmap of APIC ids, and an ICR without destination', () => {
  const send = (icr: number): number[] => {
    // ebx: bit 0, ecx: 0, edx: first id, esi: ICR; vmmcall
    return [
      ...mov(3, 1),
      ...mov(1, 0),
      ...mov(2, 0),
      0xbe,
      icr & 0xff,
      (icr >> 8) & 0xff,
      0,
      0,
      ...mov(0, 10),
      0x0f,
      0x01,
      0xd9,
    ];
  };
  const enable = store(APIC + 0xf0, 0x1ff);
  const taken = makeGuest([...enable, ...send(0x401e), 0xeb, 0xfe], { irqchip: true });
  taken.vcpu.run({ maxInstructions: 1_000 });
  expect(taken.vcpu.getRegs().rax).toBe(1n);
  const refused = makeGuest([...enable, ...send(0x481e), 0xeb, 0xfe], { irqchip: true });
  refused.vcpu.run({ maxInstructions: 1_000 });
  expect(refused.vcpu.getRegs().rax).toBe(BigInt(-22 >>> 0));
});

test('an edge that comes and goes while its pin is masked is lost', () => {
  // Pin 4: vector 0x1d, masked; the line goes up and down; unmasked.
  const select = (reg: number, value: number): number[] => [...store(0xfec00000, reg), ...store(0xfec00010, value)];
  const first = [...store(APIC + 0xf0, 0x1ff), STI, ...select(0x18, 0x1001d), 0xf4];
  const { vm, vcpu } = makeGuest([...first, ...select(0x18, 0x1d), 0xeb, 0xfe], { irqchip: true });
  vcpu.run({ maxInstructions: 1_000 });
  vm.irqLine(4, true);
  vm.irqLine(4, false);
  expect(vm.state.x86.ioapic!.irr).toBe(0);
  vm.irqLine(4, true);
  expect(vm.state.x86.ioapic!.irr).toBe(1 << 4);
});

const X2APIC = 0xc00;
const BASE_MSR = 0x1b;

test('x2APIC mode: registers are MSRs, the page is a hole, the id is fixed', () => {
  // rdmsr ID; mov eax,[0xfee00020]
  const { vcpu } = makeGuest([...mov(1, 0x802), 0x0f, 0x32, 0x89, 0xc7, 0xa1, 0x20, 0, 0xe0, 0xfe, HLT], {
    irqchip: true,
  });
  expect(vcpu.setMsrs([{ index: BASE_MSR, data: 0xfee00000n | BigInt(X2APIC) | 0x100n }])).toBe(1);
  expect(vcpu.setMsrs([{ index: 0x80d, data: 0n }])).toBe(0);
  const ldr = { index: 0x80d, data: 0n };
  expect(vcpu.getMsrs([ldr])).toBe(1);
  expect(ldr.data).toBe(1n);
  vcpu.setMpState(0);
  vcpu.run({ maxExits: 20 });
  expect(vcpu.getRegs()).toMatchObject({ rax: 0xffffffffn, rdi: 0n });
});

test('x2APIC mode: an interrupt to oneself through MSR 0x83f', () => {
  const code = [...mov(1, 0x80f), ...mov(0, 0x1ff), ...mov(2, 0), 0x0f, 0x30];
  const { vcpu } = makeGuest([...code, ...mov(1, 0x83f), ...mov(0, 20), 0x0f, 0x30, 0xfb, 0x90, HLT], {
    irqchip: true,
  });
  vcpu.setMsrs([{ index: BASE_MSR, data: 0xfee00000n | BigInt(X2APIC) | 0x100n }]);
  vcpu.run({ maxExits: 50 });
  expect(vcpu.getRegs().rsi).toBe(20n);
});

test('IA32_APIC_BASE: the guest cannot go from x2APIC straight back', () => {
  const { vcpu } = makeGuest([...mov(1, BASE_MSR), ...mov(0, 0xfee00900 | 0), ...mov(2, 0), 0x0f, 0x30, HLT], {
    irqchip: true,
  });
  vcpu.setMsrs([{ index: BASE_MSR, data: 0xfee00000n | BigInt(X2APIC) | 0x100n }]);
  vcpu.run({ maxExits: 50 });
  expect(vcpu.getRegs().rsi).toBe(13n);
  expect(vcpu.setMsrs([{ index: BASE_MSR, data: 0xfee00500n }])).toBe(0);
});

test('the TSC-deadline timer', () => {
  const code = [...store(APIC + 0xf0, 0x1ff), ...store(APIC + 0x320, 0x4001e)];
  const deadline = [...mov(1, 0x6e0), ...mov(0, 50_000_000), ...mov(2, 0), 0x0f, 0x30, 0x0f, 0x32, 0x89, 0xc7];
  const { kvm, vcpu } = makeGuest([...code, ...deadline, STI, HLT, 0xeb, 0xfe], { irqchip: true });
  const entries = kvm.getSupportedCpuid();
  for (const entry of entries) if (entry.function === 1) entry.ecx |= 1 << 24;
  vcpu.setCpuid2(entries);
  vcpu.run({ maxInstructions: 10_000 });
  expect(vcpu.getRegs()).toMatchObject({ rdi: 50_000_000n, rsi: 0x1en });
  const left = { index: 0x6e0, data: 1n };
  expect(vcpu.getMsrs([left])).toBe(1);
  expect(left.data).toBe(0n);
});
