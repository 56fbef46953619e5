import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { ImageError } from './image-error.ts';
import { type RunImageResult, runImage } from './run-image.ts';

const folder = fileURLToPath(new URL('../../guests/tdx/', import.meta.url));
const image = readFileSync(join(folder, '../tdx.bin'));

/** MRTD of a TD whose only memory is `firmware` below 4 GiB, as the manual has it. */
function mrtdOf(firmware: Uint8Array): string {
  const hash = createHash('sha384');
  const event = (name: string, gpa: number): Buffer => {
    const block = Buffer.alloc(128);
    block.write(name);
    block.writeBigUInt64LE(BigInt(gpa), 16);
    return block;
  };
  for (let page = 0; page < firmware.length; page += 4096) {
    const gpa = 2 ** 32 - firmware.length + page;
    hash.update(event('MEM.PAGE.ADD', gpa));
    for (let at = 0; at < 4096; at += 256) {
      hash.update(event('MR.EXTEND', gpa + at)).update(firmware.subarray(page + at, page + at + 256));
    }
  }
  return hash.digest('hex');
}

/** Runs a TD; its serial output, what KVM logged, what the module still owned when the VM was gone. */
async function run(bytes: Uint8Array): Promise<RunImageResult & { text: string; log: string[]; left: number }> {
  const serial: number[] = [];
  let log: string[] = [];
  let left = (): number => 0;
  const result = await runImage({
    file: 'tdx.bin',
    image: bytes,
    memoryBytes: 16 << 20,
    vmType: 'tdx',
    hardware: 'silicon-sapphire-rapids',
    maxInstructions: 2_000_000,
    onSerial: (byte) => serial.push(byte),
    onBoard: ({ vm, kvm }) => {
      log = vm.state.log.entries as unknown as string[];
      left = () => kvm.processor.tdx.pamt.type.filter((type) => type !== 0).length;
    },
  });
  return { ...result, text: String.fromCharCode(...serial), log, left: left() };
}

/** What it says; MRTD is compared apart. */
const OUTPUT = [
  'a TD of 10 MiB (hex)',
  'cpuid 0x21: IntelTDX    ',
  'guest address width 0x30',
  'attributes 0x0',
  'cpuid 0x40000000, by #VE: KVMKVMKVM',
  'accept 0x0',
  'a private page holds 0x11111111',
  'accept it again 0xb0a00000001',
  'accept at a shared address 0xc000010000000001',
  'a page touched before it was accepted: #VE 0x1',
  'at 0x201004',
  'it holds 0x22222222',
  'MapGPA to shared 0x0',
  'the shared page holds 0x0',
  'and then 0x600d600d',
  'MapGPA to private 0x0',
  'accept 0x0',
  'the private page holds 0x0',
  'MapGPA of half a page 0x8000000000000002',
  'HPET capabilities 0x8086a200',
  'HPET enabled 0x1',
  'APIC base 0xfee00d00',
  'written with OUT',
  '#VE so far 0x15',
  'MMIO of private memory 0x8000000000000000',
  'report 0x0',
  'MRTD as computed',
  'done',
  '',
];

it('the demo guest accepts, shares and takes back memory, and reaches devices by #VE', async () => {
  const { end, text, log, left, exits } = await run(image);
  const shown = text.replace(mrtdOf(image), 'as computed');
  expect(shown.split('\n')).toEqual(OUTPUT);
  expect(end.kind).toBe('poweroff');
  expect(exits).toMatchObject({ hypercall: 2, mmio: 3 });
  expect(log).toEqual([]);
  expect(left).toBe(0);
});

it('a TD that dies says no more than that', async () => {
  const dead = new Uint8Array(4096);
  dead.set([0x0f, 0x0b], 4096 - 16);
  const { end, postMortem, left } = await run(dead);
  expect([end.kind, end.detail, postMortem, left]).toEqual(['shutdown', 'triple fault', null, 0]);
});

it('only whole pages of firmware can be a TD', async () => {
  await expect(run(new Uint8Array(5000))).rejects.toThrow(ImageError);
});

const compiler = (): string | null => {
  const first = (program: string, flag: string): string =>
    execFileSync(program, [flag], { encoding: 'utf8' }).split('\n')[0]!;
  try {
    return `gcc ${first('gcc', '-dumpfullversion')} ${first('gcc', '-dumpmachine')}, ${first('ld', '--version')}`;
  } catch {
    return null;
  }
};
const madeBy = readFileSync(join(folder, '../compiler.txt'), 'utf8').trim();

it.skipIf(compiler() !== madeBy)(`the image is what its source compiles to (${madeBy})`, () => {
  const out = mkdtempSync(join(tmpdir(), 'softkvm-guest-'));
  try {
    execFileSync('make', ['-s', '-C', folder, `OUT=${join(out, 'tdx.bin')}`]);
    expect(readFileSync(join(out, 'tdx.bin')).equals(image)).toBe(true);
  } finally {
    rmSync(out, { recursive: true });
  }
});
