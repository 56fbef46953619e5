/** The memory objects of a scenario in the VMM's process: where each one is mapped, and the operations on them. */
import type { AddressSpace, MemoryKind } from '../../host/address-space.ts';
import type { BackingFile } from '../../host/backing-file.ts';
import { EBADF, EHWPOISON, errnoName } from '../../host/errno.ts';
import { SIGBUS } from '../../host/host-signal.ts';
import { type Advice, advices } from '../../host/madvise.ts';
import { PROT_EXEC, PROT_READ, PROT_WRITE } from '../../host/vma.ts';
import { UnsupportedError } from '../input-error.ts';
import type { HvaPlaces } from './normalise.ts';
import { bytesHex, hexBytes, int, type MemoryImage, type Op } from './scenario.ts';

/** What an operation answered, in the recorded form. */
export interface OpResult {
  /** null: the operation was not made, as there is no vCPU for it. */
  readonly ret: number | null;
  readonly errno: string | null;
  readonly run?: { readonly [field: string]: unknown };
  readonly out?: { readonly [field: string]: unknown };
}

export const OK: OpResult = { ret: 0, errno: null };

const SIGSEGV = 11;
const PAGE = 0x1000;

/** The result of a call that returns a negative errno. */
export function fromErrno(result: number): OpResult {
  return result < 0 ? { ret: -1, errno: errnoName(-result) } : { ret: result, errno: null };
}

interface MemObject {
  readonly id: number;
  readonly hva: number;
  readonly size: number;
  readonly kind: MemoryKind;
  readonly file: BackingFile | null;
}

export class HostObjects implements HvaPlaces {
  private readonly mems = new Map<number, MemObject>();
  private readonly mm: AddressSpace;

  constructor(mm: AddressSpace) {
    this.mm = mm;
  }

  place(hva: number): { mem: number; off: number } | null {
    for (const m of this.mems.values())
      if (hva >= m.hva && hva < m.hva + m.size) return { mem: m.id, off: hva - m.hva };
    return null;
  }

  /** Host virtual address of byte `off` of object `mem`. */
  hva(mem: unknown, off: unknown): number {
    return this.object(mem).hva + int(off);
  }

  /** The file that object `mem` shows, or null. */
  file(mem: unknown): BackingFile | null {
    return this.object(mem).file;
  }

  /** Loads initial contents through the mapping. */
  load(image: MemoryImage): void {
    let bytes: Uint8Array;
    if (image.qwords === undefined) bytes = hexBytes(image.hex ?? '');
    else {
      const { first, step, count } = image.qwords;
      const words = new BigUint64Array(int(count));
      for (let i = 0; i < words.length; i++) words[i] = BigInt(first) + BigInt(step) * BigInt(i);
      bytes = new Uint8Array(words.buffer);
    }
    const bad = this.mm.write(this.hva(image.mem, image.off), bytes);
    if (bad !== 0) throw new Error(`memory image of object ${image.mem} cannot be written: ${errnoName(-bad)}`);
  }

  /** Runs a host operation; null when `op` is not one. */
  run(op: Op): OpResult | null {
    const mm = this.mm;
    const at = (): number => this.hva(op['mem'], op['off']);
    switch (op.op) {
      case 'mem':
        return this.map(op);
      case 'mprotect':
        return fromErrno(mm.mprotect(at(), int(op['size']), protection(op['prot'])));
      case 'munmap':
        return fromErrno(mm.munmap(at(), int(op['size'])));
      case 'remap':
        return this.remap(op);
      case 'madvise':
        return fromErrno(mm.madvise(at(), int(op['size']), advice(op['advice'])));
      case 'ftruncate':
        return fromErrno(this.object(op['mem']).file?.truncate(int(op['size'])) ?? -EBADF);
      case 'poke':
        return this.poke(at(), hexBytes(op['hex'] as string));
      case 'peek':
        return this.peek(at(), int(op['len'], 8));
      case 'residency':
        return { ...OK, out: { present: mm.residency(at()) ? 1 : 0 } };
      case 'pagestate': {
        const state = mm.pageState(at());
        return { ...OK, out: { present: state.present ? 1 : 0, swapped: state.swapped ? 1 : 0 } };
      }
      case 'idlemark':
        mm.idleMark(at());
        return OK;
      case 'idleread':
        return { ...OK, out: { idle: mm.idleRead(at()) ? 1 : 0 } };
      case 'fork':
        return fromErrno(mm.fork());
      case 'uffd':
        return fromErrno(mm.userfaultRegister(at(), int(op['size']), 'sigbus'));
      case 'uffdmiss':
        return fromErrno(mm.userfaultRegister(at(), int(op['size']), 'block'));
      case 'uffdunreg':
        return fromErrno(mm.userfaultUnregister(at(), int(op['size'])));
      case 'uffdwake':
        mm.userfaults.wake(at(), at() + PAGE);
        return OK;
      case 'uffdcopy': {
        const data = int(op['zero']) !== 0 ? null : hexBytes((op['hex'] as string | undefined) ?? '');
        return fromErrno(mm.userfaultCopy(at(), data, int(op['dontwake']) === 0));
      }
      case 'uffdread':
        return this.readUserfaults();
      default:
        return null;
    }
  }

