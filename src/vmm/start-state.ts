/** The registers that a vCPU starts with, for each way of entering a guest. */
import type { Vcpu } from '../kvm/api/vcpu.ts';
import type { EntryMode } from './loaders/boot-image.ts';
import { CODE32, CODE64, DATA, GDT_BYTES } from './loaders/boot-tables.ts';

const CR0_PE = 1n;
const CR0_ET = 0x10n;
const CR0_NE = 0x20n;
const CR0_PG = 0x8000_0000n;
const CR4_PAE = 0x20n;
const EFER_LME = 0x100n;
const EFER_LMA = 0x400n;
const RFLAGS_FIXED = 2n;

type Segment = ReturnType<Vcpu['getSregs']>['cs'];

function segment(base: number, limit: number, selector: number, type: number, bits: 16 | 32 | 64): Segment {
  const flat = bits !== 16;
  return {
    base: BigInt(base),
    limit,
    selector,
    type,
    present: 1,
    dpl: 0,
    db: bits === 32 ? 1 : 0,
    s: 1,
    l: bits === 64 ? 1 : 0,
    g: flat ? 1 : 0,
    avl: 0,
    unusable: 0,
  };
}

/** Sets general and system registers for `entry`. */
export function enter(vcpu: Vcpu, entry: EntryMode): void {
  if (entry.mode === 'reset') return;
  const sregs = vcpu.getSregs();
  const regs = vcpu.getRegs();
  if (entry.mode === 'real') {
    const base = entry.segment * 16;
    const dataSegment = entry.data ?? entry.segment;
    const data = segment(dataSegment * 16, 0xffff, dataSegment, 3, 16);
    vcpu.setSregs({
      ...sregs,
      cs: segment(base, 0xffff, entry.segment, 11, 16),
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
    });
    vcpu.setRegs({ ...regs, rip: BigInt(entry.ip), rsp: BigInt(entry.sp), rflags: RFLAGS_FIXED });
    return;
  }
  const data = segment(0, 0xffff_ffff, DATA, 3, 32);
  const long = entry.mode === 'long';
  const cs = segment(0, 0xffff_ffff, long ? CODE64 : CODE32, 11, long ? 64 : 32);
  vcpu.setSregs({
    ...sregs,
    cs,
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    gdt: { base: BigInt(entry.gdt), limit: GDT_BYTES - 1 },
    idt: { base: 0n, limit: 0 },
    cr0: CR0_PE | CR0_ET | CR0_NE | (long ? CR0_PG : 0n),
    cr3: long ? BigInt(entry.cr3) : 0n,
    cr4: long ? CR4_PAE : 0n,
    efer: long ? EFER_LME | EFER_LMA : 0n,
  });
  const start = long
    ? { rip: BigInt(entry.rip), rsp: BigInt(entry.rsp) }
    : { rip: BigInt(entry.eip), rax: BigInt(entry.eax), rbx: BigInt(entry.ebx) };
  vcpu.setRegs({ ...regs, ...start, rflags: RFLAGS_FIXED });
}

/** What RESET makes of a vCPU, as KVM had it after creation. */
export interface ResetState {
  readonly regs: ReturnType<Vcpu['getRegs']>;
  readonly sregs: ReturnType<Vcpu['getSregs']>;
  readonly events: ReturnType<Vcpu['getVcpuEvents']>;
  readonly lapic: Uint8Array;
  readonly mpState: number;
}

/** Of a vCPU that has not run. */
export function resetState(vcpu: Vcpu): ResetState {
  return {
    regs: vcpu.getRegs(),
    sregs: vcpu.getSregs(),
    events: vcpu.getVcpuEvents(),
    lapic: vcpu.getLapic(),
    mpState: vcpu.getMpState(),
  };
}

/** Puts a vCPU back to it. */
export function restoreReset(vcpu: Vcpu, state: ResetState): void {
  vcpu.setMpState(state.mpState);
  vcpu.setSregs(state.sregs);
  vcpu.setRegs(state.regs);
  vcpu.setVcpuEvents(state.events);
  vcpu.setLapic(state.lapic);
}
