/**
 * What the parts of the processor share: the state in linear memory, the TLB and walkers, the intercepts of the control block in force,
 * the guest's mode, and the ways in which an instruction can end. Statuses are STATUS_* of state.ts.
 */
import { PFERR_RSVD } from '../../arch/error-code.ts';
import { GP_VECTOR, NM_VECTOR, SS_VECTOR, UD_VECTOR, VC_VECTOR } from '../../arch/exceptions.ts';
import { isCanonical } from '../../arch/linear-address.ts';
import { PAGING_5LEVEL } from '../../arch/paging.ts';
import { CR0_AM, CR4_PCIDE, CR4_SMAP, EFER_LMA, RFLAGS_AC, RFLAGS_RF, RFLAGS_VM } from '../../arch/registers.ts';
import { SVM_EXIT_NPF, V_GIF_ENABLE_MASK, V_GIF_MASK, VMCB_ATTR_DB, VMCB_ATTR_L } from '../../arch/vmcb.ts';
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import { GuestWalker } from '../mmu/guest-walker.ts';
import { Tlb } from '../mmu/tlb.ts';
import type { HardwareProfile } from '../profile.ts';
import { isAutomaticExit } from '../snp/communication.ts';
import type { Snp } from '../snp/snp.ts';
import {
  EVENT_AT,
  EXIT_CODE_AT,
  EXIT_INFO1_AT,
  EXIT_INFO2_AT,
  FAULT_ERROR,
  FAULT_HAS_ERROR,
  FAULT_VECTOR,
  INSNS_AT,
  INT_SHADOW_AT,
  MMU_ALIGNED_USER,
  RF_RIP_AT,
  RF_SINCE_AT,
  SEG_ATTR,
  STATUS_EXCEPTION,
  STATUS_EXIT,
  STATUS_OK,
  STATUS_RELOAD,
} from '../state.ts';
import { ApicVirtualization } from '../vmx/apic-virtualization.ts';
import { Breakpoints } from './breakpoints.ts';
import { type CodeCache, NO_CODE } from './code-cache.ts';
import {
  cr4Known,
  SVME_ADDRESS_CHECK,
  svmFeature,
  XSTATE_HAS_COMPACT,
  XSTATE_HAS_XGETBV1,
  xcr0Known,
  xstateFeature,
} from './features.ts';
import type { Shutdown } from './shutdown.ts';
import { Stack } from './stack.ts';
import {
  SEG_WORDS,
  W_CODE_MODE,
  W_CPL,
  W_CR0,
  W_CR3,
  W_CR4,
  W_EFER,
  W_MMU_INDEX,
  W_PKRU,
  W_RFLAGS,
  W_RIP,
  W_SEG,
} from './words.ts';

/** Bits that decide what a page may be used for, beside the page tables: a change empties the TLB. */
const CR0_PAGING = 0x80010001 | 0;
const CR4_PAGING = 0x007210b0;

export class Core {
  readonly memory: PhysicalMemory;
  readonly i32: Int32Array;
  readonly u8: Uint8Array;
  readonly profile: HardwareProfile;
  readonly tlb: Tlb;
  readonly walker: GuestWalker;
  /** The stack of the transfer in progress. */
  readonly stack: Stack;
  readonly breakpoints: Breakpoints;
  code: CodeCache = NO_CODE;

  /** VMRUN, VMLOAD and VMSAVE are intercepted before their address is looked at (CPUID 8000000A EDX, SvmeAddrChk). */
  readonly interceptBeforeVmcbCheck: boolean;
  /** XCR0 bits that exist. */
  readonly xcr0Known: number;
  /** The compacted form of XSAVE's area, and XGETBV with index 1. */
  readonly hasXsavec: boolean;
  readonly hasXgetbv1: boolean;
  /** CR4 bits that exist. */
  readonly cr4Known: number;

  /** Of the last triple fault. */
  shutdown: Shutdown | null = null;

