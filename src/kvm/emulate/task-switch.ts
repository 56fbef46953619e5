/** Hardware task switches: the old task's state into its TSS, the new task's out of its own. @kvm emulate.c emulator_do_task_switch */
import { CR0_TS, CS, DS, ES, FS, GS, LDTR, RAX, RDI, RFLAGS_NT, RFLAGS_VM, SS, TR } from '../../arch/registers.ts';
import { EMULATION_FAILED, EMULATION_OK, type EmulateCtxt, X86EMUL_MODE_PROT32, X86EMUL_MODE_VM86 } from './ctxt.ts';
import {
  loadSegment,
  RawDescriptor,
  readInterruptDescriptor,
  readSegmentDescriptor,
  setSegmentSelector,
  unpackDescriptor,
  writeSegmentDescriptor,
  X86_TRANSFER_TASK_SWITCH,
} from './descriptors.ts';
import { linearReadSystem, linearWriteSystem } from './memory.ts';
import { OP_NONE } from './operand.ts';
import { X86EMUL_CONTINUE, X86EMUL_UNHANDLEABLE } from './ops.ts';
import { emulateGp, emulateTs } from './raise.ts';
import { addHi, invalidateRegisters, regLo, regWrite, writebackRegisters } from './registers.ts';
import { readCr, segmentSelector } from './segmentation.ts';
import { emPush } from './stack.ts';

/** Why the task is switched. @kvm kvm_host.h TASK_SWITCH_* */
export const TASK_SWITCH_CALL = 0;
export const TASK_SWITCH_IRET = 1;
export const TASK_SWITCH_JMP = 2;
export const TASK_SWITCH_GATE = 3;

/** No task to go back to. */
const NO_LINK = 0xffff;
/** Busy bit of a TSS descriptor, in its access byte. */
const BUSY = 1 << 1;
/** L0..L3 and LE, which a task switch clears. */
const DR7_LOCAL = 0x155;

/** Where the fields of a TSS lie. @sdm figures 8-2 and 8-11 */
interface TssLayout {
  readonly bytes: number;
  /** Width of registers. */
  readonly width: 2 | 4;
  readonly ip: number;
  readonly flags: number;
  /** The eight general registers in encoding order. */
  readonly registers: number;
  /** Segment registers in the order in which they are stored, and the distance between them. */
  readonly segments: readonly number[];
  readonly segmentsAt: number;
  readonly ldt: number;
  /** First byte of what is written back for the old task, and the byte behind it. */
  readonly savedFrom: number;
  readonly savedTo: number;
}

const tss16: TssLayout = {
  bytes: 44,
  width: 2,
  ip: 14,
  flags: 16,
  registers: 18,
  segments: [ES, CS, SS, DS],
  segmentsAt: 34,
  ldt: 42,
  savedFrom: 0,
  savedTo: 44,
};
const tss32: TssLayout = {
  bytes: 104,
  width: 4,
  ip: 32,
  flags: 36,
  registers: 40,
  segments: [ES, CS, SS, DS, FS, GS],
  segmentsAt: 72,
  ldt: 96,
  savedFrom: 32,
  savedTo: 96,
};
const TSS32_CR3 = 28;

const tss = new Uint8Array(104);
const view = new DataView(tss.buffer);
const next = new RawDescriptor();
const current = new RawDescriptor();
const gate = new Uint8Array(8);

function field(at: number, width: number): number {
  return width === 2 ? view.getUint16(at, true) : view.getInt32(at, true);
}

function setField(at: number, width: number, value: number): void {
  if (width === 2) view.setUint16(at, value, true);
  else view.setInt32(at, value, true);
}

