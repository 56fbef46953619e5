/** One fault in words, from its record. */
import { decodeCode } from '../decode/decode.ts';
import type { FaultRecord, SlotView } from './fault-log.ts';

/** How the vCPU left after a fault, when it left: kvm_run in the recorded form, and what KVM_RUN returned. */
export interface LeftBy {
  readonly ret: number;
  readonly errno: string | null;
  readonly run: { readonly [field: string]: unknown } | null;
}

/** What `softkvm explain --json` prints for one fault. */
export interface Explanation {
  readonly fault: FaultRecord;
  readonly words: readonly string[];
  readonly left: LeftBy | null;
}

/** The lines of an explanation, without colour. */
export function explanationLines(fault: FaultRecord, left: LeftBy | null): string[] {
  const code = decodeCode(BigInt(fault.errorCode), BigInt(fault.errorCode) >> 31n === 0n ? 'pf' : 'npf');
  const bits = code.bits
    .filter((b) => b.set)
    .map((b) => `    bit ${String(b.bit).padStart(2)}  ${b.name}: ${b.meaning}`);
  return [
    `${fault.prefetch ? 'KVM faulted in' : 'The guest touched'} gpa ${fault.gpa} (gfn ${fault.gfn}), vCPU ${fault.vcpu}`,
    `  error code ${fault.errorCode}: ${code.words}`,
    ...bits,
    ...addedByKvm(fault),
    ...code.warnings.map((w) => `    note: ${w}`),
    `  slot       ${slotWords(fault.slot)}`,
    `  attribute  ${fault.attribute}`,
    `  SPTE       ${fault.spteBefore === null ? 'the vCPU has no page table yet' : `${fault.spteBefore.spte}, level ${fault.spteBefore.level}: ${fault.spteBefore.words}`}`,
    `  sequence   mmu_invalidate_seq ${fault.invalidateSeq}, memslot generation ${fault.memslotGeneration}`,
    '',
    ...stageLines(fault),
    '',
    ...outcomeLines(fault),
    ...leftLines(fault, left),
  ];
}

/** The synthetic flag that a software-protected VM's faults get on entry, from the gfn's attribute. */
function addedByKvm(fault: FaultRecord): string[] {
  const inCode = ((BigInt(fault.errorCode) >> 49n) & 1n) !== 0n;
  return fault.privateAccess && !inCode
    ? ["    bit 49  PRIVATE_ACCESS: added by KVM on entry, because the gfn's attribute is private"]
    : [];
}

/** What came of a fault, in one sentence. */
export function outcomeSentence(fault: FaultRecord): string {
  const last = fault.stages.at(-1);
  if (last !== undefined) return `${last.name}: ${last.reason}`;
  const mmio = fault.events.find((e) => e.event === 'check_mmio_spte');
  if (mmio?.event === 'check_mmio_spte')
    return mmio.fields.valid
      ? 'the MMIO SPTE is of the current generation: emulated at once'
      : 'the MMIO SPTE is of an old generation: faulted in again';
  if (fault.events.some((e) => e.event === 'handle_mmio_page_fault')) return 'an MMIO SPTE was hit: emulated at once';
  return 'answered before the list of stages';
}

function slotWords(slot: SlotView | null): string {
  if (slot === null) return 'none: no memory slot covers the address';
  const kinds = [
    slot.readonly ? 'read-only' : 'read-write',
    slot.dirtyLogging ? 'dirty logging' : '',
    slot.guestMemfd ? 'with guest_memfd' : '',
  ];
  return `${slot.id} at ${slot.gpa}, ${slot.bytes / 1024} KiB, ${kinds.filter((k) => k !== '').join(', ')}`;
}

