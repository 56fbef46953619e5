/** A virtual machine: the ioctls of a VM file descriptor. Every method throws KvmError, with EIO once KVM has declared the VM dead. */
import { hex } from '../../arch/halves.ts';
import { BackingFile } from '../../host/backing-file.ts';
import { EINVAL, EIO, ENOTTY, ENXIO } from '../../host/errno.ts';
import { checkExtension } from '../capabilities.ts';
import { encryptArgument, type MemoryEncryptCommand } from '../confidential.ts';
import { clearDirtyLog, getDirtyLog } from '../dirty/dirty-bitmap.ts';
import { dirtyRingsReset } from '../dirty/reset-dirty-rings.ts';
import { vmEnableCap } from '../enable-cap.ts';
import { gmemCreate } from '../guest-memfd/guest-memfd.ts';
import { registerCoalescedMmio, unregisterCoalescedMmio } from '../io-bus/coalesced-mmio.ts';
import type { CoalescedEntry } from '../io-bus/coalesced-ring.ts';
import { ioeventfd } from '../io-bus/ioeventfd.ts';
import { type MemoryRegion, setUserMemoryRegion } from '../memslots/set-memory-region.ts';
import { setMemoryAttributes } from '../set-memory-attributes.ts';
import type { TraceEvent } from '../trace/events.ts';
import { createVcpu, destroyVm } from '../vm-lifecycle.ts';
import { setIdentityMapAddr, setNrMmuPages, setTssAddr } from '../vm-settings.ts';
import type { VmState } from '../vm-state.ts';
import { createPit, type PitState } from '../x86/i8254.ts';
import type { IoApicState } from '../x86/ioapic.ts';
import { type IrqRoutingEntry, sendMsi, setIrqRouting } from '../x86/irq-routing.ts';
import { createIrqchip, irqLine } from '../x86/irqchip.ts';
import { type MsrFilterRange, setMsrFilter } from '../x86/msr-filter.ts';
import type { PicState } from '../x86/pic.ts';
import { idleUntil, vmIdle } from '../x86/scheduling.ts';
import { HrTimer, virtualNow } from '../x86/virtual-time.ts';
import { u64 } from './arguments.ts';
import type { EventFd } from './event-fd.ts';
import { GuestMemfd } from './guest-memfd.ts';
import { check, KvmError } from './kvm-error.ts';
import { Vcpu } from './vcpu.ts';

/** struct kvm_userspace_memory_region. */
export interface UserMemoryRegion {
  /** Slot id in the lower 16 bits, address space (1: SMM) in the upper. */
  readonly slot: number;
  /** KVM_MEM_LOG_DIRTY_PAGES 1, KVM_MEM_READONLY 2, and with the second form KVM_MEM_GUEST_MEMFD 4. */
  readonly flags?: number;
  readonly guestPhysAddr: number | bigint;
  /** Bytes; 0 deletes the slot. */
  readonly memorySize: number | bigint;
  /** Host virtual address. */
  readonly userspaceAddr?: number | bigint;
}

/** struct kvm_userspace_memory_region2. */
export interface UserMemoryRegion2 extends UserMemoryRegion {
  /** Source of private memory: a guest_memfd, a file of another kind, or the number of a descriptor that is not open. */
  readonly guestMemfd?: GuestMemfd | BackingFile | number;
  readonly guestMemfdOffset?: number | bigint;
  /** Ignored, as the kernel ignores it. */
  readonly pad1?: number;
}

/** Made by Vm.createTimer. */
export interface VmTimer {
  /** When it fires, in virtual time; null disarms it. */
  set(at: number | null): void;
}

/** A VM file descriptor. Made by Kvm.createVm. */
export class Vm {
  /** KVM's own state of the VM: for tools that look inside. */
  readonly state: VmState;
  private readonly vcpus: Vcpu[] = [];

  constructor(state: VmState) {
    this.state = state;
  }

  private alive(operation: string): VmState {
    if (this.state.log.vmBugged) throw new KvmError(EIO, operation, 'the VM is dead');
    return this.state;
  }

  /**
   * KVM_CREATE_VCPU.
   * @param id also the APIC id
   * @throws KvmError EINVAL: id or number of vCPUs too large; EEXIST: id taken; ENOMEM
   * @kvm kvm_main.c kvm_vm_ioctl_create_vcpu
   */
  createVcpu(id: number): Vcpu {
    const vm = this.alive('KVM_CREATE_VCPU');
    const state = createVcpu(vm, id);
    if (typeof state === 'number') throw new KvmError(state, 'KVM_CREATE_VCPU', `id ${id}`);
    const vcpu = new Vcpu(state);
    this.vcpus.push(vcpu);
    return vcpu;
  }

