/** What a VMM should do about the way a fault left, and what becomes of the guest if it does not. */

import type { FaultRecord } from './fault-log.ts';
import { guestGetsPf, type LeftBy } from './left-by.ts';

export interface Advice {
  /** What to do. */
  readonly vmm: string;
  /** What happens if nobody does it. */
  readonly otherwise: string;
}

const PRIVATE = 8n;
const AGAIN =
  'the instruction has not run and RIP still points at it: the next KVM_RUN takes the same fault and leaves the same way, for ever, and the guest makes no progress';
const NOTHING = 'nothing is asked of it';

/**
 * The advice for a fault that left by `left` (null: the guest was entered again).
 * @param walkRetried the processor's own write to a page table of the guest, repeated rather than emulated
 */
export function adviceFor(fault: FaultRecord, left: LeftBy | null, walkRetried = false): Advice {
  if (walkRetried) return whenWalkRetried();
  if (left === null || fault.resumed) return fault.prefetch ? whenPrefetched(fault) : whenResumed(fault);
  if (left.bug)
    return {
      vmm: 'there is nothing that a VMM can do: the state was one that the kernel takes for impossible',
      otherwise: 'the host stops, or kills the thread with the locks that it holds',
    };
  if (left.ioctl !== undefined) return whenPreFaulted(left.errno);
  if (left.emulated !== undefined) return whenEmulated(fault);
  const exit = String(left.run?.['exit_name'] ?? '');
  if (exit === 'MEMORY_FAULT' && (left.errno === 'EFAULT' || left.errno === 'EHWPOISON'))
    return whenMemoryFault(fault, left);
  if (left.errno === 'EINTR')
    return {
      vmm: 'deliver the signal that is pending, then call KVM_RUN again: the fault starts over',
      otherwise:
        'while the signal stays pending every KVM_RUN that has to wait returns EINTR again, and the guest waits at the same instruction',
    };
  if (left.errno === 'EFAULT') return whenBareEfault(fault);
  if (left.errno === 'EIO')
    return {
      vmm: 'KVM found a bug of its own and declared the VM dead: destroy the VM',
      otherwise: 'every later ioctl on the VM and its vCPUs returns EIO',
    };
  if (left.errno !== null)
    return { vmm: `the call failed with ${left.errno}: see what it says of its argument`, otherwise: AGAIN };
  if (exit === 'MMIO') return whenMmio(fault, left);
  if (exit === 'INTERNAL_ERROR')
    return {
      vmm: 'KVM cannot emulate the instruction: stop the guest, or look at the bytes in kvm_run and emulate it in the VMM',
      otherwise: AGAIN,
    };
  return { vmm: NOTHING, otherwise: 'the guest goes on with the next KVM_RUN' };
}

function whenMemoryFault(fault: FaultRecord, left: LeftBy): Advice {
  const isPrivate = (BigInt(String(left.run?.['flags'] ?? '0')) & PRIVATE) !== 0n;
  const wanted = isPrivate ? 'private' : 'shared';
  if (fault.attribute !== wanted) return mismatch(fault, wanted);
  const converting = `the gfn is ${wanted} already: a VMM that answers every memory fault by converting "to match" changes nothing, and loops: ${AGAIN}`;
  if (!isPrivate)
    return {
      vmm: 'the attribute was private when KVM looked and is shared now: call KVM_RUN again',
      otherwise: 'nothing is lost: the vCPU stands still until somebody runs it',
    };
  const emulation = fault.stages.at(-1)?.verdict === 'RET_PF_EMULATE';
  if (emulation)
    return {
      vmm: `${emulationCause(fault)}. KVM never emulates an access to private memory: make the gfn shared if the guest means a device there, or stop the guest`,
      otherwise: converting,
    };
  if (fault.slot === null)
    return {
      vmm: 'the gfn is private and no slot covers it; private memory is never MMIO: add a slot with guest_memfd, or make the gfn shared, which makes it MMIO',
      otherwise: converting,
    };
  if (!fault.slot.guestMemfd)
    return {
      vmm: 'the gfn is private and its slot has no guest_memfd: bind one (KVM_MEM_GUEST_MEMFD) by deleting the slot and creating it again, or make the gfn shared',
      otherwise: converting,
    };
  if (left.errno === 'EHWPOISON')
    return {
      vmm: 'the guest_memfd page was lost to a memory error: inject a machine check, or stop the guest; punching a hole over the page gives a new, empty one',
      otherwise: converting,
    };
  return {
    vmm: 'guest_memfd could not give the page: check its size, the offset of the binding and the memory limit of the process',
    otherwise: converting,
  };
}

