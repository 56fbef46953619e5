/**
 * How KVM lays a VMCS out in L1's memory (@kvm vmx/vmcs12.h struct vmcs12): the format that KVM_GET_NESTED_STATE hands out, and by whose
 * revision number L1 knows it. Inside KVM a cached copy has the processor's own layout (src/arch/vmcs.ts), so that one name of a field
 * serves the VMCS that L1 wrote and the one that runs L2; this table takes it from the one to the other.
 */
import { VMCS_FIELDS, vmcsOffset } from '../../../arch/vmcs.ts';

/** @kvm vmx/vmcs12.h VMCS12_REVISION, VMCS12_SIZE */
export const VMCS12_REVISION = 0x11e57ed0;
export const VMCS12_SIZE = 4096;
/** Bit 31 of the first word: the region is a shadow VMCS. */
export const VMCS12_SHADOW = 1 << 31;

type Name = keyof typeof VMCS_FIELDS;

/** Names of fields in the order of the structure; a number is so many bytes that nobody uses. */
const WIDE: readonly (Name | number)[] = [
  ...(['IO_BITMAP_A', 'IO_BITMAP_B', 'MSR_BITMAP', 'VM_EXIT_MSR_STORE_ADDR', 'VM_EXIT_MSR_LOAD_ADDR'] as const),
  ...(['VM_ENTRY_MSR_LOAD_ADDR', 'TSC_OFFSET', 'VIRTUAL_APIC_PAGE_ADDR', 'APIC_ACCESS_ADDR'] as const),
  ...(['POSTED_INTR_DESC_ADDR', 'EPT_POINTER', 'EOI_EXIT_BITMAP0', 'EOI_EXIT_BITMAP1', 'EOI_EXIT_BITMAP2'] as const),
  ...(['EOI_EXIT_BITMAP3', 'XSS_EXIT_BITMAP', 'GUEST_PHYSICAL_ADDRESS', 'VMCS_LINK_POINTER'] as const),
  ...(['GUEST_IA32_DEBUGCTL', 'GUEST_IA32_PAT', 'GUEST_IA32_EFER', 'GUEST_IA32_PERF_GLOBAL_CTRL'] as const),
  ...(['GUEST_PDPTR0', 'GUEST_PDPTR1', 'GUEST_PDPTR2', 'GUEST_PDPTR3', 'GUEST_BNDCFGS', 'HOST_IA32_PAT'] as const),
  ...(['HOST_IA32_EFER', 'HOST_IA32_PERF_GLOBAL_CTRL', 'VMREAD_BITMAP', 'VMWRITE_BITMAP'] as const),
  ...(['VM_FUNCTION_CONTROL', 'EPTP_LIST_ADDRESS', 'PML_ADDRESS', 'ENCLS_EXITING_BITMAP', 'TSC_MULTIPLIER'] as const),
  8,
  ...(['CR0_GUEST_HOST_MASK', 'CR4_GUEST_HOST_MASK', 'CR0_READ_SHADOW', 'CR4_READ_SHADOW'] as const),
  32,
  ...(['EXIT_QUALIFICATION', 'GUEST_LINEAR_ADDRESS', 'GUEST_CR0', 'GUEST_CR3', 'GUEST_CR4', 'GUEST_ES_BASE'] as const),
  ...([
    'GUEST_CS_BASE',
    'GUEST_SS_BASE',
    'GUEST_DS_BASE',
    'GUEST_FS_BASE',
    'GUEST_GS_BASE',
    'GUEST_LDTR_BASE',
  ] as const),
  ...(['GUEST_TR_BASE', 'GUEST_GDTR_BASE', 'GUEST_IDTR_BASE', 'GUEST_DR7', 'GUEST_RSP', 'GUEST_RIP'] as const),
  ...(['GUEST_RFLAGS', 'GUEST_PENDING_DBG_EXCEPTIONS', 'GUEST_SYSENTER_ESP', 'GUEST_SYSENTER_EIP'] as const),
  ...(['HOST_CR0', 'HOST_CR3', 'HOST_CR4', 'HOST_FS_BASE', 'HOST_GS_BASE', 'HOST_TR_BASE', 'HOST_GDTR_BASE'] as const),
  ...(['HOST_IDTR_BASE', 'HOST_IA32_SYSENTER_ESP', 'HOST_IA32_SYSENTER_EIP', 'HOST_RSP', 'HOST_RIP'] as const),
  64,
];
const WORDS: readonly (Name | number)[] = [
  ...(['PIN_BASED_VM_EXEC_CONTROL', 'CPU_BASED_VM_EXEC_CONTROL', 'EXCEPTION_BITMAP'] as const),
  ...(['PAGE_FAULT_ERROR_CODE_MASK', 'PAGE_FAULT_ERROR_CODE_MATCH', 'CR3_TARGET_COUNT', 'VM_EXIT_CONTROLS'] as const),
  ...(['VM_EXIT_MSR_STORE_COUNT', 'VM_EXIT_MSR_LOAD_COUNT', 'VM_ENTRY_CONTROLS', 'VM_ENTRY_MSR_LOAD_COUNT'] as const),
  ...(['VM_ENTRY_INTR_INFO_FIELD', 'VM_ENTRY_EXCEPTION_ERROR_CODE', 'VM_ENTRY_INSTRUCTION_LEN'] as const),
  ...(['TPR_THRESHOLD', 'SECONDARY_VM_EXEC_CONTROL', 'VM_INSTRUCTION_ERROR', 'VM_EXIT_REASON'] as const),
  ...(['VM_EXIT_INTR_INFO', 'VM_EXIT_INTR_ERROR_CODE', 'IDT_VECTORING_INFO_FIELD'] as const),
  ...(['IDT_VECTORING_ERROR_CODE', 'VM_EXIT_INSTRUCTION_LEN', 'VMX_INSTRUCTION_INFO', 'GUEST_ES_LIMIT'] as const),
  ...(['GUEST_CS_LIMIT', 'GUEST_SS_LIMIT', 'GUEST_DS_LIMIT', 'GUEST_FS_LIMIT', 'GUEST_GS_LIMIT'] as const),
  ...(['GUEST_LDTR_LIMIT', 'GUEST_TR_LIMIT', 'GUEST_GDTR_LIMIT', 'GUEST_IDTR_LIMIT', 'GUEST_ES_AR_BYTES'] as const),
  ...(['GUEST_CS_AR_BYTES', 'GUEST_SS_AR_BYTES', 'GUEST_DS_AR_BYTES', 'GUEST_FS_AR_BYTES'] as const),
  ...(['GUEST_GS_AR_BYTES', 'GUEST_LDTR_AR_BYTES', 'GUEST_TR_AR_BYTES', 'GUEST_INTERRUPTIBILITY_INFO'] as const),
  ...(['GUEST_ACTIVITY_STATE', 'GUEST_SYSENTER_CS', 'HOST_IA32_SYSENTER_CS', 'VMX_PREEMPTION_TIMER_VALUE'] as const),
  28,
];
const HALVES: readonly Name[] = [
  ...(['VIRTUAL_PROCESSOR_ID', 'POSTED_INTR_NV', 'GUEST_ES_SELECTOR', 'GUEST_CS_SELECTOR'] as const),
  ...(['GUEST_SS_SELECTOR', 'GUEST_DS_SELECTOR', 'GUEST_FS_SELECTOR', 'GUEST_GS_SELECTOR'] as const),
  ...(['GUEST_LDTR_SELECTOR', 'GUEST_TR_SELECTOR', 'GUEST_INTR_STATUS', 'HOST_ES_SELECTOR'] as const),
  ...(['HOST_CS_SELECTOR', 'HOST_SS_SELECTOR', 'HOST_DS_SELECTOR', 'HOST_FS_SELECTOR', 'HOST_GS_SELECTOR'] as const),
  ...(['HOST_TR_SELECTOR', 'GUEST_PML_INDEX'] as const),
];

