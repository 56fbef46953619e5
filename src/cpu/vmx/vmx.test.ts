import { beforeEach, describe, expect, it } from 'vitest';
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import * as R from '../../arch/vmx-exit-reasons.ts';
import { PhysicalMemory } from '../../host/physical-memory.ts';
import { Processor } from '../processor.ts';
import { siliconEpyc } from '../profiles/silicon-epyc.ts';
import { siliconSkylake } from '../profiles/silicon-skylake.ts';

const VMXON = 0x3100000;
const VMCS = 0x3101000;
const MSR_BITMAP = 0x3102000;
const VIRTUAL_APIC = 0x3103000;
const EPT_ROOT = 0x3110000;
/** Guest memory, 2 MiB from gpa 0. */
const GUEST = 0x3200000;
const CODE = 0x1000;

/** One guest in real mode, unrestricted, without any hypervisor. */
class BareVmx {
  readonly memory = new PhysicalMemory(64 * 1024 * 1024);
  readonly processor = new Processor(this.memory, siliconSkylake);
  readonly vmx = this.processor.vmx;

  constructor(...code: number[]) {
    const { i32 } = this.memory;
    i32[VMXON >> 2] = F.VMCS_REVISION;
    i32[VMCS >> 2] = F.VMCS_REVISION;
    i32[EPT_ROOT >> 2] = (EPT_ROOT + 0x1000) | 7;
    i32[(EPT_ROOT + 0x1000) >> 2] = (EPT_ROOT + 0x2000) | 7;
    i32[(EPT_ROOT + 0x2000) >> 2] = GUEST | 0xb7;
    this.memory.u8.fill(0xff, MSR_BITMAP, MSR_BITMAP + 4096);
    this.memory.u8.set(code, GUEST + CODE);
    expect(this.vmx.vmxon(VMXON)).toBe(C.VM_SUCCEED);
    expect(this.vmx.vmclear(VMCS)).toBe(C.VM_SUCCEED);
    expect(this.vmx.vmptrld(VMCS)).toBe(C.VM_SUCCEED);
    const { capabilities } = this.vmx;
    const { pin, primary, entry, exit } = capabilities;
    this.write('PIN_BASED_VM_EXEC_CONTROL', pin.must | C.PIN_BASED_EXT_INTR_MASK | C.PIN_BASED_NMI_EXITING);
    this.primary = primary.must | C.CPU_BASED_HLT_EXITING | C.CPU_BASED_UNCOND_IO_EXITING;
    this.primary |= C.CPU_BASED_USE_MSR_BITMAPS | C.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS;
    this.write('SECONDARY_VM_EXEC_CONTROL', C.SECONDARY_EXEC_ENABLE_EPT | C.SECONDARY_EXEC_UNRESTRICTED_GUEST);
    this.write('VM_ENTRY_CONTROLS', entry.must);
    this.write('VM_EXIT_CONTROLS', exit.must | C.VM_EXIT_HOST_ADDR_SPACE_SIZE);
    this.write('MSR_BITMAP', MSR_BITMAP);
    this.write('EPT_POINTER', EPT_ROOT | C.VMX_EPTP_MT_WB | C.VMX_EPTP_PWL_4 | C.VMX_EPTP_AD_ENABLE_BIT);
    this.write('VMCS_LINK_POINTER', -1, -1);
    this.write('GUEST_CR0', 0x30);
    this.write('GUEST_CR4', 1 << 13);
    this.write('GUEST_RFLAGS', 2);
    this.write('GUEST_RIP', CODE);
    this.write('GUEST_RSP', 0x8000);
    this.write('GUEST_IDTR_LIMIT', 0x3ff);
    for (const segment of ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'] as const) {
      this.write(`GUEST_${segment}_LIMIT`, 0xffff);
      this.write(`GUEST_${segment}_AR_BYTES`, segment === 'CS' ? 0x9b : 0x93);
    }
    this.write('GUEST_TR_AR_BYTES', 0x8b);
    this.write('GUEST_LDTR_AR_BYTES', 0x10000);
  }

  set primary(value: number) {
    this.write('CPU_BASED_VM_EXEC_CONTROL', value);
  }

