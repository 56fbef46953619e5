/** KVM_GET_SREGS and KVM_SET_SREGS (@kvm regs.c __get_sregs, __set_sregs). */
import { hi64, hiOf, join64, lo64, loOf } from '../../arch/halves.ts';
import { CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, RIP } from '../../arch/registers.ts';
import { EINVAL } from '../../host/errno.ts';
import type { DescriptorTableRegister, Segment, Sregs } from '../api/registers.ts';
import { emptySegment } from '../emulate/ctxt.ts';
import type { DescriptorTable } from '../emulate/ops.ts';
import { loadPdptrs } from '../mmu/pdptrs.ts';
import { mmuResetContext } from '../mmu/roles.ts';
import { MP_STATE_RUNNABLE, makeRequest, REQ_EVENT, REQ_TLB_FLUSH_GUEST, type VcpuState } from '../vcpu-state.ts';
import { getCr8, isLegalCr3, isValidCr0, isValidCr4, setCr8 } from './control-registers.ts';
import { deliverExceptionPayload, queueInterrupt } from './exceptions.ts';
import { lapicSetBase } from './lapic.ts';
import { validEfer } from './msr.ts';
import { isPaePaging, isProtmode } from './registers.ts';

/** Names of kvm_sregs, by segment number. */
const segments = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'tr', 'ldt'] as const;
const seg = emptySegment();
const table: DescriptorTable = { limit: 0, baseLo: 0, baseHi: 0 };

/** @kvm x86.c kvm_handle_exception_payload_quirk: who does not know payloads sees DR6 and CR2 as if the exception were delivered. */
export function exceptionPayloadQuirk(vcpu: VcpuState): void {
  const ex = vcpu.x86.exception;
  if (ex.pending && !vcpu.vm.x86.exceptionPayloadEnabled) deliverExceptionPayload(vcpu, ex);
}

/** @kvm x86.c kvm_get_segment */
function getSegment(vcpu: VcpuState, sreg: number): Segment {
  vcpu.vm.vendor.getSegment(vcpu, sreg, seg);
  return {
    base: join64(seg.baseLo, seg.baseHi),
    limit: seg.limit >>> 0,
    selector: seg.selector,
    type: seg.type,
    present: seg.p,
    dpl: seg.dpl,
    db: seg.db,
    s: seg.s,
    l: seg.l,
    g: seg.g,
    avl: seg.avl,
    unusable: seg.p === 0 ? 1 : 0,
  };
}

/** @kvm x86.c kvm_set_segment */
function setSegment(vcpu: VcpuState, sreg: number, from: Segment): void {
  seg.baseLo = lo64(from.base);
  seg.baseHi = hi64(from.base);
  seg.limit = from.limit;
  seg.selector = from.selector;
  seg.type = from.type;
  seg.p = from.present !== 0 && from.unusable === 0 ? 1 : 0;
  seg.dpl = from.dpl;
  seg.db = from.db;
  seg.s = from.s;
  seg.l = from.l;
  seg.g = from.g;
  seg.avl = from.avl;
  vcpu.vm.vendor.setSegment(vcpu, sreg, seg);
}

function tableRegister(): DescriptorTableRegister {
  return { base: join64(table.baseLo, table.baseHi), limit: table.limit };
}

function loadTable(from: DescriptorTableRegister): DescriptorTable {
  table.baseLo = lo64(from.base);
  table.baseHi = hi64(from.base);
  table.limit = from.limit;
  return table;
}

/** @kvm regs.c __get_sregs */
export function getSregs(vcpu: VcpuState): Sregs {
  const vendor = vcpu.vm.vendor;
  exceptionPayloadQuirk(vcpu);
  const sregs = {} as Sregs;
  for (const [sreg, name] of segments.entries()) sregs[name] = getSegment(vcpu, sreg);
  vendor.getIdt(vcpu, table);
  sregs.idt = tableRegister();
  vendor.getGdt(vcpu, table);
  sregs.gdt = tableRegister();
  sregs.cr0 = BigInt(vcpu.cr0 >>> 0);
  sregs.cr2 = join64(vcpu.cr2Lo, vcpu.cr2Hi);
  sregs.cr3 = join64(vcpu.cr3Lo, vcpu.cr3Hi);
  sregs.cr4 = BigInt(vcpu.cr4 >>> 0);
  sregs.cr8 = BigInt(getCr8(vcpu));
  sregs.efer = BigInt(vcpu.efer >>> 0);
  sregs.apicBase = BigInt(vcpu.apicBase);
  sregs.interruptBitmap = [0n, 0n, 0n, 0n];
  const { interruptInjected, interruptSoft, interruptNr } = vcpu.x86;
  if (interruptInjected && !interruptSoft) sregs.interruptBitmap[interruptNr >> 6] = 1n << BigInt(interruptNr & 63);
  return sregs;
}

