/**
 * The machine that the VMM builds on a VM: RAM, port and MMIO devices, and the power button in both directions.
 */
import type { MemoryKind } from '../host/address-space.ts';
import { PROT_READ, PROT_WRITE } from '../host/vma.ts';
import type { GuestMemfd } from '../kvm/api/guest-memfd.ts';
import type { Kvm } from '../kvm/api/kvm.ts';
import type { Vcpu } from '../kvm/api/vcpu.ts';
import type { Vm } from '../kvm/api/vm.ts';
import { KVM_MEMORY_ATTRIBUTE_PRIVATE } from '../kvm/attributes.ts';
import { KVM_CAP_EXIT_HYPERCALL } from '../kvm/capability-numbers.ts';
import { KVM_HC_MAP_GPA_RANGE } from '../kvm/kvm-para.ts';
import { KVM_MEM_GUEST_MEMFD } from '../kvm/memslots/memslot.ts';
import { KVM_X86_DEFAULT_VM, KVM_X86_SNP_VM, KVM_X86_SW_PROTECTED_VM, KVM_X86_TDX_VM } from '../kvm/vm-type.ts';
import { type CpuFeature, withFeatures } from './cpu-features.ts';
import { MmioBus } from './devices/mmio-device.ts';
import { PortBus } from './devices/port-device.ts';
import {
  AcpiPowerOff,
  DebugExit,
  KeyboardReset,
  type OnPower,
  type PowerRequest,
  ResetControl,
  SystemControlPort,
} from './devices/power.ts';
import { SerialPort } from './devices/serial.ts';
import { guestCpuid } from './guest-cpuid.ts';
import { initSnp, launchSnp } from './launch-snp.ts';
import { initTd, launchTd } from './launch-tdx.ts';
import type { BootImage } from './loaders/boot-image.ts';
import { ramRanges } from './loaders/boot-image.ts';
import type { MemoryErrors } from './memory-errors.ts';
import { PageRanges } from './page-ranges.ts';
import { DEFAULT_START, Pc } from './pc.ts';
import { enter, type ResetState, resetState, restoreReset } from './start-state.ts';

const VM_TYPES = {
  default: KVM_X86_DEFAULT_VM,
  'sw-protected': KVM_X86_SW_PROTECTED_VM,
  snp: KVM_X86_SNP_VM,
  tdx: KVM_X86_TDX_VM,
} as const;

export type BoardVmType = keyof typeof VM_TYPES;

export interface BoardOptions {
  readonly kvm: Kvm;
  readonly vmType: BoardVmType;
  /** RAM in bytes, a multiple of 4 KiB. */
  readonly memoryBytes: number;
  /** 1 if absent; more of a PC only. */
  readonly vcpus?: number;
  /** Gets every byte that the guest sends to the serial port. */
  readonly onSerial: (byte: number) => void;
  /** A PC: interrupt chips in the kernel, and what guests for QEMU's machines expect (`pc.ts`); a bare board if absent. */
  readonly pc?: boolean;
  /** CPUID features of a PC that differ from what KVM supports. */
  readonly features?: readonly CpuFeature[];
  /** The date of a PC when it starts, in seconds since 1970; the beginning of 2025 if absent. */
  readonly startSeconds?: number;
}

/** A memory slot beyond RAM. */
export interface SlotOptions {
  readonly gpa: number;
  readonly size: number;
  readonly kind: MemoryKind;
  readonly flags?: number;
  /** Back it by guest_memfd as well (VM types with private memory). */
  readonly guestMemfd?: boolean;
}

/** A slot as the board keeps it. */
export interface BoardSlot {
  readonly slot: number;
  readonly gpa: number;
  readonly size: number;
  readonly hva: number;
  readonly flags: number;
  readonly guestMemfd: GuestMemfd | null;
}

