/** The local APIC's registers as memory (@kvm lapic.c apic_mmio_read, apic_mmio_write, kvm_lapic_reg_write). */
import { EOPNOTSUPP } from '../../host/errno.ts';
import { makeRequest, REQ_APF_READY, type VcpuState } from '../vcpu-state.ts';
import * as A from './lapic.ts';
import { currentCount, startApicTimer, updateDivideCount, updateTimerMode } from './lapic-timer.ts';
import { hasQuirk, KVM_X86_QUIRK_LAPIC_MMIO_HOLE } from './vm-x86.ts';

const names: Record<number, string> = {
  32: 'APIC_ID',
  48: 'APIC_LVR',
  128: 'APIC_TASKPRI',
  144: 'APIC_ARBPRI',
  160: 'APIC_PROCPRI',
  176: 'APIC_EOI',
  192: 'APIC_RRR',
  208: 'APIC_LDR',
  224: 'APIC_DFR',
  240: 'APIC_SPIV',
  256: 'APIC_ISR',
  384: 'APIC_TMR',
  512: 'APIC_IRR',
  640: 'APIC_ESR',
  768: 'APIC_ICR',
  784: 'APIC_ICR2',
  800: 'APIC_LVTT',
  816: 'APIC_LVTTHMR',
  832: 'APIC_LVTPC',
  848: 'APIC_LVT0',
  864: 'APIC_LVT1',
  880: 'APIC_LVTERR',
  896: 'APIC_TMICT',
  912: 'APIC_TMCCT',
  992: 'APIC_TDCR',
  1008: 'APIC_SELF_IPI',
};

function trace(vcpu: VcpuState, write: boolean, reg: number, value: number): void {
  const events = vcpu.vm.trace;
  if (!events.enabled) return;
  const name = names[reg] ?? `0x${reg.toString(16)}`;
  const text = `apic_${write ? 'write' : 'read'} ${name} = 0x${(value >>> 0).toString(16)}`;
  events.emit('kvm_apic', { text });
}

/** Registers that can be read: all but EOI, and the 8 words each of ISR, TMR and IRR. */
function readable(off: number): boolean {
  const reg = off & ~0xf;
  if (reg >= A.APIC_ISR && reg < A.APIC_ISR + 0x180) return true;
  return names[reg] !== undefined && reg !== A.APIC_EOI && reg !== 0xc0 && reg !== 0x3f0;
}

function regValue(apic: A.Lapic, reg: number): number {
  if (reg === A.APIC_ARBPRI) return 0;
  if (reg === A.APIC_TMCCT) return currentCount(apic);
  if (reg === A.APIC_PROCPRI) A.lapicUpdatePpr(apic);
  return A.lapicReg(apic, reg);
}

function inRange(apic: A.Lapic, gpa: number): boolean {
  return gpa >= apic.baseAddress && gpa < apic.baseAddress + 4096;
}

/** Switched off by IA32_APIC_BASE: the page is a hole, which by default swallows what is done to it. 1 a live APIC, 0 swallowed. */
function liveness(vcpu: VcpuState): number {
  if (A.lapicHwEnabled(vcpu)) return 1;
  return hasQuirk(vcpu.vm.x86, KVM_X86_QUIRK_LAPIC_MMIO_HOLE) ? 0 : -EOPNOTSUPP;
}

/** 0 answered, -EOPNOTSUPP not the APIC's. A read it cannot answer leaves `buf` as it is. @kvm lapic.c apic_mmio_read */
export function lapicMmioRead(vcpu: VcpuState, gpa: number, len: number, buf: Uint8Array, off: number): number {
  const apic = vcpu.x86.lapic!;
  if (!inRange(apic, gpa)) return -EOPNOTSUPP;
  const live = liveness(vcpu);
  if (live < 0) return live;
  if (live === 0) {
    buf.fill(0xff, off, off + len);
    return 0;
  }
  const offset = gpa - apic.baseAddress;
  const within = offset & 0xf;
  if (within + len > 4 || offset > 0x3f0 || !readable(offset)) return 0;
  const value = regValue(apic, offset & ~0xf);
  trace(vcpu, false, offset, value);
  for (let i = 0; i < len; i++) buf[off + i] = value >>> (8 * (within + i));
  return 0;
}

