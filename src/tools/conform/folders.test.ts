import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { folderMachine } from './folders.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'softkvm-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

describe('the machine of a folder', () => {
  it('follows its name, also from a folder in it', () => {
    expect(folderMachine('conformance/npt', 'npt')).toMatchObject({ hardware: 'qemu-tcg-epyc', params: {} });
    expect(folderMachine('x/npt-mmio-caching-off/part', 'npt').params).toEqual({ 'kvm.mmio_caching': '0' });
    expect(folderMachine('x/nested-npt0', 'npt').params).toEqual({ 'kvm_amd.npt': '0', 'host.mce': '0' });
  });

  it("follows the scenario's paging when the name says nothing", () => {
    expect(folderMachine(folder, 'ept').hardware).toBe('bochs-skylake');
    expect(folderMachine(folder, 'shadow').params).toEqual({ 'kvm_amd.npt': '0' });
    expect(folderMachine(folder, undefined).params).toEqual({});
  });

  it('is what machine.json says', () => {
    mkdirSync(join(folder, 'npt'));
    writeFileSync(join(folder, 'npt', 'machine.json'), '{"params": {"kvm.nx_huge_pages": "1"}}');
    expect(folderMachine(join(folder, 'npt'), 'npt')).toMatchObject({
      hardware: 'qemu-tcg-epyc',
      params: { 'kvm.nx_huge_pages': '1' },
    });
  });

  it.each([['{'], ['[1'], ['{"params": {"kvm.tdp_mmu": 0}}'], ['{"hardwere": "x"}'], ['{"params": null}']])(
    'refuses %s',
    (text) => {
      writeFileSync(join(folder, 'machine.json'), text);
      expect(() => folderMachine(folder, 'npt')).toThrow(/machine\.json: /);
    },
  );
});