  // The intercepts of the control block in force.
  interceptCr = 0;
  interceptDr = 0;
  interceptExceptions = 0;
  intercept3 = 0;
  intercept4 = 0;
  intercept5 = 0;
  /** VMCB INT_CTL as it stands: V_TPR is kept in CR8 meanwhile. */
  intCtl = 0;
  /** PAUSEs that may pass before one is intercepted. */
  pauseCount = 0;
  /** Physical addresses of the permission maps, in bytes: of the lower and the upper half of the ports, and of the MSRs. */
  iopmBase = 0;
  iopmHighBase = 0;
  msrpmBase = 0;
  /** What the processor has of encrypted guests; null when it has none. */
  snp: Snp | null = null;
  /** The guest's registers are encrypted: exits that are not automatic become #VC (@apm 15.35.4). */
  encryptedState = false;
  /** The control block in force is a VMCS, and these are of it: bits of CR0 and CR4 that the host owns, and what reads of them show. */
  vmx = false;
  /** ... and that VMCS is a TD's. */
  td = false;
  cr0Mask = 0;
  cr0Shadow = 0;
  cr4Mask = 0;
  cr4Shadow = 0;
  /** Which page faults the exception bitmap means: those whose error code, masked, is the match, or with its bit clear all others. */
  pfMask = 0;
  pfMatch = 0;
  readonly apic = new ApicVirtualization();
  /** Secondary processor-based controls. */
  secondaryControls = 0;
  /** NMIs are blocked until IRET. */
  nmiBlocked = false;
  /** An IRET that let them in again has faulted, when so many instructions had retired (low half); NaN: none. */
  unblockingFault = Number.NaN;
  /** Linear address of the last translation that failed below the guest's own tables. */
  linearLo = 0;
  linearHi = 0;
  /** The event whose delivery has begun and not ended, in EVENTINJ form, and its error code: EXITINTINFO of an exit meanwhile. */
  get event(): number {
    return this.i32[EVENT_AT >> 2]!;
  }
  set event(event: number) {
    this.i32[EVENT_AT >> 2] = event;
  }
  eventError = 0;
  /** Bytes of the instruction that raised it, when one did on purpose; and whether the flags it pushes have RF set. */
  eventLength = 0;
  eventResumes = false;
  /** Address of the decoded record of the instruction in `system`, 0 outside: its length gives the next RIP of an exit. */
  record = 0;

  /** The translation is for compiled code, which nothing may happen to meanwhile: -2 when something would. */
  reaching = false;

  /** Status that goes with a failed translation or access. */
  status = STATUS_OK;
  /** What the last `read` read. */
  lo = 0;
  hi = 0;

  /** Linear address that `linear` computed. */
  addressLo = 0;
  addressHi = 0;

  private role0 = 0;
  private role4 = 0;
  private roleNx = 0;
  private rolePkru = 0;

  /** PKRU as the TLB's entries have it resolved. */
  get pkruInForce(): number {
    return this.rolePkru;
  }

  constructor(memory: PhysicalMemory, profile: HardwareProfile) {
    this.memory = memory;
    this.i32 = memory.i32;
    this.u8 = memory.u8;
    this.profile = profile;
    this.interceptBeforeVmcbCheck = svmFeature(profile, SVME_ADDRESS_CHECK);
    this.xcr0Known = xcr0Known(profile);
    this.hasXsavec = xstateFeature(profile, XSTATE_HAS_COMPACT);
    this.hasXgetbv1 = xstateFeature(profile, XSTATE_HAS_XGETBV1);
    this.cr4Known = cr4Known(profile);
    this.tlb = new Tlb(memory, profile.walkCaches);
    this.walker = new GuestWalker(memory, profile, this.tlb.walks);
    this.stack = new Stack(this);
    this.breakpoints = new Breakpoints(this);
  }

  /** RFLAGS whole, with RF only while it is meant. */
  flags(): number {
    const i32 = this.i32;
    const flags = this.code.readRflags();
    if ((flags & RFLAGS_RF) === 0) return flags;
    const rf = RF_RIP_AT >> 2;
    const reach = this.profile.resumeFlagReach;
    const near = (i32[W_RIP]! - i32[rf]!) >>> 0 < reach;
    // A loop comes back to where the flag was meant.
    const recent = (i32[INSNS_AT >> 2]! - i32[RF_SINCE_AT >> 2]!) >>> 0 <= reach;
    return near && recent && i32[rf + 1] === i32[W_RIP + 1] ? flags : flags & ~RFLAGS_RF;
  }

  // Endings.

  /** Raises `vector` without an error code. */
  raise(vector: number): number {
    const i32 = this.i32;
    i32[FAULT_VECTOR >> 2] = vector;
    i32[FAULT_HAS_ERROR >> 2] = 0;
    i32[FAULT_ERROR >> 2] = 0;
    return STATUS_EXCEPTION;
  }

