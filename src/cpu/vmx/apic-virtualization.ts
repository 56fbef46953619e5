/**
 * Accesses to the APIC-access page (@sdm 31.4): a read that virtualization covers is one of the virtual-APIC page, anything else leaves
 * the guest.
 * @partial writes always exit as APIC accesses, before they happen, where a processor with a TPR shadow or APIC-register virtualization
 * would do some of them and exit behind the instruction, or not at all; there is no virtual-interrupt delivery
 */
import { SECONDARY_EXEC_APIC_REGISTER_VIRT } from '../../arch/vmx-controls.ts';
import { EXIT_REASON_APIC_ACCESS } from '../../arch/vmx-exit-reasons.ts';
import { ACCESS_FETCH, ACCESS_READ, ACCESS_SIZE_AT, CR8_AT } from '../state.ts';
import type { Core } from '../system/core.ts';
import { exitVmx } from './instruction-exits.ts';

const TYPE_WRITE = 1 << 12;
const TYPE_FETCH = 2 << 12;
const TYPE_EVENT = 3 << 12;

const TPR = 0x80;
const LVTS = [0x320, 0x330, 0x340, 0x350, 0x360, 0x370];
const VECTORS = [0x100, 0x180, 0x200].flatMap((base) => [0, 1, 2, 3, 4, 5, 6, 7].map((n) => base + 16 * n));
/** Registers whose reads APIC-register virtualization covers. */
const READABLE: ReadonlySet<number> = new Set([
  ...[0x20, 0x30, TPR, 0xb0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x380, 0x3e0],
  ...LVTS,
  ...VECTORS,
]);

/** What the control block in force says of the APIC; one object a processor. */
export class ApicVirtualization {
  /** Frame of the APIC-access page, -1 while accesses are not virtualized. */
  accessPfn = -1;
  /** Physical address of the virtual-APIC page, -1 without a TPR shadow. */
  page = -1;
  tprThreshold = 0;

  /** Task priority as CR8 has it. HOT */
  loadTpr(core: Core): void {
    if (this.page >= 0) core.i32[CR8_AT >> 2] = (core.i32[(this.page + TPR) >>> 2]! >>> 4) & 15;
  }

  /** MOV to CR8 with a TPR shadow: true when the new priority is below the threshold, which is told behind the instruction. */
  storeTpr(core: Core, value: number): boolean {
    if (this.page < 0) return false;
    core.i32[(this.page + TPR) >>> 2] = value << 4;
    return value < this.tprThreshold;
  }

  /** An access at `offset` of the APIC-access page: the host physical address to read in its place, or -1 with `core.status` set. */
  access(core: Core, offset: number, access: number): number {
    const registers = (core.secondaryControls & SECONDARY_EXEC_APIC_REGISTER_VIRT) !== 0;
    const register = offset & 0xff0;
    const covered = this.page >= 0 && (register === TPR || (registers && READABLE.has(register)));
    const fits = (offset & 15) + core.i32[ACCESS_SIZE_AT >> 2]! <= 4;
    const delivering = core.event < 0;
    if (access === ACCESS_READ && covered && fits && !delivering) return this.page + offset;
    const type = delivering
      ? TYPE_EVENT
      : access === ACCESS_FETCH
        ? TYPE_FETCH
        : access === ACCESS_READ
          ? 0
          : TYPE_WRITE;
    core.status = exitVmx(core, EXIT_REASON_APIC_ACCESS, offset | type);
    return -1;
  }
}