function mismatch(fault: FaultRecord, wanted: 'private' | 'shared'): Advice {
  const convert = `the guest meant ${wanted} memory and the attribute says ${fault.attribute}: convert the range with KVM_SET_MEMORY_ATTRIBUTES and call KVM_RUN again, or stop the guest if it may not`;
  let next = '';
  if (wanted === 'private' && fault.slot === null)
    next = '. Converting is not enough here: no slot covers the gfn, so the next fault leaves with a memory fault too';
  else if (wanted === 'private' && fault.slot?.guestMemfd === false)
    next =
      '. Converting is not enough here: the slot has no guest_memfd, so the next fault leaves with a memory fault too';
  else if (wanted === 'shared' && fault.slot === null)
    next = '. No slot covers the gfn: once it is shared, the access is MMIO';
  return { vmm: `${convert}${next}`, otherwise: AGAIN };
}

function emulationCause(fault: FaultRecord): string {
  const stage = fault.stages.at(-1);
  return stage === undefined ? 'the fault ended in emulation' : `${stage.name} asked for emulation: ${stage.reason}`;
}

/** EFAULT without an exit: kvm_run says nothing of the cause. */
function whenBareEfault(fault: FaultRecord): Advice {
  const nothing = 'kvm_run does not say where (its exit_reason is not KVM_EXIT_MEMORY_FAULT)';
  if (fault.stages.at(-1)?.name === 'reserved-bits')
    return {
      vmm: `a private access hit an MMIO SPTE, which cannot be: ${nothing}, and nothing can be converted; stop the guest and report the kernel's WARN`,
      otherwise: AGAIN,
    };
  return {
    vmm: `the host address behind the slot gives no memory for this access, and ${nothing}: look at the mapping (munmap, PROT_NONE, mprotect, the end of the file, userfaultfd), repair it and call KVM_RUN again, or stop the guest`,
    otherwise: AGAIN,
  };
}

/** KVM_PRE_FAULT_MEMORY returned. */
function whenPreFaulted(errno: string | null): Advice {
  if (errno === null) return { vmm: NOTHING, otherwise: 'the page is mapped: the guest will touch it without an exit' };
  if (errno === 'EINVAL' || errno === 'EOPNOTSUPP')
    return {
      vmm: 'do without the ioctl: this kernel, or this VM, does not have it',
      otherwise: 'nothing is lost: the guest takes its faults itself',
    };
  if (errno === 'EINTR')
    return {
      vmm: 'the ioctl repeats the fault by itself until it is no longer told to retry; a signal ended that: call again',
      otherwise:
        'nothing is lost; but while the cause of the retry lasts, a call that no signal interrupts does not return',
    };
  const why = errno === 'ENOENT' ? 'an address that is emulated cannot be mapped' : 'the page cannot be had';
  return {
    vmm: `${why}: leave the address to the fault that the guest will take there, or repair what is missing and call again`,
    otherwise:
      'nothing is lost: the guest takes the fault itself when it touches the page, and leaves then if it has to',
  };
}