  /**
   * KVM_SET_USER_MEMORY_REGION: creates, deletes (size 0), moves or re-flags a slot.
   * @throws KvmError EINVAL: flags, alignment, range, slot id, size or host address of an existing slot; EEXIST: overlap
   * @kvm kvm_main.c __kvm_set_memory_region
   */
  setUserMemoryRegion(region: UserMemoryRegion): void {
    this.setRegion(region, 1, 'KVM_SET_USER_MEMORY_REGION');
  }

  /**
   * KVM_SET_USER_MEMORY_REGION2: the same, and a slot can have private memory.
   * @throws KvmError also EBADF: guest_memfd not open; EINVAL: no guest_memfd of this VM, or the range is bound already
   */
  setUserMemoryRegion2(region: UserMemoryRegion2): void {
    this.setRegion(region, 2, 'KVM_SET_USER_MEMORY_REGION2');
  }

  private setRegion(region: UserMemoryRegion2, version: 1 | 2, operation: string): void {
    const vm = this.alive(operation);
    const args: MemoryRegion = {
      slot: region.slot >>> 0,
      flags: region.flags ?? 0,
      guestPhysAddr: u64(region.guestPhysAddr),
      memorySize: u64(region.memorySize),
      userspaceAddr: u64(region.userspaceAddr ?? 0),
      guestMemfdOffset: u64(region.guestMemfdOffset ?? 0),
      guestMemfd: fileOf(region.guestMemfd),
    };
    const what = `slot ${hex(args.slot)}, flags ${hex(args.flags)}, gpa ${hex(args.guestPhysAddr)}, size ${hex(args.memorySize)}`;
    check(setUserMemoryRegion(vm, args, version), operation, what);
  }

  /**
   * KVM_CREATE_GUEST_MEMFD.
   * @throws KvmError EINVAL: flags, or a size that is not a positive number of whole pages
   * @kvm guest_memfd.c kvm_gmem_create
   */
  createGuestMemfd(args: { size: number | bigint; flags?: number | bigint }): GuestMemfd {
    const vm = this.alive('KVM_CREATE_GUEST_MEMFD');
    const file = gmemCreate(vm, u64(args.size), u64(args.flags ?? 0));
    const what = `size ${hex(args.size)}, flags ${hex(args.flags ?? 0)}`;
    if (typeof file === 'number') throw new KvmError(file, 'KVM_CREATE_GUEST_MEMFD', what);
    return new GuestMemfd(file);
  }

  /**
   * KVM_SET_MEMORY_ATTRIBUTES: makes a range of guest memory private (8) or shared (0).
   * @throws KvmError EINVAL: flags, attributes that the VM type does not have, empty, wrapping or unaligned range
   * @kvm kvm_main.c kvm_vm_ioctl_set_mem_attributes
   */
  setMemoryAttributes(args: {
    address: number | bigint;
    size: number | bigint;
    attributes: number | bigint;
    flags?: number | bigint;
  }): void {
    const vm = this.alive('KVM_SET_MEMORY_ATTRIBUTES');
    const r = setMemoryAttributes(vm, u64(args.address), u64(args.size), u64(args.attributes), u64(args.flags ?? 0));
    const what = `gpa ${hex(args.address)}, size ${hex(args.size)}, attributes ${hex(args.attributes)}`;
    check(r, 'KVM_SET_MEMORY_ATTRIBUTES', what);
  }

  /**
   * KVM_GET_DIRTY_LOG: one bit a page, byte 0 bit 0 first, in whole 64-bit words.
   * @throws KvmError ENXIO: dirty ring in use; EINVAL: slot id; ENOENT: no such slot, or not logged
   * @kvm kvm_main.c kvm_get_dirty_log_protect
   */
  getDirtyLog(slot: number): Uint8Array {
    const log = getDirtyLog(this.alive('KVM_GET_DIRTY_LOG'), slot >>> 0);
    if (typeof log === 'number') throw new KvmError(log, 'KVM_GET_DIRTY_LOG', `slot ${slot}`);
    return log;
  }