const LVT_MASK: Record<number, number> = {
  [A.APIC_LVTTHMR]: 0x117ff,
  [A.APIC_LVTPC]: 0x117ff,
  [A.APIC_LVT0]: 0x1b7ff,
  [A.APIC_LVT1]: 0x1b7ff,
  [A.APIC_LVTERR]: 0x110ff,
};
const LVTT_MASK = 0x110ff;

/** @kvm lapic.c kvm_lapic_reg_write */
export function lapicRegWrite(apic: A.Lapic, reg: number, value: number): void {
  trace(apic.vcpu, true, reg, value);
  switch (reg) {
    case A.APIC_ID:
      A.lapicSetReg(apic, reg, value & 0xff000000);
      break;
    case A.APIC_TASKPRI:
      A.lapicSetReg(apic, reg, value & 0xff);
      A.lapicUpdatePpr(apic);
      break;
    case A.APIC_EOI:
      A.lapicSetEoi(apic);
      break;
    case A.APIC_LDR:
      A.lapicSetReg(apic, reg, value & 0xff000000);
      break;
    case A.APIC_DFR:
      A.lapicSetReg(apic, reg, value | 0x0fffffff);
      break;
    case A.APIC_SPIV:
      A.lapicSetReg(apic, reg, value & 0x3ff);
      if ((value & A.APIC_SPIV_APIC_ENABLED) === 0) {
        for (const lvt of A.APIC_LVTS) A.lapicSetReg(apic, lvt, A.lapicReg(apic, lvt) | A.APIC_LVT_MASKED);
      } else {
        // A page that became ready meanwhile can be announced now.
        makeRequest(apic.vcpu, REQ_APF_READY);
      }
      break;
    case A.APIC_ICR:
      A.lapicSetReg(apic, reg, value & ~(1 << 12));
      A.lapicSendIpi(apic, value & ~(1 << 12), A.lapicReg(apic, A.APIC_ICR2));
      break;
    case A.APIC_ICR2:
      A.lapicSetReg(apic, reg, value & 0xff000000);
      break;
    case A.APIC_LVTTHMR:
    case A.APIC_LVTPC:
    case A.APIC_LVT0:
    case A.APIC_LVT1:
    case A.APIC_LVTERR: {
      const masked = A.lapicSwEnabled(apic) ? value : value | A.APIC_LVT_MASKED;
      A.lapicSetReg(apic, reg, masked & LVT_MASK[reg]!);
      break;
    }
    case A.APIC_LVTT: {
      const masked = A.lapicSwEnabled(apic) ? value : value | A.APIC_LVT_MASKED;
      A.lapicSetReg(apic, reg, masked & (LVTT_MASK | apic.timerModeMask));
      updateTimerMode(apic);
      break;
    }
    case A.APIC_TMICT:
      A.lapicSetReg(apic, reg, value);
      startApicTimer(apic);
      break;
    case A.APIC_TDCR:
      A.lapicSetReg(apic, reg, value & 0xb);
      updateDivideCount(apic);
      break;
    default:
      // ESR and reserved offsets ignore writes.
      break;
  }
}

/** @kvm lapic.c apic_mmio_write: only aligned 32-bit writes do anything. */
export function lapicMmioWrite(vcpu: VcpuState, gpa: number, len: number, buf: Uint8Array, off: number): number {
  const apic = vcpu.x86.lapic!;
  if (!inRange(apic, gpa)) return -EOPNOTSUPP;
  const live = liveness(vcpu);
  if (live <= 0) return live;
  const offset = gpa - apic.baseAddress;
  if (len !== 4 || (offset & 0xf) !== 0) return 0;
  const value = buf[off]! | (buf[off + 1]! << 8) | (buf[off + 2]! << 16) | (buf[off + 3]! << 24);
  lapicRegWrite(apic, offset & 0xff0, value);
  return 0;
}
