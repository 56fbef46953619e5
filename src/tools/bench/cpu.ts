/** How fast the processor is, by kind of work: the benchmark guest in either engine, and in the emulators that are installed. */
import { type Emulator, type EmulatorName, emulators } from './cpu-emulators.ts';
import { CPU_PARTS, cpuGuest, type GuestBits, GuestMarks } from './cpu-guest.ts';

/** A part of the guest in all emulators. */
export interface CpuPartResult {
  readonly name: string;
  readonly round: string;
  /** Nanoseconds of a round; null where the part did not run to its end. */
  readonly nanoseconds: { readonly [emulator in EmulatorName]?: number | null };
  /** How many times as fast softkvm is: its interpreter beside Bochs, its compiled code beside the others and its own interpreter. */
  readonly ratios: {
    readonly interpreterToBochs?: number;
    readonly compiledToQemu?: number;
    readonly compiledToV86?: number;
    readonly compiledToInterpreter?: number;
  };
  /** All emulators computed the same. */
  readonly agree: boolean;
}

/** What `softkvm bench cpu --json` prints. */
export interface CpuBench {
  readonly version: 1;
  /** Least time that a part runs, and how often; the fastest counts. */
  readonly milliseconds: number;
  readonly repeat: number;
  readonly emulators: readonly { readonly name: EmulatorName; readonly version: string | null }[];
  readonly guests: readonly { readonly bits: GuestBits; readonly parts: readonly CpuPartResult[] }[];
}

export interface CpuBenchOptions {
  readonly milliseconds: number;
  readonly repeat: number;
  readonly bits: readonly GuestBits[];
  /** Emulators to run; all that are installed if absent. */
  readonly only?: readonly EmulatorName[];
  /** Names of parts to run; all if absent. */
  readonly parts?: readonly string[];
  readonly onPhase?: (phase: string) => void;
}

/** More rounds than this at once could run for hours on a machine that is quick at first. */
const MOST_GROWTH = 40;
const MOST_RUNS = 10;
/** A part whose rounds take less than this fraction of what they took in a shorter run has not reached its speed. */
const STEADY = 0.8;
const WARMING_GROWTH = 4;
/** Runs that do not count in an emulator whose compiler works in the background: one of them may be slow throughout. */
const WARMING_RUNS = 4;
const MOST_TIMES_LONGER = 8;

interface Measured {
  nanoseconds: number;
  rounds: number;
  checksum: string;
}

/** Runs the guest until every part has run long enough, `repeat` times; the fastest of those counts. */
async function measure(emulator: Emulator, bits: GuestBits, o: CpuBenchOptions): Promise<(Measured | undefined)[]> {
  const best: (Measured | undefined)[] = [];
  const wanted = CPU_PARTS.map((p) => o.parts === undefined || o.parts.includes(p.name));
  const rounds = CPU_PARTS.map((p) => p.few);
  const left = wanted.map((w) => (w ? o.repeat : 0));
  for (let run = 0; run < MOST_RUNS + o.repeat && left.some((n) => n > 0); run++) {
    const marks = new GuestMarks();
    const now = rounds.map((n, i) => (left[i]! > 0 ? n : 0));
    await emulator.run(cpuGuest(bits, now), (byte) => marks.byte(byte));
    now.forEach((n, i) => {
      const part = marks.runs[i];
      if (n === 0) return;
      if (part === undefined) {
        left[i] = 0;
        return;
      }
      const nanoseconds = (part.milliseconds * 1e6) / n;
      if (part.milliseconds < o.milliseconds / 2) {
        const growth = Math.min(MOST_GROWTH, o.milliseconds / Math.max(part.milliseconds, 0.01));
        rounds[i] = Math.min(0x7fffffff, Math.ceil(n * growth));
        best[i] = { nanoseconds, rounds: n, checksum: '' };
        return;
      }
      const known = best[i];
      // Still getting faster with length: a compiler is warming up, or the start counts.
      const early = emulator.warmsUp === true && run < WARMING_RUNS;
      const warming = early || known === undefined || (known.rounds < n && nanoseconds < STEADY * known.nanoseconds);
      if (warming && part.milliseconds < MOST_TIMES_LONGER * o.milliseconds && run < MOST_RUNS) {
        best[i] = { nanoseconds, rounds: n, checksum: part.checksum };
        rounds[i] = Math.min(0x7fffffff, n * WARMING_GROWTH);
        return;
      }
      left[i]!--;
      if (known === undefined || known.rounds !== n || nanoseconds < known.nanoseconds) {
        best[i] = { nanoseconds, rounds: n, checksum: part.checksum };
      }
    });
  }
  return best;
}

/** Checksums of a few rounds, the same in every emulator. */
async function checksums(emulator: Emulator, bits: GuestBits): Promise<string> {
  const marks = new GuestMarks();
  await emulator.run(
    cpuGuest(
      bits,
      CPU_PARTS.map((p) => p.few),
    ),
    (byte) => marks.byte(byte),
  );
  return CPU_PARTS.map((_, i) => marks.runs[i]?.checksum ?? '').join();
}

/** Measures every part in every emulator there is. */
export async function benchCpu(o: CpuBenchOptions): Promise<CpuBench> {
  const all = emulators().filter((e) => o.only === undefined || o.only.includes(e.name));
  const guests: { bits: GuestBits; parts: CpuPartResult[] }[] = [];
  for (const bits of o.bits) {
    const results = new Map<EmulatorName, (Measured | undefined)[]>();
    const sums = new Map<EmulatorName, string[]>();
    for (const emulator of all) {
      if (emulator.version === null || !emulator.bits.includes(bits)) continue;
      o.onPhase?.(`${bits}-bit guest, ${emulator.version}`);
      sums.set(emulator.name, (await checksums(emulator, bits)).split(','));
      results.set(emulator.name, await measure(emulator, bits, o));
    }
    guests.push({ bits, parts: CPU_PARTS.flatMap((_, i) => partResult(i, results, sums, o)) });
  }
  return {
    version: 1,
    milliseconds: o.milliseconds,
    repeat: o.repeat,
    emulators: all.map(({ name, version }) => ({ name, version })),
    guests,
  };
}

function partResult(
  i: number,
  results: ReadonlyMap<EmulatorName, (Measured | undefined)[]>,
  sums: ReadonlyMap<EmulatorName, string[]>,
  o: CpuBenchOptions,
): CpuPartResult[] {
  const { name, round } = CPU_PARTS[i]!;
  if (o.parts !== undefined && !o.parts.includes(name)) return [];
  const time = (e: EmulatorName): number | undefined => results.get(e)?.[i]?.nanoseconds;
  const ratio = (ours: EmulatorName, other: EmulatorName): number | undefined => {
    const [a, b] = [time(ours), time(other)];
    return a === undefined || b === undefined ? undefined : b / a;
  };
  const found = {
    interpreterToBochs: ratio('interpreter', 'bochs'),
    compiledToQemu: ratio('compiled', 'qemu'),
    compiledToV86: ratio('compiled', 'v86'),
    compiledToInterpreter: ratio('compiled', 'interpreter'),
  };
  const ratios = Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined));
  const nanoseconds = Object.fromEntries([...results.keys()].map((e) => [e, time(e) ?? null]));
  const agree = new Set([...sums.values()].map((s) => s[i]!).filter((s) => s !== '')).size <= 1;
  return [{ name, round, nanoseconds, ratios, agree }];
}
