/** KVM's view of a GHCB, a page that the guest shares: what the guest asks and what it is answered (@kvm sev.c sev_es_sync_from_ghcb). */
import {
  GHCB_CPL,
  GHCB_ERR_INVALID_SCRATCH_AREA,
  GHCB_RAX,
  GHCB_RBX,
  GHCB_RCX,
  GHCB_RDX,
  GHCB_RSI,
  GHCB_SHARED_BUFFER,
  GHCB_SHARED_BUFFER_END,
  GHCB_SW_EXIT_CODE,
  GHCB_SW_EXIT_INFO_1,
  GHCB_SW_EXIT_INFO_2,
  GHCB_SW_SCRATCH,
  GHCB_VALID_BITMAP,
  GHCB_XCR0,
} from '../../../arch/ghcb.ts';
import { numberOf } from '../../../arch/halves.ts';
import { RAX, RBX, RCX, RDX, RSI } from '../../../arch/registers.ts';
import { VMCB_CPL, VMCB_EXIT_CODE, VMCB_EXIT_INFO_1, VMCB_EXIT_INFO_2, VMCB_GHCB } from '../../../arch/vmcb.ts';
import { gfnToHva } from '../../memslots/hva.ts';
import { gfnToMemslot } from '../../memslots/memslots.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import { vmcbRead, vmcbWrite64 } from '../vmcb-access.ts';

const word = (vcpu: VcpuState, offset: number): number => (vcpu.svm.sev!.ghcb + offset) >>> 2;

/** Low and high half of a field. */
export function ghcbLo(vcpu: VcpuState, offset: number): number {
  return vcpu.vm.memory.i32[word(vcpu, offset)]!;
}
export function ghcbHi(vcpu: VcpuState, offset: number): number {
  return vcpu.vm.memory.i32[word(vcpu, offset) + 1]!;
}
function put(vcpu: VcpuState, offset: number, lo: number, hi: number): void {
  const { i32 } = vcpu.vm.memory;
  i32[word(vcpu, offset)] = lo;
  i32[word(vcpu, offset) + 1] = hi;
}
/** Writes a field and says that it is valid. */
function putValid(vcpu: VcpuState, offset: number, lo: number, hi: number): void {
  put(vcpu, offset, lo, hi);
  const at = word(vcpu, GHCB_VALID_BITMAP) + (offset >> 8);
  vcpu.vm.memory.i32[at] = vcpu.vm.memory.i32[at]! | (1 << ((offset >> 3) & 31));
}

/** Whether the guest said that the field counts. @kvm svm.h kvm_ghcb_*_is_valid */
export function ghcbValid(vcpu: VcpuState, offset: number): boolean {
  return ((vcpu.svm.sev!.valid[offset >> 8]! >>> ((offset >> 3) & 31)) & 1) !== 0;
}

export function setExitInfo1(vcpu: VcpuState, lo: number, hi: number): void {
  putValid(vcpu, GHCB_SW_EXIT_INFO_1, lo, hi);
}
export function setExitInfo2(vcpu: VcpuState, lo: number, hi: number): void {
  putValid(vcpu, GHCB_SW_EXIT_INFO_2, lo, hi);
}
/** The event was malformed: GHCB_ERR_*. */
export function refuseEvent(vcpu: VcpuState, reason: number): void {
  setExitInfo1(vcpu, 2, 0);
  setExitInfo2(vcpu, reason, 0);
}

/** Finds the page at the GHCB's address in the shared memory of the VM; false when there is none. @kvm sev.c kvm_vcpu_map */
export function mapGhcb(vcpu: VcpuState, gfn: number): boolean {
  const { vm } = vcpu;
  const hva = gfnToHva(gfnToMemslot(vm, gfn), gfn, true);
  const pfn = hva < 0 ? -1 : vm.mm.userPage(hva, true);
  if (pfn < 0) return false;
  vm.memory.noteWrite(pfn);
  vcpu.svm.sev!.ghcb = pfn * 4096;
  return true;
}

const GPRS: readonly (readonly [number, number])[] = [
  [RAX, GHCB_RAX],
  [RBX, GHCB_RBX],
  [RCX, GHCB_RCX],
  [RDX, GHCB_RDX],
];

