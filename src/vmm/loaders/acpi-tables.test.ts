import { expect, test } from 'vitest';
import { acpiTables } from './acpi-tables.ts';

test('the tables hang together: checksums, addresses, a CPU each', () => {
  const { segment, wakingVectorAt } = acpiTables(3);
  const view = new DataView(segment.bytes.buffer, segment.bytes.byteOffset);
  const sum = (at: number, size: number): number =>
    segment.bytes.subarray(at, at + size).reduce((s, b) => (s + b) & 0xff, 0);
  const u32 = (at: number): number => view.getUint32(at, true);
  const text = (at: number, size: number): string => String.fromCharCode(...segment.bytes.subarray(at, at + size));
  const at = (gpa: number): number => gpa - segment.gpa;
  expect(text(0, 8)).toBe('RSD PTR ');
  expect([sum(0, 20), sum(0, 36)]).toEqual([0, 0]);
  const [rsdt, xsdt] = [at(u32(16)), at(u32(24))];
  expect([text(rsdt, 4), text(xsdt, 4)]).toEqual(['RSDT', 'XSDT']);
  const tables = [0, 1, 2].map((n) => at(u32(rsdt + 36 + 4 * n)));
  expect([0, 1, 2].map((n) => at(u32(xsdt + 36 + 8 * n)))).toEqual(tables);
  expect(tables.map((t) => text(t, 4))).toEqual(['FACP', 'APIC', 'HPET']);
  const [fadt, madt] = tables as [number, number, number];
  const dsdt = at(u32(fadt + 40));
  for (const t of [rsdt, xsdt, dsdt, ...tables]) expect(sum(t, u32(t + 4)), text(t, 4)).toBe(0);
  const facs = at(u32(fadt + 36));
  expect(text(facs, 4)).toBe('FACS');
  expect(facs % 64).toBe(0);
  expect(at(wakingVectorAt)).toBe(facs + 12);
  expect([u32(fadt + 56), u32(fadt + 64), u32(fadt + 76)]).toEqual([0x600, 0x604, 0x608]);
  const ids: number[] = [];
  for (let e = madt + 44; e < madt + u32(madt + 4); e += segment.bytes[e + 1]!) {
    if (segment.bytes[e] === 0) ids.push(segment.bytes[e + 3]!);
  }
  expect(ids).toEqual([0, 1, 2]);
  // A package that names its own length ends where its table does.
  expect(segment.bytes[dsdt + 36]).toBe(0x10);
  expect(dsdt + 37 + segment.bytes[dsdt + 37]!).toBeLessThan(dsdt + u32(dsdt + 4));
});
