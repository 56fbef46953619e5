/** How a fault leaves, as userspace and the guest see it, in one phrase. */
import type { Outcome } from '../fault-machine/outcome.ts';

/** `memory-fault exit (private), EFAULT`, `the guest resumes`, `the instruction is emulated`. */
export function leavingText(outcome: Outcome): string {
  const parts = [verdictText(outcome), ...outcome.signals.map((s) => `signal ${s}`)];
  return parts.join(', ');
}

function verdictText({ verdict, exit }: Outcome): string {
  if (verdict === 'resume') return 'the guest resumes';
  if (verdict === 'emulate') return 'the instruction is emulated';
  if (verdict === 'mapped') return 'the page is mapped';
  if (verdict === 'bug') return 'the kernel stops at a BUG()';
  const errno = verdict === 'userspace' ? '' : `, ${verdict}`;
  if (exit === null) return verdict === 'userspace' ? 'exit to userspace' : `bare ${verdict}, no exit`;
  if (exit.reason !== 'KVM_EXIT_MEMORY_FAULT') return `${exit.reason}${errno}`;
  const where = exit.page === 'the faulting page' && exit.size === 4096 ? '' : `, ${exit.page}, ${exit.size} bytes`;
  return `memory-fault exit (${exit.isPrivate ? 'private' : 'shared'}${where})${errno}`;
}
