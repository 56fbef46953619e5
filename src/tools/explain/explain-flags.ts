/** One fault made from flags: an error code at an address of a VM with one slot of the given kind, through the real fault path. */
import { hi64, hiOf, lo64, loOf } from '../../arch/halves.ts';
import { errnoName } from '../../host/errno.ts';
import { Kvm, KvmError } from '../../kvm/api/index.ts';
import { KVM_MEM_GUEST_MEMFD, KVM_MEM_READONLY } from '../../kvm/memslots/memslot.ts';
import { mmuPageFault } from '../../kvm/mmu/page-fault.ts';
import { mmuReload } from '../../kvm/mmu/roots.ts';
import { checkRevision } from '../choices.ts';
import { recordRun } from '../conform/run-record.ts';
import { InputError } from '../input-error.ts';
import { FaultLog, type FaultRecord } from './fault-log.ts';
import type { LeftBy } from './left-by.ts';

export interface FlagFault {
  readonly errorCode: bigint;
  readonly gpa: bigint;
  readonly slot: 'rw' | 'ro' | 'none' | 'gmem';
  readonly attribute: 'private' | 'shared';
  readonly vmType: 'default' | 'sw-protected';
  readonly revision?: string;
}

const SLOT_BYTES = 0x200000;

/** The records of the fault, and how KVM would leave. @throws InputError */
export function flagFaults(flags: FlagFault): { faults: FaultRecord[]; left: LeftBy | null } {
  if (flags.gpa >> 40n !== 0n)
    throw new InputError(`--gpa 0x${flags.gpa.toString(16)}: expected an address below 2^40`);
  const isProtected = flags.vmType === 'sw-protected';
  if (!isProtected && (flags.attribute === 'private' || flags.slot === 'gmem'))
    throw new InputError(
      '--attribute private and --slot gmem need --vm-type sw-protected: a default VM has no private memory',
    );
  const kvm = new Kvm({ ...(flags.revision === undefined ? {} : { revision: checkRevision(flags.revision) }) });
  const vm = kvm.createVm(isProtected ? 1 : 0);
  try {
    addSlot(kvm, vm, flags, Math.floor(Number(flags.gpa) / SLOT_BYTES) * SLOT_BYTES);
    const vcpu = vm.createVcpu(0);
    vcpu.setCpuid2(kvm.getSupportedCpuid());
    const state = vcpu.state;
    const reloaded = mmuReload(state);
    if (reloaded < 0) throw new KvmError(reloaded, 'KVM_RUN');
    const log = new FaultLog(vm.state);
    vm.onTrace((event) => {
      log.event(event);
    });
    const gpa = Number(flags.gpa);
    const result = mmuPageFault(state, loOf(gpa), hiOf(gpa), lo64(flags.errorCode), hi64(flags.errorCode));
    log.finish();
    return {
      faults: log.faults,
      left: result > 0 ? null : { ret: result < 0 ? -1 : 0, errno: errnoOf(result), run: recordRun(vcpu.kvmRun) },
    };
  } finally {
    vm.close();
  }
}

function addSlot(kvm: Kvm, vm: ReturnType<Kvm['createVm']>, flags: FlagFault, base: number): void {
  if (flags.slot !== 'none') {
    const hva = kvm.mm.mmap({ size: SLOT_BYTES, kind: 'anon' });
    const gmem = flags.slot === 'gmem' ? vm.createGuestMemfd({ size: SLOT_BYTES, flags: 0 }) : undefined;
    vm.setUserMemoryRegion2({
      slot: 0,
      flags: (flags.slot === 'ro' ? KVM_MEM_READONLY : 0) | (gmem === undefined ? 0 : KVM_MEM_GUEST_MEMFD),
      guestPhysAddr: base,
      memorySize: SLOT_BYTES,
      userspaceAddr: hva,
      ...(gmem === undefined ? {} : { guestMemfd: gmem }),
    });
  }
  if (flags.attribute === 'private')
    vm.setMemoryAttributes({ address: base, size: SLOT_BYTES, attributes: 8, flags: 0 });
}

function errnoOf(result: number): string | null {
  return result < 0 ? errnoName(-result) : null;
}
