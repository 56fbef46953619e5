/**
 * A machine without a system: linear addresses from 0 to 16 MiB are the memory from 48 MiB up, pages can be taken away, and system
 * instructions are answered by a callback. For tests and benchmarks of the interpreter.
 */
import { GP_VECTOR, PF_VECTOR, SS_VECTOR } from '../../arch/exceptions.ts';
import { CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_OSXSAVE, CS, DS, ES, FS, GS, RFLAGS_FIXED, SS } from '../../arch/registers.ts';
import { VMCB_ATTR_DB, VMCB_ATTR_G, VMCB_ATTR_L, VMCB_ATTR_P, VMCB_ATTR_S } from '../../arch/vmcb.ts';
import { PAGE_SIZE, PhysicalMemory, PROCESSOR_FRAMES } from '../../host/physical-memory.ts';
import { defaultEngine, type Engine } from '../compiler/engine.ts';
import {
  ACCESS_FETCH,
  ACCESS_READ,
  ACCESS_RMW,
  ACCESS_SEG_AT,
  ACCESS_WRITE,
  BUDGET_AT,
  CODE_MODE_AT,
  CR0_AT,
  CR4_AT,
  FAULT_ADDRESS,
  FAULT_ERROR,
  FAULT_HAS_ERROR,
  FAULT_VECTOR,
  FPU_CW_AT,
  GPR,
  INSNS_AT,
  MXCSR_AT,
  RIP_AT,
  SCRATCH,
  SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SIZE,
  STATUS_EXCEPTION,
  STATUS_EXIT,
  STATUS_OK,
  type SystemPort,
  TLB_BASE,
  TLB_CODE_TAG,
  TLB_END,
  TLB_ENTRIES,
  TLB_ENTRY_SIZE,
  TLB_NO_TAG,
  TLB_PAGE,
  TLB_READ_TAG,
  TLB_WRITE_TAG,
  XCR0_AT,
} from '../state.ts';
import { Interpreter } from './interpreter.ts';

/** Bytes of linear address space. */
export const FLAT_SIZE = 16 << 20;
const BASE = PROCESSOR_FRAMES * PAGE_SIZE;

export type Mode = 'real16' | 'protected16' | 'protected32' | 'long64';

export class FlatMachine implements SystemPort {
  readonly memory = new PhysicalMemory(BASE + FLAT_SIZE);
  readonly interpreter: Interpreter;
  /** Linear page numbers that are not present, or present but not writable. */
  readonly absent = new Set<number>();
  readonly readOnly = new Set<number>();
  /** Calls of `translate`, for tests that count them. */
  translations: { address: number; access: number }[] = [];
  onSystem: (op: number, record: number) => number = () => STATUS_EXIT;

  constructor(mode: Mode = 'long64', engine: Engine = defaultEngine()) {
    this.interpreter = new Interpreter(this.memory, this, engine);
    this.memory.setWatchedWrite((pfn) => this.interpreter.invalidateCode(pfn));
    this.setMode(mode);
    this.flushTlb();
    this.interpreter.writeRflags(RFLAGS_FIXED);
  }

  setMode(mode: Mode): void {
    const { i32 } = this.memory;
    i32[CODE_MODE_AT >> 2] = mode === 'long64' ? 2 : mode === 'protected32' ? 1 : 0;
    i32[CR0_AT >> 2] = mode === 'real16' ? 0x30 : 0x31;
    i32[CR4_AT >> 2] = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    i32[XCR0_AT >> 2] = 7;
    i32[FPU_CW_AT >> 2] = 0x37f;
    i32[MXCSR_AT >> 2] = 0x1f80;
    const short = mode === 'real16' || mode === 'protected16';
    const size = short ? 0 : mode === 'protected32' ? VMCB_ATTR_DB | VMCB_ATTR_G : VMCB_ATTR_L | VMCB_ATTR_G;
    for (const seg of [ES, CS, SS, DS, FS, GS]) {
      const at = (SEG + seg * SEG_SIZE) >> 2;
      i32[at + (SEG_BASE >> 2)] = 0;
      i32[at + (SEG_LIMIT >> 2)] = short ? 0xffff : -1;
      const type = seg === CS && mode !== 'real16' ? 0xb : 3;
      i32[at + (SEG_ATTR >> 2)] = type | VMCB_ATTR_S | VMCB_ATTR_P | size;
    }
  }

  flushTlb(): void {
    const { i32 } = this.memory;
    for (let entry = TLB_BASE; entry < TLB_END; entry += TLB_ENTRY_SIZE) {
      for (const tag of [TLB_READ_TAG, TLB_WRITE_TAG, TLB_CODE_TAG]) {
        i32[(entry + tag) >> 2] = TLB_NO_TAG;
        i32[(entry + tag + 4) >> 2] = 0;
      }
    }
  }

