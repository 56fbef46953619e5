/** One line of ftrace text, as trace_pipe or `trace-cmd report` prints it, that stands for a page fault. */
import { PFERR_FLAGS } from '../../arch/error-code.ts';
import { join64 } from '../../arch/halves.ts';
import { InputError } from '../input-error.ts';

/** The events that say enough of a fault to do it again. */
export const FAULT_EVENTS = ['kvm_page_fault', 'handle_mmio_page_fault', 'fast_page_fault'] as const;
export type FaultEventName = (typeof FAULT_EVENTS)[number];

/** What a line says; null where its event does not say it. */
export interface TracedFault {
  readonly event: FaultEventName;
  /** The line without the blanks around it. */
  readonly line: string;
  readonly vcpu: number | null;
  readonly rip: bigint | null;
  readonly address: bigint;
  /** `kvm_page_fault` on Intel: an exit qualification. */
  readonly errorCode: bigint | null;
  /** The entry that the kernel found, of `fast_page_fault`. */
  readonly oldSpte: bigint | null;
}

/** A fault event anywhere in a line: behind task, cpu, flags and timestamp, behind a `kvm:` or `kvmmmu:` group, or alone. */
const EVENT = /(?:^|[\s:])(?:kvm:|kvmmmu:)?([a-z][a-z0-9_]*):\s+(.*)$/;
const OTHER = /(?:^|\s)(?:kvm:|kvmmmu:)?((?:kvm|mmu|vcpu|mark|check|handle|fast)_[a-z0-9_]+):/;

/**
 * Reads a line.
 * @param name what to call the line in an error, as `--trace-line`
 * @throws InputError
 */
export function parseTraceLine(text: string, name: string): TracedFault {
  const line = text.trim();
  if (line === '') throw new InputError(`${name}: is empty, expected a line with ${FAULT_EVENTS.join(', ')}`);
  if (line.includes('\n')) throw new InputError(`${name}: expected one line, found ${line.split('\n').length}`);
  const found = eventOf(line);
  if (found === null) {
    const other = OTHER.exec(line)?.[1];
    const what = other === undefined ? shown(line) : `event ${other}`;
    throw new InputError(`${name}: ${what}: expected one of the events ${FAULT_EVENTS.join(', ')}`);
  }
  const { event, fields } = found;
  const none = { event, line, vcpu: null, rip: null, errorCode: null, oldSpte: null };
  switch (event) {
    case 'kvm_page_fault':
      return {
        ...none,
        vcpu: vcpuOf(fields),
        rip: optional(/\brip (0x[0-9a-f]+)/i, fields),
        address: required(/\baddress ((?:0x)?[0-9a-f]+)/i, fields, name, event, 'address 0x...'),
        errorCode: required(/\berror_code ((?:0x)?[0-9a-f]+)/i, fields, name, event, 'error_code 0x...'),
      };
    case 'handle_mmio_page_fault':
      return { ...none, address: required(/\bgfn ([0-9a-f]+)/i, fields, name, event, 'gfn (hex)') << 12n };
    default:
      return {
        ...none,
        vcpu: vcpuOf(fields),
        address: required(/\bgva ([0-9a-f]+)/i, fields, name, event, 'gva (hex)'),
        errorCode: flagText(fields, name),
        oldSpte: optional(/\bold (0x[0-9a-f]+)/i, fields),
      };
  }
}

/** The first line of `text` that is a fault event; what `softkvm explain --trace-line -` reads of its input. @throws InputError */
export function firstFaultLine(text: string, name: string): TracedFault {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  const line = lines.find((l) => eventOf(l.trim()) !== null);
  if (line !== undefined) return parseTraceLine(line, name);
  if (lines.length === 1) return parseTraceLine(lines[0]!, name);
  throw new InputError(`${name}: ${lines.length} lines, none with an event ${FAULT_EVENTS.join(', ')}`);
}

function eventOf(line: string): { event: FaultEventName; fields: string } | null {
  const match = EVENT.exec(line);
  const event = FAULT_EVENTS.find((e) => e === match?.[1]);
  if (event !== undefined) return { event, fields: match![2]! };
  // A prefix with a word and a colon of its own: look for each event by name.
  for (const known of FAULT_EVENTS) {
    const at = new RegExp(`(?:^|[\\s:])${known}:\\s+(.*)$`).exec(line);
    if (at !== null) return { event: known, fields: at[1]! };
  }
  return null;
}

function vcpuOf(fields: string): number | null {
  const text = /\bvcpu ([0-9]+)/.exec(fields)?.[1];
  return text === undefined ? null : Number(text);
}

function optional(pattern: RegExp, fields: string): bigint | null {
  const text = pattern.exec(fields)?.[1];
  return text === undefined ? null : hexValue(text);
}

function required(pattern: RegExp, fields: string, name: string, event: string, what: string): bigint {
  const value = optional(pattern, fields);
  if (value === null || value >> 64n !== 0n)
    throw new InputError(`${name}: ${event}: expected ${what} of at most 64 bits, found ${shown(fields)}`);
  return value;
}

function hexValue(text: string): bigint {
  return BigInt(text.startsWith('0x') || text.startsWith('0X') ? text : `0x${text}`);
}

/** The kernel's flag text: `P|W|U|0x100000000`, names of bits and what is left in hex. @throws InputError */
function flagText(fields: string, name: string): bigint {
  const text = /\berror_code (\S*)/.exec(fields)?.[1];
  if (text === undefined) throw new InputError(`${name}: fast_page_fault: expected error_code, found ${shown(fields)}`);
  let code = 0n;
  for (const part of text.split('|')) {
    const flag = PFERR_FLAGS.find((f) => f.name === flagName(part));
    if (flag !== undefined) code |= join64(flag.lo, flag.hi);
    else if (/^0x[0-9a-f]{1,16}$/i.test(part)) code |= BigInt(part);
    else if (part !== '')
      throw new InputError(
        `${name}: fast_page_fault: error_code ${text}: expected flags and hex, as P|W|U|0x100000000`,
      );
  }
  return code;
}

/** @kvm mmutrace.h kvm_mmu_trace_pferr_flags: F is a fetch. */
function flagName(part: string): string {
  return part === 'F' ? 'FETCH' : part;
}

function shown(text: string): string {
  return text.length > 60 ? `"${text.slice(0, 57)}..."` : `"${text}"`;
}
