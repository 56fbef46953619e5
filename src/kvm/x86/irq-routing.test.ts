import { expect, test } from 'vitest';
import { makeGuest } from './guest.testing.ts';
import { defaultRouting, PIT_SOURCE, setIrq } from './irq-routing.ts';
import { APIC_IRR, APIC_SPIV, lapicReg, lapicSetEoi, lapicSetReg } from './lapic.ts';

const MASKED = 1 << 16;
const LEVEL = 1 << 15;
const REMOTE_IRR = 1 << 14;

function machine() {
  const guest = makeGuest([0xf4], { irqchip: true });
  const apic = guest.vm.state.vcpus[0]!.x86.lapic!;
  lapicSetReg(apic, APIC_SPIV, 0x1ff);
  const window = new Uint8Array(4);
  const write = (register: number, value: number): void => {
    const ioapic = guest.vm.state.x86.ioapic!;
    new DataView(window.buffer).setUint32(0, register, true);
    ioapic.write(guest.vcpu.state, 0xfec0_0000, 4, window, 0);
    new DataView(window.buffer).setUint32(0, value, true);
    ioapic.write(guest.vcpu.state, 0xfec0_0010, 4, window, 0);
  };
  /** Vector 0x20 + pin waits in IRR. */
  const waits = (vector: number): boolean =>
    (lapicReg(apic, APIC_IRR + (vector >> 5) * 16) & (1 << (vector & 31))) !== 0;
  const take = (vector: number): void => {
    guest.vcpu.state.x86.lapic!.regs[(APIC_IRR + (vector >> 5) * 16) >> 2]! &= ~(1 << (vector & 31));
    guest.vcpu.state.x86.lapic!.regs[(0x100 + (vector >> 5) * 16) >> 2]! |= 1 << (vector & 31);
  };
  return { ...guest, apic, write, waits, take };
}

test('a wire ends where routing says: by default at the pin of its number', () => {
  const { vm, write, waits } = machine();
  write(0x10, 0x30);
  write(0x14, 0x32);
  vm.irqLine(0, true);
  expect(waits(0x30)).toBe(true);
  expect(vm.getPic(0).irr & 1).toBe(1);
  vm.setGsiRouting([{ gsi: 0, type: 'irqchip', chip: 'ioapic', pin: 2 }]);
  vm.irqLine(0, false);
  vm.irqLine(0, true);
  expect(waits(0x32)).toBe(true);
  expect(() => vm.irqLine(9, true)).toThrow(/ENXIO/);
  expect(() => vm.setGsiRouting([{ gsi: 0, type: 'irqchip', chip: 'pic', pin: 16 }])).toThrow(/EINVAL/);
  expect(() => makeGuest([0xf4]).vm.setGsiRouting(defaultRouting())).toThrow(/ENXIO/);
});

test('a wire can be a message, and a message needs no wire', () => {
  const { vm, waits } = machine();
  vm.setGsiRouting([{ gsi: 30, type: 'msi', address: 0xfee0_0000, data: 0x44 }]);
  vm.irqLine(30, true);
  expect(waits(0x44)).toBe(true);
  expect(vm.signalMsi(0xfee0_0000, 0x45)).toBe(1);
  expect(vm.signalMsi(0xfee0_7000, 0x46)).toBe(0);
  expect([waits(0x45), waits(0x46)]).toEqual([true, false]);
});

test('a level stays until everybody has let go, and comes back after EOI while it is high', () => {
  const { vm, apic, write, waits, take } = machine();
  write(0x10 + 2 * 5, LEVEL | 0x55);
  vm.irqLine(5, true);
  setIrq(vm.state, PIT_SOURCE, 5, true);
  expect(waits(0x55)).toBe(true);
  expect(vm.getIoapic().redirection[10]! & REMOTE_IRR).toBe(REMOTE_IRR);
  take(0x55);
  vm.irqLine(5, false);
  lapicSetEoi(apic);
  expect(waits(0x55)).toBe(true);
  take(0x55);
  setIrq(vm.state, PIT_SOURCE, 5, false);
  lapicSetEoi(apic);
  expect(waits(0x55)).toBe(false);
  expect(vm.getIoapic().redirection[10]! & REMOTE_IRR).toBe(0);
});

test('an edge while masked is lost, a level is not; an entry that turns to edge forgets its EOI', () => {
  const { vm, write, waits } = machine();
  write(0x10 + 2 * 6, MASKED | 0x56);
  write(0x10 + 2 * 7, MASKED | LEVEL | 0x57);
  vm.irqLine(6, true);
  vm.irqLine(7, true);
  write(0x10 + 2 * 6, 0x56);
  write(0x10 + 2 * 7, LEVEL | 0x57);
  expect([waits(0x56), waits(0x57)]).toEqual([false, true]);
  write(0x10 + 2 * 7, MASKED | 0x57);
  expect(vm.getIoapic().redirection[14]! & REMOTE_IRR).toBe(0);
});

test('KVM_SET_IRQCHIP of the I/O APIC: lines that are high interrupt', () => {
  const { vm, write, waits } = machine();
  write(0x10 + 2 * 4, LEVEL | MASKED | 0x54);
  const state = vm.getIoapic();
  state.redirection[8] = LEVEL | 0x54;
  vm.setIoapic({ ...state, irr: 1 << 4 });
  expect(waits(0x54)).toBe(true);
});

test('the PIC: rotation, special fully nested slave, poll', () => {
  const { vm, vcpu } = machine();
  const pic = vm.state.x86.pic!;
  const one = new Uint8Array(1);
  const out = (port: number, ...values: number[]): void => {
    for (const v of values) {
      one[0] = v;
      pic.write(vcpu.state, port, 1, one, 0);
    }
  };
  const input = (port: number): number => {
    pic.read(vcpu.state, port, 1, one, 0);
    return one[0]!;
  };
  for (const [port, base] of [
    [0x20, 0x20],
    [0xa0, 0x28],
  ] as const) {
    out(port, 0x11);
    out(port + 1, base, port === 0x20 ? 4 : 2, 0x11, 0);
  }
  vm.irqLine(9, true);
  expect(pic.readIrq(vm.state)).toBe(0x29);
  vm.irqLine(8, true);
  // Fully nested specially: the slave's higher line interrupts its lower one.
  expect(pic.readIrq(vm.state)).toBe(0x28);
  out(0xa0, 0x20, 0x20);
  out(0x20, 0x20);
  vm.irqLine(3, true);
  vm.irqLine(4, true);
  expect(pic.readIrq(vm.state)).toBe(0x23);
  out(0x20, 0xa0);
  expect(pic.readIrq(vm.state)).toBe(0x24);
  out(0x20, 0x20);
  vm.irqLine(5, true);
  out(0x20, 0x0c);
  expect(input(0x20)).toBe(0x85);
  out(0x20, 0x0c);
  expect(input(0x20)).toBe(7);
});
