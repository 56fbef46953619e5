/** What KVM did about a fault, in a few words. */
import * as D from './fault-follower.ts';

const SIZES = ['', '4K', '2M', '1G', '512G', '256T'] as const;
const MMIO = D.DID_MAKE_MMIO | D.DID_FIND_MMIO | D.DID_FIND_STALE;

/** @param level of the entry that was made, 0 for none */
export function outcomeOf(did: number, level: number): string {
  if ((did & D.DID_FAULT_EXIT) !== 0) return 'left as memory fault';
  if ((did & D.DID_FAIL_EMULATION) !== 0) return 'emulation failed';
  if ((did & D.DID_LEAVE_MMIO) !== 0) return 'left as MMIO';
  if ((did & D.DID_INJECT) !== 0) return 'exception injected';
  if ((did & D.DID_EMULATE) !== 0) return (did & MMIO) === 0 ? 'emulated' : 'MMIO in the kernel';
  if ((did & D.DID_FIX_FAST) !== 0) return 'fixed without the lock';
  if ((did & D.DID_MAP) !== 0) return `mapped ${SIZES[level] ?? `level ${level}`}`;
  if ((did & D.DID_FIND_SPURIOUS) !== 0) return 'spurious';
  if ((did & D.DID_WAIT) !== 0) return 'page not present: waits';
  if ((did & D.DID_EXIT) !== 0) return 'left to userspace';
  if ((did & MMIO) !== 0) return 'MMIO';
  return 'nothing seen';
}

/** The guest got on because of what was done, or userspace has to act: the same fault again is no loop of KVM's. */
export function getsOn(did: number): boolean {
  return (did & (D.DID_EMULATE | D.DID_LEAVE_MMIO | D.DID_INJECT | D.DID_EXIT)) !== 0;
}
