/** VMX instructions of L1, but for entries and TLB invalidation (@kvm nested.c handle_vmxon to handle_vmptrst). */
import { GP_VECTOR, UD_VECTOR } from '../../../arch/exceptions.ts';
import { numberOf } from '../../../arch/halves.ts';
import { CR4_VMXE } from '../../../arch/registers.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import { ENOMEM } from '../../../host/errno.ts';
import { readGuest, writeGuest } from '../../guest-memory.ts';
import { MMU_ROOTS_ALL, mmuFreeRoots } from '../../mmu/free-roots.ts';
import { makeRequest, REQ_EVENT, type VcpuState } from '../../vcpu-state.ts';
import { queueException, queueExceptionE } from '../../x86/exceptions.ts';
import { is64BitMode, registerWrite } from '../../x86/registers.ts';
import { LoadedVmcs } from '../loaded-vmcs.ts';
import { vmxGetCpl } from '../segments.ts';
import { switchVmcs } from '../switch-vmcs.ts';
import { allocateVpid, freeVpid } from '../tlb.ts';
import { hostCr0Valid, nestedCr4Valid, pageAddressValid, readVmcs12 } from './consistency-checks.ts';
import {
  instructionInfo,
  instructionReg1,
  instructionReg2,
  operandIsRegister,
  readOperand,
  registerHi,
  registerLo,
  writeOperand,
} from './memory-operand.ts';
import { INVALID_VMPTR } from './nested-vmx.ts';
import { copyVmcs02ToVmcs12Rare, isVmcs12ExtField } from './sync-vmcs12.ts';
import { nestedVmxFail, nestedVmxFailInvalid, nestedVmxSucceed } from './vm-result.ts';
import { VMCS12_REVISION, VMCS12_SIZE, vmcs12Field } from './vmcs12-layout.ts';
import { unmapVmcs12Pages } from './vmcs12-pages.ts';

const word64 = new Uint8Array(8);
const word64View = new DataView(word64.buffer);
const word32 = new Uint8Array(4);
const word32View = new DataView(word32.buffer);
const region = new Uint8Array(VMCS12_SIZE);
const value = new Int32Array(2);

/** In VMX operation, at CPL 0; else the exception is queued. @kvm nested.c nested_vmx_check_permission */
export function nestedVmxCheckPermission(vcpu: VcpuState): boolean {
  if (!vcpu.vmx.nested.vmxon) {
    queueException(vcpu, UD_VECTOR);
    return false;
  }
  if (vmxGetCpl(vcpu) !== 0) {
    queueExceptionE(vcpu, GP_VECTOR, 0);
    return false;
  }
  return true;
}

/** The pointer that VMXON, VMCLEAR and VMPTRLD are given, in `word64`: -1, or the handler's answer. @kvm nested.c nested_vmx_get_vmptr */
function getVmptr(vcpu: VcpuState): number {
  return readOperand(vcpu, instructionInfo(vcpu), word64);
}

function vmptrValid(vcpu: VcpuState): boolean {
  return pageAddressValid(vcpu, word64View.getInt32(0, true), word64View.getInt32(4, true));
}

function vmptr(): number {
  return numberOf(word64View.getInt32(0, true), word64View.getInt32(4, true));
}

/** The first word at `gpa`; 0 where nothing is. */
function firstWord(vcpu: VcpuState, gpa: number): number {
  return readGuest(vcpu, gpa, word32, 0, 4) < 0 ? 0 : word32View.getInt32(0, true);
}

