/** The launch of an SNP guest: KVM_SEV_INIT2, SNP_LAUNCH_START, UPDATE and FINISH (@kvm sev.c sev_mem_enc_ioctl). */
import { DR7_FIXED_1 } from '../../../arch/debug-registers.ts';
import { RIP, RSP } from '../../../arch/registers.ts';
import {
  INITIAL_VMSA_GFN,
  SEV_RET_INVALID_PARAM,
  SNP_PAGE_TYPE_CPUID,
  SNP_PAGE_TYPE_NORMAL,
  SNP_PAGE_TYPE_SECRETS,
  SNP_PAGE_TYPE_UNMEASURED,
  SNP_PAGE_TYPE_VMSA,
  SNP_PAGE_TYPE_ZERO,
} from '../../../arch/snp-firmware.ts';
import { VMCB_DR7, VMCB_SAVE, VMCB_VMSA } from '../../../arch/vmcb.ts';
import {
  SEV_FEATURE_DEBUG_SWAP,
  SEV_FEATURE_SNP_ACTIVE,
  VMSA_GPRS,
  VMSA_MXCSR,
  VMSA_PKRU,
  VMSA_RIP,
  VMSA_SEV_FEATURES,
  VMSA_X87,
  VMSA_X87_FCW,
  VMSA_X87_FSW,
  VMSA_X87_FTW,
  VMSA_XCR0,
  VMSA_XMM,
  VMSA_YMM,
} from '../../../arch/vmsa.ts';
import { FPU_CW_AT, FPU_REGS, FPU_SW_AT, FPU_TAG_AT, MXCSR_AT, XMM, XMM_SIZE } from '../../../cpu/state.ts';
import { EBUSY, EEXIST, EFAULT, EINVAL, EIO, ENOMEM, ENOTTY, EPERM } from '../../../host/errno.ts';
import { KVM_MEMORY_ATTRIBUTE_PRIVATE, rangeHasMemoryAttributes } from '../../attributes.ts';
import type { MemoryEncryptCommand } from '../../confidential.ts';
import { LOCK_SLOTS } from '../../locks.ts';
import { gfnToMemslot, kvmSlotCanBePrivate } from '../../memslots/memslots.ts';
import type { VcpuState } from '../../vcpu-state.ts';
import type { VmState } from '../../vm-state.ts';
import { guestFpu } from '../../x86/guest-context.ts';
import { syncSaveArea } from '../save-area.ts';
import { vmcbRead, vmcbWrite64 } from '../vmcb-access.ts';
import {
  firmwareOf,
  rmpAssigned,
  rmpMakePrivate,
  rmpMakeShared,
  rmpupdate,
  snpHost,
  snpPageReclaim,
} from './snp-host.ts';
import type { VmSev } from './vm-sev.ts';

export const KVM_SEV_INIT2 = 22;
export const KVM_SEV_SNP_LAUNCH_START = 100;
export const KVM_SEV_SNP_LAUNCH_UPDATE = 101;
export const KVM_SEV_SNP_LAUNCH_FINISH = 102;

const GHCB_VERSION_MAX = 2;
/** Policy: bits that are there, the reserved one that must be set, SMT that must be allowed, and what KVM refuses (one socket). */
const POLICY_VALID_LO = 0x001bffff;
const POLICY_SMT = 1 << 16;
const POLICY_RESERVED_ONE = 1 << 17;
const POLICY_SINGLE_SOCKET = 1 << 20;

