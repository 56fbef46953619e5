/** MSRs that KVM emulates for a TD; the others are the module's, or nobody's (@kvm tdx.c tdx_has_emulated_msr). */
import type { VcpuState } from '../../vcpu-state.ts';
import { getMsrCommon, setMsrCommon } from '../../x86/msr.ts';

const FEAT_CTL = 0x3a;
const FEAT_CTL_LOCKED = 1;
/** APICBASE, EFER and FEAT_CTL cannot be written. @kvm tdx.c tdx_is_read_only_msr */
const READ_ONLY: ReadonlySet<number> = new Set([0x1b, 0xc0000080 | 0, FEAT_CTL]);
const EMULATED: ReadonlySet<number> = new Set([
  0x1b,
  0xfe,
  0x8b,
  0xce,
  0x10a,
  0x140,
  0x179,
  0x17a,
  0x17b,
  0x1a0,
  0x1fc,
  0x277,
  0x2ff,
  0x4d0,
  0x6e0,
  FEAT_CTL,
  0xc0000080 | 0,
  0x4b564d05,
]);
/** x2APIC registers that the processor virtualizes: TPR, PPR, EOI, ISR, TMR and IRR. */
function isVirtualizedX2apic(msr: number): boolean {
  return msr === 0x808 || msr === 0x80a || msr === 0x80b || (msr >= 0x810 && msr < 0x828);
}

function isEmulated(msr: number): boolean {
  if (msr >= 0x800 && msr < 0x900) return !isVirtualizedX2apic(msr);
  if (msr >= 0x200 && msr < 0x270) return true;
  return (msr >= 0x400 && msr < 0x480) || EMULATED.has(msr);
}

/** 0, or 1 for a refusal. @kvm tdx.c tdx_get_msr */
export function tdxGetMsr(vcpu: VcpuState, msr: number, hostInitiated: boolean): number {
  if (msr === FEAT_CTL) {
    vcpu.x86.msrValue[0] = FEAT_CTL_LOCKED;
    vcpu.x86.msrValue[1] = 0;
    return 0;
  }
  return isEmulated(msr) ? getMsrCommon(vcpu, msr, hostInitiated) : 1;
}

/** @kvm tdx.c tdx_set_msr */
export function tdxSetMsr(vcpu: VcpuState, msr: number, lo: number, hi: number, hostInitiated: boolean): number {
  if (READ_ONLY.has(msr) || !isEmulated(msr)) return 1;
  return setMsrCommon(vcpu, msr, lo, hi, hostInitiated);
}
