/** `softkvm bench cpu`. */
import { type Command, Option } from 'commander';
import { benchCpu, type CpuBench, type CpuPartResult } from '../tools/bench/cpu.ts';
import type { EmulatorName } from '../tools/bench/cpu-emulators.ts';
import { CPU_PARTS, type GuestBits } from '../tools/bench/cpu-guest.ts';
import { InputError } from '../tools/input-error.ts';
import { EXIT_FAILED, EXIT_OK } from './exit-status.ts';
import { collect, count } from './options.ts';
import { Progress, print, printJson } from './output.ts';

const NAMES: { readonly [name in EmulatorName]: string } = {
  interpreter: 'interpreter',
  compiled: 'compiled',
  qemu: 'QEMU TCG',
  bochs: 'Bochs',
  v86: 'v86',
};

interface Options {
  readonly ms: number;
  readonly repeat: number;
  readonly bits?: '32' | '64';
  readonly emulator: readonly string[];
  readonly part: readonly string[];
  readonly json?: boolean;
}

export function addCpuBench(bench: Command): void {
  bench
    .command('cpu')
    .description(
      'a guest that computes, faults, reloads CR3, exits and calls: in either engine, beside the emulators that are installed (qemu-system-x86_64, bochs, v86)',
    )
    .option('--ms <n>', 'milliseconds that a part runs', count('--ms', 'milliseconds'), 300)
    .option('--repeat <n>', 'measurements, of which the fastest counts', count('--repeat', 'a count'), 2)
    .addOption(new Option('--bits <n>', 'one of the two guests').choices(['32', '64']))
    .option(
      '--emulator <name>',
      `one of ${Object.keys(NAMES).join(', ')} (repeatable; default: all there are)`,
      collect,
      [],
    )
    .option('--part <name>', 'a part of the guest, as "page fault" (repeatable; default: all)', collect, [])
    .option('--json', 'machine-readable output')
    .addHelpText(
      'after',
      '\nExample:\n  softkvm bench cpu --bits 64 --part "page fault" --emulator compiled --emulator qemu',
    )
    .action(async (o: Options) => {
      for (const name of o.emulator) {
        if (!(name in NAMES))
          throw new InputError(`--emulator ${name}: expected one of ${Object.keys(NAMES).join(', ')}`);
      }
      for (const name of o.part) {
        if (CPU_PARTS.some((p) => p.name === name)) continue;
        throw new InputError(`--part ${name}: expected one of ${CPU_PARTS.map((p) => p.name).join(', ')}`);
      }
      const progress = new Progress(0);
      const result = await benchCpu({
        milliseconds: o.ms,
        repeat: o.repeat,
        bits: o.bits === undefined ? [64, 32] : [Number(o.bits) as GuestBits],
        ...(o.emulator.length === 0 ? {} : { only: o.emulator as readonly EmulatorName[] }),
        ...(o.part.length === 0 ? {} : { parts: o.part }),
        onPhase: (phase) => progress.update(() => phase),
      });
      progress.done();
      if (o.json) printJson(result);
      else for (const line of lines(result)) print(line);
      process.exitCode = result.guests.every((g) => g.parts.every((p) => p.agree)) ? EXIT_OK : EXIT_FAILED;
    });
}

function lines(b: CpuBench): string[] {
  const there = b.emulators.filter((e) => e.version !== null).map((e) => e.name);
  const absent = b.emulators.filter((e) => e.version === null).map((e) => NAMES[e.name]);
  const out = b.emulators.flatMap((e) => (e.version === null ? [] : [`${NAMES[e.name].padEnd(12)} ${e.version}`]));
  if (absent.length > 0) out.push(`not installed: ${absent.join(', ')}`);
  for (const { bits, parts } of b.guests) {
    const columns = there.filter((e) => parts.some((p) => e in p.nanoseconds));
    const ratios = RATIOS.filter(([key]) => parts.some((p) => key in p.ratios));
    const head = [...columns.map((e) => NAMES[e].padStart(12)), ...ratios.map(([, title]) => title.padStart(22))];
    out.push('', `${`${bits}-bit guest, time of a round`.padEnd(52)}${head.join('')}`);
    for (const p of parts) {
      const times = columns.map((e) => timeText(p.nanoseconds[e]).padStart(12));
      const times2 = ratios.map(([key]) => (p.ratios[key]?.toFixed(2) ?? '').padStart(22));
      out.push(
        `${`  ${p.name.padEnd(18)}${p.round}`.padEnd(52)}${[...times, ...times2].join('')}${p.agree ? '' : '  NOT THE SAME RESULT'}`,
      );
    }
  }
  return out;
}

const RATIOS: readonly (readonly [keyof CpuPartResult['ratios'], string])[] = [
  ['compiledToQemu', 'compiled/QEMU'],
  ['compiledToV86', 'compiled/v86'],
  ['compiledToInterpreter', 'compiled/interpreter'],
  ['interpreterToBochs', 'interpreter/Bochs'],
];

function timeText(nanoseconds: number | null | undefined): string {
  if (nanoseconds === null || nanoseconds === undefined) return '-';
  if (nanoseconds < 1000) return `${nanoseconds.toFixed(0)} ns`;
  if (nanoseconds < 1e6) return `${(nanoseconds / 1000).toFixed(2)} µs`;
  return `${(nanoseconds / 1e6).toFixed(2)} ms`;
}