/** struct kvm_sev_init */
export interface SevInit {
  readonly vmsaFeatures?: number;
  readonly flags?: number;
  readonly ghcbVersion?: number;
}
/** struct kvm_sev_snp_launch_start */
export interface SnpLaunchStart {
  /** Less than 2^53. */
  readonly policy: number;
  readonly flags?: number;
}
/** struct kvm_sev_snp_launch_update; a call moves it past the pages that are done. */
export interface SnpLaunchUpdate {
  gfnStart: number;
  /** Host virtual address of the contents; ignored for pages of zeros. */
  uaddr: number;
  /** Bytes. */
  len: number;
  /** SNP_PAGE_TYPE_*. */
  readonly type: number;
  readonly flags?: number;
}
/** struct kvm_sev_snp_launch_finish */
export interface SnpLaunchFinish {
  /** An ID block of 96 bytes, whose digest must be the guest's. */
  readonly idBlock?: Uint8Array;
  readonly flags?: number;
}

/** Firmware said no: its status is the command's, the ioctl's EIO. @kvm sev.c __sev_issue_cmd */
function issued(command: MemoryEncryptCommand, status: number): number {
  command.error = status;
  return status === 0 ? 0 : -EIO;
}

/** @kvm sev.c sev_guest_init2, __sev_guest_init */
function sevGuestInit2(vm: VmState, sev: VmSev, command: MemoryEncryptCommand): number {
  if (!sev.needInit) return -EINVAL;
  const init = command.data as SevInit | undefined;
  if (init === undefined) return -EFAULT;
  const { vmsaFeatures = 0, flags = 0, ghcbVersion = 0 } = init;
  if (vm.vcpus.length > 0 || flags !== 0 || (vmsaFeatures & ~SEV_FEATURE_DEBUG_SWAP) !== 0) return -EINVAL;
  // DebugSwap is not in the processor's CPUID.
  if (vmsaFeatures !== 0 || ghcbVersion > GHCB_VERSION_MAX) return -EINVAL;
  const host = snpHost(vm);
  if (typeof host === 'number') return host;
  let asid = 1;
  while (host.asids.has(asid)) asid++;
  if (asid >= vm.profile.snp!.minAsidWithoutState) return -EBUSY;
  host.asids.add(asid);
  sev.active = true;
  sev.asid = asid;
  sev.vmsaFeatures = vmsaFeatures | SEV_FEATURE_SNP_ACTIVE;
  sev.ghcbVersion = ghcbVersion === 0 ? GHCB_VERSION_MAX : ghcbVersion;
  sev.needInit = false;
  return 0;
}

/** A page for the firmware: assigned to nobody, immutable. @kvm ccp sev-dev.c snp_alloc_firmware_page */
function allocFirmwarePage(vm: VmState): number {
  const pfn = vm.host.pages.allocPage();
  if (pfn < 0) return -1;
  if (rmpupdate(vm, pfn, { assigned: true, asid: 0, gfn: 0, large: false, immutable: true }) === 0) return pfn;
  vm.host.pages.freePage(pfn);
  return -1;
}

function freeFirmwarePage(vm: VmState, pfn: number): void {
  if (snpPageReclaim(vm, pfn) === 0) vm.host.pages.freePage(pfn);
}

/** @kvm sev.c snp_decommission_context */
export function snpDecommissionContext(vm: VmState, sev: VmSev): void {
  if (sev.context < 0) return;
  const status = firmwareOf(vm).decommission(sev.context);
  vm.log.warnOnOnce(status !== 0, 'snp_decommission_context', `firmware status ${status}`);
  freeFirmwarePage(vm, sev.context);
  sev.context = -1;
}

