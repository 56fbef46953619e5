/** The commands that are part of the contract and not there yet: they say so and exit with 2. */
import type { Command } from 'commander';
import { UnsupportedError } from '../tools/input-error.ts';

const later: readonly (readonly [name: string, args: string, description: string, example: string])[] = [
  [
    'range-diff',
    '<a> <b>',
    'what changed in behaviour between two revisions of the fault path',
    'range-diff series-v1 series-v2',
  ],
  [
    'trace',
    '[args...]',
    'read ftrace, trace-cmd or perf text of kvm events; report, convert, replay',
    'trace report trace.txt',
  ],
  ['inspect', '[args...]', 'the web inspector', 'inspect'],
  ['series', '[args...]', 'the patches of the series, one by one', 'series'],
];

export function addLater(program: Command): void {
  for (const [name, args, description, example] of later) {
    program
      .command(`${name} ${args}`)
      .description(`${description} (not supported yet)`)
      .option('--json', 'machine-readable output')
      .allowUnknownOption()
      .addHelpText('after', `\nExample:\n  softkvm ${example}`)
      .action(() => {
        throw new UnsupportedError(`softkvm ${name}`);
      });
  }
}
