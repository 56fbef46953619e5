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

const PORTS = 0x1_0000;

export class PortBus {
  private readonly devices: PortDevice[] = [];
  /** Of every port: the number of its device, from 1 on. */
  private readonly at = new Uint8Array(PORTS);

  /** Of two devices at one port the first has it. */
  add(device: PortDevice): void {
    const n = this.devices.push(device);
    for (let port = device.port; port < device.port + device.count; port++) {
      if (this.at[port] === 0) this.at[port] = n;
    }
  }

  private find(port: number): PortDevice | undefined {
    const n = this.at[port]!;
    return n === 0 ? undefined : this.devices[n - 1];
  }

  /** What nobody answers reads as ones. */
  read(port: number, size: number): number {
    return this.find(port)?.read(port, size) ?? (size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff);
  }

  write(port: number, size: number, value: number): void {
    this.find(port)?.write(port, size, value);
  }
}
