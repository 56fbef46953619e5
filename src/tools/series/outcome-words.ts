/** An outcome of the fault machine in sentences: how the vCPU left, and what guest and VMM see of it. */
import type { Outcome, OutcomeFields } from '../fault-machine/outcome.ts';
import type { RecordedFault } from './side-recorder.ts';

/** How the vCPU left. */
export function leftWords(outcome: Outcome): string {
  const { exit, verdict } = outcome;
  if (exit?.reason === 'KVM_EXIT_MEMORY_FAULT') {
    return `KVM_RUN returns -1/${verdict}, KVM_EXIT_MEMORY_FAULT, flags ${exit.isPrivate ? 'PRIVATE' : '0 (shared)'}, size ${exit.size}`;
  }
  if (verdict === 'emulate') return `to the emulator, ${outcome.emulated}`;
  if (verdict === 'resume') return `the guest resumes, ${outcome.ret}`;
  if (verdict === 'bug') return 'the kernel stops at a BUG()';
  return `KVM_RUN returns -1/${verdict}, with no exit prepared`;
}

/** What guest and VMM see. */
export function seesWords(outcome: Outcome): string {
  const { exit, verdict, ret } = outcome;
  if (exit?.reason === 'KVM_EXIT_MEMORY_FAULT') {
    const wanted = exit.isPrivate ? 'private' : 'shared';
    return `VMM: the access was ${wanted}, and which page it was for; it converts the page or stops the guest`;
  }
  if (verdict === 'emulate') {
    return 'guest: its instruction is emulated; where nothing in KVM answers, the VMM gets KVM_EXIT_MMIO';
  }
  if (verdict === 'resume' && ret === 'RET_PF_RETRY') return 'guest: the same access faults again; VMM: nothing';
  if (verdict === 'resume') {
    if (outcome.spteAfter.includes('host frame 0')) {
      return "guest: reads whatever is in the host's frame 0, and loops when it writes; VMM: nothing";
    }
    return 'guest: the access is done again and succeeds; VMM: nothing';
  }
  return 'VMM: an errno and nothing to repair: it can only stop the guest';
}

/** What KVM keeps afterwards, and what was in the fault object, by name. */
export function outcomeFacts(outcome: Outcome, faults: readonly RecordedFault[]): Record<string, string> {
  const facts: Record<string, string> = {
    'SPTE after': outcome.spteAfter,
    'MMIO cache': outcome.mmioCache,
    statistics: statsWords(outcome.stats),
  };
  const last = faults.at(-1);
  if (last !== undefined) facts['fault->error_code'] = last.code;
  if (outcome.fields !== null) Object.assign(facts, fieldFacts(outcome.fields));
  return facts;
}

function fieldFacts(fields: OutcomeFields): Record<string, string> {
  return {
    'fault->is_private': String(fields.isPrivate),
    'fault->pfn': fields.pfn,
    'fault->hva': fields.hva,
    'fault->slot': fields.hasSlot ? 'the slot' : 'NULL',
    'fault->map_writable': String(fields.mapWritable),
  };
}

function statsWords(stats: Readonly<Record<string, number>>): string {
  const moved = Object.entries(stats);
  return moved.length === 0 ? 'none moved' : moved.map(([name, n]) => `${name} +${n}`).join(', ');
}
