/** A 16550 serial port without interrupts: what a guest writes goes to a sink, what the user types can be read. */
import type { PortDevice } from './port-device.ts';

export const COM1 = 0x3f8;

const LCR_DLAB = 0x80;
const LSR_DATA_READY = 0x01;
const LSR_TRANSMITTER_EMPTY = 0x60;
const MCR_LOOP = 0x10;
const MSR_READY = 0xb0;
const IIR_NONE = 0x01;
const IIR_FIFO = 0xc0;

export class SerialPort implements PortDevice {
  readonly port: number;
  readonly count = 8;
  private readonly sink: (byte: number) => void;
  private readonly input: number[] = [];
  private ier = 0;
  private fifo = false;
  private lcr = 0;
  private mcr = 0;
  private scratch = 0;
  private divisor = 1;

  /** @param sink gets every byte that the guest sends. */
  constructor(sink: (byte: number) => void, port = COM1) {
    this.sink = sink;
    this.port = port;
  }

  /** Bytes for the guest to read. */
  receive(bytes: Uint8Array): void {
    this.input.push(...bytes);
  }

  read(port: number, _size: number): number {
    const dlab = (this.lcr & LCR_DLAB) !== 0;
    switch (port - this.port) {
      case 0:
        return dlab ? this.divisor & 0xff : (this.input.shift() ?? 0);
      case 1:
        return dlab ? this.divisor >> 8 : this.ier;
      case 2:
        return IIR_NONE | (this.fifo ? IIR_FIFO : 0);
      case 3:
        return this.lcr;
      case 4:
        return this.mcr;
      case 5:
        return LSR_TRANSMITTER_EMPTY | (this.input.length > 0 ? LSR_DATA_READY : 0);
      case 6:
        return MSR_READY;
      default:
        return this.scratch;
    }
  }

  write(port: number, _size: number, value: number): void {
    const byte = value & 0xff;
    const dlab = (this.lcr & LCR_DLAB) !== 0;
    switch (port - this.port) {
      case 0:
        if (dlab) this.divisor = (this.divisor & 0xff00) | byte;
        else if ((this.mcr & MCR_LOOP) !== 0) this.input.push(byte);
        else this.sink(byte);
        return;
      case 1:
        if (dlab) this.divisor = (this.divisor & 0xff) | (byte << 8);
        else this.ier = byte & 0x0f;
        return;
      case 2:
        this.fifo = (byte & 1) !== 0;
        return;
      case 3:
        this.lcr = byte;
        return;
      case 4:
        this.mcr = byte & 0x1f;
        return;
      case 7:
        this.scratch = byte;
        return;
      default:
    }
  }
}
