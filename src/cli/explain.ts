/** `softkvm explain`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { mermaidOf } from '../tools/explain/diagram-mermaid.ts';
import { diagramOf } from '../tools/explain/diagram-steps.ts';
import { svgOf } from '../tools/explain/diagram-svg.ts';
import { describedReport, type ExplainReport, reportLines, scenarioReport } from '../tools/explain/explain-report.ts';
import { type FaultFlags, SWITCH_FLAGS, VALUE_FLAGS } from '../tools/explain/fault-flags.ts';
import { firstFaultLine, parseTraceLine, type TracedFault } from '../tools/explain/trace-line.ts';
import { readVmDescription } from '../tools/explain/vm-description.ts';
import { ATTRIBUTES, BACKINGS, ENTRIES, PAGINGS, SLOTS, SPTES, VM_TYPES } from '../tools/fault-machine/fault-input.ts';
import { InputError } from '../tools/input-error.ts';
import { loadRevision } from '../tools/range-diff/load-revision.ts';
import { count } from './options.ts';
import { colour, print, printJson } from './output.ts';

interface Options {
  readonly [option: string]: unknown;
  readonly step?: number;
  readonly fault?: number;
  readonly traceLine?: string;
  readonly vm?: string;
  readonly revision?: string;
  readonly compare?: string;
  readonly json?: boolean;
  readonly diagram?: 'svg' | 'mermaid';
  readonly output?: string;
}

const DEFAULT_REVISION = 'linux-6.12';

export function addExplain(program: Command): void {
  program
    .command('explain [scenario]')
    .description(
      'one fault, stage by stage, in words: of a recorded scenario, described by flags, or a line of a trace',
    )
    .option('--step <n>', 'step of the scenario (default: the last)', count('--step', 'a step', 0))
    .option('--fault <k>', 'fault of the step, from 0 (default: the last)', count('--fault', 'a fault', 0))
    .option(
      '--trace-line <line>',
      'a line with kvm_page_fault, handle_mmio_page_fault or fast_page_fault; - reads stdin',
    )
    .option('--vm <file>', 'the VM of the fault, as JSON (docs/cli.md)')
    .option('--error-code <code>', 'error code of the fault, as hardware reports it')
    .option('--gpa <address>', 'guest physical address of the fault')
    .option('--cpu <vendor>', 'amd, intel (default: amd)')
    .option('--no-ept-ad', 'EPT without accessed and dirty bits')
    .option('--vm-type <type>', listed(VM_TYPES, 'default'))
    .option('--paging <kind>', `who translates: ${listed(PAGINGS, 'tdp')}`)
    .option('--nested', 'the fault is one of a nested guest (L2)')
    .option('--no-mmio-caching', 'kvm.mmio_caching=0')
    .option('--entry <kind>', `how the fault comes in: ${listed(ENTRIES, 'fault')}`)
    .option('--slot <kind>', `memory slot at the address: ${listed(SLOTS, 'rw')}`)
    .option('--attribute <attribute>', `memory attribute of the address: ${listed(ATTRIBUTES, 'shared')}`)
    .option('--spte <state>', `the entry before the fault: ${listed(SPTES, 'absent')}`)
    .option('--backing <state>', `the page behind the slot: ${listed(BACKINGS, 'present')}`)
    .option(
      '--invalidation <when>',
      'of the range of the gfn: none, in-progress, done-at=STAGE, begun-at=STAGE (default: none)',
    )
    .option('--revision <name>', `revision of the fault path, or a file with one (default: ${DEFAULT_REVISION})`)
    .option('--compare <name>', 'the same fault under another revision, side by side')
    .option('--json', 'machine-readable output')
    .addOption(new Option('--diagram <format>', 'the way of the fault as a picture').choices(['svg', 'mermaid']))
    .option('-o, --output <file>', 'write to a file')
    .addHelpText(
      'after',
      `
Example:
  softkvm explain conformance/npt/mmio-cache-evict.json --step 2
  softkvm explain --error-code 0x100000006 --slot rw --attribute private --vm-type sw-protected
  softkvm explain --error-code 0x500000006 --slot none --vm-type snp --compare linux-6.9
  softkvm explain --trace-line 'kvm_page_fault: vcpu 0 rip 0xa005 address 0xd0000000 error_code 0x100000004' --slot none
  softkvm explain --error-code 0x100000007 --spte write-protected --diagram svg -o fault.svg`,
    )
    .action(async (scenario: string | undefined, options: Options) => {
      refuseMixed(scenario, options);
      const report = scenario === undefined ? await describe(options) : await ofScenario(scenario, options);
      put(report, options);
    });
}

function listed(values: readonly string[], byDefault: string): string {
  return `${values.join(', ')} (default: ${byDefault})`;
}

async function ofScenario(path: string, options: Options): Promise<ExplainReport> {
  const { step, fault } = options;
  const revision = options.revision === undefined ? undefined : await named('--revision', options.revision);
  const compare = options.compare === undefined ? undefined : await named('--compare', options.compare);
  return scenarioReport({ path, step, fault, revision, compare });
}

async function describe(options: Options): Promise<ExplainReport> {
  const flags = faultFlags(options);
  if (flags['error-code'] === undefined && options.traceLine === undefined && (flags.entry ?? 'fault') === 'fault')
    throw new InputError('explain: expected a scenario, or --error-code, or --trace-line');
  const revision = await named('--revision', options.revision ?? DEFAULT_REVISION);
  return describedReport({
    flags,
    vm: options.vm === undefined ? null : readVmDescription(options.vm),
    traced: options.traceLine === undefined ? null : traced(options.traceLine),
    revision,
    compare: options.compare === undefined ? null : await named('--compare', options.compare),
  });
}

async function named(option: string, name: string) {
  try {
    return (await loadRevision(name)).revision;
  } catch (error) {
    if (error instanceof InputError && !error.message.startsWith(name))
      throw new InputError(`${option} ${name}: ${error.message}`);
    throw error;
  }
}

function traced(line: string): TracedFault {
  return line === '-' ? firstFaultLine(readFileSync(0, 'utf8'), 'stdin') : parseTraceLine(line, '--trace-line');
}

/** The flags of a fault that were typed. */
function faultFlags(options: Options): FaultFlags {
  const flags: { [flag: string]: string | true } = {};
  for (const flag of VALUE_FLAGS) {
    const value = options[camelCase(flag)];
    if (typeof value === 'string') flags[flag] = value;
  }
  for (const flag of SWITCH_FLAGS) {
    const negated = flag.startsWith('no-');
    if (options[camelCase(negated ? flag.slice(3) : flag)] === !negated) flags[flag] = true;
  }
  return flags;
}

