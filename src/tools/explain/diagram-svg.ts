/** The way of one fault as a self-contained SVG: a rail through the stages, and a way out of the one that decided. */
import type { Diagram, DiagramStep, StepTone } from './diagram-steps.ts';
import { cutToWidth, monoWidth, sansWidth, wrapToWidth } from './text-width.ts';

const WIDTH = 940;
const MARGIN = 28;
/** The rail of the stages, and the way from the one that decided down to the outcome. */
const RAIL = 52;
const CARD = 82;
const CARD_RIGHT = WIDTH - 64;
const EXIT = WIDTH - 40;
const LABEL = 96;
const BODY = 13;
const LINE = 19;

/** Every colour twice: for light and for dark surroundings. */
const colours = {
  page: ['#ffffff', '#0d1117'],
  border: ['#d0d7de', '#30363d'],
  text: ['#1f2328', '#e6edf3'],
  dim: ['#59636e', '#9198a1'],
  faint: ['#818b98', '#656c76'],
  rail: ['#afb8c1', '#484f58'],
  card: ['#f6f8fa', '#161b22'],
} as const;
type Colour = keyof typeof colours;

const tones: { readonly [T in StepTone]: { ink: readonly [string, string]; fill: readonly [string, string] } } = {
  pass: { ink: ['#59636e', '#9198a1'], fill: ['#f6f8fa', '#161b22'] },
  skipped: { ink: ['#818b98', '#656c76'], fill: ['#ffffff', '#0d1117'] },
  mapped: { ink: ['#1a7f37', '#3fb950'], fill: ['#dafbe1', '#12261e'] },
  emulate: { ink: ['#0969da', '#58a6ff'], fill: ['#ddf4ff', '#121d2f'] },
  retry: { ink: ['#9a6700', '#d29922'], fill: ['#fff8c5', '#272115'] },
  error: { ink: ['#cf222e', '#f85149'], fill: ['#ffebe9', '#2d1a1c'] },
};

const SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif";
const MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace";

/** The diagram as one SVG document. */
export function svgOf(diagram: Diagram): string {
  return new SvgPage(diagram).document();
}

class SvgPage {
  private readonly diagram: Diagram;
  private readonly parts: string[] = [];
  private y = MARGIN;

  constructor(diagram: Diagram) {
    this.diagram = diagram;
  }

