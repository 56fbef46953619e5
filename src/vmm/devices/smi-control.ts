/**
 * How a guest raises an SMI: SMI_EN and SMI_STS of Intel's ICH9 at 0x630 and 0x634. Where a guest has set APMC_EN and GBL_SMI_EN, a write
 * to the port APM_CNT (0xb2) raises an SMI; nothing else does.
 */
import { PM_BASE } from './acpi-pm.ts';
import type { PortDevice } from './port-device.ts';

export const SMI_ENABLE = PM_BASE + 0x30;
export const SMI_STATUS = PM_BASE + 0x34;
const GBL_SMI_EN = 1 << 0;
const APMC = 1 << 5;

export class SmiControl implements PortDevice {
  readonly port = SMI_ENABLE;
  readonly count = 8;
  private readonly raise: () => void;
  private enabled = 0;
  private status = 0;

  /** @param raise sends the SMI to the vCPU that is running */
  constructor(raise: () => void) {
    this.raise = raise;
  }

  read(port: number, size: number): number {
    const word = port < SMI_STATUS ? this.enabled : this.status;
    const shifted = word >>> (8 * (port & 3));
    return size === 4 ? shifted : shifted & (size === 2 ? 0xffff : 0xff);
  }

  /** Status bits are cleared by ones. */
  write(port: number, _size: number, value: number): void {
    const shifted = value << (8 * (port & 3));
    if (port < SMI_STATUS) this.enabled = shifted & (APMC | GBL_SMI_EN);
    else this.status &= ~shifted;
  }

  /** The guest wrote to APM_CNT. */
  apmControl(): void {
    const wanted = APMC | GBL_SMI_EN;
    if ((this.enabled & wanted) !== wanted) return;
    this.status |= APMC;
    this.raise();
  }
}
