/** The interpreter: generated handlers and loop over one physical memory, with the decoder behind it. */
import { GP_VECTOR } from '../../arch/exceptions.ts';
import { CS } from '../../arch/registers.ts';
import { PAGE_SIZE, type PhysicalMemory } from '../../host/physical-memory.ts';
import { BlockCompiler, type CompilerStatistics } from '../compiler/compiler.ts';
import { defaultEngine, type Engine } from '../compiler/engine.ts';
import { CodeCache } from '../decode/code-cache.ts';
import { MAX_LENGTH } from '../decode/decoder.ts';
import { RECORD_MODE, recordLength } from '../decode/record.ts';
import { Assist } from '../floating/assist.ts';
import type { Feature } from '../isa/features.ts';
import { STATUS_FLAGS } from '../semantics/flags.ts';
import { defineHandlers, type HandlerIndex } from '../semantics/handlers.ts';
import { defineSharedFunctions } from '../semantics/shared-functions.ts';
import {
  ACCESS_FETCH,
  ACCESS_SEG_AT,
  BUDGET_AT,
  CODE_MODE_AT,
  FAULT_ERROR,
  FAULT_HAS_ERROR,
  FAULT_VECTOR,
  FLAGS_OP,
  FLAGS_SRC,
  MMU_INDEX_AT,
  RFLAGS_AT,
  RIP_AT,
  SEG,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SIZE,
  STATUS_EXCEPTION,
  type SystemPort,
  TLB_BASE,
  TLB_CODE_TAG,
  TLB_ENTRIES,
  TLB_ENTRY_SIZE,
  TLB_PAGE,
} from '../state.ts';
import { defineQuickSystem } from '../system/quick-system.ts';
import type { FunctionRef } from '../wasm/function.ts';
import { ModuleBuilder } from '../wasm/module.ts';
import { defineRun } from './loop.ts';
import { defineCopyInstruction, defineLoadGuest, defineResume, defineStoreGuest } from './state-switch.ts';
import { defineVmcsSwitch, type VmcsSwitch, vmcsSwitch } from './state-switch-vmcs.ts';

interface Built {
  readonly module: WebAssembly.Module;
  readonly handlers: HandlerIndex;
}
let built: Built | undefined;

/** The module is the same for every machine; it is generated and compiled once. */
function build(): Built {
  if (built !== undefined) return built;
  const m = new ModuleBuilder();
  const support = defineSharedFunctions(m);
  const quick = defineQuickSystem(m, support);
  const handlers = defineHandlers(m, support, quick.handlers);
  const run = defineRun(m, support, quick.deliver);
  m.export('run', run);
  for (const [name, flag] of Object.entries(support.flags)) m.export(name, flag as FunctionRef);
  m.export('reach', support.reach);
  m.exportTable('table');
  const [load, store] = [defineLoadGuest(m), defineStoreGuest(m, support)];
  m.export('loadGuest', load);
  m.export('storeGuest', store);
  m.export('resume', defineResume(m, load, run, store));
  defineVmcsSwitch(m);
  m.export('copyInstruction', defineCopyInstruction(m));
  built = { module: new WebAssembly.Module(m.finish()), handlers };
  return built;
}

const CS_AT = SEG + CS * SEG_SIZE;

export class Interpreter {
  private readonly i32: Int32Array;
  private readonly u8: Uint8Array;
  private readonly port: SystemPort;
  private readonly code: CodeCache;
  private readonly bytes = new Uint8Array(2 * MAX_LENGTH);
  private readonly runLoop: () => number;
  private readonly statusFlags: () => number;
  /** See state-switch.ts. */
  readonly loadGuest: (vmcbPa: number) => number;
  readonly storeGuest: (vmcbPa: number, intCtl: number, event: number, eventError: number) => void;
  readonly vmcs: VmcsSwitch;
  readonly resume: (vmcbPa: number, intCtl: number) => number;
  readonly copyInstruction: (to: number, from: number) => void;

  private readonly compiler: BlockCompiler;

