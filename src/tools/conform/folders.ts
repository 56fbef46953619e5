/**
 * What the recordings of each folder were made on: the machine and KVM's module parameters. A folder that has a `machine.json`
 * of the same form beside its scenarios says it for itself.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve, sep } from 'node:path';
import { InputError } from '../input-error.ts';

export interface FolderMachine {
  /** Name of a hardware profile. */
  readonly hardware: string;
  /** Module parameters by their kernel names, as on the command line. */
  readonly params: { readonly [parameter: string]: string };
  /** Trace events that are kept of a step that ended by its timer only. */
  readonly interruptedEvents: number;
  /** `nested` recordings also hold the events of nested virtualization, interrupts and asynchronous page faults. */
  readonly events: 'base' | 'nested';
}

const amd: FolderMachine = { hardware: 'qemu-tcg-epyc', params: {}, interruptedEvents: 18, events: 'base' };
const intel: FolderMachine = { ...amd, hardware: 'bochs-skylake' };

const folders: { readonly [folder: string]: FolderMachine } = {
  npt: amd,
  'npt-mmio-caching-off': { ...amd, params: { 'kvm.mmio_caching': '0' } },
  'npt-legacy-mmu': { ...amd, params: { 'kvm.tdp_mmu': '0' } },
  shadow: { ...amd, params: { 'kvm_amd.npt': '0' } },
  // L1's CR4 comes back with the host's CR4.MCE after an exit from an L2 without paging: the recorded host had none, but in more/.
  nested: { ...amd, params: { 'host.mce': '0' }, events: 'nested' },
  'nested-npt0': { ...amd, params: { 'kvm_amd.npt': '0', 'host.mce': '0' }, events: 'nested' },
  more: { ...amd, interruptedEvents: 60, events: 'nested' },
  ept: intel,
  'ept-nopml': { ...intel, params: { 'kvm_intel.pml': '0' } },
  'ept-noapicv': { ...intel, params: { 'kvm_intel.enable_apicv': '0' } },
};

/** For a folder of another name: the machine of the scenario's own `paging`. */
const byPaging: { readonly [paging: string]: FolderMachine } = { npt: amd, shadow: folders['shadow']!, ept: intel };

/**
 * The machine of the scenarios in `folder`: what its `machine.json` says, on top of what its name, or that of one of the two folders
 * around it, stands for.
 * @param paging the scenario's `paging`, which decides when no name does
 * @throws InputError
 */
export function folderMachine(folder: string, paging: string | undefined): FolderMachine {
  const name = resolve(folder)
    .split(sep)
    .findLast((part) => Object.hasOwn(folders, part));
  const known = (name === undefined ? byPaging[paging ?? 'npt'] : folders[name]) ?? amd;
  const own = join(folder, 'machine.json');
  return existsSync(own) ? { ...known, ...readMachine(own) } : known;
}

/** `{hardware?, params?, interruptedEvents?, events?}`. @throws InputError */
function readMachine(path: string): Partial<FolderMachine> {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new InputError(`${path}: is not JSON (${(error as Error).message.split('\n')[0]})`);
  }
  if (typeof json !== 'object' || json === null) throw new InputError(`${path}: expected an object`);
  const { hardware, params, interruptedEvents, events, ...rest } = json as { [key: string]: unknown };
  const wrong = (key: string, expected: string): never => {
    throw new InputError(`${path}: ${key}: expected ${expected}`);
  };
  if (hardware !== undefined && typeof hardware !== 'string') wrong('hardware', 'the name of a hardware profile');
  if (interruptedEvents !== undefined && !Number.isInteger(interruptedEvents)) wrong('interruptedEvents', 'a count');
  if (events !== undefined && events !== 'base' && events !== 'nested') wrong('events', '"base" or "nested"');
  const values = Object.values((params ?? {}) as object);
  if (params === null || values.some((v) => typeof v !== 'string')) wrong('params', 'strings by parameter name');
  for (const key of Object.keys(rest)) wrong(key, 'one of hardware, params, interruptedEvents, events');
  return json as Partial<FolderMachine>;
}
