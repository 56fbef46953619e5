import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { type TraceReport, TraceReporter } from './trace-report.ts';

const samples = fileURLToPath(new URL('samples/', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'softkvm-trace-'));

async function reportOf(file: string): Promise<TraceReport> {
  const reporter = new TraceReporter();
  await reporter.read(file);
  return reporter.report();
}

/** The report of a text. */
function reportOfText(lines: readonly string[], end = '\n'): Promise<TraceReport> {
  const file = join(folder, 'trace');
  writeFileSync(file, lines.join('\n') + end);
  return reportOf(file);
}

let clock = 0;
const at = (text: string, pid = 7): string => `  CPU 0/KVM-${pid} [000] d..1. ${(clock++ / 1000).toFixed(6)}: ${text}`;
const exit = (reason = 'npf'): string =>
  at(
    `kvm_exit: vcpu 0 reason ${reason} rip 0xa000 info1 0x0000000100000006 info2 0x0000000000800000 intr_info 0x00000000 error_code 0x00000000`,
  );
const fault = (gpa = 0x800000, code = '0x100000006'): string =>
  at(`kvm_page_fault: vcpu 0 rip 0xa000 address 0x${gpa.toString(16).padStart(16, '0')} error_code ${code}`);
const entry = (): string => at('kvm_entry: vcpu 0, rip 0xa000 intr_info 0x00000000 error_code 0x00000000');
const kinds = (report: TraceReport): string[] => report.findings.map((f) => f.kind);

describe('a trace of the real KVM', () => {
  it('says the same by gzip and by zstd, whatever the file is called', async () => {
    const [byGzip, byZstd] = await Promise.all(
      ['gz', 'zst'].map((name) => reportOf(`${samples}npt.trace_pipe.${name}`)),
    );
    expect(byGzip!.files[0]).toMatchObject({
      format: 'ftrace',
      compression: 'gzip',
      lines: 1500,
      kvmEvents: 1500,
      strange: null,
      broken: null,
      truncated: false,
    });
    expect({ ...byZstd, files: [] }).toEqual({ ...byGzip, files: [] });
    expect(byZstd!.files[0]!.compression).toBe('zstd');
  });

  it('has its faults by error code, and what became of them', async () => {
    const { faults, exits } = await reportOf(`${samples}npt.trace_pipe.gz`);
    const total = faults.kinds.reduce((sum, k) => sum + k.count, 0);
    expect(total).toBe(faults.total);
    expect(exits.find((e) => e.at === 'npf')?.count).toBe(faults.total);
    expect(faults.kinds[0]).toMatchObject({ code: '0x200000006', bits: 'W|U|GUEST_PAGE', codeKind: 'npf' });
    for (const kind of faults.kinds) {
      expect(Object.values(kind.outcomes).reduce((sum, n) => sum + n, 0)).toBe(kind.count);
      expect(Object.keys(kind.outcomes)).not.toEqual(['nothing seen']);
    }
  });

  it('shows huge pages that a dirty log breaks', async () => {
    const { findings } = await reportOf(`${samples}dirty-log.trace_pipe`);
    expect(findings.find((f) => f.kind === 'huge-pages-broken')?.title).toContain('gfn 0x800');
  });
});

