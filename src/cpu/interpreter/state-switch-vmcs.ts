/**
 * VM entry's loads and VM exit's stores as generated code (@sdm 28.3.2, 29.3), and what the processor remembers of a VMCS whose fields it
 * has checked. A VMCS is the processor's own: behind its fields the region holds a copy of those that checks look at. HOT
 */
import {
  CR0_PG,
  CS,
  DS,
  EFER_LMA,
  EFER_LME,
  ES,
  FS,
  GS,
  LDTR,
  RFLAGS_FIXED,
  RFLAGS_RF,
  RSP,
  SS,
  TR,
} from '../../arch/registers.ts';
import { VMCB_ATTR_P } from '../../arch/vmcb.ts';
import * as F from '../../arch/vmcs.ts';
import {
  VM_ENTRY_IA32E_MODE,
  VM_ENTRY_LOAD_DEBUG_CONTROLS,
  VM_ENTRY_LOAD_IA32_EFER,
  VM_ENTRY_LOAD_IA32_PAT,
  VM_EXIT_SAVE_DEBUG_CONTROLS,
  VM_EXIT_SAVE_IA32_EFER,
  VM_EXIT_SAVE_IA32_PAT,
  VMX_AR_UNUSABLE,
} from '../../arch/vmx-controls.ts';
import { STATUS_FLAGS } from '../semantics/flags.ts';
import { setState32, setState64, state32, state64 } from '../semantics/state-access.ts';
import {
  CPL_AT,
  CR0_AT,
  CR3_AT,
  CR4_AT,
  DBGCTL_AT,
  DR_AT,
  EFER_AT,
  FLAGS_OP,
  FLAGS_SRC,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  IDTR_BASE,
  IDTR_LIMIT,
  INSNS_AT,
  PAT_AT,
  PDPTR_AT,
  RF_RIP_AT,
  RF_SINCE_AT,
  RFLAGS_AT,
  RIP_AT,
  SEG,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SELECTOR,
  SEG_SIZE,
  SYSENTER_CS_AT,
  SYSENTER_EIP_AT,
  SYSENTER_ESP_AT,
} from '../state.ts';
import { i32, i64, T_I32 } from '../wasm/code.ts';
import type { FunctionBuilder, FunctionRef } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';

/** Segments: number, and byte offsets of selector, limit, access rights and base in the VMCS. */
const SEGMENTS: readonly (readonly [number, number, number, number, number])[] = [
  [ES, F.VMCS_GUEST_ES_SELECTOR, F.VMCS_GUEST_ES_LIMIT, F.VMCS_GUEST_ES_AR_BYTES, F.VMCS_GUEST_ES_BASE],
  [CS, F.VMCS_GUEST_CS_SELECTOR, F.VMCS_GUEST_CS_LIMIT, F.VMCS_GUEST_CS_AR_BYTES, F.VMCS_GUEST_CS_BASE],
  [SS, F.VMCS_GUEST_SS_SELECTOR, F.VMCS_GUEST_SS_LIMIT, F.VMCS_GUEST_SS_AR_BYTES, F.VMCS_GUEST_SS_BASE],
  [DS, F.VMCS_GUEST_DS_SELECTOR, F.VMCS_GUEST_DS_LIMIT, F.VMCS_GUEST_DS_AR_BYTES, F.VMCS_GUEST_DS_BASE],
  [FS, F.VMCS_GUEST_FS_SELECTOR, F.VMCS_GUEST_FS_LIMIT, F.VMCS_GUEST_FS_AR_BYTES, F.VMCS_GUEST_FS_BASE],
  [GS, F.VMCS_GUEST_GS_SELECTOR, F.VMCS_GUEST_GS_LIMIT, F.VMCS_GUEST_GS_AR_BYTES, F.VMCS_GUEST_GS_BASE],
  [TR, F.VMCS_GUEST_TR_SELECTOR, F.VMCS_GUEST_TR_LIMIT, F.VMCS_GUEST_TR_AR_BYTES, F.VMCS_GUEST_TR_BASE],
  [LDTR, F.VMCS_GUEST_LDTR_SELECTOR, F.VMCS_GUEST_LDTR_LIMIT, F.VMCS_GUEST_LDTR_AR_BYTES, F.VMCS_GUEST_LDTR_BASE],
];

type Pairs = readonly (readonly [vmcs: number, state: number])[];

