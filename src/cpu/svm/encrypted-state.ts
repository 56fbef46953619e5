/**
 * VMRUN and #VMEXIT of a guest whose registers its hypervisor cannot see (@apm 15.35): they come from, and go to, the VMSA, a page of the guest's.
 * What the rest of the processor takes for the control block is a copy of its own, with the VMSA's registers in it; of an exit the hypervisor
 * gets to see why and no more.
 */
import { RFLAGS_IF } from '../../arch/registers.ts';
import {
  SVM_EXIT_ERR,
  SVM_GUEST_INTERRUPT_MASK,
  VMCB_ASID,
  VMCB_EVENT_INJ,
  VMCB_EXIT_CODE,
  VMCB_EXIT_INFO_1,
  VMCB_EXIT_INT_INFO,
  VMCB_GHCB,
  VMCB_INT_CTL,
  VMCB_INT_STATE,
  VMCB_NESTED_CTL,
  VMCB_RFLAGS,
  VMCB_SAVE,
  VMCB_VMSA,
} from '../../arch/vmcb.ts';
import {
  SEV_FEATURE_SNP_ACTIVE,
  VMSA_GPRS,
  VMSA_MXCSR,
  VMSA_PKRU,
  VMSA_SEV_FEATURES,
  VMSA_TSC_AUX,
  VMSA_VMPL,
  VMSA_X87,
  VMSA_X87_FCW,
  VMSA_X87_FSW,
  VMSA_X87_FTW,
  VMSA_XCR0,
  VMSA_XMM,
  VMSA_YMM,
} from '../../arch/vmsa.ts';
import {
  FPU_CW_AT,
  FPU_REGS,
  FPU_SW_AT,
  FPU_TAG_AT,
  GPR,
  MXCSR_AT,
  PKRU_AT,
  TSC_AUX_AT,
  VMSA_BLOCK,
  XCR0_AT,
  XMM,
  XMM_SIZE,
} from '../state.ts';
import type { Core } from '../system/core.ts';
import { loadSystem, storeSystem } from './vmcb-state.ts';

/** First word of the processor's own copy of the control block. */
const BLOCK = VMSA_BLOCK >> 2;
const CONTROL_WORDS = VMCB_SAVE >> 2;
/** Bytes of the save area as the control block has it: the VMSA's own fields come behind. */
const SAVE_WORDS = 0x2e0 >> 2;
/** Control words that an exit changes: interrupts, the reason, EVENTINJ, GHCB. */
const EXIT_WORDS: readonly number[] = [
  VMCB_INT_CTL,
  VMCB_EXIT_CODE,
  VMCB_EXIT_CODE + 4,
  VMCB_EXIT_INFO_1,
  VMCB_EXIT_INFO_1 + 4,
  VMCB_EXIT_INFO_1 + 8,
  VMCB_EXIT_INFO_1 + 12,
  VMCB_EXIT_INT_INFO,
  VMCB_EXIT_INT_INFO + 4,
  VMCB_EVENT_INJ,
  VMCB_EVENT_INJ + 4,
  VMCB_GHCB,
  VMCB_GHCB + 4,
];

export class EncryptedState {
  private readonly core: Core;
  /** First word of the VMSA in use, and its level. */
  private vmsa = 0;
  private vmpl = -1;

  constructor(core: Core) {
    this.core = core;
  }

  /**
   * Takes over the control block at word `block` and the registers of its VMSA: the word of the processor's own copy, or -1 when VMRUN refuses
   * them. Only SNP guests can be run, not those of SEV-ES alone.
   */
  enter(block: number): number {
    const { core } = this;
    const { i32, u8, snp } = core;
    const rmp = snp?.rmp ?? null;
    const check = core.walker.rmp;
    const page = i32[block + (VMCB_VMSA >> 2)]!;
    const pfn = page >>> 12;
    const asid = i32[block + (VMCB_ASID >> 2)]!;
    const nested = (i32[block + (VMCB_NESTED_CTL >> 2)]! & 1) !== 0;
    if (rmp === null || check === null || !nested || (page & 0xfff) !== 0) return -1;
    if (i32[block + (VMCB_VMSA >> 2) + 1] !== 0 || pfn >= core.memory.frames) return -1;
    if (!rmp.assigned(pfn) || !rmp.vmsa(pfn) || !rmp.validated(pfn) || rmp.asid(pfn) !== asid) return -1;
    const vmsa = page >>> 2;
    if ((i32[vmsa + (VMSA_SEV_FEATURES >> 2)]! & SEV_FEATURE_SNP_ACTIVE) === 0) return -1;
    i32.copyWithin(BLOCK, block, block + CONTROL_WORDS);
    i32.copyWithin(BLOCK + CONTROL_WORDS, vmsa, vmsa + SAVE_WORDS);
    this.vmsa = vmsa;
    const vmpl = u8[vmsa * 4 + VMSA_VMPL]!;
    if (vmpl >= core.snp!.profile.vmpls) return -1;
    if (vmpl !== this.vmpl) core.tlb.flushAll();
    this.vmpl = vmpl;
    check.snp = true;
    check.asid = asid;
    check.vmpl = vmpl;
    core.encryptedState = true;
    core.walker.setEncryptionBit(core.snp!.profile.cBit);
    this.loadRest();
    return BLOCK;
  }

