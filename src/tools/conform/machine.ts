/** The machine that a scenario runs on: one system, one VM, its vCPUs, guest_memfds and event counters, made in the recorded order. */

import { hex } from '../../arch/halves.ts';
import { EventFd, type GuestMemfd, Kvm, KvmError, type Vcpu, type Vm } from '../../kvm/api/index.ts';
import type { Revision } from '../../kvm/mmu/revisions/revision.ts';
import type { TraceEvent } from '../../kvm/trace/events.ts';
import { checkHardware, checkRevision } from '../choices.ts';
import { UnsupportedError } from '../input-error.ts';
import { moduleParams } from '../module-params.ts';
import type { FolderMachine } from './folders.ts';
import { HelperThread } from './helper-thread.ts';
import { fromErrno, HostObjects, type OpResult } from './host-objects.ts';
import { bigInt, int, type Op, type Scenario } from './scenario.ts';
import { type StatsSnapshot, snapshot } from './stats.ts';

const MIB = 1024 * 1024;

/** The operation is for a vCPU that could not be created. */
export class MissingVcpuError extends Error {}

export class ScenarioMachine {
  readonly kvm: Kvm;
  readonly host: HostObjects;
  readonly helper: HelperThread;
  vm: Vm;
  /** VMs that operations made beside the scenario's own. */
  readonly otherVms: Vm[] = [];
  readonly vcpus = new Map<number, Vcpu>();
  readonly gmems = new Map<number, GuestMemfd>();
  readonly events = new Map<number, EventFd>();
  private trace: TraceEvent[] = [];

  constructor(scenario: Scenario, machine: FolderMachine, revision: string | Revision | undefined) {
    this.kvm = new Kvm({
      hardware: checkHardware(machine.hardware),
      params: moduleParams(machine.params),
      hostMemory: hostBytes(scenario),
      ...(revision === undefined
        ? {}
        : { revision: typeof revision === 'string' ? checkRevision(revision) : revision }),
    });
    this.host = new HostObjects(this.kvm.mm);
    this.helper = new HelperThread(this.kvm.mm.userfaults);
    this.vm = this.kvm.createVm(int(scenario.vm.type));
    this.vm.onTrace((event) => {
      this.trace.push(event);
    });
  }

  /** The events since the last call. */
  takeTrace(): TraceEvent[] {
    const taken = this.trace;
    this.trace = [];
    return taken;
  }

  stats(): StatsSnapshot {
    return snapshot(
      this.vm.stats(),
      [...this.vcpus.values()].map((vcpu) => ({ id: vcpu.id, stats: vcpu.stats() })),
    );
  }

  vcpu(op: Op): Vcpu {
    const vcpu = this.vcpus.get(int(op['vcpu']));
    if (vcpu === undefined) throw new MissingVcpuError();
    return vcpu;
  }

  event(id: unknown): EventFd {
    let event = this.events.get(int(id));
    if (event === undefined) {
      event = new EventFd();
      this.events.set(int(id), event);
    }
    return event;
  }

  close(): void {
    for (const vm of this.otherVms) vm.close();
    this.vm.close();
  }
}

/** The result of an API call: what it returned, or the errno that it threw. */
export function attempt(call: () => unknown): OpResult {
  try {
    const result = call();
    return { ret: typeof result === 'number' ? result : 0, errno: null };
  } catch (error) {
    if (error instanceof KvmError) return fromErrno(-error.code);
    throw error;
  }
}

/** CPUID of a guest: what KVM supports, with the scenario's overrides. */
export function applyCpuid(
  machine: ScenarioMachine,
  vcpu: Vcpu,
  overrides: { readonly [name: string]: unknown },
): void {
  const entries = machine.kvm.getSupportedCpuid().map((e) => ({ ...e }));
  for (const [name, value] of Object.entries(overrides)) {
    const on = (fn: number): (typeof entries)[number] | undefined => entries.find((e) => e.function === fn);
    if (name === 'maxphyaddr') {
      const e = on(0x80000008);
      if (e !== undefined) e.eax = ((e.eax & ~0xff) | int(value)) >>> 0;
    } else if (name === 'nogbpages') {
      const e = on(0x80000001);
      if (e !== undefined) e.edx = (e.edx & ~(1 << 26)) >>> 0;
    } else throw new UnsupportedError(`the CPUID override "${name}"`);
  }
  vcpu.setCpuid2(entries);
}

