/** Devices behind I/O ports, and the table that finds them. */

export interface PortDevice {
  /** First port. */
  readonly port: number;
  /** Number of ports. */
  readonly count: number;
  /** Reads `size` bytes (1, 2 or 4) at `port`. */
  read(port: number, size: number): number;
  /** Writes the low `size` bytes of `value`. */
  write(port: number, size: number, value: number): void;
}

export class PortBus {
  private readonly devices: PortDevice[] = [];

  add(device: PortDevice): void {
    this.devices.push(device);
  }

  private find(port: number): PortDevice | undefined {
    return this.devices.find((d) => port >= d.port && port < d.port + d.count);
  }

  /** What nobody answers reads as ones. */
  read(port: number, size: number): number {
    return this.find(port)?.read(port, size) ?? (size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff);
  }

  write(port: number, size: number, value: number): void {
    this.find(port)?.write(port, size, value);
  }
}
