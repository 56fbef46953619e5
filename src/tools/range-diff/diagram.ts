/**
 * A labelled mixed-radix space as a decision diagram: one level a dimension, equal slices shared. What a condition asks of millions of
 * inputs is answered on a few hundred nodes.
 */

/** One level: `size` children a node, each a node of the next level, or a label below the last level. */
interface Level {
  readonly size: number;
  /** How many values of the dimension each value here stands for. */
  readonly weights: Uint32Array;
  readonly children: Uint32Array;
}

export interface Diagram {
  readonly levels: readonly Level[];
  /** The single node of level 0. */
  readonly root: number;
}

/** For each dimension, which of its values (1) belong. */
export type Cube = readonly Uint8Array[];

/** Labels of a condition: inputs that it must exclude, that it must include, and what is no input or no longer matters. */
export const OUT = 0;
export const IN = 1;
export const FREE = 2;

/** Nodes by their children: equal ones get one number, in order of first appearance. */
class NodeTable {
  private readonly size: number;
  private slots: Int32Array = new Int32Array(64).fill(-1);
  private nodes: Uint32Array;
  private count = 0;

  constructor(size: number) {
    this.size = size;
    this.nodes = new Uint32Array(size * 32);
  }

  /** The number of the node whose children are at `at` of `from`. HOT */
  node(from: Uint32Array | Uint16Array, at: number): number {
    const { size, nodes, slots } = this;
    const mask = slots.length - 1;
    let i = this.hash(from, at) & mask;
    for (let found = slots[i]!; found >= 0; found = slots[i]!) {
      let k = 0;
      while (k < size && nodes[found * size + k] === from[at + k]) k++;
      if (k === size) return found;
      i = (i + 1) & mask;
    }
    slots[i] = this.count;
    if ((this.count + 1) * size > nodes.length) {
      this.nodes = new Uint32Array(nodes.length * 2);
      this.nodes.set(nodes);
    }
    for (let k = 0; k < size; k++) this.nodes[this.count * size + k] = from[at + k]!;
    this.count++;
    if (this.count * 2 > slots.length) this.rehash();
    return this.count - 1;
  }

  private hash(from: Uint32Array | Uint16Array, at: number): number {
    let h = 0x9747b28c;
    for (let k = 0; k < this.size; k++) h = Math.imul(h ^ from[at + k]!, 0x5bd1e995) ^ (h >>> 15);
    return h ^ (h >>> 13);
  }

  private rehash(): void {
    const slots = new Int32Array(this.slots.length * 2).fill(-1);
    for (let n = 0; n < this.count; n++) {
      let i = this.hash(this.nodes, n * this.size) & (slots.length - 1);
      while (slots[i]! >= 0) i = (i + 1) & (slots.length - 1);
      slots[i] = n;
    }
    this.slots = slots;
  }

  level(weights: Uint32Array): Level {
    return { size: this.size, weights, children: this.nodes.slice(0, this.count * this.size) };
  }
}

/** The diagram of `labels`, an array over the dimensions of the given sizes, the first one slowest. */
export function diagramOf(sizes: readonly number[], labels: Uint16Array): Diagram {
  const levels: Level[] = new Array(sizes.length);
  let below: Uint32Array | Uint16Array = labels;
  for (let d = sizes.length - 1; d >= 0; d--) {
    const size = sizes[d]!;
    const table = new NodeTable(size);
    const ids: Uint32Array = new Uint32Array(below.length / size);
    let last = 0;
    for (let i = 0; i < ids.length; i++) {
      // Neighbours are often alike.
      if (i > 0 && alike(below, (i - 1) * size, size)) {
        ids[i] = last;
        continue;
      }
      last = table.node(below, i * size);
      ids[i] = last;
    }
    levels[d] = table.level(new Uint32Array(size).fill(1));
    below = ids;
  }
  return { levels, root: below[0] ?? 0 };
}

