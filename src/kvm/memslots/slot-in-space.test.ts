import { describe, expect, it } from 'vitest';
import { bareVm } from '../bare-vm.testing.ts';
import { KVM_X86_SW_PROTECTED_VM } from '../vm-type.ts';
import { Memslot, slotInSpace } from './memslots.ts';

describe('the slot that system management mode finds in a VM with one address space', () => {
  it('is the one that the vCPU remembers, while the generation is that of the empty space', () => {
    const vm = bareVm({ type: KVM_X86_SW_PROTECTED_VM });
    const set = vm.slots.sets[0]!;
    const slot = new Memslot(0, 0, 0x100, 1, 0, 0x10000);
    set.replace(null, slot);
    set.generation = 1;
    expect([slotInSpace(vm, 0, 0x100), slotInSpace(vm, 1, 0x100), slotInSpace(vm, 1, 0x101)]).toEqual([
      slot,
      slot,
      null,
    ]);
    set.generation = 2;
    expect([slotInSpace(vm, 0, 0x100), slotInSpace(vm, 1, 0x100)]).toEqual([slot, null]);
  });
});
