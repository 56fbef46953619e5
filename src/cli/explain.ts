/** `softkvm explain`. */
import { type Command, Option } from 'commander';
import { parseCode } from '../tools/decode/decode.ts';
import { flagFaults } from '../tools/explain/explain-flags.ts';
import { scenarioFaults } from '../tools/explain/explain-scenario.ts';
import { type Explanation, explanationLines, type LeftBy, outcomeSentence } from '../tools/explain/explain-text.ts';
import type { FaultRecord } from '../tools/explain/fault-log.ts';
import { InputError } from '../tools/input-error.ts';
import { count } from './options.ts';
import { colour, print, printJson } from './output.ts';

interface Options {
  readonly step?: number;
  readonly fault?: number;
  readonly errorCode?: string;
  readonly gpa?: string;
  readonly slot: 'rw' | 'ro' | 'none' | 'gmem';
  readonly attribute: 'private' | 'shared';
  readonly vmType: 'default' | 'sw-protected';
  readonly revision?: string;
  readonly json?: boolean;
}

export function addExplain(program: Command): void {
  program
    .command('explain [scenario]')
    .description('one fault, stage by stage, in words: of a recorded scenario, or made from flags')
    .option('--step <n>', 'step of the scenario (default: the last)', count('--step', 'a step', 0))
    .option('--fault <k>', 'fault of the step, from 0 (default: the last)', count('--fault', 'a fault', 0))
    .option('--error-code <code>', 'error code of a fault to make')
    .option('--gpa <address>', 'guest physical address of a fault to make')
    .addOption(
      new Option('--slot <kind>', 'memory slot at the address').choices(['rw', 'ro', 'none', 'gmem']).default('rw'),
    )
    .addOption(
      new Option('--attribute <attribute>', 'memory attribute of the address')
        .choices(['private', 'shared'])
        .default('shared'),
    )
    .addOption(new Option('--vm-type <type>', 'type of the VM').choices(['default', 'sw-protected']).default('default'))
    .option('--revision <name>', 'revision of the fault path')
    .option('--json', 'machine-readable output')
    .addHelpText(
      'after',
      '\nExample:\n  softkvm explain conformance/npt/mmio-cache-evict.json --step 2\n  softkvm explain --error-code 0x100000006 --gpa 0x800000 --slot gmem --attribute private --vm-type sw-protected',
    )
    .action((scenario: string | undefined, options: Options) => {
      if (scenario !== undefined) explainScenario(scenario, options);
      else explainFlags(options);
    });
}

function explainScenario(path: string, options: Options): void {
  const found = scenarioFaults(path, options.step, options.revision);
  const { answer, faults } = found;
  const left: LeftBy | null =
    answer.run === undefined ? null : { ret: answer.ret, errno: answer.errno, run: answer.run };
  if (faults.length === 0) {
    if (options.json) printJson({ version: 1, scenario: found.scenario, step: found.step, faults: 0, explained: null });
    else print(`${found.scenario}, step ${found.step}: no fault reached KVM in this step.`);
    return;
  }
  const k = options.fault ?? faults.length - 1;
  const fault = faults[k];
  if (fault === undefined)
    throw new InputError(`--fault ${k}: step ${found.step} has faults 0 to ${faults.length - 1}`);
  const explained = explanation(fault, k === faults.length - 1 ? left : null);
  if (options.json) {
    const list = faults.map((f) => ({
      gpa: f.gpa,
      errorCode: f.errorCode,
      verdict: f.verdict,
      outcome: outcomeSentence(f),
    }));
    printJson({ version: 1, scenario: found.scenario, step: found.step, faults: list, fault: k, explained });
    return;
  }
  print(colour.bold(`${found.scenario}: ${found.title}`));
  print(`step ${found.step} ${JSON.stringify(found.operation)}, fault ${k} of ${faults.length}`);
  if (faults.length > 1)
    for (const [i, f] of faults.entries())
      print(colour.dim(`  ${i === k ? '>' : ' '} ${i}  ${f.gpa}  ${f.errorCode}  ${f.verdict ?? outcomeSentence(f)}`));
  print('');
  for (const line of explained.words) print(line);
}

function explainFlags(options: Options): void {
  if (options.errorCode === undefined || options.gpa === undefined)
    throw new InputError('explain: expected a scenario, or --error-code and --gpa');
  const { faults, left } = flagFaults({
    errorCode: parseCode(options.errorCode),
    gpa: parseCode(options.gpa),
    slot: options.slot,
    attribute: options.attribute,
    vmType: options.vmType,
    ...(options.revision === undefined ? {} : { revision: options.revision }),
  });
  const fault = faults.at(-1);
  const explained = fault === undefined ? null : explanation(fault, left);
  if (options.json) printJson({ version: 1, faults: faults.length, explained });
  else if (explained === null) print('The fault did not reach the fault path.');
  else for (const line of explained.words) print(line);
}

function explanation(fault: FaultRecord, left: LeftBy | null): Explanation {
  return { fault, words: explanationLines(fault, left), left };
}
