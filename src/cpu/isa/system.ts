/** Encodings of the instructions that the system port executes. */
import * as S from '../system-ops.ts';
import type { Feature } from './features.ts';
import type { EncodingTable } from './rows.ts';

/** What belongs to an extension. */
const EXTENSIONS: Readonly<Record<string, Feature>> = {
  RDTSCP: 'RDTSCP',
  RDPRU: 'RDPRU',
  PVALIDATE: 'SEV-SNP',
  RMPADJUST: 'SEV-SNP',
  WBNOINVD: 'WBNOINVD',
  INVPCID: 'INVPCID',
  CLFLUSHOPT: 'CLFLUSHOPT',
  CLWB: 'CLWB',
  RDPID: 'RDPID',
  XSAVEOPT: 'XSAVEOPT',
  XSAVEC: 'XSAVEC',
  XSAVES: 'XSAVES',
  XRSTORS: 'XSAVES',
  RDFSBASE: 'FSGSBASE',
  RDGSBASE: 'FSGSBASE',
  WRFSBASE: 'FSGSBASE',
  WRGSBASE: 'FSGSBASE',
};

export function systemEncodings(table: EncodingTable): void {
  const sys: EncodingTable['sys'] = (text, mnemonic, operands, op, options) => {
    table.feature = EXTENSIONS[mnemonic] ?? 'base';
    table.sys(text, mnemonic, operands, op, options);
    table.feature = 'base';
  };
  // One-byte opcodes.
  [
    [0x06, 'PUSH', 0, S.SYS_PUSH_SREG],
    [0x07, 'POP', 0, S.SYS_POP_SREG],
    [0x0e, 'PUSH', 1, S.SYS_PUSH_SREG],
    [0x16, 'PUSH', 2, S.SYS_PUSH_SREG],
    [0x17, 'POP', 2, S.SYS_POP_SREG],
    [0x1e, 'PUSH', 3, S.SYS_PUSH_SREG],
    [0x1f, 'POP', 3, S.SYS_POP_SREG],
  ].forEach(([opcode, name, reg, op]) => {
    // prettier-ignore
    sys(
      (opcode as number).toString(16).toUpperCase().padStart(2, '0'),
      name as string,
      '',
      op as number,
      `i64 v reg=${reg}`,
    );
  });
  sys('0F A0', 'PUSH', '', S.SYS_PUSH_SREG, 'd64 v reg=4');
  sys('0F A1', 'POP', '', S.SYS_POP_SREG, 'd64 v reg=4');
  sys('0F A8', 'PUSH', '', S.SYS_PUSH_SREG, 'd64 v reg=5');
  sys('0F A9', 'POP', '', S.SYS_POP_SREG, 'd64 v reg=5');
  sys('63 /r', 'ARPL', 'Ew,Gw', S.SYS_ARPL, 'i64');
  sys('6C', 'INSB', '', S.SYS_INS, 'b');
  sys('6D', 'INSD', '', S.SYS_INS, 'v port');
  sys('6E', 'OUTSB', '', S.SYS_OUTS, 'b');
  sys('6F', 'OUTSD', '', S.SYS_OUTS, 'v port');
  sys('8C /r', 'MOV', 'Ev,Sw', S.SYS_MOV_FROM_SREG, 'sreg');
  sys('8E /r', 'MOV', 'Sw,Ev', S.SYS_MOV_TO_SREG, 'sreg notcs');
  sys('F3 90', 'PAUSE', '', S.SYS_PAUSE);
  sys('9A', 'CALL', 'Ap', S.SYS_CALL_FAR_PTR, 'i64');
  sys('9C', 'PUSHF', '', S.SYS_PUSHF, 'd64 v');
  sys('9D', 'POPF', '', S.SYS_POPF, 'd64 v');
  sys('C4 /r', 'LES', 'Gv,Mv', S.SYS_LOAD_FAR, 'i64 imm=0');
  sys('C5 /r', 'LDS', 'Gv,Mv', S.SYS_LOAD_FAR, 'i64 imm=3');
  sys('CA', 'RETF', 'Iw+', S.SYS_RET_FAR, 'v');
  sys('CB', 'RETF', '', S.SYS_RET_FAR, 'v');
  sys('CC', 'INT3', '', S.SYS_INT3);
  sys('CD', 'INT', 'Ib+', S.SYS_INT);
  sys('CE', 'INTO', '', S.SYS_INTO, 'i64');
  sys('CF', 'IRET', '', S.SYS_IRET, 'v');
  sys('E4', 'IN', 'AL,Ib+', S.SYS_IN);
  sys('E5', 'IN', 'rAX,Ib+', S.SYS_IN, 'port');
  sys('E6', 'OUT', 'Ib+,AL', S.SYS_OUT);
  sys('E7', 'OUT', 'Ib+,rAX', S.SYS_OUT, 'port');
  sys('EA', 'JMP', 'Ap', S.SYS_JMP_FAR_PTR, 'i64');
  sys('EC', 'IN', 'AL,DX', S.SYS_IN_DX);
  sys('ED', 'IN', 'rAX,DX', S.SYS_IN_DX, 'port');
  sys('EE', 'OUT', 'DX,AL', S.SYS_OUT_DX, 'b');
  sys('EF', 'OUT', 'DX,rAX', S.SYS_OUT_DX, 'port');
  sys('F1', 'INT1', '', S.SYS_INT1);
  sys('F4', 'HLT', '', S.SYS_HLT);
  sys('FA', 'CLI', '', S.SYS_CLI);
  sys('FB', 'STI', '', S.SYS_STI);
  sys('FF /3', 'CALL', 'Mv', S.SYS_CALL_FAR_MEM);
  sys('FF /5', 'JMP', 'Mv', S.SYS_JMP_FAR_MEM);

  // Descriptor tables, control registers.
  sys('0F 00 /0', 'SLDT', 'Ev', S.SYS_SLDT);
  sys('0F 00 /1', 'STR', 'Ev', S.SYS_STR);
  sys('0F 00 /2', 'LLDT', 'Ew', S.SYS_LLDT);
  sys('0F 00 /3', 'LTR', 'Ew', S.SYS_LTR);
  sys('0F 00 /4', 'VERR', 'Ew', S.SYS_VERR);
  sys('0F 00 /5', 'VERW', 'Ew', S.SYS_VERW);
  for (const [modrm, name, op] of [
    [0xc1, 'VMCALL', S.SYS_VMCALL],
    [0xc2, 'VMLAUNCH', S.SYS_VMX],
    [0xc3, 'VMRESUME', S.SYS_VMX],
    [0xc4, 'VMXOFF', S.SYS_VMX],
    [0xc8, 'MONITOR', S.SYS_MONITOR],
    [0xc9, 'MWAIT', S.SYS_MWAIT],
    [0xca, 'CLAC', S.SYS_CLAC],
    [0xcb, 'STAC', S.SYS_STAC],
    [0xd0, 'XGETBV', S.SYS_XGETBV],
    [0xd1, 'XSETBV', S.SYS_XSETBV],
    [0xd4, 'VMFUNC', S.SYS_VMX],
    [0xd8, 'VMRUN', S.SYS_VMRUN],
    [0xd9, 'VMMCALL', S.SYS_VMMCALL],
    [0xda, 'VMLOAD', S.SYS_VMLOAD],
    [0xdb, 'VMSAVE', S.SYS_VMSAVE],
    [0xdc, 'STGI', S.SYS_STGI],
    [0xdd, 'CLGI', S.SYS_CLGI],
    [0xde, 'SKINIT', S.SYS_SKINIT],
    [0xdf, 'INVLPGA', S.SYS_INVLPGA],
    [0xee, 'RDPKRU', S.SYS_RDPKRU],
    [0xef, 'WRPKRU', S.SYS_WRPKRU],
    [0xf9, 'RDTSCP', S.SYS_RDTSCP],
    [0xfd, 'RDPRU', S.SYS_RDPRU],
  ] as const) {
    // prettier-ignore
    const np = [0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xf9].includes(modrm) ? '' : 'NP ';
    sys(`${np}0F 01 ${modrm.toString(16)}`, name, '', op);
  }
  sys('66 0F 01 cc', 'TDCALL', '', S.SYS_TDCALL);
  sys('F2 0F 01 ff', 'PVALIDATE', '', S.SYS_PVALIDATE);
  sys('F3 0F 01 fe', 'RMPADJUST', '', S.SYS_RMPADJUST);
  sys('0F 01 f8', 'SWAPGS', '', S.SYS_SWAPGS, 'o64');
  sys('0F 01 /0', 'SGDT', 'M', S.SYS_SGDT, 'f64');
  sys('0F 01 /1', 'SIDT', 'M', S.SYS_SIDT, 'f64');
  sys('0F 01 /2', 'LGDT', 'M', S.SYS_LGDT, 'f64');
  sys('0F 01 /3', 'LIDT', 'M', S.SYS_LIDT, 'f64');
  sys('0F 01 /4', 'SMSW', 'Ev', S.SYS_SMSW);
  sys('0F 01 /6', 'LMSW', 'Ew', S.SYS_LMSW);
  sys('0F 01 /7', 'INVLPG', 'Mb', S.SYS_INVLPG);
  sys('0F 02 /r', 'LAR', 'Gv,Ew', S.SYS_LAR);
  sys('0F 03 /r', 'LSL', 'Gv,Ew', S.SYS_LSL);
  sys('0F 05', 'SYSCALL', '', S.SYS_SYSCALL);
  sys('0F 06', 'CLTS', '', S.SYS_CLTS);
  sys('0F 07', 'SYSRET', '', S.SYS_SYSRET, 'v');
  sys('0F 08', 'INVD', '', S.SYS_INVD);
  sys('F3 0F 09', 'WBNOINVD', '', S.SYS_WBNOINVD);
  sys('0F 09', 'WBINVD', '', S.SYS_WBINVD);
  sys('0F 20 /r', 'MOV', 'Rv,Cv', S.SYS_MOV_FROM_CR, 'f64 modreg cr noopsize lockcr8');
  sys('0F 21 /r', 'MOV', 'Rv,Dv', S.SYS_MOV_FROM_DR, 'f64 modreg dr noopsize');
  sys('0F 22 /r', 'MOV', 'Cv,Rv', S.SYS_MOV_TO_CR, 'f64 modreg cr noopsize lockcr8');
  sys('0F 23 /r', 'MOV', 'Dv,Rv', S.SYS_MOV_TO_DR, 'f64 modreg dr noopsize');
  sys('0F 30', 'WRMSR', '', S.SYS_WRMSR);
  sys('0F 31', 'RDTSC', '', S.SYS_RDTSC);
  sys('0F 32', 'RDMSR', '', S.SYS_RDMSR);
  sys('0F 33', 'RDPMC', '', S.SYS_RDPMC);
  sys('0F 34', 'SYSENTER', '', S.SYS_SYSENTER);
  sys('0F 35', 'SYSEXIT', '', S.SYS_SYSEXIT, 'v');
  sys('0F A2', 'CPUID', '', S.SYS_CPUID);
  sys('0F AA', 'RSM', '', S.SYS_RSM);
  sys('0F B2 /r', 'LSS', 'Gv,Mv', S.SYS_LOAD_FAR, 'imm=2');
  sys('0F B4 /r', 'LFS', 'Gv,Mv', S.SYS_LOAD_FAR, 'imm=4');
  sys('0F B5 /r', 'LGS', 'Gv,Mv', S.SYS_LOAD_FAR, 'imm=5');

  // Caches, extended state, bases, VMX.
  sys('66 0F 38 80 /r', 'INVEPT', 'Gv,M', S.SYS_VMX, 'f64');
  sys('66 0F 38 81 /r', 'INVVPID', 'Gv,M', S.SYS_VMX, 'f64');
  sys('66 0F 38 82 /r', 'INVPCID', 'Gv,M', S.SYS_INVPCID, 'f64');
  sys('NP 0F 78 /r', 'VMREAD', 'Ev,Gv', S.SYS_VMX, 'f64');
  sys('NP 0F 79 /r', 'VMWRITE', 'Gv,Ev', S.SYS_VMX, 'f64');
  for (const [i, name, op] of [
    [0, 'FSBASE', S.SYS_RDFSBASE],
    [1, 'GSBASE', S.SYS_RDGSBASE],
  ] as const) {
    // prettier-ignore
    sys(`F3 0F AE /${i}`, `RD${name}`, 'Ry', op, 'o64');
    sys(`F3 0F AE /${i + 2}`, `WR${name}`, 'Ry', op + 2, 'o64');
  }
  sys('NP 0F AE /4', 'XSAVE', 'M', S.SYS_XSAVE);
  sys('NP 0F AE /5', 'XRSTOR', 'M', S.SYS_XRSTOR);
  sys('NP 0F AE /6', 'XSAVEOPT', 'M', S.SYS_XSAVEOPT);
  sys('NP 0F AE /7', 'CLFLUSH', 'Mb', S.SYS_CLFLUSH);
  sys('66 0F AE /7', 'CLFLUSHOPT', 'Mb', S.SYS_CLFLUSHOPT);
  sys('66 0F AE /6', 'CLWB', 'Mb', S.SYS_CLWB);
  sys('NP 0F C7 /3', 'XRSTORS', 'M', S.SYS_XRSTORS);
  sys('NP 0F C7 /4', 'XSAVEC', 'M', S.SYS_XSAVEC);
  sys('NP 0F C7 /5', 'XSAVES', 'M', S.SYS_XSAVES);
  sys('F3 0F C7 /6', 'VMXON', 'Mq', S.SYS_VMX);
  sys('66 0F C7 /6', 'VMCLEAR', 'Mq', S.SYS_VMX);
  sys('NP 0F C7 /6', 'VMPTRLD', 'Mq', S.SYS_VMX);
  sys('NP 0F C7 /7', 'VMPTRST', 'Mq', S.SYS_VMX);
  sys('F3 0F C7 /7', 'RDPID', 'Rv', S.SYS_RDPID, 'f64 noopsize');
}
