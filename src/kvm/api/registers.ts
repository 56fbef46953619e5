/** Registers and events in the form of the API: 64-bit values are bigints, flags of segments are 0 or 1. */

/** struct kvm_regs */
export interface Regs {
  rax: bigint;
  rbx: bigint;
  rcx: bigint;
  rdx: bigint;
  rsi: bigint;
  rdi: bigint;
  rsp: bigint;
  rbp: bigint;
  r8: bigint;
  r9: bigint;
  r10: bigint;
  r11: bigint;
  r12: bigint;
  r13: bigint;
  r14: bigint;
  r15: bigint;
  rip: bigint;
  rflags: bigint;
}

/** struct kvm_segment; `limit` in bytes. */
export interface Segment {
  base: bigint;
  limit: number;
  selector: number;
  type: number;
  present: number;
  dpl: number;
  db: number;
  s: number;
  l: number;
  g: number;
  avl: number;
  unusable: number;
}

/** struct kvm_dtable */
export interface DescriptorTableRegister {
  base: bigint;
  limit: number;
}

/** struct kvm_sregs */
export interface Sregs {
  cs: Segment;
  ds: Segment;
  es: Segment;
  fs: Segment;
  gs: Segment;
  ss: Segment;
  tr: Segment;
  ldt: Segment;
  gdt: DescriptorTableRegister;
  idt: DescriptorTableRegister;
  cr0: bigint;
  cr2: bigint;
  cr3: bigint;
  cr4: bigint;
  cr8: bigint;
  efer: bigint;
  apicBase: bigint;
  /** External interrupt to inject, one bit a vector. */
  interruptBitmap: bigint[];
}

/** struct kvm_msr_entry */
export interface MsrEntry {
  index: number;
  data: bigint;
}

/** struct kvm_translation */
export interface Translation {
  /** All ones when it is not mapped. */
  physicalAddress: bigint;
  valid: boolean;
  writeable: boolean;
  usermode: boolean;
}
