/**
 * The shape of a region: dominators, loops, merges. WebAssembly has only structured control, and a region has one entry, so a reducible
 * graph becomes blocks and loops without any dispatch (Ramsey, "Beyond Relooper", 2022); an edge that would make it irreducible is cut,
 * and leaves the region instead.
 */
import type { Block, Region } from './region.ts';

export class FlowGraph {
  /** Position in reverse postorder, by block; -1 when it is not reached. */
  readonly order: number[];
  private readonly dominator: number[];
  private readonly sequence: Block[] = [];
  private readonly headers = new Set<number>();
  private readonly incoming: number[];
  private readonly longest: (number | undefined)[];

  constructor({ entry, blocks }: Region) {
    this.order = blocks.map(() => -1);
    this.dominator = blocks.map(() => -1);
    this.incoming = blocks.map(() => 0);
    this.longest = blocks.map(() => undefined);
    const seen = new Set<Block>();
    const visit = (block: Block): void => {
      seen.add(block);
      for (const to of successors(block)) if (!seen.has(to)) visit(to);
      this.sequence.unshift(block);
    };
    visit(entry);
    this.sequence.forEach((block, i) => {
      this.order[block.index] = i;
    });
    this.findDominators(entry);
    for (const block of this.sequence) {
      for (const to of successors(block)) {
        if (this.isCut(block, to)) continue;
        if (this.isBack(block, to)) this.headers.add(to.index);
        else this.incoming[to.index]!++;
      }
    }
  }

  private findDominators(entry: Block): void {
    const predecessors: Block[][] = this.order.map(() => []);
    for (const block of this.sequence) for (const to of successors(block)) predecessors[to.index]!.push(block);
    const { dominator, order } = this;
    dominator[entry.index] = entry.index;
    const meet = (a: number, b: number): number => {
      let [x, y] = [a, b];
      while (x !== y) {
        while (order[x]! > order[y]!) x = dominator[x]!;
        while (order[y]! > order[x]!) y = dominator[y]!;
      }
      return x;
    };
    for (let changed = true; changed; ) {
      changed = false;
      for (const block of this.sequence) {
        if (block === entry) continue;
        const known = predecessors[block.index]!.filter((p) => dominator[p.index] !== -1);
        const found = known.map((p) => p.index).reduce(meet);
        if (dominator[block.index] !== found) {
          dominator[block.index] = found;
          changed = true;
        }
      }
    }
  }

  private dominates(a: Block, b: Block): boolean {
    let at = b.index;
    while (at !== a.index && this.dominator[at] !== at) at = this.dominator[at]!;
    return at === a.index;
  }
  /** The edge goes back, to the start of a loop, or is cut. */
  isBack(from: Block, to: Block): boolean {
    return this.order[to.index]! <= this.order[from.index]!;
  }
  /** The edge cannot be structured. */
  isCut(from: Block, to: Block): boolean {
    return this.isBack(from, to) && !this.dominates(to, from);
  }
  isLoop(block: Block): boolean {
    return this.headers.has(block.index);
  }
  /** More than one edge leads forward to the block. */
  isMerge(block: Block): boolean {
    return this.incoming[block.index]! > 1;
  }
  /** The merges that `block` immediately dominates, first in order first. */
  mergesUnder(block: Block): Block[] {
    return this.sequence.filter(
      (b) => b !== block && this.dominator[b.index] === block.index && this.isMerge(b) && b !== this.sequence[0],
    );
  }
  /** Instructions on the longest way from the start of `block` to the start of a loop or out. */
  longestPath(block: Block): number {
    const known = this.longest[block.index];
    if (known !== undefined) return known;
    let most = 0;
    for (const to of successors(block)) {
      if (this.isBack(block, to) || this.isLoop(to)) continue;
      most = Math.max(most, this.longestPath(to));
    }
    const length = block.instructions.length + most;
    this.longest[block.index] = length;
    return length;
  }
}

const successors = (block: Block): Block[] =>
  [block.taken, block.next, ...block.returns].filter((b) => b !== undefined);