  /** Signals that arrived since the last call, as the recordings note them; empty when there were none. */
  signals(): { [field: string]: unknown } {
    const signals = this.mm.takeSignals();
    const first = signals[0];
    if (first === undefined) return {};
    const place = this.place(first.address);
    return {
      sigbus_count: signals.length,
      sigbus_code: first.code,
      sigbus_lsb: first.lsb,
      sigbus_mem: place?.mem ?? -1,
      sigbus_off: `0x${(place?.off ?? 0).toString(16)}`,
    };
  }

  /** An access by the process itself: what fails is a signal, not an errno. */
  private peek(hva: number, length: number): OpResult {
    const bytes = new Uint8Array(length);
    const result = this.mm.read(hva, bytes);
    if (result === 0) return { ...OK, out: { data: bytesHex(bytes) } };
    return this.touchSignal(hva, result, PROT_READ);
  }

  private poke(hva: number, bytes: Uint8Array): OpResult {
    const result = this.mm.write(hva, bytes);
    return result === 0 ? OK : this.touchSignal(hva, result, PROT_WRITE);
  }

  private touchSignal(hva: number, error: number, wanted: number): OpResult {
    if (error === -EHWPOISON) this.mm.sendSignal({ signal: SIGBUS, code: 'MCEERR_AR', address: hva, lsb: 12 });
    const vma = this.mm.vmaAt(hva);
    const refused = vma === null || (vma.prot & wanted) === 0;
    return { ret: -1, errno: null, out: { signal: refused ? SIGSEGV : SIGBUS } };
  }

  private readUserfaults(): OpResult {
    const entries = this.mm.userfaults.read().map(({ event, flags, address }) => ({
      event: `0x${event.toString(16)}`,
      flags: `0x${flags.toString(16)}`,
      off: `0x${(this.place(address)?.off ?? 0).toString(16)}`,
    }));
    return { ...OK, out: { count: entries.length, ...(entries.length === 0 ? {} : { entries }) } };
  }

  private object(mem: unknown): MemObject {
    const found = this.mems.get(int(mem));
    if (found === undefined) throw new Error(`no memory object ${String(mem)}`);
    return found;
  }

  private map(op: Op): OpResult {
    const kind = op['kind'] as MemoryKind;
    const size = int(op['size']);
    const prot = op['prot'] === undefined ? PROT_READ | PROT_WRITE : protection(op['prot']);
    const hva = this.mm.mmap({ size, kind, prot, align: int(op['align'], 0x200000) });
    if (hva < 0) return fromErrno(hva);
    this.mems.set(int(op['id']), { id: int(op['id']), hva, size, kind, file: this.mm.fileAt(hva) });
    return OK;
  }

  /** Maps the object's range again at its old place: the same file, or new anonymous memory. */
  private remap(op: Op): OpResult {
    const m = this.object(op['mem']);
    const offset = int(op['off']);
    const file = m.file === null ? {} : { file: m.file, offset };
    const prot = op['prot'] === undefined ? PROT_READ | PROT_WRITE : protection(op['prot']);
    const hva = this.mm.mmap({ size: int(op['size']), kind: m.kind, prot, at: m.hva + offset, ...file });
    return hva < 0 ? fromErrno(hva) : OK;
  }
}

function advice(name: unknown): Advice {
  const known = advices.find((a) => a === name);
  if (known === undefined) throw new UnsupportedError(`madvise ${String(name)}`);
  return known;
}

function protection(text: unknown): number {
  const s = String(text);
  return (s.includes('r') ? PROT_READ : 0) | (s.includes('w') ? PROT_WRITE : 0) | (s.includes('x') ? PROT_EXEC : 0);
}