/** @kvm sev.c snp_launch_start */
function snpLaunchStart(vm: VmState, sev: VmSev, command: MemoryEncryptCommand): number {
  const params = command.data as SnpLaunchStart | undefined;
  if (params === undefined) return -EFAULT;
  if (sev.context >= 0) return -EINVAL;
  const lo = (params.policy % 0x1_0000_0000) | 0;
  const hi = Math.floor(params.policy / 0x1_0000_0000);
  if ((params.flags ?? 0) !== 0 || hi !== 0 || (lo & ~POLICY_VALID_LO) !== 0) return -EINVAL;
  if ((lo & POLICY_RESERVED_ONE) === 0 || (lo & POLICY_SMT) === 0) return -EINVAL;
  if ((lo & POLICY_SINGLE_SOCKET) !== 0) return -EINVAL;
  const firmware = firmwareOf(vm);
  const context = allocFirmwarePage(vm);
  if (context < 0) return -ENOTTY;
  const created = firmware.contextCreate(context);
  if (created !== 0) {
    command.error = created;
    freeFirmwarePage(vm, context);
    return -ENOTTY;
  }
  sev.context = context;
  let r = issued(command, firmware.launchStart(context, lo, hi));
  if (r === 0) r = issued(command, firmware.activate(context, sev.asid));
  if (r !== 0) snpDecommissionContext(vm, sev);
  return r;
}

const UPDATE_TYPES: readonly number[] = [
  SNP_PAGE_TYPE_NORMAL,
  SNP_PAGE_TYPE_ZERO,
  SNP_PAGE_TYPE_UNMEASURED,
  SNP_PAGE_TYPE_SECRETS,
  SNP_PAGE_TYPE_CPUID,
];

/** One page of SNP_LAUNCH_UPDATE: 0, or a negative errno. @kvm sev.c sev_gmem_post_populate */
function postPopulate(
  vm: VmState,
  sev: VmSev,
  command: MemoryEncryptCommand,
  type: number,
  pfn: number,
  gfn: number,
  hva: number,
): number {
  if (rmpAssigned(vm, pfn)) return -EEXIST;
  if (hva >= 0) {
    vm.memory.noteWrite(pfn);
    if (vm.mm.read(hva, vm.memory.u8, pfn * 4096, 4096) !== 0) return -EFAULT;
  }
  const r = rmpMakePrivate(vm, pfn, gfn, false, sev.asid, true);
  if (r !== 0) return r;
  const done = issued(command, firmwareOf(vm).launchUpdate(sev.context, pfn, false, type));
  if (done === 0) return 0;
  if (snpPageReclaim(vm, pfn) === 0 && type === SNP_PAGE_TYPE_CPUID && command.error === SEV_RET_INVALID_PARAM) {
    // The page says what the firmware would take.
    vm.mm.write(hva, vm.memory.u8, pfn * 4096, 4096);
  }
  return done;
}

/** How many pages were added, or a negative errno of the first when none was. @kvm guest_memfd.c kvm_gmem_populate */
function populate(vm: VmState, sev: VmSev, command: MemoryEncryptCommand, params: SnpLaunchUpdate): number {
  const slot = gfnToMemslot(vm, params.gfnStart)!;
  const { gmem } = slot;
  if (gmem === null || gmem.file === null) return -EFAULT;
  const { file, pgoff } = gmem;
  const count = Math.min(slot.npages - (params.gfnStart - slot.baseGfn), params.len / 4096);
  let r = 0;
  let done = 0;
  for (; done < count && r === 0; done++) {
    const gfn = params.gfnStart + done;
    const index = gfn - slot.baseGfn + pgoff;
    const pfn = file.getPage(index);
    if (pfn < 0) r = -ENOMEM;
    else if (file.isPrepared(index)) r = -EEXIST;
    else if (!rangeHasMemoryAttributes(vm, gfn, gfn + 1, KVM_MEMORY_ATTRIBUTE_PRIVATE, KVM_MEMORY_ATTRIBUTE_PRIVATE)) {
      r = -EINVAL;
    } else {
      const hva = params.type === SNP_PAGE_TYPE_ZERO ? -1 : params.uaddr + done * 4096;
      r = postPopulate(vm, sev, command, params.type, pfn, gfn, hva);
      if (r === 0) file.markPrepared(index);
    }
    if (r !== 0) break;
  }
  return r !== 0 && done === 0 ? r : done;
}