/** Makes what VMX operation needs: 0 or -ENOMEM. @kvm nested.c enter_vmx_operation */
export function enterVmxOperation(vcpu: VcpuState): number {
  const { vm, vmx } = vcpu;
  const { nested } = vmx;
  const { pages } = vm.host;
  const vmcs02 = new LoadedVmcs();
  vmcs02.pfn = pages.allocPage();
  vmcs02.msrBitmapPfn = pages.allocPage();
  if (vmcs02.pfn < 0 || vmcs02.msrBitmapPfn < 0) {
    for (const pfn of [vmcs02.pfn, vmcs02.msrBitmapPfn]) if (pfn >= 0) pages.freePage(pfn);
    return -ENOMEM;
  }
  vmx.words.fill(0, vmcs02.pfn * 1024, (vmcs02.pfn + 1) * 1024);
  vmx.words[vmcs02.pfn * 1024] = F.VMCS_REVISION;
  vmx.words.fill(-1, vmcs02.msrBitmapPfn * 1024, (vmcs02.msrBitmapPfn + 1) * 1024);
  vm.processor.vmx.vmclear(vmcs02.pfn * 4096);
  nested.vmcs02 = vmcs02;
  nested.vmcs12.words.fill(0);
  nested.shadowVmcs12.words.fill(0);
  nested.vpid02 = allocateVpid(vm.processor);
  nested.lastVpid = 0;
  nested.vmcs02Initialized = false;
  nested.vmxon = true;
  return 0;
}

/** @kvm nested.c free_nested */
export function freeNested(vcpu: VcpuState): void {
  const { vm, vmx } = vcpu;
  const { nested } = vmx;
  if (vmx.loaded !== vmx.vmcs01) switchVmcs(vcpu, vmx.vmcs01);
  if (!nested.vmxon && !nested.smm.vmxon) return;
  nested.vmxon = false;
  nested.smm.vmxon = false;
  nested.vmxonPtr = INVALID_VMPTR;
  if (nested.vpid02 !== 0) freeVpid(vm.processor, nested.vpid02);
  nested.vpid02 = 0;
  nested.postedIntrNv = -1;
  nested.currentVmptr = INVALID_VMPTR;
  nested.needSyncVmcs02Rare = false;
  unmapVmcs12Pages(vcpu);
  mmuFreeRoots(vm, vcpu.mmu.guestMmu, MMU_ROOTS_ALL);
  const vmcs02 = nested.vmcs02!;
  vm.processor.vmx.vmclear(vmcs02.pfn * 4096);
  vm.host.pages.freePage(vmcs02.pfn);
  vm.host.pages.freePage(vmcs02.msrBitmapPfn);
  nested.vmcs02 = null;
}

/** @kvm nested.c handle_vmxon */
export function handleVmxon(vcpu: VcpuState): number {
  const { nested } = vcpu.vmx;
  if ((vcpu.cr4 & CR4_VMXE) === 0) {
    queueException(vcpu, UD_VECTOR);
    return 1;
  }
  if (vmxGetCpl(vcpu) !== 0) {
    queueExceptionE(vcpu, GP_VECTOR, 0);
    return 1;
  }
  if (nested.vmxon) return nestedVmxFail(vcpu, C.VMXERR_VMXON_IN_VMX_ROOT_OPERATION);
  const needed = C.FEAT_CTL_LOCKED | C.FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX;
  const enabled = (vcpu.vmx.featureControlLo & needed) === needed;
  if (!hostCr0Valid(vcpu, vcpu.cr0, 0) || !nestedCr4Valid(vcpu, vcpu.cr4, 0) || !enabled) {
    queueExceptionE(vcpu, GP_VECTOR, 0);
    return 1;
  }
  const r = getVmptr(vcpu);
  if (r >= 0) return r;
  if (!vmptrValid(vcpu) || firstWord(vcpu, vmptr()) !== VMCS12_REVISION) return nestedVmxFailInvalid(vcpu);
  nested.vmxonPtr = vmptr();
  const error = enterVmxOperation(vcpu);
  return error !== 0 ? error : nestedVmxSucceed(vcpu);
}

/** The current VMCS goes back to L1's memory. @kvm nested.c nested_release_vmcs12 */
function releaseVmcs12(vcpu: VcpuState): void {
  const { nested } = vcpu.vmx;
  if (nested.currentVmptr === INVALID_VMPTR) return;
  copyVmcs02ToVmcs12Rare(vcpu);
  nested.postedIntrNv = -1;
  readGuest(vcpu, nested.currentVmptr, region, 0, VMCS12_SIZE);
  nested.vmcs12.store(region);
  writeGuest(vcpu, nested.currentVmptr, region, 0, VMCS12_SIZE);
  mmuFreeRoots(vcpu.vm, vcpu.mmu.guestMmu, MMU_ROOTS_ALL);
  nested.currentVmptr = INVALID_VMPTR;
}

