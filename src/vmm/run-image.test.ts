import { describe, expect, it } from 'vitest';
import type { Board } from './board.ts';
import { acpiTables } from './loaders/acpi-tables.ts';
import { postMortemLines } from './post-mortem.ts';
import { type RunImageOptions, runImage } from './run-image.ts';

const MIB = 1024 * 1024;

/** Runs code to its end and keeps what it printed. */
async function run(image: Uint8Array, options: Partial<RunImageOptions> = {}) {
  const text: number[] = [];
  const result = await runImage({
    file: 'guest',
    image,
    memoryBytes: 16 * MIB,
    timeoutMs: 20_000,
    onSerial: (byte) => text.push(byte),
    ...options,
  });
  return { ...result, text: String.fromCharCode(...text) };
}

const flat = (...code: number[]): Uint8Array => Uint8Array.from(code);

/** A 64-bit ELF of one segment at 1 MiB. */
function elf64(...code: number[]): Uint8Array {
  const bytes = new Uint8Array(120 + code.length);
  const v = new DataView(bytes.buffer);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  v.setUint16(16, 2, true);
  v.setUint16(18, 62, true);
  v.setBigUint64(24, 0x100000n, true);
  v.setBigUint64(32, 64n, true);
  v.setUint16(54, 56, true);
  v.setUint16(56, 1, true);
  v.setUint32(64, 1, true);
  v.setBigUint64(72, 120n, true);
  v.setBigUint64(88, 0x100000n, true);
  v.setBigUint64(96, BigInt(code.length), true);
  v.setBigUint64(104, BigInt(code.length), true);
  bytes.set(code, 120);
  return bytes;
}

/** A multiboot kernel by the addresses of its header, code right after it. */
function multiboot(...code: number[]): Uint8Array {
  const flags = 1 << 16;
  const words = Uint32Array.of(0x1badb002, flags, -(0x1badb002 + flags), 0x100000, 0x100000, 0, 0, 0x100020);
  return new Uint8Array([...new Uint8Array(words.buffer), ...code]);
}

const HANG = [0xeb, 0xfe]; // jmp .
const EXIT_AL = [0xe6, 0xf4]; // out 0xf4, al

describe('end states of a run', () => {
  it('debug-exit: the status is (value << 1) | 1', async () => {
    // mov al, 0x10; out 0xf4, al
    const { end } = await run(flat(0xb0, 0x10, ...EXIT_AL, ...HANG));
    expect(end).toMatchObject({ kind: 'debug-exit', status: 33 });
  });

  it('halt', async () => {
    expect((await run(flat(0xfa, 0xf4))).end).toMatchObject({ kind: 'halt', status: 4 });
  });

  it('power-off: mov dx, 0x604; mov ax, 0x2000; out dx, ax', async () => {
    const { end } = await run(flat(0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, ...HANG));
    expect(end).toMatchObject({ kind: 'poweroff', status: 0 });
  });

  it('reset: mov dx, 0xcf9; mov al, 6; out dx, al', async () => {
    const { end } = await run(flat(0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, ...HANG));
    expect(end).toMatchObject({ kind: 'reset', status: 6 });
  });

  it('triple fault: lidt of an empty table; int3', async () => {
    const { end } = await run(flat(0x0f, 0x01, 0x1e, 0x20, 0x00, 0xcc, ...new Array(32).fill(0)));
    expect(end).toMatchObject({ kind: 'shutdown', status: 8 });
  });

  it('code in a hole is what KVM cannot emulate: mov eax, 0xd0000000; jmp rax', async () => {
    const { end } = await run(elf64(0xb8, 0x00, 0x00, 0x00, 0xd0, 0xff, 0xe0));
    expect(end).toMatchObject({ kind: 'internal-error', status: 12 });
    expect(end.detail).toContain('rip 0xd0000000');
  });

  it('timeout', async () => {
    const { end } = await run(flat(...HANG), { timeoutMs: 30 });
    expect(end).toMatchObject({ kind: 'timeout', status: 14 });
    expect(end.detail).toContain('rip 0x0');
  });

  it('max-instructions, exactly', async () => {
    const { end, instructions } = await run(flat(...HANG), { maxInstructions: 5_000 });
    expect(end).toMatchObject({ kind: 'max-instructions', status: 16 });
    expect(instructions).toBe(5_000);
  });

  it('interrupted', async () => {
    expect((await run(flat(...HANG), { interrupted: () => true })).end).toMatchObject({
      kind: 'interrupted',
      status: 18,
    });
  });
});