/** 64-bit words that move both ways. */
const WORDS: Pairs = [
  [F.VMCS_GUEST_GDTR_BASE, GDTR_BASE],
  [F.VMCS_GUEST_IDTR_BASE, IDTR_BASE],
  [F.VMCS_GUEST_CR0, CR0_AT],
  [F.VMCS_GUEST_CR3, CR3_AT],
  [F.VMCS_GUEST_CR4, CR4_AT],
  [F.VMCS_GUEST_RIP, RIP_AT],
  [F.VMCS_GUEST_RSP, GPR + RSP * 8],
  [F.VMCS_GUEST_SYSENTER_ESP, SYSENTER_ESP_AT],
  [F.VMCS_GUEST_SYSENTER_EIP, SYSENTER_EIP_AT],
];
/** 32-bit words that move both ways. */
const HALVES: Pairs = [
  [F.VMCS_GUEST_GDTR_LIMIT, GDTR_LIMIT],
  [F.VMCS_GUEST_IDTR_LIMIT, IDTR_LIMIT],
];
const PDPTES: Pairs = [0, 8, 16, 24].map((at) => [F.VMCS_GUEST_PDPTR0 + at, PDPTR_AT + at]);

/**
 * What the checks of controls, and those of guest state that change rarely, look at: all but the event to inject, RFLAGS and the
 * non-register state.
 */
const CHECKED_WORDS: readonly number[] = [
  F.VMCS_IO_BITMAP_A,
  F.VMCS_IO_BITMAP_B,
  F.VMCS_MSR_BITMAP,
  F.VMCS_PML_ADDRESS,
  F.VMCS_VIRTUAL_APIC_PAGE_ADDR,
  F.VMCS_APIC_ACCESS_ADDR,
  F.VMCS_EPT_POINTER,
  F.VMCS_GUEST_CR0,
  F.VMCS_GUEST_CR3,
  F.VMCS_GUEST_CR4,
  F.VMCS_GUEST_IA32_EFER,
  F.VMCS_GUEST_DR7,
  F.VMCS_GUEST_SYSENTER_ESP,
  F.VMCS_GUEST_SYSENTER_EIP,
  F.VMCS_GUEST_GDTR_BASE,
  F.VMCS_GUEST_IDTR_BASE,
  ...PDPTES.map(([at]) => at),
  ...SEGMENTS.map(([, , , , base]) => base),
];
const CHECKED_HALVES: readonly number[] = [
  F.VMCS_VIRTUAL_PROCESSOR_ID,
  F.VMCS_PIN_BASED_VM_EXEC_CONTROL,
  F.VMCS_CPU_BASED_VM_EXEC_CONTROL,
  F.VMCS_SECONDARY_VM_EXEC_CONTROL,
  F.VMCS_VM_ENTRY_CONTROLS,
  F.VMCS_VM_EXIT_CONTROLS,
  F.VMCS_CR3_TARGET_COUNT,
  F.VMCS_TPR_THRESHOLD,
  F.VMCS_GUEST_GDTR_LIMIT,
  F.VMCS_GUEST_IDTR_LIMIT,
  ...SEGMENTS.flatMap(([, selector, limit, rights]) => [selector, limit, rights]),
];
/** Where the region has room behind its fields: the copies, and behind them whether there are any. */
const COPIES = 0xc00;
export const VMCS_COPIED = COPIES + 8 * CHECKED_WORDS.length + 4 * CHECKED_HALVES.length;

/** (address of the VMCS) -> whether the fields are those that were found to be good. */
function defineVmcsKnown(m: ModuleBuilder): FunctionRef {
  return m.function([T_I32], [T_I32], (f) => {
    const block = f.param32(0).get;
    f.if(i32.eqz(i32.load(block, VMCS_COPIED)), () => f.return(i32.const(0)));
    const differ = f.i64(i64.const(0));
    const half = f.i32(i32.const(0));
    CHECKED_WORDS.forEach((at, i) => {
      const difference = i64.xor(i64.load(block, at), i64.load(block, COPIES + 8 * i));
      f.do(differ.set(i64.or(differ.get, difference)));
    });
    CHECKED_HALVES.forEach((at, i) => {
      const difference = i32.xor(i32.load(block, at), i32.load(block, COPIES + 8 * CHECKED_WORDS.length + 4 * i));
      f.do(half.set(i32.or(half.get, difference)));
    });
    f.do(i32.eqz(i32.or(i64.ne(differ.get, i64.const(0)), half.get)));
  });
}

/** (address of the VMCS): its fields, as they are, are good. */
function defineVmcsRemember(m: ModuleBuilder): FunctionRef {
  return m.function([T_I32], [], (f) => {
    const block = f.param32(0).get;
    CHECKED_WORDS.forEach((at, i) => {
      f.do(i64.store(block, COPIES + 8 * i, i64.load(block, at)));
    });
    CHECKED_HALVES.forEach((at, i) => {
      f.do(i32.store(block, COPIES + 8 * CHECKED_WORDS.length + 4 * i, i32.load(block, at)));
    });
    f.do(i32.store(block, VMCS_COPIED, i32.const(1)));
  });
}