/** @kvm nested.c handle_vmxoff */
export function handleVmxoff(vcpu: VcpuState): number {
  if (!nestedVmxCheckPermission(vcpu)) return 1;
  freeNested(vcpu);
  const apic = vcpu.x86.lapic;
  if (apic !== null && (apic.pendingInit || apic.pendingSipi)) makeRequest(vcpu, REQ_EVENT);
  return nestedVmxSucceed(vcpu);
}

/** @kvm nested.c handle_vmclear */
export function handleVmclear(vcpu: VcpuState): number {
  if (!nestedVmxCheckPermission(vcpu)) return 1;
  const r = getVmptr(vcpu);
  if (r >= 0) return r;
  const { nested } = vcpu.vmx;
  if (!vmptrValid(vcpu)) return nestedVmxFail(vcpu, C.VMXERR_VMCLEAR_INVALID_ADDRESS);
  const gpa = vmptr();
  if (gpa === nested.vmxonPtr) return nestedVmxFail(vcpu, C.VMXERR_VMCLEAR_VMXON_POINTER);
  if (gpa === nested.currentVmptr) releaseVmcs12(vcpu);
  word32View.setInt32(0, 0, true);
  writeGuest(vcpu, gpa + F.VMCS_LAUNCH_STATE, word32, 0, 4);
  return nestedVmxSucceed(vcpu);
}

/** @kvm nested.c set_current_vmptr */
export function setCurrentVmptr(vcpu: VcpuState, gpa: number): void {
  vcpu.vmx.nested.currentVmptr = gpa;
  vcpu.vmx.nested.dirtyVmcs12 = true;
}

/** @kvm nested.c handle_vmptrld */
export function handleVmptrld(vcpu: VcpuState): number {
  if (!nestedVmxCheckPermission(vcpu)) return 1;
  const r = getVmptr(vcpu);
  if (r >= 0) return r;
  const { nested } = vcpu.vmx;
  if (!vmptrValid(vcpu)) return nestedVmxFail(vcpu, C.VMXERR_VMPTRLD_INVALID_ADDRESS);
  const gpa = vmptr();
  if (gpa === nested.vmxonPtr) return nestedVmxFail(vcpu, C.VMXERR_VMPTRLD_VMXON_POINTER);
  if (nested.currentVmptr === gpa) return nestedVmxSucceed(vcpu);
  const header = firstWord(vcpu, gpa);
  const known = (header & 0x7fffffff) === VMCS12_REVISION;
  if (!known || (header < 0 && !nested.msrs.has2(C.SECONDARY_EXEC_SHADOW_VMCS))) {
    return nestedVmxFail(vcpu, C.VMXERR_VMPTRLD_INCORRECT_VMCS_REVISION_ID);
  }
  releaseVmcs12(vcpu);
  if (!readVmcs12(vcpu, gpa, region)) return nestedVmxFail(vcpu, C.VMXERR_VMPTRLD_INCORRECT_VMCS_REVISION_ID);
  nested.vmcs12.load(region);
  setCurrentVmptr(vcpu, gpa);
  return nestedVmxSucceed(vcpu);
}

/** @kvm nested.c handle_vmptrst */
export function handleVmptrst(vcpu: VcpuState): number {
  if (!nestedVmxCheckPermission(vcpu)) return 1;
  const { currentVmptr } = vcpu.vmx.nested;
  const none = currentVmptr === INVALID_VMPTR;
  word64View.setInt32(0, none ? -1 : currentVmptr | 0, true);
  word64View.setInt32(4, none ? -1 : Math.floor(currentVmptr / 0x1_0000_0000), true);
  const r = writeOperand(vcpu, instructionInfo(vcpu), word64);
  return r >= 0 ? r : nestedVmxSucceed(vcpu);
}

/** There is no VMCS to access: L1 has loaded none, or L2 was given none. */
function noVmcs(vcpu: VcpuState): boolean {
  const { nested } = vcpu.vmx;
  if (nested.currentVmptr === INVALID_VMPTR) return true;
  return vcpu.guestMode && nested.vmcs12.isInvalid(F.VMCS_VMCS_LINK_POINTER);
}

