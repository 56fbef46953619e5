/**
 * SEV-SNP of the machine: the reverse map once the host has switched it on, the keys, and the instructions that a hypervisor executes. What the
 * guest executes is in guest-instructions.ts.
 */
import { PFERR_GUEST_RMP, PFERR_PRESENT, PFERR_WRITE } from '../../arch/error-code.ts';
import { RMP_SUCCESS } from '../../arch/rmp.ts';
import type { PageOwners, PhysicalMemory } from '../../host/physical-memory.ts';
import type { CpuidEntry, SnpProfile } from '../profile.ts';
import { CIPHERTEXT } from '../state.ts';
import type { Core } from '../system/core.ts';
import { AccessCheck } from './access-check.ts';
import { SnpFirmware } from './firmware.ts';
import { MemoryCipher } from './memory-cipher.ts';
import { Rmp, type RmpState, rmpBytes } from './rmp.ts';

export class Snp implements PageOwners {
  readonly profile: SnpProfile;
  readonly cipher: MemoryCipher;
  readonly firmware: SnpFirmware;
  /** Null until the host switches SNP on. */
  rmp: Rmp | null = null;
  private readonly memory: PhysicalMemory;
  private readonly core: Core;
  private ciphertext = CIPHERTEXT;

  constructor(memory: PhysicalMemory, core: Core, profile: SnpProfile, cpuid: readonly CpuidEntry[]) {
    this.memory = memory;
    this.core = core;
    this.profile = profile;
    this.cipher = new MemoryCipher(memory);
    this.firmware = new SnpFirmware(memory, this, cpuid);
  }

  /** RMP_BASE: physical address of the reverse map. */
  rmpBase = 0;

  /** Bytes that the reverse map takes; firmware reserves them. */
  get rmpBytes(): number {
    return rmpBytes(this.memory.frames);
  }

  /** SYSCFG.SNP_EN with RMP_BASE at physical address `base`, whose memory is zero: from now on every access is checked (@apm 15.36.2). */
  enable(base: number): void {
    const rmp = new Rmp(this.memory, this.cipher, base, this.profile.maxAsid);
    this.rmp = rmp;
    this.rmpBase = base;
    this.core.walker.setOwners(new AccessCheck(this.memory, rmp));
    this.memory.owners = this;
  }

  /** SYSCFG.SNP_EN off, which silicon needs a reset for: between two measurements. */
  disable(): void {
    this.rmp = null;
    this.core.walker.setOwners(null);
    this.memory.owners = null;
    this.core.tlb.flushAll();
  }

  /** Where what a guest reads at `offset` of another owner's page can be found: its ciphertext, made for this access alone. */
  readForeign(pfn: number, offset: number): number {
    // Two pages take turns: an access can cross from one into the other.
    this.ciphertext = this.ciphertext === CIPHERTEXT ? CIPHERTEXT + 4096 : CIPHERTEXT;
    const asid = this.table().asid(pfn);
    if (asid === 0) this.memory.u8.copyWithin(this.ciphertext, pfn * 4096, pfn * 4096 + 4096);
    else this.cipher.encryptInto(asid, pfn, this.ciphertext >> 2);
    return this.ciphertext + offset;
  }

  private table(): Rmp {
    if (this.rmp === null) throw new Error('the reverse map is used before SNP is on');
    return this.rmp;
  }

  /** RMPUPDATE on the page at frame `pfn`: EAX. No TLB holds the page afterwards. */
  rmpupdate(pfn: number, state: RmpState): number {
    const result = this.table().update(pfn, state);
    if (result === RMP_SUCCESS) this.core.tlb.flushAll();
    return result;
  }

  /** PSMASH on the 2 MiB page at frame `pfn`: EAX. */
  psmash(pfn: number): number {
    const result = this.table().smash(pfn);
    if (result === RMP_SUCCESS) this.core.tlb.flushAll();
    return result;
  }

  /** The error code of the #PF that the host's write to frame `pfn` meets, or 0 (@apm 15.36.10). */
  hostWriteFault(pfn: number): number {
    return this.isForeign(pfn) ? PFERR_PRESENT | PFERR_WRITE | PFERR_GUEST_RMP : 0;
  }

  /** Frame `pfn` is a guest's, the firmware's or the reverse map's: the host cannot write it. */
  isForeign(pfn: number): boolean {
    const rmp = this.rmp;
    return rmp !== null && (rmp.assigned(pfn) || rmp.isTable(pfn));
  }

  /** What the host reads of frame `pfn`, a page of a guest. */
  seenFromOutside(pfn: number): Uint8Array {
    const rmp = this.table();
    const { u8 } = this.memory;
    const asid = rmp.asid(pfn);
    if (asid === 0) return u8.slice(pfn * 4096, pfn * 4096 + 4096);
    // In place and back: nobody runs meanwhile.
    this.cipher.encryptFrame(asid, pfn);
    const bytes = u8.slice(pfn * 4096, pfn * 4096 + 4096);
    this.cipher.decryptFrame(asid, pfn);
    return bytes;
  }
}