/** Whether the `size` entries from `at` on are those that follow them. HOT */
function alike(entries: Uint32Array | Uint16Array, at: number, size: number): boolean {
  for (let k = at; k < at + size; k++) if (entries[k] !== entries[k + size]) return false;
  return true;
}

/** The same diagram with other labels; slices that are equal now become one. */
export function relabel(diagram: Diagram, label: (before: number) => number): Diagram {
  const { levels } = diagram;
  const out: Level[] = new Array(levels.length);
  let ids: Uint32Array | null = null;
  for (let d = levels.length - 1; d >= 0; d--) {
    const { size, weights, children } = levels[d]!;
    const mapped = new Uint32Array(children.length);
    for (let i = 0; i < children.length; i++) mapped[i] = ids === null ? label(children[i]!) : ids[children[i]!]!;
    const table = new NodeTable(size);
    const next = new Uint32Array(children.length / size);
    for (let n = 0; n < next.length; n++) next[n] = table.node(mapped, n * size);
    out[d] = table.level(weights);
    ids = next;
  }
  return { levels: out, root: ids === null ? diagram.root : ids[diagram.root]! };
}

/** How many positions inside `cube` carry `label`. */
export function countInside(diagram: Diagram, cube: Cube, label: number): number {
  let below: Float64Array | null = null;
  for (let d = diagram.levels.length - 1; d >= 0; d--) {
    const { size, weights, children } = diagram.levels[d]!;
    const values = cube[d]!;
    const counts: Float64Array = new Float64Array(children.length / size);
    for (let n = 0, i = 0; n < counts.length; n++) {
      let sum = 0;
      for (let v = 0; v < size; v++, i++) {
        if (values[v] === 0) continue;
        sum += weights[v]! * (below === null ? (children[i] === label ? 1 : 0) : below[children[i]!]!);
      }
      counts[n] = sum;
    }
    below = counts;
  }
  return below === null ? 0 : below[diagram.root]!;
}

/** Asks of one diagram again and again whether a cube lets OUT in. */
export class InsideTest {
  private readonly levels: readonly Level[];
  /** By level: nodes to look at, and the question that last reached each node. */
  private readonly reached: readonly Int32Array[];
  private readonly asked: readonly Int32Array[];
  private question = 0;

  constructor(diagram: Diagram) {
    this.levels = diagram.levels;
    const nodes = diagram.levels.map(({ size, children }) => children.length / size);
    this.reached = nodes.map((n) => new Int32Array(n));
    this.asked = nodes.map((n) => new Int32Array(n));
    if (this.reached.length > 0) this.reached[0]![0] = diagram.root;
  }

  /** Whether no position inside `cube` is labelled OUT. HOT */
  isInside(cube: Cube): boolean {
    const { levels, reached, asked } = this;
    const question = ++this.question;
    const last = levels.length - 1;
    let count = 1;
    for (let d = 0; d <= last; d++) {
      const { size, children } = levels[d]!;
      const values = cube[d]!;
      const nodes = reached[d]!;
      let next = 0;
      for (let n = 0; n < count; n++) {
        const at = nodes[n]! * size;
        for (let v = 0; v < size; v++) {
          if (values[v] === 0) continue;
          const child = children[at + v]!;
          if (d === last) {
            if (child === OUT) return false;
          } else if (asked[d + 1]![child] !== question) {
            asked[d + 1]![child] = question;
            reached[d + 1]![next++] = child;
          }
        }
      }
      count = next;
    }
    return true;
  }
}

/** The first position labelled `label`, as one value for each dimension, or null. */
export function firstInside(diagram: Diagram, label: number): number[] | null {
  const { levels } = diagram;
  const has: Uint8Array[] = new Array(levels.length);
  for (let d = levels.length - 1; d >= 0; d--) {
    const { size, children } = levels[d]!;
    const here = new Uint8Array(children.length / size);
    for (let i = 0; i < children.length; i++) {
      const child = children[i]!;
      if (d === levels.length - 1 ? child === label : has[d + 1]![child] === 1) here[Math.floor(i / size)] = 1;
    }
    has[d] = here;
  }
  if (levels.length === 0 || has[0]![diagram.root] === 0) return null;
  const found: number[] = [];
  let node = diagram.root;
  for (let d = 0; d < levels.length; d++) {
    const { size, children } = levels[d]!;
    let v = 0;
    while (
      d === levels.length - 1 ? children[node * size + v] !== label : has[d + 1]![children[node * size + v]!] !== 1
    )
      v++;
    found.push(v);
    node = children[node * size + v]!;
  }
  return found;
}

