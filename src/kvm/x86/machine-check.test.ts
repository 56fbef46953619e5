import { expect, test } from 'vitest';
import { KvmError } from '../api/index.ts';
import { makeGuest } from './guest.testing.ts';

const VAL = 1n << 63n;
const OVER = 1n << 62n;
const UC = 1n << 61n;
const S = 1n << 56n;

function makeVcpu() {
  const { vcpu } = makeGuest([0xf4], { irqchip: true });
  const get = (index: number): bigint | null => {
    const entry = { index, data: 0n };
    return vcpu.getMsrs([entry]) === 1 ? entry.data : null;
  };
  const set = (index: number, data: bigint): boolean => vcpu.setMsrs([{ index, data }]) === 1;
  return { vcpu, get, set };
}

const error = (status: bigint, addr = 0x1000n) => ({ bank: 1, status, addr, misc: 0x8cn, mcgStatus: 5n });

test('banks: how many, what they are after KVM_X86_SETUP_MCE, and what may be written', () => {
  const { vcpu, get, set } = makeVcpu();
  expect([get(0x179), get(0x17b), get(0x400), get(0x47f)]).toEqual([32n, 0n, 0n, 0n]);
  for (const cap of [0, 33, 10 | (1 << 27), 10 | (1 << 10)]) expect(() => vcpu.setupMce(cap)).toThrow(KvmError);
  vcpu.setupMce(10 | (1 << 8) | (1 << 24));
  const ones = 0xffff_ffff_ffff_ffffn;
  expect([get(0x179), get(0x17b), get(0x400), get(0x424), get(0x428)]).toEqual([0x100010an, ones, ones, ones, null]);
  expect([set(0x17b, 1n), set(0x17b, 0n), set(0x400, ones - 1n), set(0x400, 7n)]).toEqual([false, true, true, false]);
  expect([set(0x401, 5n), get(0x401), set(0x17a, 4n), get(0x17a)]).toEqual([true, 5n, true, 4n]);
});

test('errors: logged, overwritten, raised, and too much for a guest that is not ready', () => {
  const { vcpu, get, set } = makeVcpu();
  expect(() => vcpu.setMce({ ...error(VAL), bank: 32 })).toThrow(KvmError);
  expect(() => vcpu.setMce(error(UC))).toThrow(KvmError);
  vcpu.setupMce(4 | (1 << 8));
  // Corrected: logged, and no event.
  vcpu.setMce(error(VAL | 1n));
  expect([get(0x405), get(0x406), get(0x407)]).toEqual([VAL | 1n, 0x1000n, 0x8cn]);
  vcpu.setMce(error(VAL | 2n, 0x2000n));
  expect([get(0x405), get(0x406)]).toEqual([VAL | OVER | 2n, 0x2000n]);
  // Uncorrected, with the bank switched off: nothing.
  set(0x404, 0n);
  vcpu.setMce(error(VAL | UC | S, 0x3000n));
  expect([get(0x406), vcpu.getVcpuEvents().exception.pending]).toEqual([0x2000n, false]);
  set(0x404, 0xffff_ffff_ffff_ffffn);
  const sregs = vcpu.getSregs();
  vcpu.setSregs({ ...sregs, cr4: sregs.cr4 | 0x40n });
  vcpu.setMce(error(VAL | UC | S, 0x3000n));
  const { exception } = vcpu.getVcpuEvents();
  expect([exception.nr, get(0x17a), get(0x406), get(0x405)]).toEqual([18, 5n, 0x3000n, VAL | UC | S | OVER]);
  // A second one while the guest is busy with the first.
  vcpu.setMce(error(VAL | UC | S));
  expect(vcpu.run({ maxExits: 10 }).exit).toEqual({ reason: 'shutdown' });
});
