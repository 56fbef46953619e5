/** Several vCPUs on one processor: who has something to do, and time while nobody has. */
import { MP_STATE_INIT_RECEIVED, MP_STATE_RUNNABLE, MP_STATE_UNINITIALIZED, type VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { vcpuHasEvents } from './inject-events.ts';
import { passIdleTime, skipToTimer, virtualNow } from './virtual-time.ts';

/** Timers that may fire without waking anybody before a halt is taken to last for ever. */
export const IDLE_TIMERS = 1_000;

/** Ticks that a vCPU spins at a time when nobody else has anything to do: it waits for time to pass. */
const SPIN_TIME = 10_000;

/** It runs, or would, as something waits for it. One that waits for a SIPI takes nothing else. */
function isRunnable(vcpu: VcpuState): boolean {
  const apic = vcpu.x86.lapic;
  if (vcpu.mpState === MP_STATE_UNINITIALIZED || vcpu.mpState === MP_STATE_INIT_RECEIVED) {
    return apic !== null && (apic.pendingInit || apic.pendingSipi);
  }
  return (vcpu.mpState === MP_STATE_RUNNABLE && !vcpu.x86.apfHalted) || vcpuHasEvents(vcpu);
}

/** Time moves on from timer to timer until `woken`; false when that never comes. */
export function idleUntil(vm: VmState, woken: () => boolean): boolean {
  for (let n = 0; !woken(); n++) if (n === IDLE_TIMERS || !skipToTimer(vm)) return false;
  return true;
}

/** All vCPUs are blocked: time moves on to what wakes one of them. False when nothing does. */
export function vmIdle(vm: VmState): boolean {
  return vm.vcpus.some(isRunnable) || idleUntil(vm, () => vm.vcpus.some(isRunnable));
}

/** The vCPU spins: others that can run go first; without any, time goes by. @kvm kvm_main.c kvm_vcpu_on_spin */
export function vcpuOnSpin(vcpu: VcpuState): void {
  if (!vcpu.haltReturns) return;
  const { vm } = vcpu;
  for (const other of vm.vcpus) {
    if (other === vcpu || !isRunnable(other)) continue;
    vcpu.signal = true;
    return;
  }
  passIdleTime(vm, Math.max(0, Math.min(SPIN_TIME, vm.x86.timers.next - virtualNow(vm))));
}
