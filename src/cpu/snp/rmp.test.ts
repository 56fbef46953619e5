import { beforeEach, describe, expect, it } from 'vitest';
import {
  PFERR_GUEST_RMP,
  PFERR_GUEST_SIZEM_HI,
  PFERR_GUEST_VMPL_HI,
  PFERR_PRESENT,
  PFERR_WRITE,
} from '../../arch/error-code.ts';
import { VMPL_ALL, VMPL_READ, VMPL_WRITE } from '../../arch/rmp.ts';
import { PhysicalMemory } from '../../host/physical-memory.ts';
import { Processor } from '../processor.ts';
import { hardwareProfile } from '../profiles/index.ts';
import { AccessCheck, RMP_NOT_VALIDATED, RMP_OK, RMP_VIOLATION } from './access-check.ts';
import type { Rmp } from './rmp.ts';
import type { Snp } from './snp.ts';

const ASID = 7;
const GFN = 0x12345;
/** Frames above the processor's own: one of 4 KiB, and 512 aligned ones. */
const PFN = 0x3456;
const LARGE = 0x3600;

let memory: PhysicalMemory;
let snp: Snp;
let rmp: Rmp;

beforeEach(() => {
  memory = new PhysicalMemory(64 * 1024 * 1024);
  snp = new Processor(memory, hardwareProfile('silicon-milan')).snp!;
  snp.enable(0x3100 * 4096);
  rmp = snp.rmp!;
});

const guest = { assigned: true, asid: ASID, gfn: GFN, large: false, immutable: false };
const host = { assigned: false, asid: 0, gfn: 0, large: false, immutable: false };
const large = { ...guest, gfn: 0x200, large: true };

describe('RMPUPDATE and PSMASH', () => {
  it('keep a page in an entry, and a page anew without what it was', () => {
    expect(snp.rmpupdate(PFN, guest)).toBe(0);
    expect([rmp.assigned(PFN), rmp.asid(PFN), rmp.gfn(PFN), rmp.validated(PFN)]).toEqual([true, ASID, GFN, false]);
    expect([0, 1, 2, 3].map((level) => rmp.permissions(PFN, level))).toEqual([VMPL_ALL, 0, 0, 0]);
    rmp.setValidated(PFN, true);
    rmp.setPermissions(PFN, 2, VMPL_READ);
    expect(snp.rmpupdate(PFN, guest)).toBe(0);
    expect([rmp.validated(PFN), rmp.permissions(PFN, 2)]).toEqual([true, VMPL_READ]);
    expect(snp.rmpupdate(PFN, { ...guest, gfn: GFN + 1 })).toBe(0);
    expect([rmp.validated(PFN), rmp.permissions(PFN, 2)]).toEqual([false, 0]);
    expect(snp.rmpupdate(PFN, host)).toBe(0);
    expect(rmp.assigned(PFN)).toBe(false);
  });

  it('answer FAIL_INPUT, FAIL_PERMISSION and FAIL_OVERLAP', () => {
    expect(snp.rmpupdate(memory.frames, guest)).toBe(1);
    expect(snp.rmpupdate(0x3100, guest)).toBe(1);
    expect(snp.rmpupdate(PFN, { ...guest, asid: 510 })).toBe(1);
    expect(snp.rmpupdate(LARGE + 1, large)).toBe(1);
    expect(snp.rmpupdate(LARGE, { ...large, gfn: 0x201 })).toBe(1);
    snp.rmpupdate(PFN, { ...guest, immutable: true });
    expect(snp.rmpupdate(PFN, host)).toBe(2);
    snp.rmpupdate(LARGE + 3, guest);
    expect(snp.rmpupdate(LARGE, large)).toBe(4);
    snp.rmpupdate(LARGE + 3, host);
    expect(snp.rmpupdate(LARGE, large)).toBe(0);
    expect(snp.rmpupdate(LARGE + 3, host)).toBe(4);
  });

  it('split 2 MiB into pages that stay what they were', () => {
    snp.rmpupdate(LARGE, large);
    rmp.setValidated(LARGE + 5, true);
    expect(snp.psmash(LARGE + 1)).toBe(1);
    expect(snp.psmash(LARGE)).toBe(0);
    expect([rmp.large(LARGE + 9), rmp.validated(LARGE + 9), rmp.gfn(LARGE + 9)]).toEqual([false, true, 0x209]);
    expect(snp.psmash(LARGE)).toBe(1);
  });
});

