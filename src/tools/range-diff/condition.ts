/** The condition of a set of inputs: few cubes, each as large as it can be, that hold exactly these inputs. */
import {
  type Cube,
  countInside,
  type Diagram,
  diagramOf,
  FREE,
  firstInside,
  IN,
  InsideTest,
  mergeValues,
  OUT,
  onlyCube,
  relabel,
  unmerged,
  valuesInside,
  withoutCube,
} from './diagram.ts';
import { INVALID_INPUT, type SpaceResult } from './space-result.ts';

/** One part of a condition: every input whose value is among those of each dimension. */
export interface Part {
  /** The largest sets: nothing can be added without letting in an input that does not belong. */
  readonly most: Cube;
  /** The values that occur. Any set between these and `most` says the same. */
  readonly least: Cube;
  /** Inputs in the part. Parts may overlap. */
  readonly inputs: number;
}

/** The inputs that have one of some values in one dimension. */
export interface Within {
  readonly dim: number;
  /** 1 for the values. */
  readonly values: Uint8Array<ArrayBuffer>;
}

/** How long a part is, in words: where two will do, the shorter is taken. */
export type Length = (part: Part) => number;

/** Conditions over one space. */
export class Conditions {
  private readonly diagram: Diagram;
  private readonly sizes: readonly number[];
  private readonly length: Length | undefined;

  constructor(space: Pick<SpaceResult, 'dims' | 'classOf'>, length?: Length) {
    this.length = length;
    this.sizes = space.dims.map((d) => d.values.length);
    this.diagram = diagramOf(this.sizes, space.classOf);
  }

  /** How many inputs are in these classes, and `within`. */
  inputsOf(classes: ReadonlySet<number>, ...within: readonly Within[]): number {
    return countInside(
      this.labelled((c) => classes.has(c)),
      this.cube(...within),
      IN,
    );
  }

  /**
   * The parts whose union is the inputs of these classes, and no other input; most inputs first. With `others`, only the inputs of those
   * classes must stay outside.
   */
  of(classes: ReadonlySet<number>, others?: ReadonlySet<number>): Part[] {
    return partsOf(
      this.labelled((c) => classes.has(c), others),
      this.length,
    );
  }

  /**
   * As `of`, in one (`both`) where the dimension does not matter, else (`both` is null) apart for inputs with the first of its values and
   * with the others. Those are null unless `wanted`, or where the first value has none.
   */
  split(
    classes: ReadonlySet<number>,
    outside: ReadonlySet<number> | undefined,
    dim: number,
    wanted: boolean,
  ): { both: Part[] | null; first: Part[]; others: Part[] | null } {
    const all = this.labelled((c) => classes.has(c), outside);
    const values = Uint8Array.from({ length: this.sizes[dim]! }, (_, v) => (v === 0 ? 1 : 0));
    const first = partsOf(onlyCube(all, this.cube({ dim, values })), this.length);
    const test = new InsideTest(all);
    const wide = first.map((p) => p.most.with(dim, new Uint8Array(values.length).fill(1)));
    if (wide.every((cube) => test.isInside(cube)) && countInside(wide.reduce(withoutCube, all), this.cube(), IN) === 0)
      return { both: wide.map((cube) => partOf(all, cube)), first: [], others: [] };
    if (!wanted && first.length > 0) return { both: null, first, others: null };
    const others = partsOf(onlyCube(all, this.cube({ dim, values: values.map((v) => 1 - v) })), this.length);
    return { both: null, first, others };
  }

  private labelled(belongs: (classNumber: number) => boolean, others?: ReadonlySet<number>): Diagram {
    return relabel(this.diagram, (c) => {
      if (c === INVALID_INPUT) return FREE;
      if (belongs(c)) return IN;
      return others === undefined || others.has(c) ? OUT : FREE;
    });
  }

  private cube(...within: readonly Within[]): Cube {
    const cube = this.sizes.map((size) => new Uint8Array(size).fill(1));
    for (const { dim, values } of within) cube[dim] = values;
    return cube;
  }
}

function partsOf(group: Diagram, length?: Length): Part[] {
  const { diagram, became } = mergeValues(group);
  const test = new InsideTest(diagram);
  return irredundant(diagram, cover(diagram))
    .map((cube) => {
      const part = partOf(group, unmerged(cube, became));
      if (length === undefined) return part;
      const other = partOf(group, unmerged(regrown(diagram, test, cube), became));
      return length(other) < length(part) ? other : part;
    })
    .sort((a, b) => b.inputs - a.inputs);
}

function partOf(group: Diagram, most: Cube): Part {
  return { most, least: valuesInside(group, most, IN), inputs: countInside(group, most, IN) };
}

/**
 * Another cube that holds what `cube` holds and cannot grow either: grown from what occurs in it, the dimensions with most values first,
 * because they are the longest to say.
 */