/** Where a field lies in L1's memory, its size in bytes, and its place in the processor's layout. */
export interface Vmcs12Field {
  readonly name: Name;
  readonly encoding: number;
  readonly at: number;
  readonly size: number;
  readonly offset: number;
}

/** Revision, abort indicator, launch state, and room. */
const HEADER = 12 + 28;

function layOut(): Vmcs12Field[] {
  const out: Vmcs12Field[] = [];
  let at = HEADER;
  const add = (names: readonly (Name | number)[], size: number): void => {
    for (const name of names) {
      if (typeof name === 'number') {
        at += name;
        continue;
      }
      const encoding = VMCS_FIELDS[name];
      out.push({ name, encoding, at, size, offset: vmcsOffset(encoding) });
      at += size;
    }
  };
  add(WIDE, 8);
  add(WORDS, 4);
  add(HALVES, 2);
  return out;
}

/** Every field L1 may read, in the order of the structure. @kvm vmx/vmcs12.c vmcs12_field_offsets */
export const VMCS12_FIELDS: readonly Vmcs12Field[] = layOut();

const byEncoding: ReadonlyMap<number, Vmcs12Field> = new Map(
  VMCS12_FIELDS.flatMap((field) => {
    const high = ((field.encoding >>> 13) & 3) === 1;
    const entries: [number, Vmcs12Field][] = [[field.encoding, field]];
    if (high) entries.push([field.encoding | 1, field]);
    return entries;
  }),
);

/** The field with this encoding (a high half is that of its field), or null. @kvm vmx/vmcs12.h get_vmcs12_field_offset */
export function vmcs12Field(encoding: number): Vmcs12Field | null {
  return byEncoding.get(encoding) ?? null;
}

/** Largest index of a field, as IA32_VMX_VMCS_ENUM has it. @kvm nested.c nested_vmx_calc_vmcs_enum_msr */
export function vmcsEnumMsr(): number {
  return Math.max(...VMCS12_FIELDS.map(({ encoding }) => (encoding >>> 1) & 0x1ff)) << 1;
}
