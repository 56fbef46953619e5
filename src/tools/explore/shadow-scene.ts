/**
 * Scenes whose VM has no two-dimensional paging: KVM shadows the guest's own tables. The guest is in long mode, in user mode; its tables are
 * frames of a slot, whose entries a scene gives.
 */
import type { VcpuSpec } from './scene.ts';

/** P, W, U, A, D of an entry. */
const PRESENT = 1;
const WRITABLE = 2;
const USER = 4;
const ACCESSED = 1 << 5;
const DIRTY = 1 << 6;
const HUGE = 1 << 7;

/** An entry of a table of the guest that points to frame `gfn`, used and dirty already: `-w` without the right to write. */
export function pte(gfn: number, rights: '' | '-w' | '-a' = ''): number {
  const used = rights === '-a' ? 0 : ACCESSED | DIRTY;
  return gfn * 4096 + (PRESENT | USER | used | (rights === '-w' ? 0 : WRITABLE));
}

/** The same for one that maps 2 MiB from `gfn` on. */
export function hugePte(gfn: number): number {
  return pte(gfn) | HUGE;
}

/** A frame that holds a table of the guest, with those of its entries that are not 0, by index. */
export interface GuestTable {
  readonly gfn: number;
  readonly entries: Readonly<Record<number, number>>;
}

/** Four levels for the lowest 2 MiB: a table in each of the four frames, and in the last one these entries. */
export function fourLevels(
  frames: readonly [number, number, number, number],
  entries: Readonly<Record<number, number>>,
): readonly GuestTable[] {
  const [top, third, second, last] = frames;
  return [
    { gfn: top, entries: { 0: pte(third) } },
    { gfn: third, entries: { 0: pte(second) } },
    { gfn: second, entries: { 0: pte(last) } },
    { gfn: last, entries },
  ];
}

/** One thing that a guest does under its own tables. Pages are linear addresses divided by 4096. */
export type GuestOp =
  | { readonly kind: 'read' | 'write' | 'fetch'; readonly page: number }
  /** Writes an entry of the table that is mapped at `page`. */
  | { readonly kind: 'store'; readonly page: number; readonly index: number; readonly value: number }
  | { readonly kind: 'invlpg'; readonly page: number }
  /** Another root, or the same again: every translation is void. */
  | { readonly kind: 'load-cr3'; readonly gfn: number };

/** What a vCPU of such a scene has besides what others have. */
export interface GuestSpec {
  readonly ops: readonly GuestOp[];
  readonly before: readonly GuestOp[];
  /** Frame of its top table. */
  readonly cr3: number;
}

/**
 * A guard that a twin goes without: the guest's entry is looked at again once its table is protected; INVLPG, and a load of CR3, bring
 * unsync tables in line; an emulated write drops what shadows the entry, after it; who takes mappings away waits until nobody uses them; a
 * write that was tried natively once more is emulated the next time.
 */
export type ShadowGuard =
  | 'gpte-recheck'
  | 'invlpg-sync'
  | 'cr3-sync'
  | 'track-write'
  | 'track-after-write'
  | 'remote-flush'
  | 'retry-guard';

/** A vCPU whose guest has its top table in frame `cr3` and does `ops` one after the other. */
export function guestVcpu(
  cr3: number,
  ops: readonly GuestOp[],
  options: { before?: readonly GuestOp[]; smm?: boolean } = {},
): VcpuSpec {
  const guest = { ops, before: options.before ?? [], cr3 };
  return { kind: 'vcpu', ops: [], before: [], smm: options.smm === true, guest };
}

export function readAt(page: number): GuestOp {
  return { kind: 'read', page };
}

export function writeAt(page: number): GuestOp {
  return { kind: 'write', page };
}

export function fetchAt(page: number): GuestOp {
  return { kind: 'fetch', page };
}

/** Writes entry `index` of the table that the guest has mapped at `page`. */
export function writePte(page: number, index: number, value: number): GuestOp {
  return { kind: 'store', page, index, value };
}

export function invlpg(page: number): GuestOp {
  return { kind: 'invlpg', page };
}

export function loadCr3(gfn: number): GuestOp {
  return { kind: 'load-cr3', gfn };
}

/** The access needs the right to write. */
export function isWrite(op: GuestOp): boolean {
  return op.kind === 'write' || op.kind === 'store';
}
