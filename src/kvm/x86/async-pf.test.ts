import { expect, test } from 'vitest';
import { makeGuest, mov, type TestGuest } from './guest.testing.ts';

const STI = 0xfb;
const HLT = 0xf4;
const PAGE = 0x100000;
/** mov eax,[PAGE] */
const LOAD = [0xa1, 0, 0, 0x10, 0];
const DATA = Uint8Array.of(0x78, 0x56, 0x34, 0x12);

/** A guest whose page at PAGE somebody in userspace has to provide. */
function makeWatched(code: readonly number[], irqchip: boolean): TestGuest {
  const guest = makeGuest(code, { irqchip });
  guest.kvm.mm.userfaultRegister(guest.hva + PAGE, 0x1000, 'block');
  return guest;
}

test('with interrupts on, the vCPU halts while a page is missing, and goes on when it is there', () => {
  const { kvm, vcpu, hva, texts } = makeWatched([STI, 0x90, ...LOAD, 0xeb, 0xfe], true);
  expect(vcpu.run({ maxInstructions: 10_000 }).errno).toBe('EINTR');
  expect(kvm.mm.userfaults.read()).toEqual([{ event: 0x12, flags: 1, address: hva + PAGE }]);
  expect(vcpu.getRegs().rax).toBe(0n);
  expect(texts('kvm_async_pf_ready')).toEqual([]);
  kvm.mm.userfaultCopy(hva + PAGE, DATA);
  vcpu.run({ maxInstructions: 10_000 });
  expect(vcpu.getRegs().rax).toBe(0x12345678n);
  expect(texts('kvm_try_async_get_page')).toHaveLength(1);
  expect(texts('kvm_async_pf_ready')).toHaveLength(1);
});

test('without an APIC, or with interrupts off, the vCPU waits inside the fault', () => {
  for (const irqchip of [false, true]) {
    const { kvm, vcpu, hva, texts } = makeWatched([...LOAD, HLT], irqchip);
    expect(vcpu.run().errno).toBe('EINTR');
    // The signal took the waiter and its message away.
    expect(kvm.mm.userfaults.read()).toEqual([]);
    kvm.mm.userfaultCopy(hva + PAGE, DATA);
    vcpu.run({ maxExits: 50 });
    expect(vcpu.getRegs().rax).toBe(0x12345678n);
    expect(texts('kvm_try_async_get_page')).toEqual([]);
  }
});

test('whoever acts while KVM_RUN sleeps ends the sleep', () => {
  const { kvm, vcpu, hva } = makeWatched([...LOAD, ...mov(3, 7), HLT], false);
  let asked = 0;
  kvm.mm.userfaults.whileAsleep = (interruptible) => {
    asked++;
    expect(interruptible).toBe(true);
    return kvm.mm.userfaultCopy(hva + PAGE, DATA) === 0;
  };
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs()).toMatchObject({ rax: 0x12345678n, rbx: 7n });
  expect(asked).toBe(1);
});
