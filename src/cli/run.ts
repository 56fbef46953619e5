/** `softkvm run IMAGE`. */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import type { EngineName } from '../cpu/compiler/engine.ts';
import { hardwareProfile } from '../cpu/profiles/index.ts';
import { hardwareFor } from '../tools/choices.ts';
import { InputError, UnsupportedError } from '../tools/input-error.ts';
import { splitParams } from '../tools/module-params.ts';
import { checkEngines } from '../tools/run/check-engines.ts';
import { type RunOptions, type RunReport, runGuest } from '../tools/run/run-guest.ts';
import type { Board } from '../vmm/board.ts';
import { CPU_FEATURES, type CpuFeature } from '../vmm/cpu-features.ts';
import { END_STATES } from '../vmm/end-state.ts';
import type { PoisonOptions } from '../vmm/memory-errors.ts';
import { postMortemLines } from '../vmm/post-mortem.ts';
import { swapLines } from '../vmm/swap.ts';
import { EXIT_FAILED, EXIT_OK } from './exit-status.ts';
import { collect, count, engineOption, size, untilInterrupted, useEngine } from './options.ts';
import { printJson } from './output.ts';
import { TraceFile } from './trace-file.ts';

interface Options {
  readonly memory: number;
  readonly vcpus: number;
  readonly rtc?: number;
  readonly cpuFeature: readonly string[];
  readonly cpu?: 'amd' | 'intel';
  readonly vmType: 'default' | 'sw-protected' | 'snp' | 'tdx';
  readonly paging: 'tdp' | 'shadow';
  readonly onMemoryFault: 'convert' | 'stop';
  readonly swap?: number;
  readonly swapLatency: number;
  readonly poison: readonly string[];
  readonly initrd?: string;
  readonly append: string;
  readonly revision?: string;
  readonly hardware?: string;
  readonly engine: EngineName;
  readonly checkEngines?: boolean;
  readonly param: readonly string[];
  readonly trace?: string;
  readonly stats?: boolean;
  readonly maxInstructions?: number;
  readonly timeout?: number;
  readonly json?: boolean;
}

const MIB = 1024 * 1024;
/** APIC ids of 8 bits, of which the last is for all. */
const MAX_VCPUS = 255;

export function addRun(program: Command): void {
  program
    .command('run <image>')
    .description('run a guest: multiboot ELF, ELF64, or a flat binary; its serial port is the terminal')
    .option('--memory <size>', 'guest memory', size('--memory', MIB, 3072 * MIB), 128 * MIB)
    .option('--vcpus <n>', 'number of vCPUs', count('--vcpus', 'a count of vCPUs'), 1)
    .option('--cpu-feature <name=on|off>', 'CPUID feature, as x2apic=off (repeatable)', collect, [])
    .option('--rtc <date>', 'date when the machine starts: ISO 8601 in UTC, or seconds since 1970', date)
    .addOption(
      new Option('--cpu <vendor>', 'processor: amd unless --hardware says otherwise').choices(['amd', 'intel']),
    )
    .addOption(
      new Option('--vm-type <type>', 'type of the VM')
        .choices(['default', 'sw-protected', 'snp', 'tdx'])
        .default('default'),
    )
    .addOption(
      new Option('--paging <kind>', 'two-dimensional or shadow paging').choices(['tdp', 'shadow']).default('tdp'),
    )
    .addOption(
      new Option('--on-memory-fault <policy>', 'what to do about KVM_EXIT_MEMORY_FAULT')
        .choices(['convert', 'stop'])
        .default('convert'),
    )
    .option(
      '--swap <size>',
      'memory that the guest may keep in the host; the rest goes to a swap device',
      size('--swap', MIB, 3072 * MIB),
    )
    .option(
      '--swap-latency <us>',
      'virtual microseconds that a page takes to come back',
      count('--swap-latency', 'microseconds', 0),
      100,
    )
    .option(
      '--poison <address[@us]>',
      'the host frame behind a guest address fails, at a virtual microsecond (repeatable)',
      collect,
      [],
    )
    .option('--initrd <file>', 'a file given to the guest as a multiboot module')
    .option('--append <string>', 'command line of the guest', '')
    .addOption(engineOption('compiled'))
    .option('--check-engines', 'run with the interpreter and with compiled code, and compare state by hash on the way')
    .option('--revision <name>', 'revision of the fault path')
    .option('--hardware <profile>', 'hardware profile')
    .option('--param <name=value>', 'KVM module parameter, as kvm.mmio_caching=0 (repeatable)', collect, [])
    .option('--trace <file>', "write KVM's trace events, one JSON object a line")
    .option('--stats', "print KVM's statistics at the end")
    .option(
      '--max-instructions <n>',
      'stop after so many instructions',
      count('--max-instructions', 'a count of instructions'),
    )
    .option('--timeout <seconds>', 'stop after so much real time', count('--timeout', 'seconds'))
    .option('--json', 'machine-readable report; the serial output is part of it')
    .addHelpText(
      'after',
      `\nExit status: ${END_STATES.map((s) => `${s.status} ${s.meaning}`).join('; ')}; odd: the guest wrote V to the isa-debug-exit port 0xf4, (V<<1)|1; 2: bad input.\n\nExample:\n  softkvm run kernel.elf --vm-type sw-protected --stats\n  softkvm run test.flat --memory 512M --append "smap" --timeout 30\n  softkvm run smptest.flat --vcpus 4 --rtc 2025-06-01T12:00:00`,
    )
    .action(async (image: string, options: Options) => {
      refuse(options);
      useEngine(options.engine);
      if (options.checkEngines === true) {
        process.exitCode = await check(image, options);
        return;
      }
      const report = await run(image, options);
      process.exitCode = report.end.status;
    });
}

