/** Why KVM_RUN came back, as a value: the fields of kvm_run that belong to the exit reason. */
import * as R from '../kvm-run.ts';
import type { RunData } from '../kvm-run-union.ts';

/** One exit. Reads (`io`, `mmio`) are answered by filling `data` before the next run(). */
export type VcpuExit =
  /** Port I/O. `data` is a view of the data page: for an input, fill it before the next run. */
  | {
      readonly reason: 'io';
      readonly isWrite: boolean;
      readonly port: number;
      /** Bytes a datum: 1, 2 or 4. */
      readonly size: number;
      readonly count: number;
      readonly data: Uint8Array;
    }
  /** Emulated MMIO. `data` is a view of kvm_run: for a read, fill it before the next run. */
  | {
      readonly reason: 'mmio';
      readonly isWrite: boolean;
      readonly physAddr: number;
      readonly len: number;
      readonly data: Uint8Array;
    }
  /** Comes with ret -1 and EFAULT (or EHWPOISON). Addresses and sizes in bytes. */
  | {
      readonly reason: 'memory-fault';
      /** The access was to private memory. */
      readonly isPrivate: boolean;
      readonly flags: number;
      readonly gpa: number;
      readonly size: number;
    }
  | { readonly reason: 'hlt' }
  | { readonly reason: 'shutdown' }
  | { readonly reason: 'internal-error'; readonly suberror: number; readonly data: readonly bigint[] }
  | { readonly reason: 'intr' }
  | { readonly reason: 'irq-window-open' }
  | { readonly reason: 'fail-entry'; readonly hardwareReason: bigint; readonly cpu: number }
  /** Answer with `kvmRun.hypercall.setRet`. */
  | { readonly reason: 'hypercall'; readonly nr: number; readonly args: readonly bigint[]; readonly flags: number }
  /**
   * An MSR that the guest could not read or write (`why`: KVM_MSR_EXIT_REASON_*). Answer with `kvmRun.msr`: `error` for #GP, and for a
   * read `setData`.
   */
  | { readonly reason: 'rdmsr'; readonly index: number; readonly why: number }
  | { readonly reason: 'wrmsr'; readonly index: number; readonly why: number; readonly data: bigint }
  | {
      readonly reason: 'debug';
      readonly exception: number;
      readonly pc: bigint;
      readonly dr6: bigint;
      readonly dr7: bigint;
    }
  | { readonly reason: 'dirty-ring-full' }
  | { readonly reason: 'system-event'; readonly type: number; readonly data: readonly bigint[] }
  /** A reason that has no fields here; `exitReason` is KVM_EXIT_*. */
  | { readonly reason: 'unknown'; readonly exitReason: number };

function words(data: RunData): bigint[] {
  return Array.from({ length: Math.min(data.ndata, 16) }, (_, i) => data.data(i));
}

/** Reads the exit that kvm_run describes now. */
export function readExit(run: R.KvmRun): VcpuExit {
  switch (run.exitReason) {
    case R.KVM_EXIT_IO: {
      const { size, count, port, direction } = run.io;
      const data = run.pioData.subarray(0, size * count);
      return { reason: 'io', isWrite: direction === R.KVM_EXIT_IO_OUT, port, size, count, data };
    }
    case R.KVM_EXIT_MMIO: {
      const { physAddr, len, isWrite } = run.mmio;
      return { reason: 'mmio', isWrite, physAddr, len, data: run.mmio.bytes(len) };
    }
    case R.KVM_EXIT_MEMORY_FAULT: {
      const { flags, gpa, size } = run.memoryFault;
      return { reason: 'memory-fault', isPrivate: (flags & R.KVM_MEMORY_EXIT_FLAG_PRIVATE) !== 0, flags, gpa, size };
    }
    case R.KVM_EXIT_HLT:
      return { reason: 'hlt' };
    case R.KVM_EXIT_SHUTDOWN:
      return { reason: 'shutdown' };
    case R.KVM_EXIT_INTERNAL_ERROR:
      return { reason: 'internal-error', suberror: run.internal.suberror, data: words(run.internal) };
    case R.KVM_EXIT_INTR:
      return { reason: 'intr' };
    case R.KVM_EXIT_IRQ_WINDOW_OPEN:
      return { reason: 'irq-window-open' };
    case R.KVM_EXIT_FAIL_ENTRY:
      return { reason: 'fail-entry', hardwareReason: run.failEntry.hardwareEntryFailureReason, cpu: run.failEntry.cpu };
    case R.KVM_EXIT_HYPERCALL: {
      const args = Array.from({ length: 6 }, (_, i) => run.hypercall.arg(i));
      return { reason: 'hypercall', nr: run.hypercall.nr, args, flags: run.hypercall.flags };
    }
    case R.KVM_EXIT_X86_RDMSR:
      return { reason: 'rdmsr', index: run.msr.index, why: run.msr.why };
    case R.KVM_EXIT_X86_WRMSR:
      return { reason: 'wrmsr', index: run.msr.index, why: run.msr.why, data: run.msr.data };
    case R.KVM_EXIT_DEBUG: {
      const { exception, pc, dr6, dr7 } = run.debug;
      return { reason: 'debug', exception, pc, dr6, dr7 };
    }
    case R.KVM_EXIT_DIRTY_RING_FULL:
      return { reason: 'dirty-ring-full' };
    case R.KVM_EXIT_SYSTEM_EVENT:
      return { reason: 'system-event', type: run.systemEvent.suberror, data: words(run.systemEvent) };
    default:
      return { reason: 'unknown', exitReason: run.exitReason };
  }
}
