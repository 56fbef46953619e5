/** Generated delivery, IRET and system instructions beside those in TypeScript: what a guest, KVM or the TLB could tell apart is the same. */
import { expect, test } from 'vitest';
import {
  VMCB_CLEAN,
  VMCB_CPL,
  VMCB_CS,
  VMCB_DS,
  VMCB_ES,
  VMCB_RAX,
  VMCB_RFLAGS,
  VMCB_RIP,
  VMCB_RSP,
  VMCB_SS,
} from '../../arch/vmcb.ts';
import { siliconEpyc } from '../profiles/silicon-epyc.ts';
import { generator } from '../semantics/native-cases.testing.ts';
import {
  ACCESS_SEG_AT,
  FLAGS_OP,
  GPR,
  INSN_LENGTH_AT,
  SCRATCH,
  STATE_BASE,
  STATE_END,
  TLB_BASE,
  TLB_END,
  ZERO_AT,
} from '../state.ts';
import { BareMachine, GUEST_MEMORY, VMCB_PA } from '../svm/bare-machine.testing.ts';

const CODE = 0xa000;
const FRAME = 0x9800;
const ABSENT = 0x1000000n;
const OPERATIONS = [
  '0f0b', // ud2
  '8b03', // mov eax,[rbx]
  '8903', // mov [rbx],eax
  '48cf', // iretq
  '48cf',
  'cf', // iretd
  '0f05', // syscall
  '480f07', // sysretq
  '0f013b', // invlpg [rbx]
  '0f20d1', // mov rcx,cr2
  '0f20d9', // mov rcx,cr3
  '440f20c1', // mov rcx,cr8
  '440f22c0', // mov cr8,rax
] as const;

/** The same in 32-bit code with paging: fewer privileges, other frames. */
const OPERATIONS32 = [
  '0f0b', // ud2
  '8b03', // mov eax,[ebx]
  '8903', // mov [ebx],eax
  'cf', // iret
  'cf',
  '66cf', // iretw
  '0f013b', // invlpg [ebx]
  '0f20d1', // mov ecx,cr2
  '0f20d9', // mov ecx,cr3
] as const;

interface Inside {
  svm: { allowQuick(): void; events: { exception(): number } };
  interpreter: { port: { system(op: number, record: number): number } };
}
const inside = (m: BareMachine): Inside => m.processor as unknown as Inside;