function stageLines(fault: FaultRecord): string[] {
  if (fault.stages.length === 0) return [`  No stage ran: ${outcomeSentence(fault)}.`];
  const width = Math.max(...fault.stages.map((s) => s.name.length));
  const verdict = Math.max(...fault.stages.map((s) => s.verdict.length));
  return fault.stages.map(
    (s, i) =>
      `  ${String(i + 1).padStart(2)}. ${s.name.padEnd(width)}  ${s.verdict.padEnd(verdict)}  ${s.reason}${s.kvmFunction === '' ? '' : ` [${s.kvmFunction}]`}`,
  );
}

function outcomeLines(fault: FaultRecord): string[] {
  const lines = [`  result     ${fault.verdict ?? fault.stages.at(-1)?.verdict ?? outcomeSentence(fault)}`];
  if (fault.spteAfter !== null)
    lines.push(`  SPTE       ${fault.spteAfter.spte}, level ${fault.spteAfter.level}: ${fault.spteAfter.words}`);
  if (fault.invalidateSeqAfter !== fault.invalidateSeq)
    lines.push(`  sequence   mmu_invalidate_seq moved to ${fault.invalidateSeqAfter}: an invalidation ran meanwhile`);
  if (fault.mmioCache !== null)
    lines.push(`  MMIO cache gfn ${fault.mmioCache.gfn}, generation ${fault.mmioCache.generation}`);
  for (const e of fault.events) {
    if (e.event === 'kvm_emulate_insn')
      lines.push(`  emulated   ${e.fields.bytes} at rip 0x${e.fields.rip}${e.fields.failed ? ' (failed)' : ''}`);
    if (e.event === 'kvm_mmio')
      lines.push(`  device     ${e.fields.type} of ${e.fields.len} bytes at ${e.fields.gpa}, value ${e.fields.val}`);
  }
  return lines;
}

function leftLines(fault: FaultRecord, left: LeftBy | null): string[] {
  if (left === null) return ['  left       not at all: the guest went on'];
  const run = left.run ?? {};
  if (fault.resumed)
    return [
      `  left       not by this fault: the guest went on, and later left with KVM_EXIT_${String(run['exit_name'] ?? 'UNKNOWN')}`,
    ];
  const lines = [
    `  left       KVM_RUN returned ${left.ret}${left.errno === null ? '' : ` ${left.errno}`}, KVM_EXIT_${String(run['exit_name'] ?? 'UNKNOWN')}`,
  ];
  if (run['exit_name'] === 'MEMORY_FAULT') lines.push(...memoryFaultAdvice(fault, run));
  else if (left.errno === 'EFAULT')
    lines.push(
      '  VMM        the host address behind the slot gives no memory: look at the mapping (munmap, PROT_NONE, end of the file)',
    );
  else if (run['exit_name'] === 'MMIO') lines.push('  VMM        answer the device access and call KVM_RUN again');
  return lines;
}

function memoryFaultAdvice(fault: FaultRecord, run: { readonly [field: string]: unknown }): string[] {
  const wantsPrivate = (Number(run['flags']) & 8) !== 0;
  const lines = [`             flags ${String(run['flags'])}, gpa ${String(run['gpa'])}, size ${String(run['size'])}`];
  const wanted = wantsPrivate ? 'private' : 'shared';
  if (fault.attribute !== wanted)
    lines.push(
      `  VMM        the guest meant ${wanted} memory and the attribute says ${fault.attribute}: convert the range with KVM_SET_MEMORY_ATTRIBUTES and call KVM_RUN again, or stop the guest`,
    );
  else if (wantsPrivate && fault.slot !== null && !fault.slot.guestMemfd)
    lines.push(
      '  VMM        the range is private but its slot has no guest_memfd: bind one (KVM_MEM_GUEST_MEMFD), or set the attribute back to shared',
    );
  else if (wantsPrivate && fault.slot === null)
    lines.push(
      '  VMM        the range is private and no slot covers it: private memory is never MMIO; add a slot or set the attribute back to shared',
    );
  else lines.push('  VMM        guest_memfd could not give the page: check its size and the offset of the binding');
  return lines;
}