/** CR3, and in a 32-bit TSS the LDT selector, are not saved. @kvm emulate.c save_state_to_tss32, save_state_to_tss16 */
function saveState(ctxt: EmulateCtxt, layout: TssLayout): void {
  const { width } = layout;
  setField(layout.ip, width, ctxt.nextEipLo);
  setField(layout.flags, width, ctxt.eflags);
  for (let nr = RAX; nr <= RDI; nr++) setField(layout.registers + nr * width, width, regLo(ctxt, nr));
  layout.segments.forEach((sreg, i) => {
    setField(layout.segmentsAt + i * width, width, segmentSelector(ctxt, sreg));
  });
  if (width === 2) setField(layout.ldt, 2, segmentSelector(ctxt, LDTR));
}

/** @kvm emulate.c load_state_from_tss32, load_state_from_tss16 */
function loadState(ctxt: EmulateCtxt, layout: TssLayout): number {
  const { width } = layout;
  if (width === 4 && ctxt.ops.setCr(ctxt, 3, field(TSS32_CR3, 4), 0) !== 0) return emulateGp(ctxt, 0);
  ctxt.nextEipLo = field(layout.ip, width);
  ctxt.nextEipHi = 0;
  ctxt.eflags = field(layout.flags, width) | 2;
  for (let nr = RAX; nr <= RDI; nr++) regWrite(ctxt, nr, field(layout.registers + nr * width, width), 0);

  // All selectors before all descriptors: faults from here on belong to the new task.
  const ldt = view.getUint16(layout.ldt, true);
  const selectors = layout.segments.map((_, i) => view.getUint16(layout.segmentsAt + i * width, true));
  setSegmentSelector(ctxt, ldt, LDTR);
  layout.segments.forEach((sreg, i) => {
    setSegmentSelector(ctxt, selectors[i]!, sreg);
  });
  let cpl = selectors[1]! & 3;
  if (width === 4) {
    const vm86 = (ctxt.eflags & RFLAGS_VM) !== 0;
    ctxt.mode = vm86 ? X86EMUL_MODE_VM86 : X86EMUL_MODE_PROT32;
    if (vm86) cpl = 3;
  }
  let rc = loadSegment(ctxt, ldt, LDTR, cpl, X86_TRANSFER_TASK_SWITCH);
  for (let i = 0; rc === X86EMUL_CONTINUE && i < selectors.length; i++) {
    rc = loadSegment(ctxt, selectors[i]!, layout.segments[i]!, cpl, X86_TRANSFER_TASK_SWITCH);
  }
  return rc;
}

/** Saves to the TSS at (oldLo, oldHi), links and loads the one at `newBase`. @kvm emulate.c task_switch_32, task_switch_16 */
function switchState(
  ctxt: EmulateCtxt,
  layout: TssLayout,
  link: number,
  oldLo: number,
  oldHi: number,
  newBase: number,
): number {
  let rc = linearReadSystem(ctxt, oldLo, oldHi, tss, layout.bytes);
  if (rc !== X86EMUL_CONTINUE) return rc;
  saveState(ctxt, layout);
  const { savedFrom: from, savedTo: to } = layout;
  const saved = tss.subarray(from, to);
  rc = linearWriteSystem(ctxt, (oldLo + from) | 0, addHi(oldLo, oldHi, from, 0), saved, to - from);
  if (rc !== X86EMUL_CONTINUE) return rc;
  rc = linearReadSystem(ctxt, newBase, 0, tss, layout.bytes);
  if (rc !== X86EMUL_CONTINUE) return rc;
  if (link !== NO_LINK) {
    setField(0, layout.width, link);
    rc = linearWriteSystem(ctxt, newBase, 0, tss, layout.width);
    if (rc !== X86EMUL_CONTINUE) return rc;
  }
  return loadState(ctxt, layout);
}

/** Software interrupts through a task gate: DPL of the gate against RPL and CPL. */
function checkTaskGate(ctxt: EmulateCtxt, selector: number, idtIndex: number): number {
  const rc = readInterruptDescriptor(ctxt, idtIndex, gate);
  if (rc !== X86EMUL_CONTINUE) return rc;
  const dpl = (gate[5]! >> 5) & 3;
  if ((selector & 3) > dpl || ctxt.ops.cpl(ctxt) > dpl) return emulateGp(ctxt, (idtIndex << 3) | 2);
  return X86EMUL_CONTINUE;
}

