/**
 * Memory errors of the host. A frame behind guest memory fails: the host unmaps it, and the vCPU that touches it next has its thread get
 * SIGBUS. As QEMU does, the VMM then gives the guest a machine check that says where, for the guest to do without the page.
 */
import { FOLL_WRITE } from '../host/gup.ts';
import type { Vcpu } from '../kvm/api/vcpu.ts';
import type { Board } from './board.ts';

/** What the guest's machine has: IA32_MCG_CAP of ten banks, with a control register and recoverable errors. */
const MCG_CAP = 10 | (1 << 8) | (1 << 24);
const BANK = 9;
const MCI_STATUS_VAL = 1n << 63n;
const MCI_STATUS_UC = 1n << 61n;
const MCI_STATUS_EN = 1n << 60n;
const MCI_STATUS_MISCV = 1n << 59n;
const MCI_STATUS_ADDRV = 1n << 58n;
const MCI_STATUS_S = 1n << 56n;
const MCI_STATUS_AR = 1n << 55n;
/** "Data load" of the architecture's error codes. */
const SRAR_DATA_LOAD = 0x134n;
const MCG_STATUS_RIPV = 1n << 0n;
const MCG_STATUS_EIPV = 1n << 1n;
const MCG_STATUS_MCIP = 1n << 2n;
/** The address is a physical one, and good to 4 KiB. */
const MISC = (2n << 6n) | 12n;
const PAGE = 4096;

/** A frame that fails. */
export interface PoisonOptions {
  readonly gpa: number;
  /** Virtual time, in nanoseconds. */
  readonly at: number;
}

/** One SIGBUS: where the guest touched what is lost, and on which vCPU. */
export interface MemoryError {
  readonly gpa: number;
  readonly vcpu: number;
}

export class MemoryErrors {
  /** Those that a vCPU met, in order. */
  readonly met: MemoryError[] = [];
  private readonly board: Board;

  constructor(board: Board) {
    this.board = board;
    for (const vcpu of board.vcpus) vcpu.setupMce(MCG_CAP);
  }

  /** The frame behind `gpa` fails at that time. */
  schedule({ gpa, at }: PoisonOptions): void {
    this.board.vm.createTimer(() => this.fail(gpa)).set(at);
  }

  private fail(gpa: number): void {
    const hva = this.board.hvaOf(gpa);
    if (hva === null) return;
    const { mm } = this.board.kvm;
    // A page that nobody has written yet has no frame of its own that could fail.
    mm.getUserPages(hva, FOLL_WRITE, { pfn: -1, writable: false });
    mm.madvise(hva - (hva % PAGE), PAGE, 'hwpoison');
    // Found before anybody touched it: the process is not told.
    mm.takeSignals();
  }

  /** After KVM_RUN of `vcpu`: signals that its thread got. */
  answer(vcpu: Vcpu): void {
    for (const { address } of this.board.kvm.mm.takeSignals()) {
      const gpa = this.board.gpaOf(address);
      if (gpa === null) continue;
      this.met.push({ gpa, vcpu: vcpu.id });
      const intel = this.board.kvm.profile.vendor === 'intel';
      vcpu.setMce({
        bank: BANK,
        status:
          MCI_STATUS_VAL |
          MCI_STATUS_UC |
          MCI_STATUS_EN |
          MCI_STATUS_MISCV |
          MCI_STATUS_ADDRV |
          MCI_STATUS_S |
          MCI_STATUS_AR |
          SRAR_DATA_LOAD,
        addr: BigInt(gpa - (gpa % PAGE)),
        misc: MISC,
        mcgStatus: MCG_STATUS_MCIP | MCG_STATUS_EIPV | (intel ? MCG_STATUS_RIPV : 0n),
      });
    }
  }
}