  /** @param absent extensions that the processor does not have */
  constructor(
    memory: PhysicalMemory,
    port: SystemPort,
    engine: Engine = defaultEngine(),
    absent?: ReadonlySet<Feature>,
  ) {
    this.i32 = memory.i32;
    this.u8 = memory.u8;
    this.port = port;
    const { module, handlers } = build();
    this.code = new CodeCache(memory, handlers, absent);
    const assist = new Assist(memory.memory.buffer);
    const env = {
      memory: memory.memory,
      translate: (lo: number, hi: number, access: number) => port.translate(lo, hi, access),
      reach: (lo: number, hi: number, access: number) => port.reach(lo, hi, access),
      readCross: (lo: number, hi: number, size: number, access: number) => port.readCross(lo, hi, size, access),
      writeCross: (lo: number, hi: number, size: number) => port.writeCross(lo, hi, size),
      lastStatus: () => port.lastStatus(),
      system: (op: number, record: number) => port.system(op, record),
      assist: (operation: number, argument: number) => assist.execute(operation, argument),
      fetch: () => this.fetch(),
      breakpoint: () => port.breakpoint(),
      hot: (record: number) => this.hot(record),
    };
    const { exports } = new WebAssembly.Instance(module, { env });
    this.compiler = new BlockCompiler(memory.memory, { ...exports, assist: env.assist }, handlers);
    this.code.onDropCompiled = (record) => this.compiler.drop(record);
    this.code.compileAfter = engine.compileAfter;
    this.runLoop = exports['run'] as () => number;
    this.statusFlags = exports['status'] as () => number;
    this.loadGuest = exports['loadGuest'] as (vmcbPa: number) => number;
    this.storeGuest = exports['storeGuest'] as Interpreter['storeGuest'];
    this.vmcs = vmcsSwitch(exports);
    this.resume = exports['resume'] as Interpreter['resume'];
    this.copyInstruction = exports['copyInstruction'] as (to: number, from: number) => void;
  }

  /**
   * Runs from RIP until an exception, a #VMEXIT or the end of BUDGET_AT, and at most `maxInsns` instructions (iterations of repeated
   * ones count). A fault leaves RIP at its instruction; a trap (#DB of a single step) after it. The port may lower BUDGET_AT to stop
   * the run early.
   * @returns STATUS_EXCEPTION, STATUS_EXIT or STATUS_BUDGET
   */
  run(maxInsns = 0): number {
    if (maxInsns <= 0) return this.runLoop();
    const at = BUDGET_AT >> 2;
    const kept = this.i32[at]! - maxInsns;
    if (kept <= 0) return this.runLoop();
    this.i32[at] = maxInsns;
    const status = this.runLoop();
    this.i32[at] = this.i32[at]! + kept;
    return status;
  }

  /** What the block compiler has done. */
  get compilerStatistics(): CompilerStatistics {
    return this.compiler.statistics;
  }

  private hot(record: number): void {
    if (this.code.compileAfter === 0) return;
    const base = this.u8[record + RECORD_MODE] === 2 ? 0 : this.i32[(CS_AT + SEG_BASE) >> 2]!;
    const offset = (this.i32[RIP_AT >> 2]! + base) & 0xfff;
    const slot = this.code.slotOf(record, offset);
    if (slot >= 0) this.compiler.compile(record, slot, offset, this.code.compileAfter);
  }

  /** How often a frame's code was dropped. */
  get invalidations(): number {
    return this.code.invalidations;
  }

  /** Drops what was decoded from frame `pfn`; for writes to watched frames. */
  invalidateCode(pfn: number): void {
    this.code.invalidate(pfn);
  }

  /** Bytes of the instruction at RIP, 0 when it cannot be fetched: a fault of the fetch is forgotten. */
  instructionLength(): number {
    const record = this.fetch();
    return record > 0xff ? recordLength(this.u8, record) : 0;
  }

  /** Drops everything that was decoded. */
  flushDecoded(): void {
    this.code.clear();
  }

  /** RFLAGS, whole: what is stored and the six lazy flags. */
  readRflags(): number {
    return (this.i32[RFLAGS_AT >> 2]! & ~STATUS_FLAGS) | this.statusFlags();
  }

