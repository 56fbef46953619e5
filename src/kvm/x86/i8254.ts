/** The in-kernel i8254 timer: ports 0x40 to 0x43, and the speaker's port 0x61 (@kvm i8254.c). */
import { EEXIST, EINVAL, ENOENT, EOPNOTSUPP } from '../../host/errno.ts';
import { type IoDevice, ioBusRegisterDev, KVM_PIO_BUS } from '../io-bus/io-bus.ts';
import { LOCK_SLOTS } from '../locks.ts';
import type { VcpuState } from '../vcpu-state.ts';
import type { VmState } from '../vm-state.ts';
import { PIT_SOURCE, setIrq } from './irq-routing.ts';
import { nmiWatchdog } from './lapic-delivery.ts';
import { MIN_TIMER_PERIOD } from './lapic-timer.ts';
import { HrTimer, virtualNow } from './virtual-time.ts';

const PIT_BASE = 0x40;
const PIT_PORTS = 4;
const SPEAKER_BASE = 0x61;
const SPEAKER_PORTS = 4;
const PIT_FREQ = 1_193_181;
const NSEC_PER_SEC = 1_000_000_000;

export const KVM_PIT_SPEAKER_DUMMY = 1;
export const KVM_PIT_FLAGS_HPET_LEGACY = 1;
export const KVM_PIT_FLAGS_SPEAKER_DATA_ON = 2;

/** Which byte of a count is next, as the access mode of the control word names them; 1 is the low one alone. */
const MSB = 2;
const WORD0 = 3;
const WORD1 = 4;

/** No mode that counts: the timer of channel 0 is off. */
const MODE_NONE = 0xff;

/** One counter (@kvm kvm_host.h uapi kvm.h struct kvm_pit_channel_state). */
export interface PitChannelState {
  /** 1 to 65536. */
  count: number;
  latchedCount: number;
  /** Access mode of what is still to be read of the latched count; 0 when none is latched. */
  countLatched: number;
  statusLatched: boolean;
  status: number;
  readState: number;
  writeState: number;
  writeLatch: number;
  rwMode: number;
  mode: number;
  bcd: number;
  gate: number;
  /** Virtual time at which the count began. */
  countLoadTime: number;
}

/** struct kvm_pit_state2. */
export interface PitState {
  readonly channels: readonly Readonly<PitChannelState>[];
  /** KVM_PIT_FLAGS_* */
  readonly flags: number;
}

function freshChannel(): PitChannelState {
  return {
    count: 0,
    latchedCount: 0,
    countLatched: 0,
    statusLatched: false,
    status: 0,
    readState: 0,
    writeState: 0,
    writeLatch: 0,
    rwMode: 0,
    mode: MODE_NONE,
    bcd: 0,
    gate: 1,
    countLoadTime: 0,
  };
}

/** Ticks of the timer's clock in `ns`, below 2^53. */
function ticksIn(ns: number): number {
  const seconds = Math.floor(ns / NSEC_PER_SEC);
  return seconds * PIT_FREQ + Math.floor(((ns - seconds * NSEC_PER_SEC) * PIT_FREQ) / NSEC_PER_SEC);
}

export class Pit implements IoDevice {
  private readonly vm: VmState;
  private readonly channels = [freshChannel(), freshChannel(), freshChannel()] as const;
  private flags = 0;
  private periodic = false;
  private period = 0;
  /** When channel 0 counts down to zero, or last did. */
  private expires = 0;
  private readonly timer = new HrTimer((at) => this.timerFn(at));
  private readonly worker = new HrTimer(() => this.doWork());
  /** Ticks that the guest has not acknowledged are given to it one after the other. */
  private reinject = true;
  private pending = 0;
  private irqAck = true;

  constructor(vm: VmState) {
    this.vm = vm;
    this.channels[2].gate = 0;
    for (let n = 0; n < 3; n++) this.loadCount(n, 0);
    vm.x86.irqNotifiers.push({
      gsi: 0,
      acked: () => this.acked(),
      maskChanged: (masked) => {
        if (!masked && this.reinject) this.resetReinject();
      },
    });
  }

  /** @kvm i8254.c kvm_pit_reset_reinject */
  private resetReinject(): void {
    this.pending = 0;
    this.irqAck = true;
  }

  /** KVM_REINJECT_CONTROL @kvm i8254.c kvm_pit_set_reinject */
  setReinject(reinject: boolean): void {
    if (this.reinject === reinject) return;
    if (reinject) this.resetReinject();
    this.reinject = reinject;
  }

  /** @kvm i8254.c kvm_pit_ack_irq */
  private acked(): void {
    if (!this.reinject) return;
    this.irqAck = true;
    if (this.pending === 0) return;
    this.pending--;
    if (this.pending > 0) this.vm.x86.timers.start(this.worker, virtualNow(this.vm));
  }

  /** @kvm i8254.c pit_timer_fn */
  private timerFn(at: number): void {
    if (this.reinject) this.pending++;
    if (this.periodic) {
      this.expires = at + this.period;
      this.vm.x86.timers.start(this.timer, this.expires);
    }
    this.doWork();
  }

