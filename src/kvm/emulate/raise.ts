/** Exceptions as values: each notes the exception in the context and answers X86EMUL_PROPAGATE_FAULT. @kvm emulate.c emulate_exception */
import { DB_VECTOR, DE_VECTOR, GP_VECTOR, NM_VECTOR, SS_VECTOR, TS_VECTOR, UD_VECTOR } from '../../arch/exceptions.ts';
import type { EmulateCtxt } from './ctxt.ts';
import { X86EMUL_PROPAGATE_FAULT } from './ops.ts';

/** @kvm emulate.c emulate_exception */
export function emulateException(ctxt: EmulateCtxt, vector: number, errorCode: number, valid: boolean): number {
  ctxt.exception.vector = vector;
  ctxt.exception.errorCode = errorCode & 0xffff;
  ctxt.exception.errorCodeValid = valid;
  return X86EMUL_PROPAGATE_FAULT;
}

/** @kvm emulate.c emulate_db */
export function emulateDb(ctxt: EmulateCtxt): number {
  return emulateException(ctxt, DB_VECTOR, 0, false);
}

/** @kvm emulate.c emulate_gp */
export function emulateGp(ctxt: EmulateCtxt, errorCode: number): number {
  return emulateException(ctxt, GP_VECTOR, errorCode, true);
}

/** @kvm emulate.c emulate_ss */
export function emulateSs(ctxt: EmulateCtxt, errorCode: number): number {
  return emulateException(ctxt, SS_VECTOR, errorCode, true);
}

/** @kvm emulate.c emulate_ud */
export function emulateUd(ctxt: EmulateCtxt): number {
  return emulateException(ctxt, UD_VECTOR, 0, false);
}

/** @kvm emulate.c emulate_ts */
export function emulateTs(ctxt: EmulateCtxt, errorCode: number): number {
  return emulateException(ctxt, TS_VECTOR, errorCode, true);
}

/** @kvm emulate.c emulate_de */
export function emulateDe(ctxt: EmulateCtxt): number {
  return emulateException(ctxt, DE_VECTOR, 0, false);
}

/** @kvm emulate.c emulate_nm */
export function emulateNm(ctxt: EmulateCtxt): number {
  return emulateException(ctxt, NM_VECTOR, 0, false);
}
