/** Takes down what the stages of one revision answer, and the trace, for one side of a demonstration. */
import { hex, join64 } from '../../arch/halves.ts';
import { errnoName } from '../../host/errno.ts';
import type { PageFault } from '../../kvm/mmu/fault.ts';
import type { FaultRecorder } from '../../kvm/mmu/recorder.ts';
import { retPfName } from '../../kvm/mmu/ret-pf.ts';
import type { TraceEvent } from '../../kvm/trace/events.ts';
import type { VmState } from '../../kvm/vm-state.ts';
import type { StageView } from './demonstration.ts';

/** Fields of trace events that hold a whole SPTE. */
const SPTES: ReadonlySet<string> = new Set(['spte', 'old', 'new']);

/** A fault that entered the stages. */
export interface RecordedFault {
  /** The code as the stages saw it, hex. */
  readonly code: string;
  /** KVM made the fault itself, ahead of an access. */
  readonly prefetch: boolean;
  readonly stages: StageView[];
  verdict: string;
}

export class SideRecorder implements FaultRecorder {
  readonly faults: RecordedFault[] = [];
  readonly trace: string[] = [];
  private readonly vm: VmState;

  /** Listens to the VM's fault path from now on. */
  constructor(vm: VmState) {
    this.vm = vm;
    vm.mmu.recorder = this;
  }

  /** Hears of a trace event. */
  event(event: TraceEvent): void {
    const fields = Object.entries(event.fields).filter(([name]) => name !== 'rip' && name !== 'vcpu');
    const text = fields.map(([name, value]) =>
      name === 'text' ? String(value) : `${name} ${SPTES.has(name) ? withoutFrame(value) : value}`,
    );
    this.trace.push(`${event.event}: ${text.join(' ')}`);
  }

  begin(fault: PageFault): void {
    this.faults.push({
      code: hex(join64(fault.errorLo, fault.errorHi)),
      prefetch: fault.prefetch,
      stages: [],
      verdict: '',
    });
  }

  stage(name: string, verdict: number, reason: string): void {
    const stage = this.vm.revision.stages.find((s) => s.name === name);
    const kvmFunction = stage?.kvmFunction ?? 'kvm_mmu_page_fault';
    this.faults.at(-1)?.stages.push({ name, kvmFunction, verdict: verdictText(verdict), reason: reasonText(reason) });
  }

  end(_fault: PageFault, result: number): void {
    const fault = this.faults.at(-1);
    if (fault !== undefined) fault.verdict = verdictText(result);
  }
}

function verdictText(verdict: number): string {
  return verdict < 0 ? errnoName(-verdict) : retPfName(verdict);
}

/** Frames and host addresses are the machine's, not the change's. */
function reasonText(reason: string): string {
  return reason
    .replace('frame 0x-4', 'KVM_PFN_NOSLOT, whose bits as a frame are 0')
    .replace(/hva 0x[0-9a-f]+/, 'the hva')
    .replace(/frame 0x[0-9a-f]+/, 'the frame');
}

/** An SPTE without its frame; anything else as it is. */
function withoutFrame(value: unknown): string {
  if (typeof value !== 'string' || !/^0x[0-9a-f]+$/.test(value)) return String(value);
  const word = BigInt(value);
  if ((word & 0x800n) === 0n || word >> 12n === 0n) return value;
  return `0x${(word & ~0xff_ffff_f000n).toString(16)}+pfn`;
}
