import { describe, expect, it } from 'vitest';
import * as M from '../../../arch/msr.ts';
import { VMCS_FIELDS as E } from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import * as R from '../../../arch/vmx-exit-reasons.ts';
import { CODE, makeGuest, mov, type TestGuest } from '../../x86/guest.testing.ts';
import { NestedVmxMsrs, setVmxMsr } from './nested-msrs.ts';
import { Vmcs12 } from './vmcs12.ts';
import { VMCS12_FIELDS, VMCS12_REVISION, VMCS12_SIZE, vmcs12Field } from './vmcs12-layout.ts';

const HEADER = 128;
const L2_CODE = 0x9000;
const VMXON_PA = 0x1a000;
const VMCS12_PA = 0x1b000;
const BITMAPS = 0x1c000;
const EPT = 0x10000;
const L1_PAGES = 0x14000;
const HLT = 0xf4;
const RWX = 7;
const MT_WB = 6 << 3;
const LARGE = 0x80;

type Fields = Partial<Record<keyof typeof E, number | bigint>>;

const little = (value: bigint, size: number): number[] =>
  Array.from({ length: size }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn));

/** The bytes of a VMCS in L1's memory. */
function vmcs12(fields: Fields): number[] {
  const bytes = new Array<number>(VMCS12_SIZE).fill(0);
  bytes.splice(0, 4, ...little(BigInt(VMCS12_REVISION), 4));
  for (const { name, at, size } of VMCS12_FIELDS) {
    const value = fields[name];
    if (value !== undefined) bytes.splice(at, size, ...little(BigInt.asUintN(64, BigInt(value)), size));
  }
  return bytes;
}

const FLAT = { AR: 0xc093, LIMIT: 0xffffffff };

/** L2 in flat 32-bit protected mode without paging on an identity EPT; L1 goes on at CODE, a HLT. */
function base(): Fields {
  const out: Fields = {
    PIN_BASED_VM_EXEC_CONTROL: C.PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR,
    CPU_BASED_VM_EXEC_CONTROL: (0x04006172 | C.CPU_BASED_HLT_EXITING | C.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS) >>> 0,
    SECONDARY_VM_EXEC_CONTROL: C.SECONDARY_EXEC_ENABLE_EPT | C.SECONDARY_EXEC_UNRESTRICTED_GUEST,
    VM_ENTRY_CONTROLS: 0x11fb,
    VM_EXIT_CONTROLS: 0x36dfb,
    EPT_POINTER: EPT | C.VMX_EPTP_PWL_4 | C.VMX_EPTP_MT_WB | C.VMX_EPTP_AD_ENABLE_BIT,
    VMCS_LINK_POINTER: -1n,
    GUEST_CR0: 0x31,
    GUEST_CR4: 0x2000,
    GUEST_RFLAGS: 2,
    GUEST_RIP: L2_CODE,
    GUEST_RSP: 0x8800,
    GUEST_DR7: 0x400,
    GUEST_CS_AR_BYTES: 0xc09b,
    GUEST_TR_AR_BYTES: 0x8b,
    GUEST_TR_LIMIT: 0x67,
    GUEST_LDTR_AR_BYTES: C.VMX_AR_UNUSABLE,
    HOST_CR0: 0x80000031n,
    HOST_CR3: L1_PAGES,
    HOST_CR4: 0x2010,
    HOST_RIP: CODE,
    HOST_RSP: 0x8000,
    HOST_CS_SELECTOR: 8,
    HOST_SS_SELECTOR: 16,
    HOST_DS_SELECTOR: 16,
    HOST_ES_SELECTOR: 16,
    HOST_TR_SELECTOR: 24,
    MSR_BITMAP: BITMAPS,
    IO_BITMAP_A: BITMAPS,
    IO_BITMAP_B: BITMAPS,
    GUEST_CS_LIMIT: FLAT.LIMIT,
  };
  for (const name of ['SS', 'DS', 'ES', 'FS', 'GS'] as const) {
    out[`GUEST_${name}_AR_BYTES`] = FLAT.AR;
    out[`GUEST_${name}_LIMIT`] = FLAT.LIMIT;
  }
  return out;
}

