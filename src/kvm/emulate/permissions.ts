/** Checks that single instructions make of their own, before they touch memory. */
import { DR6_ACTIVE_LOW, DR6_BD, DR7_GD } from '../../arch/debug-registers.ts';
import { CR4_DE, CR4_PCE, CR4_TSD, EFER_SVME, RAX, RCX } from '../../arch/registers.ts';
import type { EmulateCtxt } from './ctxt.ts';
import { X86EMUL_CONTINUE } from './ops.ts';
import { emulateDb, emulateGp, emulateUd } from './raise.ts';
import { regHi, regLo } from './registers.ts';
import { readCr, readEfer } from './segmentation.ts';

/** B0 to B3 of DR6. */
const DR6_TRAP_BITS = 0xf;

/** @kvm emulate.c check_cr_access */
export function checkCrAccess(ctxt: EmulateCtxt): number {
  switch (ctxt.modrmReg) {
    case 0:
    case 2:
    case 3:
    case 4:
    case 8:
      return X86EMUL_CONTINUE;
    default:
      return emulateUd(ctxt);
  }
}

/** General detect: any access to a debug register is a #DB. @kvm emulate.c check_dr_read @sdm 18.2.4 */
export function checkDrRead(ctxt: EmulateCtxt): number {
  const dr = ctxt.modrmReg;
  if (dr > 7) return emulateUd(ctxt);
  if ((readCr(ctxt, 4) & CR4_DE) !== 0 && (dr === 4 || dr === 5)) return emulateUd(ctxt);
  ctxt.ops.getDr(ctxt, 7);
  if ((ctxt.io64[0]! & DR7_GD) === 0) return X86EMUL_CONTINUE;
  ctxt.ops.getDr(ctxt, 6);
  const dr6 = (ctxt.io64[0]! & ~DR6_TRAP_BITS) | DR6_BD | DR6_ACTIVE_LOW;
  ctxt.ops.setDr(ctxt, 6, dr6, ctxt.io64[1]!);
  return emulateDb(ctxt);
}

/** @kvm emulate.c check_dr_write */
export function checkDrWrite(ctxt: EmulateCtxt): number {
  const dr = ctxt.modrmReg;
  if ((dr === 6 || dr === 7) && ctxt.src.i32[1] !== 0) return emulateGp(ctxt, 0);
  return checkDrRead(ctxt);
}

/** @kvm emulate.c check_svme */
export function checkSvme(ctxt: EmulateCtxt): number {
  return (readEfer(ctxt) & EFER_SVME) === 0 ? emulateUd(ctxt) : X86EMUL_CONTINUE;
}

/** rAX must look like a physical address. @kvm emulate.c check_svme_pa */
export function checkSvmePa(ctxt: EmulateCtxt): number {
  return regHi(ctxt, RAX) >>> 16 !== 0 ? emulateGp(ctxt, 0) : checkSvme(ctxt);
}

/** @kvm emulate.c check_rdtsc */
export function checkRdtsc(ctxt: EmulateCtxt): number {
  return (readCr(ctxt, 4) & CR4_TSD) !== 0 && ctxt.ops.cpl(ctxt) !== 0 ? emulateGp(ctxt, 0) : X86EMUL_CONTINUE;
}

/** @kvm emulate.c check_rdpmc */
export function checkRdpmc(ctxt: EmulateCtxt): number {
  const denied = (readCr(ctxt, 4) & CR4_PCE) === 0 && ctxt.ops.cpl(ctxt) !== 0;
  const early = ctxt.ops.checkRdpmcEarly;
  if (denied || (early !== undefined && early.call(ctxt.ops, ctxt, regLo(ctxt, RCX)) !== 0)) return emulateGp(ctxt, 0);
  return X86EMUL_CONTINUE;
}
