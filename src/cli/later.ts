/** The commands that are part of the contract and not there yet: they say so and exit with 2. */
import type { Command } from 'commander';
import { UnsupportedError } from '../tools/input-error.ts';

const later: readonly (readonly [name: string, args: string, description: string, example: string])[] = [
  ['inspect', '[args...]', 'the web inspector', 'inspect'],
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
