import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { exceptionName } from '../../arch/exceptions.ts';
import { RIP } from '../../arch/registers.ts';
import { FlatMachine, type Outcome, segmentNames } from './flat-machine.testing.ts';

/**
 * Recordings of a real kernel. Those that need no more than memory that is mapped to itself, a device and one processor are played on the
 * emulator alone.
 */
const corpus = join(import.meta.dirname, '../../../conformance/npt');
const registers = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');
const INTERNAL_ERROR = 17;
const EXCEPTION_PORT = 0xee;
const HOLE = 0xd000_0000;
const MAX_INSTRUCTIONS = 5000;

// biome-ignore lint/suspicious/noExplicitAny: files of the corpus are checked by use
type Json = any;

/** True when nothing but execution happens: one plain slot at zero, one vCPU, only runs, tables that map addresses to themselves. */
function isPlain(scenario: Json): boolean {
  const { vm, slots, guest, steps, attributes, after_vcpu } = scenario;
  if (vm.type !== 0 || guest.vcpus !== 1 || vm.setup.length > 0 || attributes.length > 0) return false;
  if ((after_vcpu ?? []).length > 0 || slots.length !== 1 || Number(slots[0].gpa) !== 0 || slots[0].flags !== 0)
    return false;
  return steps.every(
    (step: Json) =>
      step.do.op === 'run' && !step.expect.interrupted && !step.do.immediate && !step.stale_completion_data,
  );
}

/** A guest's page tables, as text. */
function tablesOf(scenario: Json): string {
  return JSON.stringify(scenario.memory.filter((part: Json) => part.qwords !== undefined));
}

/** Page tables that many scenarios share are the ones that map addresses to themselves. */
function usualTables(scenarios: Json[]): Set<string> {
  const count = new Map<string, number>();
  for (const scenario of scenarios) {
    const tables = tablesOf(scenario);
    count.set(tables, (count.get(tables) ?? 0) + 1);
  }
  return new Set([...count].filter(([, times]) => times >= 5).map(([tables]) => tables));
}

function machineOf(scenario: Json): FlatMachine {
  const machine = new FlatMachine(Number(scenario.slots[0].size));
  for (const { gpa, hex, qwords } of [...scenario.memory, ...scenario.guest.code]) {
    // Tables come as qwords; there is no paging here.
    if (qwords === undefined) machine.memory.set(Buffer.from(hex, 'hex'), Number(gpa));
  }
  const sregs = scenario.guest.sregs[0];
  const regs = scenario.guest.regs[0];
  for (const [name, sreg] of Object.entries(segmentNames)) {
    const from = sregs[name];
    if (from === undefined) continue;
    const to = machine.segments[sreg]!;
    for (const key of ['selector', 'limit', 'type', 's', 'dpl', 'l', 'db', 'g'] as const)
      to[key] = Number(from[key] ?? 0);
    to.p = Number(from.present);
    to.baseLo = Number(BigInt.asIntN(32, BigInt(from.base ?? 0)));
  }
  machine.privilege = machine.segments[2]!.dpl;
  machine.cr[0] = BigInt(sregs.cr0 ?? 0x30);
  machine.cr[3] = BigInt(sregs.cr3 ?? 0);
  machine.cr[4] = BigInt(sregs.cr4 ?? 0);
  machine.msrs.set(0xc000_0080, BigInt(sregs.efer ?? 0));
  machine.gdt = { limit: Number(sregs.gdt_limit ?? 0), baseLo: Number(sregs.gdt_base ?? 0), baseHi: 0 };
  machine.idt = { limit: Number(sregs.idt_limit ?? 0xffff), baseLo: Number(sregs.idt_base ?? 0), baseHi: 0 };
  registers.forEach((name, nr) => {
    machine.setReg(nr, BigInt(regs[name] ?? 0));
  });
  machine.setReg(RIP, BigInt(regs.rip));
  machine.eflags = Number(regs.rflags);
  return machine;
}

/** Runs until something must be answered. */
function run(machine: FlatMachine, first: Outcome | null): Outcome {
  let outcome = first;
  for (let i = 0; i < MAX_INSTRUCTIONS; i++) {
    if (outcome !== null && outcome.kind !== 'done') return outcome;
    outcome = machine.step();
  }
  return { kind: 'failed' };
}

