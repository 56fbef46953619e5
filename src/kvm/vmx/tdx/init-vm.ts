/** A TD is made and unmade (@kvm tdx.c tdx_td_init, tdx_mmu_release_hkid, tdx_vm_destroy). */
import * as T from '../../../arch/tdx.ts';
import { VMX_EPTP_MT_WB, VMX_EPTP_PWL_4 } from '../../../arch/vmx-controls.ts';
import type { CpuidEntry } from '../../../cpu/profile.ts';
import { E2BIG, EBUSY, EINVAL, EIO, ENOMEM, ENOSPC } from '../../../host/errno.ts';
import type { MemoryEncryptCommand } from '../../confidential.ts';
import type { VmState } from '../../vm-state.ts';
import type { TdxCapabilities, TdxInitVm } from './commands.ts';
import * as S from './seamcalls.ts';
import { SecureEpt, tdxClearPage, tdxReclaimPage } from './secure-ept.ts';
import { TD_STATE_INITIALIZED, TD_STATE_UNINITIALIZED, type VmTdx } from './vm-tdx.ts';

/** @kvm tdx.c KVM_SUPPORTED_TD_ATTRS */
export const SUPPORTED_ATTRS = T.TD_ATTR_SEPT_VE_DISABLE;
/** x87, SSE and AVX, as far as the processor has them, and PKRU. */
const XFAM_KVM = 0x207;
const KVM_MAX_CPUID_ENTRIES = 256;
const MAX_VCPUS = 255;
/** A tick is a retired instruction: 1 GHz, in units of 25 MHz. */
const TSC_25MHZ = 40;

function supportedXfam(vm: VmState): number {
  return (vm.profile.cpuid.find((e) => e.leaf === 0xd && e.index === 0)?.eax ?? 3) & XFAM_KVM;
}

/** @kvm tdx.c tdx_get_capabilities */
export function tdxGetCapabilities(vm: VmState, command: MemoryEncryptCommand): number {
  if ((command.flags ?? 0) !== 0) return -EINVAL;
  const out = command.data as TdxCapabilities;
  out.supportedAttrs = SUPPORTED_ATTRS;
  out.supportedXfam = supportedXfam(vm);
  const all = 0xffffffff;
  out.cpuid = vm.processor.tdx.cpuidConfig.map(({ leaf, subleaf }) => ({
    leaf,
    index: Math.max(subleaf, 0),
    eax: all,
    ebx: all,
    ecx: all,
    edx: all,
  }));
  return 0;
}

/** GPAW from CPUID 80000008 EAX[23:16]: 48, as five levels of EPT are not there. @kvm tdx.c setup_tdparams_eptp_controls */
function checkGuestWidth(cpuid: readonly CpuidEntry[]): number {
  const entry = cpuid.find((e) => e.leaf === 0x80000008);
  return entry !== undefined && ((entry.eax >>> 16) & 0xff) === T.GPAW_48 ? 0 : -EINVAL;
}

/** TD_PARAMS, or a negative errno. @kvm tdx.c setup_tdparams */
function setupTdParams(vm: VmState, init: TdxInitVm): Uint8Array | number {
  if (vm.vcpus.length > 0) return -EBUSY;
  if ((init.attributes & ~SUPPORTED_ATTRS) !== 0 || (init.xfam & ~supportedXfam(vm)) !== 0) return -EINVAL;
  const width = checkGuestWidth(init.cpuid);
  if (width !== 0) return width;
  const params = new Uint8Array(T.TD_PARAMS_SIZE);
  const view = new DataView(params.buffer);
  view.setInt32(T.TD_PARAMS_ATTRIBUTES, init.attributes, true);
  view.setInt32(T.TD_PARAMS_XFAM, init.xfam, true);
  view.setUint16(T.TD_PARAMS_MAX_VCPUS, MAX_VCPUS, true);
  view.setInt32(T.TD_PARAMS_EPTP_CONTROLS, VMX_EPTP_MT_WB | VMX_EPTP_PWL_4, true);
  view.setUint16(T.TD_PARAMS_TSC_FREQUENCY, TSC_25MHZ, true);
  if (init.mrconfigid !== undefined) params.set(init.mrconfigid, T.TD_PARAMS_MRCONFIGID);
  if (init.mrowner !== undefined) params.set(init.mrowner, T.TD_PARAMS_MROWNER);
  if (init.mrownerconfig !== undefined) params.set(init.mrownerconfig, T.TD_PARAMS_MROWNERCONFIG);
  return setupCpuid(vm, init.cpuid, view) ? params : -EINVAL;
}

/** Every entry has its place, or none is taken. @kvm tdx.c setup_tdparams_cpuids */
function setupCpuid(vm: VmState, cpuid: readonly CpuidEntry[], view: DataView): boolean {
  let copied = 0;
  vm.processor.tdx.cpuidConfig.forEach(({ leaf, subleaf }, n) => {
    const entry = cpuid.find((e) => e.leaf === leaf && e.index === Math.max(subleaf, 0));
    if (entry === undefined) return;
    copied++;
    const eax = leaf === 0x80000008 ? entry.eax & ~0xff0000 : entry.eax;
    [eax, entry.ebx, entry.ecx, entry.edx].forEach((word, i) => {
      view.setUint32(T.TD_PARAMS_CPUID + 16 * n + 4 * i, word >>> 0, true);
    });
  });
  return copied === cpuid.length;
}

