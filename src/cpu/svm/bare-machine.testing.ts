/**
 * A processor, memory and one guest without any hypervisor: nested tables, a control block and guest memory set up by hand. What the
 * processor's own tests and benchmarks run.
 *
 *   host   0x3001000 VMCB  0x3002000 IOPM  0x3006000 MSRPM  0x3010000 nested tables  0x4000000 + gpa guest memory
 *   guest  0x1000 GDT  0x2000 IDT  0x3000 TSS  0x4000 handlers, 32 bytes each  0x9000 stack  0xa000 code  0x10000 page tables
 */
import {
  CR0_ET,
  CR0_NE,
  CR0_PE,
  CR0_PG,
  CR4_OSFXSR,
  CR4_PAE,
  EFER_LMA,
  EFER_LME,
  EFER_NX,
  EFER_SCE,
  EFER_SVME,
} from '../../arch/registers.ts';
import {
  INTERCEPT_HLT,
  INTERCEPT_INTR,
  INTERCEPT_IOIO_PROT,
  INTERCEPT_MSR_PROT,
  INTERCEPT_SHUTDOWN,
  INTERCEPT_VMMCALL,
  INTERCEPT_VMRUN,
  VMCB_ASID,
  VMCB_CPL,
  VMCB_CR0,
  VMCB_CR3,
  VMCB_CR4,
  VMCB_CS,
  VMCB_DR6,
  VMCB_DR7,
  VMCB_DS,
  VMCB_EFER,
  VMCB_ES,
  VMCB_EXIT_CODE,
  VMCB_GDTR,
  VMCB_IDTR,
  VMCB_INTERCEPT_WORD3,
  VMCB_INTERCEPT_WORD4,
  VMCB_IOPM_BASE,
  VMCB_LDTR,
  VMCB_MSRPM_BASE,
  VMCB_NESTED_CR3,
  VMCB_NESTED_CTL,
  VMCB_RFLAGS,
  VMCB_RIP,
  VMCB_RSP,
  VMCB_SS,
  VMCB_TR,
} from '../../arch/vmcb.ts';
import { PhysicalMemory } from '../../host/physical-memory.ts';
import { Processor } from '../processor.ts';
import type { HardwareProfile } from '../profile.ts';

export const VMCB_PA = 0x3001000;
export const GUEST_MEMORY = 0x4000000;
const IOPM_PA = 0x3002000;
const MSRPM_PA = 0x3006000;
const NESTED_ROOT = 0x3010000;

/** P W U A D: a nested leaf like KVM's. */
export const NESTED_RWX = 0x67;

export type GuestMode = 'long64' | 'protected32' | 'paged32' | 'pae' | 'real';

export class BareMachine {
  readonly memory = new PhysicalMemory(128 * 1024 * 1024);
  readonly processor: Processor;
  private nextTable = NESTED_ROOT + 0x1000;

  /** @param map when false nothing of the guest's memory is mapped yet */
  constructor(profile: HardwareProfile, mode: GuestMode = 'long64', map = true) {
    this.processor = new Processor(this.memory, profile);
    this.fill(IOPM_PA, 0x3000, 0xff);
    this.fill(MSRPM_PA, 0x2000, 0xff);
    if (map) for (let gfn = 0; gfn < 0x1000; gfn++) this.mapNested(gfn);
    this.set64(VMCB_IOPM_BASE, BigInt(IOPM_PA));
    this.set64(VMCB_MSRPM_BASE, BigInt(MSRPM_PA));
    this.set32(
      VMCB_INTERCEPT_WORD3,
      INTERCEPT_INTR | INTERCEPT_HLT | INTERCEPT_IOIO_PROT | INTERCEPT_MSR_PROT | INTERCEPT_SHUTDOWN,
    );
    this.set32(VMCB_INTERCEPT_WORD4, INTERCEPT_VMRUN | INTERCEPT_VMMCALL);
    this.set32(VMCB_ASID, 1);
    this.set64(VMCB_NESTED_CTL, 1n);
    this.set64(VMCB_NESTED_CR3, BigInt(NESTED_ROOT));
    this.set64(VMCB_DR6, 0xffff0ff0n);
    this.set64(VMCB_DR7, 0x400n);
    this.set64(VMCB_RFLAGS, 2n);
    this.set64(VMCB_RIP, 0xa000n);
    this.set64(VMCB_RSP, 0x9000n);
    this.setMode(mode);
  }