  /** @kvm i8254.c pit_do_work */
  private doWork(): void {
    if (this.reinject) {
      if (!this.irqAck) return;
      this.irqAck = false;
    }
    setIrq(this.vm, PIT_SOURCE, 0, true);
    setIrq(this.vm, PIT_SOURCE, 0, false);
    nmiWatchdog(this.vm);
  }

  /** @kvm i8254.c create_pit_timer */
  private createTimer(count: number, periodic: boolean): void {
    if ((this.flags & KVM_PIT_FLAGS_HPET_LEGACY) !== 0) return;
    const { timers } = this.vm.x86;
    const interval = Math.floor((count * NSEC_PER_SEC) / PIT_FREQ);
    timers.cancel(this.worker);
    this.periodic = periodic;
    this.period = periodic ? Math.max(interval, MIN_TIMER_PERIOD) : interval;
    this.resetReinject();
    this.expires = virtualNow(this.vm) + interval;
    timers.start(this.timer, this.expires);
  }

  /** @kvm i8254.c pit_load_count */
  private loadCount(n: number, value: number): void {
    const count = value === 0 ? 0x1_0000 : value;
    const channel = this.channels[n]!;
    channel.count = count;
    if (n !== 0) {
      channel.countLoadTime = virtualNow(this.vm);
      return;
    }
    switch (channel.mode) {
      case 0:
      case 1:
      case 4:
        this.createTimer(count, false);
        return;
      case 2:
      case 3:
        this.createTimer(count, true);
        return;
      default:
        this.vm.x86.timers.cancel(this.timer);
        this.vm.x86.timers.cancel(this.worker);
    }
  }

  /** Clock ticks since the count began. Without its timer channel 0 stands still. @kvm i8254.c kpit_elapsed */
  private elapsed(n: number): number {
    const now = virtualNow(this.vm);
    if (n !== 0) return ticksIn(now - this.channels[n]!.countLoadTime);
    return this.period === 0 ? 0 : ticksIn(Math.max(0, this.period - (this.expires - now)));
  }

  /** @kvm i8254.c pit_get_count */
  private getCount(n: number): number {
    const { count, mode } = this.channels[n]!;
    const d = this.elapsed(n);
    switch (mode) {
      case 0:
      case 1:
      case 4:
      case 5:
        return (((count - d) % 0x1_0000) + 0x1_0000) & 0xffff;
      case 3:
        return count - ((2 * d) % count);
      default:
        return count - (d % count);
    }
  }

  /** @kvm i8254.c pit_get_out */
  private getOut(n: number): boolean {
    const { count, mode } = this.channels[n]!;
    const d = this.elapsed(n);
    switch (mode) {
      case 1:
        return d < count;
      case 2:
        return d % count === 0 && d !== 0;
      case 3:
        return d % count < (count + 1) >> 1;
      case 4:
      case 5:
        return d === count;
      default:
        return d >= count;
    }
  }

  /** @kvm i8254.c pit_latch_count */
  private latchCount(n: number): void {
    const channel = this.channels[n]!;
    if (channel.countLatched !== 0) return;
    channel.latchedCount = this.getCount(n) & 0xffff;
    channel.countLatched = channel.rwMode;
  }

  /** @kvm i8254.c pit_latch_status */
  private latchStatus(n: number): void {
    const channel = this.channels[n]!;
    if (channel.statusLatched) return;
    const { rwMode, mode, bcd } = channel;
    channel.status = ((this.getOut(n) ? 0x80 : 0) | (rwMode << 4) | (mode << 1) | bcd) & 0xff;
    channel.statusLatched = true;
  }

  private writeControl(value: number): void {
    const select = value >> 6;
    if (select === 3) {
      for (let n = 0; n < 3; n++) {
        if ((value & (2 << n)) === 0) continue;
        if ((value & 0x20) === 0) this.latchCount(n);
        if ((value & 0x10) === 0) this.latchStatus(n);
      }
      return;
    }
    const channel = this.channels[select]!;
    const access = (value >> 4) & 3;
    if (access === 0) {
      this.latchCount(select);
      return;
    }
    channel.rwMode = access;
    channel.readState = access;
    channel.writeState = access;
    const mode = (value >> 1) & 7;
    channel.mode = mode > 5 ? mode - 4 : mode;
    channel.bcd = value & 1;
  }

  private writeCount(n: number, value: number): void {
    const channel = this.channels[n]!;
    switch (channel.writeState) {
      case MSB:
        this.loadCount(n, value << 8);
        return;
      case WORD0:
        channel.writeLatch = value;
        channel.writeState = WORD1;
        return;
      case WORD1:
        this.loadCount(n, channel.writeLatch | (value << 8));
        channel.writeState = WORD0;
        return;
      default:
        this.loadCount(n, value);
    }
  }

