/** An input as flags of `softkvm explain`, and back. */
import { hi64, lo64 } from '../../arch/halves.ts';
import { InputError } from '../input-error.ts';
import { codeText } from './fault-codes.ts';
import {
  ATTRIBUTES,
  BACKINGS,
  ENTRIES,
  type FaultInput,
  type Hardware,
  type Invalidation,
  ordinaryFault,
  PAGINGS,
  SLOTS,
  SPTES,
  VM_TYPES,
} from './fault-input.ts';

/** The processors that `--cpu` names. */
const CPUS = ['amd', 'intel'] as const;

/** Values by flag, without the dashes; a switch has the value true. */
export type InputFlags = Readonly<Record<string, string | boolean | undefined>>;

/** The value of `--invalidation`: `none`, `in-progress`, `done-at=STAGE`, `begun-at=STAGE`. */
export function invalidationText(invalidation: Invalidation): string {
  return 'stage' in invalidation ? `${invalidation.kind}=${invalidation.stage}` : invalidation.kind;
}

/** The arguments that describe the input to `softkvm explain`; what is as in an ordinary fault is left out, but never the error code. */
export function inputFlags(input: FaultInput): string[] {
  const args: string[] = [];
  const flag = (name: string, value: string, ordinary: string): void => {
    if (value !== ordinary) args.push(`--${name}`, value);
  };
  flag('cpu', input.hardware === 'npt' ? 'amd' : 'intel', 'amd');
  if (input.hardware === 'ept-no-ad') args.push('--no-ept-ad');
  flag('vm-type', input.vmType, ordinaryFault.vmType);
  flag('paging', input.paging, ordinaryFault.paging);
  if (input.nested) args.push('--nested');
  if (!input.mmioCaching) args.push('--no-mmio-caching');
  flag('entry', input.entry, ordinaryFault.entry);
  args.push('--error-code', codeText(input.errorLo, input.errorHi));
  flag('slot', input.slot, ordinaryFault.slot);
  flag('attribute', input.attribute, ordinaryFault.attribute);
  flag('spte', input.spte, ordinaryFault.spte);
  flag('backing', input.backing, ordinaryFault.backing);
  flag('invalidation', invalidationText(input.invalidation), 'none');
  return args;
}

/** Arguments as flags by name. @throws InputError for what is no flag, or has no value */
export function flagsOf(args: readonly string[]): InputFlags {
  const flags: Record<string, string | boolean> = {};
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (!arg.startsWith('--')) throw new InputError(`${arg}: expected a flag`);
    const name = arg.slice(2);
    if (SWITCHES.includes(name)) {
      flags[name] = true;
      continue;
    }
    const value = args[++i];
    if (value === undefined) throw new InputError(`${arg}: expected a value`);
    flags[name] = value;
  }
  return flags;
}

const SWITCHES: readonly string[] = ['no-ept-ad', 'nested', 'no-mmio-caching'];

/** The input that the flags describe; what is left out is as in an ordinary fault. @throws InputError naming the flag and what it can be */
export function parseInput(flags: InputFlags): FaultInput {
  const code = codeOf(flags['error-code']);
  const entry = choice(flags, 'entry', ENTRIES, ordinaryFault.entry);
  return {
    hardware: hardwareOf(flags),
    vmType: choice(flags, 'vm-type', VM_TYPES, ordinaryFault.vmType),
    paging: choice(flags, 'paging', PAGINGS, ordinaryFault.paging),
    nested: flags['nested'] === true,
    mmioCaching: flags['no-mmio-caching'] !== true,
    entry,
    errorLo: code === null ? (entry === 'pre-fault' ? 0 : ordinaryFault.errorLo) : lo64(code),
    errorHi: code === null ? (entry === 'pre-fault' ? 0 : ordinaryFault.errorHi) : hi64(code),
    slot: choice(flags, 'slot', SLOTS, ordinaryFault.slot),
    attribute: choice(flags, 'attribute', ATTRIBUTES, ordinaryFault.attribute),
    spte: choice(flags, 'spte', SPTES, ordinaryFault.spte),
    backing: choice(flags, 'backing', BACKINGS, ordinaryFault.backing),
    invalidation: invalidationOf(flags['invalidation']),
  };
}

function hardwareOf(flags: InputFlags): Hardware {
  const noAd = flags['no-ept-ad'] === true;
  const cpu = choice(flags, 'cpu', CPUS, noAd ? 'intel' : 'amd');
  if (cpu === 'intel') return noAd ? 'ept-no-ad' : 'ept';
  if (noAd) throw new InputError('--no-ept-ad: expected --cpu intel: nested paging always has A/D bits');
  return 'npt';
}

function choice<T extends string>(flags: InputFlags, name: string, values: readonly T[], ordinary: T): T {
  const value = flags[name];
  if (value === undefined) return ordinary;
  const found = values.find((v) => v === value);
  if (found === undefined) throw new InputError(`--${name} ${String(value)}: expected one of ${values.join(', ')}`);
  return found;
}

function codeOf(value: string | boolean | undefined): bigint | null {
  if (value === undefined) return null;
  const text = String(value);
  if (!/^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(text) || BigInt(text) >> 64n !== 0n) {
    throw new InputError(`--error-code ${text}: expected a 64-bit number`);
  }
  return BigInt(text);
}

function invalidationOf(value: string | boolean | undefined): Invalidation {
  const text = value === undefined ? 'none' : String(value);
  if (text === 'none' || text === 'in-progress') return { kind: text };
  const at = /^(done-at|begun-at)=([\w-]+)$/.exec(text);
  if (at === null) {
    throw new InputError(
      `--invalidation ${text}: expected none, in-progress, done-at=STAGE or begun-at=STAGE, with a stage of the revision`,
    );
  }
  return { kind: at[1] as 'done-at' | 'begun-at', stage: at[2]! };
}