  get primary(): number {
    return this.read('CPU_BASED_VM_EXEC_CONTROL');
  }

  write(field: keyof typeof F.VMCS_FIELDS, lo: number, hi = 0): void {
    expect(this.vmx.vmwrite(F.VMCS_FIELDS[field], lo, hi)).toBe(C.VM_SUCCEED);
  }

  read(field: keyof typeof F.VMCS_FIELDS): number {
    const out = new Int32Array(2);
    expect(this.vmx.vmread(F.VMCS_FIELDS[field], out)).toBe(C.VM_SUCCEED);
    return out[0]!;
  }

  /** Enters; what the exit says. */
  run(launch = true, budget = 1000): { reason: number; qualification: number; length: number; rip: number } {
    this.processor.setBudget(budget);
    expect(this.vmx.enter(launch)).toBe(C.VM_SUCCEED);
    return {
      reason: this.read('VM_EXIT_REASON'),
      qualification: this.read('EXIT_QUALIFICATION'),
      length: this.read('VM_EXIT_INSTRUCTION_LEN'),
      rip: this.read('GUEST_RIP'),
    };
  }

  error(launch = true): number {
    expect(this.vmx.enter(launch)).toBe(C.VM_FAIL_VALID);
    return this.read('VM_INSTRUCTION_ERROR');
  }
}

describe('fields that a first entry has found to be good', () => {
  const HLT = 0xf4;

  it('are checked again when they have changed, controls and state', () => {
    const m = new BareVmx(HLT, HLT, HLT);
    expect(m.run().reason).toBe(R.EXIT_REASON_HLT);
    m.write('GUEST_RIP', CODE + 1);
    expect(m.run(false)).toMatchObject({ reason: R.EXIT_REASON_HLT, rip: CODE + 1 });
    m.write('EPT_POINTER', EPT_ROOT | 3);
    expect(m.error(false)).toBe(7);
    m.write('EPT_POINTER', EPT_ROOT | C.VMX_EPTP_MT_WB | C.VMX_EPTP_PWL_4 | C.VMX_EPTP_AD_ENABLE_BIT);
    m.write('GUEST_CR4', 0);
    const failed = R.EXIT_REASON_INVALID_STATE | R.VMX_EXIT_REASONS_FAILED_VMENTRY;
    expect(m.run(false).reason).toBe(failed);
    m.write('GUEST_CR4', 1 << 13);
    m.write('GUEST_RFLAGS', 0);
    expect(m.run(false).reason).toBe(failed);
    m.write('GUEST_RFLAGS', 2);
    expect(m.run(false).reason).toBe(R.EXIT_REASON_HLT);
    m.write('GUEST_CS_AR_BYTES', 0x13);
    expect(m.run(false).reason).toBe(failed);
  });
});

describe('the instructions that manage a VMCS', () => {
  it('are not there on AMD', () => {
    const memory = new PhysicalMemory(64 * 1024 * 1024);
    memory.i32[VMXON >> 2] = F.VMCS_REVISION;
    expect(new Processor(memory, siliconEpyc).vmx.vmxon(VMXON)).toBe(C.VM_FAIL_INVALID);
  });

  it('want a region of the right revision, and a VMCS to be current', () => {
    const { vmx, memory } = new BareVmx();
    memory.i32[0x3105000 >> 2] = 1;
    expect(vmx.vmptrld(0x3105000)).toBe(C.VM_FAIL_VALID);
    expect(vmx.vmptrld(0x3105001)).toBe(C.VM_FAIL_VALID);
    expect(vmx.vmclear(VMCS)).toBe(C.VM_SUCCEED);
    expect(vmx.enter(true)).toBe(C.VM_FAIL_INVALID);
    expect(vmx.vmread(F.VMCS_FIELDS.GUEST_RIP, new Int32Array(2))).toBe(C.VM_FAIL_INVALID);
    expect(vmx.vmxoff()).toBe(C.VM_SUCCEED);
    expect(vmx.vmptrld(VMCS)).toBe(C.VM_FAIL_INVALID);
  });

  it('know fields by width, and which are read-only', () => {
    const m = new BareVmx();
    m.write('GUEST_PML_INDEX', 0x12345);
    expect(m.read('GUEST_PML_INDEX')).toBe(0x2345);
    const out = new Int32Array(2);
    m.write('TSC_OFFSET', 1, 2);
    expect(m.vmx.vmread(F.VMCS_FIELDS.TSC_OFFSET + 1, out)).toBe(C.VM_SUCCEED);
    expect([...out]).toEqual([2, 0]);
    expect(m.vmx.vmwrite(F.VMCS_FIELDS.VM_EXIT_REASON, 1, 0)).toBe(C.VM_FAIL_VALID);
    expect(m.read('VM_INSTRUCTION_ERROR')).toBe(13);
    expect(m.vmx.vmread(0x4424, out)).toBe(C.VM_FAIL_VALID);
    expect(m.read('VM_INSTRUCTION_ERROR')).toBe(12);
  });
});

