import { describe, expect, it } from 'vitest';
import { LINE_BROKEN, LINE_EVENT, LINE_LOST, LINE_NOTHING, LINE_STRANGE, readLine } from './text-line.ts';
import { TraceRecord } from './trace-record.ts';

const FAULT = 'vcpu 0 rip 0xa000 address 0x0000000000010000 error_code 0x200000006';
const record = new TraceRecord();

function read(line: string): number {
  const bytes = new TextEncoder().encode(line);
  return readLine(record, bytes, 0, bytes.length);
}

describe('a line', () => {
  it.each([
    ['of trace_pipe', `        recorder-94      [000] .N...     2.715472: kvm_page_fault: ${FAULT}`, 'recorder', 94],
    [
      'of trace with thread groups',
      `  CPU 0/KVM-2140    (   2134) [012] d..1.     2.715472: kvm_page_fault: ${FAULT}`,
      'CPU 0/KVM',
      2140,
    ],
    [
      'of a task without a name',
      `           <...>-1234  [003] ....     2.715472: kvm_page_fault: ${FAULT}`,
      '<...>',
      1234,
    ],
    [
      'of trace-cmd report',
      ` qemu-system-x86-2140  [003]     2.715472: kvm_page_fault:       ${FAULT}`,
      'qemu-system-x86',
      2140,
    ],
    [
      'of trace-cmd report in nanoseconds',
      `    qemu-kvm-2140  [003] d....     2.715472000: kvm_page_fault:       ${FAULT}`,
      'qemu-kvm',
      2140,
    ],
    [
      'of perf script',
      `qemu-system-x86  2140 [003]     2.715472:            kvm:kvm_page_fault: ${FAULT}`,
      'qemu-system-x86',
      2140,
    ],
    [
      'of perf script with process and thread',
      `CPU 0/KVM  2134/2140  [003]     2.715472:          1 kvm:kvm_page_fault: ${FAULT}`,
      'CPU 0/KVM',
      2140,
    ],
  ])('%s', (_what, line, comm, pid) => {
    expect(read(line)).toBe(LINE_EVENT);
    expect([record.comm(), record.pid, record.time, record.event?.name, record.text()]).toEqual([
      comm,
      pid,
      2_715_472_000,
      'kvm_page_fault',
      FAULT,
    ]);
  });

  it('of another subsystem is an event, and not of KVM', () => {
    expect(read('  bash-1 [000] d..2. 1.000001: sched_switch: prev_comm=bash ==> next_comm=kvm')).toBe(LINE_EVENT);
    expect([record.event, record.name()]).toEqual([null, 'sched_switch']);
  });

  it('of a trace clock that counts', () => {
    expect(read(`  qemu-1 [000] ..... 123456789012: kvm_page_fault: ${FAULT}`)).toBe(LINE_EVENT);
    expect(record.time).toBe(123456789012);
  });

  it.each([
    ['# tracer: nop', LINE_NOTHING],
    ['', LINE_NOTHING],
    ['cpus=4', LINE_NOTHING],
    ['CPU:3 [LOST 1234 EVENTS]', LINE_LOST],
    ['CPU:3 [4096 EVENTS DROPPED]', LINE_LOST],
    ['what is this', LINE_STRANGE],
    ['[000] nothing', LINE_STRANGE],
    ['  qemu-1 [000] ..... 1.5: kvm_page_fault: vcpu 0 rip 0xa0', LINE_BROKEN],
    ['  qemu-1 [000] ..... 1.5: kvm_exit: reason', LINE_BROKEN],
  ])('"%s"', (line, kind) => {
    expect(read(line)).toBe(kind);
  });
});