/** Puts the guest at an instruction, with flags, stack, segments and tables as `seed` says. */
function setUp(m: BareMachine, seed: number): void {
  const next = generator(seed);
  const one = <T>(...of: readonly T[]): T => of[next() % of.length]!;
  m.code(`${OPERATIONS[seed % OPERATIONS.length]} f4`);
  const user = next() % 3 === 0;
  const segment = (offset: number, selector: number, attributes: number): void => {
    m.set32(offset, selector | (attributes << 16));
    m.set32(offset + 4, -1);
  };
  segment(VMCB_CS, user ? 0x2b : 8, user ? 0xafb : 0xa9b);
  segment(VMCB_SS, user ? 0x23 : one(0x10, 0), user ? 0xcf3 : one(0xc93, 0));
  segment(VMCB_DS, one(0x10, 0x23, 0), one(0xc93, 0xcf3, 0xc9f, 0));
  segment(VMCB_ES, one(0x10, 0x23, 0), one(0xc93, 0xcf3, 0));
  m.memory.u8[VMCB_PA + VMCB_CPL] = user ? 3 : 0;
  const flags = (next() & 0xcd5) | one(0, 0, 0, 0x200) | one(0, 0, 0, 0x10000) | one(0, 0, 0, 0x4000, 0x40000, 0x100);
  m.set64(VMCB_RFLAGS, BigInt(flags | 2));
  m.set64(VMCB_RIP, BigInt(CODE));
  m.set64(VMCB_RAX, BigInt(next() % 20));
  m.set64(VMCB_RSP, BigInt(FRAME + one(0, 0, 0, 8, 4, 0x7e0, -0x7f0)));
  m.set32(VMCB_CLEAN, 0);
  // RBX, RCX and R11.
  const set = (register: number, value: bigint): void => {
    m.memory.u64[(GPR >> 3) + register] = value;
  };
  set(3, one(ABSENT, ABSENT, ABSENT + 0x1ffen, 0x7f000000n, 0xffff_8000_0000_0000n, 1n << 47n));
  set(1, BigInt(CODE + 0x100));
  set(11, BigInt(next() & 0x40ed7));
  m.code('f4', CODE + 0x100);
  m.poke64(0x12000 + 8 * 8, 0n);
  // A frame to return by.
  const cs = one(8, 8, 8, 0x2b, 0x2b, 0x1b, 0, 0x28);
  const ss = (cs & 3) === 3 ? one(0x23, 0x23, 0x13, 0) : one(0x10, 0x10, 0, 0x23);
  const frame = [CODE + 0x100, cs, next() & 0x53fd7 & ~one(0x40000, 0x40000, 0), 0x9f00 + one(0, 8, 3), ss];
  frame.forEach((value, i) => {
    m.poke64(Number(m.get64(VMCB_RSP)) + i * 8, BigInt(value));
  });
  // Gates, descriptors and the TSS.
  for (const vector of [6, 13, 14]) {
    const kind = one(0x8e, 0x8e, 0x8e, 0x8f, 0x8f, 0xee, 0x0e, 0x85);
    const ist = one(0, 0, 1);
    const handler = BigInt(0x4000 + vector * 32);
    const gate =
      handler | (BigInt(one(8, 8, 8, 8, 8, 8, 0x2b, 0)) << 16n) | (BigInt(ist) << 32n) | (BigInt(kind) << 40n);
    m.poke64(0x2000 + vector * 16, gate);
    m.code('f4', 0x4000 + vector * 32);
  }
  m.poke64(0x1008, one(0x00af9b000000ffffn, 0x00af9b000000ffffn, 0x00af9a000000ffffn, 0x00af9f000000ffffn));
  m.poke64(0x3004, BigInt(one(0x8000, 0x8000, 0x8008, 0x8018)));
  m.poke64(0x3024, BigInt(one(0x8800, 0x8808)));
}

/** Everything that may be told apart; what only one instruction uses is not. */
function seen(m: BareMachine, exit: number) {
  const { u8 } = m.memory;
  const state = u8.slice(STATE_BASE, STATE_END);
  const forget = (at: number, bytes: number): void => {
    state.fill(0, at - STATE_BASE, at - STATE_BASE + bytes);
  };
  forget(INSN_LENGTH_AT, 4);
  forget(ACCESS_SEG_AT, 8);
  forget(SCRATCH, 64);
  forget(FLAGS_OP, ZERO_AT - FLAGS_OP);
  const flags = m.processor.interpreter.readRflags();
  return {
    exit: [exit, flags],
    state: Buffer.from(state),
    block: Buffer.from(u8.subarray(VMCB_PA, VMCB_PA + 4096)),
    memory: Buffer.from(u8.subarray(GUEST_MEMORY, GUEST_MEMORY + 0x14000)),
    tlb: Buffer.from(u8.subarray(TLB_BASE, TLB_END)),
  };
}