  private setMode(mode: GuestMode): void {
    const long = mode === 'long64';
    const real = mode === 'real';
    const code = real ? 0x09b : long ? 0xa9b : 0xc9b;
    const data = real ? 0x093 : 0xc93;
    const limit = real ? 0xffff : 0xffffffff;
    this.segment(VMCB_CS, real ? 0 : 8, code, limit, 0n);
    for (const offset of [VMCB_ES, VMCB_SS, VMCB_DS]) this.segment(offset, real ? 0 : 16, data, limit, 0n);
    this.segment(VMCB_TR, 0x30, 0x08b, 0x67, 0x3000n);
    this.segment(VMCB_LDTR, 0, 0, 0, 0n);
    this.segment(VMCB_GDTR, 0, 0, 0x3f, 0x1000n);
    this.segment(VMCB_IDTR, 0, 0, long ? 0xfff : real ? 0x3ff : 0x7ff, real ? 0n : 0x2000n);
    const paged = long || mode === 'pae' || mode === 'paged32';
    this.set64(
      VMCB_EFER,
      BigInt(EFER_SVME | (long ? EFER_LME | EFER_LMA | EFER_SCE : 0) | (long || mode === 'pae' ? EFER_NX : 0)),
    );
    const cr0 = CR0_ET | CR0_NE | (real ? 0 : CR0_PE);
    this.set64(VMCB_CR0, BigInt(cr0) | (paged ? BigInt(CR0_PG >>> 0) | 0x10000n : 0n));
    this.set64(VMCB_CR4, BigInt(CR4_OSFXSR | (long || mode === 'pae' ? CR4_PAE : mode === 'paged32' ? 0x10 : 0)));
    this.set64(VMCB_CR3, paged ? 0x10000n : 0n);
    this.memory.u8[VMCB_PA + VMCB_CPL] = 0;
    this.processor.vmload(VMCB_PA);
    if (long) this.longTables();
    else if (mode === 'pae') this.paeTables();
    else if (mode === 'paged32') for (let i = 0; i < 1024; i++) this.poke32(0x10000 + i * 4, (i << 22) | 0xe7);
    this.descriptors(long);
  }

  /** Identity map of the first 4 GiB by 2 MiB pages. */
  private longTables(): void {
    this.poke64(0x10000, 0x11027n);
    for (let i = 0; i < 4; i++) this.poke64(0x11000 + i * 8, BigInt(0x12027 + i * 0x1000));
    for (let i = 0; i < 2048; i++) this.poke64(0x12000 + i * 8, (BigInt(i) << 21n) | 0xe7n);
  }

  private paeTables(): void {
    for (let i = 0; i < 4; i++) this.poke64(0x10000 + i * 8, BigInt(0x12001 + i * 0x1000));
    for (let i = 0; i < 2048; i++) this.poke64(0x12000 + i * 8, (BigInt(i) << 21n) | 0xe7n);
  }

  /** GDT: 8 code, 10 data, 18 user code 32, 20 user data, 28 user code 64, 30 TSS; gates to 0x4000 + 32 * vector. */
  private descriptors(long: boolean): void {
    const gdt = [
      0n,
      long ? 0x00af9b000000ffffn : 0x00cf9b000000ffffn,
      0x00cf93000000ffffn,
      0x00cffb000000ffffn,
      0x00cff3000000ffffn,
      0x00affb000000ffffn,
      0x0000890030000067n,
      0n,
    ];
    for (const [i, value] of gdt.entries()) this.poke64(0x1000 + i * 8, value);
    for (let vector = 0; vector < 256; vector++) {
      const handler = BigInt(0x4000 + vector * 32);
      const dpl = vector === 3 || vector === 0x80 ? 0x6000n << 32n : 0n;
      const gate = (handler & 0xffffn) | (8n << 16n) | (0x8e00n << 32n) | dpl | ((handler >> 16n) << 48n);
      if (long) {
        this.poke64(0x2000 + vector * 16, gate);
        this.poke64(0x2000 + vector * 16 + 8, 0n);
      } else this.poke64(0x2000 + vector * 8, gate);
    }
    if (long) this.poke64(0x3004, 0x8000n);
    else {
      this.poke32(0x3004, 0x8000);
      this.poke32(0x3008, 0x10);
    }
  }

