/** How a run can end, and the exit status that says so. What a guest chooses itself is odd: (value << 1) | 1. */

export type EndKind =
  | 'debug-exit'
  | 'poweroff'
  | 'halt'
  | 'reset'
  | 'shutdown'
  | 'memory-fault'
  | 'internal-error'
  | 'timeout'
  | 'max-instructions'
  | 'interrupted';

export interface EndState {
  readonly kind: EndKind;
  /** Exit status of the process. */
  readonly status: number;
  /** One line: what happened, with the address or number that matters. */
  readonly detail: string;
}

/** Exit status of every end but debug-exit, and what it means. */
export const END_STATES: readonly { readonly kind: EndKind; readonly status: number; readonly meaning: string }[] = [
  { kind: 'poweroff', status: 0, meaning: 'the guest powered the machine off' },
  { kind: 'halt', status: 4, meaning: 'the guest halted with nothing left that could wake it' },
  { kind: 'reset', status: 6, meaning: 'the guest asked for a reset' },
  { kind: 'shutdown', status: 8, meaning: 'triple fault' },
  { kind: 'memory-fault', status: 10, meaning: 'a memory fault that the policy does not resolve, or that came back' },
  {
    kind: 'internal-error',
    status: 12,
    meaning: 'KVM could not go on: emulation failure, bad host address, failed entry',
  },
  { kind: 'timeout', status: 14, meaning: 'the time was up' },
  { kind: 'max-instructions', status: 16, meaning: 'the guest retired as many instructions as it was given' },
  { kind: 'interrupted', status: 18, meaning: 'the user stopped the run' },
];

/** The end state of a kind with a fixed status. */
export function endState(kind: Exclude<EndKind, 'debug-exit'>, detail: string): EndState {
  return { kind, status: END_STATES.find((s) => s.kind === kind)!.status, detail };
}

/** A write of `value` to the isa-debug-exit port; the status is what a process can have, 8 bits. */
export function debugExit(value: number): EndState {
  return {
    kind: 'debug-exit',
    status: ((value << 1) | 1) & 0xff,
    detail: `the guest wrote 0x${(value >>> 0).toString(16)} to isa-debug-exit`,
  };
}