function doTaskSwitch(
  ctxt: EmulateCtxt,
  selector: number,
  idtIndex: number,
  reason: number,
  errorCode: number | null,
): number {
  const { ops } = ctxt;
  const oldSelector = segmentSelector(ctxt, TR);
  ops.getCachedSegmentBase(ctxt, TR);
  const oldLo = ctxt.segBase[0]!;
  const oldHi = ctxt.segBase[1]!;
  let rc = readSegmentDescriptor(ctxt, selector, next);
  if (rc === X86EMUL_CONTINUE) rc = readSegmentDescriptor(ctxt, oldSelector, current);
  if (rc === X86EMUL_CONTINUE && reason === TASK_SWITCH_GATE && idtIndex !== -1) {
    rc = checkTaskGate(ctxt, selector, idtIndex);
  }
  if (rc !== X86EMUL_CONTINUE) return rc;

  const target = ctxt.oldSeg;
  unpackDescriptor(next.bytes, target);
  const wide = (target.type & 8) !== 0;
  if (target.p === 0 || (wide && target.limit < 0x67) || target.limit < 0x2b) {
    return emulateTs(ctxt, selector & 0xfffc);
  }
  if (reason === TASK_SWITCH_IRET || reason === TASK_SWITCH_JMP) {
    current.bytes[5] = current.bytes[5]! & ~BUSY;
    writeSegmentDescriptor(ctxt, oldSelector, current);
  }
  if (reason === TASK_SWITCH_IRET) ctxt.eflags &= ~RFLAGS_NT;
  const nested = reason === TASK_SWITCH_CALL || reason === TASK_SWITCH_GATE;
  const layout = wide ? tss32 : tss16;
  rc = switchState(ctxt, layout, nested ? oldSelector : NO_LINK, oldLo, oldHi, target.baseLo);
  if (rc !== X86EMUL_CONTINUE) return rc;

  if (nested) ctxt.eflags |= RFLAGS_NT;
  if (reason !== TASK_SWITCH_IRET) {
    target.type |= BUSY;
    next.bytes[5] = next.bytes[5]! | BUSY;
    writeSegmentDescriptor(ctxt, selector, next);
  }
  const cr0 = readCr(ctxt, 0);
  ops.setCr(ctxt, 0, cr0 | CR0_TS, ctxt.io64[1]!);
  target.selector = selector;
  ops.setSegment(ctxt, TR, target);
  if (errorCode !== null) {
    ctxt.opBytes = ctxt.adBytes = wide ? 4 : 2;
    ctxt.lockPrefix = 0;
    ctxt.src.set(errorCode, 0);
    rc = emPush(ctxt);
  }
  ops.getDr(ctxt, 7);
  ops.setDr(ctxt, 7, ctxt.io64[0]! & ~DR7_LOCAL, ctxt.io64[1]!);
  return rc;
}

/**
 * Switches to the task of TSS `selector`. `idtIndex` is the gate's vector or -1; `errorCode` is pushed on the new stack unless null.
 * EMULATION_OK or EMULATION_FAILED. @kvm emulate.c emulator_task_switch
 */
export function emulatorTaskSwitch(
  ctxt: EmulateCtxt,
  selector: number,
  idtIndex: number,
  reason: number,
  errorCode: number | null,
): number {
  invalidateRegisters(ctxt);
  ctxt.nextEipLo = ctxt.eipLo;
  ctxt.nextEipHi = ctxt.eipHi;
  ctxt.dst.type = OP_NONE;
  const rc = doTaskSwitch(ctxt, selector, idtIndex, reason, errorCode);
  if (rc === X86EMUL_CONTINUE) {
    ctxt.eipLo = ctxt.nextEipLo;
    ctxt.eipHi = ctxt.nextEipHi;
    writebackRegisters(ctxt);
  }
  return rc === X86EMUL_UNHANDLEABLE ? EMULATION_FAILED : EMULATION_OK;
}
