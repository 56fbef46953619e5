/** A VM described in a JSON file, as far as the fault path looks at it. docs/cli.md has the format. */
import { readFileSync } from 'node:fs';
import { VM_TYPES, type VmTypeName } from '../fault-machine/fault-input.ts';
import { InputError } from '../input-error.ts';

const SLOT_FLAGS = ['readonly', 'log-dirty-pages', 'being-changed'] as const;

export interface DescribedSlot {
  readonly id: number;
  /** Bytes; both are multiples of 4096. */
  readonly gpa: number;
  readonly size: number;
  readonly flags: readonly (typeof SLOT_FLAGS)[number][];
  readonly guestMemfd: boolean;
}

export interface DescribedVm {
  /** What to call it: the file. */
  readonly name: string;
  readonly vmType: VmTypeName;
  readonly cpu: 'amd' | 'intel';
  /** EPT with accessed and dirty bits. */
  readonly eptAd: boolean;
  readonly mmioCaching: boolean;
  /** KVM's own page at 0xfee00000: there and in use, there and inhibited, or not there. */
  readonly apicAccessPage: 'active' | 'inhibited' | 'none';
  readonly slots: readonly DescribedSlot[];
  readonly privateRanges: readonly { readonly gpa: number; readonly size: number }[];
}

/** Reads the file. @throws InputError, one line that names file and field */
export function readVmDescription(path: string): DescribedVm {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new InputError(`${path}: cannot be read (${code === 'ENOENT' ? 'no such file' : (code ?? 'unknown error')})`);
  }
  return parseVmDescription(path, text);
}

/** The description in `text`; `path` is for messages. @throws InputError */
export function parseVmDescription(path: string, text: string): DescribedVm {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new InputError(`${path}: is not JSON (${(error as Error).message.split('\n')[0]})`);
  }
  return new Reader(path).vm(json);
}

type Json = { readonly [key: string]: unknown };

class Reader {
  private readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  vm(json: unknown): DescribedVm {
    const o = this.object(json, 'the file', [
      'vmType',
      'cpu',
      'eptAd',
      'mmioCaching',
      'apicAccessPage',
      'slots',
      'attributes',
    ]);
    const vmType = this.oneOf(o['vmType'] ?? 'default', 'vmType', VM_TYPES);
    const cpu = this.oneOf(o['cpu'] ?? 'amd', 'cpu', ['amd', 'intel'] as const);
    if (cpu === 'intel' && (vmType === 'sev' || vmType === 'snp'))
      this.fail('cpu', `amd for a VM of type ${vmType}`, cpu);
    const slots = this.array(o['slots'] ?? [], 'slots').map((s, i) => this.slot(s, `slots[${i}]`, i));
    this.checkOverlap(slots);
    return {
      name: this.path,
      vmType,
      cpu,
      eptAd: this.boolean(o['eptAd'] ?? true, 'eptAd'),
      mmioCaching: this.boolean(o['mmioCaching'] ?? true, 'mmioCaching'),
      apicAccessPage: this.oneOf(o['apicAccessPage'] ?? 'none', 'apicAccessPage', [
        'active',
        'inhibited',
        'none',
      ] as const),
      slots: slots.map((slot, i) => this.checkSlot(slot, `slots[${i}]`, vmType)),
      privateRanges: this.array(o['attributes'] ?? [], 'attributes').flatMap((a, i) =>
        this.attribute(a, `attributes[${i}]`, vmType),
      ),
    };
  }

  private slot(json: unknown, at: string, index: number): DescribedSlot {
    const o = this.object(json, at, ['id', 'gpa', 'size', 'flags', 'guestMemfd']);
    return {
      id: this.number(o['id'] ?? index, `${at}.id`, 0, 32763),
      gpa: this.pages(o['gpa'], `${at}.gpa`, 0),
      size: this.pages(o['size'], `${at}.size`, 4096),
      flags: this.array(o['flags'] ?? [], `${at}.flags`).map((f, i) => this.oneOf(f, `${at}.flags[${i}]`, SLOT_FLAGS)),
      guestMemfd: this.boolean(o['guestMemfd'] ?? false, `${at}.guestMemfd`),
    };
  }