  private readCount(n: number): number {
    const channel = this.channels[n]!;
    if (channel.statusLatched) {
      channel.statusLatched = false;
      return channel.status;
    }
    if (channel.countLatched !== 0) {
      const high = channel.countLatched === MSB;
      channel.countLatched = channel.countLatched === WORD0 ? MSB : 0;
      return high ? channel.latchedCount >> 8 : channel.latchedCount & 0xff;
    }
    const count = this.getCount(n);
    const high = channel.readState === MSB || channel.readState === WORD1;
    if (channel.readState >= WORD0) channel.readState = high ? WORD0 : WORD1;
    return high ? (count >> 8) & 0xff : count & 0xff;
  }

  /** @kvm i8254.c pit_ioport_write */
  write(_vcpu: VcpuState, addr: number, _len: number, buf: Uint8Array, off: number): number {
    if (addr < PIT_BASE || addr >= PIT_BASE + PIT_PORTS) return -EOPNOTSUPP;
    if (addr === PIT_BASE + 3) this.writeControl(buf[off]!);
    else this.writeCount(addr - PIT_BASE, buf[off]!);
    return 0;
  }

  /** The control word cannot be read. @kvm i8254.c pit_ioport_read */
  read(_vcpu: VcpuState, addr: number, len: number, buf: Uint8Array, off: number): number {
    if (addr < PIT_BASE || addr >= PIT_BASE + PIT_PORTS) return -EOPNOTSUPP;
    if (addr === PIT_BASE + 3) return 0;
    const value = this.readCount(addr - PIT_BASE);
    for (let i = 0; i < Math.min(len, 4); i++) buf[off + i] = value >>> (8 * i);
    return 0;
  }

  /** Speaker on (bit 1), and the gate of channel 2 (bit 0), whose rise restarts modes that wait for it. @kvm i8254.c pit_set_gate */
  writeSpeaker(value: number): void {
    const on = (value & 2) !== 0;
    this.flags = on ? this.flags | KVM_PIT_FLAGS_SPEAKER_DATA_ON : this.flags & ~KVM_PIT_FLAGS_SPEAKER_DATA_ON;
    const channel = this.channels[2];
    const gate = value & 1;
    if ([1, 2, 3, 5].includes(channel.mode) && channel.gate < gate) channel.countLoadTime = virtualNow(this.vm);
    channel.gate = gate;
  }

  /** @kvm i8254.c speaker_ioport_read */
  readSpeaker(): number {
    const refresh = Math.floor(virtualNow(this.vm) / 2 ** 14) & 1;
    const on = (this.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON) !== 0 ? 2 : 0;
    return on | this.channels[2].gate | (this.getOut(2) ? 0x20 : 0) | (refresh << 4);
  }

  /** KVM_GET_PIT2 */
  state(): PitState {
    return { channels: this.channels.map((c) => ({ ...c })), flags: this.flags };
  }

  /** KVM_SET_PIT2: the counts are loaded anew; HPET's legacy mode stops the timer of channel 0. @kvm x86.c kvm_vm_ioctl_set_pit2 */
  setState(state: PitState): void {
    const hpetStarts =
      (this.flags & KVM_PIT_FLAGS_HPET_LEGACY) === 0 && (state.flags & KVM_PIT_FLAGS_HPET_LEGACY) !== 0;
    this.flags = state.flags;
    for (let n = 0; n < 3; n++) {
      const channel = Object.assign(this.channels[n]!, state.channels[n]);
      const { mode } = channel;
      if (hpetStarts && n === 0) channel.mode = MODE_NONE;
      this.loadCount(n, channel.count);
      channel.mode = mode;
    }
  }
}

/** The speaker's port beside the timer's. */
function speakerDevice(pit: Pit): IoDevice {
  return {
    write: (_vcpu, addr, _len, buf, off) => {
      if (addr !== SPEAKER_BASE) return -EOPNOTSUPP;
      pit.writeSpeaker(buf[off]!);
      return 0;
    },
    read: (_vcpu, addr, len, buf, off) => {
      if (addr !== SPEAKER_BASE) return -EOPNOTSUPP;
      buf.fill(0, off, off + len);
      buf[off] = pit.readSpeaker();
      return 0;
    },
  };
}

/** KVM_CREATE_PIT2: 0, -EEXIST when there is one, -ENOENT without interrupt chips, -EINVAL for flags. @kvm i8254.c kvm_create_pit */
export function createPit(vm: VmState, flags: number): number {
  if ((flags & ~KVM_PIT_SPEAKER_DUMMY) !== 0) return -EINVAL;
  if (vm.x86.pit !== null) return -EEXIST;
  if (!vm.x86.irqchipKernel) return -ENOENT;
  const pit = new Pit(vm);
  vm.locks.acquire(LOCK_SLOTS);
  ioBusRegisterDev(vm, KVM_PIO_BUS, PIT_BASE, PIT_PORTS, pit);
  if ((flags & KVM_PIT_SPEAKER_DUMMY) !== 0) {
    ioBusRegisterDev(vm, KVM_PIO_BUS, SPEAKER_BASE, SPEAKER_PORTS, speakerDevice(pit));
  }
  vm.locks.release(LOCK_SLOTS);
  vm.x86.pit = pit;
  return 0;
}
