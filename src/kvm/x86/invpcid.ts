/** INVPCID that exits: under shadow paging KVM has roots to synchronise or free (@kvm x86.c kvm_handle_invpcid). */
import { CR4_PCIDE } from '../../arch/registers.ts';
import { X86EMUL_CONTINUE, X86EMUL_PROPAGATE_FAULT, X86Exception } from '../emulate/ops.ts';
import { mmuInvpcidGva } from '../mmu/invlpg.ts';
import { mmuInvalidatePcid } from '../mmu/roots.ts';
import { makeRequest, REQ_TLB_FLUSH_GUEST, type VcpuState } from '../vcpu-state.ts';
import { isNoncanonicalBase } from './canonical.ts';
import { handleEmulationFailure } from './emulation-failure.ts';
import { injectEmulatedPageFault, injectGp } from './exceptions.ts';
import { readGuestVirt } from './guest-access.ts';
import { skipEmulatedInstruction } from './skip.ts';

const INDIV_ADDR = 0;
const SINGLE_CTXT = 1;
const ALL_INCL_GLOBAL = 2;
const ALL_NON_GLOBAL = 3;

export const INVPCID_DESCRIPTOR_BYTES = 16;
const bytes = new Uint8Array(INVPCID_DESCRIPTOR_BYTES);
const words = new Int32Array(bytes.buffer);

/** `type` is the register operand, the descriptor is at linear address `gva`. @kvm x86.c kvm_handle_invpcid */
export function handleInvpcid(vcpu: VcpuState, type: number, typeHi: number, gvaLo: number, gvaHi: number): number {
  const fault = new X86Exception();
  const r = readGuestVirt(vcpu, gvaLo, gvaHi, bytes, 0, bytes.length, 0, 0, fault);
  if (r !== X86EMUL_CONTINUE) {
    if (r !== X86EMUL_PROPAGATE_FAULT) return handleEmulationFailure(vcpu, 0);
    injectEmulatedPageFault(vcpu, fault);
    return 1;
  }
  const pcid = words[0]!;
  const pcidEnabled = (vcpu.cr4 & CR4_PCIDE) !== 0;
  const badPcid = (pcid & ~0xfff) !== 0 || words[1] !== 0;
  const noPcid = !pcidEnabled && pcid !== 0;
  const known = typeHi === 0 && type >>> 0 <= ALL_NON_GLOBAL;
  const bad =
    !known ||
    badPcid ||
    (type === SINGLE_CTXT && noPcid) ||
    (type === INDIV_ADDR && (noPcid || isNoncanonicalBase(vcpu, words[3]!)));
  if (bad) {
    injectGp(vcpu, 0);
    return 1;
  }
  if (type === INDIV_ADDR) mmuInvpcidGva(vcpu, words[2]!, words[3]!, pcid);
  else if (type === SINGLE_CTXT) mmuInvalidatePcid(vcpu, pcid);
  // No entry of the shadow tables is global, so that without globals is with them.
  else if (type === ALL_NON_GLOBAL || type === ALL_INCL_GLOBAL) makeRequest(vcpu, REQ_TLB_FLUSH_GUEST);
  return skipEmulatedInstruction(vcpu);
}
