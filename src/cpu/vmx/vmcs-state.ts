/** What of the guest's state between the VMCS and the processor blocks events (@sdm 26.4.2); state-switch-vmcs.ts moves the rest. */
import * as F from '../../arch/vmcs.ts';
import {
  GUEST_INTR_STATE_MOV_SS,
  GUEST_INTR_STATE_NMI,
  GUEST_INTR_STATE_SMI,
  GUEST_INTR_STATE_STI,
} from '../../arch/vmx-controls.ts';
import { INT_SHADOW_AT, SHADOW_STACK, SHADOW_STI } from '../state.ts';
import type { Core } from '../system/core.ts';

/** Loads the guest's state from the VMCS at word `block`. HOT */
export function loadGuest(core: Core, block: number, ept: boolean): void {
  const i32 = core.i32;
  core.code.vmcs.load(block << 2, ept ? 1 : 0);
  const state = i32[block + (F.VMCS_GUEST_INTERRUPTIBILITY_INFO >> 2)]!;
  i32[INT_SHADOW_AT >> 2] =
    (state & GUEST_INTR_STATE_MOV_SS) !== 0 ? SHADOW_STACK : (state & GUEST_INTR_STATE_STI) !== 0 ? SHADOW_STI : 0;
  core.nmiBlocked = (state & GUEST_INTR_STATE_NMI) !== 0;
}

/** Stores the guest's state; `rflags` is the image that goes with the exit. HOT */
export function storeGuest(core: Core, block: number, ept: boolean, rflags: number): void {
  const i32 = core.i32;
  core.code.vmcs.store(block << 2, ept ? 1 : 0, rflags);
  const shadow = i32[INT_SHADOW_AT >> 2]!;
  const state = block + (F.VMCS_GUEST_INTERRUPTIBILITY_INFO >> 2);
  i32[state] =
    (i32[state]! & GUEST_INTR_STATE_SMI) |
    (shadow === 0 ? 0 : (shadow & SHADOW_STACK) !== 0 ? GUEST_INTR_STATE_MOV_SS : GUEST_INTR_STATE_STI) |
    (core.nmiBlocked ? GUEST_INTR_STATE_NMI : 0);
}