  /** What VMRUN does not load from a control block. */
  private loadRest(): void {
    const { core, vmsa } = this;
    const { i32, u8 } = core;
    loadSystem(core, BLOCK);
    for (const [n, offset] of VMSA_GPRS) {
      i32[(GPR >> 2) + 2 * n] = i32[vmsa + (offset >> 2)]!;
      i32[(GPR >> 2) + 2 * n + 1] = i32[vmsa + (offset >> 2) + 1]!;
    }
    const at = vmsa * 4;
    i32[PKRU_AT >> 2] = i32[vmsa + (VMSA_PKRU >> 2)]!;
    i32[TSC_AUX_AT >> 2] = i32[vmsa + (VMSA_TSC_AUX >> 2)]!;
    i32[XCR0_AT >> 2] = i32[vmsa + (VMSA_XCR0 >> 2)]!;
    i32[MXCSR_AT >> 2] = i32[vmsa + (VMSA_MXCSR >> 2)]!;
    i32[FPU_TAG_AT >> 2] = u8[at + VMSA_X87_FTW]!;
    i32[FPU_SW_AT >> 2] = u8[at + VMSA_X87_FSW]! | (u8[at + VMSA_X87_FSW + 1]! << 8);
    i32[FPU_CW_AT >> 2] = u8[at + VMSA_X87_FCW]! | (u8[at + VMSA_X87_FCW + 1]! << 8);
    for (let n = 0; n < 8; n++) {
      u8.copyWithin(FPU_REGS + 16 * n, at + VMSA_X87 + 8 * n, at + VMSA_X87 + 8 * n + 8);
      u8.copyWithin(FPU_REGS + 16 * n + 8, at + VMSA_X87 + 64 + 2 * n, at + VMSA_X87 + 64 + 2 * n + 2);
    }
    for (let n = 0; n < 16; n++) {
      u8.copyWithin(XMM + XMM_SIZE * n, at + VMSA_XMM + 16 * n, at + VMSA_XMM + 16 * n + 16);
      u8.copyWithin(XMM + XMM_SIZE * n + 16, at + VMSA_YMM + 16 * n, at + VMSA_YMM + 16 * n + 16);
    }
  }

  /** After the exit: registers go back into the VMSA, and the control block at word `block` learns why. */
  leave(block: number): void {
    const { core, vmsa } = this;
    const { i32, u8 } = core;
    storeSystem(core, BLOCK);
    i32.copyWithin(vmsa, BLOCK + CONTROL_WORDS, BLOCK + CONTROL_WORDS + SAVE_WORDS);
    for (const offset of EXIT_WORDS) i32[block + (offset >> 2)] = i32[BLOCK + (offset >> 2)]!;
    const enabled = (i32[BLOCK + (VMCB_RFLAGS >> 2)]! & RFLAGS_IF) !== 0;
    const shadow = i32[BLOCK + (VMCB_INT_STATE >> 2)]! & 1;
    i32[block + (VMCB_INT_STATE >> 2)] = shadow | (enabled ? SVM_GUEST_INTERRUPT_MASK : 0);
    for (const [n, offset] of VMSA_GPRS) {
      i32[vmsa + (offset >> 2)] = i32[(GPR >> 2) + 2 * n]!;
      i32[vmsa + (offset >> 2) + 1] = i32[(GPR >> 2) + 2 * n + 1]!;
    }
    const at = vmsa * 4;
    i32[vmsa + (VMSA_PKRU >> 2)] = i32[PKRU_AT >> 2]!;
    i32[vmsa + (VMSA_TSC_AUX >> 2)] = i32[TSC_AUX_AT >> 2]!;
    i32[vmsa + (VMSA_XCR0 >> 2)] = i32[XCR0_AT >> 2]!;
    i32[vmsa + (VMSA_MXCSR >> 2)] = i32[MXCSR_AT >> 2]!;
    u8[at + VMSA_X87_FTW] = i32[FPU_TAG_AT >> 2]!;
    u8[at + VMSA_X87_FSW] = i32[FPU_SW_AT >> 2]!;
    u8[at + VMSA_X87_FSW + 1] = i32[FPU_SW_AT >> 2]! >> 8;
    u8[at + VMSA_X87_FCW] = i32[FPU_CW_AT >> 2]!;
    u8[at + VMSA_X87_FCW + 1] = i32[FPU_CW_AT >> 2]! >> 8;
    for (let n = 0; n < 8; n++) {
      u8.copyWithin(at + VMSA_X87 + 8 * n, FPU_REGS + 16 * n, FPU_REGS + 16 * n + 8);
      u8.copyWithin(at + VMSA_X87 + 64 + 2 * n, FPU_REGS + 16 * n + 8, FPU_REGS + 16 * n + 10);
    }
    for (let n = 0; n < 16; n++) {
      u8.copyWithin(at + VMSA_XMM + 16 * n, XMM + XMM_SIZE * n, XMM + XMM_SIZE * n + 16);
      u8.copyWithin(at + VMSA_YMM + 16 * n, XMM + XMM_SIZE * n + 16, XMM + XMM_SIZE * n + 32);
    }
    this.forget();
  }

  /** Nothing of the guest stays where the hypervisor looks. */
  private forget(): void {
    const { core } = this;
    const { i32, u8 } = core;
    i32.fill(0, GPR >> 2, (GPR >> 2) + 32);
    i32.fill(0, BLOCK, BLOCK + 1024);
    u8.fill(0, FPU_REGS, XMM + XMM_SIZE * 16);
    core.encryptedState = false;
    core.walker.rmp!.snp = false;
    core.walker.setEncryptionBit(-1);
  }

  /** VMRUN refused the control block at word `block`. */
  refuse(block: number): void {
    const { i32 } = this.core;
    i32[block + (VMCB_EXIT_CODE >> 2)] = SVM_EXIT_ERR;
    i32[block + (VMCB_EXIT_CODE >> 2) + 1] = -1;
  }
}
