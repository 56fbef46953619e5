/** A 16550 serial port: what a guest writes goes to a sink at once, what the user types can be read. */
import type { PortDevice } from './port-device.ts';

export const COM1 = 0x3f8;
export const COM1_IRQ = 4;

const LCR_DLAB = 0x80;
const LSR_DATA_READY = 0x01;
const LSR_TRANSMITTER_EMPTY = 0x60;
const MCR_LOOP = 0x10;
const MSR_READY = 0xb0;
const MCR_OUT2 = 0x08;
const IER_RECEIVED = 0x01;
const IER_TRANSMITTED = 0x02;
const IIR_NONE = 0x01;
const IIR_TRANSMITTED = 0x02;
const IIR_RECEIVED = 0x04;
const IIR_FIFO = 0xc0;

export class SerialPort implements PortDevice {
  readonly port: number;
  readonly count = 8;
  private readonly sink: (byte: number) => void;
  private readonly input: number[] = [];
  /** The interrupt line, if it is wired. */
  setIrq: ((high: boolean) => void) | null = null;
  /** The transmitter has become empty, and the guest has not been told. */
  private transmitted = false;
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
    this.update();
  }

  /** What the guest is told first: data before an empty transmitter. */
  private cause(): number {
    if ((this.ier & IER_RECEIVED) !== 0 && this.input.length > 0) return IIR_RECEIVED;
    return (this.ier & IER_TRANSMITTED) !== 0 && this.transmitted ? IIR_TRANSMITTED : IIR_NONE;
  }

  /** The line follows; OUT2 lets it through. */
  private update(): void {
    this.setIrq?.((this.mcr & MCR_OUT2) !== 0 && this.cause() !== IIR_NONE);
  }

  /** Reading the cause is enough for an empty transmitter. */
  private readCause(): number {
    const cause = this.cause();
    if (cause === IIR_TRANSMITTED) this.transmitted = false;
    this.update();
    return cause | (this.fifo ? IIR_FIFO : 0);
  }

  private readData(): number {
    const byte = this.input.shift() ?? 0;
    this.update();
    return byte;
  }

  /** Nothing takes time: a byte is gone as soon as it is written, which ends one interrupt and makes the next. */
  private writeData(byte: number): void {
    if ((this.mcr & MCR_LOOP) !== 0) this.input.push(byte);
    else this.sink(byte);
    this.transmitted = false;
    this.update();
    this.transmitted = true;
    this.update();
  }

  read(port: number, _size: number): number {
    const dlab = (this.lcr & LCR_DLAB) !== 0;
    switch (port - this.port) {
      case 0:
        return dlab ? this.divisor & 0xff : this.readData();
      case 1:
        return dlab ? this.divisor >> 8 : this.ier;
      case 2:
        return this.readCause();
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
        else this.writeData(byte);
        return;
      case 1:
        if (dlab) this.divisor = (this.divisor & 0xff) | (byte << 8);
        else {
          if ((byte & ~this.ier & IER_TRANSMITTED) !== 0) this.transmitted = true;
          this.ier = byte & 0x0f;
          this.update();
        }
        return;
      case 2:
        this.fifo = (byte & 1) !== 0;
        return;
      case 3:
        this.lcr = byte;
        return;
      case 4:
        this.mcr = byte & 0x1f;
        this.update();
        return;
      case 7:
        this.scratch = byte;
        return;
      default:
    }
  }
}