  /** Raises `vector` with `error`. */
  raiseError(vector: number, error: number): number {
    const i32 = this.i32;
    i32[FAULT_VECTOR >> 2] = vector;
    i32[FAULT_HAS_ERROR >> 2] = 1;
    i32[FAULT_ERROR >> 2] = error;
    return STATUS_EXCEPTION;
  }

  gp(error = 0): number {
    return this.raiseError(GP_VECTOR, error);
  }

  ud(): number {
    return this.raise(UD_VECTOR);
  }

  nm(): number {
    return this.raise(NM_VECTOR);
  }

  ss(error = 0): number {
    return this.raiseError(SS_VECTOR, error);
  }

  /** Leaves the guest with `code` (a #VMEXIT); RIP stays where it is. */
  exit(code: number, info1 = 0, info1Hi = 0, info2 = 0, info2Hi = 0): number {
    const i32 = this.i32;
    if (this.encryptedState && (!isAutomaticExit(code) || (code === SVM_EXIT_NPF && (info1 & PFERR_RSVD) !== 0))) {
      return this.raiseError(VC_VECTOR, code);
    }
    i32[EXIT_CODE_AT >> 2] = code;
    i32[EXIT_INFO1_AT >> 2] = info1;
    i32[(EXIT_INFO1_AT >> 2) + 1] = info1Hi;
    i32[EXIT_INFO2_AT >> 2] = info2;
    i32[(EXIT_INFO2_AT >> 2) + 1] = info2Hi;
    return STATUS_EXIT;
  }

  /** RIP of the instruction that follows the running one of `length` bytes, into `lo` and `hi`. */
  nextRip(length: number): void {
    const i32 = this.i32;
    const low = (i32[W_RIP]! >>> 0) + length;
    this.lo = low | 0;
    this.hi = this.mode64() ? (i32[W_RIP + 1]! + (low >= 0x1_0000_0000 ? 1 : 0)) | 0 : 0;
  }

  /** The instruction of `length` bytes is done and ends its block: RIP moves on. */
  reload(length: number): number {
    this.nextRip(length);
    this.setRip(this.lo, this.hi);
    return STATUS_RELOAD;
  }

  /** Interrupts are held off for one more instruction, by SHADOW_STI or SHADOW_STACK; the interpreter ends that. */
  shadow(kind: number): void {
    this.i32[INT_SHADOW_AT >> 2] = kind;
  }

  /** STGI and CLGI on a processor with a virtual GIF that the control block enables; else #UD (@apm 15.33). */
  setVirtualGif(on: boolean): number {
    if (!this.profile.vgif || (this.intCtl & V_GIF_ENABLE_MASK) === 0) return this.ud();
    this.intCtl = on ? this.intCtl | V_GIF_MASK : this.intCtl & ~V_GIF_MASK;
    return STATUS_OK;
  }

  // Mode.

  cpl(): number {
    return this.i32[W_CPL]!;
  }

  longMode(): boolean {
    return (this.i32[W_EFER]! & EFER_LMA) !== 0;
  }

  /** 64-bit code is running. */
  mode64(): boolean {
    return this.i32[W_CODE_MODE] === 2;
  }

  protectedMode(): boolean {
    return (this.i32[W_CR0]! & 1) !== 0;
  }

  virtual8086(): boolean {
    return (this.i32[W_RFLAGS]! & RFLAGS_VM) !== 0;
  }

  /** Segments are paragraphs, and not descriptors: real and virtual-8086 mode. */
  realSegments(): boolean {
    return !this.protectedMode() || this.virtual8086();
  }

  /** Keeps CODE_MODE and MMU_INDEX in step with CS, EFER, CPL, CR4 and RFLAGS.AC. HOT */
  updateMode(): void {
    const i32 = this.i32;
    const attributes = i32[W_SEG + SEG_WORDS + (SEG_ATTR >> 2)]!;
    const long = (i32[W_EFER]! & EFER_LMA) !== 0;
    i32[W_CODE_MODE] = long && (attributes & VMCB_ATTR_L) !== 0 ? 2 : (attributes & VMCB_ATTR_DB) !== 0 ? 1 : 0;
    this.updateMmuIndex();
  }

