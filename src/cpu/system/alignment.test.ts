import { describe, expect, it } from 'vitest';
import { CR0_AM, RFLAGS_AC } from '../../arch/registers.ts';
import {
  VMCB_CPL,
  VMCB_CR0,
  VMCB_CS,
  VMCB_DS,
  VMCB_EXIT_CODE,
  VMCB_INTERCEPT_EXCEPTIONS,
  VMCB_RFLAGS,
  VMCB_RIP,
  VMCB_SS,
} from '../../arch/vmcb.ts';
import { COMPILED_AT_ONCE, INTERPRETER, setDefaultEngine } from '../compiler/engine.ts';
import type { HardwareProfile } from '../profile.ts';
import { qemuTcgEpyc } from '../profiles/qemu-tcg-epyc.ts';
import { siliconEpyc } from '../profiles/silicon-epyc.ts';
import { BareMachine, VMCB_PA } from '../svm/bare-machine.testing.ts';

const EXIT_GP = 0x4d;
const EXIT_PF = 0x4e;
const EXIT_AC = 0x51;
const HLT = 'f4';

interface Setting {
  readonly cpl?: number;
  readonly am?: boolean;
  readonly ac?: boolean;
  readonly profile?: HardwareProfile;
}

/** Runs 64-bit code; its HLT is #GP in user mode. */
function run(code: string, { cpl = 3, am = true, ac = true, profile = siliconEpyc }: Setting = {}) {
  const m = new BareMachine(profile);
  m.code(code + HLT);
  m.memory.u8[VMCB_PA + VMCB_CPL] = cpl;
  if (cpl === 3) {
    m.set32(VMCB_CS, 0x2b | (0xafb << 16));
    for (const segment of [VMCB_SS, VMCB_DS]) m.set32(segment, 0x23 | (0xcf3 << 16));
  }
  m.set32(VMCB_INTERCEPT_EXCEPTIONS, (1 << 13) | (1 << 14) | (1 << 17));
  m.set64(VMCB_CR0, m.get64(VMCB_CR0) | (am ? BigInt(CR0_AM) : 0n));
  m.set64(VMCB_RFLAGS, 2n | (ac ? BigInt(RFLAGS_AC) : 0n));
  m.run();
  return { exit: m.get32(VMCB_EXIT_CODE), rip: m.get64(VMCB_RIP) };
}

describe.each([
  ['interpreted', INTERPRETER],
  ['compiled', COMPILED_AT_ONCE],
] as const)('alignment checks, %s', (_, engine) => {
  const check = (code: string, setting?: Setting) => {
    setDefaultEngine(engine);
    try {
      return run(code, setting);
    } finally {
      setDefaultEngine(INTERPRETER);
    }
  };
  // mov eax, [0x5001]; mov [0x5002], eax; mov ax, [0x5001]; mov rax, [0x5004]; mov [0x5ffe], eax
  const MISALIGNED = ['8b042501500000', '89042502500000', '668b042501500000', '488b042504500000', '890425fe5f0000'];

  it.each(MISALIGNED)('refuse %s with #AC and leave RIP there', (code) => {
    expect(check(code)).toEqual({ exit: EXIT_AC, rip: 0xa000n });
  });

  // mov al, [0x5001]; mov eax, [0x5004]; mov rax, [0x5008]; mov ax, [0x5002]
  it.each(['8a042501500000', '8b042504500000', '488b042508500000', '668b042502500000'])('let %s pass', (code) => {
    expect(check(code).exit).toBe(EXIT_GP);
  });

  it('need CR0.AM, RFLAGS.AC and user mode, and a processor that has them', () => {
    const [code] = MISALIGNED as [string];
    expect(check(code, { am: false }).exit).toBe(EXIT_GP);
    expect(check(code, { ac: false }).exit).toBe(EXIT_GP);
    expect(check(code, { cpl: 0 }).exit).not.toBe(EXIT_AC);
    expect(check(code, { profile: qemuTcgEpyc }).exit).toBe(EXIT_GP);
  });

  it('come after page faults', () => {
    // mov rax, [0x7ffffffffff1]
    expect(check('48a1f1ffffffff7f0000').exit).toBe(EXIT_PF);
  });

  it('begin with the POPF that sets AC', () => {
    // pushf; or dword [rsp], 1 << 18; popf; mov eax, [0x5001]
    expect(check(`9c810c24000004009d${MISALIGNED[0]!}`, { ac: false })).toEqual({ exit: EXIT_AC, rip: 0xa009n });
  });
});
