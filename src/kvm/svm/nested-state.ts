/** KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE on SVM: L1's VMCB for L2, and L1's own state (@kvm nested.c svm_get_nested_state). */
import { hiOf, loOf, numberOf } from '../../arch/halves.ts';
import { CR0_CD, CR0_NW, CR0_PE, CR0_PG, EFER_SVME, RFLAGS_FIXED, RFLAGS_VM } from '../../arch/registers.ts';
import * as V from '../../arch/vmcb.ts';
import { EFAULT, EINVAL } from '../../host/errno.ts';
import { loadPdptrs } from '../mmu/pdptrs.ts';
import { makeRequest, REQ_GET_NESTED_STATE_PAGES, type VcpuState } from '../vcpu-state.ts';
import {
  KVM_STATE_NESTED_FORMAT_SVM,
  KVM_STATE_NESTED_GIF_SET,
  KVM_STATE_NESTED_GUEST_MODE,
  KVM_STATE_NESTED_RUN_PENDING,
  NESTED_STATE_HEADER,
} from '../x86/nested-ops.ts';
import { NESTED_STATE_FLAGS, NESTED_STATE_FORMAT, NESTED_STATE_HDR, NESTED_STATE_SIZE } from '../x86/nested-state.ts';
import { isPaePaging } from '../x86/registers.ts';
import { svmSetGif } from './gif.ts';
import { checkControls, checkFails, checkSave, isLegalGpa } from './nested-checks.ts';
import { svmLeaveNested } from './nested-memory.ts';
import { nestedLoadCr3, nestedNptEnabled } from './nested-mmu.ts';
import { mergeMsrpm } from './nested-msrpm.ts';
import { copyControlToCache, copySaveToCache, prepareControl } from './nested-vmrun.ts';
import { syncSaveArea } from './save-area.ts';
import { switchVmcb, vmcbRead } from './vmcb-access.ts';

/** @kvm uapi/asm/kvm.h KVM_STATE_NESTED_SVM_VMCB_SIZE */
const VMCB_SIZE = 0x1000;
/** Words of the save area that the VMCB has. */
const SAVE_WORDS = 0x2e8 >> 2;
const SAVE_WORD = V.VMCB_SAVE >> 2;

/** Byte offset and words of what VMRUN saves of the host. @kvm nested.c svm_copy_vmrun_state */
const VMRUN_STATE: readonly (readonly [number, number])[] = [
  [V.VMCB_ES, 16],
  [V.VMCB_GDTR, 4],
  [V.VMCB_IDTR, 4],
  [V.VMCB_RFLAGS, 2],
  [V.VMCB_EFER, 2],
  [V.VMCB_CR4, 6],
  [V.VMCB_RAX, 2],
  [V.VMCB_RSP, 2],
  [V.VMCB_RIP, 2],
];

/** Host state that VMRUN saves, between VMCBs: words from `from` of `source` to `to` of `target`. @kvm nested.c svm_copy_vmrun_state */
export function copyVmrunState(target: Int32Array, to: number, source: Int32Array, from: number): void {
  for (const [off, words] of VMRUN_STATE) {
    for (let i = 0; i < words; i++) target[to + (off >> 2) + i] = source[from + (off >> 2) + i]!;
  }
  target[to + (V.VMCB_RFLAGS >> 2)]! |= RFLAGS_FIXED;
  target[to + (V.VMCB_CPL >> 2)]! &= ~(0xff << ((V.VMCB_CPL & 3) * 8));
}

/** @kvm nested.c svm_get_nested_state */
export function svmGetNestedState(vcpu: VcpuState | null, out: Uint8Array): number {
  if (vcpu === null) return NESTED_STATE_HEADER + VMCB_SIZE;
  const { svm } = vcpu;
  const size = NESTED_STATE_HEADER + (vcpu.guestMode ? VMCB_SIZE : 0);
  if (out.length < NESTED_STATE_HEADER) return size;
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  let flags = svm.gif ? KVM_STATE_NESTED_GIF_SET : 0;
  if (vcpu.guestMode) {
    flags |= KVM_STATE_NESTED_GUEST_MODE | (svm.nested.runPending ? KVM_STATE_NESTED_RUN_PENDING : 0);
    view.setInt32(NESTED_STATE_HDR, loOf(svm.nested.vmcb12Gpa), true);
    view.setInt32(NESTED_STATE_HDR + 4, hiOf(svm.nested.vmcb12Gpa), true);
  }
  view.setUint16(NESTED_STATE_FLAGS, flags, true);
  view.setUint16(NESTED_STATE_FORMAT, KVM_STATE_NESTED_FORMAT_SVM, true);
  view.setUint32(NESTED_STATE_SIZE, size, true);
  if (!vcpu.guestMode || out.length < size) return size;
  syncSaveArea(vcpu);
  const vmcb = new Int32Array(VMCB_SIZE / 4);
  vmcb.set(svm.nested.cached.subarray(0, SAVE_WORD));
  const from = svm.vmcb01.word + SAVE_WORD;
  vmcb.set(svm.words.subarray(from, from + SAVE_WORDS), SAVE_WORD);
  out.set(new Uint8Array(vmcb.buffer), NESTED_STATE_HEADER);
  return size;
}

