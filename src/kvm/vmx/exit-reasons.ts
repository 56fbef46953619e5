/** Names of VMX exit reasons as the `kvm_exit` event prints them (@kvm trace.h VMX_EXIT_REASONS). */
import { EXIT_REASON_NAMES, VMX_EXIT_REASONS_FAILED_VMENTRY } from '../../arch/vmx-exit-reasons.ts';

/** Name of exit reason `reason`; hex when the kernel has no name for it, with the flag of a failed entry. */
export function vmxExitReasonName(reason: number): string {
  const name = EXIT_REASON_NAMES.get(reason & 0xffff) ?? `0x${(reason & 0xffff).toString(16)}`;
  return (reason & VMX_EXIT_REASONS_FAILED_VMENTRY) !== 0 ? `${name} FAILED_VMENTRY` : name;
}
