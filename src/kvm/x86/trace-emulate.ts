/** The `kvm_emulate_insn` event (@kvm trace.h). */
import { hex64 } from '../../arch/flags.ts';
import { CS } from '../../arch/registers.ts';
import type { VcpuState } from '../vcpu-state.ts';

const modes = ['real', 'vm16', 'prot16', 'prot32', 'prot64'];
const base = new Int32Array(2);

/** @kvm trace.h kvm_emulate_insn: the bytes decoded so far. */
export function traceEmulateInsn(vcpu: VcpuState, failed: boolean): void {
  const trace = vcpu.vm.trace;
  if (!trace.enabled) return;
  const ctxt = vcpu.x86.emulateCtxt!;
  const len = ctxt.fetch.ptr;
  vcpu.vm.vendor.getSegmentBase(vcpu, CS, base);
  const borrow = ctxt.nextEipLo >>> 0 < len ? 1 : 0;
  const rip = hex64((ctxt.nextEipLo - len) | 0, (ctxt.nextEipHi - borrow) | 0);
  let bytes = '';
  for (let i = 0; i < len; i++) bytes += ctxt.fetch.data[i]!.toString(16).padStart(2, '0');
  trace.emit('kvm_emulate_insn', {
    csbase: (base[0]! >>> 0).toString(16),
    rip: rip.slice(2),
    bytes,
    mode: modes[ctxt.mode]!,
    failed,
  });
}
