import { beforeEach, describe, expect, it } from 'vitest';
import { makeGuest, type TestGuest } from './guest.testing.ts';
import { passIdleTime, runTimers } from './virtual-time.ts';

const FREQ = 1_193_181;
const MS = 1_000_000;

let guest: TestGuest;
const byte = new Uint8Array(1);

function out(port: number, value: number): void {
  byte[0] = value;
  const { pit } = guest.vm.state.x86;
  if (port === 0x61) pit!.writeSpeaker(value);
  else pit!.write(guest.vcpu.state, port, 1, byte, 0);
}

function input(port: number): number {
  guest.vm.state.x86.pit!.read(guest.vcpu.state, port, 1, byte, 0);
  return byte[0]!;
}

/** Timers fire at their own time. */
function pass(ns: number): void {
  const { state } = guest.vm;
  const end = guest.vm.now() + ns;
  while (state.x86.timers.next <= end) {
    passIdleTime(state, Math.max(0, state.x86.timers.next - guest.vm.now()));
    runTimers(state);
  }
  passIdleTime(state, end - guest.vm.now());
}

function pending(): boolean {
  return (guest.vm.getPic(0).irr & 1) !== 0;
}

function program(channel: number, mode: number, count: number): void {
  out(0x43, (channel << 6) | 0x30 | (mode << 1));
  out(0x40 + channel, count & 0xff);
  out(0x40 + channel, count >> 8);
}

function latched(channel: number): number {
  out(0x43, channel << 6);
  return input(0x40 + channel) | (input(0x40 + channel) << 8);
}

beforeEach(() => {
  guest = makeGuest([0xf4], { irqchip: true });
  guest.vm.createPit2(1);
});

describe('the timer of KVM_CREATE_PIT2', () => {
  it('needs interrupt chips, and is there once', () => {
    expect(() => guest.vm.createPit2()).toThrow(/EEXIST/);
    const bare = makeGuest([0xf4]);
    expect(() => bare.vm.createPit2()).toThrow(/ENOENT/);
    expect(() => bare.vm.getPit2()).toThrow(/ENXIO/);
    expect(() => guest.vm.createPit2(2)).toThrow(/EINVAL/);
  });

  it('mode 0: one interrupt, and the counter goes on below zero', () => {
    program(0, 0, 1193);
    pass(0.9 * MS);
    expect(pending()).toBe(false);
    pass(0.2 * MS);
    expect(pending()).toBe(true);
    const behind = 0x1_0000 - latched(0);
    expect(behind).toBeGreaterThan(100);
    expect(behind).toBeLessThan(130);
    expect(guest.vm.state.x86.timers.next).toBe(Number.POSITIVE_INFINITY);
  });

  it('mode 2: repeats; ticks that were missed come one after each acknowledgement', () => {
    program(0, 2, 11932);
    pass(35 * MS);
    const { pic } = guest.vm.state.x86;
    const acknowledge = (): void => {
      expect(pic!.readIrq(guest.vm.state)).toBe(0);
      byte[0] = 0x20;
      pic!.write(guest.vcpu.state, 0x20, 1, byte, 0);
      pass(1);
    };
    for (let n = 0; n < 3; n++) {
      expect(pending()).toBe(true);
      acknowledge();
    }
    expect(pending()).toBe(false);
  });

  it('without reinjection they are lost', () => {
    guest.vm.reinjectControl(false);
    program(0, 2, 11932);
    pass(35 * MS);
    const { pic } = guest.vm.state.x86;
    pic!.readIrq(guest.vm.state);
    byte[0] = 0x20;
    pic!.write(guest.vcpu.state, 0x20, 1, byte, 0);
    pass(1);
    expect(pending()).toBe(false);
  });

  it('a periodic timer takes 200 microseconds at least', () => {
    program(0, 2, 10);
    pass(10 * MS);
    const period = guest.vm.state.x86.timers.next - guest.vm.now();
    expect(period).toBeGreaterThan(0);
    expect(period).toBeLessThanOrEqual(200_000);
  });

  it('channel 2 counts by the gate of port 0x61, whose bit 5 is its output', () => {
    const pit = guest.vm.state.x86.pit!;
    out(0x61, 0);
    program(2, 1, FREQ / 100);
    out(0x61, 1);
    expect(pit.readSpeaker() & 0x21).toBe(0x21);
    pass(11 * MS);
    expect(pit.readSpeaker() & 0x20).toBe(0);
    out(0x61, 3);
    expect(pit.readSpeaker() & 3).toBe(3);
    expect(guest.vm.getPit2().flags).toBe(2);
  });

  it('mode 3 counts by twos; status by read-back', () => {
    program(2, 3, 1000);
    pass(100_000);
    const count = latched(2);
    expect(count).toBeGreaterThan(1000 - 2 * 125);
    expect(count).toBeLessThan(1000 - 2 * 115);
    out(0x43, 0xe8);
    expect(input(0x42) & 0x3f).toBe(0x36);
  });

  it('KVM_SET_PIT2 restores the counts; with HPET in its place channel 0 stands', () => {
    program(0, 2, 20_000);
    const state = guest.vm.getPit2();
    expect(state.channels[0]).toMatchObject({ mode: 2, count: 20_000 });
    guest.vm.setPit2({ ...state, flags: 1 });
    expect(guest.vm.state.x86.timers.next).toBe(Number.POSITIVE_INFINITY);
    guest.vm.setPit2(state);
    expect(guest.vm.state.x86.timers.next).toBeLessThan(Number.POSITIVE_INFINITY);
  });
});
