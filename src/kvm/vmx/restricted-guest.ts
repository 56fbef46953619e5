/** A guest that is not unrestricted, as there is no EPT: what changes its mode has its state looked at (@kvm vmx.c vmx_hardware_setup). */
import { NMI_VECTOR } from '../../arch/exceptions.ts';
import { RFLAGS_VM } from '../../arch/registers.ts';
import type { VendorOps } from '../vendor-ops.ts';
import { vmxSetCr0 } from './control-registers.ts';
import { vmxGetRflags, vmxInjectException, vmxInjectIrq, vmxInjectNmi, vmxSetRflags } from './events.ts';
import { vmxVcpuReset } from './init-vmcs.ts';
import { injectRealmodeInterrupt, updateEmulationRequired } from './invalid-guest-state.ts';
import { vmxSetSegment } from './segments.ts';

type Overridden = 'vcpuReset' | 'setSegment' | 'setRflags' | 'setCr0' | 'injectException' | 'injectIrq' | 'injectNmi';

export const restrictedGuestOps: Pick<VendorOps, Overridden> = {
  vcpuReset: (vcpu, initEvent) => {
    vmxVcpuReset(vcpu, initEvent);
    updateEmulationRequired(vcpu);
  },
  setSegment: (vcpu, sreg, seg) => {
    vmxSetSegment(vcpu, sreg, seg);
    updateEmulationRequired(vcpu);
  },
  setRflags: (vcpu, value) => {
    const old = vmxGetRflags(vcpu);
    vmxSetRflags(vcpu, value);
    if (((old ^ value) & RFLAGS_VM) !== 0) updateEmulationRequired(vcpu);
  },
  setCr0: (vcpu, cr0) => {
    vmxSetCr0(vcpu, cr0);
    updateEmulationRequired(vcpu);
  },
  injectException: (vcpu) => {
    if (!injectRealmodeInterrupt(vcpu, vcpu.x86.exception.vector)) vmxInjectException(vcpu);
  },
  injectIrq: (vcpu, reinjected) => {
    if (!injectRealmodeInterrupt(vcpu, vcpu.x86.interruptNr)) vmxInjectIrq(vcpu, reinjected);
  },
  injectNmi: (vcpu) => {
    if (!injectRealmodeInterrupt(vcpu, NMI_VECTOR)) vmxInjectNmi(vcpu);
  },
};
