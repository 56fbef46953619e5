/**
 * Memory as system management mode sees it: KVM's second address space. It has the RAM of the first, and 128 KiB of its own at 0xa0000,
 * which no code outside of SMM can reach. It is there before the guest starts: an SMI that one processor sends to another through its APIC
 * is KVM's alone, and no exit announces it.
 */
import type { Board } from './board.ts';
import type { BootImage } from './loaders/boot-image.ts';

export const SMRAM_GPA = 0xa_0000;
export const SMRAM_SIZE = 0x2_0000;
const SMM_ADDRESS_SPACE = 1 << 16;
/** Where an SMI begins as long as nobody has moved SMBASE. */
const HANDLER_GPA = 0x3_8000;
const RSM = Uint8Array.of(0x0f, 0xaa);

export class SmmMemory {
  private readonly board: Board;

  constructor(board: Board) {
    this.board = board;
    if (this.offered) this.map();
  }

  /** A VM whose memory may be private has one address space only, and no SMM. */
  get offered(): boolean {
    return !this.board.hasPrivateMemory;
  }

  private map(): void {
    const { mm } = this.board.kvm;
    const smram = mm.mmap({ size: SMRAM_SIZE, kind: 'anon' });
    let slot = SMM_ADDRESS_SPACE;
    const add = (gpa: number, size: number, hva: number): void => {
      if (size <= 0) return;
      this.board.vm.setUserMemoryRegion({
        slot: slot++,
        flags: 0,
        guestPhysAddr: gpa,
        memorySize: size,
        userspaceAddr: hva,
      });
    };
    for (const { gpa, size, hva } of this.board.ram) {
      const end = gpa + size;
      const below = Math.max(0, Math.min(end, SMRAM_GPA) - gpa);
      const above = Math.max(gpa, SMRAM_GPA + SMRAM_SIZE);
      add(gpa, below, hva);
      add(above, end - above, hva + above - gpa);
    }
    add(SMRAM_GPA, SMRAM_SIZE, smram);
  }

  /** What firmware would leave behind: a handler that does nothing, unless the image has taken the place. */
  load(image: BootImage): void {
    if (!this.offered) return;
    const end = HANDLER_GPA + RSM.length;
    if (image.segments.some((s) => s.gpa < end && s.gpa + s.size > HANDLER_GPA)) return;
    if (this.board.hasMemory(HANDLER_GPA, RSM.length)) this.board.writeMemory(HANDLER_GPA, RSM);
  }

  /** The vCPU whose turn it is takes an SMI. */
  raise(): void {
    if (this.offered) this.board.running.smi();
  }
}
