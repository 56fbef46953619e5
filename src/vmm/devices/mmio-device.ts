/** Devices behind guest-physical addresses, and the table that finds them. */

export interface MmioDevice {
  /** First byte. */
  readonly gpa: number;
  readonly size: number;
  /** Fills `data` with what is read at `gpa`. */
  read(gpa: number, data: Uint8Array): void;
  /** `data` may change after the call. */
  write(gpa: number, data: Uint8Array): void;
}

export class MmioBus {
  private readonly devices: MmioDevice[] = [];

  add(device: MmioDevice): void {
    this.devices.push(device);
  }

  private find(gpa: number): MmioDevice | undefined {
    for (const device of this.devices) {
      if (gpa >= device.gpa && gpa < device.gpa + device.size) return device;
    }
    return undefined;
  }

  /** What nobody answers reads as ones. */
  read(gpa: number, data: Uint8Array): void {
    const device = this.find(gpa);
    if (device !== undefined) device.read(gpa, data);
    else for (let i = 0; i < data.length; i++) data[i] = 0xff;
  }

  write(gpa: number, data: Uint8Array): void {
    this.find(gpa)?.write(gpa, data);
  }
}

/** Registers that keep what is written: a page or more of plain bytes. */
export class RegisterFile implements MmioDevice {
  readonly gpa: number;
  readonly size: number;
  reads = 0;
  writes = 0;
  private readonly bytes: Uint8Array;

  constructor(gpa: number, size: number) {
    this.gpa = gpa;
    this.size = size;
    this.bytes = new Uint8Array(size);
  }

  read(gpa: number, data: Uint8Array): void {
    this.reads++;
    for (let i = 0; i < data.length; i++) data[i] = this.bytes[(gpa - this.gpa + i) % this.size]!;
  }

  write(gpa: number, data: Uint8Array): void {
    this.writes++;
    for (let i = 0; i < data.length; i++) this.bytes[(gpa - this.gpa + i) % this.size] = data[i]!;
  }
}
