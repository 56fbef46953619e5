/**
 * A recorded scenario, as conformance/README.md defines it. Integers above 9 are hex strings in the files; `int` reads both forms.
 */

/** A decimal number or a `0x` hex string. */
export type Int = number | string;

/** The bytes of one place of host memory, given whole or as a run of little-endian u64s. */
export interface MemoryImage {
  readonly mem: number;
  readonly off: Int;
  readonly hex?: string;
  readonly qwords?: { readonly first: Int; readonly step: Int; readonly count: Int };
}

/** One operation: `op` names it, the other keys are its arguments (op-schema.ts says which). */
export interface Op {
  readonly op: string;
  readonly [argument: string]: unknown;
}

export interface RecordedEvent {
  readonly event: string;
  readonly fields: { readonly [field: string]: unknown };
}

/** What KVM answered to one step. */
export interface Expectation {
  /** Null when the operation could not be tried. */
  readonly ret: number | null;
  readonly errno: string | null;
  readonly run?: { readonly [field: string]: unknown };
  readonly regs?: { readonly [field: string]: unknown };
  readonly out?: { readonly [field: string]: unknown };
  readonly trace: readonly RecordedEvent[];
  readonly stats?: { readonly [counter: string]: number };
  readonly interrupted?: boolean;
  readonly trace_truncated?: boolean;
}

export interface Step {
  readonly do: Op;
  readonly expect: Expectation;
  readonly stale_completion_data?: boolean;
}

export interface GuestSetup {
  readonly mode: string;
  readonly vcpus: number;
  readonly cpuid: { readonly [override: string]: Int };
  readonly code: readonly MemoryImage[];
  readonly sregs: readonly { readonly [field: string]: unknown }[];
  readonly regs: readonly { readonly [field: string]: Int }[];
}

export interface Scenario {
  readonly name: string;
  readonly title: string;
  readonly why: string;
  readonly paging: string;
  readonly tags: readonly string[];
  readonly vm: { readonly type: Int; readonly setup: readonly Op[] };
  readonly mems: readonly Op[];
  readonly memory: readonly MemoryImage[];
  readonly guest_memfds: readonly Op[];
  readonly slots: readonly Op[];
  readonly attributes: readonly Op[];
  readonly guest: GuestSetup;
  readonly after_vcpu: readonly Op[];
  readonly setup_failures?: readonly { readonly op: Op; readonly ret: number; readonly errno: string | null }[];
  readonly setup_trace?: readonly { readonly op: Op; readonly trace: readonly RecordedEvent[] }[];
  /** Present when the guest is itself a hypervisor; informative. */
  readonly nested?: unknown;
  readonly steps: readonly Step[];
}

/** The number of an `Int` below 2^53. */
export function int(value: unknown, absent = 0): number {
  if (value === undefined || value === null) return absent;
  return typeof value === 'number' ? value : Number(value);
}

/** The 64-bit value of an `Int`. */
export function bigInt(value: unknown): bigint {
  return value === undefined || value === null ? 0n : BigInt(value as string | number);
}

/** Bytes of a bare hex string. */
export function hexBytes(hex: string): Uint8Array {
  const bytes = new Uint8Array(hex.length >> 1);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** Bare hex of bytes. */
export function bytesHex(bytes: Uint8Array): string {
  let text = '';
  for (const b of bytes) text += b.toString(16).padStart(2, '0');
  return text;
}
