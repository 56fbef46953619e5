import { describe, expect, it } from 'vitest';
import { revisionByName } from '../../kvm/mmu/revisions/index.ts';
import { mermaidOf } from './diagram-mermaid.ts';
import { type Diagram, diagramOf } from './diagram-steps.ts';
import { svgOf } from './diagram-svg.ts';
import { describedReport } from './explain-report.ts';
import type { FaultFlags } from './fault-flags.ts';
import { monoWidth, sansWidth } from './text-width.ts';

function diagram(flags: FaultFlags): Diagram {
  const revision = revisionByName('linux-6.12');
  return diagramOf(describedReport({ flags, vm: null, traced: null, revision, compare: null }).explanation!);
}

const cases: readonly (readonly [string, FaultFlags])[] = [
  ['a page that is mapped', { 'error-code': '0x100000006' }],
  ['a memory fault', { 'error-code': '0x100000006', slot: 'rw', attribute: 'private', 'vm-type': 'sw-protected' }],
  ['emulation at once', { 'error-code': '0x10000000d', slot: 'none', spte: 'mmio' }],
  ['a retry', { 'error-code': '0x100000006', invalidation: 'begun-at=fault-in-shared' }],
  ['a signal', { 'error-code': '0x100000006', backing: 'poisoned' }],
  ['an impossible code', { 'error-code': '0xffffffffffffffff', 'vm-type': 'snp', slot: 'gmem' }],
  ['a fault that KVM does not redo', { entry: 'pre-fault', paging: 'tdp', slot: 'none-beyond' }],
];

interface Element {
  readonly name: string;
  readonly attributes: { readonly [name: string]: string };
  readonly text: string;
}

