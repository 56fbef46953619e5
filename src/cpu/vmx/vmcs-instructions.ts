/**
 * The instructions with which KVM manages VMCSs and what was cached of them (@sdm 25, 32). Their answers are those of RFLAGS: VMsucceed,
 * VMfailInvalid, or VMfailValid with a number in the VMCS.
 */
import * as F from '../../arch/vmcs.ts';
import * as C from '../../arch/vmx-controls.ts';
import { VMCS_COPIED } from '../interpreter/state-switch-vmcs.ts';
import type { Core } from '../system/core.ts';

/** VM-instruction errors (@sdm 32.4). */
const VMXERR_VMCLEAR_INVALID_ADDRESS = 2;
const VMXERR_VMPTRLD_INVALID_ADDRESS = 9;
const VMXERR_VMPTRLD_INCORRECT_VMCS_REVISION_ID = 11;
const VMXERR_UNSUPPORTED_VMCS_COMPONENT = 12;
const VMXERR_VMWRITE_READ_ONLY_VMCS_COMPONENT = 13;

/** Launch state of a VMCS that has been cleared. */
export const CLEAR = 0;

export class VmcsInstructions {
  protected readonly core: Core;
  /** In VMX operation, between VMXON and VMXOFF. */
  protected on = false;
  /** Physical address of the current VMCS, -1 for none. */
  protected current = -1;
  /** The VPID that the TLB's translations belong to. */
  protected vpid = 0;

  constructor(core: Core) {
    this.core = core;
  }

  get isOn(): boolean {
    return this.on;
  }

  private validPage(pa: number): boolean {
    return (pa & 0xfff) === 0 && pa / 4096 < this.core.memory.frames;
  }

  /** VMXON with the region at physical address `pa`. */
  vmxon(pa: number): number {
    if (this.on || this.core.profile.vendor !== 'intel' || !this.validPage(pa)) return C.VM_FAIL_INVALID;
    if (this.core.i32[pa >>> 2] !== F.VMCS_REVISION) return C.VM_FAIL_INVALID;
    this.on = true;
    this.current = -1;
    return C.VM_SUCCEED;
  }

  vmxoff(): number {
    if (!this.on) return C.VM_FAIL_INVALID;
    this.on = false;
    this.current = -1;
    return C.VM_SUCCEED;
  }

  protected fail(error: number): number {
    if (this.current === -1) return C.VM_FAIL_INVALID;
    this.core.i32[(this.current + F.VMCS_VM_INSTRUCTION_ERROR) >>> 2] = error;
    return C.VM_FAIL_VALID;
  }

  /** VMCLEAR: the VMCS is in memory, not launched, and nobody's. */
  vmclear(pa: number): number {
    if (!this.on) return C.VM_FAIL_INVALID;
    if (!this.validPage(pa)) return this.fail(VMXERR_VMCLEAR_INVALID_ADDRESS);
    this.core.i32[(pa + F.VMCS_LAUNCH_STATE) >>> 2] = CLEAR;
    this.core.i32[(pa + VMCS_COPIED) >>> 2] = 0;
    if (this.current === pa) this.current = -1;
    return C.VM_SUCCEED;
  }

  /** VMPTRLD: makes the VMCS the current one. */
  vmptrld(pa: number): number {
    if (!this.on) return C.VM_FAIL_INVALID;
    if (!this.validPage(pa)) return this.fail(VMXERR_VMPTRLD_INVALID_ADDRESS);
    if (this.core.i32[pa >>> 2] !== F.VMCS_REVISION) return this.fail(VMXERR_VMPTRLD_INCORRECT_VMCS_REVISION_ID);
    this.current = pa;
    return C.VM_SUCCEED;
  }

  /** VMREAD of a field by its encoding, halves into `out`. */
  vmread(encoding: number, out: Int32Array): number {
    const at = this.fieldWord(encoding);
    if (at < 0) return at === -1 ? C.VM_FAIL_INVALID : this.fail(VMXERR_UNSUPPORTED_VMCS_COMPONENT);
    const width = (encoding >>> 13) & 3;
    const wide = width === 1 || width === 3;
    const high = (encoding & 1) !== 0;
    out[0] = this.core.i32[high ? at + 1 : at]!;
    out[1] = wide && !high ? this.core.i32[at + 1]! : 0;
    return C.VM_SUCCEED;
  }

  /** VMWRITE of a field by its encoding. */
  vmwrite(encoding: number, lo: number, hi: number): number {
    const at = this.fieldWord(encoding);
    if (at < 0) return at === -1 ? C.VM_FAIL_INVALID : this.fail(VMXERR_UNSUPPORTED_VMCS_COMPONENT);
    if (((encoding >>> 10) & 3) === 1) return this.fail(VMXERR_VMWRITE_READ_ONLY_VMCS_COMPONENT);
    const width = (encoding >>> 13) & 3;
    const i32 = this.core.i32;
    if ((encoding & 1) !== 0) i32[at + 1] = lo;
    else i32[at] = width === 0 ? lo & 0xffff : lo;
    if ((encoding & 1) === 0 && (width === 1 || width === 3)) i32[at + 1] = hi;
    return C.VM_SUCCEED;
  }

  /** Word of the field in the current VMCS; -1 without one, -2 when there is no such field. */
  private fieldWord(encoding: number): number {
    if (this.current === -1) return -1;
    return F.isVmcsField(encoding) ? (this.current + F.vmcsOffset(encoding & ~1)) >>> 2 : -2;
  }

  /** INVEPT, all types: translations are of one EPT root only, and they all go. */
  invept(): void {
    this.core.tlb.flushAll();
  }

  /** INVVPID of all of `vpid` (types 1 to 3), or of every VPID (0). */
  invvpid(vpid: number): void {
    if (vpid === 0 || vpid === this.vpid) this.core.tlb.flushAll();
  }

  /** INVVPID type 0: one linear address. */
  invvpidAddress(vpid: number, lo: number, hi: number): void {
    if (vpid === this.vpid) this.core.tlb.invalidateAddress(lo, hi);
  }
}