  /** What KVM_SET_USER_MEMORY_REGION2 would refuse. */
  private checkSlot(slot: DescribedSlot, at: string, vmType: VmTypeName): DescribedSlot {
    if (slot.guestMemfd && (vmType === 'default' || vmType === 'sev'))
      this.fail(`${at}.guestMemfd`, `false: a VM of type ${vmType} has no private memory`, true);
    if (slot.guestMemfd && slot.flags.includes('readonly'))
      this.fail(`${at}.flags`, 'no readonly: KVM refuses it together with guest_memfd', slot.flags);
    return slot;
  }

  private checkOverlap(slots: readonly DescribedSlot[]): void {
    slots.forEach((slot, i) => {
      const other = slots.findIndex((s, k) => k < i && s.gpa < slot.gpa + slot.size && slot.gpa < s.gpa + s.size);
      if (other >= 0) this.fail(`slots[${i}].gpa`, `a range that does not overlap slots[${other}]`, hexOf(slot.gpa));
    });
  }

  private attribute(json: unknown, at: string, vmType: VmTypeName): { gpa: number; size: number }[] {
    const o = this.object(json, at, ['gpa', 'size', 'attribute']);
    const range = { gpa: this.pages(o['gpa'], `${at}.gpa`, 0), size: this.pages(o['size'], `${at}.size`, 4096) };
    const attribute = this.oneOf(o['attribute'] ?? 'private', `${at}.attribute`, ['private', 'shared'] as const);
    if (attribute === 'private' && (vmType === 'default' || vmType === 'sev'))
      this.fail(`${at}.attribute`, `shared: a VM of type ${vmType} has no private memory`, attribute);
    return attribute === 'private' ? [range] : [];
  }

  private object(value: unknown, at: string, keys: readonly string[]): Json {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) this.fail(at, 'an object', value);
    const unknown = Object.keys(value as Json).find((key) => !keys.includes(key));
    if (unknown !== undefined)
      throw new InputError(
        `${this.path}: ${at === 'the file' ? '' : `${at}.`}${unknown}: no such field; known: ${keys.join(', ')}`,
      );
    return value as Json;
  }

  private array(value: unknown, at: string): readonly unknown[] {
    if (!Array.isArray(value)) this.fail(at, 'a list', value);
    return value as readonly unknown[];
  }

  private boolean(value: unknown, at: string): boolean {
    if (typeof value !== 'boolean') this.fail(at, 'true or false', value);
    return value as boolean;
  }

  private oneOf<T extends string>(value: unknown, at: string, values: readonly T[]): T {
    const found = values.find((v) => v === value);
    return found ?? this.fail(at, `one of ${values.join(', ')}`, value);
  }

  private number(value: unknown, at: string, least: number, most: number): number {
    const ok = typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most;
    return ok ? (value as number) : this.fail(at, `a whole number from ${least} to ${most}`, value);
  }

  /** A multiple of the page size below 2^52: a number, or text in hex or decimal. */
  private pages(value: unknown, at: string, least: number): number {
    const readable = typeof value === 'number' || (typeof value === 'string' && /^(0x[0-9a-f]+|[0-9]+)$/i.test(value));
    const n = readable ? Number(value) : Number.NaN;
    const ok = Number.isInteger(n) && n >= least && n < 2 ** 52 && n % 4096 === 0;
    return ok ? n : this.fail(at, 'a multiple of 4096 below 2^52, as "0x100000"', value);
  }

  private fail(at: string, expected: string, found: unknown): never {
    const shown = found === undefined ? 'nothing' : JSON.stringify(found);
    throw new InputError(`${this.path}: ${at}: expected ${expected}, found ${shown.slice(0, 40)}`);
  }
}

function hexOf(n: number): string {
  return `0x${n.toString(16)}`;
}