  /**
   * KVM_CLEAR_DIRTY_LOG.
   * @throws KvmError ENXIO: dirty ring in use; EINVAL: slot id, first page not a multiple of 64, range; ENOENT
   * @kvm kvm_main.c kvm_clear_dirty_log_protect
   */
  clearDirtyLog(args: { slot: number; firstPage: number; numPages: number; bitmap: Uint8Array }): void {
    const r = clearDirtyLog(this.alive('KVM_CLEAR_DIRTY_LOG'), { ...args, slot: args.slot >>> 0 });
    check(r, 'KVM_CLEAR_DIRTY_LOG', `slot ${args.slot}, first page ${args.firstPage}, pages ${args.numPages}`);
  }

  /**
   * KVM_RESET_DIRTY_RINGS: takes back the harvested entries of all vCPUs' rings.
   * @returns how many
   * @throws KvmError EINVAL: no ring
   * @kvm kvm_main.c kvm_vm_ioctl_reset_dirty_pages
   */
  resetDirtyRings(): number {
    return check(dirtyRingsReset(this.alive('KVM_RESET_DIRTY_RINGS')), 'KVM_RESET_DIRTY_RINGS', 'no dirty ring');
  }

  /**
   * KVM_REGISTER_COALESCED_MMIO: writes to the zone go to `coalescedRing` without an exit.
   * @throws KvmError EINVAL: pio is neither 0 nor 1; ENOSPC: bus full
   * @kvm coalesced_mmio.c kvm_vm_ioctl_register_coalesced_mmio
   */
  registerCoalescedMmio(zone: { addr: number; size: number; pio?: number | boolean }): void {
    const vm = this.alive('KVM_REGISTER_COALESCED_MMIO');
    const r = registerCoalescedMmio(vm, zone.addr, zone.size, Number(zone.pio ?? 0));
    check(
      r,
      'KVM_REGISTER_COALESCED_MMIO',
      `address ${hex(zone.addr)}, size ${hex(zone.size)}, pio ${Number(zone.pio ?? 0)}`,
    );
  }

  /** KVM_UNREGISTER_COALESCED_MMIO: all zones that contain the range. @throws KvmError EINVAL: pio is neither 0 nor 1 */
  unregisterCoalescedMmio(zone: { addr: number; size: number; pio?: number | boolean }): void {
    const vm = this.alive('KVM_UNREGISTER_COALESCED_MMIO');
    const r = unregisterCoalescedMmio(vm, zone.addr, zone.size, Number(zone.pio ?? 0));
    check(r, 'KVM_UNREGISTER_COALESCED_MMIO', `pio ${Number(zone.pio ?? 0)}`);
  }

  /** The ring as it stands: its indices, and its entries, which this call takes out. */
  coalescedRing(): { first: number; last: number; entries: CoalescedEntry[] } {
    const ring = this.state.buses.coalescedRing;
    const { first, last } = ring;
    return { first, last, entries: ring.drain() };
  }

  /**
   * KVM_IOEVENTFD. `flags`: DATAMATCH 1, PIO 2, DEASSIGN 4.
   * @param args.eventfd null stands for a descriptor that is no eventfd
   * @throws KvmError EINVAL: length, range, flags; EBADF; EEXIST: collision; ENOSPC: bus full; ENOENT: nothing to deassign
   * @kvm eventfd.c kvm_ioeventfd
   */
  ioeventfd(args: {
    eventfd: EventFd | null;
    addr: number | bigint;
    len: number;
    datamatch?: number | bigint;
    flags?: number;
  }): void {
    const r = ioeventfd(this.alive('KVM_IOEVENTFD'), {
      eventfd: args.eventfd === null ? null : args.eventfd.counter,
      addr: u64(args.addr),
      len: args.len,
      datamatch: u64(args.datamatch ?? 0),
      flags: args.flags ?? 0,
    });
    check(r, 'KVM_IOEVENTFD', `address ${hex(args.addr)}, length ${args.len}, flags ${hex(args.flags ?? 0)}`);
  }

  /**
   * KVM_ENABLE_CAP.
   * @throws KvmError EINVAL: not a capability that can be enabled, flags, arguments, too late; E2BIG: dirty ring
   */
  enableCap(cap: number, flags = 0, args: readonly (number | bigint)[] = []): number {
    const vm = this.alive('KVM_ENABLE_CAP');
    const r = vmEnableCap(vm, cap, flags, args.map(u64));
    return check(r, 'KVM_ENABLE_CAP', `capability ${cap}, flags ${hex(flags)}, arguments ${args.map(hex).join(' ')}`);
  }

  /** KVM_CHECK_EXTENSION on the VM: the value, 0 for what there is not. @kvm kvm_main.c kvm_vm_ioctl_check_extension_generic */
  checkExtension(cap: number): number {
    const vm = this.alive('KVM_CHECK_EXTENSION');
    return checkExtension(vm, vm, cap);
  }