/** L1's state that L2 was entered with, and that of the VMCB, can be. */
function validGuestModeState(vcpu: VcpuState, cached: Int32Array, vmcb: Int32Array): boolean {
  if (!checkControls(vcpu, cached)) return false;
  if ((vcpu.cr0 & CR0_CD) === 0 && (vcpu.cr0 & CR0_NW) !== 0) return false;
  const both = CR0_PG | CR0_PE;
  if ((vmcb[V.VMCB_CR0 >> 2]! & both) !== both || (vmcb[V.VMCB_RFLAGS >> 2]! & RFLAGS_VM) !== 0) return false;
  return checkSave(vcpu, cached);
}

/** Into guest mode, with the vCPU's registers as L2's. 0 or -EINVAL. */
function setGuestModeState(vcpu: VcpuState, flags: number, gpa: number, vmcb: Int32Array): number {
  const { svm } = vcpu;
  const { nested, words } = svm;
  const cached = new Int32Array(nested.cached.length);
  copyControlToCache(cached, vmcb, 0);
  copySaveToCache(cached, vmcb, 0);
  if (!validGuestModeState(vcpu, cached, vmcb)) return -EINVAL;
  if (vcpu.guestMode) svmLeaveNested(vcpu);
  else
    words.copyWithin(
      svm.vmcb02.word + SAVE_WORD,
      svm.vmcb01.word + SAVE_WORD,
      svm.vmcb01.word + SAVE_WORD + SAVE_WORDS,
    );
  svmSetGif(vcpu, (flags & KVM_STATE_NESTED_GIF_SET) !== 0);
  nested.runPending = (flags & KVM_STATE_NESTED_RUN_PENDING) !== 0;
  nested.vmcb12Gpa = gpa;
  copyVmrunState(words, svm.vmcb01.word, vmcb, 0);
  copyControlToCache(nested.cached, vmcb, 0);
  switchVmcb(svm, svm.vmcb02);
  const at = (off: number): number => vmcbRead(svm, off);
  prepareControl(vcpu, at(V.VMCB_RIP), at(V.VMCB_RIP + 4), at(V.VMCB_CS + 8), at(V.VMCB_CS + 12));
  const r = nestedLoadCr3(vcpu, vcpu.cr3Lo, vcpu.cr3Hi, nestedNptEnabled(vcpu), false);
  if (r === 0) makeRequest(vcpu, REQ_GET_NESTED_STATE_PAGES);
  return r;
}

const KNOWN_FLAGS = KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING | KVM_STATE_NESTED_GIF_SET;

/** @kvm nested.c svm_set_nested_state */
export function svmSetNestedState(vcpu: VcpuState, state: Uint8Array): number {
  const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
  const flags = view.getUint16(NESTED_STATE_FLAGS, true);
  if (view.getUint16(NESTED_STATE_FORMAT, true) !== KVM_STATE_NESTED_FORMAT_SVM) return -EINVAL;
  if ((flags & ~KNOWN_FLAGS) !== 0) return -EINVAL;
  if ((vcpu.efer & EFER_SVME) === 0 && flags !== KVM_STATE_NESTED_GIF_SET) return -EINVAL;
  if (vcpu.smm && (flags & KVM_STATE_NESTED_GUEST_MODE) !== 0) return -EINVAL;
  if ((flags & KVM_STATE_NESTED_GUEST_MODE) === 0) {
    svmLeaveNested(vcpu);
    svmSetGif(vcpu, (flags & KVM_STATE_NESTED_GIF_SET) !== 0);
    return 0;
  }
  const gpa = numberOf(view.getInt32(NESTED_STATE_HDR, true), view.getInt32(NESTED_STATE_HDR + 4, true));
  if (gpa % 4096 !== 0 || !isLegalGpa(vcpu, gpa)) return -EINVAL;
  if (view.getUint32(NESTED_STATE_SIZE, true) < NESTED_STATE_HEADER + VMCB_SIZE) return -EINVAL;
  if (state.length < NESTED_STATE_HEADER + VMCB_SIZE) return -EFAULT;
  const vmcb = new Int32Array(state.slice(NESTED_STATE_HEADER, NESTED_STATE_HEADER + VMCB_SIZE).buffer);
  return setGuestModeState(vcpu, flags, gpa, vmcb);
}

/** PDPTEs and permission map, which could not be read when the state was set. @kvm nested.c svm_get_nested_state_pages */
export function svmGetNestedStatePages(vcpu: VcpuState): boolean {
  if (vcpu.vm.log.warnOnOnce(!vcpu.guestMode, 'svm_get_nested_state_pages', 'not in guest mode')) return true;
  if (!nestedNptEnabled(vcpu) && isPaePaging(vcpu)) {
    if (checkFails(vcpu, !loadPdptrs(vcpu, vcpu.cr3Lo, vcpu.cr3Hi), '!load_pdptrs(vcpu, vcpu->arch.cr3)')) return false;
  }
  return mergeMsrpm(vcpu);
}
