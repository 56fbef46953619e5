/** kvm_run in the recorded form, read from its bytes at the offsets of the kernel's UAPI (@kvm include/uapi/linux/kvm.h). */
import { hex } from '../../arch/halves.ts';
import { bytesHex, hexBytes } from './scenario.ts';

/** The value that stands in exit_reason before KVM_RUN, so that `NOT_WRITTEN` shows. */
export const EXIT_REASON_UNWRITTEN = 999;

const IMMEDIATE_EXIT = 1;
const EXIT_REASON = 8;
const FLAGS = 14;
const UNION = 32;

const names: { readonly [reason: number]: string } = {
  0: 'UNKNOWN',
  1: 'EXCEPTION',
  2: 'IO',
  3: 'HYPERCALL',
  4: 'DEBUG',
  5: 'HLT',
  6: 'MMIO',
  7: 'IRQ_WINDOW_OPEN',
  8: 'SHUTDOWN',
  9: 'FAIL_ENTRY',
  10: 'INTR',
  17: 'INTERNAL_ERROR',
  24: 'SYSTEM_EVENT',
  26: 'IOAPIC_EOI',
  29: 'X86_RDMSR',
  30: 'X86_WRMSR',
  31: 'DIRTY_RING_FULL',
  33: 'X86_BUS_LOCK',
  39: 'MEMORY_FAULT',
  [EXIT_REASON_UNWRITTEN]: 'NOT_WRITTEN',
};

/** The name of a KVM_EXIT_* constant without its prefix. */
function exitName(reason: number): string {
  return names[reason] ?? `EXIT_${reason}`;
}

/** The pages that a VMM maps of a vCPU: kvm_run, and the data page of port I/O. */
export interface RunPages {
  readonly bytes: Uint8Array;
  readonly pioData: Uint8Array;
}

/** What a `run` step writes before KVM_RUN: the data that completes the previous exit, and `immediate_exit`. */
export interface RunInput {
  readonly mmio_data?: string;
  readonly io_data?: string;
  readonly hc_ret?: number | string;
  readonly immediate?: number;
}

export function prepareRun(pages: RunPages, input: RunInput): void {
  const view = viewOf(pages.bytes);
  if (input.mmio_data !== undefined) pages.bytes.set(hexBytes(input.mmio_data).subarray(0, 8), UNION + 8);
  if (input.io_data !== undefined) pages.pioData.set(hexBytes(input.io_data), 0);
  if (input.hc_ret !== undefined) view.setBigUint64(UNION + 56, BigInt(input.hc_ret), true);
  view.setUint8(IMMEDIATE_EXIT, input.immediate ? 1 : 0);
  view.setUint32(EXIT_REASON, EXIT_REASON_UNWRITTEN, true);
}

/** The recorded `run` object of what KVM_RUN left behind. */
export function recordRun(pages: RunPages): { [field: string]: unknown } {
  const v = viewOf(pages.bytes);
  v.setUint8(IMMEDIATE_EXIT, 0);
  const reason = v.getUint32(EXIT_REASON, true);
  const run: { [field: string]: unknown } = { exit_reason: reason, exit_name: exitName(reason) };
  const runFlags = v.getUint16(FLAGS, true);
  if (runFlags !== 0) run['run_flags'] = runFlags;
  const u64 = (offset: number): string => hex(v.getBigUint64(UNION + offset, true));
  switch (exitName(reason)) {
    case 'IO': {
      const direction = v.getUint8(UNION);
      const size = v.getUint8(UNION + 1);
      const count = v.getUint32(UNION + 4, true);
      run['direction'] = direction;
      run['size'] = size;
      run['port'] = hex(v.getUint16(UNION + 2, true));
      run['count'] = count;
      run['data'] = direction === 1 ? bytesHex(pages.pioData.subarray(0, size * count)) : '';
      break;
    }
    case 'MMIO': {
      const len = v.getUint32(UNION + 16, true);
      const isWrite = v.getUint8(UNION + 20);
      run['phys_addr'] = u64(0);
      run['len'] = len;
      run['is_write'] = isWrite;
      run['data'] = isWrite ? bytesHex(pages.bytes.subarray(UNION + 8, UNION + 8 + Math.min(len, 8))) : '';
      break;
    }
    case 'MEMORY_FAULT':
      run['flags'] = u64(0);
      run['gpa'] = u64(8);
      run['size'] = u64(16);
      break;
    case 'HYPERCALL':
      run['nr'] = u64(0);
      run['args'] = [0, 1, 2, 3].map((i) => u64(8 + 8 * i));
      run['flags'] = u64(64);
      break;
    case 'FAIL_ENTRY':
      run['hardware_entry_failure_reason'] = u64(0);
      break;
    case 'INTERNAL_ERROR':
      recordInternalError(run, v, pages.bytes);
      break;
    default:
      break;
  }
  return run;
}

function recordInternalError(run: { [field: string]: unknown }, v: DataView, bytes: Uint8Array): void {
  const suberror = v.getUint32(UNION, true);
  const ndata = v.getUint32(UNION + 4, true);
  run['suberror'] = suberror;
  run['ndata'] = ndata;
  run['data'] = Array.from({ length: Math.min(ndata, 16) }, (_, i) => hex(v.getBigUint64(UNION + 8 + 8 * i, true)));
  // emulation_failure: flags at 8, insn_size and insn_bytes[15] at 16.
  if (suberror === 1 && ndata >= 1 && (v.getUint32(UNION + 8, true) & 1) !== 0) {
    run['insn_size'] = v.getUint8(UNION + 16);
    run['insn_bytes'] = bytesHex(bytes.subarray(UNION + 17, UNION + 32));
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