/** @kvm sev.c snp_launch_update */
function snpLaunchUpdate(vm: VmState, sev: VmSev, command: MemoryEncryptCommand): number {
  if (sev.context < 0) return -EINVAL;
  const params = command.data as SnpLaunchUpdate | undefined;
  if (params === undefined) return -EFAULT;
  if (params.len % 4096 !== 0 || (params.flags ?? 0) !== 0 || !UPDATE_TYPES.includes(params.type)) return -EINVAL;
  vm.locks.acquire(LOCK_SLOTS);
  const r = updateLocked(vm, sev, command, params);
  vm.locks.release(LOCK_SLOTS);
  return r;
}

function updateLocked(vm: VmState, sev: VmSev, command: MemoryEncryptCommand, params: SnpLaunchUpdate): number {
  const slot = gfnToMemslot(vm, params.gfnStart);
  if (slot === null || !kvmSlotCanBePrivate(slot)) return -EINVAL;
  const count = populate(vm, sev, command, params);
  if (count < 0) return -EIO;
  params.gfnStart += count;
  params.len -= count * 4096;
  if (params.type !== SNP_PAGE_TYPE_ZERO) params.uaddr += count * 4096;
  return 0;
}

/** The vCPU's registers as KVM knows them go into its VMSA. @kvm sev.c sev_es_sync_vmsa */
function syncVmsa(vcpu: VcpuState, sev: VmSev): number {
  const { svm } = vcpu;
  const es = svm.sev!;
  if (es.stateProtected || vcpu.x86.guestDebug !== 0) return -EINVAL;
  if ((vmcbRead(svm, VMCB_DR7) & ~DR7_FIXED_1) !== 0) return -EINVAL;
  syncSaveArea(vcpu);
  const { i32, u8 } = vcpu.vm.memory;
  const at = es.vmsaPfn * 1024;
  const put = (offset: number, lo: number, hi: number): void => {
    i32[at + (offset >> 2)] = lo;
    i32[at + (offset >> 2) + 1] = hi;
  };
  i32.copyWithin(at, svm.vmcb + (VMCB_SAVE >> 2), svm.vmcb + (VMCB_SAVE >> 2) + (0x2e0 >> 2));
  const reg = (n: number, offset: number): void => put(offset, vcpu.regs[2 * n]!, vcpu.regs[2 * n + 1]!);
  reg(0, 0x1f8);
  reg(RSP, 0x1d8);
  reg(RIP, VMSA_RIP);
  for (const [n, offset] of VMSA_GPRS) reg(n, offset);
  put(VMSA_XCR0, vcpu.xcr0, 0);
  i32[at + (VMSA_PKRU >> 2)] = vcpu.pkru;
  put(0x168, vcpu.x86.dr6, 0);
  put(VMSA_SEV_FEATURES, sev.vmsaFeatures, 0);
  syncFpu(vcpu, es.vmsaPfn * 4096, u8);
  return 0;
}

function syncFpu(vcpu: VcpuState, at: number, u8: Uint8Array): void {
  const fpu = guestFpu(vcpu);
  const from = (address: number, count: number): Uint8Array =>
    fpu.subarray(address - FPU_CW_AT, address - FPU_CW_AT + count);
  u8.set(from(MXCSR_AT, 4), at + VMSA_MXCSR);
  u8.set(from(FPU_TAG_AT, 2), at + VMSA_X87_FTW);
  u8.set(from(FPU_SW_AT, 2), at + VMSA_X87_FSW);
  u8.set(from(FPU_CW_AT, 2), at + VMSA_X87_FCW);
  for (let n = 0; n < 8; n++) {
    u8.set(from(FPU_REGS + 16 * n, 8), at + VMSA_X87 + 8 * n);
    u8.set(from(FPU_REGS + 16 * n + 8, 2), at + VMSA_X87 + 64 + 2 * n);
  }
  for (let n = 0; n < 16; n++) {
    u8.set(from(XMM + XMM_SIZE * n, 16), at + VMSA_XMM + 16 * n);
    u8.set(from(XMM + XMM_SIZE * n + 16, 16), at + VMSA_YMM + 16 * n);
  }
}

