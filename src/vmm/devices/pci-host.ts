/** A PCI host by configuration mechanism 1 (0xcf8, 0xcfc): bus 0 with the host bridge of QEMU's pc and nothing else. */
import type { PortDevice } from './port-device.ts';

const ADDRESS = 0xcf8;
const DATA = 0xcfc;
const ENABLE = 0x8000_0000;

const INTEL = 0x8086;
const I440FX = 0x1237;
const HOST_BRIDGE = 0x0600;
const REVISION = 2;
const COMMAND = 0x04;
/** Memory accesses and bus mastering, which cannot be switched off. */
const COMMAND_VALUE = 0x0006;

/** Bytes of the bridge that software can change: from the chipset's own registers on, where firmware keeps its settings. */
const WRITABLE_FROM = 0x40;

export class PciHost implements PortDevice {
  readonly port = ADDRESS;
  readonly count = 8;
  private address = 0;
  private readonly bridge = new Uint8Array(256);

  constructor() {
    const view = new DataView(this.bridge.buffer);
    view.setUint16(0x00, INTEL, true);
    view.setUint16(0x02, I440FX, true);
    view.setUint16(COMMAND, COMMAND_VALUE, true);
    view.setUint8(0x08, REVISION);
    view.setUint16(0x0a, HOST_BRIDGE, true);
  }

  /** First byte of the bridge's configuration space that a data port stands for; -1 when no device is addressed. */
  private target(port: number): number {
    const device = Math.floor((this.address % ENABLE) / 0x100);
    if (this.address < ENABLE || device !== 0) return -1;
    return (this.address & 0xfc) + (port - DATA);
  }

  /** Devices that are not there read as ones. */
  read(port: number, size: number): number {
    if (port < DATA) return port === ADDRESS && size === 4 ? this.address : ones(size);
    const at = this.target(port);
    if (at < 0 || port - DATA + size > 4) return ones(size);
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 0x100 + this.bridge[at + i]!;
    return value;
  }

  write(port: number, size: number, value: number): void {
    if (port < DATA) {
      if (port === ADDRESS && size === 4) this.address = (value & ~0x7f00_0003) >>> 0;
      return;
    }
    const at = this.target(port);
    if (at < WRITABLE_FROM || port - DATA + size > 4) return;
    for (let i = 0; i < size; i++) this.bridge[at + i] = value >>> (8 * i);
  }
}

function ones(size: number): number {
  return size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
}
