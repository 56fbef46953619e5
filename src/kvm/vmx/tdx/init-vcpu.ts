/** vCPUs of a TD, the memory that it starts with, and the end of its build (@kvm tdx.c tdx_vcpu_init, tdx_vcpu_init_mem_region, tdx_td_finalize). */
import { PFERR_GUEST_FINAL_HI, PFERR_PRIVATE_ACCESS_HI } from '../../../arch/error-code.ts';
import { MD_CPUID_VALUES_HI, TDVPX_PAGES, TDX_EXTENDMR_CHUNKSIZE } from '../../../arch/tdx.ts';
import type { CpuidEntry } from '../../../cpu/profile.ts';
import { EAGAIN, EBUSY, EFAULT, EINVAL, EIO, ENOMEM } from '../../../host/errno.ts';
import { memIsPrivate } from '../../attributes.ts';
import type { MemoryEncryptCommand } from '../../confidential.ts';
import { LOCK_SLOTS } from '../../locks.ts';
import { kvmSlotCanBePrivate } from '../../memslots/memslot.ts';
import { gfnToMemslot } from '../../memslots/memslots.ts';
import { tdpMapPage } from '../../mmu/pre-fault.ts';
import { mmuReload } from '../../mmu/roots.ts';
import { MP_STATE_RUNNABLE, type VcpuState } from '../../vcpu-state.ts';
import type { VmState } from '../../vm-state.ts';
import { KVM_TDX_MEASURE_MEMORY_REGION, type TdxCpuid, type TdxInitMemRegion, type TdxInitVcpu } from './commands.ts';
import * as S from './seamcalls.ts';
import { tdxReclaimPage } from './secure-ept.ts';
import {
  TD_STATE_RUNNABLE,
  VCPU_TD_STATE_INITIALIZED,
  VCPU_TD_STATE_UNINITIALIZED,
  type VcpuTdx,
  type VmTdx,
} from './vm-tdx.ts';

const SUBLEAF_NA = 0x1fe;
/** Subleaves that are asked for where a leaf has some. */
const MAX_SUBLEAVES = 16;

/**
 * KVM_TDX_INIT_VCPU.
 * @returns 0; -EINVAL: flags, or made already; -ENOMEM; -EIO
 * @kvm tdx.c tdx_vcpu_init
 */
export function tdxVcpuInit(vcpu: VcpuState, vp: VcpuTdx, command: MemoryEncryptCommand): number {
  if ((command.flags ?? 0) !== 0 || vp.state !== VCPU_TD_STATE_UNINITIALIZED) return -EINVAL;
  const { rcx } = command.data as TdxInitVcpu;
  const r = tdVcpuInit(vcpu, vp, rcx);
  if (r === 0) vp.state = VCPU_TD_STATE_INITIALIZED;
  return r;
}

/** @kvm tdx.c tdx_td_vcpu_init */
function tdVcpuInit(vcpu: VcpuState, vp: VcpuTdx, rcx: number): number {
  const { vm } = vcpu;
  const tdx = vm.tdx!;
  const { pages } = vm.host;
  const fresh = Array.from({ length: TDVPX_PAGES + 1 }, () => pages.allocPage());
  if (fresh.includes(-1)) {
    for (const pfn of fresh) if (pfn >= 0) pages.freePage(pfn);
    return -ENOMEM;
  }
  const [tdvpr, ...rest] = fresh as [number, ...number[]];
  if (S.tdxBugOn(vm, S.tdhVpCreate(vm, tdx, tdvpr), 'TDH_VP_CREATE')) {
    for (const pfn of fresh) pages.freePage(pfn);
    return -EIO;
  }
  vp.tdvpr = tdvpr;
  let bad = false;
  for (const pfn of rest) {
    bad ||= S.tdxBugOn(vm, S.tdhVpAddcx(vm, tdx, tdvpr, pfn), 'TDH_VP_ADDCX');
    if (bad) pages.freePage(pfn);
    else vp.tdcx.push(pfn);
  }
  if (bad || S.tdxBugOn(vm, S.tdhVpInit(vm, tdx, tdvpr, rcx, vcpu.id), 'TDH_VP_INIT')) return -EIO;
  vcpu.mpState = MP_STATE_RUNNABLE;
  return 0;
}

/** @kvm tdx.c tdx_vcpu_free */
export function tdxVcpuFree(vcpu: VcpuState): void {
  const { vm, tdx: vp } = vcpu;
  const tdx = vm.tdx;
  // While the TD has its key nothing can be taken back.
  if (vp === null || tdx === null || tdx.hkid >= 0) return;
  for (const pfn of [...vp.tdcx.splice(0), ...(vp.tdvpr >= 0 ? [vp.tdvpr] : [])]) {
    if (tdxReclaimPage(vm, tdx, pfn) === 0) vm.host.pages.freePage(pfn);
  }
  vp.tdvpr = -1;
  vp.state = VCPU_TD_STATE_UNINITIALIZED;
}

