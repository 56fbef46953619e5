/**
 * What the recordings of each folder were made on: the machine and KVM's module parameters. A folder that has a `machine.json`
 * of the same form beside its scenarios says it for itself.
 */
import { existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
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
  nested: { ...amd, events: 'nested' },
  'nested-npt0': { ...amd, params: { 'kvm_amd.npt': '0' }, events: 'nested' },
  more: { ...amd, interruptedEvents: 60, events: 'nested' },
  ept: intel,
  'ept-nopml': { ...intel, params: { 'kvm_intel.pml': '0' } },
  'ept-noapicv': { ...intel, params: { 'kvm_intel.enable_apicv': '0' } },
};

/** The machine of the scenarios in `folder`; the NPT machine when the folder says nothing. @throws InputError */
export function folderMachine(folder: string): FolderMachine {
  const own = join(folder, 'machine.json');
  const known = folders[basename(folder)] ?? amd;
  if (!existsSync(own)) return known;
  try {
    return { ...known, ...(JSON.parse(readFileSync(own, 'utf8')) as Partial<FolderMachine>) };
  } catch (error) {
    throw new InputError(`${own}: is not JSON (${(error as Error).message.split('\n')[0]})`);
  }
}
