/** A vCPU of a scene in words. */
import { TLB_WRITE, tlbFrame } from './tlb-word.ts';
import type { SceneVcpu } from './vcpu.ts';
import { isFaulting, PHASE_DONE, PHASE_GUEST, PHASE_INSTALL, PHASE_STAGE } from './vcpu-phase.ts';

export function vcpuStageName(v: SceneVcpu): string {
  const { phase } = v;
  if (phase >= PHASE_STAGE) return v.stages[phase - PHASE_STAGE]!.name;
  const level = v.iter.level;
  if (phase === PHASE_INSTALL) {
    return level === v.vcpu.mmu.fault.goalLevel ? 'map: install the entry' : `map: hang a table at level ${level}`;
  }
  if (phase === PHASE_GUEST) {
    const { kind, gfn } = v.current;
    return `guest: ${kind} gfn 0x${gfn.toString(16)}`;
  }
  const names = [
    'enter the guest',
    '',
    'error code',
    'fault object',
    'map: walk',
    '',
    'emulate',
    'leave the guest',
    '',
    'fast path: exchange the entry',
    'fast path: mark the page dirty',
  ];
  return names[phase]!;
}

export function describeVcpu(v: SceneVcpu): string {
  const { vcpu, phase } = v;
  const where = vcpu.inGuest ? 'in the guest' : phase === PHASE_DONE ? 'done' : `at ${vcpuStageName(v)}`;
  const tlb = v.gfns
    .map((gfn, g) => [gfn, v.tlb[g]!] as const)
    .filter(([, word]) => word !== 0)
    .map(
      ([gfn, word]) =>
        `0x${gfn.toString(16)} -> 0x${tlbFrame(word).toString(16)}${(word & TLB_WRITE) !== 0 ? ' W' : ''}`,
    );
  const asked = vcpu.requests === 0 ? '' : `, requests 0x${vcpu.requests.toString(16)}`;
  const { fault } = vcpu.mmu;
  const inFault = isFaulting(phase);
  const pf = !inFault
    ? ''
    : `, ${fault.isPrivate ? 'private' : 'shared'} fault${fault.pfn >= 0 ? ` with frame 0x${fault.pfn.toString(16)}` : ''}`;
  return `${v.name} ${where}${pf}${asked}, TLB: ${tlb.length === 0 ? 'empty' : tlb.join(', ')}`;
}
