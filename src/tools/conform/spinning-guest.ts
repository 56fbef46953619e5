/**
 * A guest that spins while the recorder's timer runs out is stopped anywhere in its loop: which of its instructions is next is chance
 * (conformance/README.md). Ours spins on, an instruction at a time, until it is where theirs was stopped; registers that no turn of the
 * loop shows are a difference.
 */
import type { Vcpu } from '../../kvm/api/index.ts';
import type { RecordedEvent } from './scenario.ts';

/** What stands for a second of the recorder's timer. */
export const INSTRUCTIONS_PER_SECOND = 10_000_000;
/** Of the recorder's host kernel. */
const TICKS_PER_SECOND = 250;

/** More instructions than a loop of the recordings has. */
const LOOP = 64;

/** Steps `vcpu` on until `there`; false when it is not there within a loop, or does not spin. */
export function spinUntil(vcpu: Vcpu, there: () => boolean): boolean {
  for (let n = 0; n < LOOP; n++) {
    if (there()) return true;
    if (vcpu.run({ maxInstructions: 1 }).errno !== 'EINTR') return false;
  }
  return false;
}

/** The host's ticks while the guest retired so many instructions, an exit each, are more than the events that the recorder kept. */
export function spinsPast(instructions: number, events: number): boolean {
  return (instructions / INSTRUCTIONS_PER_SECOND) * TICKS_PER_SECOND > events;
}

/** The signal that ended such a step came after the events that were kept. */
export function dropSignalExit(events: RecordedEvent[]): void {
  if (events.at(-1)?.event === 'kvm_userspace_exit') events.pop();
}