/** `setUp` for 32-bit code. */
function setUp32(m: BareMachine, seed: number): void {
  const next = generator(seed);
  const one = <T>(...of: readonly T[]): T => of[next() % of.length]!;
  m.code(`${OPERATIONS32[seed % OPERATIONS32.length]} f4`);
  m.code('f4', CODE + 0x100);
  // A return to virtual-8086 mode leaves segments and a CPL of its own.
  for (const [offset, selector] of [
    [VMCB_CS, 0xc9b_0008],
    [VMCB_DS, 0xc93_0010],
    [VMCB_ES, 0xc93_0010],
    [VMCB_SS, 0xc93_0010],
  ] as const) {
    m.set32(offset, selector);
    m.set32(offset + 4, -1);
    m.set64(offset + 8, 0n);
  }
  m.memory.u8[VMCB_PA + VMCB_CPL] = 0;
  m.set32(VMCB_SS, 0x10 | (one(0xc93, 0xc93, 0xc93, 0xc93, 0xc93, 0xc93, 0x893, 0xc97) << 16));
  m.set32(VMCB_SS + 4, one(-1, -1, -1, -1, -1, -1, 0xffff));
  m.set64(
    VMCB_RFLAGS,
    BigInt((next() & 0xcd5) | one(0, 0, 0x200) | one(0, 0, 0x10000) | one(0, 0, 0, 0, 0x4000, 0x40000) | 2),
  );
  m.set64(VMCB_RIP, BigInt(CODE));
  m.set64(VMCB_RSP, BigInt(FRAME + one(0, 0, 4, 1, 0x7f8, -0x7fa)));
  m.set32(VMCB_CLEAN, 0);
  m.memory.u64[(GPR >> 3) + 3] = one(ABSENT, ABSENT + 0xffen, 0x7f000000n);
  m.poke32(0x10000 + 4 * 4, 0);
  const image = next() & 0x13fd7;
  [CODE + 0x100, one(8, 8, 8, 0x1b, 0), image | one(0, 0, 0, 0x20000, 0x40000)].forEach((value, i) => {
    m.poke32(Number(m.get64(VMCB_RSP)) + i * 4, value);
  });
  for (const vector of [6, 13, 14]) {
    const handler = BigInt(0x4000 + vector * 32);
    const kind = BigInt(one(0x8e, 0x8e, 0x8e, 0x8f, 0x8f, 0xee, 0x0e, 0x86)) << 40n;
    m.poke64(0x2000 + vector * 8, handler | (BigInt(one(8, 8, 8, 8, 8, 8, 8, 0x1b, 0)) << 16n) | kind);
    m.code('f4', 0x4000 + vector * 32);
  }
  m.poke64(
    0x1008,
    one(
      0x00cf9b000000ffffn,
      0x00cf9b000000ffffn,
      0x00cf9b000000ffffn,
      0x00cf9b000000ffffn,
      0x00cf9a000000ffffn,
      0x004f9b000000ffffn,
    ),
  );
}

test.each([
  { mode: 'long64', from: setUp },
  { mode: 'paged32', from: setUp32 },
] as const)('one instruction as $mode, and what follows from it', ({ mode, from }) => {
  const machines = [new BareMachine(siliconEpyc, mode), new BareMachine(siliconEpyc, mode)] as const;
  const exceptions = [0, 0];
  const instructions = [0, 0];
  machines.forEach((m, i) => {
    const { svm, interpreter } = inside(m);
    if (i === 1) svm.allowQuick = () => {};
    const { events } = svm;
    const { port } = interpreter;
    const [exception, system] = [events.exception.bind(events), port.system.bind(port)];
    events.exception = () => {
      exceptions[i]!++;
      return exception();
    };
    port.system = (op, record) => {
      instructions[i]!++;
      return system(op, record);
    };
  });
  for (let seed = 1; seed <= Number(process.env['QUICK_RUNS'] ?? 600); seed++) {
    // The first time the TLB may be cold; the second time it is not.
    for (let again = 0; again < 2; again++) {
      const [quick, slow] = machines.map((m) => {
        from(m, seed);
        return seen(m, m.run(1 + (seed % 5)));
      });
      expect(quick!.exit, `seed ${seed}`).toEqual(slow!.exit);
      for (const part of ['state', 'block', 'memory', 'tlb'] as const) {
        expect(Buffer.compare(quick![part], slow![part]), `${part} of seed ${seed}`).toBe(0);
      }
    }
  }
  expect(exceptions[1]! - exceptions[0]!).toBeGreaterThan(30);
  expect(instructions[1]! - instructions[0]!).toBeGreaterThan(30);
});