export class Board {
  readonly kvm: Kvm;
  readonly vm: Vm;
  /** The first vCPU, which boots. */
  readonly vcpu: Vcpu;
  readonly vcpus: readonly Vcpu[];
  readonly vmType: BoardVmType;
  readonly ports = new PortBus();
  readonly mmio = new MmioBus();
  readonly serial: SerialPort;
  /** Pages whose attribute is private. */
  readonly privatePages = new PageRanges();
  /** Set by the guest through one of the power ports. */
  power: PowerRequest | null = null;
  readonly memoryBytes: number;
  readonly pc: Pc | null;
  /** The vCPU that was run last: devices' answers to an exit are for it. */
  running: Vcpu;
  /** What the VMM does about memory errors of the host; null: nothing. */
  memoryErrors: MemoryErrors | null = null;
  private readonly slots: BoardSlot[] = [];
  private readonly ramSlots: number;
  private readonly resetStates: readonly ResetState[];

  constructor(options: BoardOptions) {
    this.kvm = options.kvm;
    this.vmType = options.vmType;
    this.memoryBytes = options.memoryBytes;
    this.vm = this.kvm.createVm(VM_TYPES[options.vmType]);
    if (options.vmType === 'snp') initSnp(this.vm);
    if (this.hasPrivateMemory) this.vm.enableCap(KVM_CAP_EXIT_HYPERCALL, 0, [1 << KVM_HC_MAP_GPA_RANGE]);
    this.serial = new SerialPort(options.onSerial);
    this.ports.add(this.serial);
    const onPower: OnPower = (request) => {
      this.power ??= request;
    };
    const isPc = options.pc === true;
    const powerDevices = [DebugExit, ResetControl, SystemControlPort, KeyboardReset];
    for (const Device of isPc ? powerDevices : [...powerDevices, AcpiPowerOff]) this.ports.add(new Device(onPower));
    for (const { gpa, size } of ramRanges(options.memoryBytes)) {
      this.addSlot({ gpa, size, kind: 'anon', guestMemfd: this.hasPrivateMemory });
    }
    this.ramSlots = this.slots.length;
    const { vcpus: count = 1, memoryBytes, startSeconds = DEFAULT_START } = options;
    this.pc = isPc ? new Pc(this, { memoryBytes, vcpus: count, startSeconds, onPower }) : null;
    const cpuid = this.kvm.getSupportedCpuid();
    if (this.vmType === 'tdx') initTd(this.vm, cpuid);
    this.vcpus = Array.from({ length: count }, (_, id) => {
      const vcpu = this.vm.createVcpu(id);
      vcpu.setCpuid2(isPc ? withFeatures(guestCpuid(cpuid, id, count), options.features ?? []) : cpuid);
      return vcpu;
    });
    this.vcpu = this.vcpus[0]!;
    this.running = this.vcpu;
    this.resetStates = isPc && this.vmType !== 'tdx' ? this.vcpus.map(resetState) : [];
  }

  get hasPrivateMemory(): boolean {
    return this.vmType !== 'default';
  }

  /** Maps host memory and gives it to the guest. */
  addSlot(options: SlotOptions): BoardSlot {
    const hva = this.kvm.mm.mmap({ size: options.size, kind: options.kind });
    if (hva < 0) throw new Error(`host memory of ${options.size} bytes cannot be mapped`);
    const guestMemfd = options.guestMemfd === true ? this.vm.createGuestMemfd({ size: options.size, flags: 0 }) : null;
    const flags = (options.flags ?? 0) | (guestMemfd === null ? 0 : KVM_MEM_GUEST_MEMFD);
    const slot: BoardSlot = { slot: this.slots.length, gpa: options.gpa, size: options.size, hva, flags, guestMemfd };
    this.slots.push(slot);
    this.setSlot(slot, flags, options.size);
    return slot;
  }

  /** Changes the flags of a slot; size 0 removes it. */
  setSlot(slot: BoardSlot, flags: number, size = slot.size): void {
    this.vm.setUserMemoryRegion2({
      slot: slot.slot,
      flags: size === 0 ? 0 : flags,
      guestPhysAddr: slot.gpa,
      memorySize: size,
      userspaceAddr: slot.hva,
      ...(slot.guestMemfd === null ? {} : { guestMemfd: slot.guestMemfd, guestMemfdOffset: 0 }),
    });
  }

  /** The slots of RAM. */
  get ram(): readonly BoardSlot[] {
    return this.slots.slice(0, this.ramSlots);
  }

  /** Host address behind `gpa`, or null. */
  hvaOf(gpa: number): number | null {
    const slot = this.slots.find((s) => gpa >= s.gpa && gpa < s.gpa + s.size);
    return slot === undefined ? null : slot.hva + gpa - slot.gpa;
  }

