/** A cached VMCS of L1's, in the processor's layout: fields by the constants of src/arch/vmcs.ts (@kvm vmx/vmcs12.h). */
import { numberOf } from '../../../arch/halves.ts';
import * as F from '../../../arch/vmcs.ts';
import * as C from '../../../arch/vmx-controls.ts';
import { VMCS12_FIELDS, VMCS12_SHADOW, type Vmcs12Field, vmcs12Field } from './vmcs12-layout.ts';

const HEADER_WORDS = 3;

export class Vmcs12 {
  readonly words = new Int32Array(1024);

  /** Low half, signed. HOT */
  lo(field: number): number {
    return this.words[field >> 2]!;
  }

  /** High half of a wide field. HOT */
  hi(field: number): number {
    return this.words[(field >> 2) + 1]!;
  }

  set(field: number, value: number): void {
    this.words[field >> 2] = value;
  }

  set64(field: number, lo: number, hi: number): void {
    this.words[field >> 2] = lo;
    this.words[(field >> 2) + 1] = hi;
  }

  /** A wide field as a number: addresses that were checked to be below 2^52. */
  address(field: number): number {
    return numberOf(this.lo(field), this.hi(field));
  }

  /** All ones: no address. */
  isInvalid(field: number): boolean {
    return this.lo(field) === -1 && this.hi(field) === -1;
  }

  get revision(): number {
    return this.words[0]! & ~VMCS12_SHADOW;
  }

  get isShadow(): boolean {
    return (this.words[0]! & VMCS12_SHADOW) !== 0;
  }

  get launchState(): number {
    return this.words[F.VMCS_LAUNCH_STATE >> 2]!;
  }

  set launchState(value: number) {
    this.words[F.VMCS_LAUNCH_STATE >> 2] = value;
  }

  /** From the layout of L1's memory. */
  load(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.words.fill(0);
    for (let i = 0; i < HEADER_WORDS; i++) this.words[i] = view.getInt32(4 * i, true);
    for (const { at, size, offset } of VMCS12_FIELDS) {
      if (size === 2) this.words[offset >> 2] = view.getUint16(at, true);
      else this.words[offset >> 2] = view.getInt32(at, true);
      if (size === 8) this.words[(offset >> 2) + 1] = view.getInt32(at + 4, true);
    }
  }

  /** Into the layout of L1's memory; bytes between fields are left alone. */
  store(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < HEADER_WORDS; i++) view.setInt32(4 * i, this.words[i]!, true);
    for (const { at, size, offset } of VMCS12_FIELDS) {
      if (size === 2) view.setUint16(at, this.words[offset >> 2]!, true);
      else view.setInt32(at, this.words[offset >> 2]!, true);
      if (size === 8) view.setInt32(at + 4, this.words[(offset >> 2) + 1]!, true);
    }
  }

  /** The field with this encoding, halves into `out`: false when there is none. @kvm vmx/vmcs12.h vmcs12_read_any */
  readAny(encoding: number, out: Int32Array): boolean {
    const field = vmcs12Field(encoding);
    if (field === null) return false;
    const at = field.offset >> 2;
    if ((encoding & 1) !== 0) {
      out[0] = this.words[at + 1]!;
      out[1] = 0;
      return true;
    }
    out[0] = this.words[at]!;
    out[1] = field.size === 8 ? this.words[at + 1]! : 0;
    return true;
  }

  /** @kvm vmx/vmcs12.h vmcs12_write_any */
  writeAny(field: Vmcs12Field, encoding: number, lo: number, hi: number): void {
    const at = field.offset >> 2;
    if ((encoding & 1) !== 0) this.words[at + 1] = lo;
    else this.words[at] = field.size === 2 ? lo & 0xffff : lo;
    if ((encoding & 1) === 0 && field.size === 8) this.words[at + 1] = hi;
  }

  /** A pin-based control. */
  hasPin(bit: number): boolean {
    return (this.lo(F.VMCS_PIN_BASED_VM_EXEC_CONTROL) & bit) !== 0;
  }

  /** A primary control. @kvm nested.h nested_cpu_has */
  has(bit: number): boolean {
    return (this.lo(F.VMCS_CPU_BASED_VM_EXEC_CONTROL) & bit) !== 0;
  }

  /** A secondary control, of those in force. @kvm nested.h nested_cpu_has2 */
  has2(bit: number): boolean {
    return this.has(C.CPU_BASED_ACTIVATE_SECONDARY_CONTROLS) && (this.lo(F.VMCS_SECONDARY_VM_EXEC_CONTROL) & bit) !== 0;
  }

  hasEntry(bit: number): boolean {
    return (this.lo(F.VMCS_VM_ENTRY_CONTROLS) & bit) !== 0;
  }

  hasExit(bit: number): boolean {
    return (this.lo(F.VMCS_VM_EXIT_CONTROLS) & bit) !== 0;
  }

  get ept(): boolean {
    return this.has2(C.SECONDARY_EXEC_ENABLE_EPT);
  }

  get vpid(): boolean {
    return this.has2(C.SECONDARY_EXEC_ENABLE_VPID);
  }

  get shadowVmcs(): boolean {
    return this.has2(C.SECONDARY_EXEC_SHADOW_VMCS);
  }

  get preemptionTimer(): boolean {
    return this.hasPin(C.PIN_BASED_VMX_PREEMPTION_TIMER);
  }

  get postedIntr(): boolean {
    return this.hasPin(C.PIN_BASED_POSTED_INTR);
  }

  get vid(): boolean {
    return this.has2(C.SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY);
  }

  /** VM functions are on, EPTP switching among them. @kvm nested.h nested_cpu_has_eptp_switching */
  get eptpSwitching(): boolean {
    return (
      this.has2(C.SECONDARY_EXEC_ENABLE_VMFUNC) &&
      (this.lo(F.VMCS_VM_FUNCTION_CONTROL) & C.VMX_VMFUNC_EPTP_SWITCHING) !== 0
    );
  }

  /** CR0 as L2 reads it. @kvm nested.h nested_read_cr0 */
  readCr0(): number {
    const mask = this.lo(F.VMCS_CR0_GUEST_HOST_MASK);
    return (this.lo(F.VMCS_GUEST_CR0) & ~mask) | (this.lo(F.VMCS_CR0_READ_SHADOW) & mask);
  }

  /** CR4 as L2 reads it. @kvm nested.h nested_read_cr4 */
  readCr4(): number {
    const mask = this.lo(F.VMCS_CR4_GUEST_HOST_MASK);
    return (this.lo(F.VMCS_GUEST_CR4) & ~mask) | (this.lo(F.VMCS_CR4_READ_SHADOW) & mask);
  }
}
