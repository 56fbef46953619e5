/** The FXSAVE image of the guest's FPU, which lives in the processor while the vCPU is loaded (@sdm 10.5.1). */
import { MXCSR_MASK } from '../../arch/registers.ts';
import { FPU_CW_AT, FPU_REGS, FPU_SW_AT, FPU_TAG_AT, MXCSR_AT, XMM, XMM_SIZE } from '../../cpu/state.ts';
import type { VcpuState } from '../vcpu-state.ts';

/** Writes the first `size` bytes of the image. */
export function fxsaveImage(vcpu: VcpuState, buf: Uint8Array, size: number): void {
  const { u8, i32 } = vcpu.vm.memory;
  const image = new Uint8Array(512);
  const view = new DataView(image.buffer);
  view.setUint16(0, i32[FPU_CW_AT >> 2]!, true);
  view.setUint16(2, i32[FPU_SW_AT >> 2]!, true);
  image[4] = i32[FPU_TAG_AT >> 2]!;
  view.setUint32(24, i32[MXCSR_AT >> 2]!, true);
  view.setUint32(28, MXCSR_MASK, true);
  for (let reg = 0; reg < 8; reg++)
    image.set(u8.subarray(FPU_REGS + 16 * reg, FPU_REGS + 16 * reg + 10), 32 + 16 * reg);
  for (let reg = 0; reg < 16; reg++) {
    image.set(u8.subarray(XMM + XMM_SIZE * reg, XMM + XMM_SIZE * reg + 16), 160 + 16 * reg);
  }
  buf.set(image.subarray(0, size));
}

/** Loads the image; what FXSAVE does not hold stays. */
export function fxrstorImage(vcpu: VcpuState, buf: Uint8Array): void {
  const { u8, i32 } = vcpu.vm.memory;
  const view = new DataView(buf.buffer, buf.byteOffset, 512);
  i32[FPU_CW_AT >> 2] = view.getUint16(0, true);
  i32[FPU_SW_AT >> 2] = view.getUint16(2, true);
  i32[FPU_TAG_AT >> 2] = buf[4]!;
  i32[MXCSR_AT >> 2] = view.getUint32(24, true);
  for (let reg = 0; reg < 8; reg++) u8.set(buf.subarray(32 + 16 * reg, 42 + 16 * reg), FPU_REGS + 16 * reg);
  for (let reg = 0; reg < 16; reg++) u8.set(buf.subarray(160 + 16 * reg, 176 + 16 * reg), XMM + XMM_SIZE * reg);
}
