import fs from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

/**
 * Where a bigint may be in the core: what carries the ABI's 64-bit arguments in and out. Everything behind these files has numbers and
 * halves.
 */
const DOORS = [
  'arch/halves.ts',
  // Not a door: significands and products of up to 128 bits, off the hot path.
  'cpu/floating/',
  'host/physical-memory.ts',
  'kvm/api/',
  'kvm/enable-cap.ts',
  'kvm/guest-memfd/guest-memfd.ts',
  'kvm/io-bus/ioeventfd.ts',
  'kvm/kvm-run-union.ts',
  'kvm/kvm-run.ts',
  'kvm/memslots/set-memory-region.ts',
  'kvm/pre-fault.ts',
  'kvm/set-memory-attributes.ts',
  'kvm/x86/enable-cap.ts',
  'kvm/x86/events.ts',
  'kvm/x86/guest-debug.ts',
  'kvm/x86/msr-ioctl.ts',
  'kvm/x86/regs.ts',
  'kvm/x86/sregs.ts',
  'kvm/x86/translate.ts',
  'kvm/x86/xsave.ts',
];
const CORE = ['arch', 'host', 'cpu', 'kvm'];
const NAMES = /^(BigInt|BigInt64Array|BigUint64Array|[gs]etBig(Ui|I)nt64)$/;
const src = import.meta.dirname;

function coreFiles(): string[] {
  return CORE.flatMap((layer) =>
    fs
      .readdirSync(path.join(src, layer), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts') && !/\.(test|testing)\.ts$/.test(file))
      .map((file) => `${layer}/${file}`),
  );
}

/** Lines of a file on which a bigint is made, converted or named as a type. */
function bigintLines(file: string): number[] {
  const source = ts.createSourceFile(file, fs.readFileSync(path.join(src, file), 'utf8'), ts.ScriptTarget.Latest);
  const lines: number[] = [];
  const visit = (node: ts.Node): void => {
    const found =
      ts.isBigIntLiteral(node) ||
      node.kind === ts.SyntaxKind.BigIntKeyword ||
      (ts.isIdentifier(node) && NAMES.test(node.text));
    if (found) lines.push(source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return lines;
}

describe('bigint in the core', () => {
  const found = coreFiles().flatMap((file) => bigintLines(file).map((line) => ({ file, line })));

  it('is at the doors only', () => {
    const elsewhere = found.filter(({ file }) => !DOORS.some((door) => file.startsWith(door)));
    expect(elsewhere.map(({ file, line }) => `src/${file}:${line}`)).toEqual([]);
  });

  it('is at every door that is listed', () => {
    expect(DOORS.filter((door) => !found.some(({ file }) => file.startsWith(door)))).toEqual([]);
  });
});
