/** `softkvm bench NAME`. */
import { type Command, Option } from 'commander';
import { benchFaults, type FaultBench } from '../tools/bench/faults.ts';
import { count } from './options.ts';
import { Progress, print, printJson } from './output.ts';

export function addBench(program: Command): void {
  program
    .command('bench')
    .description('the benchmarks')
    .addHelpText('after', '\nExample:\n  softkvm bench faults --mib 256')
    .command('faults')
    .description('a guest touches fresh memory page by page: faults a second, end to end and of the bare fault path')
    .option('--mib <n>', 'MiB of memory to touch', count('--mib', 'MiB of memory'), 256)
    .addOption(new Option('--hardware <profile>', 'hardware profile (default: the silicon-like one)'))
    .option('--json', 'machine-readable output')
    .addHelpText('after', '\nExample:\n  softkvm bench faults --mib 256 --json')
    .action((options: { mib: number; hardware?: string; json?: boolean }) => {
      const progress = new Progress(0);
      const result = benchFaults(options.mib, options.hardware, (phase) => progress.update(() => phase));
      progress.done();
      if (options.json) printJson(result);
      else for (const line of benchLines(result)) print(line);
    });
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
    `  processor time   ${b.cpuSeconds.toFixed(3).padStart(12)} s of ${b.seconds.toFixed(3)} s`,
    `  allocated         ${b.bytesPerFault.toFixed(2).padStart(12)} bytes of JavaScript heap a fault`,
  ];
}
