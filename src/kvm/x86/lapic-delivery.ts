/**
 * Interrupts on their way between APICs: who is addressed, and what an APIC does with one (@kvm lapic.c kvm_apic_match_dest,
 * __apic_accept_irq).
 */
import { KVM_EINVAL } from '../kvm-para.ts';
import { makeRequest, REQ_EVENT, REQ_NMI, type VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import {
  APIC_DFR,
  APIC_DM_FIXED,
  APIC_DM_INIT,
  APIC_DM_LOWEST,
  APIC_DM_NMI,
  APIC_DM_SMI,
  APIC_DM_STARTUP,
  APIC_ID,
  APIC_IRR,
  APIC_LDR,
  APIC_LVT_MASKED,
  APIC_LVT0,
  APIC_TMR,
  type Lapic,
  lapicEnabled,
  lapicHwEnabled,
  lapicReg,
  lapicSwEnabled,
  setVector,
  x2apicMode,
} from './lapic.ts';
import { injectSmi } from './smm.ts';

/** Bits of an ICR's low half. */
export const APIC_DEST_LOGICAL = 1 << 11;
export const APIC_INT_ASSERT = 1 << 14;
export const APIC_INT_LEVELTRIG = 1 << 15;
const APIC_SHORTHAND = 3 << 18;
/** Vector and delivery mode, of an LVT entry as of an ICR. */
const APIC_LVT_DELIVERY = 0x7ff;

const deliverModes = ['Fixed', 'LowPrio', 'SMI', 'Res3', 'NMI', 'INIT', 'SIPI', 'ExtINT'];

/**
 * An interrupt arrives; true when it was taken. `icr` says as the low half of an ICR what it is: vector, delivery mode, level, trigger.
 * @kvm lapic.c __apic_accept_irq
 */
export function lapicAcceptIrq(apic: Lapic, icr: number): boolean {
  const mode = (icr >> 8) & 7;
  const vector = icr & 0xff;
  const level = (icr & APIC_INT_ASSERT) !== 0;
  const levelTriggered = (icr & APIC_INT_LEVELTRIG) !== 0;
  const vcpu = apic.vcpu;
  const trace = vcpu.vm.trace;
  if (trace.enabled) {
    const text = `apicid ${vcpu.id.toString(16)} vec ${vector} (${deliverModes[mode]}|${levelTriggered ? 'level' : 'edge'})`;
    trace.emit('kvm_apic_accept_irq', { text });
  }
  switch (mode) {
    case APIC_DM_LOWEST:
    case APIC_DM_FIXED:
      if ((levelTriggered && !level) || !lapicEnabled(apic)) return false;
      setVector(apic, APIC_TMR, vector, levelTriggered);
      setVector(apic, APIC_IRR, vector, true);
      makeRequest(vcpu, REQ_EVENT);
      return true;
    case APIC_DM_SMI:
      injectSmi(vcpu);
      return true;
    case APIC_DM_NMI:
      vcpu.x86.nmiQueued++;
      makeRequest(vcpu, REQ_NMI);
      return true;
    case APIC_DM_INIT:
      if (levelTriggered && !level) return false;
      apic.pendingInit = true;
      apic.pendingSipi = false;
      makeRequest(vcpu, REQ_EVENT);
      return true;
    case APIC_DM_STARTUP:
      apic.sipiVector = vector;
      apic.pendingSipi = true;
      makeRequest(vcpu, REQ_EVENT);
      return true;
    default:
      // Remote read and ExtINT do nothing here.
      return false;
  }
}

/** One of the APIC's own sources: its entry of the local vector table says what it does. @kvm lapic.c kvm_apic_local_deliver */
export function lapicLocalDeliver(apic: Lapic, lvt: number): void {
  const entry = lapicReg(apic, lvt);
  if (!lapicHwEnabled(apic.vcpu) || (entry & APIC_LVT_MASKED) !== 0) return;
  lapicAcceptIrq(apic, (entry & (APIC_LVT_DELIVERY | APIC_INT_LEVELTRIG)) | APIC_INT_ASSERT);
}

function lint0IsNmi(vcpu: VcpuState): boolean {
  const apic = vcpu.x86.lapic;
  return apic !== null && ((lapicReg(apic, APIC_LVT0) >> 8) & 7) === APIC_DM_NMI;
}

/** The PIT's tick reaches every LINT0 while one of them takes it as an NMI. @kvm lapic.c kvm_apic_nmi_wd_deliver */
export function nmiWatchdog(vm: VmState): void {
  if (!vm.vcpus.some(lint0IsNmi)) return;
  for (const { x86 } of vm.vcpus) if (x86.lapic !== null) lapicLocalDeliver(x86.lapic, APIC_LVT0);
}

const APIC_BROADCAST = 0xff;
const X2APIC_BROADCAST = 0xffffffff;

/** The destination as `apic` reads it: a device's broadcast reaches x2APIC mode too. @kvm lapic.c kvm_apic_mda */
function mdaOf(apic: Lapic, dest: number, fromDevice: boolean): number {
  const quirk = !apic.vcpu.vm.x86.x2apicBroadcastQuirkDisabled;
  return quirk && fromDevice && dest === APIC_BROADCAST && x2apicMode(apic) ? X2APIC_BROADCAST : dest;
}

/** @kvm lapic.c kvm_apic_match_physical_addr */
function matchesPhysical(apic: Lapic, dest: number): boolean {
  const wide = x2apicMode(apic);
  if (dest === (wide ? X2APIC_BROADCAST : APIC_BROADCAST)) return true;
  return wide || dest > 0xff ? dest === apic.vcpu.id : dest === lapicReg(apic, APIC_ID) >>> 24;
}

/** @kvm lapic.c kvm_apic_match_logical_addr */
function matchesLogical(apic: Lapic, dest: number): boolean {
  const wide = x2apicMode(apic);
  if (dest === (wide ? X2APIC_BROADCAST : APIC_BROADCAST)) return true;
  const ldr = lapicReg(apic, APIC_LDR);
  if (wide) return ldr >>> 16 === dest >>> 16 && (ldr & dest & 0xffff) !== 0;
  const id = ldr >>> 24;
  if (lapicReg(apic, APIC_DFR) === 0xffffffff) return (id & dest) !== 0;
  return id >> 4 === dest >> 4 && (id & dest & 0xf) !== 0;
}

/** `source` is null for a device. @kvm lapic.c kvm_apic_match_dest */
function matches(apic: Lapic, source: Lapic | null, shorthand: number, dest: number, logical: boolean): boolean {
  const mda = mdaOf(apic, dest, source === null);
  switch (shorthand) {
    case 1:
      return apic === source;
    case 2:
      return true;
    case 3:
      return apic !== source;
    default:
      return logical ? matchesLogical(apic, mda) : matchesPhysical(apic, mda);
  }
}

/** The vCPU has something to do: the one that gave it may let it. @kvm kvm_main.c kvm_vcpu_kick */
function kick(source: Lapic | null, target: Lapic): void {
  if (source !== null && source !== target && source.vcpu.handsOver) source.vcpu.signal = true;
}

/** Of several that would take a lowest-priority interrupt the vector chooses one. @kvm irq_comm.c kvm_vector_to_index */
function lowestPriority(candidates: readonly Lapic[], vector: number): readonly Lapic[] {
  const able = candidates.filter(lapicSwEnabled);
  return able.length === 0 ? [] : [able[vector % able.length]!];
}

/**
 * An interrupt from `source`, null for a device, to whoever it is addressed to; the number of APICs that took it.
 * @kvm irq_comm.c kvm_irq_delivery_to_apic
 */
function deliver(vm: VmState, source: Lapic | null, dest: number, icr: number): number {
  const logical = (icr & APIC_DEST_LOGICAL) !== 0;
  const shorthand = (icr >> 18) & 3;
  const candidates: Lapic[] = [];
  for (const vcpu of vm.vcpus) {
    const target = vcpu.x86.lapic;
    if (target !== null && lapicHwEnabled(vcpu) && matches(target, source, shorthand, dest, logical)) {
      candidates.push(target);
    }
  }
  const lowest = ((icr >> 8) & 7) === APIC_DM_LOWEST && (logical || dest !== APIC_BROADCAST);
  let delivered = 0;
  for (const target of lowest ? lowestPriority(candidates, icr & 0xff) : candidates) {
    if (!lapicAcceptIrq(target, icr)) continue;
    delivered++;
    kick(source, target);
  }
  return delivered;
}

/** The ICR was written; the number of APICs that took it. @kvm lapic.c kvm_apic_send_ipi */
export function lapicSendIpi(apic: Lapic, icrLow: number, icrHigh: number): number {
  return deliver(apic.vcpu.vm, apic, x2apicMode(apic) ? icrHigh >>> 0 : icrHigh >>> 24, icrLow);
}

/** From a device or an MSI: to `dest`, with the rest as in the low half of an ICR; how many took it. */
export function deliverToApics(vm: VmState, dest: number, icr: number): number {
  return deliver(vm, null, dest, icr & ~APIC_SHORTHAND);
}

/**
 * One interrupt to all vCPUs whose APIC id, less `first`, is set in `bitmap`; how many took it, or -KVM_EINVAL for an ICR that names
 * destinations itself. @kvm lapic.c kvm_pv_send_ipi
 */
export function pvSendIpi(source: VcpuState, bitmap: readonly number[], first: number, icr: number): number {
  if ((icr & (APIC_DEST_LOGICAL | APIC_SHORTHAND)) !== 0) return -KVM_EINVAL;
  let count = 0;
  for (const vcpu of source.vm.vcpus) {
    const bit = vcpu.id - first;
    if (bit < 0 || bit >= bitmap.length * 32 || (bitmap[bit >> 5]! & (1 << (bit & 31))) === 0) continue;
    const target = vcpu.x86.lapic;
    if (target === null || !lapicAcceptIrq(target, icr)) continue;
    count++;
    kick(source.x86.lapic, target);
  }
  return count;
}
