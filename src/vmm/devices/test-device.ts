/** What QEMU's pc-testdev offers to bare-metal suites: a port that echoes, interrupt lines as ports, and a page to unmap and map again. */
import type { PortDevice } from './port-device.ts';

/** Four bytes that read as they were written, in any size. */
export class EchoPort implements PortDevice {
  readonly port: number;
  readonly count = 4;
  private data = 0;

  constructor(port: number) {
    this.port = port;
  }

  private mask(size: number): number {
    return size === 4 ? -1 : (1 << (8 * size)) - 1;
  }

  read(port: number, size: number): number {
    return ((this.data >>> (8 * (port - this.port))) & this.mask(size)) >>> 0;
  }

  write(port: number, size: number, value: number): void {
    const shift = 8 * (port - this.port);
    const mask = this.mask(size) << shift;
    this.data = (this.data & ~mask) | ((value << shift) & mask);
  }
}

/** A port a line: not zero is high. */
export class IrqLines implements PortDevice {
  readonly port = 0x2000;
  readonly count = 24;
  private readonly setLine: (line: number, high: boolean) => void;

  constructor(setLine: (line: number, high: boolean) => void) {
    this.setLine = setLine;
  }

  read(): number {
    return 0;
  }

  write(port: number, _size: number, value: number): void {
    this.setLine(port - this.port, value !== 0);
  }
}

/** Writing an address makes the host drop its mapping of that page and restore it, so that the next access faults. */
export class FlushPage implements PortDevice {
  readonly port = 0xe4;
  readonly count = 4;
  private readonly flush: (gpa: number) => void;

  constructor(flush: (gpa: number) => void) {
    this.flush = flush;
  }

  read(): number {
    return 0;
  }

  write(_port: number, _size: number, value: number): void {
    this.flush((value & ~0xfff) >>> 0);
  }
}