/** @throws InputError */
function feature(text: string): CpuFeature {
  const [name = '', value] = text.split('=');
  if (value !== 'on' && value !== 'off') throw new InputError(`--cpu-feature ${text}: expected name=on or name=off`);
  if (!CPU_FEATURES.includes(name)) {
    throw new InputError(`--cpu-feature ${text}: no such feature; there are ${CPU_FEATURES.join(', ')}`);
  }
  return { name, on: value === 'on' };
}

/** `ADDRESS` or `ADDRESS@MICROSECONDS`. @throws InputError */
function poisoned(text: string): PoisonOptions {
  const [address = '', after = '0', ...rest] = text.split('@');
  const number = /^(0x[0-9a-f]+|[0-9]+)$/i;
  if (rest.length > 0 || !number.test(address) || !number.test(after))
    throw new InputError(`--poison ${text}: expected ADDRESS or ADDRESS@MICROSECONDS, as 0x2000000@500`);
  return { gpa: Number(address), at: Number(after) * 1000 };
}

/** Seconds since 1970; a date without a zone is UTC. @throws InputError */
function date(text: string): number {
  const iso = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?)?Z?$/.test(text);
  const day = text.length === 10;
  const parsed = iso ? Date.parse(text.endsWith('Z') || day ? text : `${text}Z`) / 1000 : Number.NaN;
  const seconds = /^\d+$/.test(text) ? Number(text) : parsed;
  if (Number.isFinite(seconds) && seconds < 2 ** 32) return seconds;
  throw new InputError(`--rtc ${text}: expected a date as 2025-01-01T00:00:00 or seconds since 1970`);
}

function refuse(o: Options): void {
  if (o.vcpus > MAX_VCPUS) throw new UnsupportedError(`--vcpus ${o.vcpus} (${MAX_VCPUS} are)`);
}

async function run(file: string, o: Options): Promise<RunReport> {
  const report = await untilInterrupted((requested) => runWithTerminal(file, o, requested));
  if (o.json) printJson(report);
  else process.stderr.write(reportText(report, o.stats === true));
  return report;
}