describe('VM entry', () => {
  it('launches what is clear and resumes what was launched', () => {
    const m = new BareVmx(0xf4);
    expect(m.error(false)).toBe(5);
    expect(m.run().reason).toBe(R.EXIT_REASON_HLT);
    expect(m.error(true)).toBe(4);
    expect(m.run(false).reason).toBe(R.EXIT_REASON_HLT);
  });

  it.each([
    ['a control that is not offered', 'CPU_BASED_VM_EXEC_CONTROL', 0],
    ['an EPT pointer of five levels', 'EPT_POINTER', EPT_ROOT | C.VMX_EPTP_MT_WB | C.VMX_EPTP_PWL_5],
    ['a bitmap that is not aligned', 'MSR_BITMAP', MSR_BITMAP + 8],
    ['an event of a type that is not', 'VM_ENTRY_INTR_INFO_FIELD', C.INTR_INFO_VALID_MASK | (1 << 8)],
    ['an error code in real mode', 'VM_ENTRY_INTR_INFO_FIELD', C.INTR_INFO_VALID_MASK | (3 << 8) | (1 << 11) | 13],
  ] as const)('refuses %s', (_, field, value) => {
    const m = new BareVmx(0xf4);
    m.write(field, value);
    expect(m.error()).toBe(7);
  });

  it.each([
    ['CR0.PG without PE', 'GUEST_CR0', 0x80000030 | 0],
    ['CR4 without VMXE', 'GUEST_CR4', 0],
    ['RFLAGS without bit 1', 'GUEST_RFLAGS', 0],
    ['a TR that is no busy TSS', 'GUEST_TR_AR_BYTES', 0x89],
    ['a code segment that was not accessed', 'GUEST_CS_AR_BYTES', 0x9a],
    ['STI blocking with interrupts off', 'GUEST_INTERRUPTIBILITY_INFO', C.GUEST_INTR_STATE_STI],
  ] as const)('fails for %s, with an exit', (_, field, value) => {
    const m = new BareVmx(0xf4);
    m.write(field, value);
    expect(m.run().reason).toBe(R.EXIT_REASON_INVALID_STATE | R.VMX_EXIT_REASONS_FAILED_VMENTRY);
  });
});

