/** The public face of KVM. */
export type { CoalescedEntry } from '../io-bus/coalesced-ring.ts';
export type { TraceEvent, TraceEventName, TraceEvents } from '../trace/events.ts';
export type { CpuidEntry2 } from './cpuid-entry.ts';
export { EventFd } from './event-fd.ts';
export { GuestMemfd } from './guest-memfd.ts';
export { Kvm, type KvmOptions } from './kvm.ts';
export { KvmError } from './kvm-error.ts';
export type { MsrEntry, Regs, Segment, Sregs, Translation } from './registers.ts';
export { type PreFaultResult, type RunLimits, type RunResult, Vcpu } from './vcpu.ts';
export type { VcpuExit } from './vcpu-exit.ts';
export { type UserMemoryRegion, type UserMemoryRegion2, Vm } from './vm.ts';
