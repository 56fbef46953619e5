import { describe, expect, it } from 'vitest';
import { KvmRun } from './kvm-run.ts';

describe('KvmRun', () => {
  it('overlaps its exits as the ABI does', () => {
    const run = new KvmRun();
    run.memoryFault.flags = 8;
    run.memoryFault.gpa = 0x12345678_9000;
    run.memoryFault.size = 0x1000;
    expect([...run.mmio.data]).toEqual([0x00, 0x90, 0x78, 0x56, 0x34, 0x12, 0, 0]);
    expect([run.mmio.physAddr, run.mmio.len]).toEqual([8, 0x1000]);
    run.internal.setData(1, 0x0301020f, 0);
    expect([run.emulationFailure.insnSize, ...run.emulationFailure.insnBytes.subarray(0, 3)]).toEqual([0x0f, 2, 1, 3]);
    run.hypercall.setRet(-1, 0);
    expect(new DataView(run.bytes.buffer).getBigUint64(88, true)).toBe(0xffff_ffffn);
    run.exitReason = 39;
    run.flags = 1;
    run.io.port = 0x3f8;
    expect([run.bytes[8], run.bytes[14], run.bytes[34], run.bytes[35]]).toEqual([39, 1, 0xf8, 3]);
    run.cr8 = 3;
    run.apicBase = 0xfee00900;
    expect([run.bytes[16], run.apicBase]).toEqual([3, 0xfee00900]);
  });
});
