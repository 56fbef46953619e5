import { describe, expect, it } from 'vitest';
import { VMCB_DR6, VMCB_DR7, VMCB_INTERCEPT_EXCEPTIONS, VMCB_RFLAGS, VMCB_RIP } from '../../arch/vmcb.ts';
import { siliconEpyc } from '../profiles/silicon-epyc.ts';
import { DR_AT } from '../state.ts';
import { BareMachine } from '../svm/bare-machine.testing.ts';

const EXIT_DB = 0x41;
const EXIT_HLT = 0x78;
const HLT = 'f4';
const TF = 0x100n;
const RF = 0x10000n;

interface Stop {
  readonly exit: number;
  readonly rip: bigint;
  readonly dr6: bigint;
}

/** Runs `code` at 0xa000 with DR7 and DR0 as given, and #DB intercepted. */
function run(code: string, dr7: number, dr0: number, rflags = 2n): Stop & { readonly again: () => Stop } {
  const m = new BareMachine(siliconEpyc);
  m.code(code);
  m.set32(VMCB_INTERCEPT_EXCEPTIONS, 1 << 1);
  m.set64(VMCB_DR7, BigInt(dr7 | 0x400));
  m.set64(VMCB_RFLAGS, rflags);
  m.memory.i32[DR_AT >> 2] = dr0;
  const stop = (): Stop => ({ exit: m.run(), rip: m.get64(VMCB_RIP), dr6: m.get64(VMCB_DR6) });
  return {
    ...stop(),
    again: () => {
      m.set64(VMCB_RFLAGS, m.get64(VMCB_RFLAGS) | RF);
      return stop();
    },
  };
}

/** DR7 with breakpoint 0 enabled: R/W and LEN fields. */
const dr7 = (kind: number, length: number): number => 1 | (kind << 16) | (length << 18);

describe('breakpoints on instructions', () => {
  it('stop before the instruction, and RFLAGS.RF lets it pass', () => {
    // nop; nop; hlt
    const at = run(`9090${HLT}`, dr7(0, 0), 0xa001);
    expect(at).toMatchObject({ exit: EXIT_DB, rip: 0xa001n, dr6: 0xffff0ff1n });
    expect(at.again()).toMatchObject({ exit: EXIT_HLT, rip: 0xa002n });
  });

  it('do nothing while they are disabled', () => {
    expect(run(`9090${HLT}`, 0, 0xa001)).toMatchObject({ exit: EXIT_HLT });
  });
});

describe('breakpoints on data', () => {
  // mov [0x5000], eax; hlt
  const write = `890425 00500000${HLT}`;
  // mov eax, [0x5000]; hlt
  const read = `8b0425 00500000${HLT}`;

  it('trap after a write', () => {
    expect(run(write, dr7(1, 3), 0x5000)).toMatchObject({ exit: EXIT_DB, rip: 0xa007n, dr6: 0xffff0ff1n });
  });

  it('a write breakpoint lets reads pass, an access breakpoint does not', () => {
    expect(run(read, dr7(1, 3), 0x5000)).toMatchObject({ exit: EXIT_HLT });
    expect(run(read, dr7(3, 3), 0x5000)).toMatchObject({ exit: EXIT_DB, rip: 0xa007n });
  });

  it('any byte of the access counts, others do not', () => {
    expect(run(write, dr7(1, 0), 0x5003)).toMatchObject({ exit: EXIT_DB });
    expect(run(write, dr7(1, 0), 0x5004)).toMatchObject({ exit: EXIT_HLT });
    expect(run(write, dr7(1, 2), 0x4ff8)).toMatchObject({ exit: EXIT_HLT });
  });

  it('come together with a single step', () => {
    expect(run(write, dr7(1, 3), 0x5000, 2n | TF)).toMatchObject({ exit: EXIT_DB, dr6: 0xffff4ff1n });
  });

  it('wait out a load of SS: push 16; mov ss, [rsp]; nop; hlt', () => {
    const stop = run(`6a10 8e1424 90${HLT}`, dr7(3, 1), 0x8ff8);
    expect(stop).toMatchObject({ exit: EXIT_DB, rip: 0xa002n });
    expect(stop.again()).toMatchObject({ exit: EXIT_DB, rip: 0xa006n });
  });
});

describe('debug traps', () => {
  it('are held off for one instruction by a load of SS, not by STI', () => {
    // mov ss, eax (16: the data segment) casts the shadow; the step is seen after the nop.
    expect(run(`8ed0 90${HLT}`, 0, 0, 2n | TF)).toMatchObject({ exit: EXIT_DB, rip: 0xa003n });
    expect(run(`fb 90${HLT}`, 0, 0, 2n | TF)).toMatchObject({ exit: EXIT_DB, rip: 0xa001n });
  });

  it('INT1 is over when its #DB is intercepted', () => {
    expect(run(`f1${HLT}`, 0, 0)).toMatchObject({ exit: EXIT_DB, rip: 0xa001n, dr6: 0xffff0ff0n });
  });
});