  document(): string {
    this.header();
    const railTop = this.y;
    const centres = this.diagram.steps.map((step) => this.step(step));
    this.outcome(railTop, centres);
    const height = Math.ceil(this.y + MARGIN);
    const { title, subtitle, outcome } = this.diagram;
    return `${[
      `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
      `<title>${escaped(title)}</title>`,
      `<desc>${escaped(`${subtitle}. ${outcome}`)}</desc>`,
      `<style>${styles()}</style>`,
      `<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="10" ${paint('page', 'border')}/>`,
      ...this.parts,
      '</svg>',
    ].join('\n')}\n`;
  }

  private header(): void {
    const { title, subtitle, bits, before } = this.diagram;
    const width = WIDTH - 2 * MARGIN;
    this.y += 18;
    this.text(
      MARGIN,
      cutToWidth(title, width, (t) => monoWidth(t, 18)),
      'text',
      18,
      'mono bold',
    );
    this.y += 10;
    for (const line of wrapToWidth(subtitle, width, (t) => sansWidth(t, 14))) {
      this.y += 20;
      this.text(MARGIN, line, 'dim', 14, 'sans');
    }
    this.y += 14;
    this.chips(bits, width);
    this.facts(before, MARGIN, width);
    this.y += 26;
  }

  private chips(names: readonly string[], width: number): void {
    let x = MARGIN;
    if (names.length === 0) return;
    for (const name of names) {
      const w = Math.ceil(monoWidth(name, 11)) + 16;
      if (x > MARGIN && x + w > MARGIN + width) {
        x = MARGIN;
        this.y += 26;
      }
      this.parts.push(`<rect x="${x}" y="${this.y}" width="${w}" height="20" rx="10" ${paint('card', 'border')}/>`);
      this.parts.push(
        `<text x="${x + w / 2}" y="${this.y + 14}" text-anchor="middle" ${font('text', 11, 'mono')}>${escaped(name)}</text>`,
      );
      x += w + 8;
    }
    this.y += 30;
  }

  /** Rows of a label and a text, the text wrapped. */
  private facts(rows: readonly (readonly [string, string])[], x: number, width: number): void {
    for (const [label, text] of rows) {
      const lines = wrapToWidth(text, width - LABEL, (t) => sansWidth(t, BODY));
      lines.forEach((line, i) => {
        this.y += LINE;
        if (i === 0) this.text(x, label, 'faint', BODY, 'sans');
        this.text(x + LABEL, line, 'text', BODY, 'sans');
      });
    }
  }

  /** Draws a stage; the answer is the height at which the rail meets it. */
  private step(step: DiagramStep): number {
    const top = this.y;
    if (step.tone === 'skipped') return this.skippedStep(step, top);
    const reason = wrapToWidth(step.reason, CARD_RIGHT - CARD - 28, (t) => sansWidth(t, BODY));
    const height = 34 + LINE * reason.length + (reason.length === 0 ? 0 : 2);
    const decided = step.tone !== 'pass';
    this.parts.push(
      `<rect x="${CARD}" y="${top}" width="${CARD_RIGHT - CARD}" height="${height}" rx="8" ${tonePaint(step.tone, decided)}/>`,
    );
    const centre = top + 20;
    const pill = Math.ceil(monoWidth(step.verdict, 11)) + 18;
    const pillX = CARD_RIGHT - 12 - pill;
    const body = decided ? `class="pill-${step.tone}" fill="${tones[step.tone].ink[0]}"` : paint('page', 'border');
    this.parts.push(
      `<rect x="${pillX}" y="${top + 9}" width="${pill}" height="20" rx="10" ${body}/>`,
      `<text x="${pillX + pill / 2}" y="${top + 23}" text-anchor="middle" ${font(decided ? 'page' : 'dim', 11, 'mono')}>${escaped(step.verdict)}</text>`,
    );
    const room = pillX - CARD - 30;
    const name = cutToWidth(step.name, room, (t) => monoWidth(t, 14));
    this.y = top + 24;
    this.text(CARD + 14, name, 'text', 14, 'mono bold');
    const left = room - monoWidth(name, 14) - 14;
    if (step.kvmFunction !== '' && left > 60)
      this.text(
        CARD + 28 + monoWidth(name, 14),
        cutToWidth(step.kvmFunction, left, (t) => monoWidth(t, 12)),
        'faint',
        12,
        'mono',
      );
    for (const line of reason) {
      this.y += LINE;
      this.text(CARD + 14, line, 'dim', BODY, 'sans');
    }
    this.y = top + height + 10;
    return centre;
  }

  private skippedStep(step: DiagramStep, top: number): number {
    this.y = top + 17;
    this.text(
      CARD + 14,
      cutToWidth(step.name, CARD_RIGHT - CARD - 120, (t) => monoWidth(t, 13)),
      'faint',
      13,
      'mono',
    );
    this.y = top + 28;
    return top + 12;
  }

  /** The rail with its stations, the way out, and what came of the fault. */
  private outcome(railTop: number, centres: readonly number[]): void {
    const { steps, tone } = this.diagram;
    const asked = steps.filter((s) => s.tone !== 'skipped').length;
    const decidedAt = asked === 0 ? railTop : centres[asked - 1]!;
    const lastAt = centres.at(-1) ?? railTop;
    const rail: string[] = [`<path d="M${RAIL} ${railTop - 12}V${decidedAt}" class="rail" ${stroke('rail', 2)}/>`];
    if (lastAt > decidedAt)
      rail.push(
        `<path d="M${RAIL} ${decidedAt}V${lastAt}" class="rail" stroke-dasharray="3 5" ${stroke('rail', 1.5)}/>`,
      );
    this.y += 8;
    const top = this.y;
    if (asked > 0) {
      const end = top + 24;
      rail.push(
        `<path d="M${CARD_RIGHT} ${decidedAt}H${EXIT - 10}q10 0 10 10V${end - 10}q0 10 -10 10H${CARD_RIGHT + 8}" class="line-${tone}" fill="none" stroke="${tones[tone].ink[0]}" stroke-width="2"/>`,
        `<path d="M${CARD_RIGHT + 1} ${end}l9 -5v10z" class="pill-${tone}" fill="${tones[tone].ink[0]}"/>`,
      );
    }
    this.parts.unshift(...rail);
    this.diagram.steps.forEach((step, i) => {
      this.station(step, centres[i]!);
    });
    this.outcomeCard(top, asked === 0);
  }

  private outcomeCard(top: number, alone: boolean): void {
    const { tone, outcome, after } = this.diagram;
    const at = this.parts.length;
    const width = CARD_RIGHT - MARGIN - 32;
    this.y = top + 9;
    for (const line of wrapToWidth(outcome, width, (t) => sansWidth(t, 15) * 1.06)) {
      this.y += 21;
      this.text(MARGIN + 16, line, 'text', 15, 'sans bold');
    }
    this.y += 6;
    this.facts(after, MARGIN + 16, width);
    this.y += 16;
    const card = `<rect x="${MARGIN}" y="${top}" width="${CARD_RIGHT - MARGIN}" height="${this.y - top}" rx="8" ${tonePaint(alone ? 'pass' : tone, true)}/>`;
    this.parts.splice(at, 0, card);
  }

  private station(step: DiagramStep, y: number): void {
    const skipped = step.tone === 'skipped';
    const radius = skipped ? 9 : 12;
    const decided = !skipped && step.tone !== 'pass';
    const body = decided
      ? `class="pill-${step.tone}" fill="${tones[step.tone].ink[0]}"`
      : `${paint('page', skipped ? 'border' : 'rail')} stroke-width="1.5"`;
    this.parts.push(`<circle cx="${RAIL}" cy="${y}" r="${radius}" ${body}/>`);
    this.parts.push(
      `<text x="${RAIL}" y="${y + 4}" text-anchor="middle" ${font(decided ? 'page' : skipped ? 'faint' : 'dim', skipped ? 10 : 11, 'mono')}>${step.number}</text>`,
    );
  }

  private text(x: number, text: string, colour: Colour, size: number, face: string): void {
    this.parts.push(
      `<text x="${Math.round(x)}" y="${this.y}" ${font(colour, size, face)} xml:space="preserve">${escaped(text)}</text>`,
    );
  }
}

function paint(fill: Colour, line: Colour): string {
  return `class="fill-${fill} line-${line}" fill="${colours[fill][0]}" stroke="${colours[line][0]}"`;
}

function tonePaint(tone: StepTone, decided: boolean): string {
  const line = decided ? `line-${tone}` : 'line-border';
  return `class="tone-${tone} ${line}" fill="${tones[tone].fill[0]}" stroke="${decided ? tones[tone].ink[0] : colours.border[0]}" stroke-width="${decided ? 1.5 : 1}"`;
}

function stroke(colour: Colour, width: number): string {
  return `fill="none" stroke="${colours[colour][0]}" stroke-width="${width}"`;
}

function font(colour: Colour, size: number, face: string): string {
  const family = face.startsWith('mono') ? MONO : SANS;
  const weight = face.endsWith('bold') ? ' font-weight="600"' : '';
  return `class="fill-${colour}" fill="${colours[colour][0]}" font-family="${family}" font-size="${size}"${weight}`;
}

/** Dark colours where the surroundings are dark; the attributes of the elements have the light ones. */
function styles(): string {
  const rules: string[] = [];
  for (const [name, [, dark]] of Object.entries(colours))
    rules.push(`.fill-${name}{fill:${dark}}`, `.line-${name}{stroke:${dark}}`);
  for (const [name, tone] of Object.entries(tones))
    rules.push(
      `.tone-${name}{fill:${tone.fill[1]}}`,
      `.line-${name}{stroke:${tone.ink[1]}}`,
      `.pill-${name}{fill:${tone.ink[1]}}`,
    );
  return `@media (prefers-color-scheme: dark){${rules.join('')}.rail{stroke:${colours.rail[1]}}}`;
}

function escaped(text: string): string {
  const entities: { readonly [c: string]: string } = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  return text.replace(/[&<>"]/g, (c) => entities[c]!);
}