  /** Copies bytes to a linear address, as a device would. */
  load(address: number, bytes: ArrayLike<number>): void {
    this.memory.noteWrite(Math.floor((BASE + address) / PAGE_SIZE));
    this.memory.noteWrite(Math.floor((BASE + address + bytes.length - 1) / PAGE_SIZE));
    this.memory.u8.set(bytes, BASE + address);
  }
  /** Bytes at a linear address. */
  bytes(address: number, length: number): Uint8Array {
    return this.memory.u8.slice(BASE + address, BASE + address + length);
  }
  get rip(): number {
    return this.memory.i32[RIP_AT >> 2]!;
  }
  set rip(value: number) {
    this.memory.i32[RIP_AT >> 2] = value;
    this.memory.i32[(RIP_AT >> 2) + 1] = 0;
  }
  /** Low and high halves of a general register. */
  low(register: number): number {
    return this.memory.i32[(GPR >> 2) + register * 2]!;
  }
  high(register: number): number {
    return this.memory.i32[(GPR >> 2) + register * 2 + 1]!;
  }
  setRegister(register: number, low: number, high = 0): void {
    this.memory.i32[(GPR >> 2) + register * 2] = low;
    this.memory.i32[(GPR >> 2) + register * 2 + 1] = high;
  }
  get retired(): number {
    return this.memory.i32[INSNS_AT >> 2]!;
  }
  get faultVector(): number {
    return this.memory.i32[FAULT_VECTOR >> 2]!;
  }
  /** Runs at most `budget` instructions from RIP; a STATUS. */
  run(budget: number): number {
    this.memory.i32[BUDGET_AT >> 2] = budget;
    return this.interpreter.run();
  }

  // The system port.

  translate(lo: number, hi: number, access: number): number {
    const address = lo >>> 0;
    this.translations.push({ address, access });
    const page = Math.floor(address / PAGE_SIZE);
    const writes = access === ACCESS_WRITE || access === ACCESS_RMW;
    const present = hi === 0 && address < FLAT_SIZE && !this.absent.has(page);
    const { i32, watch } = this.memory;
    if ((hi << 16) >> 16 !== hi) {
      i32[FAULT_VECTOR >> 2] = i32[ACCESS_SEG_AT >> 2] === SS ? SS_VECTOR : GP_VECTOR;
      i32[FAULT_HAS_ERROR >> 2] = 1;
      i32[FAULT_ERROR >> 2] = 0;
      return -1;
    }
    if (!present || (writes && this.readOnly.has(page))) {
      i32[FAULT_VECTOR >> 2] = PF_VECTOR;
      i32[FAULT_HAS_ERROR >> 2] = 1;
      i32[FAULT_ERROR >> 2] = (present ? 1 : 0) | (writes ? 2 : 0) | (access === ACCESS_FETCH ? 16 : 0);
      i32[FAULT_ADDRESS >> 2] = lo;
      i32[(FAULT_ADDRESS >> 2) + 1] = hi;
      return -1;
    }
    const pfn = PROCESSOR_FRAMES + page;
    if (writes && watch[pfn] !== 0) this.interpreter.invalidateCode(pfn);
    const entry = (TLB_BASE + (page & (TLB_ENTRIES - 1)) * TLB_ENTRY_SIZE) >> 2;
    const writable = watch[pfn] === 0 && !this.readOnly.has(page);
    const set = (tag: number, usable: boolean): void => {
      i32[entry + (tag >> 2)] = usable ? page * PAGE_SIZE : TLB_NO_TAG;
      i32[entry + (tag >> 2) + 1] = 0;
    };
    set(TLB_READ_TAG, true);
    set(TLB_CODE_TAG, true);
    set(TLB_WRITE_TAG, writable);
    i32[entry + (TLB_PAGE >> 2)] = pfn * PAGE_SIZE;
    return BASE + address;
  }
  reach(lo: number, hi: number, access: number): number {
    const pfn = PROCESSOR_FRAMES + Math.floor((lo >>> 0) / PAGE_SIZE);
    if (access !== ACCESS_READ && this.memory.watch[pfn] !== 0) return -2;
    return this.translate(lo, hi, access);
  }
  private cross(lo: number, size: number, access: number, move: (byte: number, host: number) => void): number {
    const first = this.translate(lo, 0, access);
    if (first < 0) return STATUS_EXCEPTION;
    const inPage = PAGE_SIZE - (lo & (PAGE_SIZE - 1));
    const second = this.translate(lo + inPage, 0, access);
    if (second < 0) return STATUS_EXCEPTION;
    for (let i = 0; i < size; i++) move(SCRATCH + i, i < inPage ? first + i : second + i - inPage);
    return STATUS_OK;
  }
  readCross(lo: number, _hi: number, size: number, access = ACCESS_READ): number {
    const { u8 } = this.memory;
    return this.cross(lo, size, access, (byte, host) => {
      u8[byte] = u8[host]!;
    });
  }
  writeCross(lo: number, _hi: number, size: number): number {
    const { u8 } = this.memory;
    return this.cross(lo, size, ACCESS_WRITE, (byte, host) => {
      u8[host] = u8[byte]!;
    });
  }
  breakpoint(): number {
    return STATUS_OK;
  }
  lastStatus(): number {
    return STATUS_EXCEPTION;
  }
  system(op: number, record: number): number {
    return this.onSystem(op, record);
  }
}