describe('VM exits', () => {
  it.each([
    ['HLT', [0xf4], R.EXIT_REASON_HLT, 0, 1],
    ['CPUID', [0x0f, 0xa2], R.EXIT_REASON_CPUID, 0, 2],
    ['OUT with an immediate', [0xe6, 0x80], R.EXIT_REASON_IO_INSTRUCTION, 0x800040, 2],
    ['REP OUTSB', [0xf3, 0x6e], R.EXIT_REASON_IO_INSTRUCTION, 0x30, 2],
    ['INSW', [0x6d], R.EXIT_REASON_IO_INSTRUCTION, 0x19, 1],
    ['RDMSR', [0x0f, 0x32], R.EXIT_REASON_MSR_READ, 0, 2],
    ['WRMSR', [0x0f, 0x30], R.EXIT_REASON_MSR_WRITE, 0, 2],
    ['VMCALL', [0x0f, 0x01, 0xc1], R.EXIT_REASON_VMCALL, 0, 3],
    ['INVD', [0x0f, 0x08], R.EXIT_REASON_INVD, 0, 2],
  ] as const)('of %s', (_, code, reason, qualification, length) => {
    const m = new BareVmx(...code);
    expect(m.run()).toEqual({ reason, qualification, length, rip: CODE });
  });

  it('happen for the bits of CR0 that the host owns, and reads show the shadow', () => {
    // mov eax, cr0; mov bx, ax; xor al, 2; mov cr0, eax (the guest's bit); xor al, 1; mov cr0, eax
    const m = new BareVmx(0x0f, 0x20, 0xc0, 0x89, 0xc3, 0x34, 2, 0x0f, 0x22, 0xc0, 0x34, 1, 0x0f, 0x22, 0xc0);
    m.write('CR0_GUEST_HOST_MASK', ~2, -1);
    m.write('CR0_READ_SHADOW', 0x60000010);
    expect(m.run()).toEqual({ reason: R.EXIT_REASON_CR_ACCESS, qualification: 0, length: 3, rip: CODE + 12 });
    expect(m.processor.gpr[2 * 3]! & 0xffff).toBe(0x10);
    expect(m.read('GUEST_CR0')).toBe(0x32);
  });

  it('of EPT violations name the access and the address, with RF in the saved flags', () => {
    // mov ax, [0x8000] with DS beyond what is mapped
    const m = new BareVmx(0xa1, 0x00, 0x80);
    m.write('GUEST_DS_BASE', 0x200000);
    m.write('GUEST_DS_SELECTOR', 0);
    expect(m.run()).toMatchObject({ reason: R.EXIT_REASON_EPT_VIOLATION, qualification: 0x781, rip: CODE });
    expect(m.read('GUEST_PHYSICAL_ADDRESS')).toBe(0x208000);
    expect(m.read('GUEST_LINEAR_ADDRESS')).toBe(0x208000);
    expect(m.read('GUEST_RFLAGS') & 0x10000).not.toBe(0);
  });

  it('during the delivery of an event say which one it was', () => {
    const m = new BareVmx(0xf4);
    m.write('GUEST_SS_BASE', 0x200000);
    m.write('VM_ENTRY_INTR_INFO_FIELD', C.INTR_INFO_VALID_MASK | C.INTR_TYPE_SOFT_INTR | 0x40);
    m.write('VM_ENTRY_INSTRUCTION_LEN', 2);
    expect(m.run()).toMatchObject({ reason: R.EXIT_REASON_EPT_VIOLATION, length: 2, rip: CODE });
    expect(m.read('IDT_VECTORING_INFO_FIELD')).toBe(C.INTR_INFO_VALID_MASK | C.INTR_TYPE_SOFT_INTR | 0x40);
    expect(m.read('VM_ENTRY_INTR_INFO_FIELD') & C.INTR_INFO_VALID_MASK).toBe(0);
  });

  it('end an injection on the handler, with the return address behind the instruction', () => {
    const m = new BareVmx(0xcd, 0x40, 0x90);
    m.memory.u8.set([0x00, 0x20, 0, 0], GUEST + 0x40 * 4);
    m.memory.u8[GUEST + 0x2000] = 0xf4;
    m.write('VM_ENTRY_INTR_INFO_FIELD', C.INTR_INFO_VALID_MASK | C.INTR_TYPE_SOFT_INTR | 0x40);
    m.write('VM_ENTRY_INSTRUCTION_LEN', 2);
    expect(m.run()).toMatchObject({ reason: R.EXIT_REASON_HLT, rip: 0x2000 });
    expect(m.memory.u8[GUEST + 0x7ffa]).toBe(2);
  });

  it('of #UD and #DB come with interruption information and what DR6 would get', () => {
    const m = new BareVmx(0x90, 0x0f, 0x0b);
    m.write('EXCEPTION_BITMAP', (1 << 6) | (1 << 1));
    m.write('GUEST_RFLAGS', 0x102);
    expect(m.run()).toMatchObject({ reason: R.EXIT_REASON_EXCEPTION_NMI, qualification: 0x4000, rip: CODE + 1 });
    m.write('GUEST_RFLAGS', 2);
    expect(m.run(false)).toMatchObject({ reason: R.EXIT_REASON_EXCEPTION_NMI, qualification: 0, rip: CODE + 1 });
    expect(m.read('VM_EXIT_INTR_INFO')).toBe(C.INTR_INFO_VALID_MASK | C.INTR_TYPE_HARD_EXCEPTION | 6);
  });

  it('of a triple fault leave the guest as it was', () => {
    const m = new BareVmx(0x0f, 0x0b);
    m.write('GUEST_IDTR_LIMIT', 0);
    expect(m.run()).toMatchObject({ reason: R.EXIT_REASON_TRIPLE_FAULT, rip: CODE });
    expect(m.read('IDT_VECTORING_INFO_FIELD')).toBe(0);
  });
});