/** @kvm sev.c snp_launch_update_vmsa */
function snpLaunchUpdateVmsa(vm: VmState, sev: VmSev, command: MemoryEncryptCommand): number {
  for (const vcpu of vm.vcpus) {
    const es = vcpu.svm.sev!;
    let r = syncVmsa(vcpu, sev);
    if (r !== 0) return r;
    r = rmpMakePrivate(vm, es.vmsaPfn, INITIAL_VMSA_GFN, false, sev.asid, true);
    if (r !== 0) return r;
    r = issued(command, firmwareOf(vm).launchUpdate(sev.context, es.vmsaPfn, false, SNP_PAGE_TYPE_VMSA));
    if (r !== 0) {
      snpPageReclaim(vm, es.vmsaPfn);
      return r;
    }
    es.stateProtected = true;
    // What the processor still holds of the vCPU is no longer true.
    vcpu.svm.saveAreaStale = false;
    vmcbWrite64(vcpu.svm, VMCB_VMSA, (es.vmsaPfn * 4096) | 0, 0);
  }
  return 0;
}

/** @kvm sev.c snp_launch_finish */
function snpLaunchFinish(vm: VmState, sev: VmSev, command: MemoryEncryptCommand): number {
  if (sev.context < 0) return -EINVAL;
  const params = command.data as SnpLaunchFinish | undefined;
  if (params === undefined) return -EFAULT;
  if ((params.flags ?? 0) !== 0) return -EINVAL;
  const r = snpLaunchUpdateVmsa(vm, sev, command);
  if (r !== 0) return r;
  return issued(command, firmwareOf(vm).launchFinish(sev.context, params.idBlock ?? null));
}

/**
 * KVM_MEMORY_ENCRYPT_OP on a VM.
 * @returns 0, -ENOTTY (no SNP guest yet), -EINVAL (unknown command, arguments, order), -EPERM (a command of SEV's), -EBUSY (no ASID left),
 *   -EIO (firmware)
 * @kvm sev.c sev_mem_enc_ioctl
 * @partial of SEV's commands those of SNP's launch
 */
export function sevMemEncIoctl(vm: VmState, command: MemoryEncryptCommand): number {
  const { sev } = vm;
  command.error = 0;
  if (sev === null || !sev.active) {
    if (command.id === KVM_SEV_INIT2) return sev === null ? -EINVAL : sevGuestInit2(vm, sev, command);
    const wantsSnp = command.id === KVM_SEV_SNP_LAUNCH_START || command.id === KVM_SEV_SNP_LAUNCH_FINISH;
    return wantsSnp ? -ENOTTY : -EINVAL;
  }
  switch (command.id) {
    case KVM_SEV_SNP_LAUNCH_START:
      return snpLaunchStart(vm, sev, command);
    case KVM_SEV_SNP_LAUNCH_UPDATE:
      return snpLaunchUpdate(vm, sev, command);
    case KVM_SEV_SNP_LAUNCH_FINISH:
      return snpLaunchFinish(vm, sev, command);
    default:
      return command.id < KVM_SEV_SNP_LAUNCH_START ? -EPERM : -EINVAL;
  }
}

/** The vCPU's VMSA goes back to the host. @kvm sev.c sev_free_vcpu */
export function sevFreeVcpu(vcpu: VcpuState): void {
  const { sev } = vcpu.svm;
  if (sev === null || sev.vmsaPfn < 0) return;
  const { vm } = vcpu;
  const shared = !rmpAssigned(vm, sev.vmsaPfn) || rmpMakeShared(vm, sev.vmsaPfn, false) === 0;
  if (shared) vm.host.pages.freePage(sev.vmsaPfn);
  sev.vmsaPfn = -1;
}