describe('findings', () => {
  it('the same fault again and again is a loop, unless the guest gets on', async () => {
    const loop = Array.from({ length: 20 }, () => [exit(), fault(), entry()]).flat();
    const { findings, latency } = await reportOfText(loop);
    expect(findings).toMatchObject([{ kind: 'fault-loop', count: 20, lines: [2, 5, 8, 11, 14] }]);
    expect(latency).toMatchObject({ count: 20 });
    expect(latency!.p50 / 1e6).toBeCloseTo(1, 1);
    const device = Array.from({ length: 20 }, () => [
      exit(),
      fault(),
      at('kvm_emulate_insn: 0:a000:8a 03 (prot64)'),
      at('kvm_userspace_exit: reason KVM_EXIT_MMIO (6)'),
    ]).flat();
    expect(kinds(await reportOfText(device))).toEqual([]);
  });

  it('a polled register is a storm; one that is written slowly is none', async () => {
    const poll = (n: number, step: number): Promise<TraceReport> =>
      reportOfText(
        Array.from(
          { length: n },
          (_, i) => `  q-1 [000] ..... ${(i * step).toFixed(6)}: kvm_mmio: mmio read len 4 gpa 0xfed000f0 val 0x1`,
        ),
      );
    const storm = await poll(2000, 0.0001);
    expect(kinds(storm)).toEqual(['mmio-storm']);
    expect(storm.mmio.places[0]).toMatchObject({ gpa: '0xfed000f0', reads: 2000, writes: 0 });
    expect(Math.round(storm.mmio.places[0]!.rate!)).toBe(10000);
    expect(kinds(await poll(2000, 0.01))).toEqual([]);
  });

  it('conversions to and fro, and memory faults that are not answered', async () => {
    const convert = (i: number): string =>
      at(`kvm_hypercall: nr 0xc a0 0x800000 a1 0x1 a2 ${i % 2 === 0 ? '0x0' : '0x10'} a3 0x0`);
    expect(kinds(await reportOfText(Array.from({ length: 6 }, (_, i) => convert(i))))).toEqual([
      'conversion-ping-pong',
    ]);
    const again = Array.from({ length: 6 }, () => [
      exit(),
      fault(),
      at('kvm_userspace_exit: reason KVM_EXIT_MEMORY_FAULT (39)'),
    ]).flat();
    expect(kinds(await reportOfText(again))).toContain('memory-faults');
  });

  it('misaligned MMIO', async () => {
    const report = await reportOfText([at('kvm_mmio: mmio write len 4 gpa 0xd0000002 val 0x1')]);
    expect(report.findings).toMatchObject([{ kind: 'split-mmio', lines: [1] }]);
  });
});

describe('a file that is not quite a trace', () => {
  it('is read for what is in it, and says where the rest is', async () => {
    const report = await reportOfText(
      [exit(), 'rubbish', fault(), 'CPU:0 [LOST 5 EVENTS]', '  q-1 [000] ..... 0.000001: kvm_exit: rea', 'rubbish'],
      '\n  q-1 [000] ..... 9.0: kvm_ex',
    );
    expect(report.files[0]).toMatchObject({
      lines: 7,
      kvmEvents: 2,
      strange: { lines: 3, firstLine: 2, text: 'rubbish' },
      lost: { lines: 1, firstLine: 4 },
      broken: { lines: 1, firstLine: 5 },
      truncated: true,
    });
    expect(report.faults.total).toBe(1);
  });

  it('counts times that go backwards', async () => {
    const lines = [2, 1, 3].map((t) => `  q-1 [000] ..... ${t}.0: kvm_pml_full: vcpu 0: PML full`);
    expect((await reportOfText(lines)).files[0]!.backwards).toMatchObject({ lines: 1, firstLine: 2 });
  });

  it('is refused when nothing in it is known, or the end of the archive is missing', async () => {
    await expect(reportOfText(['hello', 'world'])).rejects.toThrow(/expected trace text/);
    await expect(reportOf(join(folder, 'absent'))).rejects.toThrow(/absent: cannot be read \(ENOENT\)/);
    const cut = join(folder, 'cut');
    writeFileSync(cut, gzipSync(Array.from({ length: 5000 }, exit).join('\n')).subarray(0, 2000));
    await expect(reportOf(cut)).rejects.toThrow(/cut: cannot be read/);
    writeFileSync(cut, Uint8Array.of(0x17, 0x08, 0x44, ...Buffer.from('tracing6')));
    await expect(reportOf(cut)).rejects.toThrow(/trace.dat/);
  });
});
