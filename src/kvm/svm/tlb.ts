/** ASIDs and TLB flushes (@kvm svm.c svm_flush_tlb_asid, new_asid, pre_svm_run). */
import {
  TLB_CONTROL_DO_NOTHING,
  TLB_CONTROL_FLUSH_ALL_ASID,
  TLB_CONTROL_FLUSH_ASID,
  VMCB_ASID,
  VMCB_TLB_CTL,
} from '../../arch/vmcb.ts';
import type { Processor } from '../../cpu/processor.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { vmcbRead, vmcbWrite } from './vmcb-access.ts';

/** A processor's address space identifiers (@kvm svm.h struct svm_cpu_data). */
export class CpuData {
  asidGeneration = 1;
  minAsid: number;
  maxAsid: number;
  nextAsid: number;
  flushAllAsids = false;

  /** @param encrypted ASIDs from 1 on that encrypted guests have for themselves */
  constructor(asids: number, encrypted: number) {
    this.minAsid = encrypted + 1;
    this.maxAsid = asids - 1;
    this.nextAsid = this.maxAsid + 1;
  }
}

const cpuData = new WeakMap<Processor, CpuData>();

/** The data of the processor that the vCPU runs on; the vCPU keeps it, as a look-up costs more than all the rest here. */
function dataOf(vcpu: VcpuState): CpuData {
  const svm = vcpu.svm;
  if (svm.cpuData === null) {
    const known = cpuData.get(vcpu.vm.processor);
    svm.cpuData = known ?? new CpuData(vcpu.vm.profile.asids, vcpu.vm.profile.snp?.maxAsid ?? 0);
    if (known === undefined) cpuData.set(vcpu.vm.processor, svm.cpuData);
  }
  return svm.cpuData;
}

/** @kvm svm.c pre_svm_run, new_asid: a vCPU whose generation is old gets a fresh ASID. HOT */
export function preSvmRun(vcpu: VcpuState): void {
  const data = dataOf(vcpu);
  const svm = vcpu.svm;
  const { currentVmcb } = svm;
  if (currentVmcb.asidGeneration !== data.asidGeneration) {
    if (data.nextAsid > data.maxAsid) {
      data.asidGeneration++;
      data.nextAsid = data.minAsid;
      data.flushAllAsids = true;
    }
    currentVmcb.asidGeneration = data.asidGeneration;
    svm.asid = data.nextAsid++;
  }
  vmcbWrite(svm, VMCB_ASID, svm.asid);
  if (data.flushAllAsids) {
    setTlbControl(vcpu, TLB_CONTROL_FLUSH_ALL_ASID);
    data.flushAllAsids = false;
  }
}

function setTlbControl(vcpu: VcpuState, control: number): void {
  vmcbWrite(vcpu.svm, VMCB_TLB_CTL, (vmcbRead(vcpu.svm, VMCB_TLB_CTL) & ~0xff) | control);
}

/** After VMRUN the flush is done. HOT */
export function clearTlbControl(vcpu: VcpuState): void {
  setTlbControl(vcpu, TLB_CONTROL_DO_NOTHING);
}

/**
 * Drops this vCPU's translations at its next entry: by flushing its ASID, or with a new one where hardware cannot.
 * @kvm svm.c svm_flush_tlb_current
 */
export function svmFlushTlbCurrent(vcpu: VcpuState): void {
  if (vcpu.vm.profile.flushByAsid) setTlbControl(vcpu, TLB_CONTROL_FLUSH_ASID);
  else vcpu.svm.currentVmcb.asidGeneration--;
}

/** @kvm svm.c svm_flush_tlb_gva */
export function svmFlushTlbGva(vcpu: VcpuState, lo: number, hi: number): void {
  vcpu.vm.processor.invlpga(lo, hi, vcpu.svm.asid);
}
