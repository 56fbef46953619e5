/**
 * The kernel's tracepoints that softkvm emits, with the kernel's names and fields (@kvm trace.h, mmu/mmutrace.h,
 * include/trace/events/kvm.h). Words of 64 bits are hex strings with `0x`; counts and levels are numbers; an event that the kernel
 * prints as free text keeps that text.
 */
export interface TraceEvents {
  kvm_entry: { vcpu: number; rip: string };
  /** SVM: info1/info2 are EXITINFO1/2, intr_info and error_code the halves of EXITINTINFO. */
  kvm_exit: {
    vcpu: number;
    reason: string;
    rip: string;
    info1: string;
    info2: string;
    intr_info: string;
    error_code: string;
  };
  /** An exit of L2's, as KVM sees it. */
  kvm_nested_vmexit: TraceEvents['kvm_exit'];
  /** L1's VMRUN or VM entry; `nested_cr3` (`nested_eptp`) with nested paging, else `guest_cr3`. 32-bit words have all their digits. */
  kvm_nested_vmenter: {
    rip: string;
    vmcb?: string;
    vmcs?: string;
    nested_rip: string;
    int_ctl: string;
    event_inj: string;
    nested_npt?: string;
    nested_ept?: string;
    nested_eptp?: string;
    nested_cr3?: string;
    guest_cr3?: string;
  };
  kvm_nested_vmenter_failed: { text: string };
  /** What L1 gets. */
  kvm_nested_vmexit_inject: {
    reason: string;
    info1: string;
    info2: string;
    exit_int: string;
    exit_int_err: string;
  };
  kvm_nested_intr_vmexit: { rip: string };
  kvm_page_fault: { vcpu: number; rip: string; address: string; error_code: string };
  /** `type`: unsatisfied-read, read or write. */
  kvm_mmio: { type: string; len: number; gpa: string; val: string };
  kvm_fast_mmio: { gpa: string };
  /** `csbase` and `rip` are bare hex as the kernel prints them; `bytes` is bare hex. */
  kvm_emulate_insn: { csbase: string; rip: string; bytes: string; mode: string; failed: boolean };
  /** `#PF (0x2)`, with ` [reinjected]` appended for an exception injected again. */
  kvm_inj_exception: { text: string };
  kvm_inj_virq: { text: string };
  kvm_userspace_exit: { text: string };
  /** Ends in a blank, or in `(...)` for more than one datum, as the kernel prints it. */
  kvm_pio: { text: string };
  kvm_hypercall: { text: string };
  kvm_smm_transition: { text: string };
  kvm_apic: { text: string };
  kvm_apic_accept_irq: { text: string };
  kvm_msr: { text: string };
  kvm_rmp_fault: { text: string };
  kvm_vmgexit_enter: { text: string };
  kvm_vmgexit_exit: { text: string };
  kvm_vmgexit_msr_protocol_enter: { text: string };
  kvm_vmgexit_msr_protocol_exit: { text: string };
  kvm_cpuid: { text: string };
  kvm_cr: { text: string };
  vcpu_match_mmio: { gva: string; gpa: string; op: string };
  kvm_unmap_hva_range: { start: number; end: number };
  kvm_age_hva: { start: number; end: number };
  kvm_test_age_hva: { start: number; end: number };
  kvm_dirty_ring_push: { text: string };
  kvm_dirty_ring_reset: { text: string };
  kvm_dirty_ring_exit: { text: string };
  kvm_mmu_pagetable_walk: { text: string };
  kvm_mmu_paging_element: { text: string };
  kvm_mmu_set_accessed_bit: { text: string };
  kvm_mmu_set_dirty_bit: { text: string };
  kvm_mmu_walker_error: { text: string };
  kvm_mmu_get_page: { text: string };
  kvm_mmu_sync_page: { text: string };
  kvm_mmu_unsync_page: { text: string };
  kvm_mmu_prepare_zap_page: { text: string };
  mark_mmio_spte: { gfn: string; access: string; gen: string };
  handle_mmio_page_fault: { addr: string; gfn: string; access: string };
  check_mmio_spte: { spte: string; kvm_gen: string; spte_gen: string; valid: number };
  /** `error_code` is the kernel's flag text; `old` and `new` are whole SPTEs. */
  fast_page_fault: {
    vcpu: number;
    gva: string;
    error_code: string;
    old: string;
    new: string;
    spurious: number;
    fixed: number;
  };
  kvm_mmu_zap_all_fast: { text: string };
  /** `spte` is the whole SPTE; `perm` as the kernel prints it: `rwxu`. */
  kvm_mmu_set_spte: { gfn: string; spte: string; perm: string; level: number };
  kvm_mmu_spte_requested: { gfn: string; level: number };
  kvm_tdp_mmu_spte_changed: { as_id: number; gfn: string; level: number; old: string; new: string };
  kvm_mmu_split_huge_page: { gfn: string; spte: string; level: number; errno: number };
  kvm_try_async_get_page: { text: string };
  kvm_async_pf_not_present: { text: string };
  kvm_async_pf_ready: { text: string };
  kvm_async_pf_repeated_fault: { text: string };
  kvm_async_pf_completed: { text: string };
}

export type TraceEventName = keyof TraceEvents;

/** One emitted event. */
export type TraceEvent = {
  [N in TraceEventName]: { readonly event: N; readonly fields: TraceEvents[N] };
}[TraceEventName];

/** Where a VM's events go. Hot code tests `enabled` before it builds an event's fields. */
export class Trace {
  enabled = false;
  private sink: (event: TraceEvent) => void = () => {};

  /** Sends events to `sink` from now on; `null` turns tracing off. */
  setSink(sink: ((event: TraceEvent) => void) | null): void {
    this.enabled = sink !== null;
    this.sink = sink ?? (() => {});
  }

  emit<N extends TraceEventName>(event: N, fields: TraceEvents[N]): void {
    if (this.enabled) this.sink({ event, fields } as unknown as TraceEvent);
  }
}