/** The elements of a document, in order; throws where tags do not nest, quotes do not close or an entity is unknown. */
function parseXml(text: string): Element[] {
  const elements: { name: string; attributes: { [name: string]: string }; text: string }[] = [];
  const open: typeof elements = [];
  const token = /<(\/?)([a-zA-Z:]+)((?:\s+[a-zA-Z:-]+="[^"<]*")*)\s*(\/?)>|([^<]+)/gy;
  let at = 0;
  while (at < text.length) {
    token.lastIndex = at;
    const match = token.exec(text);
    if (match === null) throw new Error(`not XML at ${at}: ${text.slice(at, at + 60)}`);
    at = token.lastIndex;
    const [, closing, name, attributes, empty, content] = match;
    if (content !== undefined) {
      if (/&(?!(amp|lt|gt|quot);)|>/.test(content)) throw new Error(`not escaped: ${content}`);
      const inner = open.at(-1);
      if (inner !== undefined) inner.text += content;
      else if (content.trim() !== '') throw new Error(`text outside of the root: ${content}`);
    } else if (closing) {
      if (open.pop()?.name !== name) throw new Error(`</${name}> closes nothing`);
    } else {
      if (open.length === 0 && elements.length > 0) throw new Error('two roots');
      const pairs = [...attributes!.matchAll(/([a-zA-Z:-]+)="([^"]*)"/g)].map((m) => [m[1]!, m[2]!] as const);
      if (new Set(pairs.map(([key]) => key)).size !== pairs.length) throw new Error(`<${name}> repeats an attribute`);
      const element = { name: name!, attributes: Object.fromEntries(pairs), text: '' };
      elements.push(element);
      if (!empty) open.push(element);
    }
  }
  if (open.length > 0) throw new Error(`<${open.at(-1)!.name}> is not closed`);
  return elements;
}

describe('the SVG of a fault', () => {
  it.each(cases)('of %s is well-formed, self-contained and holds every stage', (_what, flags) => {
    const d = diagram(flags);
    const svg = svgOf(d);
    const elements = parseXml(svg);
    expect(elements[0]).toMatchObject({
      name: 'svg',
      attributes: { xmlns: 'http://www.w3.org/2000/svg', role: 'img' },
    });
    expect(svg.replace('http://www.w3.org/2000/svg', '')).not.toMatch(/href|url\(|http|<script|@import/);
    expect(svg).toContain('prefers-color-scheme: dark');
    const texts = elements.filter((e) => e.name === 'text').map((e) => e.text);
    for (const step of d.steps) expect(texts).toContain(step.name);
    expect(elements.find((e) => e.name === 'title')?.text).toBe(d.title);
  });

  it.each(cases)('of %s stays inside: no text beyond its box, nothing beyond the page', (_what, flags) => {
    const elements = parseXml(svgOf(diagram(flags)));
    const page = elements[0]!.attributes;
    const width = Number(page['width']);
    const height = Number(page['height']);
    for (const { name, attributes, text } of elements) {
      if (name === 'rect') {
        expect(Number(attributes['x']) + Number(attributes['width'])).toBeLessThanOrEqual(width);
        expect(Number(attributes['y']) + Number(attributes['height'])).toBeLessThanOrEqual(height);
      }
      if (name !== 'text') continue;
      const size = Number(attributes['font-size']);
      const measure = attributes['font-family']!.startsWith('ui-monospace') ? monoWidth : sansWidth;
      const length = measure(text.replace(/&[a-z]+;/g, '.'), size);
      const left = Number(attributes['x']) - (attributes['text-anchor'] === 'middle' ? length / 2 : 0);
      expect(left).toBeGreaterThanOrEqual(0);
      expect(left + length, text).toBeLessThanOrEqual(width - 28);
      expect(Number(attributes['y'])).toBeLessThan(height);
    }
  });

  it('has no two stages on top of each other', () => {
    const elements = parseXml(svgOf(diagram(cases[1]![1])));
    const cards = elements.filter((e) => e.name === 'rect' && e.attributes['rx'] === '8').map((e) => e.attributes);
    const spans = cards.map((c) => [Number(c['y']), Number(c['y']) + Number(c['height'])] as const);
    spans.sort((a, b) => a[0] - b[0]);
    for (let i = 1; i < spans.length; i++) expect(spans[i]![0]).toBeGreaterThanOrEqual(spans[i - 1]![1]);
  });

  it('escapes what a reason says', () => {
    const d = diagram(cases[0]![1]);
    const steps = d.steps.map((s) => ({ ...s, reason: 'a < b && "c" > d' }));
    expect(() => parseXml(svgOf({ ...d, title: '<&>', steps }))).not.toThrow();
  });
});

describe('the flowchart of a fault', () => {
  it.each(cases)('of %s has nodes and edges only, and nothing that is not defined', (_what, flags) => {
    const d = diagram(flags);
    const [head, ...lines] = mermaidOf(d).trimEnd().split('\n');
    expect(head).toBe('flowchart TD');
    const nodes = new Set<string>();
    const classes = new Set<string>();
    const used: string[] = [];
    for (const line of lines) {
      const node = /^ {2}(\w+)(?:\[|\(\[)"[^"]*"(?:\]|\]\))(?::::(\w+))?$/.exec(line);
      const edge = /^ {2}(\w+) (?:-->|==>|-\.-)(?:\|[^|"<>]+\|)? (\w+)$/.exec(line);
      const style = /^ {2}classDef (\w+) [\w:#, -]+$/.exec(line);
      expect(node ?? edge ?? style, line).not.toBeNull();
      if (node !== null) {
        nodes.add(node[1]!);
        if (node[2] !== undefined) used.push(node[2]);
      }
      if (edge !== null) for (const end of edge.slice(1)) expect(nodes, line).toContain(end);
      if (style !== null) classes.add(style[1]!);
    }
    for (const name of used) expect(classes).toContain(name);
    expect(nodes).toEqual(new Set(['fault', 'out', ...d.steps.map((s) => `s${s.number}`)]));
  });

  it('leads from the stage that decided to the outcome', () => {
    const d = diagram(cases[1]![1]);
    const text = mermaidOf(d);
    const n = d.steps.find((s) => s.name === 'fault-in-private')!.number;
    expect(text).toContain(`  s${n} ==>|EFAULT| out`);
    expect(text).toContain(`  s${n} -.- s${n + 1}`);
    expect(text).toContain(
      `s${n}["${n}: fault-in-private (kvm_faultin_pfn_private)<br/>the slot has no guest_memfd"]:::error`,
    );
  });
});
