/** The way of one fault as a Mermaid flowchart. */
import type { Diagram, DiagramStep, StepTone } from './diagram-steps.ts';
import { wrap } from './wrap.ts';

const COLUMNS = 56;

const classes: { readonly [T in StepTone]: string } = {
  pass: 'fill:#f6f8fa,stroke:#8c959f,color:#1f2328',
  skipped: 'fill:#ffffff,stroke:#d0d7de,color:#8c959f,stroke-dasharray:4 4',
  mapped: 'fill:#dafbe1,stroke:#1a7f37,color:#1f2328',
  emulate: 'fill:#ddf4ff,stroke:#0969da,color:#1f2328',
  retry: 'fill:#fff8c5,stroke:#9a6700,color:#1f2328',
  error: 'fill:#ffebe9,stroke:#cf222e,color:#1f2328',
};

/** The text of a flowchart, top down. */
export function mermaidOf(diagram: Diagram): string {
  const { steps } = diagram;
  const asked = steps.filter((s) => s.tone !== 'skipped');
  const skipped = steps.slice(asked.length);
  const lines = ['flowchart TD', `  fault([${label([diagram.title, ...wrap(diagram.subtitle, COLUMNS)])}])`];
  let from = 'fault';
  let edge = '-->';
  for (const step of asked) {
    lines.push(`  s${step.number}[${label(stepLines(step))}]:::${step.tone}`, `  ${from} ${edge} s${step.number}`);
    from = `s${step.number}`;
    edge = `-->|${escaped(step.verdict)}|`;
  }
  const out = [diagram.outcome, ...diagram.after.map(([name, text]) => `${name}: ${text}`)];
  lines.push(`  out([${label(out.flatMap((line) => wrap(line, COLUMNS)))}]):::${diagram.tone}`);
  lines.push(`  ${from} ${asked.length === 0 ? '==>' : `==>|${escaped(asked.at(-1)!.verdict)}|`} out`);
  for (const step of skipped) {
    lines.push(`  s${step.number}[${label(stepLines(step))}]:::skipped`, `  ${from} -.- s${step.number}`);
    from = `s${step.number}`;
  }
  for (const [tone, style] of Object.entries(classes)) lines.push(`  classDef ${tone} ${style}`);
  return `${lines.join('\n')}\n`;
}

function stepLines(step: DiagramStep): string[] {
  return [
    `${step.number}: ${step.name}${step.kvmFunction === '' ? '' : ` (${step.kvmFunction})`}`,
    ...wrap(step.reason, COLUMNS),
  ];
}

function label(lines: readonly string[]): string {
  return `"${lines.map(escaped).join('<br/>')}"`;
}

/** Mermaid's entity codes for what its grammar or HTML would take as its own. */
function escaped(text: string): string {
  return text.replace(/[&#"<>|`]/g, (c) => `#${c.charCodeAt(0)};`);
}