  /** Sets RFLAGS, all 32 low bits; the value is taken as it is. */
  writeRflags(value: number): void {
    this.i32[RFLAGS_AT >> 2] = value & ~STATUS_FLAGS;
    this.i32[FLAGS_OP >> 2] = 0;
    this.i32[FLAGS_SRC >> 2] = value & STATUS_FLAGS;
    this.i32[(FLAGS_SRC >> 2) + 1] = 0;
  }

  private generalProtection(): number {
    this.i32[FAULT_VECTOR >> 2] = GP_VECTOR;
    this.i32[FAULT_HAS_ERROR >> 2] = 1;
    this.i32[FAULT_ERROR >> 2] = 0;
    return STATUS_EXCEPTION;
  }

  /** Host physical address of a code byte, or -1. */
  private translateCode(lo: number, hi: number): number {
    const i32 = this.i32;
    const context = i32[MMU_INDEX_AT >> 2]! * TLB_ENTRIES;
    const entry = (TLB_BASE + (context + ((lo >>> 12) & (TLB_ENTRIES - 1))) * TLB_ENTRY_SIZE) >> 2;
    if (i32[entry + (TLB_CODE_TAG >> 2)] === (lo & ~0xfff) && i32[entry + (TLB_CODE_TAG >> 2) + 1] === hi) {
      return (i32[entry + (TLB_PAGE >> 2)]! | (lo & 0xfff)) >>> 0;
    }
    i32[ACCESS_SEG_AT >> 2] = CS;
    return this.port.translate(lo, hi, ACCESS_FETCH);
  }

  /** Fetches and decodes at RIP: a record, or a status. */
  private fetch(): number {
    const i32 = this.i32;
    const mode = i32[CODE_MODE_AT >> 2]!;
    let lo = i32[RIP_AT >> 2]!;
    let hi = i32[(RIP_AT >> 2) + 1]!;
    /** Bytes up to the limit of CS. */
    let allowed = 0x1_0000_0000;
    let keep = true;
    if (mode !== 2) {
      i32[(RIP_AT >> 2) + 1] = hi = 0;
      const limit = i32[(CS_AT + SEG_LIMIT) >> 2]! >>> 0;
      allowed = limit - (lo >>> 0) + 1;
      if (allowed <= 0) return this.generalProtection();
      lo = (lo + i32[(CS_AT + SEG_BASE) >> 2]!) | 0;
      keep = 4096 - (lo & 0xfff) <= allowed;
    }
    const here = this.translateCode(lo, hi);
    if (here < 0) return this.port.lastStatus();
    const offset = here & 0xfff;
    if (keep) {
      const record = this.code.decodeInPage((here - offset) / 4096, offset, mode);
      if (record !== 0) return record;
    }
    return this.fetchAcross(here, lo, hi, allowed, mode, keep);
  }

  /** An instruction that the page, or the limit of CS, may cut short; the next page is translated only when its bytes are needed. */
  private fetchAcross(here: number, lo: number, hi: number, allowed: number, mode: number, keep: boolean): number {
    const { bytes, u8 } = this;
    const inPage = 4096 - (here % 4096);
    const first = Math.min(inPage, allowed, MAX_LENGTH);
    for (let i = 0; i < first; i++) bytes[i] = u8[here + i]!;
    const short = this.code.decodeOnce(bytes, first, mode);
    if (short !== 0) return short;
    if (first === MAX_LENGTH || first === allowed) return this.generalProtection();
    const nextLo = (lo + inPage) | 0;
    const nextHi = nextLo === 0 && mode === 2 ? (hi + 1) | 0 : hi;
    const there = this.translateCode(nextLo, nextHi);
    if (there < 0) return this.port.lastStatus();
    const all = Math.min(MAX_LENGTH, allowed);
    for (let i = first; i < all; i++) bytes[i] = u8[there + i - first]!;
    const whole =
      keep && allowed >= inPage + MAX_LENGTH
        ? this.code.decodeAcross(
            Math.floor(here / PAGE_SIZE),
            here % PAGE_SIZE,
            Math.floor(there / PAGE_SIZE),
            bytes,
            all,
            mode,
          )
        : this.code.decodeOnce(bytes, all, mode);
    return whole !== 0 ? whole : this.generalProtection();
  }
}