  /** Guest address that `hva` is behind, or null. */
  gpaOf(hva: number): number | null {
    const slot = this.slots.find((s) => hva >= s.hva && hva < s.hva + s.size);
    return slot === undefined ? null : slot.gpa + hva - slot.hva;
  }

  /** Writes to guest memory through the slot's host mapping (its shared half). */
  writeMemory(gpa: number, bytes: Uint8Array): void {
    const slot = this.slots.find((s) => gpa >= s.gpa && gpa + bytes.length <= s.gpa + s.size);
    if (slot === undefined) throw new Error(`no slot holds 0x${gpa.toString(16)}`);
    const error = this.kvm.mm.write(slot.hva + gpa - slot.gpa, bytes);
    if (error !== 0) throw new Error(`host memory behind gpa 0x${gpa.toString(16)} cannot be written (${error})`);
  }

  /** Whether one slot holds all of it. */
  hasMemory(gpa: number, size: number): boolean {
    return this.slots.some((s) => gpa >= s.gpa && gpa + size <= s.gpa + s.size);
  }

  /** Reads guest memory through the slot's host mapping (its shared half). */
  readMemory(gpa: number, size: number): Uint8Array {
    const slot = this.slots.find((s) => gpa >= s.gpa && gpa + size <= s.gpa + s.size);
    if (slot === undefined) throw new Error(`no slot holds 0x${gpa.toString(16)}`);
    const bytes = new Uint8Array(size);
    const error = this.kvm.mm.read(slot.hva + gpa - slot.gpa, bytes);
    if (error !== 0) throw new Error(`host memory behind gpa 0x${gpa.toString(16)} cannot be read (${error})`);
    return bytes;
  }

  /** Puts every vCPU of a PC back to its state after RESET. */
  resetVcpus(): void {
    for (const [i, vcpu] of this.vcpus.entries()) restoreReset(vcpu, this.resetStates[i]!);
  }

  /** Unmaps the host page behind `gpa` and maps it again, contents kept: the guest's next access faults. */
  refaultPage(gpa: number): void {
    const slot = this.slots.find((s) => gpa >= s.gpa && gpa < s.gpa + s.size);
    if (slot === undefined) return;
    const hva = slot.hva + gpa - slot.gpa;
    this.kvm.mm.mprotect(hva, 4096, 0);
    this.kvm.mm.mprotect(hva, 4096, PROT_READ | PROT_WRITE);
  }

  /** Copies an image in (memory is zero before) and puts the vCPU at its entry. */
  load(image: BootImage): void {
    if (this.vmType === 'tdx') {
      launchTd(this, image, this.memoryBytes);
      return;
    }
    for (const s of image.segments) this.writeMemory(s.gpa, s.bytes);
    this.pc?.load(image);
    enter(this.vcpu, image.entry);
    if (this.vmType === 'snp') launchSnp(this, image.segments, this.memoryBytes);
  }

  /** Makes all memory of slots with guest_memfd private or shared. */
  convertAll(toPrivate: boolean): void {
    for (const s of this.slots) if (s.guestMemfd !== null) this.convert(s.gpa, s.size, toPrivate);
  }

  /** Host virtual address of the shared half of `gpa`. */
  hostAddress(gpa: number): number {
    const slot = this.slots.find((s) => gpa >= s.gpa && gpa < s.gpa + s.size);
    if (slot === undefined) throw new Error(`no slot holds 0x${gpa.toString(16)}`);
    return slot.hva + gpa - slot.gpa;
  }

  /** Makes [gpa, gpa + size) private or shared; private pages that become shared are freed. Throws KvmError. */
  convert(gpa: number, size: number, toPrivate: boolean): void {
    this.vm.setMemoryAttributes({
      address: gpa,
      size,
      attributes: toPrivate ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0,
      flags: 0,
    });
    this.privatePages.set(gpa, gpa + size, toPrivate);
    if (toPrivate) return;
    for (const s of this.slots) {
      const start = Math.max(gpa, s.gpa);
      const end = Math.min(gpa + size, s.gpa + s.size);
      if (s.guestMemfd !== null && start < end) s.guestMemfd.punchHole(start - s.gpa, end - start);
    }
  }
}
