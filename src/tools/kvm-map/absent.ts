/** Parts of the kernel's KVM that have no counterpart at all. */
export interface Absent {
  /** Files of the kernel, or a function group in one. */
  readonly kernel: string;
  readonly what: string;
  /** What is answered instead. */
  readonly instead: string;
}

export const ABSENT: readonly Absent[] = [
  { kernel: 'vmx/posted_intr.c', what: 'posted interrupts', instead: 'not in the capability MSRs' },
  {
    kernel: 'svm/nested.c: virtual GIF, virtual NMI, LBR, TSC ratio',
    what: 'assists of the processor for L1',
    instead: 'not in L1’s CPUID',
  },
  {
    kernel: 'svm/sev.c',
    what: 'SEV and SEV-ES guests, migration, attestation',
    instead: 'the VM types are refused with EINVAL, the commands with EPERM or EINVAL',
  },
  { kernel: 'svm/avic.c', what: 'interrupt virtualization in hardware', instead: 'the APIC is emulated' },
  {
    kernel: 'hyperv.c, xen.c',
    what: 'paravirtual interfaces of other hypervisors',
    instead: 'a kernel built without them',
  },
  { kernel: 'pmu.c, svm/pmu.c', what: 'performance counters', instead: 'reads are 0 and writes are dropped' },
  { kernel: 'eventfd.c: irqfd', what: 'interrupts raised by an eventfd', instead: 'only ioeventfd is offered' },
  {
    kernel: 'pfncache.c, vfio.c',
    what: 'caches of guest frames for the kernel, assigned devices',
    instead: 'not offered',
  },
];