/** Bytes that VMREAD and VMWRITE move to or from memory. */
function accessBytes(vcpu: VcpuState): Uint8Array {
  return is64BitMode(vcpu) ? word64 : word64.subarray(0, 4);
}

/** Encoding of the field, -1 for one that no 32 bits hold. */
function fieldEncoding(vcpu: VcpuState, info: number): number {
  const reg = instructionReg2(info);
  return registerHi(vcpu, reg) !== 0 ? -1 : registerLo(vcpu, reg);
}

/** @kvm nested.c handle_vmread */
export function handleVmread(vcpu: VcpuState): number {
  if (!nestedVmxCheckPermission(vcpu)) return 1;
  const { nested } = vcpu.vmx;
  const vmcs12 = vcpu.guestMode ? nested.shadowVmcs12 : nested.vmcs12;
  const info = instructionInfo(vcpu);
  if (noVmcs(vcpu)) return nestedVmxFailInvalid(vcpu);
  const encoding = fieldEncoding(vcpu, info);
  if (vmcs12Field(encoding) === null) return nestedVmxFail(vcpu, C.VMXERR_UNSUPPORTED_VMCS_COMPONENT);
  if (!vcpu.guestMode && isVmcs12ExtField(encoding)) copyVmcs02ToVmcs12Rare(vcpu);
  vmcs12.readAny(encoding, value);
  if (operandIsRegister(info)) registerWrite(vcpu, instructionReg1(info), value[0]!, is64BitMode(vcpu) ? value[1]! : 0);
  else {
    word64View.setInt32(0, value[0]!, true);
    word64View.setInt32(4, value[1]!, true);
    const r = writeOperand(vcpu, info, accessBytes(vcpu));
    if (r >= 0) return r;
  }
  return nestedVmxSucceed(vcpu);
}

/** Bits of access rights that exist. */
const AR_BYTES_MASK = 0x1f0ff;

/** @kvm nested.c handle_vmwrite */
export function handleVmwrite(vcpu: VcpuState): number {
  if (!nestedVmxCheckPermission(vcpu)) return 1;
  const { nested } = vcpu.vmx;
  const vmcs12 = vcpu.guestMode ? nested.shadowVmcs12 : nested.vmcs12;
  const info = instructionInfo(vcpu);
  if (noVmcs(vcpu)) return nestedVmxFailInvalid(vcpu);
  let lo: number;
  let hi: number;
  if (operandIsRegister(info)) {
    lo = registerLo(vcpu, instructionReg1(info));
    hi = registerHi(vcpu, instructionReg1(info));
  } else {
    word64View.setInt32(4, 0, true);
    const r = readOperand(vcpu, info, accessBytes(vcpu));
    if (r >= 0) return r;
    lo = word64View.getInt32(0, true);
    hi = word64View.getInt32(4, true);
  }
  const encoding = fieldEncoding(vcpu, info);
  const field = vmcs12Field(encoding);
  if (field === null) return nestedVmxFail(vcpu, C.VMXERR_UNSUPPORTED_VMCS_COMPONENT);
  const readOnly = ((encoding >>> 10) & 3) === 1;
  if (readOnly && (nested.msrs.misc & C.VMX_MISC_VMWRITE_SHADOW_RO_FIELDS) === 0) {
    return nestedVmxFail(vcpu, C.VMXERR_VMWRITE_READ_ONLY_VMCS_COMPONENT);
  }
  if (!vcpu.guestMode) copyVmcs02ToVmcs12Rare(vcpu);
  const isRights = encoding >= F.VMCS_FIELDS.GUEST_ES_AR_BYTES && encoding <= F.VMCS_FIELDS.GUEST_TR_AR_BYTES;
  vmcs12.writeAny(field, encoding, isRights ? lo & AR_BYTES_MASK : lo, hi);
  if (!vcpu.guestMode) nested.dirtyVmcs12 = true;
  return nestedVmxSucceed(vcpu);
}
