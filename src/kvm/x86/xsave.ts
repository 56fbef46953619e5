/**
 * KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_XCRS and KVM_SET_XCRS. The area is of XSAVE's standard form (@sdm volume 1, 13.4), 4096 bytes.
 */
import { MXCSR_MASK } from '../../arch/registers.ts';
import { FPU_CW_AT, FPU_REGS, FPU_SW_AT, FPU_TAG_AT, MXCSR_AT, XMM, XMM_SIZE } from '../../cpu/state.ts';
import { EINVAL } from '../../host/errno.ts';
import type { VcpuState } from '../vcpu-state.ts';
import { setXcr } from './control-registers.ts';
import { guestFpu, guestPkru, resetFpu, setGuestPkru } from './guest-context.ts';
import { KVM_SUPPORTED_XCR0 } from './supported-cpuid.ts';

/** Bytes of struct kvm_xsave. */
export const XSAVE_BYTES = 4096;
const FEATURES_AT = 512;
const COMPACTION_AT = 520;
const HEADER_END = 576;
const AVX_AT = 576;

const FP = 1 << 0;
const SSE = 1 << 1;
const YMM = 1 << 2;
const PKRU = 1 << 9;

/** Where PKRU is, as CPUID leaf 0xd says; -1 without it. */
function pkruOffset(vcpu: VcpuState): number {
  return vcpu.vm.profile.cpuid.find((e) => e.leaf === 0xd && e.index === 9)?.ebx ?? -1;
}
/** XCR0 components that the host and KVM have. */
function supportedXcr0(vcpu: VcpuState): number {
  const host = vcpu.vm.profile.cpuid.find((e) => e.leaf === 0xd && e.index === 0)?.eax ?? 0;
  return host & KVM_SUPPORTED_XCR0;
}
const at = (state: number): number => state - FPU_CW_AT;
const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

/** The components in use, and all the state of those that the guest may have. @kvm x86.c kvm_vcpu_ioctl_x86_get_xsave */
export function getXsave(vcpu: VcpuState): Uint8Array {
  const area = new Uint8Array(XSAVE_BYTES);
  const view = new DataView(area.buffer);
  const fpu = guestFpu(vcpu);
  const state = new DataView(fpu.buffer, fpu.byteOffset, fpu.byteLength);
  const allowed = vcpu.x86.guestSupportedXcr0 | FP | SSE;
  let used = 0;
  const put = (to: number, from: number, bytes: number, component: number): void => {
    const part = fpu.subarray(at(from), at(from) + bytes);
    area.set(part, to);
    if (!isZero(part)) used |= component;
  };
  const control = state.getUint32(at(FPU_CW_AT), true);
  view.setUint16(0, control, true);
  view.setUint16(2, state.getUint32(at(FPU_SW_AT), true), true);
  view.setUint8(4, state.getUint32(at(FPU_TAG_AT), true));
  if (control !== 0x37f || view.getUint32(2, true) !== 0) used |= FP;
  view.setUint32(24, state.getUint32(at(MXCSR_AT), true), true);
  view.setUint32(28, MXCSR_MASK, true);
  for (let n = 0; n < 8; n++) put(32 + 16 * n, FPU_REGS + 16 * n, 10, FP);
  for (let n = 0; n < 16; n++) put(160 + 16 * n, XMM + XMM_SIZE * n, 16, SSE);
  if ((allowed & YMM) !== 0) for (let n = 0; n < 16; n++) put(AVX_AT + 16 * n, XMM + XMM_SIZE * n + 16, 16, YMM);
  const pkru = guestPkru(vcpu);
  if ((allowed & PKRU) !== 0) {
    view.setUint32(pkruOffset(vcpu), pkru, true);
    if (pkru !== 0) used |= PKRU;
  }
  view.setUint32(FEATURES_AT, used, true);
  return area;
}

/** 0 or -EINVAL; what the header does not name becomes initial, but PKRU stays. @kvm x86.c kvm_vcpu_ioctl_x86_set_xsave */
export function setXsave(vcpu: VcpuState, area: Uint8Array): number {
  if (area.length < XSAVE_BYTES) return -EINVAL;
  const view = new DataView(area.buffer, area.byteOffset, area.byteLength);
  const named = view.getUint32(FEATURES_AT, true);
  if (view.getUint32(FEATURES_AT + 4, true) !== 0 || (named & ~supportedXcr0(vcpu)) !== 0) return -EINVAL;
  if ((view.getUint32(24, true) & ~MXCSR_MASK) !== 0) return -EINVAL;
  if (!isZero(area.subarray(COMPACTION_AT, HEADER_END))) return -EINVAL;
  const fpu = guestFpu(vcpu);
  const state = new DataView(fpu.buffer, fpu.byteOffset, fpu.byteLength);
  resetFpu(fpu);
  const take = (to: number, from: number, bytes: number): void => fpu.set(area.subarray(from, from + bytes), at(to));
  if ((named & FP) !== 0) {
    state.setUint32(at(FPU_CW_AT), view.getUint16(0, true), true);
    state.setUint32(at(FPU_SW_AT), view.getUint16(2, true), true);
    state.setUint32(at(FPU_TAG_AT), area[4]!, true);
    for (let n = 0; n < 8; n++) take(FPU_REGS + 16 * n, 32 + 16 * n, 10);
  }
  if ((named & (SSE | YMM)) !== 0) state.setUint32(at(MXCSR_AT), view.getUint32(24, true), true);
  if ((named & SSE) !== 0) for (let n = 0; n < 16; n++) take(XMM + XMM_SIZE * n, 160 + 16 * n, 16);
  if ((named & YMM) !== 0) for (let n = 0; n < 16; n++) take(XMM + XMM_SIZE * n + 16, AVX_AT + 16 * n, 16);
  if ((named & PKRU) !== 0) setGuestPkru(vcpu, view.getInt32(pkruOffset(vcpu), true));
  return 0;
}

/** An extended control register: 0 is XCR0. */
export interface Xcr {
  readonly xcr: number;
  readonly value: bigint;
}
const MOST_XCRS = 16;

/** @kvm x86.c kvm_vcpu_ioctl_x86_get_xcrs */
export const getXcrs = (vcpu: VcpuState): Xcr[] => [{ xcr: 0, value: BigInt(vcpu.xcr0 >>> 0) }];

/** 0 or -EINVAL; only XCR0 is looked at. @kvm x86.c kvm_vcpu_ioctl_x86_set_xcrs */
export function setXcrs(vcpu: VcpuState, xcrs: readonly Xcr[]): number {
  if (xcrs.length > MOST_XCRS) return -EINVAL;
  const first = xcrs.find((x) => x.xcr === 0);
  if (first === undefined) return 0;
  const refused = setXcr(
    vcpu,
    0,
    Number(BigInt.asIntN(32, first.value)),
    Number(BigInt.asIntN(32, first.value >> 32n)),
  );
  return refused !== 0 ? -EINVAL : 0;
}