  private segment(offset: number, selector: number, attributes: number, limit: number, base: bigint): void {
    this.set32(offset, selector | (attributes << 16));
    this.set32(offset + 4, limit);
    this.set64(offset + 8, base);
  }

  /** Host address of the 8-byte nested entry that maps `gfn` at level 1; tables are made as needed. */
  nestedEntry(gfn: number): number {
    let table = NESTED_ROOT;
    for (let level = 4; level > 1; level--) {
      const index = Math.floor(gfn / 512 ** (level - 1)) % 512;
      const at = table + index * 8;
      if (this.memory.u64[at / 8] === 0n) {
        // P W U, which for an Intel processor's EPT is R W X.
        this.memory.u64[at / 8] = BigInt(this.nextTable) | 7n;
        this.nextTable += 0x1000;
      }
      table = Number(this.memory.u64[at / 8]! & 0xffffffffff000n);
    }
    return table + (gfn % 512) * 8;
  }

  /** Maps guest frame `gfn` (to its place in guest memory) with `flags`. */
  mapNested(gfn: number, flags = NESTED_RWX): void {
    this.memory.u64[this.nestedEntry(gfn) / 8] = BigInt(GUEST_MEMORY + gfn * 4096) | BigInt(flags);
  }

  unmapNested(gfn: number): void {
    this.memory.u64[this.nestedEntry(gfn) / 8] = 0n;
  }

  /** Writes guest memory as the host does. */
  poke(gpa: number, bytes: ArrayLike<number>): void {
    this.memory.noteWrite((GUEST_MEMORY + gpa) >>> 12);
    this.memory.u8.set(bytes, GUEST_MEMORY + gpa);
  }

  poke64(gpa: number, value: bigint): void {
    new DataView(this.memory.memory.buffer).setBigUint64(GUEST_MEMORY + gpa, value, true);
  }

  poke32(gpa: number, value: number): void {
    new DataView(this.memory.memory.buffer).setUint32(GUEST_MEMORY + gpa, value >>> 0, true);
  }

  peek64(gpa: number): bigint {
    return new DataView(this.memory.memory.buffer).getBigUint64(GUEST_MEMORY + gpa, true);
  }

  /** Code at 0xa000, as hex. */
  code(hex: string, gpa = 0xa000): void {
    this.poke(
      gpa,
      hex
        .replaceAll(' ', '')
        .match(/../g)!
        .map((byte) => Number.parseInt(byte, 16)),
    );
  }

  set32(offset: number, value: number): void {
    this.memory.i32[(VMCB_PA + offset) >> 2] = value;
  }

  set64(offset: number, value: bigint): void {
    this.memory.u64[(VMCB_PA + offset) / 8] = value;
  }

  get64(offset: number): bigint {
    return this.memory.u64[(VMCB_PA + offset) / 8]!;
  }

  get32(offset: number): number {
    return this.memory.i32[(VMCB_PA + offset) >> 2]!;
  }

  /** Enters the guest for at most `budget` instructions; the exit code. */
  run(budget = 1000): number {
    this.processor.setBudget(budget);
    this.processor.vmrun(VMCB_PA);
    return this.get32(VMCB_EXIT_CODE);
  }

  /** General register `n` (not RAX, RSP). */
  register(n: number): bigint {
    const { gpr } = this.processor;
    return (BigInt(gpr[2 * n + 1]! >>> 0) << 32n) | BigInt(gpr[2 * n]! >>> 0);
  }

  private fill(at: number, bytes: number, value: number): void {
    this.memory.u8.fill(value, at, at + bytes);
  }
}
