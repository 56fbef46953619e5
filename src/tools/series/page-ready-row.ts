/** Row 8: a page that had to be read in is ready, and its fault is done again. In a VM of its own, with a guest that runs. */
import { PFERR_PRIVATE_ACCESS_HI } from '../../arch/error-code.ts';
import { Kvm, type Vcpu, type Vm } from '../../kvm/api/index.ts';
import { KVM_EXIT_MEMORY_FAULT } from '../../kvm/kvm-run.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import { KVM_X86_SW_PROTECTED_VM } from '../../kvm/vm-type.ts';
import { checkAsyncPfCompletion } from '../../kvm/x86/async-pf-ready.ts';
import type { Demonstration, DemonstrationCase, Side } from './demonstration.ts';
import { type RecordedFault, SideRecorder } from './side-recorder.ts';

const MEMORY = 64 * 1024 * 1024;
const RAM = 0x10_0000;
const CODE_AT = 0x1000;
/** The page that somebody in userspace has to provide. */
const PAGE = 0x5000;
/** Real mode: mov byte [PAGE], 42; jmp $ */
const CODE = [0xc6, 0x06, PAGE & 0xff, PAGE >> 8, 42, 0xeb, 0xfe];
const INSTRUCTIONS = 1000;
const INTERRUPTS_ON = 0x202n;

interface Waiting {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  readonly recorder: SideRecorder;
  readonly hva: number;
}

/** A guest whose write waits for its page, halted. */
function untilItWaits(revision: Revision): Waiting {
  const kvm = new Kvm({ hostMemory: MEMORY, revision: revision.name });
  const vm = kvm.createVm(KVM_X86_SW_PROTECTED_VM);
  vm.createIrqchip();
  const hva = kvm.mm.mmap({ kind: 'anon', size: RAM });
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: RAM, userspaceAddr: hva });
  kvm.mm.write(hva + CODE_AT, Uint8Array.from(CODE), 0, CODE.length);
  const vcpu = vm.createVcpu(0);
  vcpu.setCpuid2(kvm.getSupportedCpuid());
  const sregs = vcpu.getSregs();
  sregs.cs = { ...sregs.cs, base: 0n, selector: 0 };
  vcpu.setSregs(sregs);
  vcpu.setRegs({ ...vcpu.getRegs(), rip: BigInt(CODE_AT), rflags: INTERRUPTS_ON });
  kvm.mm.userfaultRegister(hva + PAGE, 0x1000, 'block');
  const recorder = new SideRecorder(vm.state);
  vcpu.run({ maxInstructions: INSTRUCTIONS });
  return { kvm, vm, vcpu, recorder, hva };
}

/** The page comes, and the vCPU runs on; what was heard from then on. */
function pageComes({ kvm, vm, vcpu, recorder, hva }: Waiting): string {
  recorder.faults.length = 0;
  vm.onTrace((event) => {
    if (event.event.startsWith('kvm_mmu') || event.event.startsWith('kvm_async')) recorder.event(event);
  });
  kvm.mm.userfaultCopy(hva + PAGE, Uint8Array.of(1));
  const { errno, exit } = vcpu.run({ maxInstructions: INSTRUCTIONS });
  return exit === null && errno === 'EINTR' ? 'the guest runs on until it is interrupted' : `${exit?.reason}, ${errno}`;
}

function sideOf(waiting: Waiting, redone: RecordedFault | undefined, left: string, sees: string): Side {
  const { vm, recorder } = waiting;
  const { run } = waiting.vcpu.state;
  const announced = run.exitReason === KVM_EXIT_MEMORY_FAULT;
  const side: Side = {
    revision: vm.state.revision.name,
    stages: redone?.stages ?? [],
    trace: [...recorder.trace],
    log: vm.state.log.entries.map((entry) => `${entry.where}: ${entry.message}`),
    left,
    sees,
    facts: {
      'redone fault': redone === undefined ? 'none' : `error code ${redone.code}, prefetch`,
      'answer, which nobody reads': redone?.verdict ?? 'none',
      'kvm_run afterwards': announced ? 'says KVM_EXIT_MEMORY_FAULT' : 'untouched',
    },
    outcome: null,
  };
  vm.close();
  return side;
}

/** The guest's own faults come after the one that KVM made. */
function redoneFault(recorder: SideRecorder): RecordedFault | undefined {
  return recorder.faults.find((fault) => fault.prefetch);
}

const writeStaysAWrite: DemonstrationCase = {
  setting:
    "A guest's write needs a page that the VMM provides late (userfaultfd). KVM queues the fault and halts the vCPU; then the page comes, and KVM does the fault again, ahead of the guest.",
  input: 'a real guest, mov byte [0x5000], 42; its #NPF has error code 0x100000006 (W|U|GUEST_FINAL)',
  faultInput: null,
  run(revision) {
    const waiting = untilItWaits(revision);
    const left = pageComes(waiting);
    const redone = redoneFault(waiting.recorder);
    const access =
      redone !== undefined && BigInt(redone.code) === 0n ? "a read that was nobody's" : "the guest's own write";
    return sideOf(waiting, redone, left, `guest: the page is mapped ahead for ${access}; VMM: nothing`);
  },
  holds: (side) => side.facts['redone fault'] === 'error code 0x100000006, prefetch',
};

const privateWork: DemonstrationCase = {
  setting:
    'The same, but the queued fault is marked private by hand, which only a bug could do: private memory is never waited for in this way. Meanwhile the VMM made the gfn private.',
  input: 'the queued work with PRIVATE_ACCESS (bit 49) put into its error code; gfn private when the page is ready',
  faultInput: null,
  run(revision) {
    const waiting = untilItWaits(revision);
    waiting.vm.setMemoryAttributes({ address: PAGE, size: 0x1000, attributes: 8, flags: 0 });
    const [work] = waiting.vcpu.state.x86.asyncPf.waiting;
    if (work !== undefined) Object.assign(work, { errorHi: work.errorHi | PFERR_PRIVATE_ACCESS_HI });
    waiting.kvm.mm.userfaultCopy(waiting.hva + PAGE, Uint8Array.of(1));
    waiting.recorder.faults.length = 0;
    const { state } = waiting.vcpu;
    state.run.exitReason = 0;
    // What KVM_RUN does first when a page is ready. The guest's own next try, a mismatch on either side, is left out.
    checkAsyncPfCompletion(state);
    const redone = redoneFault(waiting.recorder);
    const sees =
      redone === undefined
        ? 'guest: tries again by itself; VMM: nothing, and kvm_run is as it was'
        : 'kvm_run was filled in for a fault of nobody, whose EFAULT is thrown away';
    return sideOf(waiting, redone, 'not yet: this is before the guest is entered again', sees);
  },
  holds: (side) =>
    side.facts['redone fault'] === 'none' && side.log.some((line) => line.startsWith('kvm_arch_async_page_ready:')),
};

export const pageReadyRow: Demonstration = {
  row: 8,
  differs: 'page-ready keeps the code of the fault, and refuses a private one; before: redone as a shared read, code 0',
  purpose:
    'With privacy in the error code, a fault that is redone without its code would be taken for a shared one: a private page must never be mapped, or refused, by such a guess.',
  cases: [writeStaysAWrite, privateWork],
  equality: null,
};
