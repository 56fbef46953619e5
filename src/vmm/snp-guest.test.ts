/** guests/snp.elf: an SNP guest from its launch to its end, and what the host sees of it meanwhile. */
import { expect, test } from 'vitest';
import type { Board } from './board.ts';
import { guestImage } from './guest-image.ts';
import { launchMeasurement } from './launch-snp.ts';
import { runImage } from './run-image.ts';

const SHARED = 0x403000;
const PRIVATE_GFN = 0x402;

const OUTPUT = `SNP guest
C-bit position: 0x33
GHCB protocol: 0x2
hypervisor features: 0x3
MSR SEV_STATUS: 0x7
cpuid by #VC: 8000001f ebx 0x33
msr by #VC: TSC_AUX of nobody 0x0
  the hypervisor says #GP
mmio by #VC: HPET 0x8086a200
not validated: #VC at 0x401000
not validated: now holds 0x1234
validate: 0x0
validate: found so before: 0x0
validate again: 0x0
validate again: found so before: 0x1
validate 2 MiB where there are 4 KiB: 0x6
validate with a size that there is not: 0x1
share two pages: 0x0
shared page holds 0x6572616873
bad list: 0x1
shared page read as private: converted, then #VC at 0x404000
private page read as shared is ciphertext: 0x1
private page written as shared: RMP fault, converted, holds 0x1
vmpl: rmpadjust gives level 1 a page: 0x0
vmpl: rmpadjust of its own level: 0x2
vmpl: rmpadjust of level 4, which there is not: 0x1
vmpl: rmpadjust of 2 MiB where there are 4 KiB: 0x6
vmpl: to level 1, and back
vmpl: level 1 asked pvalidate: 0x2
vmpl: level 1 gave level 2 what it has: 0x0
vmpl: level 1 adjusted itself: 0x2
vmpl: level 1 read: 0x77
#VC taken: cpuid 0x1
#VC taken: msr 0x2
#VC taken: mmio 0x1
#VC taken: not validated 0x2
done
`;

interface Seen {
  readonly output: string;
  readonly status: number;
  readonly measurement: string | null;
  readonly shared: string;
  readonly plain: string;
  readonly outside: string;
  readonly exits: Readonly<Record<string, number>>;
}

async function run(): Promise<Seen> {
  let board: Board | null = null;
  let output = '';
  let shared = '';
  let plain = '';
  let outside = '';
  let measurement: string | null = null;
  const result = await runImage({
    file: 'snp.elf',
    image: guestImage('snp.elf'),
    memoryBytes: 16 << 20,
    vmType: 'snp',
    hardware: 'silicon-milan',
    onBoard: (b) => {
      board = b;
      measurement = launchMeasurement(b.vm);
    },
    onSerial: (byte) => {
      output += String.fromCharCode(byte);
      if (!output.endsWith('done\n') || board === null) return;
      shared = Buffer.from(board.readMemory(SHARED, 5)).toString();
      const { slots, memory, processor } = board.vm.state;
      const file = slots.sets[0]!.find(PRIVATE_GFN)!.gmem!.file!;
      const pfn = file.peekPage(PRIVATE_GFN);
      plain = Buffer.from(memory.u8.slice(pfn * 4096, pfn * 4096 + 8)).toString('hex');
      outside = Buffer.from(processor.snp!.seenFromOutside(pfn).slice(0, 8)).toString('hex');
    },
  });
  return { output, status: result.end.status, measurement, shared, plain, outside, exits: result.exits };
}

test('an SNP guest meets every check of the reverse map, and goes on', { timeout: 60_000 }, async () => {
  const seen = await run();
  expect(seen.output).toBe(OUTPUT);
  expect(seen.status).toBe(1);
  expect(seen.exits).toMatchObject({ hypercall: 2, 'memory-fault': 2, mmio: 1 });
  // What it shares the VMM reads, what it does not is ciphertext.
  expect(seen.shared).toBe('share');
  expect(seen.plain).toBe('7700000000000000');
  expect(seen.outside).not.toBe(seen.plain);
  expect(seen.measurement).toMatch(/^[0-9a-f]{96}$/);
});

test('a VM type that the hardware does not have is KVM_CREATE_VM: EINVAL', async () => {
  const options = { file: 'snp.elf', image: guestImage('snp.elf'), onSerial: () => {} };
  await expect(runImage({ ...options, vmType: 'snp', hardware: 'silicon-epyc' })).rejects.toThrow(
    /KVM_CREATE_VM: EINVAL/,
  );
});