function stateOf(flags: number, vmxonPa: bigint, vmcs12Pa: bigint, data: readonly number[]): Uint8Array {
  const state = new Uint8Array(HEADER + data.length);
  const view = new DataView(state.buffer);
  view.setUint16(0, flags, true);
  view.setUint32(4, state.length, true);
  view.setBigUint64(8, vmxonPa, true);
  view.setBigUint64(16, vmcs12Pa, true);
  state.set(data, HEADER);
  return state;
}

const GUEST_MODE = 1;
const RUN_PENDING = 2;

/** A vCPU whose L1 has paging and VMX on, with EPT tables and zeroed bitmaps in its memory. */
function makeL1(l2: readonly number[], leaf = RWX | MT_WB | LARGE): TestGuest {
  const g = makeGuest([HLT], { hardware: 'silicon-skylake' });
  g.poke(L2_CODE, l2);
  g.poke(L1_PAGES, little(0x83n, 4));
  g.poke(EPT, little(BigInt(EPT + 0x1000 + RWX), 8));
  g.poke(EPT + 0x1000, little(BigInt(EPT + 0x2000 + RWX), 8));
  g.poke(EPT + 0x2000, little(BigInt(leaf), 8));
  const sregs = g.vcpu.getSregs();
  sregs.cr3 = BigInt(L1_PAGES);
  sregs.cr4 = 0x2010n;
  sregs.cr0 = 0x80000031n;
  g.vcpu.setSregs(sregs);
  g.vcpu.setMsrs([{ index: M.MSR_IA32_FEAT_CTL, data: 5n }]);
  return g;
}

/** Runs L2 until L1 has its exit and halts; what L1's VMCS says then. */
function exitOf(g: TestGuest, fields: Fields = {}): (name: keyof typeof E) => number {
  const data = vmcs12({ ...base(), ...fields });
  g.vcpu.setNestedState(stateOf(GUEST_MODE | RUN_PENDING, BigInt(VMXON_PA), BigInt(VMCS12_PA), data));
  expect(g.vcpu.run({ maxExits: 200 }).exit?.reason).toBe('hlt');
  expect(g.vcpu.getRegs().rip).toBe(BigInt(CODE + 1));
  const state = g.vcpu.getNestedState(HEADER + VMCS12_SIZE);
  const v = new Vmcs12();
  v.load(state.subarray(HEADER));
  return (name) => v.lo(vmcs12Field(E[name])!.offset);
}

