import { expect, test } from 'vitest';
import { PciHost } from './pci-host.ts';

test('bus 0 has the host bridge and nothing else', () => {
  const pci = new PciHost();
  const select = (bdf: number, register: number): void => pci.write(0xcf8, 4, 0x8000_0000 + bdf * 0x100 + register);
  select(0, 0);
  expect(pci.read(0xcf8, 4)).toBe(0x8000_0000);
  expect(pci.read(0xcfc, 4)).toBe(0x1237_8086);
  select(0, 8);
  expect(pci.read(0xcfe, 2)).toBe(0x0600);
  select(0, 0x10);
  pci.write(0xcfc, 4, 0xffff_ffff);
  expect(pci.read(0xcfc, 4)).toBe(0);
  select(0, 0x58);
  pci.write(0xcfd, 1, 0x12);
  expect(pci.read(0xcfc, 4)).toBe(0x1200);
  select(8, 0);
  expect([pci.read(0xcfc, 4), pci.read(0xcfc, 2), pci.read(0xcfc, 1)]).toEqual([0xffff_ffff, 0xffff, 0xff]);
  pci.write(0xcf8, 4, 0);
  expect(pci.read(0xcfc, 4)).toBe(0xffff_ffff);
  // One that straddles the register's end is nobody's.
  select(0, 0);
  expect(pci.read(0xcff, 2)).toBe(0xffff);
});
