import { describe, expect, it } from 'vitest';
import { guestImage } from './guest-image.ts';
import { ImageError } from './image-error.ts';
import { type RunImageOptions, runImage } from './run-image.ts';

const MIB = 1024 * 1024;

async function run(name: string, options: Partial<RunImageOptions> = {}) {
  const text: number[] = [];
  const result = await runImage({
    file: name,
    image: options.image ?? guestImage(name),
    memoryBytes: 40 * MIB,
    timeoutMs: 60_000,
    onSerial: (byte) => text.push(byte),
    ...options,
  });
  return { ...result, text: String.fromCharCode(...text) };
}

const machines = [
  ['nested paging', {}],
  ['EPT', { hardware: 'silicon-skylake' }],
  ['shadow paging', { params: { npt: false } }],
  ['VMX without EPT', { hardware: 'silicon-skylake', params: { ept: false } }],
] as const;

describe('system management mode', () => {
  it.each(machines)('runs code that nothing outside of it sees, under %s', async (_, options) => {
    const moves: string[] = [];
    const { end, text } = await run('smm.elf', {
      ...options,
      onTrace: (e) => {
        if (e.event === 'kvm_smm_transition') moves.push(e.fields.text);
      },
    });
    expect(text).toContain('SMIs: 50\nSMRAM is not to be seen');
    expect(end.status).toBe(1);
    // One that moves SMBASE, fifty, one in which another is raised, and that one.
    expect(moves).toHaveLength(2 * 53);
    expect(moves.slice(0, 3)).toEqual([
      'vcpu 0: entering SMM, smbase 0x30000',
      'vcpu 0: leaving SMM, smbase 0x30000',
      'vcpu 0: entering SMM, smbase 0xa0000',
    ]);
  });

  it.each(machines)(
    'takes an SMI that is an IPI: no exit, and the handler that firmware left, under %s',
    async (_, options) => {
      const moves: string[] = [];
      const { end, exits } = await run('flat', {
        ...options,
        image: Uint8Array.from([
          ...[0x66, 0xb9, 0x1b, 0, 0, 0, 0x0f, 0x32, 0x0d, 0, 0x0c, 0x0f, 0x30], // IA32_APIC_BASE: x2APIC
          ...[0x66, 0xb9, 0x30, 8, 0, 0, 0x66, 0xb8, 0, 2, 4, 0, 0x66, 0x31, 0xd2, 0x0f, 0x30], // ICR: SMI, self
          // KVM that emulates real mode does so for a while before it looks for an SMI.
          ...[0xb9, 0, 1, 0xe2, 0xfe], // mov cx, 256; loop
          ...[0xb0, 0x10, 0xe6, 0xf4], // mov al, 16; out 0xf4, al
        ]),
        onTrace: (e) => {
          if (e.event === 'kvm_smm_transition') moves.push(e.fields.text);
        },
      });
      expect(end).toMatchObject({ kind: 'debug-exit', status: 33 });
      expect(moves).toEqual(['vcpu 0: entering SMM, smbase 0x30000', 'vcpu 0: leaving SMM, smbase 0x30000']);
      expect(exits).toEqual({ io: 1 });
    },
  );

  it('is not offered by a VM that has one address space', async () => {
    const { end, text } = await run('smm.elf', { vmType: 'sw-protected' });
    expect([end.status, text]).toEqual([7, 'system management mode\nnot offered\n']);
  });
});

const LOST = 0x200_0000;

describe('a frame of the host that fails', () => {
  it.each(machines)('is a machine check to the guest that touches it, under %s', async (_, options) => {
    const { end, text, memoryErrors } = await run('mce.elf', { ...options, poison: [{ gpa: LOST, at: 500_000 }] });
    expect(text).toContain('the page that failed is done without');
    expect(end.status).toBe(1);
    expect(memoryErrors).toEqual([
      { gpa: LOST, vcpu: 0 },
      { gpa: LOST, vcpu: 0 },
    ]);
  });

  it('shuts down a guest that has not switched machine checks on, and is nothing to one that stays away', async () => {
    // mov ax, [0x20000], again and again
    const loads = Uint8Array.of(0xbb, 0x00, 0x20, 0x8e, 0xdb, 0xa1, 0x00, 0x00, 0xeb, 0xfb);
    const poison = [{ gpa: 0x20000, at: 1000 }];
    const touched = await run('loads', { image: loads, poison });
    expect(touched.end.kind).toBe('shutdown');
    expect(touched.memoryErrors).toEqual([{ gpa: 0x20000, vcpu: 0 }]);
    const away = await run('mce.elf', { poison: [{ gpa: LOST + 64 * 4096, at: 1000 }], maxInstructions: 300_000 });
    expect([away.end.kind, away.memoryErrors]).toEqual(['max-instructions', []]);
  });

  it('must be there', async () => {
    await expect(run('mce.elf', { poison: [{ gpa: 0xe000_0000, at: 0 }] })).rejects.toThrow(ImageError);
  });
});