/** @kvm sev.c sev_es_sync_from_ghcb */
export function syncFromGhcb(vcpu: VcpuState): void {
  const { svm } = vcpu;
  const es = svm.sev!;
  const bitmap = word(vcpu, GHCB_VALID_BITMAP);
  const { i32, u8 } = vcpu.vm.memory;
  for (let i = 0; i < 4; i++) es.valid[i] = i32[bitmap + i]!;
  vcpu.regs.fill(0, 0, 32);
  for (const [n, offset] of [...GPRS, [RSI, GHCB_RSI] as const]) {
    if (!ghcbValid(vcpu, offset)) continue;
    vcpu.regs[2 * n] = ghcbLo(vcpu, offset);
    vcpu.regs[2 * n + 1] = ghcbHi(vcpu, offset);
  }
  u8[svm.currentVmcb.pa + VMCB_CPL] = ghcbValid(vcpu, GHCB_CPL) ? u8[es.ghcb + GHCB_CPL]! : 0;
  if (ghcbValid(vcpu, GHCB_XCR0)) vcpu.xcr0 = ghcbLo(vcpu, GHCB_XCR0);
  vmcbWrite64(svm, VMCB_EXIT_CODE, ghcbLo(vcpu, GHCB_SW_EXIT_CODE), ghcbHi(vcpu, GHCB_SW_EXIT_CODE));
  vmcbWrite64(svm, VMCB_EXIT_INFO_1, ghcbLo(vcpu, GHCB_SW_EXIT_INFO_1), ghcbHi(vcpu, GHCB_SW_EXIT_INFO_1));
  vmcbWrite64(svm, VMCB_EXIT_INFO_2, ghcbLo(vcpu, GHCB_SW_EXIT_INFO_2), ghcbHi(vcpu, GHCB_SW_EXIT_INFO_2));
  const scratch = ghcbValid(vcpu, GHCB_SW_SCRATCH);
  es.scratchLo = scratch ? ghcbLo(vcpu, GHCB_SW_SCRATCH) : 0;
  es.scratchHi = scratch ? ghcbHi(vcpu, GHCB_SW_SCRATCH) : 0;
  i32.fill(0, bitmap, bitmap + 4);
}

/** Before the guest goes on: registers that the event returned. @kvm sev.c sev_es_unmap_ghcb, sev_es_sync_to_ghcb */
export function unmapGhcb(vcpu: VcpuState): void {
  const es = vcpu.svm.sev!;
  if (es.ghcb < 0) return;
  for (const [n, offset] of GPRS) putValid(vcpu, offset, vcpu.regs[2 * n]!, vcpu.regs[2 * n + 1]!);
  const { trace } = vcpu.vm;
  if (trace.enabled) {
    const info = (offset: number): string => `0x${(ghcbLo(vcpu, offset) >>> 0).toString(16)}`;
    const text = `vcpu ${vcpu.id}, exit_info1 ${info(GHCB_SW_EXIT_INFO_1)}, exit_info2 ${info(GHCB_SW_EXIT_INFO_2)}`;
    trace.emit('kvm_vmgexit_exit', { text });
  }
  es.ghcb = -1;
}

/**
 * Finds the scratch area of at least `bytes` bytes, which version 2 has inside the GHCB's own buffer; false after refusing the event.
 * @kvm sev.c setup_vmgexit_scratch
 * @partial version 1's scratch area elsewhere is refused, too
 */
export function setupScratch(vcpu: VcpuState, bytes: number): boolean {
  const { svm } = vcpu;
  const es = svm.sev!;
  const begin = numberOf(es.scratchLo, es.scratchHi);
  const page = numberOf(vmcbRead(svm, VMCB_GHCB), vmcbRead(svm, VMCB_GHCB + 4));
  const offset = begin - page;
  if (begin === 0 || offset < GHCB_SHARED_BUFFER || offset + bytes > GHCB_SHARED_BUFFER_END) {
    refuseEvent(vcpu, GHCB_ERR_INVALID_SCRATCH_AREA);
    return false;
  }
  es.scratchAt = es.ghcb + offset;
  es.scratchBytes = GHCB_SHARED_BUFFER_END - offset;
  return true;
}
