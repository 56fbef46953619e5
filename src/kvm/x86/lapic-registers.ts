/** The local APIC's registers, whichever way the guest reaches them (@kvm lapic.c kvm_lapic_reg_read, kvm_lapic_reg_write). */
import { hex64 } from '../../arch/flags.ts';
import { makeRequest, REQ_APF_READY, type VcpuState } from '../vcpu-state.ts';
import * as A from './lapic.ts';
import { lapicSendIpi } from './lapic-delivery.ts';
import { changeDivideCount, currentCount, updateTimerMode, writeInitialCount } from './lapic-timer.ts';

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

export function traceApic(vcpu: VcpuState, write: boolean, reg: number, lo: number, hi: number): void {
  const events = vcpu.vm.trace;
  if (!events.enabled) return;
  const name = names[reg] ?? `0x${reg.toString(16)}`;
  const text = `apic_${write ? 'write' : 'read'} ${name} = ${hex64(lo, hi)}`;
  events.emit('kvm_apic', { text });
}

/** Registers that can be read: all but EOI, and the 8 words each of ISR, TMR and IRR. @kvm lapic.c kvm_lapic_readable_reg_mask */
function readable(apic: A.Lapic, off: number): boolean {
  const reg = off & ~0xf;
  if (A.x2apicMode(apic) && (reg === A.APIC_ARBPRI || reg === A.APIC_DFR || reg === A.APIC_ICR2)) return false;
  if (reg >= A.APIC_ISR && reg < A.APIC_ISR + 0x180) return true;
  return names[reg] !== undefined && reg !== A.APIC_EOI && reg !== 0xc0 && reg !== 0x3f0;
}

function regValue(apic: A.Lapic, reg: number): number {
  if (reg === A.APIC_ARBPRI) return 0;
  if (reg === A.APIC_TMCCT) return currentCount(apic);
  if (reg === A.APIC_PROCPRI) A.lapicUpdatePpr(apic);
  return A.lapicReg(apic, reg);
}

/** What reads of `len` bytes at `offset` see, in the low bits; -1 when there is nothing to read. @kvm lapic.c kvm_lapic_reg_read */
export function lapicRegRead(apic: A.Lapic, offset: number, len: number): number {
  const within = offset & 0xf;
  if (within + len > 4 || offset > 0x3f0 || !readable(apic, offset)) return -1;
  const value = regValue(apic, offset & ~0xf);
  traceApic(apic.vcpu, false, offset, value, 0);
  return value >>> (8 * within);
}

const LVT_MASK: Record<number, number> = {
  [A.APIC_LVTTHMR]: 0x117ff,
  [A.APIC_LVTPC]: 0x117ff,
  [A.APIC_LVT0]: 0x1b7ff,
  [A.APIC_LVT1]: 0x1b7ff,
  [A.APIC_LVTERR]: 0x110ff,
};
const LVTT_MASK = 0x110ff;
const SHORTHAND_SELF = 1 << 18;

/** 0, or 1 where there is nothing to write: only x2APIC mode makes that a fault. @kvm lapic.c kvm_lapic_reg_write */
export function lapicRegWrite(apic: A.Lapic, reg: number, value: number): number {
  const wide = A.x2apicMode(apic);
  traceApic(apic.vcpu, true, reg, value, 0);
  switch (reg) {
    case A.APIC_ID:
      if (wide) return 1;
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
      if (wide) return 1;
      A.lapicSetReg(apic, reg, value & 0xff000000);
      break;
    case A.APIC_DFR:
      if (wide) return 1;
      A.lapicSetReg(apic, reg, value | 0x0fffffff);
      break;
    case A.APIC_SPIV:
      A.lapicSetReg(apic, reg, value & 0x3ff);
      if ((value & A.APIC_SPIV_APIC_ENABLED) === 0) {
        for (const lvt of A.APIC_LVTS) A.lapicSetReg(apic, lvt, A.lapicReg(apic, lvt) | A.APIC_LVT_MASKED);
        updateTimerMode(apic);
      } else {
        // A page that became ready meanwhile can be announced now.
        makeRequest(apic.vcpu, REQ_APF_READY);
      }
      break;
    case A.APIC_ICR:
      A.lapicSetReg(apic, reg, value & ~(1 << 12));
      lapicSendIpi(apic, value & ~(1 << 12), A.lapicReg(apic, A.APIC_ICR2));
      break;
    case A.APIC_ICR2:
      if (wide) return 1;
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
      writeInitialCount(apic, value);
      break;
    case A.APIC_TDCR:
      A.lapicSetReg(apic, reg, value & 0xb);
      changeDivideCount(apic);
      break;
    case A.APIC_ESR:
      return wide && value !== 0 ? 1 : 0;
    case A.APIC_SELF_IPI:
      if (!wide || (value & ~0xff) !== 0) return 1;
      lapicSendIpi(apic, SHORTHAND_SELF | value, 0);
      break;
    default:
      return 1;
  }
  return 0;
}