/** For each dimension, the values that occur at positions inside `cube` that carry `label`. */
export function valuesInside(diagram: Diagram, cube: Cube, label: number): Uint8Array[] {
  return diagram.levels.map(({ size }, d) => {
    const found = new Uint8Array(size);
    const probe = cube.map((values) => values);
    for (let v = 0; v < size; v++) {
      if (cube[d]![v] === 0) continue;
      const one = new Uint8Array(size);
      one[v] = 1;
      probe[d] = one;
      if (countInside(diagram, probe, label) > 0) found[v] = 1;
    }
    return found;
  });
}

/** The diagram in which IN has become FREE inside `cube`. */
export function withoutCube(diagram: Diagram, cube: Cube): Diagram {
  return relabelBy(diagram, cube, (label, inside) => (inside && label === IN ? FREE : label));
}

/** The diagram in which everything is FREE outside `cube`. */
export function onlyCube(diagram: Diagram, cube: Cube): Diagram {
  return relabelBy(diagram, cube, (label, inside) => (inside ? label : FREE));
}

function relabelBy(diagram: Diagram, cube: Cube, label: (before: number, inside: boolean) => number): Diagram {
  const { levels } = diagram;
  const tables = levels.map(({ size }) => new NodeTable(size));
  const inside = levels.map(() => new Map<number, number>());
  const outside = levels.map(() => new Map<number, number>());
  const copy = (d: number, node: number, within: boolean): number => {
    if (d === levels.length) return label(node, within);
    const known = (within ? inside : outside)[d]!;
    const before = known.get(node);
    if (before !== undefined) return before;
    const { size, children } = levels[d]!;
    const next = new Uint32Array(size);
    for (let v = 0; v < size; v++) next[v] = copy(d + 1, children[node * size + v]!, within && cube[d]![v] === 1);
    const made = tables[d]!.node(next, 0);
    known.set(node, made);
    return made;
  };
  const root = copy(0, diagram.root, true);
  return { levels: tables.map((t, d) => t.level(levels[d]!.weights)), root };
}

/** A diagram in which values that are alike everywhere are one, and for each dimension which one each value has become. */
export interface Merged {
  readonly diagram: Diagram;
  readonly became: readonly Uint16Array[];
}

export function mergeValues(diagram: Diagram): Merged {
  const became: Uint16Array[] = [];
  const levels = diagram.levels.map((level): Level => {
    const { size, weights, children } = level;
    const nodes = children.length / size;
    const kept: number[] = [];
    const alike = new Uint16Array(size);
    for (let v = 0; v < size; v++) {
      const same = kept.findIndex((k) => {
        for (let n = 0; n < nodes; n++) if (children[n * size + k] !== children[n * size + v]) return false;
        return true;
      });
      alike[v] = same >= 0 ? same : kept.push(v) - 1;
    }
    became.push(alike);
    const sums = new Uint32Array(kept.length);
    for (let v = 0; v < size; v++) sums[alike[v]!]! += weights[v]!;
    const next = new Uint32Array(nodes * kept.length);
    for (let n = 0; n < nodes; n++)
      for (let k = 0; k < kept.length; k++) next[n * kept.length + k] = children[n * size + kept[k]!]!;
    return { size: kept.length, weights: sums, children: next };
  });
  return { diagram: { levels, root: diagram.root }, became };
}

/** A cube over merged values, over the values themselves. */
export function unmerged(cube: Cube, became: readonly Uint16Array[]): Uint8Array[] {
  return became.map((alike, d) => Uint8Array.from(alike, (k) => cube[d]![k]!));
}
