/** KVM's module parameters by the names that the kernel's command line knows: one table, read by `--param` and by `conform`. */
import { defaultParams, type KvmParams } from '../kvm/params.ts';
import { InputError, UnsupportedError } from './input-error.ts';

interface ModuleParam {
  /** `module.parameter`. */
  readonly name: string;
  readonly key: keyof KvmParams;
  readonly type: 'bool' | 'int';
  /** What a value that is not supported yet would need; null when it is supported. */
  readonly missing: (value: boolean | number) => string | null;
  readonly meaning: string;
}

const any = (): null => null;

export const MODULE_PARAMS: readonly ModuleParam[] = [
  {
    name: 'kvm.mmio_caching',
    key: 'mmioCaching',
    type: 'bool',
    missing: any,
    meaning: 'cache MMIO addresses in MMIO SPTEs',
  },
  {
    name: 'kvm.tdp_mmu',
    key: 'tdpMmu',
    type: 'bool',
    missing: any,
    meaning: 'use the TDP MMU for two-dimensional paging',
  },
  {
    name: 'kvm_amd.npt',
    key: 'npt',
    type: 'bool',
    missing: any,
    meaning: 'use nested page tables on AMD',
  },
  {
    name: 'kvm_intel.ept',
    key: 'ept',
    type: 'bool',
    missing: any,
    meaning: 'use extended page tables on Intel',
  },
  {
    name: 'kvm_intel.pml',
    key: 'pml',
    type: 'bool',
    missing: any,
    meaning: "use Intel's log of modified pages for the dirty log",
  },
  {
    name: 'kvm_intel.enable_apicv',
    key: 'enableApicv',
    type: 'bool',
    missing: any,
    meaning: "use Intel's APIC virtualization",
  },
  {
    name: 'host.mce',
    key: 'hostMce',
    type: 'bool',
    missing: any,
    meaning: 'the host kernel handles machine checks, and sets CR4.MCE',
  },
  {
    name: 'kvm.nx_huge_pages',
    key: 'nxHugePages',
    type: 'bool',
    missing: any,
    meaning: 'map huge pages without execute rights',
  },
  {
    name: 'kvm.nx_huge_pages_recovery_ratio',
    key: 'nxHugePagesRecoveryRatio',
    type: 'int',
    missing: any,
    meaning: 'of the huge pages that were split for execute rights, which part (1/n) comes back at a time; 0: none',
  },
  {
    name: 'kvm.nx_huge_pages_recovery_period_ms',
    key: 'nxHugePagesRecoveryPeriodMs',
    type: 'int',
    missing: any,
    meaning: 'how often; 0: so that half of them come back in an hour',
  },
  {
    name: 'kvm.eager_page_split',
    key: 'eagerPageSplit',
    type: 'bool',
    missing: any,
    meaning: 'split huge pages when dirty logging starts',
  },
  {
    name: 'kvm.ignore_msrs',
    key: 'ignoreMsrs',
    type: 'bool',
    missing: any,
    meaning: 'ignore unknown MSRs instead of injecting #GP',
  },
  {
    name: 'kvm.enable_vmware_backdoor',
    key: 'enableVmwareBackdoor',
    type: 'bool',
    missing: (on) => (on ? 'the VMware backdoor (kvm.enable_vmware_backdoor=1)' : null),
    meaning: 'let the guest use the VMware backdoor port',
  },
  {
    name: 'kvm.force_emulation_prefix',
    key: 'forceEmulationPrefix',
    type: 'int',
    missing: any,
    meaning: 'emulate instructions that the forced-emulation prefix marks',
  },
];

/** The parameter set that `module.parameter` strings describe. @throws InputError, UnsupportedError */
export function moduleParams(given: { readonly [name: string]: string }): KvmParams {
  const params: { [key: string]: boolean | number } = { ...defaultParams };
  for (const [name, text] of Object.entries(given)) {
    const param = MODULE_PARAMS.find((p) => p.name === name || p.name.split('.')[1] === name);
    if (param === undefined) {
      throw new InputError(`--param ${name}: no such parameter; known: ${MODULE_PARAMS.map((p) => p.name).join(', ')}`);
    }
    const value = parseValue(param, text);
    const missing = param.missing(value);
    if (missing !== null) throw new UnsupportedError(missing);
    params[param.key] = value;
  }
  return params as unknown as KvmParams;
}

/** `name=value` strings as a record. @throws InputError */
export function splitParams(options: readonly string[]): { [name: string]: string } {
  const record: { [name: string]: string } = {};
  for (const option of options) {
    const at = option.indexOf('=');
    if (at <= 0) throw new InputError(`--param ${option}: expected name=value, as kvm.mmio_caching=0`);
    record[option.slice(0, at)] = option.slice(at + 1);
  }
  return record;
}

function parseValue(param: ModuleParam, text: string): boolean | number {
  if (param.type === 'int') {
    if (!/^(0x[0-9a-f]+|[0-9]+)$/i.test(text)) throw new InputError(`--param ${param.name}=${text}: expected a number`);
    return Number(text);
  }
  if (/^(1|y|yes|on|true)$/i.test(text)) return true;
  if (/^(0|n|no|off|false)$/i.test(text)) return false;
  throw new InputError(`--param ${param.name}=${text}: expected 0 or 1`);
}
