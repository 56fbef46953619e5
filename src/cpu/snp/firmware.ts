/**
 * The platform's security processor as far as SNP guests need it (SEV-SNP firmware ABI specification, document 56860): a guest's context, its launch
 * with the digest that measures it, and pages that change hands. Commands answer with a status, SEV_RET_*. Attestation reports, migration and
 * debugging are not there.
 */

import { RMP_FRAMES_2M } from '../../arch/rmp.ts';
import {
  INITIAL_VMSA_GFN,
  SEV_RET_ACTIVE,
  SEV_RET_ASID_OWNED,
  SEV_RET_BAD_MEASUREMENT,
  SEV_RET_INVALID_ADDRESS,
  SEV_RET_INVALID_ASID,
  SEV_RET_INVALID_GUEST,
  SEV_RET_INVALID_GUEST_STATE,
  SEV_RET_INVALID_PAGE_OWNER,
  SEV_RET_INVALID_PAGE_SIZE,
  SEV_RET_INVALID_PAGE_STATE,
  SEV_RET_INVALID_PARAM,
  SEV_RET_SUCCESS,
  SNP_PAGE_TYPE_CPUID,
  SNP_PAGE_TYPE_NORMAL,
  SNP_PAGE_TYPE_SECRETS,
  SNP_PAGE_TYPE_UNMEASURED,
  SNP_PAGE_TYPE_VMSA,
  SNP_PAGE_TYPE_ZERO,
} from '../../arch/snp-firmware.ts';
import type { PhysicalMemory } from '../../host/physical-memory.ts';
import type { CpuidEntry } from '../profile.ts';
import { sha384 } from '../sha384.ts';
import type { Rmp } from './rmp.ts';
import type { Snp } from './snp.ts';

const DIGEST = 48;
/** PAGE_INFO: digest so far, contents, length, type, flags, permissions of three levels, address. */
const PAGE_INFO = 0x70;
/** A CPUID page: count, then entries of 48 bytes from byte 16 on. */
const CPUID_MAX = 64;
const CPUID_ENTRY = 48;

type GuestState = 'init' | 'launch' | 'running';

interface Guest {
  state: GuestState;
  asid: number;
  policyLo: number;
  policyHi: number;
  digest: Uint8Array;
}

export class SnpFirmware {
  private readonly memory: PhysicalMemory;
  private readonly snp: Snp;
  private readonly cpuid: readonly CpuidEntry[];
  /** Contexts by the frame of their page. */
  private readonly guests = new Map<number, Guest>();

  constructor(memory: PhysicalMemory, snp: Snp, cpuid: readonly CpuidEntry[]) {
    this.memory = memory;
    this.snp = snp;
    this.cpuid = cpuid;
  }

  private get rmp(): Rmp {
    return this.snp.rmp!;
  }

  /** SNP_GCTX_CREATE: a page in firmware state becomes a context page. */
  contextCreate(pfn: number): number {
    if (pfn < 0 || pfn >= this.memory.frames) return SEV_RET_INVALID_ADDRESS;
    const { rmp } = this;
    if (!rmp.assigned(pfn) || rmp.asid(pfn) !== 0 || !rmp.immutable(pfn) || this.guests.has(pfn)) {
      return SEV_RET_INVALID_PAGE_STATE;
    }
    this.guests.set(pfn, { state: 'init', asid: 0, policyLo: 0, policyHi: 0, digest: new Uint8Array(DIGEST) });
    return SEV_RET_SUCCESS;
  }

  /** SNP_LAUNCH_START. */
  launchStart(context: number, policyLo: number, policyHi: number): number {
    const guest = this.guests.get(context);
    if (guest === undefined) return SEV_RET_INVALID_GUEST;
    if (guest.state !== 'init') return SEV_RET_INVALID_GUEST_STATE;
    guest.policyLo = policyLo;
    guest.policyHi = policyHi;
    guest.state = 'launch';
    return SEV_RET_SUCCESS;
  }

  /** SNP_ACTIVATE: the guest gets an ASID, and with it a key. */
  activate(context: number, asid: number): number {
    const guest = this.guests.get(context);
    if (guest === undefined) return SEV_RET_INVALID_GUEST;
    if (guest.asid !== 0) return SEV_RET_ACTIVE;
    if (asid === 0 || asid >= this.snp.profile.minAsidWithoutState) return SEV_RET_INVALID_ASID;
    for (const other of this.guests.values()) if (other.asid === asid) return SEV_RET_ASID_OWNED;
    guest.asid = asid;
    this.snp.cipher.installKey(asid);
    return SEV_RET_SUCCESS;
  }