  /** KVM_CREATE_IRQCHIP. @throws KvmError EEXIST: there is one; EINVAL: a vCPU exists */
  createIrqchip(): void {
    check(createIrqchip(this.alive('KVM_CREATE_IRQCHIP')), 'KVM_CREATE_IRQCHIP');
  }

  /** KVM_GET_IRQCHIP for an 8259: chip 0 is the master. @throws KvmError ENXIO: no in-kernel chips */
  getPic(chip: 0 | 1): PicState {
    return this.pic('KVM_GET_IRQCHIP').state(chip);
  }

  /** KVM_SET_IRQCHIP for an 8259: chip 0 is the master. @throws KvmError ENXIO: no in-kernel chips */
  setPic(chip: 0 | 1, state: PicState): void {
    this.pic('KVM_SET_IRQCHIP').setState(this.state, chip, state);
  }

  private pic(operation: string) {
    const { pic } = this.alive(operation).x86;
    if (pic === null) throw new KvmError(-ENXIO, operation, 'no in-kernel interrupt chips');
    return pic;
  }

  /** KVM_GET_IRQCHIP for the I/O APIC. @throws KvmError ENXIO: no in-kernel chips */
  getIoapic(): IoApicState {
    return this.ioapic('KVM_GET_IRQCHIP').state();
  }

  /** KVM_SET_IRQCHIP for the I/O APIC. @throws KvmError ENXIO: no in-kernel chips */
  setIoapic(state: IoApicState): void {
    this.ioapic('KVM_SET_IRQCHIP').setState(this.state, state);
  }

  private ioapic(operation: string) {
    const { ioapic } = this.alive(operation).x86;
    if (ioapic === null) throw new KvmError(-ENXIO, operation, 'no in-kernel interrupt chips');
    return ioapic;
  }

  /**
   * KVM_CREATE_PIT2. `flags`: KVM_PIT_SPEAKER_DUMMY 1, port 0x61 as well.
   * @throws KvmError EEXIST: there is one; ENOENT: no in-kernel interrupt chips; EINVAL: flags
   */
  createPit2(flags = 0): void {
    check(createPit(this.alive('KVM_CREATE_PIT2'), flags), 'KVM_CREATE_PIT2', `flags ${hex(flags)}`);
  }

  /** KVM_GET_PIT2. @throws KvmError ENXIO: no PIT */
  getPit2(): PitState {
    return this.pit('KVM_GET_PIT2').state();
  }

  /** KVM_SET_PIT2. @throws KvmError ENXIO: no PIT */
  setPit2(state: PitState): void {
    this.pit('KVM_SET_PIT2').setState(state);
  }

  /** KVM_REINJECT_CONTROL: whether ticks that the guest missed are made up for. @throws KvmError ENXIO: no PIT */
  reinjectControl(pitReinject: boolean): void {
    this.pit('KVM_REINJECT_CONTROL').setReinject(pitReinject);
  }

  private pit(operation: string) {
    const { pit } = this.alive(operation).x86;
    if (pit === null) throw new KvmError(-ENXIO, operation, 'no in-kernel PIT');
    return pit;
  }

  /** KVM_SET_GSI_ROUTING: all wires anew. @throws KvmError ENXIO: no in-kernel chips; EINVAL: a pin that is not there */
  setGsiRouting(entries: readonly IrqRoutingEntry[]): void {
    const r = setIrqRouting(this.alive('KVM_SET_GSI_ROUTING'), entries);
    check(r, 'KVM_SET_GSI_ROUTING', `${entries.length} entries`);
  }

  /** KVM_SIGNAL_MSI. @returns how many vCPUs took it @throws KvmError EINVAL: no in-kernel chips */
  signalMsi(address: number, data: number): number {
    const vm = this.alive('KVM_SIGNAL_MSI');
    if (vm.x86.ioapic === null) throw new KvmError(-EINVAL, 'KVM_SIGNAL_MSI', 'no in-kernel interrupt chips');
    return sendMsi(vm, address, data);
  }

  /** KVM_IRQ_LINE: a wire (GSI) goes high or low. @throws KvmError ENXIO: no in-kernel chips, or no such wire */
  irqLine(gsi: number, high: boolean): void {
    const vm = this.alive('KVM_IRQ_LINE');
    if (!irqLine(vm, gsi, high)) throw new KvmError(-ENXIO, 'KVM_IRQ_LINE', `gsi ${gsi}`);
  }