describe('an exit of L2 goes to L1:', () => {
  it('CPUID, with the length of the instruction', () => {
    const field = exitOf(makeL1([0x90, 0x0f, 0xa2]));
    expect(field('VM_EXIT_REASON')).toBe(R.EXIT_REASON_CPUID);
    expect(field('VM_EXIT_INSTRUCTION_LEN')).toBe(2);
    expect(field('GUEST_RIP')).toBe(L2_CODE + 1);
  });

  it('a violation of L1s EPT, and what it says', () => {
    // mov [0x5678], eax
    const field = exitOf(makeL1([0xa3, 0x78, 0x56, 0, 0], 5 | MT_WB | LARGE));
    expect(field('VM_EXIT_REASON')).toBe(R.EXIT_REASON_EPT_VIOLATION);
    expect(field('EXIT_QUALIFICATION') & 0x1bf).toBe(0x1aa);
    expect(field('GUEST_PHYSICAL_ADDRESS')).toBe(0x5678);
    expect(field('GUEST_LINEAR_ADDRESS')).toBe(0x5678);
  });

  it('a misconfiguration: writable and not readable', () => {
    const field = exitOf(makeL1([HLT], 2 | MT_WB | LARGE));
    expect(field('VM_EXIT_REASON')).toBe(R.EXIT_REASON_EPT_MISCONFIG);
    expect(field('EXIT_QUALIFICATION')).toBe(0);
    expect(field('GUEST_PHYSICAL_ADDRESS')).toBe(L2_CODE);
  });

  it('accessed and dirty bits are set in L1s tables where L1 asks for them', () => {
    const g = makeL1([0xa3, 0x78, 0x56, 0, 0, HLT]);
    expect(exitOf(g)('VM_EXIT_REASON')).toBe(R.EXIT_REASON_HLT);
    expect(g.peek(EPT + 0x2000, 2)[1]! & 3).toBe(3);
    const without = makeL1([0xa3, 0x78, 0x56, 0, 0, HLT]);
    exitOf(without, { EPT_POINTER: EPT | C.VMX_EPTP_PWL_4 | C.VMX_EPTP_MT_WB });
    expect(without.peek(EPT + 0x2000, 2)[1]! & 3).toBe(0);
  });

  it('an MSR that L1s bitmap has, and no other', () => {
    const code = [...mov(1, M.MSR_IA32_SYSENTER_CS), 0x0f, 0x32, HLT];
    const bits = C.CPU_BASED_USE_MSR_BITMAPS;
    const controls = { CPU_BASED_VM_EXEC_CONTROL: (Number(base().CPU_BASED_VM_EXEC_CONTROL) | bits) >>> 0 };
    expect(exitOf(makeL1(code), controls)('VM_EXIT_REASON')).toBe(R.EXIT_REASON_HLT);
    const g = makeL1(code);
    g.poke(BITMAPS + (M.MSR_IA32_SYSENTER_CS >> 3), [1 << (M.MSR_IA32_SYSENTER_CS & 7)]);
    expect(exitOf(g, controls)('VM_EXIT_REASON')).toBe(R.EXIT_REASON_MSR_READ);
  });

  it('the preemption timer', () => {
    const field = exitOf(makeL1([0xeb, 0xfe]), {
      PIN_BASED_VM_EXEC_CONTROL: C.PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR | C.PIN_BASED_VMX_PREEMPTION_TIMER,
      VMX_PREEMPTION_TIMER_VALUE: 10,
    });
    expect(field('VM_EXIT_REASON')).toBe(R.EXIT_REASON_PREEMPTION_TIMER);
  });

  it('the monitor trap flag, after every instruction', () => {
    const controls = (Number(base().CPU_BASED_VM_EXEC_CONTROL) | C.CPU_BASED_MONITOR_TRAP_FLAG) >>> 0;
    const field = exitOf(makeL1([0x40, 0x40]), { CPU_BASED_VM_EXEC_CONTROL: controls });
    expect(field('VM_EXIT_REASON')).toBe(R.EXIT_REASON_MONITOR_TRAP_FLAG);
    expect(field('GUEST_RIP')).toBe(L2_CODE + 1);
  });

  it('pending debug exceptions trap before the first instruction', () => {
    const field = exitOf(makeL1([HLT]), { EXCEPTION_BITMAP: 2, GUEST_PENDING_DBG_EXCEPTIONS: 0x4000 });
    expect(field('VM_EXIT_REASON')).toBe(R.EXIT_REASON_EXCEPTION_NMI);
    expect(field('EXIT_QUALIFICATION')).toBe(0x4000);
  });

  it('an entry that the processor refuses', () => {
    const field = exitOf(makeL1([HLT]), { GUEST_CS_AR_BYTES: 0xc093 | 0x100 });
    expect(field('VM_EXIT_REASON')).toBe(R.EXIT_REASON_INVALID_STATE | R.VMX_EXIT_REASONS_FAILED_VMENTRY);
    expect(field('EXIT_QUALIFICATION')).toBe(C.ENTRY_FAIL_DEFAULT);
  });
});

describe('nested state', () => {
  const none = 0xffff_ffff_ffff_ffffn;

  it('outside VMX operation is a header', () => {
    const g = makeL1([HLT]);
    const state = g.vcpu.getNestedState(HEADER);
    expect(new DataView(state.buffer, state.byteOffset).getBigUint64(8, true)).toBe(none);
  });

  it.each([
    ['a VMCS without VMXON', stateOf(0, none, BigInt(VMCS12_PA), vmcs12(base()))],
    ['a VMXON region that is not a page', stateOf(0, 0x1234n, none, [])],
    ['guest mode without a VMCS', stateOf(GUEST_MODE, BigInt(VMXON_PA), none, [])],
    ['the VMXON region as VMCS', stateOf(0, BigInt(VMXON_PA), BigInt(VMXON_PA), vmcs12(base()))],
    ['another revision', stateOf(0, BigInt(VMXON_PA), BigInt(VMCS12_PA), new Array(VMCS12_SIZE).fill(0))],
    [
      'controls that KVM does not offer',
      stateOf(GUEST_MODE, BigInt(VMXON_PA), BigInt(VMCS12_PA), vmcs12({ ...base(), PIN_BASED_VM_EXEC_CONTROL: 0 })),
    ],
  ])('refuses %s', (_, state) => {
    expect(() => makeL1([HLT]).vcpu.setNestedState(state)).toThrow(/EINVAL/);
  });

  it('comes back as it was set', () => {
    const g = makeL1([HLT]);
    const data = vmcs12(base());
    g.vcpu.setNestedState(stateOf(0, BigInt(VMXON_PA), BigInt(VMCS12_PA), data));
    expect([...g.vcpu.getNestedState(HEADER + VMCS12_SIZE).subarray(HEADER)]).toEqual(data);
  });
});