/** One page: mapped in the mirror, added, measured. @kvm tdx.c tdx_gmem_post_populate */
function populatePage(vcpu: VcpuState, tdx: VmTdx, gpa: number, source: number, measure: boolean): number {
  const { vm } = vcpu;
  const gfn = gpa / 4096;
  const slot = gfnToMemslot(vm, gfn);
  if (!kvmSlotCanBePrivate(slot)) return -EINVAL;
  // Only memory that is private already can be filled. @kvm guest_memfd.c kvm_gmem_populate
  if (!memIsPrivate(vm, gfn)) return -EINVAL;
  const page = vm.mm.userPage(source, false);
  if (page < 0) return page;
  const r = tdpMapPage(vcpu, gpa, PFERR_GUEST_FINAL_HI | PFERR_PRIVATE_ACCESS_HI);
  if (r < 0) return r;
  const err = S.tdhMemPageAdd(vm, tdx, gfn, vcpu.mmu.fault.pfn, page);
  if (err !== 0) return S.tdxOperandBusy(err) ? -EBUSY : -EIO;
  tdx.nrPremapped--;
  if (!measure) return 0;
  for (let at = 0; at < 4096; at += TDX_EXTENDMR_CHUNKSIZE) if (S.tdhMrExtend(vm, tdx, gpa + at) !== 0) return -EIO;
  return 0;
}

/**
 * KVM_TDX_INIT_MEM_REGION: the region moves on with every page that was added.
 * @returns 0; -EINVAL: vCPU not initialized, TD finished, flags, alignment, empty or shared range, no guest_memfd, memory not private;
 *   -EFAULT: the contents; -EBUSY, -EIO: the module
 * @kvm tdx.c tdx_vcpu_init_mem_region
 */
export function tdxInitMemRegion(vcpu: VcpuState, vp: VcpuTdx, command: MemoryEncryptCommand): number {
  const { vm } = vcpu;
  const tdx = vm.tdx!;
  if (vp.state !== VCPU_TD_STATE_INITIALIZED || tdx.state === TD_STATE_RUNNABLE) return -EINVAL;
  const flags = command.flags ?? 0;
  if ((flags & ~KVM_TDX_MEASURE_MEMORY_REGION) !== 0) return -EINVAL;
  const region = command.data as TdxInitMemRegion;
  const end = region.gpa + region.nrPages * 4096;
  const shared = vm.mmu.gfnDirectBits * 4096;
  if (region.sourceAddr % 4096 !== 0 || region.gpa % 4096 !== 0 || !(region.nrPages > 0) || end > shared)
    return -EINVAL;
  vm.locks.acquire(LOCK_SLOTS);
  let r = mmuReload(vcpu);
  while (r === 0 && region.nrPages > 0) {
    r = populatePage(vcpu, tdx, region.gpa, region.sourceAddr, (flags & KVM_TDX_MEASURE_MEMORY_REGION) !== 0);
    if (r !== 0) break;
    region.sourceAddr += 4096;
    region.gpa += 4096;
    region.nrPages--;
  }
  vm.locks.release(LOCK_SLOTS);
  return r === -EAGAIN ? -EFAULT : r;
}

/**
 * KVM_TDX_FINALIZE_VM: the measurement is finished, and the TD can run.
 * @returns 0; -EINVAL: no TD, finished already, or pages wait to be added; -EBUSY; -EIO
 * @kvm tdx.c tdx_td_finalize
 */
export function tdxFinalizeVm(vm: VmState, tdx: VmTdx): number {
  if (tdx.hkid < 0 || tdx.state === TD_STATE_RUNNABLE || tdx.nrPremapped !== 0) return -EINVAL;
  const err = S.tdhMrFinalize(vm, tdx);
  if (S.tdxOperandBusy(err)) return -EBUSY;
  if (S.tdxBugOn(vm, err, 'TDH_MR_FINALIZE')) return -EIO;
  tdx.state = TD_STATE_RUNNABLE;
  return 0;
}

/** One leaf, or subleaf, as the module virtualizes it; null when it does not. @kvm tdx.c tdx_read_cpuid */
function readCpuid(vm: VmState, leaf: number, subleaf: number): CpuidEntry | null {
  const tdx = vm.tdx!;
  const field = (leaf >= 0x80000000 ? 1 << 16 : 0) | ((leaf & 0x7f) << 9) | (subleaf < 0 ? SUBLEAF_NA : subleaf << 1);
  if (S.tdhMngRd(vm, tdx, field, MD_CPUID_VALUES_HI) !== 0) return null;
  const { rdx: eax, r8: ebx } = tdx.args;
  if (S.tdhMngRd(vm, tdx, field | 1, MD_CPUID_VALUES_HI) !== 0) return null;
  const { rdx: ecx, r8: edx } = tdx.args;
  const width = leaf === 0x80000008 ? 48 << 16 : 0;
  return { leaf, index: Math.max(subleaf, 0), eax: ((eax & ~(width && 0xff0000)) | width) >>> 0, ebx, ecx, edx };
}

/** KVM_TDX_GET_CPUID: what the TD sees. @kvm tdx.c tdx_vcpu_get_cpuid */
export function tdxGetCpuid(vcpu: VcpuState, command: MemoryEncryptCommand): number {
  const { vm } = vcpu;
  const entries: CpuidEntry[] = [];
  for (const base of [0, 0x80000000]) {
    const top = readCpuid(vm, base, -1);
    if (top === null) return -EIO;
    for (let leaf = base; leaf <= top.eax; leaf++) {
      const whole = readCpuid(vm, leaf, -1);
      if (whole !== null) {
        entries.push(whole);
        continue;
      }
      for (let subleaf = 0; subleaf < MAX_SUBLEAVES; subleaf++) {
        const entry = readCpuid(vm, leaf, subleaf);
        if (entry !== null) entries.push(entry);
      }
    }
  }
  (command.data as TdxCpuid).cpuid = entries;
  return 0;
}
