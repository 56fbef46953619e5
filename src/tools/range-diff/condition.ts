/** The condition of a set of inputs: few cubes, each as large as it can be, that hold exactly these inputs. */
import {
  type Cube,
  countInside,
  type Diagram,
  diagramOf,
  FREE,
  firstInside,
  IN,
  isInside,
  OUT,
  relabel,
  valuesInside,
  withoutCube,
} from './diagram.ts';
import { EQUAL, INVALID_INPUT, type SpaceResult } from './space-result.ts';

/** One part of a condition: every input whose value is among those of each dimension. */
export interface Part {
  /** The largest sets: nothing can be added without letting in an input that does not belong. */
  readonly most: Cube;
  /** The values that occur. Any set between these and `most` says the same. */
  readonly least: Cube;
  /** Inputs in the part. Parts may overlap. */
  readonly inputs: number;
}

/** Conditions over one space. */
export class Conditions {
  private readonly diagram: Diagram;
  private readonly sizes: readonly number[];

  constructor(space: Pick<SpaceResult, 'dims' | 'classOf'>) {
    this.sizes = space.dims.map((d) => d.values.length);
    this.diagram = diagramOf(this.sizes, space.classOf);
  }

  /** How many positions are inputs. */
  inputs(): number {
    return countInside(
      this.labelled(() => true),
      this.everything(),
      IN,
    );
  }

  /** How many inputs are in these classes. */
  inputsOf(classes: ReadonlySet<number>): number {
    return countInside(
      this.labelled((c) => classes.has(c)),
      this.everything(),
      IN,
    );
  }

  /** The parts whose union is the inputs of these classes, and no other input; most inputs first. */
  of(classes: ReadonlySet<number>): Part[] {
    const group = this.labelled((c) => classes.has(c));
    return irredundant(group, cover(group))
      .map((most) => ({ most, least: valuesInside(group, most, IN), inputs: countInside(group, most, IN) }))
      .sort((a, b) => b.inputs - a.inputs);
  }

  private labelled(belongs: (classNumber: number) => boolean): Diagram {
    return relabel(this.diagram, (c) => (c === INVALID_INPUT ? FREE : belongs(c) ? IN : OUT));
  }

  private everything(): Cube {
    return this.sizes.map((size) => new Uint8Array(size).fill(1));
  }
}

/** Classes that differ, of a space. */
export function isDifferent(classNumber: number): boolean {
  return classNumber !== EQUAL && classNumber !== INVALID_INPUT;
}

/** Prime cubes, chosen greedily: of those around the first uncovered input, the one that covers most. */
function cover(group: Diagram): Cube[] {
  const cubes: Cube[] = [];
  let rest = group;
  for (let seed = firstInside(rest, IN); seed !== null; seed = firstInside(rest, IN)) {
    const best = bestCube(group, rest, seed);
    cubes.push(best);
    rest = withoutCube(rest, best);
  }
  return cubes;
}

function bestCube(group: Diagram, rest: Diagram, seed: readonly number[]): Cube {
  let best: Cube | null = null;
  let bestCovered = 0;
  let bestWidth = 0;
  for (const order of orders(seed.length)) {
    const cube = grow(group, seed, order);
    const covered = countInside(rest, cube, IN);
    const width = cube.filter((values) => values.every((v) => v === 1)).length;
    if (best === null || covered > bestCovered || (covered === bestCovered && width > bestWidth)) {
      best = cube;
      bestCovered = covered;
      bestWidth = width;
    }
  }
  return best!;
}

/** Orders in which a cube may grow: forwards and backwards, from each dimension on. */
function orders(n: number): number[][] {
  const forwards = Array.from({ length: n }, (_, i) => i);
  const found: number[][] = [];
  for (let first = 0; first < n; first++) {
    const turned = [...forwards.slice(first), ...forwards.slice(0, first)];
    found.push(turned, [...turned].reverse());
  }
  return found;
}

/** The seed, grown: first whole dimensions in this order, then single values. The result cannot grow further. */
function grow(group: Diagram, seed: readonly number[], order: readonly number[]): Cube {
  const cube = group.levels.map(({ size }, d) => {
    const values = new Uint8Array(size);
    values[seed[d]!] = 1;
    return values;
  });
  const partial: number[] = [];
  for (const d of order) {
    const before = cube[d]!;
    cube[d] = new Uint8Array(before.length).fill(1);
    if (isInside(group, cube)) continue;
    cube[d] = before;
    partial.push(d);
  }
  for (const d of partial) {
    const values = cube[d]!;
    for (let v = 0; v < values.length; v++) {
      if (values[v] === 1) continue;
      values[v] = 1;
      if (!isInside(group, cube)) values[v] = 0;
    }
  }
  return cube;
}

/** Without the cubes that the others make unnecessary; the smallest go first. */
function irredundant(group: Diagram, cubes: readonly Cube[]): Cube[] {
  let kept = [...cubes];
  const bySize = kept.map((cube) => ({ cube, n: countInside(group, cube, IN) })).sort((a, b) => a.n - b.n);
  for (const { cube } of bySize) {
    const others = kept.filter((k) => k !== cube);
    let rest = group;
    for (const other of others) rest = withoutCube(rest, other);
    if (countInside(rest, cube, IN) === 0) kept = others;
  }
  return kept;
}
