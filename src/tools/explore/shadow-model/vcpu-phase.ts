/** Places where a vCPU under shadow paging can stop. */

/** Where the vCPU is. From PHASE_STAGE on: before the stage of that number. */
export const PHASE_ENTER = 0;
export const PHASE_GUEST = 1;
export const PHASE_CODE = 2;
export const PHASE_BEGIN = 3;
/** The emulator does the access: its write, and what it tells the MMU of it. */
export const PHASE_EMULATE = 4;
export const PHASE_TRACK = 5;
export const PHASE_INVLPG = 6;
export const PHASE_CR3 = 7;
/** All is done, the vCPU is still in the guest with what its TLB holds. */
export const PHASE_IDLE = 8;
export const PHASE_DONE = 9;
export const PHASE_STAGE = 10;

/** What the next step is called, where it is no stage. */
export const PHASE_NAMES = [
  'enter the guest',
  '',
  'error code',
  'fault object',
  'emulate: write',
  'emulate: tell the MMU of the write',
  'invlpg',
  'load CR3',
  'leave the guest',
  '',
] as const;
