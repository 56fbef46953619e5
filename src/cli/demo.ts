/** `softkvm demo`, which `npm start` runs. */
import type { Command } from 'commander';
import { demoLines, demoReport } from '../tools/demo/demo.ts';
import { print, printJson } from './output.ts';

export function addDemo(program: Command): void {
  program
    .command('demo')
    .description('the tour: one guest in a software-protected VM takes every class of fault, and each is accounted for')
    .option('--json', 'machine-readable output')
    .addHelpText('after', '\nExample:\n  softkvm demo')
    .action(async (options: { json?: boolean }) => {
      const report = await demoReport((text) => {
        if (!options.json) process.stdout.write(text);
      });
      if (options.json) printJson(report);
      else for (const line of demoLines(report)) print(line);
      process.exitCode = report.holds ? 0 : 1;
    });
}
