/** Condition codes over the status flags (@sdm appendix B.1.4). */
import { RFLAGS_CF, RFLAGS_OF, RFLAGS_PF, RFLAGS_SF, RFLAGS_ZF } from '../../arch/registers.ts';

/** True when condition `code` (its low four bits count) holds for `flags`. @kvm emulate.c test_cc */
export function testCc(code: number, flags: number): boolean {
  const less = ((flags & RFLAGS_SF) !== 0) !== ((flags & RFLAGS_OF) !== 0);
  let holds: boolean;
  switch ((code >> 1) & 7) {
    case 0:
      holds = (flags & RFLAGS_OF) !== 0;
      break;
    case 1:
      holds = (flags & RFLAGS_CF) !== 0;
      break;
    case 2:
      holds = (flags & RFLAGS_ZF) !== 0;
      break;
    case 3:
      holds = (flags & (RFLAGS_CF | RFLAGS_ZF)) !== 0;
      break;
    case 4:
      holds = (flags & RFLAGS_SF) !== 0;
      break;
    case 5:
      holds = (flags & RFLAGS_PF) !== 0;
      break;
    case 6:
      holds = less;
      break;
    default:
      holds = less || (flags & RFLAGS_ZF) !== 0;
  }
  return holds !== ((code & 1) !== 0);
}
