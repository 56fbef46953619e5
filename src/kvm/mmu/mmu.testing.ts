/** A VM whose MMU runs without a processor: faults are made by hand, and the trace is taken down as lines. For tests. */
import { addVcpu, type BareVmOptions, bareVm } from '../bare-vm.testing.ts';
import { setUserMemoryRegion } from '../memslots/set-memory-region.ts';
import type { TraceEvent } from '../trace/events.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { mmuCreate } from './create.ts';
import { mmuDoPageFault } from './do-page-fault.ts';
import { ACC_ALL, ROLE_ACCESS_SHIFT, ROLE_CR0_WP, ROLE_DIRECT, ROLE_EFER_NX } from './role.ts';
import { mmuFreeObsoleteRoots, mmuReload } from './roots.ts';

/** Error codes of nested faults on the final access, low half. */
export const READ = 4;
export const WRITE = 6;
export const FETCH = 0x14;
/** Bit 32: the final access. */
const FINAL_HI = 1;

export class TestMmu {
  readonly vm: VmState;
  readonly vcpu: VcpuState;

  /** Events since `takeTrace`. */
  private events: TraceEvent[] = [];

  constructor(options: BareVmOptions = {}) {
    this.vm = bareVm({ memoryBytes: 256 * 1024 * 1024, ...options });
    this.vcpu = addVcpu(this.vm);
    mmuCreate(this.vcpu);
    this.vcpu.mmu.rootMmu.rootRole = (ACC_ALL << ROLE_ACCESS_SHIFT) | ROLE_CR0_WP | ROLE_EFER_NX | ROLE_DIRECT | 4;
  }

  /** Sets slot `slot`; memory size 0 deletes it. Host memory is mapped anew unless `hva` is given. Answers the hva. */
  slot(
    slot: number,
    gpa: number,
    size: number,
    options: { flags?: number; hva?: number; kind?: 'anon' | 'thp' } = {},
  ): number {
    const hva = options.hva ?? (size === 0 ? 0 : this.vm.mm.mmap({ size, kind: options.kind ?? 'anon' }));
    const region = {
      slot,
      flags: options.flags ?? 0,
      guestPhysAddr: BigInt(gpa),
      memorySize: BigInt(size),
      userspaceAddr: BigInt(hva),
      guestMemfdOffset: 0n,
      guestMemfd: 'other-file' as const,
    };
    const r = setUserMemoryRegion(this.vm, region, 2);
    if (r !== 0) throw new Error(`slot ${slot}: ${r}`);
    return hva;
  }

  /** One nested fault, with the roots brought up to date before as KVM_RUN does. */
  fault(gpa: number, error: number, prefetch = false): number {
    this.enter();
    return mmuDoPageFault(this.vcpu, gpa | 0, Math.floor(gpa / 0x1_0000_0000), error, FINAL_HI, prefetch);
  }

  /** What happens before the guest is entered. */
  enter(): void {
    this.vcpu.requests = 0;
    mmuFreeObsoleteRoots(this.vcpu);
    mmuReload(this.vcpu);
  }

  /** Starts recording events. */
  traceOn(): void {
    this.vm.trace.setSink((event) => this.events.push(event));
  }

  /** The events so far, one line each: what changed, without the frames. */
  takeTrace(): string[] {
    const lines = this.events.map((e) => `${e.event} ${Object.values(e.fields).map(withoutPfn).join(' ')}`);
    this.events = [];
    return lines.filter((line) => !line.includes('8000000000000000 0x80000000000005a0'));
  }
}

/** An SPTE without its frame, as recordings have it; anything else as it is. */
function withoutPfn(value: unknown): string {
  if (typeof value !== 'string' || !/^0x[0-9a-f]+$/.test(value)) return String(value);
  const word = BigInt(value);
  if ((word & 0x800n) === 0n || word >> 12n === 0n) return value;
  return `0x${(word & ~0xff_ffff_f000n).toString(16)}+pfn`;
}