describe('a guest and its devices', () => {
  it('writes strings to the serial port: mov dx, 0x3f8; mov si, text; mov cx, 5; rep outsb', async () => {
    const code = [0xba, 0xf8, 0x03, 0xbe, 0x0e, 0x00, 0xb9, 0x05, 0x00, 0xfc, 0xf3, 0x6e, 0xf4, 0x90];
    const { text, end, exits } = await run(flat(...code, ...new TextEncoder().encode('hello')));
    expect(text).toBe('hello');
    expect(end.kind).toBe('halt');
    expect(exits['io']).toBe(5);
  });

  it('reads its input: in al, dx; out dx, al; three times', async () => {
    const echo = [0xec, 0xee];
    const { text } = await run(flat(0xba, 0xf8, 0x03, ...echo, ...echo, ...echo, 0xf4), {
      onBoard: (board) => board.serial.receive(new TextEncoder().encode('abc')),
    });
    expect(text).toBe('abc');
  });

  it('is woken from HLT by its timer, and not without: the interrupt chips are in KVM', async () => {
    // 64-bit code has no interrupt table here, so the timer's interrupt ends in a triple fault; without STI nothing wakes it.
    const store = (at: number, value: number): number[] => {
      const word = new Uint8Array(Uint32Array.of(at).buffer);
      return [0xbb, ...word, 0xc7, 0x03, ...new Uint8Array(Uint32Array.of(value).buffer)]; // mov ebx, at; mov dword [rbx], value
    };
    const timer = [...store(0xfee000f0, 0x1ff), ...store(0xfee00320, 0x40), ...store(0xfee00380, 1_000_000)];
    expect((await run(elf64(...timer, 0xfb, 0xf4))).end.kind).toBe('shutdown');
    expect((await run(elf64(...timer, 0xfa, 0xf4))).end.kind).toBe('halt');
  });

  it('a device nobody made reads as ones: mov ebx, 0xd0000000; mov al, [rbx]; out 0xf4, al', async () => {
    const { end } = await run(elf64(0xbb, 0x00, 0x00, 0x00, 0xd0, 0x8a, 0x03, ...EXIT_AL));
    expect(end).toMatchObject({ kind: 'debug-exit', status: 0xff });
  });
});

describe('entry states', () => {
  it('multiboot gives its magic in eax: cmp eax, 0x2badb002; jne 1f; mov al, 0x11; out 0xf4, al; 1: hlt', async () => {
    const { end } = await run(multiboot(0x3d, 0x02, 0xb0, 0xad, 0x2b, 0x75, 0x04, 0xb0, 0x11, ...EXIT_AL, 0xf4));
    expect(end).toMatchObject({ kind: 'debug-exit', status: 35 });
  });

  it('runs on either type of VM', async () => {
    for (const vmType of ['default', 'sw-protected'] as const) {
      expect((await run(flat(0xb0, 0x01, ...EXIT_AL), { vmType })).end.status).toBe(3);
    }
  });

  it('refuses memory that no host has', async () => {
    await expect(run(flat(0xf4), { memoryBytes: 4096 * MIB })).rejects.toThrow(
      /^guest: memory of 4096 MiB: a default VM/,
    );
  });
});

