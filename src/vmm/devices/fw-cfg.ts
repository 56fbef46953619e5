/** QEMU's fw_cfg in its port form: a 16-bit selector at 0x510, and the bytes of what it selects, one a read, at 0x511. */
import type { PortDevice } from './port-device.ts';

const SELECTOR = 0x510;

/** Items that a guest without firmware asks for. */
const FW_CFG_SIGNATURE = 0x00;
const FW_CFG_ID = 0x01;
const FW_CFG_RAM_SIZE = 0x03;
const FW_CFG_NB_CPUS = 0x05;
const FW_CFG_MAX_CPUS = 0x0f;

/** Little-endian bytes of `value`. */
function bytesOf(value: number, size: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes.subarray(0, size);
}

export class FwCfg implements PortDevice {
  readonly port = SELECTOR;
  readonly count = 2;
  private readonly items: ReadonlyMap<number, Uint8Array>;
  private selected: Uint8Array | undefined;
  private at = 0;

  constructor(machine: { readonly memoryBytes: number; readonly vcpus: number }) {
    this.items = new Map([
      [FW_CFG_SIGNATURE, new TextEncoder().encode('QEMU')],
      // The port form, without DMA.
      [FW_CFG_ID, bytesOf(1, 4)],
      [FW_CFG_RAM_SIZE, bytesOf(machine.memoryBytes, 8)],
      [FW_CFG_NB_CPUS, bytesOf(machine.vcpus, 2)],
      [FW_CFG_MAX_CPUS, bytesOf(machine.vcpus, 2)],
    ]);
    this.selected = this.items.get(FW_CFG_SIGNATURE);
  }

  /** The next byte of the item; zero after its end and for an item that there is not. */
  read(port: number): number {
    return port === SELECTOR ? 0 : (this.selected?.[this.at++] ?? 0);
  }

  write(port: number, size: number, value: number): void {
    if (port !== SELECTOR || size !== 2) return;
    this.selected = this.items.get(value & 0xffff);
    this.at = 0;
  }
}