  /** After CPL, RFLAGS.AC, CR0.AM or CR4.SMAP changed. HOT */
  updateMmuIndex(): void {
    const i32 = this.i32;
    if ((i32[W_RFLAGS]! & RFLAGS_AC) === 0) i32[W_MMU_INDEX] = i32[W_CPL] === 3 ? 1 : 0;
    else if (i32[W_CPL] === 3) {
      const checked = (i32[W_CR0]! & CR0_AM) !== 0 && this.profile.alignmentChecks;
      i32[W_MMU_INDEX] = checked ? MMU_ALIGNED_USER : 1;
    } else i32[W_MMU_INDEX] = (i32[W_CR4]! & CR4_SMAP) !== 0 ? 2 : 0;
  }

  /**
   * After CR0, CR3, CR4, EFER.NX or PKRU may have changed: the walker takes them over. Entries of the TLB have their permissions
   * resolved, so a change of what resolves them empties it. HOT
   */
  updatePaging(): void {
    const i32 = this.i32;
    const cr0 = i32[W_CR0]!;
    const cr4 = i32[W_CR4]!;
    const efer = i32[W_EFER]!;
    const pkru = i32[W_PKRU]!;
    if (!this.walker.configure(cr0, i32[W_CR3]!, i32[W_CR3 + 1]!, cr4, efer, pkru)) return;
    const role0 = cr0 & CR0_PAGING;
    const role4 = cr4 & CR4_PAGING;
    const nx = efer & 0xc00;
    if (role0 !== this.role0 || role4 !== this.role4 || nx !== this.roleNx || pkru !== this.rolePkru) {
      this.role0 = role0;
      this.role4 = role4;
      this.roleNx = nx;
      this.rolePkru = pkru;
      this.tlb.flushAll();
    }
  }

  /** After a restore of the state: the TLB in memory is taken as it is, with the paging roles that go with it. */
  adoptState(): void {
    this.tlb.adopt();
    const i32 = this.i32;
    this.walker.configure(i32[W_CR0]!, i32[W_CR3]!, i32[W_CR3 + 1]!, i32[W_CR4]!, i32[W_EFER]!, i32[W_PKRU]!);
    this.role0 = i32[W_CR0]! & CR0_PAGING;
    this.role4 = i32[W_CR4]! & CR4_PAGING;
    this.roleNx = i32[W_EFER]! & 0xc00;
    this.rolePkru = i32[W_PKRU]!;
  }

  /** True when an address with high half `hi` is canonical for the guest's paging depth: to access, or to jump to. HOT */
  canonical(hi: number): boolean {
    return isCanonical(hi, this.walker.mode === PAGING_5LEVEL);
  }

  /** The same for the width that the processor has, whatever CR4 says: for what is kept in a register or only forgotten. */
  canonicalBase(hi: number): boolean {
    return isCanonical(hi, this.profile.la57);
  }

  /**
   * The process-context identifier that CR3 and CR4 select becomes the TLB's. Translations of the others stay with the processor; those
   * of the new one are used again (@sdm 4.10.1). HOT
   */
  selectPcid(): void {
    const i32 = this.i32;
    const pcid = (i32[W_CR4]! & CR4_PCIDE) !== 0 ? i32[W_CR3]! & 0xfff : 0;
    if (pcid !== this.tlb.pcid) this.tlb.switchPcid(pcid);
  }

  // Segments and registers.

  /** Word index of segment `n` (ES CS SS DS FS GS TR LDTR). */
  segment(n: number): number {
    return W_SEG + n * SEG_WORDS;
  }

  selector(n: number): number {
    return this.i32[W_SEG + n * SEG_WORDS + 4]!;
  }

  attributes(n: number): number {
    return this.i32[W_SEG + n * SEG_WORDS + 3]!;
  }

  setSegment(n: number, selector: number, baseLo: number, baseHi: number, limit: number, attributes: number): void {
    const word = W_SEG + n * SEG_WORDS;
    const i32 = this.i32;
    i32[word] = baseLo;
    i32[word + 1] = baseHi;
    i32[word + 2] = limit;
    i32[word + 3] = attributes;
    i32[word + 4] = selector & 0xffff;
  }

  setRip(lo: number, hi: number): void {
    this.i32[W_RIP] = lo;
    this.i32[W_RIP + 1] = hi;
  }
}