describe('windows', () => {
  it('open when interrupts can be taken: one instruction behind STI', () => {
    const m = new BareVmx(0xfb, 0x90, 0xf4);
    m.primary |= C.CPU_BASED_INTR_WINDOW_EXITING;
    expect(m.run()).toMatchObject({ reason: R.EXIT_REASON_INTERRUPT_WINDOW, rip: CODE + 2, length: 0 });
  });

  it('for NMIs open with IRET', () => {
    const m = new BareVmx(0xcf, 0xf4);
    m.write('PIN_BASED_VM_EXEC_CONTROL', m.read('PIN_BASED_VM_EXEC_CONTROL') | C.PIN_BASED_VIRTUAL_NMIS);
    m.primary |= C.CPU_BASED_NMI_WINDOW_EXITING;
    m.write('GUEST_INTERRUPTIBILITY_INFO', C.GUEST_INTR_STATE_NMI);
    m.memory.u8.set([0x00, 0x30, 0, 0, 2, 0], GUEST + 0x8000);
    expect(m.run()).toMatchObject({ reason: R.EXIT_REASON_NMI_WINDOW, rip: 0x3000 });
  });

  it('end with the budget as an external interrupt', () => {
    const m = new BareVmx(0xeb, 0xfe);
    expect(m.run(true, 10)).toMatchObject({ reason: R.EXIT_REASON_EXTERNAL_INTERRUPT, rip: CODE });
  });
});

describe('APIC virtualization', () => {
  let m: BareVmx;
  beforeEach(() => {
    // mov eax, [0x20]; mov [0x20], eax
    m = new BareVmx(0x66, 0xa1, 0x20, 0x00, 0x66, 0xa3, 0x20, 0x00);
    m.write('GUEST_DS_BASE', 0x5000);
    m.write('APIC_ACCESS_ADDR', GUEST + 0x5000);
    m.write('VIRTUAL_APIC_PAGE_ADDR', VIRTUAL_APIC);
    m.memory.i32[(VIRTUAL_APIC + 0x20) >> 2] = 0x12345678;
    m.primary |= C.CPU_BASED_TPR_SHADOW;
  });

  it('exits for what it does not cover', () => {
    m.write(
      'SECONDARY_VM_EXEC_CONTROL',
      m.read('SECONDARY_VM_EXEC_CONTROL') | C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES,
    );
    expect(m.run()).toEqual({ reason: R.EXIT_REASON_APIC_ACCESS, qualification: 0x20, length: 4, rip: CODE });
  });

  it('reads registers from the virtual-APIC page', () => {
    const more = C.SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES | C.SECONDARY_EXEC_APIC_REGISTER_VIRT;
    m.write('SECONDARY_VM_EXEC_CONTROL', m.read('SECONDARY_VM_EXEC_CONTROL') | more);
    expect(m.run()).toEqual({ reason: R.EXIT_REASON_APIC_ACCESS, qualification: 0x1020, length: 4, rip: CODE + 4 });
    expect(m.processor.gpr[0]).toBe(0x12345678);
  });
});

it('a captured processor goes on where it was', () => {
  const m = new BareVmx(0xf4);
  const state = m.processor.capture();
  expect(m.run().reason).toBe(R.EXIT_REASON_HLT);
  m.vmx.vmclear(VMCS);
  m.processor.restore(state);
  expect(m.run().reason).toBe(R.EXIT_REASON_HLT);
});