function regrown(diagram: Diagram, test: InsideTest, cube: Cube): Cube {
  const least = valuesInside(diagram, cube, IN);
  const all = least.map((values) => new Uint8Array(values.length).fill(1));
  const size = (d: number): number => diagram.levels[d]!.weights.reduce((a, b) => a + b, 0);
  const order = [...least.keys()].sort((a, b) => size(b) - size(a));
  return grown(test, all, least, order);
}

/** Prime cubes, chosen greedily: of those around the first uncovered input, the one that covers most. */
function cover(group: Diagram): Cube[] {
  const cubes: Cube[] = [];
  const test = new InsideTest(group);
  let rest = group;
  for (let seed = firstInside(rest, IN); seed !== null; seed = firstInside(rest, IN)) {
    const best = bestCube(test, rest, seed);
    cubes.push(best);
    rest = withoutCube(rest, best);
  }
  return cubes;
}

function bestCube(test: InsideTest, rest: Diagram, seed: readonly number[]): Cube {
  const around = neighbours(test, rest, seed);
  const seen = new Set<string>();
  let best: Cube | null = null;
  let bestCovered = 0;
  let bestWidth = 0;
  // Where every dimension goes as far as it can at once, there is but one cube.
  if (test.isInside(around)) return around;
  for (const order of orders(around)) {
    const cube = grow(test, around, seed, order);
    const key = cube.join(';');
    if (seen.has(key)) continue;
    seen.add(key);
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

/** For each dimension, the values that can be added to the seed alone. No cube around the seed has any other. */
function neighbours(test: InsideTest, rest: Diagram, seed: readonly number[]): Uint8Array[] {
  const cube = point(rest, seed);
  return rest.levels.map(({ size }, d) => {
    const own = cube[d]!;
    const found = Uint8Array.from({ length: size }, (_, v) => {
      cube[d] = new Uint8Array(size);
      cube[d]![v] = 1;
      return v === seed[d] || test.isInside(cube) ? 1 : 0;
    });
    cube[d] = own;
    return found;
  });
}

function point(diagram: Diagram, seed: readonly number[]): Uint8Array[] {
  return diagram.levels.map(({ size }, d) => {
    const values = new Uint8Array(size);
    values[seed[d]!] = 1;
    return values;
  });
}

/** Orders in which a cube may grow, of the dimensions in which it can: forwards and backwards, from each of them on. */
function orders(around: readonly Uint8Array[]): number[][] {
  const open = around.flatMap((values, d) => (values.reduce((a, b) => a + b, 0) > 1 ? [d] : []));
  const found: number[][] = open.length === 0 ? [[]] : [];
  for (let first = 0; first < open.length; first++) {
    const turned = [...open.slice(first), ...open.slice(0, first)];
    found.push(turned, [...turned].reverse());
  }
  return found;
}

/** The seed, grown in this order. */
function grow(
  test: InsideTest,
  around: readonly Uint8Array[],
  seed: readonly number[],
  order: readonly number[],
): Cube {
  const start = around.map((values, d) => {
    const own = new Uint8Array(values.length);
    own[seed[d]!] = 1;
    return own;
  });
  return grown(test, around, start, order);
}

/**
 * A cube around `start` that cannot grow further in any dimension of `order`: first dimensions as far as they go at once, in this order, then
 * by single values. `around`: the values that may be added.
 */
function grown(test: InsideTest, around: Cube, start: Cube, order: readonly number[]): Cube {
  const cube = start.map((values) => values.slice());
  const partial: number[] = [];
  for (const d of order) {
    const before = cube[d]!;
    cube[d] = around[d]!.slice();
    if (test.isInside(cube)) continue;
    cube[d] = before;
    partial.push(d);
  }
  for (const d of partial) {
    const values = cube[d]!;
    for (let v = 0; v < values.length; v++) {
      if (values[v] === 1 || around[d]![v] === 0) continue;
      values[v] = 1;
      if (!test.isInside(cube)) values[v] = 0;
    }
  }
  return cube;
}

/** Without the cubes that the others make unnecessary; the smallest go first. */
function irredundant(group: Diagram, cubes: readonly Cube[]): Cube[] {
  const bySize = cubes.map((cube) => ({ cube, n: countInside(group, cube, IN) })).sort((a, b) => a.n - b.n);
  return needed(
    group,
    bySize.map((c) => c.cube),
  );
}

/** Of `cubes`, in order, those that hold something that neither a kept one before nor any one after holds. */
function needed(rest: Diagram, cubes: readonly Cube[]): Cube[] {
  if (cubes.length <= 1) return cubes.filter((cube) => countInside(rest, cube, IN) > 0);
  const half = cubes.length >> 1;
  const [first, second] = [cubes.slice(0, half), cubes.slice(half)];
  const kept = needed(second.reduce(withoutCube, rest), first);
  return [...kept, ...needed(kept.reduce(withoutCube, rest), second)];
}