const segments = new Set(['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt']);

/** KVM_GET_SREGS, the given fields replaced, KVM_SET_SREGS. */
export function replaceSregs(vcpu: Vcpu, fields: { readonly [name: string]: unknown }): OpResult {
  const sregs = vcpu.getSregs() as unknown as { [name: string]: { [name: string]: unknown } | bigint | number };
  for (const [name, value] of Object.entries(fields)) {
    if (name === 'vcpu' || name === 'op') continue;
    if (segments.has(name)) {
      const segment = sregs[name] as { [name: string]: unknown };
      for (const [field, v] of Object.entries(value as { [name: string]: unknown }))
        segment[field] = like(segment[field], v);
    } else if (name.endsWith('_base') || name.endsWith('_limit')) {
      const at = name.lastIndexOf('_');
      const key = name === 'apic_base' ? null : name.slice(0, at);
      if (key === null) sregs['apicBase'] = like(sregs['apicBase'], value) as bigint;
      else {
        const table = sregs[key] as { [name: string]: unknown };
        table[name.slice(at + 1)] = like(table[name.slice(at + 1)], value);
      }
    } else sregs[name] = like(sregs[name], value) as bigint;
  }
  return attempt(() => vcpu.setSregs(sregs as never));
}

/** KVM_GET_REGS, the given registers replaced, KVM_SET_REGS. */
export function replaceRegs(vcpu: Vcpu, fields: { readonly [name: string]: unknown }): OpResult {
  const regs = vcpu.getRegs() as unknown as { [name: string]: bigint };
  for (const [name, value] of Object.entries(fields)) if (name in regs) regs[name] = bigInt(value);
  return attempt(() => vcpu.setRegs(regs as never));
}

/** `value` in the type that the API uses for the field. */
function like(old: unknown, value: unknown): unknown {
  if (typeof old === 'bigint') return bigInt(value);
  return typeof old === 'boolean' ? int(value) !== 0 : int(value);
}

/** Registers of every vCPU in the recorded form: one vCPU's object itself, several keyed by id. */
export function recordRegs(machine: ScenarioMachine): { [field: string]: unknown } {
  const all = [...machine.vcpus.values()].map((vcpu) => [String(vcpu.id), recordVcpuRegs(vcpu)] as const);
  return all.length === 1 ? all[0]![1] : Object.fromEntries(all);
}

const order = [
  'rip',
  'rflags',
  'rax',
  'rbx',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
  'rsp',
  'rbp',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
];

function recordVcpuRegs(vcpu: Vcpu): { [field: string]: unknown } {
  const regs = vcpu.getRegs() as unknown as { [name: string]: bigint };
  const sregs = vcpu.getSregs();
  const record: { [field: string]: unknown } = {};
  for (const name of order) record[name] = hex(regs[name]!);
  for (const name of ['cr0', 'cr2', 'cr3', 'cr4', 'efer'] as const) record[name] = hex(sregs[name]);
  record['cs'] = hex(sregs.cs.selector);
  record['ss'] = hex(sregs.ss.selector);
  record['cpl'] = String(sregs.ss.dpl);
  return record;
}

/** Memory for the scenario's objects and KVM's own tables. */
function hostBytes(scenario: Scenario): number {
  let bytes = 80 * MIB;
  let gigabytes = 0;
  for (const mem of scenario.mems) {
    if (mem['kind'] === 'hugetlb1g') gigabytes += Math.ceil(int(mem['size']) / (1024 * MIB));
    else bytes += Math.ceil(int(mem['size']) / (2 * MIB)) * 4 * MIB;
  }
  for (const gmem of scenario.guest_memfds) bytes += Math.min(int(gmem['size']), 64 * MIB);
  if (gigabytes > 0) bytes += (gigabytes + 1) * 1024 * MIB;
  // Physical memory comes in pieces of 64 KiB.
  return Math.min(Math.ceil(bytes / 0x1_0000) * 0x1_0000, 4032 * MIB);
}
