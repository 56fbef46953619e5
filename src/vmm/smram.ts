/**
 * Memory as system management mode sees it: KVM's second address space. It has the RAM of the first, and 128 KiB of its own at 0xa0000,
 * which no code outside of SMM can reach. It is made with the first SMI, so that guests which never take one have nothing of it.
 */
import type { Board } from './board.ts';

export const SMRAM_GPA = 0xa_0000;
export const SMRAM_SIZE = 0x2_0000;
const SMM_ADDRESS_SPACE = 1 << 16;

export class SmmMemory {
  private readonly board: Board;
  private mapped = false;

  constructor(board: Board) {
    this.board = board;
  }

  /** A VM whose memory may be private has one address space only, and no SMM. */
  get offered(): boolean {
    return !this.board.hasPrivateMemory;
  }

  map(): void {
    if (this.mapped) return;
    this.mapped = true;
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

  /** The vCPU whose turn it is takes an SMI. */
  raise(): void {
    if (!this.offered) return;
    this.map();
    this.board.running.smi();
  }
}