describe('a guest that cannot go on', () => {
  it('triple fault: where it was, the code, the exceptions that led to it, the last exits', async () => {
    // mov al, 7; out 0x80, al; lidt [0] with a limit of 0 in 32-bit code; ud2
    const { end, postMortem } = await run(multiboot(0xb0, 7, 0xe6, 0x80, 0x0f, 0x01, 0x1d, 0, 0, 0x10, 0, 0x0f, 0x0b));
    expect(end).toMatchObject({ kind: 'shutdown', status: 8 });
    // The header's first bytes make a descriptor table with nothing usable in it.
    expect(postMortem).toMatchObject({
      bits: 32,
      rip: '0x10002b',
      lastExits: ['io out port 0x80, 1 bytes', 'shutdown'],
    });
    expect(postMortem!.code[0]).toMatch(/^0x10002b {2}0f 0b +ud2$/);
    expect(postMortem!.exceptions.map((e) => e.split(' ')[0])).toEqual(['#UD', '#DF', expect.stringMatching(/^#/)]);
    expect(postMortem!.bytes).toMatch(/^0f 0b/);
  });

  it('a jump into nothing: the address, and that nothing is there', async () => {
    // mov eax, 0xd0000000; jmp eax
    const { end, postMortem } = await run(multiboot(0xb8, 0, 0, 0, 0xd0, 0xff, 0xe0));
    expect(end).toMatchObject({ kind: 'internal-error', status: 12 });
    expect(end.detail).toMatch(/rip 0xd0000000/);
    expect(postMortem).toMatchObject({ bits: 32, rip: '0xd0000000', bytes: '', code: ['no memory is mapped there'] });
    expect(postMortemLines(postMortem!).slice(0, 2)).toEqual([
      '  at rip 0xd0000000, 32-bit code: no memory is mapped there',
      '  last exits',
    ]);
  });

  it('an end that the guest chose has none', async () => {
    expect((await run(flat(...EXIT_AL))).postMortem).toBeNull();
  });
});

describe('several vCPUs', () => {
  /** mov dword [rbx + offset], value */
  const store = (offset: number, value: number): number[] => [
    0xc7,
    0x83,
    ...new Uint8Array(Uint32Array.of(offset, value).buffer),
  ];
  // mov ebx, 0xfee00000; INIT and SIPI to all others; wait for word [0x7000] to be so much; out 0xf4, al
  const boot = (count: number): Uint8Array =>
    elf64(
      ...[0xbb, 0, 0, 0xe0, 0xfe],
      ...store(0x300, 0xc4500),
      ...store(0x300, 0xc4606),
      ...[0x66, 0x81, 0x3c, 0x25, 0x00, 0x70, 0, 0, count & 0xff, count >> 8, 0x72, 0xf4],
      ...[0xb0, 0x05],
      ...EXIT_AL,
      ...HANG,
    );
  /** At 0x6000, where the SIPI points. */
  const others = (...code: number[]) => ({ onBoard: (b: Board) => b.writeMemory(0x6000, Uint8Array.from(code)) });

  it('take turns, and in two runs the same ones', async () => {
    // inc word [0x7000]; jmp back
    const options = { vcpus: 3, ...others(0xf0, 0xff, 0x06, 0x00, 0x70, 0xeb, 0xf9) };
    const [first, second] = [await run(boot(60_000), options), await run(boot(60_000), options)];
    expect(first.end).toMatchObject({ kind: 'debug-exit', status: 11 });
    expect(second.instructions).toBe(first.instructions);
    expect(second.vcpuStats).toEqual(first.vcpuStats);
    expect(first.instructions).toBeGreaterThan(120_000);
  });

  it('leave the rest of their time when they halt', async () => {
    // lock inc word [0x7000]; hlt
    const { end, instructions } = await run(boot(7), { vcpus: 8, ...others(0xf0, 0xff, 0x06, 0x00, 0x70, 0xf4) });
    expect(end).toMatchObject({ kind: 'debug-exit' });
    expect(instructions).toBeLessThan(1_000);
  });

  it('end the run when all have halted', async () => {
    // mov ebx, 0xfee00000; INIT, SIPI; hlt
    const image = elf64(0xbb, 0, 0, 0xe0, 0xfe, ...store(0x300, 0xc4500), ...store(0x300, 0xc4606), 0xf4);
    const { end } = await run(image, { vcpus: 2, ...others(0xf4) });
    expect(end).toMatchObject({ kind: 'halt', status: 4 });
    expect(end.detail).toMatch(/of vCPU [01]$/);
  });
});

describe('time', () => {
  it('an RTC alarm ends a sleep to RAM, and the guest goes on where its FACS says', async () => {
    // The waking vector is 0x6000; an alarm at any time of day; PM1 events: RTC; sleep type 1 with SLP_EN.
    const out8 = (index: number, value: number): number[] => [0xb0, index, 0xe6, 0x70, 0xb0, value, 0xe6, 0x71];
    const code = flat(
      ...[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0],
      ...out8(1, 0xff),
      ...out8(3, 0xff),
      ...out8(5, 0xff),
      ...out8(0xb, 0x22),
      ...[0xba, 0x02, 0x06, 0xb8, 0x00, 0x04, 0xef],
      ...[0xba, 0x04, 0x06, 0xb8, 0x00, 0x24, 0xef],
      ...HANG,
    );
    const { end } = await run(code, {
      onBoard: (board) => {
        board.writeMemory(acpiTables(1).wakingVectorAt, Uint8Array.of(0, 0x60, 0, 0));
        // mov al, 3; out 0xf4, al
        board.writeMemory(0x6000, Uint8Array.of(0xb0, 0x03, ...EXIT_AL));
      },
    });
    expect(end).toMatchObject({ kind: 'debug-exit', status: 7 });
  });

  it('a sleep without an alarm ends the run', async () => {
    const { end } = await run(flat(0xba, 0x04, 0x06, 0xb8, 0x00, 0x24, 0xef, ...HANG));
    expect(end).toMatchObject({ kind: 'halt', detail: 'suspended to RAM, with no alarm set' });
  });
});