/** What the entry controls say to load, EFER among it. */
function loadControlled(f: FunctionBuilder): void {
  const block = f.param32(0).get;
  const entry = f.i32(i32.load(block, F.VMCS_VM_ENTRY_CONTROLS));
  const wants = (control: number) => i32.and(entry.get, i32.const(control));
  f.if(wants(VM_ENTRY_LOAD_DEBUG_CONTROLS), () =>
    f.do(
      setState64(DR_AT + 56, i64.load(block, F.VMCS_GUEST_DR7)),
      setState64(DBGCTL_AT, i64.load(block, F.VMCS_GUEST_IA32_DEBUGCTL)),
    ),
  );
  f.if(wants(VM_ENTRY_LOAD_IA32_PAT), () => f.do(setState64(PAT_AT, i64.load(block, F.VMCS_GUEST_IA32_PAT))));
  f.if(
    wants(VM_ENTRY_LOAD_IA32_EFER),
    () => f.do(setState64(EFER_AT, i64.load(block, F.VMCS_GUEST_IA32_EFER))),
    () => {
      const long = f.i32(wants(VM_ENTRY_IA32E_MODE));
      const change = (bit: number): void =>
        f.do(
          setState32(
            EFER_AT,
            i32.or(i32.and(state32(EFER_AT), i32.const(~bit)), i32.select(long.get, i32.const(bit), i32.const(0))),
          ),
        );
      change(EFER_LMA);
      f.if(i32.and(state32(CR0_AT), i32.const(CR0_PG)), () => change(EFER_LME));
    },
  );
}

/** (address of the VMCS, whether EPT is on): loads the guest's state, all but what blocks events. */
function defineLoadVmcs(m: ModuleBuilder): FunctionRef {
  return m.function([T_I32, T_I32], [], (f) => {
    const block = f.param32(0).get;
    for (const [from, to] of WORDS) f.do(setState64(to, i64.load(block, from)));
    for (const [from, to] of HALVES) f.do(setState32(to, i32.load(block, from)));
    const rights = f.i32();
    const attributes = f.i32();
    for (const [n, selector, limit, ar, base] of SEGMENTS) {
      const to = SEG + n * SEG_SIZE;
      const upper = i32.and(i32.shrU(rights.get, i32.const(4)), i32.const(0xf00));
      f.do(
        rights.set(i32.load(block, ar)),
        attributes.set(i32.or(i32.and(rights.get, i32.const(0xff)), upper)),
        setState32(to + SEG_SELECTOR, i32.load16U(block, selector)),
        setState32(to + SEG_LIMIT, i32.load(block, limit)),
        setState64(to + SEG_BASE, i64.load(block, base)),
        setState32(
          to + SEG_ATTR,
          i32.select(
            i32.and(rights.get, i32.const(VMX_AR_UNUSABLE)),
            i32.and(attributes.get, i32.const(~VMCB_ATTR_P)),
            attributes.get,
          ),
        ),
      );
    }
    const cpl = i32.and(i32.shrU(i32.load(block, F.VMCS_GUEST_SS_AR_BYTES), i32.const(5)), i32.const(3));
    f.do(setState64(SYSENTER_CS_AT, i64.load32U(block, F.VMCS_GUEST_SYSENTER_CS)), setState32(CPL_AT, cpl));
    loadControlled(f);
    f.if(f.param32(1).get, () => {
      for (const [from, to] of PDPTES) f.do(setState64(to, i64.load(block, from)));
    });
    const flags = f.i32(i32.or(i32.load(block, F.VMCS_GUEST_RFLAGS), i32.const(RFLAGS_FIXED)));
    f.do(
      setState32(RFLAGS_AT, i32.and(flags.get, i32.const(~STATUS_FLAGS))),
      setState32(FLAGS_OP, i32.const(0)),
      setState64(FLAGS_SRC, i64.extendU(i32.and(flags.get, i32.const(STATUS_FLAGS)))),
    );
    f.if(i32.and(flags.get, i32.const(RFLAGS_RF)), () =>
      f.do(setState64(RF_RIP_AT, i64.load(block, F.VMCS_GUEST_RIP)), setState32(RF_SINCE_AT, state32(INSNS_AT))),
    );
  });
}

