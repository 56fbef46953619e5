/** Where a vCPU of a scene is between two steps. */
/** Where the vCPU is. From PHASE_STAGE on: before the stage of that number. */
export const PHASE_ENTER = 0;
export const PHASE_GUEST = 1;
export const PHASE_CODE = 2;
export const PHASE_BEGIN = 3;
export const PHASE_WALK = 4;
export const PHASE_INSTALL = 5;
export const PHASE_EMULATE = 6;
/** All is done, the vCPU is still in the guest with what its TLB holds. */
export const PHASE_IDLE = 7;
export const PHASE_DONE = 8;
export const PHASE_FAST_EXCHANGE = 9;
export const PHASE_FAST_DIRTY = 10;
export const PHASE_STAGE = 11;

/** The vCPU has a fault object that counts. */
export function isFaulting(phase: number): boolean {
  return phase >= PHASE_FAST_EXCHANGE || phase === PHASE_WALK || phase === PHASE_INSTALL;
}

/** ... and stands on an entry, with what it read there. */
export function hasEntry(phase: number): boolean {
  return phase === PHASE_INSTALL || phase === PHASE_FAST_EXCHANGE || phase === PHASE_FAST_DIRTY;
}
