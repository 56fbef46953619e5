/** What a vCPU keeps for machine checks (machine-check.ts). */

/** @kvm asm/kvm_host.h KVM_MAX_MCE_BANKS */
export const KVM_MAX_MCE_BANKS = 32;
/** In IA32_MCG_CAP: how many banks there are. */
export const BANK_COUNT = 0xff;
/** Words of a bank: control, status, address, miscellaneous, in halves. */
export const BANK_WORDS = 8;

/** What a vCPU has of it. */
export class MachineCheck {
  capLo = KVM_MAX_MCE_BANKS;
  statusLo = 0;
  statusHi = 0;
  /** IA32_MCG_CTL is all ones, or zero. */
  ctl = 0;
  readonly banks = new Int32Array(KVM_MAX_MCE_BANKS * BANK_WORDS);

  get bankCount(): number {
    return this.capLo & BANK_COUNT;
  }
}
