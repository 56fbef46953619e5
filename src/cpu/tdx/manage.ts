/** SEAMCALL leaves that make and end a TD, and that give memory back (@tdx ABI: TDH.MNG.*, TDH.PHYMEM.*, TDH.SYS.INIT). */
import * as T from '../../arch/tdx.ts';
import { VMX_EPTP_MT_WB, VMX_EPTP_PWL_4 } from '../../arch/vmx-controls.ts';
import {
  FIRST_PRIVATE_HKID,
  HKID_ASSIGNED,
  HKID_BLOCKED,
  HKID_CONFIGURED,
  HKID_FLUSHED,
  HKID_FREE,
  type ModuleState,
} from './module-state.ts';
import { PT_NDA, PT_TDCX, PT_TDR } from './pamt.ts';
import { clearSept } from './secure-ept.ts';
import {
  OP_INITIALIZED,
  OP_UNINITIALIZED,
  TD_BLOCKED,
  TD_HKID_ASSIGNED,
  TD_KEYS_CONFIGURED,
  TD_TEARDOWN,
  Td,
} from './td.ts';
import { cpuidConfigurable, readTdCpuid, virtualCpuid } from './td-cpuid.ts';

const { tdxStatus } = T;
const OK = tdxStatus(T.TDX_SUCCESS);

/** Attributes that a TD of this module may have: none of the debug ones. */
const ATTRIBUTES_ALLOWED_LO = T.TD_ATTR_SEPT_VE_DISABLE;
/** Extended features: x87, SSE and AVX, and PKRU. */
const XFAM_ALLOWED_LO = 0x207;
const XFAM_FIXED1_LO = 3;
/** Most vCPUs of a TD. */
const MAX_VCPUS_PER_TD = 576;
/** TSC frequencies in units of 25 MHz. */
const TSC_MIN = 4;
const TSC_MAX = 400;
/** Page of the TDCS that is the secure EPT's root. */
const TDCS_SEPT_ROOT = 2;

/** TDH.SYS.INIT, and with it what brings the module up: one domain of all memory. */
export function sysInit(module: ModuleState): number {
  if (module.initialized) return tdxStatus(T.TDX_SYS_INIT_NOT_PENDING);
  module.hkids[FIRST_PRIVATE_HKID] = HKID_CONFIGURED;
  module.initialized = true;
  return OK;
}

/** A frame that nobody owns, or -1. */
export function freeFrame(module: ModuleState, pa: number): number {
  const pfn = module.frameAt(pa);
  return pfn >= 0 && module.pamt.type[pfn] === PT_NDA ? pfn : -1;
}

/** TDH.MNG.CREATE: RCX TDR page, RDX key id. */
export function mngCreate(module: ModuleState, args: T.SeamArgs): number {
  const pfn = module.frameAt(args.rcx);
  if (pfn < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RCX);
  if (module.pamt.type[pfn] !== PT_NDA) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  const hkid = args.rdx;
  if (!(hkid > FIRST_PRIVATE_HKID && hkid < module.hkids.length)) {
    return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RDX);
  }
  if (module.hkids[hkid] !== HKID_FREE) return tdxStatus(T.TDX_HKID_NOT_FREE, T.OPERAND_ID_RDX);
  module.pamt.give(pfn, PT_TDR, pfn);
  module.hkids[hkid] = HKID_ASSIGNED;
  module.tds.set(pfn, new Td(pfn, hkid));
  return OK;
}

