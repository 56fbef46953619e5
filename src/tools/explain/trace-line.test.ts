import { describe, expect, it } from 'vitest';
import { FAULT_EVENTS, firstFaultLine, parseTraceLine } from './trace-line.ts';

/** As recorded on a kernel, through trace_pipe. */
const recorded = {
  fault:
    '        recorder-94      [000] .....     2.720466: kvm_page_fault: vcpu 0 rip 0xa005 address 0x00000000d0000000 error_code 0x100000004',
  mmio: '        recorder-288     [000] .....     8.254082: handle_mmio_page_fault: addr:0 gfn d0000 access 6',
  fast: '        recorder-296     [000] .....     8.039831: fast_page_fault: vcpu 0 gva 800000 error_code P|W|U|0x100000000 sptep 00000000461811a1 old 0x1428d1825 new 1428d1825 spurious 0 fixed 0',
  other:
    '        recorder-94      [000] .N...     2.718668: kvm_mmu_set_spte: gfn 10 spte 142855e67 (rwxu) level 1 at 142dbf080',
};
const parse = (text: string) => parseTraceLine(text, '--trace-line');

describe('a line of a trace', () => {
  it('is read as trace_pipe prints it', () => {
    expect(parse(recorded.fault)).toEqual({
      event: 'kvm_page_fault',
      line: recorded.fault.trim(),
      vcpu: 0,
      rip: 0xa005n,
      address: 0xd0000000n,
      errorCode: 0x100000004n,
      oldSpte: null,
    });
    expect(parse(recorded.mmio)).toMatchObject({
      event: 'handle_mmio_page_fault',
      address: 0xd0000000n,
      errorCode: null,
    });
    expect(parse(recorded.fast)).toMatchObject({
      event: 'fast_page_fault',
      address: 0x800000n,
      errorCode: 0x100000007n,
      oldSpte: 0x1428d1825n,
      rip: null,
    });
  });

  it.each([
    ['alone', 'kvm_page_fault: vcpu 1 rip 0xfff0 address 0x800000 error_code 0x6'],
    [
      'of trace-cmd report',
      '       CPU 1/KVM-2817  [003] 81215.183922: kvm_page_fault:       vcpu 1 rip 0xfff0 address 0x0000000000800000 error_code 0x6',
    ],
    [
      'of perf script',
      'CPU 1/KVM  2817 [003] 81215.183922:                kvm:kvm_page_fault: vcpu 1 rip 0xfff0 address 0x0000000000800000 error_code 0x6',
    ],
    [
      'with a group',
      'qemu:main-7 [000] ...1. 1.5: kvm:kvm_page_fault: vcpu 1 rip 0xfff0 address 0x800000 error_code 0x6',
    ],
    ['of an older kernel', 'kvm_page_fault: vcpu 1 rip 0xfff0 address 800000 error_code 6'],
  ])('is read %s', (_form, line) => {
    expect(parse(line)).toMatchObject({ vcpu: 1, rip: 0xfff0n, address: 0x800000n, errorCode: 6n });
  });

  it.each([
    ['nothing', ' ', /^--trace-line: is empty, expected a line with kvm_page_fault/],
    ['words', 'hello world', /^--trace-line: "hello world": expected one of the events kvm_page_fault/],
    ['another event', recorded.other, /^--trace-line: event kvm_mmu_set_spte: expected one of the events/],
    ['no address', 'kvm_page_fault: vcpu 0 rip 0xa005', /kvm_page_fault: expected address 0x\.\.\./],
    ['no code', 'kvm_page_fault: vcpu 0 rip 0xa005 address 0x1000', /kvm_page_fault: expected error_code 0x\.\.\./],
    [
      'an address of 68 bits',
      'kvm_page_fault: vcpu 0 address 0x10000000000000000 error_code 0x6',
      /expected address 0x\.\.\. of at most 64 bits/,
    ],
    [
      'unknown flags',
      'fast_page_fault: vcpu 0 gva 800000 error_code P|Q old 0x0',
      /error_code P\|Q: expected flags and hex/,
    ],
    ['two lines', `${recorded.fault}\n${recorded.fault}`, /expected one line, found 2/],
  ])('refuses %s in one line', (_what, line, message) => {
    expect(() => parse(line)).toThrow(message);
    try {
      parse(line);
    } catch (error) {
      expect((error as Error).message).not.toContain('\n');
    }
  });

  it('is the first fault of a longer text', () => {
    const text = [recorded.other, recorded.mmio, recorded.fault, ''].join('\n');
    expect(firstFaultLine(text, 'stdin').event).toBe('handle_mmio_page_fault');
    expect(() => firstFaultLine(`${recorded.other}\n${recorded.other}\n`, 'stdin')).toThrow(
      `stdin: 2 lines, none with an event ${FAULT_EVENTS.join(', ')}`,
    );
    expect(() => firstFaultLine(recorded.other, 'stdin')).toThrow(/^stdin: event kvm_mmu_set_spte/);
  });
});
