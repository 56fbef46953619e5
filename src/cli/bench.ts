/** `softkvm bench NAME`. */
import { type Command, Option } from 'commander';
import {
  benchExplore,
  type ExploreBench,
  type ExploreBenches,
  type ExploreTiming,
  STANDARD_SCENES,
} from '../tools/bench/explore.ts';
import { benchFaults, type FaultBench } from '../tools/bench/faults.ts';
import { addCpuBench } from './bench-cpu.ts';
import { THREAD_CODE } from './built-threads.ts';
import { count, threads } from './options.ts';
import { Progress, print, printJson } from './output.ts';

export function addBench(program: Command): void {
  const bench = program
    .command('bench')
    .description('the benchmarks')
    .addHelpText('after', '\nExample:\n  softkvm bench faults --mib 256\n  softkvm bench explore');
  addCpuBench(bench);
  addExploreBench(bench);
  bench
    .command('faults')
    .description('a guest touches fresh memory page by page: faults a second, end to end and of the bare fault path')
    .option('--mib <n>', 'MiB of memory to touch', count('--mib', 'MiB of memory'), 256)
    .addOption(new Option('--cpu <vendor>', 'nested paging, or EPT').choices(['amd', 'intel']))
    .addOption(new Option('--hardware <profile>', 'hardware profile (default: the silicon-like one)'))
    .option('--json', 'machine-readable output')
    .addHelpText('after', '\nExample:\n  softkvm bench faults --mib 256 --json\n  softkvm bench faults --cpu intel')
    .action((options: { mib: number; cpu?: 'amd' | 'intel'; hardware?: string; json?: boolean }) => {
      const progress = new Progress(0);
      const result = benchFaults(options.mib, options.hardware, (phase) => progress.update(() => phase), options.cpu);
      progress.done();
      if (options.json) printJson(result);
      else for (const line of benchLines(result)) print(line);
    });
}

function addExploreBench(bench: Command): void {
  bench
    .command('explore [scenes...]')
    .description(
      'states a second, in one thread and in several; of the fault protocol also under spin, where it is installed',
    )
    .option('--workers <n>', 'threads of the second measurement', threads(2), 2)
    .option('--json', 'machine-readable output')
    .addHelpText('after', '\nExample:\n  softkvm bench explore --workers 2')
    .action(async (scenes: readonly string[], options: { workers: number; json?: boolean }) => {
      const progress = new Progress(0);
      const results: ExploreBench[] = [];
      try {
        for (const scene of scenes.length === 0 ? STANDARD_SCENES : scenes)
          results.push(
            await benchExplore(scene, options.workers, THREAD_CODE, (phase) => progress.update(() => phase)),
          );
      } finally {
        progress.done();
      }
      if (options.json) printJson({ version: 1, scenes: results } satisfies ExploreBenches);
      else for (const line of results.flatMap(exploreLines)) print(line);
    });
}

function exploreLines(b: ExploreBench): string[] {
  const n = (x: number): string => Math.round(x).toLocaleString('en-US');
  const line = (name: string, states: number, transitions: number, seconds: number, more: string): string =>
    `  ${name.padEnd(22)} ${n(states).padStart(11)} states ${n(transitions).padStart(12)} transitions ${seconds.toFixed(2).padStart(7)} s ${n(states / seconds).padStart(10)} states/s  ${more}`;
  const own = (name: string, t: ExploreTiming): string =>
    line(
      name,
      t.states,
      t.transitions,
      t.seconds,
      `${t.bytesPerState.toFixed(0)} bytes a state, processor time ${t.cpuSeconds.toFixed(2)} s`,
    );
  const lines = [
    `${b.scene}: ${b.verdict}, ${b.stateWords} words a state`,
    own('one thread', b.one),
    own(`${b.several.workers} threads`, b.several),
    own('one thread, reduced', b.reduced),
  ];
  if (b.spin !== null) {
    const { full, reduced } = b.spin;
    lines.push(
      line('spin', full.states, full.transitions, full.seconds, 'compiled C, -O2 -DSAFETY -DNOREDUCE'),
      line('spin, reduced', reduced.states, reduced.transitions, reduced.seconds, 'its own partial-order reduction'),
    );
  }
  lines.push(
    `  ${b.several.workers} threads: ${b.speedup.toFixed(2)} times as fast; ten million states need ${n(b.tenMillionMiB)} MiB`,
  );
  return lines;
}

function benchLines(b: FaultBench): string[] {
  const n = (x: number): string => Math.round(x).toLocaleString('en-US');
  return [
    `A guest touched ${b.mib} MiB of fresh memory, ${n(b.faults)} faults on 4K pages, hardware ${b.hardware}`,
    `  end to end        ${n(b.faultsPerSecond).padStart(12)} faults/s  ${b.nsPerFault.toFixed(0).padStart(6)} ns a fault`,
    `    in hardware                               ${b.nsHardware.toFixed(0).padStart(6)} ns  access, TLB miss, both walks, exit, resume`,
    `    in KVM                                    ${b.nsKvm.toFixed(0).padStart(6)} ns  exit handling, fault path, map`,
    `  bare fault path   ${n(b.barePerSecond).padStart(12)} faults/s  ${b.nsBare.toFixed(0).padStart(6)} ns a fault, driven without a processor`,
    `  shadow paging     ${n(b.shadow.faultsPerSecond).padStart(12)} faults/s  ${b.shadow.nsPerFault.toFixed(0).padStart(6)} ns a fault, end to end: ${b.shadow.ratio.toFixed(2)} times that with nested paging`,
    `  reverse map       ${n(b.snp.faultsPerSecond).padStart(12)} faults/s  ${b.snp.nsPerFault.toFixed(0).padStart(6)} ns a fault, end to end: ${b.snp.ratio.toFixed(2)} times that without SEV-SNP's checks`,
    `  processor time   ${b.cpuSeconds.toFixed(3).padStart(12)} s of ${b.seconds.toFixed(3)} s`,
    `  allocated         ${b.bytesPerFault.toFixed(2).padStart(12)} bytes of JavaScript heap a fault`,
  ];
}