/** @kvm regs.c kvm_is_valid_sregs */
function isValidSregs(vcpu: VcpuState, sregs: Sregs): boolean {
  const efer = lo64(sregs.efer);
  const cr0 = lo64(sregs.cr0);
  if ((efer & EFER_LME) !== 0 && (cr0 & CR0_PG) !== 0) {
    if ((lo64(sregs.cr4) & CR4_PAE) === 0 || (efer & EFER_LMA) === 0) return false;
    if (!isLegalCr3(vcpu, hi64(sregs.cr3))) return false;
  } else if ((efer & EFER_LMA) !== 0 || sregs.cs.l !== 0) {
    return false;
  }
  return (
    isValidCr4(vcpu, lo64(sregs.cr4), hi64(sregs.cr4)) &&
    isValidCr0(cr0, hi64(sregs.cr0)) &&
    validEfer(vcpu, efer, hi64(sregs.efer))
  );
}

/** An interrupt that userspace put into the bitmap is injected at the next entry. */
function queueBitmap(vcpu: VcpuState, bitmap: readonly bigint[] | undefined): void {
  for (let vector = 0; vector < 256; vector++) {
    const word = bitmap?.[vector >> 6] ?? 0n;
    if ((word & (1n << BigInt(vector & 63))) === 0n) continue;
    queueInterrupt(vcpu, vector, false);
    makeRequest(vcpu, REQ_EVENT);
    return;
  }
}

/** 0, or -EINVAL when the registers do not fit together. @kvm regs.c __set_sregs */
export function setSregs(vcpu: VcpuState, sregs: Sregs): number {
  if (!isValidSregs(vcpu, sregs)) return -EINVAL;
  const base = Number(sregs.apicBase);
  if (lapicSetBase(vcpu, loOf(base), hiOf(base), true) !== 0) return -EINVAL;
  const vendor = vcpu.vm.vendor;
  vendor.setIdt(vcpu, loadTable(sregs.idt));
  vendor.setGdt(vcpu, loadTable(sregs.gdt));
  vcpu.cr2Lo = lo64(sregs.cr2);
  vcpu.cr2Hi = hi64(sregs.cr2);
  let reset = vcpu.cr3Lo !== lo64(sregs.cr3) || vcpu.cr3Hi !== hi64(sregs.cr3);
  vcpu.cr3Lo = lo64(sregs.cr3);
  vcpu.cr3Hi = hi64(sregs.cr3);
  const cr0 = lo64(sregs.cr0);
  const cr4 = lo64(sregs.cr4);
  const efer = lo64(sregs.efer);
  reset ||= vcpu.efer !== efer;
  vendor.setEfer(vcpu, efer);
  reset ||= vcpu.cr0 !== cr0;
  vendor.setCr0(vcpu, cr0);
  reset ||= vcpu.cr4 !== cr4;
  vendor.setCr4(vcpu, cr4);
  if (isPaePaging(vcpu)) {
    loadPdptrs(vcpu, vcpu.cr3Lo, vcpu.cr3Hi);
    reset = true;
  }
  for (const name of ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const) {
    setSegment(vcpu, segments.indexOf(name), sregs[name]);
  }
  setCr8(vcpu, lo64(sregs.cr8) & 0xf);
  const atReset =
    vcpu.id === 0 && vcpu.regs[2 * RIP] === 0xfff0 && vcpu.regs[2 * RIP + 1] === 0 && sregs.cs.selector === 0xf000;
  if (atReset && sregs.cs.base === 0xffff0000n && !isProtmode(vcpu)) vcpu.mpState = MP_STATE_RUNNABLE;
  if (reset) {
    mmuResetContext(vcpu);
    makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
  }
  queueBitmap(vcpu, sregs.interruptBitmap);
  return 0;
}