/** A key id that nobody has, or -ENOSPC. @kvm virt/vmx/tdx/tdx.c tdx_guest_keyid_alloc */
function allocHkid(vm: VmState): number {
  const module = vm.processor.tdx;
  const [first, end] = module.guestKeyIds;
  for (let id = first; id < end; id++) {
    if (module.hkids[id] === 0) return id;
  }
  return -ENOSPC;
}

/** The TD's control pages, and its key. @kvm tdx.c __tdx_td_init */
function tdInit(vm: VmState, tdx: VmTdx, params: Uint8Array, command: MemoryEncryptCommand): number {
  const hkid = allocHkid(vm);
  if (hkid < 0) return hkid;
  const { pages } = vm.host;
  const fresh = Array.from({ length: T.TDCX_PAGES + 2 }, () => pages.allocPage());
  if (fresh.includes(-1)) {
    for (const pfn of fresh) if (pfn >= 0) pages.freePage(pfn);
    return -ENOMEM;
  }
  const [tdr, scratch, ...tdcs] = fresh as [number, number, ...number[]];
  tdx.hkid = hkid;
  tdx.tdr = tdr;
  vm.memory.u8.set(params, scratch * 4096);
  let failed = S.tdhMngCreate(vm, tdx) || S.tdhMngKeyConfig(vm, tdx);
  for (const pfn of tdcs) {
    failed ||= S.tdhMngAddcx(vm, tdx, pfn);
    if (failed === 0) tdx.tdcs.push(pfn);
    else pages.freePage(pfn);
  }
  const added = failed === 0;
  failed ||= S.tdhMngInit(vm, tdx, scratch * 4096);
  pages.freePage(scratch);
  if (failed === 0) return 0;
  const invalid = added && T.tdxCode(failed) === T.TDX_OPERAND_INVALID;
  if (invalid) {
    // What userspace gave was no good: it is told what.
    command.error = T.tdxDetail(failed);
    command.errorHi = T.tdxCode(failed) | 0;
  } else vm.log.warnOnOnce(true, '__tdx_td_init', `SEAMCALL failed: ${T.tdxStatusText(failed)}`);
  releaseHkid(vm, tdx);
  reclaimTdControlPages(vm, tdx);
  return invalid ? -EINVAL : -EIO;
}

/**
 * KVM_TDX_INIT_VM.
 * @returns 0; -EINVAL: made already, flags, attributes, XFAM, CPUID, or what the module does not take (then named in the command's
 *   error); -EBUSY: there are vCPUs; -E2BIG; -ENOSPC: no key id is free; -ENOMEM; -EIO
 * @kvm tdx.c tdx_td_init
 */
export function tdxInitVm(vm: VmState, tdx: VmTdx, command: MemoryEncryptCommand): number {
  if (tdx.state !== TD_STATE_UNINITIALIZED || (command.flags ?? 0) !== 0) return -EINVAL;
  const init = command.data as TdxInitVm;
  if (init.cpuid.length > KVM_MAX_CPUID_ENTRIES) return -E2BIG;
  const params = setupTdParams(vm, init);
  if (typeof params === 'number') return params;
  const r = tdInit(vm, tdx, params, command);
  if (r !== 0) return r;
  tdx.attributes = init.attributes;
  tdx.xfam = init.xfam;
  vm.mmu.gfnDirectBits = T.SHARED_GFN_48;
  vm.mmu.external = new SecureEpt(vm, tdx);
  tdx.state = TD_STATE_INITIALIZED;
  return 0;
}

/** No vCPU and no cache holds anything of the TD any more, and its key is free. @kvm tdx.c tdx_mmu_release_hkid */
export function releaseHkid(vm: VmState, tdx: VmTdx): void {
  if (tdx.hkid < 0) return;
  for (const vcpu of vm.vcpus) {
    const tdvpr = vcpu.tdx?.tdvpr ?? -1;
    if (tdvpr >= 0) S.tdhVpFlush(vm, tdx, tdvpr);
  }
  // A TD whose key was never used has nothing to be flushed.
  S.tdhMngVpflushdone(vm, tdx);
  S.tdhPhymemCacheWb(vm, tdx);
  if (!S.tdxBugOn(vm, S.tdhMngKeyFreeid(vm, tdx), 'TDH_MNG_KEY_FREEID')) tdx.hkid = -1;
}

/** @kvm tdx.c tdx_reclaim_td_control_pages */
export function reclaimTdControlPages(vm: VmState, tdx: VmTdx): void {
  if (tdx.hkid >= 0) return;
  for (const pfn of tdx.tdcs.splice(0)) {
    if (tdxReclaimPage(vm, tdx, pfn) === 0) vm.host.pages.freePage(pfn);
  }
  if (tdx.tdr < 0) return;
  const err = S.tdhPhymemPageReclaim(vm, tdx, tdx.tdr);
  if (vm.log.warnOnOnce(err !== 0, 'tdx_reclaim_td_control_pages', `the TDR stays: ${T.tdxStatusText(err)}`)) return;
  tdxClearPage(vm, tdx.tdr);
  vm.host.pages.freePage(tdx.tdr);
  tdx.tdr = -1;
  tdx.state = TD_STATE_UNINITIALIZED;
}
