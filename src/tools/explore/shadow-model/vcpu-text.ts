/** A vCPU under shadow paging in words. */
import { TLB_WRITE, tlbFrame } from '../kvm-model/tlb-word.ts';
import type { GuestOp } from '../shadow-scene.ts';
import type { ShadowVcpu } from './vcpu.ts';
import { PHASE_DONE, PHASE_GUEST, PHASE_NAMES, PHASE_STAGE } from './vcpu-phase.ts';

function opText(op: GuestOp): string {
  if (op.kind === 'load-cr3') return `load CR3 with gfn 0x${op.gfn.toString(16)}`;
  const at = `page 0x${op.page.toString(16)}`;
  return op.kind === 'store' ? `write entry ${op.index} in ${at}: 0x${op.value.toString(16)}` : `${op.kind} ${at}`;
}

export function shadowVcpuStageName(v: ShadowVcpu): string {
  const { phase } = v;
  if (phase >= PHASE_STAGE) {
    const n = phase - PHASE_STAGE;
    return n >= v.lockAt ? 'under mmu_lock: stale check and fetch' : v.stages[n]!.name;
  }
  if (phase === PHASE_GUEST) return `guest: ${opText(v.current)}`;
  return PHASE_NAMES[phase]!;
}

export function describeShadowVcpu(v: ShadowVcpu): string {
  const { vcpu, phase, state } = v;
  const where = vcpu.inGuest ? 'in the guest' : phase === PHASE_DONE ? 'done' : `at ${shadowVcpuStageName(v)}`;
  const tlb = state.linearPages
    .map((page, p) => [page, v.tlb[p]!] as const)
    .filter(([, word]) => word !== 0)
    .map(
      ([page, word]) =>
        `0x${page.toString(16)} -> 0x${tlbFrame(word).toString(16)}${(word & TLB_WRITE) !== 0 ? ' W' : ''}`,
    );
  const asked = vcpu.requests === 0 ? '' : `, requests 0x${vcpu.requests.toString(16)}`;
  const { fault } = vcpu.mmu;
  const pf = phase < PHASE_STAGE || fault.pfn < 0 ? '' : `, fault with frame 0x${fault.pfn.toString(16)}`;
  return `${v.name} ${where}${pf}${asked}, CR3 gfn 0x${v.cr3.toString(16)}, TLB: ${tlb.length === 0 ? 'empty' : tlb.join(', ')}`;
}