describe('the checks behind a translation', () => {
  const at = (o: {
    pfn?: number;
    gfn?: number;
    level?: number;
    encrypted?: boolean;
    store?: boolean;
    vmpl?: number;
  }) => {
    const check = new AccessCheck(memory, rmp);
    check.snp = true;
    check.asid = ASID;
    check.vmpl = o.vmpl ?? 0;
    const { pfn = PFN, gfn = GFN, level = 1, encrypted = true, store = false } = o;
    return { verdict: check.check(pfn, gfn, level, encrypted, store, false, false), check };
  };

  it('come in the order: owner and address, size, validated, level', () => {
    expect(at({}).verdict).toBe(RMP_VIOLATION);
    snp.rmpupdate(PFN, { ...guest, asid: ASID + 1 });
    expect(at({}).verdict).toBe(RMP_VIOLATION);
    snp.rmpupdate(PFN, guest);
    expect(at({ gfn: GFN + 1 }).verdict).toBe(RMP_VIOLATION);
    expect(at({ level: 2 }).verdict).toBe(RMP_VIOLATION);
    expect(at({ vmpl: 1 }).verdict).toBe(RMP_NOT_VALIDATED);
    rmp.setValidated(PFN, true);
    expect(at({}).verdict).toBe(RMP_OK);
    expect(at({ vmpl: 1 }).check.errorHi).toBe(PFERR_GUEST_VMPL_HI);
    rmp.setPermissions(PFN, 1, VMPL_READ);
    expect(at({ vmpl: 1 })).toMatchObject({ verdict: RMP_OK, check: { permissions: VMPL_READ } });
    expect(at({ vmpl: 1, store: true }).verdict).toBe(RMP_VIOLATION);
    rmp.setPermissions(PFN, 1, VMPL_READ | VMPL_WRITE);
    expect(at({ vmpl: 1, store: true }).verdict).toBe(RMP_OK);
    snp.rmpupdate(LARGE, large);
    expect(at({ pfn: LARGE, gfn: 0x200 })).toMatchObject({
      verdict: RMP_VIOLATION,
      check: { errorHi: PFERR_GUEST_SIZEM_HI },
    });
  });

  it("without the C-bit: another's page cannot be written, and is ciphertext", () => {
    expect(at({ encrypted: false, store: true })).toMatchObject({ verdict: RMP_OK, check: { foreign: false } });
    snp.rmpupdate(PFN, guest);
    expect(at({ encrypted: false })).toMatchObject({ verdict: RMP_OK, check: { foreign: true } });
    expect(at({ encrypted: false, store: true }).verdict).toBe(RMP_VIOLATION);
  });
});

describe('memory that changes hands', () => {
  it('is ciphertext outside, another one at every address and for every key', () => {
    const secret = Uint8Array.from({ length: 4096 }, (_, i) => (i >> 4) & 1);
    const outside = (pfn: number, asid: number): string => {
      snp.rmpupdate(pfn, { ...guest, asid });
      memory.u8.set(secret, pfn * 4096);
      const seen = snp.seenFromOutside(pfn);
      expect(memory.u8.slice(pfn * 4096, pfn * 4096 + 4096)).toEqual(secret);
      snp.rmpupdate(pfn, host);
      expect(memory.u8.slice(pfn * 4096, pfn * 4096 + 4096)).toEqual(seen);
      return Buffer.from(seen).toString('hex');
    };
    const all = [outside(PFN, ASID), outside(PFN + 1, ASID), outside(PFN, ASID + 1)];
    expect(new Set(all).size).toBe(3);
    // Blocks of the same bytes are not the same either.
    expect(new Set(all[0]!.match(/.{32}/g)).size).toBe(256);
    expect(outside(PFN, ASID)).toBe(all[0]);
  });

  it('comes back to the guest as it was, and to no one else', () => {
    snp.rmpupdate(PFN, guest);
    memory.u8.fill(0x5a, PFN * 4096, PFN * 4096 + 4096);
    snp.rmpupdate(PFN, host);
    snp.rmpupdate(PFN, guest);
    expect(memory.u8[PFN * 4096 + 77]).toBe(0x5a);
    snp.rmpupdate(PFN, { ...guest, asid: ASID + 1 });
    expect(memory.u8.slice(PFN * 4096, PFN * 4096 + 4096).every((b) => b === 0x5a)).toBe(false);
  });

  it('cannot be written by the host: #PF with RMP', () => {
    expect(snp.hostWriteFault(PFN)).toBe(0);
    snp.rmpupdate(PFN, guest);
    expect(snp.hostWriteFault(PFN)).toBe(PFERR_PRESENT | PFERR_WRITE | PFERR_GUEST_RMP);
    expect(snp.hostWriteFault(0x3100)).not.toBe(0);
  });
});