describe('instructions of L1', () => {
  /** vmxon [0x6000] */
  const VMXON = [0xf3, 0x0f, 0xc7, 0x35, 0, 0x60, 0, 0];
  /** xor eax, eax, so that flags are clear; then the instruction, LAHF and HLT. */
  const flagsAfter = (code: readonly number[], region: number): number => {
    const g = makeL1([HLT]);
    g.poke(CODE, [0x31, 0xc0, ...code, 0x9f, HLT]);
    g.poke(0x6000, little(BigInt(VMXON_PA), 8));
    g.poke(VMXON_PA, little(BigInt(region), 4));
    g.vcpu.run({ maxExits: 100 });
    return Number((g.vcpu.getRegs().rax >> 8n) & 0x41n);
  };

  it('VMXON succeeds with the revision that the capability MSR names, and fails with another', () => {
    expect(flagsAfter(VMXON, VMCS12_REVISION)).toBe(0);
    expect(flagsAfter(VMXON, VMCS12_REVISION + 1)).toBe(1);
  });

  it('VMPTRLD of the VMXON region fails without a VMCS to say why', () => {
    expect(flagsAfter([...VMXON, 0x0f, 0xc7, 0x35, 0, 0x60, 0, 0], VMCS12_REVISION)).toBe(1);
  });

  it('are #UD without CR4.VMXE', () => {
    const g = makeGuest([...VMXON, HLT], { hardware: 'silicon-skylake' });
    g.vcpu.run();
    expect(g.vcpu.getRegs().rsi).toBe(6n);
  });
});

describe('what KVM offers of VMX', () => {
  const g = makeL1([HLT]);
  const read = (index: number): bigint => {
    const entry = { index, data: 0n };
    expect(g.vcpu.getMsrs([entry])).toBe(1);
    return entry.data;
  };

  it('names its own VMCS format', () => {
    expect(Number(read(M.MSR_IA32_VMX_BASIC) & 0xffffffffn)).toBe(VMCS12_REVISION);
  });

  it('can be made less by userspace, never more', () => {
    const kvm = new NestedVmxMsrs();
    kvm.set(M.MSR_IA32_VMX_PROCBASED_CTLS2, 0, 0b110);
    const msrs = new NestedVmxMsrs();
    msrs.copy(kvm);
    expect(setVmxMsr(kvm, msrs, M.MSR_IA32_VMX_PROCBASED_CTLS2, 0, 0b010)).toBe(true);
    expect(msrs.has2(0b100)).toBe(false);
    expect(setVmxMsr(kvm, msrs, M.MSR_IA32_VMX_PROCBASED_CTLS2, 0, 0b1000)).toBe(false);
    expect(setVmxMsr(kvm, msrs, M.MSR_IA32_VMX_PINBASED_CTLS, 0, 0)).toBe(false);
  });

  it('lays a VMCS out as the kernel does', () => {
    const at = (name: keyof typeof E): number => VMCS12_FIELDS.find((field) => field.name === name)!.at;
    expect([at('IO_BITMAP_A'), at('EPT_POINTER'), at('GUEST_CR0')]).toEqual([40, 120, 424]);
    expect([at('PIN_BASED_VM_EXEC_CONTROL'), at('VIRTUAL_PROCESSOR_ID'), at('GUEST_PML_INDEX')]).toEqual([
      744, 960, 996,
    ]);
  });
});
