/**
 * How a TD comes up: it is made before its vCPUs, then its firmware is added page by page and measured, and the measurement is finished
 * (@kvm Documentation/virt/kvm/x86/intel-tdx.rst). All of its RAM is private at first, and none of it accepted.
 */
import type { CpuidEntry } from '../cpu/profile.ts';
import type { CpuidEntry2 } from '../kvm/api/cpuid-entry.ts';
import { fromCpuidEntry2 } from '../kvm/api/cpuid-entry.ts';
import type { Vm } from '../kvm/api/vm.ts';
import {
  KVM_TDX_CAPABILITIES,
  KVM_TDX_FINALIZE_VM,
  KVM_TDX_INIT_MEM_REGION,
  KVM_TDX_INIT_VCPU,
  KVM_TDX_INIT_VM,
  KVM_TDX_MEASURE_MEMORY_REGION,
  type TdxCapabilities,
} from '../kvm/vmx/tdx/commands.ts';
import type { Board } from './board.ts';
import { ImageError } from './image-error.ts';
import type { BootImage } from './loaders/boot-image.ts';

const FOUR_GIB = 0x1_0000_0000;
const LARGEST_FIRMWARE = 16 * 1024 * 1024;
/** CPUID 80000008 EAX[23:16]: the width of guest physical addresses, of which the last bit says shared. */
const WIDTH_48 = 48 << 16;

/** A flat binary that ends at 4 GiB, with the reset vector in its last 16 bytes: there is nothing else that a TD starts from. */
export function firmwareImage(file: string, bytes: Uint8Array): BootImage {
  if (bytes.length % 4096 !== 0 || bytes.length === 0 || bytes.length > LARGEST_FIRMWARE) {
    throw new ImageError(
      file,
      `${bytes.length} bytes: a TD starts from firmware, a flat image of whole pages (at most 16 MiB) that ends at 4 GiB`,
    );
  }
  const gpa = FOUR_GIB - bytes.length;
  return { format: 'flat', segments: [{ gpa, bytes, size: bytes.length }], entry: { mode: 'reset' } };
}

/** KVM_TDX_INIT_VM, with what can be configured of `cpuid`. Throws KvmError. */
export function initTd(vm: Vm, cpuid: readonly CpuidEntry2[]): void {
  const capabilities: TdxCapabilities = { supportedAttrs: 0, supportedXfam: 0, cpuid: [] };
  vm.memoryEncryptOp({ id: KVM_TDX_CAPABILITIES, data: capabilities });
  const ours = cpuid.map(fromCpuidEntry2);
  const configured = capabilities.cpuid.flatMap(({ leaf, index }): CpuidEntry[] => {
    const entry = ours.find((e) => e.leaf === leaf && e.index === index);
    if (entry === undefined) return [];
    return [leaf === 0x80000008 ? { ...entry, eax: ((entry.eax & 0xff00ffff) | WIDTH_48) >>> 0 } : entry];
  });
  vm.memoryEncryptOp({
    id: KVM_TDX_INIT_VM,
    data: { attributes: 0, xfam: capabilities.supportedXfam, cpuid: configured },
  });
}

/** Adds and measures the firmware, and finishes the TD. `memoryBytes` is what it is told in RCX. Throws KvmError. */
export function launchTd(board: Board, image: BootImage, memoryBytes: number): void {
  const [firmware] = image.segments;
  const { gpa, bytes, size } = firmware!;
  const slot = board.addSlot({ gpa, size, kind: 'anon', guestMemfd: true });
  board.writeMemory(gpa, bytes);
  board.convertAll(true);
  for (const vcpu of board.vcpus) vcpu.memoryEncryptOp({ id: KVM_TDX_INIT_VCPU, data: { rcx: memoryBytes } });
  board.vcpu.memoryEncryptOp({
    id: KVM_TDX_INIT_MEM_REGION,
    flags: KVM_TDX_MEASURE_MEMORY_REGION,
    data: { sourceAddr: slot.hva, gpa, nrPages: size / 4096 },
  });
  board.vm.memoryEncryptOp({ id: KVM_TDX_FINALIZE_VM });
}