async function check(file: string, o: Options): Promise<number> {
  const result = await untilInterrupted((requested) =>
    withTerminal(file, o, requested, (guest) => checkEngines(guest)),
  );
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(3)} s`;
  const verdict = result.agree ? 'the engines agree' : `the engines differ: ${result.difference}`;
  if (o.json) printJson(result);
  else
    process.stderr.write(
      `softkvm: ${verdict} (${result.checkpoints} checkpoints, ${result.instructions} instructions; interpreter ${seconds(result.interpreter)}, compiled ${seconds(result.compiled)})\n`,
    );
  return result.agree ? EXIT_OK : EXIT_FAILED;
}

function runWithTerminal(file: string, o: Options, interrupted: () => boolean): Promise<RunReport> {
  return withTerminal(file, o, interrupted, runGuest);
}

function withTerminal<T>(
  file: string,
  o: Options,
  interrupted: () => boolean,
  start: (guest: RunOptions) => Promise<T>,
): Promise<T> {
  const image = readInput(file);
  const modules = o.initrd === undefined ? [] : [{ name: basename(o.initrd), bytes: readInput(o.initrd) }];
  const hardware = hardwareFor(o.cpu, o.hardware, o.vmType);
  const shadow = hardwareProfile(hardware).vendor === 'amd' ? { 'kvm_amd.npt': '0' } : { 'kvm_intel.ept': '0' };
  const params = { ...(o.paging === 'shadow' ? shadow : {}), ...splitParams(o.param) };
  const trace = o.trace === undefined ? null : new TraceFile(o.trace);
  const feed = terminalInput();
  return start({
    file,
    image,
    memoryBytes: o.memory,
    vcpus: o.vcpus,
    vmType: o.vmType,
    onMemoryFault: o.onMemoryFault,
    ...(o.swap === undefined ? {} : { swap: { residentBytes: o.swap, latency: o.swapLatency * 1000 } }),
    ...(o.poison.length === 0 ? {} : { poison: o.poison.map(poisoned) }),
    append: o.append,
    modules,
    params,
    features: o.cpuFeature.map(feature),
    ...(o.rtc === undefined ? {} : { startSeconds: o.rtc }),
    hardware,
    ...(o.revision === undefined ? {} : { revision: o.revision }),
    ...(o.maxInstructions === undefined ? {} : { maxInstructions: o.maxInstructions }),
    ...(o.timeout === undefined ? {} : { timeoutMs: o.timeout * 1000 }),
    interrupted,
    onSerial: (byte) => {
      if (!o.json) process.stdout.write(Uint8Array.of(byte));
    },
    ...(trace === null ? {} : { onTrace: (event) => trace.add(event) }),
    onBoard: (board) => {
      feed.to = board;
    },
  }).finally(() => {
    feed.stop();
    trace?.close();
  });
}

/** What the user types goes to the guest's serial port, once there is a board. */
function terminalInput(): { to: Board | null; readonly stop: () => void } {
  const feed = {
    to: null as Board | null,
    stop: () => {
      process.stdin.off('data', receive);
      process.stdin.pause();
    },
  };
  const receive = (bytes: Buffer): void => feed.to?.serial.receive(bytes);
  process.stdin.on('data', receive);
  process.stdin.unref?.();
  return feed;
}

function reportText(r: RunReport, stats: boolean): string {
  const lines = [`softkvm: ${r.end.kind}: ${r.end.detail} (status ${r.end.status})`];
  if (r.postMortem !== null) lines.push(...postMortemLines(r.postMortem));
  if (r.swap !== null) lines.push(...swapLines(r.swap));
  for (const { gpa, vcpu } of r.memoryErrors ?? [])
    lines.push(
      `memory error: vCPU ${vcpu} touched gpa 0x${gpa.toString(16)}, SIGBUS; the guest was given a machine check`,
    );
  if (stats) {
    const exits = Object.entries(r.exits).map(([name, n]) => `${name} ${n}`);
    lines.push(
      `instructions ${r.instructions}, ${(r.milliseconds / 1000).toFixed(3)} s`,
      `exits ${exits.join(', ') || 'none'}`,
    );
    for (const [name, value] of Object.entries({ ...r.stats.vm, ...r.stats.vcpu }))
      if (value !== 0) lines.push(`${name} ${value}`);
  }
  return `${lines.join('\n')}\n`;
}

function readInput(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const why =
      code === 'ENOENT'
        ? 'no such file'
        : code === 'EISDIR'
          ? 'is a folder, expected a file'
          : `cannot be read (${code})`;
    throw new InputError(`${file}: ${why}`);
  }
}