  /** Virtual time in nanoseconds: a retired instruction is one; time without instructions comes on top. */
  now(): number {
    return virtualNow(this.state);
  }

  /** Virtual time that an exit of the guest takes, in nanoseconds; none if it was never set. */
  setExitTime(ticks: number): void {
    this.state.x86.exitTime = ticks;
  }

  /** A timer of this virtual time (a timerfd): it can act as any other thread of the VMM can while a vCPU runs. */
  createTimer(fire: (at: number) => void): VmTimer {
    const timer = new HrTimer(fire);
    const { timers } = this.state.x86;
    return {
      set: (at) => {
        if (at === null) timers.cancel(timer);
        else timers.start(timer, Math.max(0, at));
      },
    };
  }

  /** Lets time pass while every vCPU is halted, from timer to timer until one has something to do; false when nobody will. */
  idle(): boolean {
    return vmIdle(this.alive('KVM_RUN'));
  }

  /** As `idle`, while no vCPU is run at all, until `woken` says so. */
  sleep(woken: () => boolean): boolean {
    return idleUntil(this.alive('KVM_RUN'), woken);
  }

  /** The host's time of day when virtual time began, in seconds since 1970; 0 if it was never set. */
  setRealTime(seconds: number): void {
    this.state.x86.realTime = seconds;
  }

  /**
   * KVM_X86_SET_MSR_FILTER: what the guest may do with MSRs; `defaultDeny` holds for those that no range names.
   * @throws KvmError EINVAL: a range without access or with too many MSRs, nothing allowed at all
   */
  setMsrFilter(filter: { readonly defaultDeny?: boolean; readonly ranges: readonly MsrFilterRange[] }): void {
    const vm = this.alive('KVM_X86_SET_MSR_FILTER');
    check(setMsrFilter(vm, filter.defaultDeny === true ? 1 : 0, filter.ranges), 'KVM_X86_SET_MSR_FILTER');
  }

  /**
   * KVM_MEMORY_ENCRYPT_OP: one step in the life of an SNP or TDX guest; what the firmware said is left in `command.error`.
   * @throws KvmError ENOTTY: a VM of another kind; EINVAL: command, arguments or order; EIO: the firmware refused
   * @kvm x86.c kvm_arch_vm_ioctl
   */
  memoryEncryptOp(command: MemoryEncryptCommand): void {
    const vm = this.alive('KVM_MEMORY_ENCRYPT_OP');
    const r = vm.vendor.confidential?.memoryEncryptOp(vm, command) ?? -ENOTTY;
    check(r, 'KVM_MEMORY_ENCRYPT_OP', encryptArgument(command));
  }

  /** KVM_SET_TSS_ADDR: no effect on AMD. @throws KvmError EINVAL: above 4 GiB less three pages */
  setTssAddr(addr: number | bigint): void {
    check(setTssAddr(this.alive('KVM_SET_TSS_ADDR'), Number(u64(addr))), 'KVM_SET_TSS_ADDR', hex(addr));
  }

  /** KVM_SET_IDENTITY_MAP_ADDR. @throws KvmError EINVAL: a vCPU exists */
  setIdentityMapAddr(addr: number | bigint): void {
    const vm = this.alive('KVM_SET_IDENTITY_MAP_ADDR');
    check(setIdentityMapAddr(vm, Number(u64(addr))), 'KVM_SET_IDENTITY_MAP_ADDR', hex(addr));
  }

  /** KVM_SET_NR_MMU_PAGES: bounds the pages of shadow page tables. @throws KvmError EINVAL: below 64 */
  setNrMmuPages(pages: number): void {
    check(setNrMmuPages(this.alive('KVM_SET_NR_MMU_PAGES'), pages), 'KVM_SET_NR_MMU_PAGES', `${pages} pages`);
  }

  /** Sends KVM's trace events to `sink` from now on; null stops them. */
  onTrace(sink: ((event: TraceEvent) => void) | null): void {
    this.state.trace.setSink(sink);
  }

  /** The VM's binary statistics, by the kernel's names. */
  stats(): Record<string, number> {
    return { ...this.state.stats };
  }

  /** Closes the VM's and its vCPUs' descriptors: everything KVM built is torn down. */
  close(): void {
    destroyVm(this.state);
  }
}

function fileOf(fd: GuestMemfd | BackingFile | number | undefined): MemoryRegion['guestMemfd'] {
  if (fd instanceof GuestMemfd) return fd.file;
  // Without a descriptor the field is 0, which is standard input.
  return fd === undefined || fd instanceof BackingFile ? 'other-file' : 'not-open';
}