function whenMmio(fault: FaultRecord, left: LeftBy): Advice {
  const write = Number(left.run?.['is_write'] ?? 0) !== 0;
  const rom = fault.slot?.readonly
    ? ' (the slot is read-only: the write is for the VMM, as with ROM or flash, and the memory keeps its contents)'
    : '';
  return {
    vmm: write
      ? `pass the data in kvm_run.mmio to the device and call KVM_RUN again${rom}`
      : 'put what the device answers into kvm_run.mmio.data and call KVM_RUN again, which completes the load',
    otherwise: write
      ? 'the write is lost: the next KVM_RUN goes on behind the instruction'
      : 'the next KVM_RUN completes the load with whatever is in kvm_run.mmio.data',
  };
}

function whenEmulated(fault: FaultRecord): Advice {
  const rom = fault.slot?.readonly
    ? 'a write to a read-only slot comes out as KVM_EXIT_MMIO with the address in the slot'
    : 'an access to a device outside KVM comes out as KVM_EXIT_MMIO';
  return {
    vmm: `KVM emulates the instruction; ${rom}: answer it and call KVM_RUN again`,
    otherwise:
      'a load that is not answered completes with whatever is in kvm_run.mmio.data, a store is lost; the guest goes on either way',
  };
}

function whenWalkRetried(): Advice {
  return {
    vmm: 'nothing is asked of it: if a shadowed page table was unprotected, the access now succeeds',
    otherwise:
      'where nothing was unprotected (the page table is in read-only memory or has no slot) the guest repeats the access and comes back here, for ever; Linux 6.12 retries only if it did unprotect something (2fb2b7877b3a)',
  };
}

function whenResumed(fault: FaultRecord): Advice {
  if (guestGetsPf(fault))
    return { vmm: NOTHING, otherwise: "the fault is the guest's own: its page-fault handler runs" };
  if (fault.verdict === 'RET_PF_RETRY') return whenRetried(fault);
  if (fault.verdict === 'RET_PF_FIXED' || fault.verdict === 'RET_PF_SPURIOUS')
    return { vmm: NOTHING, otherwise: 'the guest repeats the access, which now finds the page' };
  return { vmm: NOTHING, otherwise: 'the guest goes on' };
}

/** KVM's own fault, ahead of an access, when an asynchronous page has come. */
function whenPrefetched(fault: FaultRecord): Advice {
  const mapped = fault.verdict === 'RET_PF_FIXED' || fault.verdict === 'RET_PF_SPURIOUS';
  return {
    vmm: NOTHING,
    otherwise: mapped
      ? 'the guest goes on and finds the page mapped'
      : 'the guest goes on, and takes the fault itself when it touches the page again',
  };
}

/** The guest is entered again and repeats the access: until when? */
function whenRetried(fault: FaultRecord): Advice {
  const stage = fault.stages.at(-1)?.name ?? '';
  const loop = 'the guest repeats the access and comes back here';
  if (stage === 'invalid-slot')
    return {
      vmm: 'nothing from this vCPU: the thread that deletes or moves the slot has to finish its ioctl',
      otherwise: `${loop} until it has: the vCPU burns its processor, and takes signals and interrupts all the same`,
    };
  if (stage.startsWith('invalidation') || stage === 'stale-check')
    return {
      vmm: NOTHING,
      otherwise: `${loop} until no invalidation of the gfn is in progress; one that never ends (a notifier range that is begun and not ended) makes the vCPU burn its processor without progress`,
    };
  if (stage === 'error-pfn')
    return {
      vmm: 'the process gets SIGBUS (BUS_MCEERR_AR) with the host address: inject a machine check into the guest, or replace the page; then call KVM_RUN again',
      otherwise:
        'without a handler SIGBUS ends the process; a handler that changes nothing gets the signal again with every KVM_RUN, and the guest makes no progress',
    };
  if (stage === 'fault-in-shared')
    return {
      vmm: NOTHING,
      otherwise:
        'the page is being read in; the vCPU halts or runs another task of the guest until it is there, and the access is repeated then',
    };
  return { vmm: NOTHING, otherwise: `${loop} only if something changes the entry again` };
}
