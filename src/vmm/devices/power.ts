/** The ports by which a guest ends its run: isa-debug-exit, power-off through ACPI's PM1a, and the reset ports. */
import type { PortDevice } from './port-device.ts';

/** What the guest asked for. */
export type PowerRequest =
  | { readonly kind: 'debug-exit'; readonly value: number }
  | { readonly kind: 'poweroff' }
  /** ACPI's S3: the machine sleeps until the RTC's alarm. */
  | { readonly kind: 'suspend' }
  | { readonly kind: 'reset' };

export type OnPower = (request: PowerRequest) => void;

/** QEMU's isa-debug-exit: writing V ends the run with status (V << 1) | 1. */
export class DebugExit implements PortDevice {
  readonly port = 0xf4;
  readonly count = 4;
  private readonly onPower: OnPower;

  constructor(onPower: OnPower) {
    this.onPower = onPower;
  }

  read(): number {
    return 0;
  }

  write(_port: number, _size: number, value: number): void {
    this.onPower({ kind: 'debug-exit', value });
  }
}

const SLP_EN = 0x2000;

/** PM1a_CNT of QEMU's machines (q35 and pc): sleep type 0 with SLP_EN is power-off. */
export class AcpiPowerOff implements PortDevice {
  readonly port = 0x604;
  readonly count = 2;
  private readonly onPower: OnPower;

  constructor(onPower: OnPower) {
    this.onPower = onPower;
  }

  read(): number {
    return 1;
  }

  write(_port: number, size: number, value: number): void {
    if (size === 2 && (value & SLP_EN) !== 0) this.onPower({ kind: 'poweroff' });
  }
}

/** The reset control register of PCI chipsets: bit 2 resets. */
export class ResetControl implements PortDevice {
  readonly port = 0xcf9;
  readonly count = 1;
  private readonly onPower: OnPower;
  private value = 0;

  constructor(onPower: OnPower) {
    this.onPower = onPower;
  }

  read(): number {
    return this.value;
  }

  write(_port: number, _size: number, value: number): void {
    this.value = value & 0x0e;
    if ((value & 4) !== 0) this.onPower({ kind: 'reset' });
  }
}

/** System control port A: bit 0 resets when it goes from 0 to 1; the A20 gate of bit 1 is always open. */
export class SystemControlPort implements PortDevice {
  readonly port = 0x92;
  readonly count = 1;
  private readonly onPower: OnPower;
  private value = 2;

  constructor(onPower: OnPower) {
    this.onPower = onPower;
  }

  read(): number {
    return this.value;
  }

  write(_port: number, _size: number, value: number): void {
    const rises = (value & ~this.value & 1) !== 0;
    this.value = (value & 1) | 2;
    if (rises) this.onPower({ kind: 'reset' });
  }
}

/** The keyboard controller's command port, of which only the reset pulse is there. */
export class KeyboardReset implements PortDevice {
  readonly port = 0x64;
  readonly count = 1;
  private readonly onPower: OnPower;

  constructor(onPower: OnPower) {
    this.onPower = onPower;
  }

  /** Input buffer empty, no data. */
  read(): number {
    return 0;
  }

  write(_port: number, _size: number, value: number): void {
    if ((value & 0xff) === 0xfe) this.onPower({ kind: 'reset' });
  }
}
