/** How the vCPU left after a fault, in words. */
import type { FaultRecord } from './fault-log.ts';

/** How the vCPU left, when it left: kvm_run in the recorded form, and what KVM_RUN returned. */
export interface LeftBy {
  readonly ret: number;
  readonly errno: string | null;
  readonly run: { readonly [field: string]: unknown } | null;
  /** The fault ended in the emulator, which was not run: the type of the emulation. */
  readonly emulated?: string;
  /** The kernel stops at a BUG(). */
  readonly bug?: true;
  /** The ioctl, when it is not KVM_RUN. */
  readonly ioctl?: string;
}

/** The guest's own tables do not allow the access: the fault is its own. */
export function guestGetsPf(fault: FaultRecord): boolean {
  const last = fault.stages.at(-1);
  return last?.name === 'guest-walk' && last.verdict === 'RET_PF_RETRY' && !fault.prefetch;
}

/** One line or more; the first says whether the guest went on. */
export function leftWords(fault: FaultRecord, left: LeftBy | null): string[] {
  if (left === null && guestGetsPf(fault)) return ['not at all: the guest gets a #PF'];
  if (left === null)
    return [
      fault.verdict === 'RET_PF_RETRY' && !fault.prefetch
        ? 'not at all: the guest is entered again and repeats the access'
        : 'not at all: the guest went on',
    ];
  if (left.bug) return ['nowhere: the kernel stops at a BUG()'];
  const run = left.run ?? {};
  const exit = `KVM_EXIT_${String(run['exit_name'] ?? 'UNKNOWN')}`;
  if (fault.resumed) return [`not by this fault: the guest went on, and later left with ${exit}`];
  if (left.emulated !== undefined) return [`to the instruction emulator (${left.emulated})`];
  const ioctl = left.ioctl ?? 'KVM_RUN';
  const returned = `${ioctl} returned ${left.ret}${left.errno === null ? '' : ` ${left.errno}`}`;
  if (left.ioctl !== undefined && left.run === null) return [returned];
  const lines = [`${returned}, ${exit}`];
  if (run['exit_name'] === 'MEMORY_FAULT') {
    const isPrivate = (BigInt(String(run['flags'])) & 8n) !== 0n;
    lines.push(
      `flags ${String(run['flags'])}${isPrivate ? ' (private)' : ''}, gpa ${String(run['gpa'])}, size ${String(run['size'])}`,
    );
  }
  return lines;
}