/** (address of the VMCS, whether EPT is on, image of RFLAGS): stores the guest's state, all but what blocks events. */
function defineStoreVmcs(m: ModuleBuilder): FunctionRef {
  return m.function([T_I32, T_I32, T_I32], [], (f) => {
    const block = f.param32(0).get;
    for (const [to, from] of WORDS) f.do(i64.store(block, to, state64(from)));
    for (const [to, from] of HALVES) f.do(i32.store(block, to, state32(from)));
    const packed = f.i32();
    const rights = f.i32();
    for (const [n, selector, limit, ar, base] of SEGMENTS) {
      const from = SEG + n * SEG_SIZE;
      f.do(
        packed.set(state32(from + SEG_ATTR)),
        rights.set(
          i32.or(i32.and(packed.get, i32.const(0xff)), i32.shl(i32.and(packed.get, i32.const(0xf00)), i32.const(4))),
        ),
        i64.store(block, base, state64(from + SEG_BASE)),
        i32.store(block, limit, state32(from + SEG_LIMIT)),
        i32.store(block, selector, state32(from + SEG_SELECTOR)),
      );
      // Unusable is one bit, and present another that stays as it was.
      f.if(i32.eqz(i32.and(packed.get, i32.const(VMCB_ATTR_P))), () => {
        const present = i32.and(i32.load(block, ar), i32.const(VMCB_ATTR_P));
        f.do(rights.set(i32.or(i32.or(rights.get, i32.const(VMX_AR_UNUSABLE)), present)));
      });
      if (n === SS) {
        const cpl = i32.shl(state32(CPL_AT), i32.const(5));
        f.do(rights.set(i32.or(i32.and(rights.get, i32.const(~0x60)), cpl)));
      }
      f.do(i32.store(block, ar, rights.get));
    }
    f.do(i32.store(block, F.VMCS_GUEST_SYSENTER_CS, state32(SYSENTER_CS_AT)));
    const exit = f.i32(i32.load(block, F.VMCS_VM_EXIT_CONTROLS));
    const wants = (control: number) => i32.and(exit.get, i32.const(control));
    f.if(wants(VM_EXIT_SAVE_DEBUG_CONTROLS), () =>
      f.do(
        i64.store(block, F.VMCS_GUEST_DR7, state64(DR_AT + 56)),
        i64.store(block, F.VMCS_GUEST_IA32_DEBUGCTL, state64(DBGCTL_AT)),
      ),
    );
    f.if(wants(VM_EXIT_SAVE_IA32_PAT), () => f.do(i64.store(block, F.VMCS_GUEST_IA32_PAT, state64(PAT_AT))));
    f.if(wants(VM_EXIT_SAVE_IA32_EFER), () => f.do(i64.store(block, F.VMCS_GUEST_IA32_EFER, state64(EFER_AT))));
    f.if(f.param32(1).get, () => {
      for (const [to, from] of PDPTES) f.do(i64.store(block, to, state64(from)));
    });
    f.do(i64.store(block, F.VMCS_GUEST_RFLAGS, i64.extendU(f.param32(2).get)));
    // IA-32e mode guest follows EFER.LMA on processors with unrestricted guests.
    const others = i32.and(i32.load(block, F.VMCS_VM_ENTRY_CONTROLS), i32.const(~VM_ENTRY_IA32E_MODE));
    const long = i32.and(state32(EFER_AT), i32.const(EFER_LMA));
    const bit = i32.select(long, i32.const(VM_ENTRY_IA32E_MODE), i32.const(0));
    f.do(i32.store(block, F.VMCS_VM_ENTRY_CONTROLS, i32.or(others, bit)));
  });
}

/** The functions that VM entries and exits call. */
export interface VmcsSwitch {
  /** Whether the fields of the VMCS at a physical address are those that `remember` saw. */
  known(vmcsPa: number): number;
  remember(vmcsPa: number): void;
  load(vmcsPa: number, ept: number): void;
  store(vmcsPa: number, ept: number, rflags: number): void;
}

/** Adds them to the module. */
export function defineVmcsSwitch(m: ModuleBuilder): void {
  m.export('vmcsKnown', defineVmcsKnown(m));
  m.export('vmcsRemember', defineVmcsRemember(m));
  m.export('vmcsLoad', defineLoadVmcs(m));
  m.export('vmcsStore', defineStoreVmcs(m));
}

/** Finds them among the module's exports. */
export function vmcsSwitch(exports: WebAssembly.Instance['exports']): VmcsSwitch {
  return {
    known: exports['vmcsKnown'] as VmcsSwitch['known'],
    remember: exports['vmcsRemember'] as VmcsSwitch['remember'],
    load: exports['vmcsLoad'] as VmcsSwitch['load'],
    store: exports['vmcsStore'] as VmcsSwitch['store'],
  };
}
