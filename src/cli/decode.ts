/** `softkvm decode CODE`. */
import { type Command, Option } from 'commander';
import { revisionByName } from '../kvm/mmu/revisions/index.ts';
import { checkRevision } from '../tools/choices.ts';
import { type CodeKind, type DecodedCode, decodeCode, kindName, parseCode } from '../tools/decode/decode.ts';
import { colour, print, printJson } from './output.ts';

export function addDecode(program: Command): void {
  program
    .command('decode <code>')
    .description('a page-fault error code, NPF EXITINFO1 or EPT exit qualification, bit by bit')
    .addOption(new Option('--kind <kind>', 'what the code is').choices(['pf', 'npf', 'ept', 'auto']).default('auto'))
    .option('--revision <name>', 'revision of KVM whose names count (default: the newest)')
    .option('--json', 'machine-readable output')
    .addHelpText('after', '\nExample:\n  softkvm decode 0x100000006\n  softkvm decode 0x181 --kind ept --json')
    .action((code: string, options: { kind: CodeKind | 'auto'; revision?: string; json?: boolean }) => {
      const rules = options.revision === undefined ? undefined : revisionByName(checkRevision(options.revision)).rules;
      const decoded = decodeCode(parseCode(code), options.kind, rules);
      if (options.json) printJson(decoded);
      else for (const line of decodedLines(decoded)) print(line);
    });
}

function decodedLines(d: DecodedCode): string[] {
  const width = Math.max(...d.bits.map((b) => b.name.length));
  const bits = d.bits.map((b) => {
    const row = `  ${String(b.bit).padStart(2)}  ${b.set ? '1' : '0'}  ${b.name.padEnd(width)}  ${b.meaning}`;
    return b.set ? colour.bold(row) : colour.dim(row);
  });
  return [
    `${colour.bold(d.code)}  ${kindName(d.kind)}${d.guessed ? ' (guessed; --kind says otherwise)' : ''}`,
    ...bits,
    '',
    `${d.class}: ${d.words}.`,
    `KVM: ${d.kvm}.`,
    ...d.warnings.map((w) => colour.yellow(`warning: ${w}.`)),
  ];
}
