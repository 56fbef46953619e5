/** Pages that KVM watches because they hold page tables it shadows (@kvm page_track.c, mmu.c kvm_mmu_track_write). */
import { RIP } from '../../arch/registers.ts';
import type { Memslot } from '../memslots/memslots.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';

/**
 * A write to the gfn must be seen by KVM. With two-dimensional paging nothing of the guest's own tables is shadowed.
 * @kvm page_track.c kvm_gfn_is_write_tracked. HOT
 */
export function gfnIsWriteTracked(vm: VmState, _slot: Memslot | null, _gfn: number): boolean {
  return vm.mmu.indirectShadowPages !== 0;
}

/**
 * The emulator wrote `bytes` at `gpa`: shadow entries that came from there go (@kvm mmu.c kvm_mmu_track_write).
 * @partial no table of the guest is shadowed
 */
export function mmuTrackWrite(vcpu: VcpuState, _gpa: number, _bytes: number): void {
  if (vcpu.vm.mmu.indirectShadowPages !== 0) throw new Error('shadowed page tables are not supported');
}

/**
 * Lets the guest write the page tables that `cr2` (a gpa in a direct MMU) is in, by dropping their shadows; the address and RIP are
 * remembered so that one instruction is retried once. Answers whether anything was dropped, and so the instruction should be retried.
 * @kvm mmu.c __kvm_mmu_unprotect_gfn_and_retry
 * @partial no table of the guest is shadowed
 */
export function mmuUnprotectGfnAndRetry(vcpu: VcpuState, cr2Lo: number, cr2Hi: number, alwaysRetry = false): boolean {
  const zapped = vcpu.vm.mmu.indirectShadowPages !== 0;
  if (zapped || alwaysRetry) {
    vcpu.x86.lastRetryEipLo = vcpu.regs[2 * RIP]!;
    vcpu.x86.lastRetryEipHi = vcpu.regs[2 * RIP + 1]!;
    vcpu.x86.lastRetryAddrLo = cr2Lo;
    vcpu.x86.lastRetryAddrHi = cr2Hi;
  }
  return zapped;
}