function camelCase(flag: string): string {
  return flag.replace(/-([a-z])/g, (_, c: string) => c.toUpperCase());
}

/** A scenario has its own faults, and a trace line its own code. */
function refuseMixed(scenario: string | undefined, options: Options): void {
  const described = Object.keys(faultFlags(options));
  if (scenario !== undefined) {
    const flag = options.traceLine !== undefined ? 'trace-line' : options.vm !== undefined ? 'vm' : described[0];
    if (flag !== undefined)
      throw new InputError(`--${flag}: describes a fault, and ${scenario} has its own: expected one of the two`);
    return;
  }
  for (const option of ['step', 'fault'] as const)
    if (options[option] !== undefined) throw new InputError(`--${option}: expected a scenario before it`);
  if (options.traceLine === undefined) return;
  const both = ['error-code', 'gpa', 'entry'].find((flag) => described.includes(flag));
  if (both !== undefined) throw new InputError(`--${both}: the trace line says it: expected one of the two`);
}

function put(report: ExplainReport, options: Options): void {
  const { json, diagram, output } = options;
  if (diagram !== undefined && json) throw new InputError('--diagram: expected either --json or --diagram');
  if (diagram !== undefined && report.compared !== null)
    throw new InputError('--diagram: draws the fault under one revision: expected no --compare beside it');
  if (diagram === undefined && output === undefined) {
    if (json) printJson(report);
    else for (const [i, line] of reportLines(report).entries()) print(i === 0 ? colour.bold(line) : line);
    return;
  }
  const text = diagram === undefined ? plainText(report, json) : picture(report, diagram);
  if (output === undefined) process.stdout.write(text);
  else {
    try {
      writeFileSync(output, text);
    } catch (error) {
      throw new InputError(
        `${output}: cannot be written (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`,
      );
    }
  }
}

function plainText(report: ExplainReport, json: boolean | undefined): string {
  return json ? `${JSON.stringify(report, null, 2)}\n` : `${reportLines(report).join('\n')}\n`;
}

function picture(report: ExplainReport, format: 'svg' | 'mermaid'): string {
  if (report.explanation === null) throw new InputError(`--diagram ${format}: no fault reached KVM, nothing to draw`);
  const diagram = diagramOf(report.explanation);
  return format === 'svg' ? svgOf(diagram) : mermaidOf(diagram);
}