/** TDH.MNG.KEY.CONFIG: RCX TDR. */
export function mngKeyConfig(module: ModuleState, args: T.SeamArgs): number {
  const td = module.tdAt(args.rcx);
  if (td === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  if (td.lifecycle === TD_KEYS_CONFIGURED) return tdxStatus(T.TDX_KEY_CONFIGURED, T.OPERAND_ID_RCX);
  if (td.lifecycle !== TD_HKID_ASSIGNED) return tdxStatus(T.TDX_LIFECYCLE_STATE_INCORRECT, T.OPERAND_ID_RCX);
  module.hkids[td.hkid] = HKID_CONFIGURED;
  td.lifecycle = TD_KEYS_CONFIGURED;
  return OK;
}

/** TDH.MNG.ADDCX: RCX page, RDX TDR. */
export function mngAddcx(module: ModuleState, args: T.SeamArgs): number {
  const td = module.tdAt(args.rdx);
  if (td === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RDX);
  if (td.lifecycle !== TD_KEYS_CONFIGURED) return tdxStatus(T.TDX_TD_KEYS_NOT_CONFIGURED, T.OPERAND_ID_RDX);
  if (module.frameAt(args.rcx) < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RCX);
  const pfn = freeFrame(module, args.rcx);
  if (pfn < 0) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  if (td.tdcx.length >= T.TDCX_PAGES) return tdxStatus(T.TDX_TDCX_NUM_INCORRECT, T.OPERAND_ID_TDR);
  takePage(module, td, pfn, PT_TDCX);
  td.tdcx.push(pfn);
  return OK;
}

/** The page becomes the TD's, with nothing in it. */
export function takePage(module: ModuleState, td: Td, pfn: number, type: number): void {
  module.memory.noteWrite(pfn);
  module.memory.u8.fill(0, pfn * 4096, (pfn + 1) * 4096);
  module.pamt.give(pfn, type, td.tdr);
  td.children++;
}

/** The page is the host's again. Nothing of what was in it can be read: zeros come until it is written. */
export function returnPage(module: ModuleState, td: Td, pfn: number): void {
  module.memory.noteWrite(pfn);
  module.memory.u8.fill(0, pfn * 4096, (pfn + 1) * 4096);
  module.pamt.free(pfn);
  td.children--;
}

/** TDH.MNG.INIT: RCX TDR, RDX TD_PARAMS. A bad parameter is named by its operand id. */
export function mngInit(module: ModuleState, args: T.SeamArgs): number {
  const td = module.tdAt(args.rcx);
  if (td === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  if (td.lifecycle !== TD_KEYS_CONFIGURED) return tdxStatus(T.TDX_TD_KEYS_NOT_CONFIGURED, T.OPERAND_ID_RCX);
  if (td.tdcx.length < T.TDCX_PAGES) return tdxStatus(T.TDX_TDCS_NOT_ALLOCATED, T.OPERAND_ID_RCX);
  if (td.opState !== OP_UNINITIALIZED) return tdxStatus(T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE);
  if (args.rdx % T.TD_PARAMS_SIZE !== 0 || args.rdx + T.TD_PARAMS_SIZE > module.memory.u8.length) {
    return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RDX);
  }
  const bytes = module.memory.u8.slice(args.rdx, args.rdx + T.TD_PARAMS_SIZE);
  const params = new DataView(bytes.buffer);
  const bad = checkParams(module, params);
  if (bad !== 0) return tdxStatus(T.TDX_OPERAND_INVALID, bad);
  td.attributesLo = params.getInt32(T.TD_PARAMS_ATTRIBUTES, true);
  td.attributesHi = params.getInt32(T.TD_PARAMS_ATTRIBUTES + 4, true);
  td.xfamLo = params.getInt32(T.TD_PARAMS_XFAM, true);
  td.xfamHi = params.getInt32(T.TD_PARAMS_XFAM + 4, true);
  td.maxVcpus = params.getUint16(T.TD_PARAMS_MAX_VCPUS, true);
  td.gpaw = T.GPAW_48;
  td.mrConfigId = bytes.slice(T.TD_PARAMS_MRCONFIGID, T.TD_PARAMS_MRCONFIGID + 48);
  td.mrOwner = bytes.slice(T.TD_PARAMS_MROWNER, T.TD_PARAMS_MROWNER + 48);
  td.mrOwnerConfig = bytes.slice(T.TD_PARAMS_MROWNERCONFIG, T.TD_PARAMS_MROWNERCONFIG + 48);
  td.cpuid = virtualCpuid(module.profile, params);
  td.septRoot = td.tdcx[TDCS_SEPT_ROOT]!;
  clearSept(module.memory.i32, td.septRoot);
  td.opState = OP_INITIALIZED;
  return OK;
}

/** 0, or the operand id of the parameter that cannot be. */
function checkParams(module: ModuleState, params: DataView): number {
  const low = (at: number): number => params.getInt32(at, true);
  if ((low(T.TD_PARAMS_ATTRIBUTES) & ~ATTRIBUTES_ALLOWED_LO) !== 0 || low(T.TD_PARAMS_ATTRIBUTES + 4) !== 0) {
    return T.OPERAND_ID_ATTRIBUTES;
  }
  const xfam = low(T.TD_PARAMS_XFAM);
  if ((xfam & XFAM_FIXED1_LO) !== XFAM_FIXED1_LO || (xfam & ~XFAM_ALLOWED_LO) !== 0) return T.OPERAND_ID_XFAM;
  if (low(T.TD_PARAMS_XFAM + 4) !== 0) return T.OPERAND_ID_XFAM;
  const vcpus = params.getUint16(T.TD_PARAMS_MAX_VCPUS, true);
  if (vcpus === 0 || vcpus > MAX_VCPUS_PER_TD) return T.OPERAND_ID_MAX_VCPUS;
  // Four levels are all that this hardware has, and GPAW 52 needs five.
  if (low(T.TD_PARAMS_EPTP_CONTROLS) !== (VMX_EPTP_MT_WB | VMX_EPTP_PWL_4)) return T.OPERAND_ID_EPTP_CONTROLS;
  if ((low(T.TD_PARAMS_CONFIG_FLAGS) & T.TDX_CONFIG_FLAGS_MAX_GPAW) !== 0) return T.OPERAND_ID_EXEC_CONTROLS;
  const tsc = params.getUint16(T.TD_PARAMS_TSC_FREQUENCY, true);
  if (tsc < TSC_MIN || tsc > TSC_MAX) return T.OPERAND_ID_RDX;
  return cpuidConfigurable(module.profile, params) ? 0 : T.OPERAND_ID_CPUID_CONFIG;
}

/**
 * TDH.MNG.RD: RCX TDR, field id in R8 (upper half) and RDX (lower half); the value comes back in R8 (upper) and RDX (lower).
 * @partial CPUID_VALUES alone
 */
export function mngRd(module: ModuleState, args: T.SeamArgs): number {
  const td = module.tdAt(args.rcx);
  if (td === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  if (td.opState === OP_UNINITIALIZED) return tdxStatus(T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE);
  if (args.r8 !== T.MD_CPUID_VALUES_HI) return tdxStatus(T.TDX_METADATA_FIELD_ID_INCORRECT, T.OPERAND_ID_RDX);
  const value = readTdCpuid(td, args.rdx);
  if (value === null) return tdxStatus(T.TDX_METADATA_FIELD_NOT_READABLE, T.OPERAND_ID_RDX);
  [args.rdx, args.r8] = value;
  return OK;
}

/** TDH.MNG.VPFLUSHDONE: RCX TDR. */
export function mngVpFlushDone(module: ModuleState, args: T.SeamArgs): number {
  const td = module.tdAt(args.rcx);
  if (td === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  if (td.lifecycle !== TD_KEYS_CONFIGURED) return tdxStatus(T.TDX_LIFECYCLE_STATE_INCORRECT, T.OPERAND_ID_RCX);
  if (td.vcpus.some((pfn) => module.vcpus.get(pfn)!.associated)) return tdxStatus(T.TDX_FLUSHVP_NOT_DONE);
  td.lifecycle = TD_BLOCKED;
  module.hkids[td.hkid] = HKID_BLOCKED;
  return OK;
}

/** TDH.PHYMEM.CACHE.WB: no line with a blocked key stays in a cache. */
export function phymemCacheWb(module: ModuleState): number {
  let any = false;
  for (let i = 0; i < module.hkids.length; i++) {
    if (module.hkids[i] !== HKID_BLOCKED) continue;
    module.hkids[i] = HKID_FLUSHED;
    any = true;
  }
  return any ? OK : tdxStatus(T.TDX_NO_HKID_READY_TO_WBCACHE);
}

/** TDH.MNG.KEY.FREEID: RCX TDR. */
export function mngKeyFreeid(module: ModuleState, args: T.SeamArgs): number {
  const td = module.tdAt(args.rcx);
  if (td === null) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  if (td.lifecycle === TD_HKID_ASSIGNED) {
    // The key was never used.
    module.hkids[td.hkid] = HKID_FLUSHED;
  } else if (td.lifecycle !== TD_BLOCKED) return tdxStatus(T.TDX_LIFECYCLE_STATE_INCORRECT, T.OPERAND_ID_RCX);
  if (module.hkids[td.hkid] !== HKID_FLUSHED) return tdxStatus(T.TDX_WBCACHE_NOT_COMPLETE);
  module.hkids[td.hkid] = HKID_FREE;
  td.lifecycle = TD_TEARDOWN;
  return OK;
}

/** TDH.PHYMEM.PAGE.WBINVD: RCX page, with its key id. A model without caches has nothing to write back. */
export function phymemPageWbinvd(module: ModuleState, args: T.SeamArgs): number {
  const pfn = module.frameAt(args.rcx);
  if (pfn < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RCX);
  return module.pamt.type[pfn] === PT_NDA ? OK : tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
}

/** TDH.PHYMEM.PAGE.RECLAIM: RCX page of a TD that is torn down; its type, owner and size come back. */
export function phymemPageReclaim(module: ModuleState, args: T.SeamArgs): number {
  const pfn = module.frameAt(args.rcx);
  if (pfn < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RCX);
  const { pamt } = module;
  const type = pamt.type[pfn]!;
  const owner = pamt.owner[pfn]!;
  args.rcx = type;
  args.rdx = owner * 4096;
  args.r8 = T.TDX_LEVEL_4K;
  if (type === PT_NDA) return tdxStatus(T.TDX_PAGE_METADATA_INCORRECT, T.OPERAND_ID_RCX);
  const td = module.tds.get(owner)!;
  if (td.lifecycle !== TD_TEARDOWN) return tdxStatus(T.TDX_LIFECYCLE_STATE_INCORRECT, T.OPERAND_ID_TDR);
  if (type === PT_TDR) {
    if (td.children !== 0) return tdxStatus(T.TDX_TD_ASSOCIATED_PAGES_EXIST, T.OPERAND_ID_RCX);
    module.tds.delete(pfn);
    pamt.free(pfn);
    return OK;
  }
  module.vcpus.delete(pfn);
  returnPage(module, td, pfn);
  return OK;
}

/** TDH.PHYMEM.PAGE.RDMD: RCX page; type, owner's TDR and size come back. */
export function phymemPageRdmd(module: ModuleState, args: T.SeamArgs): number {
  const pfn = module.frameAt(args.rcx);
  if (pfn < 0) return tdxStatus(T.TDX_OPERAND_INVALID, T.OPERAND_ID_RCX);
  args.rcx = module.pamt.type[pfn]!;
  args.rdx = module.pamt.owner[pfn]! * 4096;
  args.r8 = T.TDX_LEVEL_4K;
  return OK;
}
