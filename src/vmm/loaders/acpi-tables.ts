/** The ACPI tables of the board, as firmware leaves them between 0xe0000 and 1 MiB: RSDP, RSDT, XSDT, FADT, FACS, DSDT, MADT, HPET. */
import {
  ACPI_DISABLE,
  ACPI_ENABLE,
  PM_TIMER,
  PM1A_CONTROL,
  PM1A_EVENT,
  S3_TYPE,
  S5_TYPE,
  SCI,
  SMI_COMMAND,
} from '../devices/acpi-pm.ts';
import { HPET_BASE, HPET_ID } from '../devices/hpet.ts';
import type { Segment } from './boot-image.ts';

const AT = 0xf_0000;
const LAPIC_BASE = 0xfee0_0000;
const IOAPIC_BASE = 0xfec0_0000;
const HEADER_BYTES = 36;
const FADT_BYTES = 244;
const FACS_BYTES = 64;

/** Offset of the address in FACS at which a guest that slept goes on. */
const FACS_WAKING_VECTOR = 12;

const FADT_FLAG_WBINVD = 1 << 0;
/** There are no buttons in the fixed registers. */
const FADT_FLAG_POWER_BUTTON_ABSENT = 1 << 4;
const FADT_FLAG_SLEEP_BUTTON_ABSENT = 1 << 5;
const FADT_FLAG_RESET_REGISTER = 1 << 10;
const MADT_PCAT_COMPATIBLE = 1;
const ENABLED = 1;

function checksum(bytes: Uint8Array): number {
  return -bytes.reduce((sum, b) => sum + b, 0) & 0xff;
}

function ascii(text: string): number[] {
  return [...text].map((c) => c.charCodeAt(0));
}

function le(value: number, size: number): number[] {
  return Array.from({ length: size }, (_, i) => (i < 4 ? (value >>> (8 * i)) & 0xff : 0));
}

/** A table with its header and checksum. */
function table(signature: string, revision: number, body: readonly number[]): Uint8Array {
  const bytes = Uint8Array.from([
    ...ascii(signature),
    ...le(HEADER_BYTES + body.length, 4),
    revision,
    0,
    ...ascii('SOFTKV'),
    ...ascii('SOFTKVM '),
    ...le(1, 4),
    ...ascii('SKVM'),
    ...le(1, 4),
    ...body,
  ]);
  bytes[9] = checksum(bytes);
  return bytes;
}

/** One CPU each, the I/O APIC, the timer's wire at pin 2, the SCI's level, and NMI at LINT1 of all. */
function madt(vcpus: number): Uint8Array {
  const body = [...le(LAPIC_BASE, 4), ...le(MADT_PCAT_COMPATIBLE, 4)];
  for (let id = 0; id < vcpus; id++) body.push(0, 8, id, id, ...le(ENABLED, 4));
  body.push(1, 12, 0, 0, ...le(IOAPIC_BASE, 4), ...le(0, 4));
  body.push(2, 10, 0, 0, ...le(2, 4), ...le(0, 2));
  // Active high, level: as PCI interrupts of this machine are.
  for (const irq of [5, SCI, 10, 11]) body.push(2, 10, 0, irq, ...le(irq, 4), ...le(0xd, 2));
  body.push(4, 6, 0xff, ...le(0, 2), 1);
  return table('APIC', 1, body);
}

function hpet(): Uint8Array {
  return table('HPET', 1, [...le(HPET_ID, 4), 0, 0, 0, 0, ...le(HPET_BASE, 4), ...le(0, 4), 0, ...le(0, 2), 0]);
}

/** `Name(\_S5, Package(){type, type, 0, 0})`; a name of one segment at the root. */
function sleepState(name: string, type: number): number[] {
  return [0x08, ...ascii(name), 0x12, 0x0a, 0x04, 0x0a, type, 0x0a, type, 0x0a, 0x00, 0x0a, 0x00];
}