/** Plays a scenario; the first difference, or null. `null` also once something happens that the emulator alone cannot do. */
function play(scenario: Json): string | null | 'skipped' {
  const machine = machineOf(scenario);
  let waiting = false;
  for (const step of scenario.steps) {
    const { run: exit, regs } = step.expect;
    const answer = Buffer.from(step.do.mmio_data ?? step.do.io_data ?? '', 'hex');
    const data = new Uint8Array(64);
    data.set(answer);
    const outcome = run(machine, waiting ? machine.resume(data) : null);
    waiting = outcome.kind === 'mmio-read' || outcome.kind === 'mmio-write' || outcome.kind === 'io-in';
    let seen: string;
    let want: string;
    if (outcome.kind === 'failed') {
      // Either KVM says so too, or the processor itself executed it.
      return exit.exit_reason === INTERNAL_ERROR ? null : 'skipped';
    }
    const trace: Json[] = step.expect.trace ?? [];
    if (outcome.kind === 'exception') {
      const name = exceptionName(outcome.vector!);
      const injected = trace.some(({ event, fields }) => event === 'kvm_inj_exception' && fields.text.startsWith(name));
      if (injected) return null;
      const vector = Number(scenario.guest.mode === 'long64' ? regs.r15 : regs.rsi);
      const caught = exit.exit_name === 'IO' && Number(exit.port) === EXCEPTION_PORT;
      return caught && vector === outcome.vector ? null : `${name} against ${exit.exit_name}`;
    }
    // With paging only the hole is a device for certain; what else lies beyond memory, page tables decide.
    const paged = machine.cr[0]! >> 31n !== 0n;
    if (paged && outcome.kind.startsWith('mmio') && outcome.address! < HOLE) return 'skipped';
    // The processor may execute by itself what the emulator would have to ask for.
    const rip = machine.reg(RIP);
    const emulated = trace.some(
      ({ event, fields }) => event === 'kvm_emulate_insn' && BigInt(`0x${fields.rip}`) === rip,
    );
    if (outcome.kind === 'mmio-read' && exit.exit_name !== 'MMIO' && !emulated) return 'skipped';
    const hex = outcome.data && outcome.kind !== 'mmio-read' ? Buffer.from(outcome.data).toString('hex') : '';
    if (exit.exit_name === 'MMIO') {
      seen = `${outcome.kind} ${outcome.address} ${outcome.bytes} ${hex}`;
      want = `${exit.is_write ? 'mmio-write' : 'mmio-read'} ${Number(exit.phys_addr)} ${exit.len} ${exit.data}`;
    } else if (exit.exit_name === 'HLT') {
      seen = outcome.kind;
      want = 'halted';
    } else if (exit.exit_name === 'IO') {
      seen = outcome.kind;
      want = exit.direction === 'in' || exit.direction === 0 ? 'io-in' : 'io-out';
    } else {
      seen = outcome.kind;
      want = exit.exit_name;
    }
    if (seen !== want) return `${seen} against ${want}`;
    for (const [nr, name] of registers.entries()) {
      if (regs[name] !== undefined && machine.reg(nr) !== BigInt(regs[name])) {
        return `${name} ${machine.reg(nr).toString(16)} against ${regs[name]}`;
      }
    }
    if (exit.exit_name === 'MMIO' && machine.reg(RIP) !== BigInt(regs.rip)) {
      return `rip ${machine.reg(RIP).toString(16)} against ${regs.rip}`;
    }
    if (outcome.kind === 'halted') return null;
  }
  return null;
}

describe('recorded programs', () => {
  const names = readdirSync(corpus).filter((file) => file.endsWith('.json'));
  const all = names.map((file) => JSON.parse(readFileSync(join(corpus, file), 'utf8')));
  const usual = usualTables(all);
  const scenarios = all.filter((scenario) => isPlain(scenario) && usual.has(tablesOf(scenario)));

  it('exit, answer and end as the kernel did', () => {
    const different: string[] = [];
    let played = 0;
    for (const scenario of scenarios) {
      const difference = play(scenario);
      if (difference === 'skipped') continue;
      played++;
      if (difference !== null) different.push(`${scenario.name}: ${difference}`);
    }
    expect(different).toEqual([]);
    expect(played).toBeGreaterThan(50);
  });
});