  /**
   * SNP_LAUNCH_UPDATE: the page at frame `pfn`, assigned to the guest and immutable, becomes part of what the guest starts with, and of its
   * measurement.
   */
  launchUpdate(context: number, pfn: number, large: boolean, type: number): number {
    const guest = this.guests.get(context);
    if (guest === undefined) return SEV_RET_INVALID_GUEST;
    if (guest.state !== 'launch' || guest.asid === 0) return SEV_RET_INVALID_GUEST_STATE;
    if (type < SNP_PAGE_TYPE_NORMAL || type > SNP_PAGE_TYPE_CPUID) return SEV_RET_INVALID_PARAM;
    if (pfn < 0 || pfn >= this.memory.frames || (large && pfn % RMP_FRAMES_2M !== 0)) return SEV_RET_INVALID_ADDRESS;
    const { rmp } = this;
    if (!rmp.assigned(pfn) || !rmp.immutable(pfn) || rmp.validated(pfn)) return SEV_RET_INVALID_PAGE_STATE;
    if (rmp.asid(pfn) !== guest.asid) return SEV_RET_INVALID_PAGE_OWNER;
    if (rmp.large(pfn) !== large) return SEV_RET_INVALID_PAGE_SIZE;
    const special = type !== SNP_PAGE_TYPE_NORMAL && type !== SNP_PAGE_TYPE_ZERO && type !== SNP_PAGE_TYPE_UNMEASURED;
    if (large && special) return SEV_RET_INVALID_PAGE_SIZE;
    const last = pfn + (large ? RMP_FRAMES_2M : 1);
    for (let frame = pfn; frame < last; frame++) {
      // What the host wrote, which RMPUPDATE had turned into what the guest's key makes of it.
      this.snp.cipher.encryptFrame(guest.asid, frame);
      if (type === SNP_PAGE_TYPE_CPUID && !this.cpuidPageIsSound(frame)) {
        // The page is left corrected, and not encrypted, for the host to look at.
        this.snp.cipher.decryptFrame(guest.asid, frame);
        return SEV_RET_INVALID_PARAM;
      }
      if (type === SNP_PAGE_TYPE_ZERO) this.memory.u8.fill(0, frame * 4096, frame * 4096 + 4096);
      if (type === SNP_PAGE_TYPE_SECRETS) this.writeSecrets(guest, frame);
      this.measure(guest, frame, type);
      rmp.setImmutable(frame, false);
    }
    rmp.setValidated(pfn, true);
    if (type === SNP_PAGE_TYPE_VMSA) rmp.setVmsa(pfn, true);
    return SEV_RET_SUCCESS;
  }

  /** Extends the digest by PAGE_INFO of one page (56860, 8.17.2). */
  private measure(guest: Guest, pfn: number, type: number): void {
    const info = new Uint8Array(PAGE_INFO);
    const view = new DataView(info.buffer);
    info.set(guest.digest, 0);
    if (type === SNP_PAGE_TYPE_NORMAL || type === SNP_PAGE_TYPE_VMSA) {
      info.set(sha384(this.memory.u8.subarray(pfn * 4096, pfn * 4096 + 4096)), DIGEST);
    }
    view.setUint16(0x60, PAGE_INFO, true);
    info[0x62] = type;
    // Not an image for migration; the lower levels get no permissions.
    const gpa = this.rmp.gfn(pfn) * 4096;
    const gfn = type === SNP_PAGE_TYPE_VMSA ? INITIAL_VMSA_GFN : gpa / 4096;
    view.setUint32(0x68, (gfn % 0x100000) * 4096, true);
    view.setUint32(0x6c, Math.floor(gfn / 0x100000), true);
    guest.digest = sha384(info);
  }

  /** The secrets page: version, and the keys by which the guest's levels would talk to the firmware. */
  private writeSecrets(guest: Guest, pfn: number): void {
    const { u8, i32 } = this.memory;
    u8.fill(0, pfn * 4096, pfn * 4096 + 4096);
    i32[pfn * 1024] = 2;
    const keys = sha384(Uint8Array.of(...guest.digest, guest.asid & 255, guest.asid >> 8));
    for (let n = 0; n < 4; n++) u8.set(sha384(Uint8Array.of(...keys, n)).subarray(0, 32), pfn * 4096 + 0x20 + 32 * n);
  }

  /** Entries of leaves that the processor does not have, with anything in them, are cleared; false when there were any, or too many. */
  private cpuidPageIsSound(pfn: number): boolean {
    const { i32 } = this.memory;
    const words = pfn * 1024;
    const count = i32[words]! >>> 0;
    if (count > CPUID_MAX) return false;
    let sound = true;
    for (let n = 0; n < count; n++) {
      const at = words + 4 + (n * CPUID_ENTRY) / 4;
      const leaf = i32[at]! >>> 0;
      // The hypervisor's own range is its own business.
      if ((leaf >= 0x40000000 && leaf < 0x40010000) || this.cpuid.some((e) => e.leaf === leaf)) continue;
      if ((i32[at + 6]! | i32[at + 7]! | i32[at + 8]! | i32[at + 9]!) === 0) continue;
      i32.fill(0, at + 6, at + 10);
      sound = false;
    }
    return sound;
  }

  /** SNP_LAUNCH_FINISH. An ID block's digest is compared; its signatures are not checked, as there are no keys of an owner. */
  launchFinish(context: number, expected: Uint8Array | null): number {
    const guest = this.guests.get(context);
    if (guest === undefined) return SEV_RET_INVALID_GUEST;
    if (guest.state !== 'launch' || guest.asid === 0) return SEV_RET_INVALID_GUEST_STATE;
    if (expected?.subarray(0, DIGEST).some((byte, i) => byte !== guest.digest[i]) === true) {
      return SEV_RET_BAD_MEASUREMENT;
    }
    guest.state = 'running';
    return SEV_RET_SUCCESS;
  }

  /** SNP_PAGE_RECLAIM: an immutable page can be changed by RMPUPDATE again. */
  pageReclaim(pfn: number): number {
    if (pfn < 0 || pfn >= this.memory.frames) return SEV_RET_INVALID_ADDRESS;
    const { rmp } = this;
    if (this.guests.has(pfn) || !rmp.assigned(pfn)) return SEV_RET_INVALID_PAGE_STATE;
    rmp.setImmutable(pfn, false);
    return SEV_RET_SUCCESS;
  }

  /** SNP_DECOMMISSION: the context, its ASID and its key are gone. */
  decommission(context: number): number {
    return this.guests.delete(context) ? SEV_RET_SUCCESS : SEV_RET_INVALID_GUEST;
  }

  /** The launch digest so far: 48 bytes; null without a guest. */
  measurement(context: number): Uint8Array | null {
    return this.guests.get(context)?.digest.slice() ?? null;
  }
}