/** The two sleep states, and the PCI host: `Scope(\_SB) { Device(PCI0) { Name(_HID, EisaId("PNP0A03")) } }`. */
function dsdt(): Uint8Array {
  const hid = [0x08, ...ascii('_HID'), 0x0c, 0x41, 0xd0, 0x0a, 0x03];
  const device = [0x5b, 0x82, 1 + 4 + hid.length, ...ascii('PCI0'), ...hid];
  const scope = [0x10, 1 + 5 + device.length, 0x5c, ...ascii('_SB_'), ...device];
  return table('DSDT', 1, [...scope, ...sleepState('_S3_', S3_TYPE), ...sleepState('_S5_', S5_TYPE)]);
}

function fadt(facs: number, dsdtAt: number): Uint8Array {
  const bytes = table('FACP', 3, new Array<number>(FADT_BYTES - HEADER_BYTES).fill(0));
  const view = new DataView(bytes.buffer);
  view.setUint32(36, facs, true);
  view.setUint32(40, dsdtAt, true);
  view.setUint16(46, SCI, true);
  view.setUint32(48, SMI_COMMAND, true);
  view.setUint8(52, ACPI_ENABLE);
  view.setUint8(53, ACPI_DISABLE);
  view.setUint32(56, PM1A_EVENT, true);
  view.setUint32(64, PM1A_CONTROL, true);
  view.setUint32(76, PM_TIMER, true);
  view.setUint8(88, 4);
  view.setUint8(89, 2);
  view.setUint8(91, 4);
  view.setUint16(96, 0xfff, true);
  view.setUint16(98, 0xfff, true);
  view.setUint8(108, 0x32);
  const flags =
    FADT_FLAG_WBINVD | FADT_FLAG_POWER_BUTTON_ABSENT | FADT_FLAG_SLEEP_BUTTON_ABSENT | FADT_FLAG_RESET_REGISTER;
  view.setUint32(112, flags, true);
  // The reset register: port 0xcf9, value 0x0f.
  view.setUint8(116, 1);
  view.setUint8(117, 8);
  view.setUint32(120, 0xcf9, true);
  view.setUint8(128, 0x0f);
  bytes[9] = 0;
  bytes[9] = checksum(bytes);
  return bytes;
}

function facs(): Uint8Array {
  const bytes = new Uint8Array(FACS_BYTES);
  bytes.set(ascii('FACS'));
  new DataView(bytes.buffer).setUint32(4, FACS_BYTES, true);
  return bytes;
}

export interface AcpiTables {
  readonly segment: Segment;
  /** Where a guest leaves the address at which it wants to go on after S3. */
  readonly wakingVectorAt: number;
}

/** Tables for a machine with so many CPUs. */
export function acpiTables(vcpus: number): AcpiTables {
  const parts: { readonly gpa: number; readonly bytes: Uint8Array }[] = [];
  let at = AT + 64;
  const place = (bytes: Uint8Array): number => {
    const gpa = at;
    parts.push({ gpa, bytes });
    at = Math.ceil((at + bytes.length) / 64) * 64;
    return gpa;
  };
  const facsAt = place(facs());
  const dsdtAt = place(dsdt());
  const tables = [place(fadt(facsAt, dsdtAt)), place(madt(vcpus)), place(hpet())];
  const rsdt = place(
    table(
      'RSDT',
      1,
      tables.flatMap((t) => le(t, 4)),
    ),
  );
  const xsdt = place(
    table(
      'XSDT',
      1,
      tables.flatMap((t) => le(t, 8)),
    ),
  );
  const bytes = new Uint8Array(at - AT);
  for (const p of parts) bytes.set(p.bytes, p.gpa - AT);
  const rsdp = Uint8Array.from([
    ...ascii('RSD PTR '),
    0,
    ...ascii('SOFTKV'),
    2,
    ...le(rsdt, 4),
    ...le(36, 4),
    ...le(xsdt, 8),
    0,
    0,
    0,
    0,
  ]);
  rsdp[8] = checksum(rsdp.subarray(0, 20));
  rsdp[32] = checksum(rsdp);
  bytes.set(rsdp, 0);
  return { segment: { gpa: AT, bytes, size: bytes.length }, wakingVectorAt: facsAt + FACS_WAKING_VECTOR };
}
