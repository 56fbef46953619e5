/**
 * IN and OUT of a kernel on ports that the control block intercepts: the one kind of exit that guests with devices make all the time. All
 * else about ports is in src/cpu/system/ports.ts (@apm 15.10). HOT
 */
import { RDX } from '../../arch/registers.ts';
import {
  SVM_EXIT_IOIO,
  SVM_IOIO_ASIZE_SHIFT,
  SVM_IOIO_IN,
  SVM_IOIO_PORT_SHIFT,
  SVM_IOIO_SIZE_SHIFT,
} from '../../arch/vmcb.ts';
import { RECORD_ADDRSIZE, RECORD_IMM, RECORD_LENGTH, RECORD_OPSIZE, RECORD_SYSTEM_OP } from '../decode/record.ts';
import {
  CODE_MODE_AT,
  CPL_AT,
  EXIT_CODE_AT,
  EXIT_INFO1_AT,
  EXIT_INFO2_AT,
  GPR,
  PORT_ADDRESS_SIZE_AT,
  PORT_MAP_AT,
  RIP_AT,
} from '../state.ts';
import { SYS_IN, SYS_OUT, SYS_OUT_DX } from '../system-ops.ts';
import { i32, i64, T_I32 } from '../wasm/code.ts';
import type { FunctionRef } from '../wasm/function.ts';
import type { ModuleBuilder } from '../wasm/module.ts';
import { setState32, setState64, state32, state64 } from './state-access.ts';

/** (record) -> 1 when the instruction is such an access and EXIT_* tells of it, else 0 and nothing is done. */
export function definePortExit(m: ModuleBuilder): FunctionRef {
  return m.function([T_I32], [T_I32], (f) => {
    const record = f.param32(0).get;
    const kind = f.i32(i32.sub(i32.load16U(record, RECORD_SYSTEM_OP), i32.const(SYS_IN)));
    const no = i32.const(0);
    f.if(i32.gtU(kind.get, i32.const(SYS_OUT_DX - SYS_IN)), () => f.return(no));
    const map = f.i32(state32(PORT_MAP_AT));
    f.if(i32.or(i32.eqz(map.get), state32(CPL_AT)), () => f.return(no));
    const immediate = i32.and(i32.load(record, RECORD_IMM), i32.const(0xff));
    const inDx = i32.and(state32(GPR + RDX * 8), i32.const(0xffff));
    // Every second of the four has the port in DX.
    const port = f.i32(i32.select(i32.and(kind.get, i32.const(1)), inDx, immediate));
    const size = f.i32(i32.load8U(record, RECORD_OPSIZE));
    const bits = i32.load16U(i32.add(map.get, i32.shrU(port.get, i32.const(3))), 0);
    const wanted = i32.sub(i32.shl(i32.const(1), size.get), i32.const(1));
    const hit = i32.and(i32.shrU(bits, i32.and(port.get, i32.const(7))), wanted);
    f.if(i32.eqz(hit), () => f.return(no));
    const info = f.i32(
      i32.or(i32.shl(port.get, i32.const(SVM_IOIO_PORT_SHIFT)), i32.shl(size.get, i32.const(SVM_IOIO_SIZE_SHIFT))),
    );
    f.if(i32.ltU(kind.get, i32.const(SYS_OUT - SYS_IN)), () =>
      f.do(info.set(i32.or(info.get, i32.const(SVM_IOIO_IN)))),
    );
    f.if(state32(PORT_ADDRESS_SIZE_AT), () => {
      // 2, 4 and 8 bytes are the bits from the first on.
      const which = i32.shrU(i32.load8U(record, RECORD_ADDRSIZE), i32.const(1));
      f.do(info.set(i32.or(info.get, i32.shl(which, i32.const(SVM_IOIO_ASIZE_SHIFT)))));
    });
    const next = f.i64(i64.add(state64(RIP_AT), i64.load8U(record, RECORD_LENGTH)));
    f.if(i32.ne(state32(CODE_MODE_AT), i32.const(2)), () => f.do(next.set(i64.and(next.get, i64.const(0xffffffff)))));
    f.do(
      setState32(EXIT_CODE_AT, i32.const(SVM_EXIT_IOIO)),
      setState64(EXIT_INFO1_AT, i64.extendU(info.get)),
      setState64(EXIT_INFO2_AT, next.get),
    );
    f.do(i32.const(1));
  });
}
