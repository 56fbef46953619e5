/** Translates a region: structured control from its flow graph, each instruction through its emitter. */
import { RECORD_MODE, RECORD_OPSIZE } from '../decode/record.ts';
import { LEFT_BEFORE, LEFT_BEFORE_PLAIN, LEFT_NEXT, LEFT_TAKEN, STATUS_LEFT } from '../semantics/handler-status.ts';
import { tlbEntry } from '../semantics/tlb-lookup.ts';
import { TLB_BASE, TLB_CODE_TAG, TLB_PAGE } from '../state.ts';
import { type I64, i32, i64, zeroExtend } from '../wasm/code.ts';
import type { FunctionBuilder, Label } from '../wasm/function.ts';
import { type BlockEnd, CompileContext } from './compile-context.ts';
import { FlowGraph } from './flow-graph.ts';
import { type Block, flowOf, type Instruction, type Region } from './region.ts';
import type { Surroundings } from './surroundings.ts';
import { Translation } from './translation.ts';

class RegionTranslator {
  private readonly graph: FlowGraph;
  private readonly t: Translation;
  private readonly around: Surroundings;
  private readonly page: number;
  /** Not 64-bit code. */
  private readonly legacy: boolean;
  /** Starts of loops, and ends of the blocks before which merges lie. */
  private readonly loops = new Map<Block, Label>();
  private readonly merges = new Map<Block, Label>();

  constructor(region: Region, page: number, around: Surroundings) {
    this.graph = new FlowGraph(region);
    this.around = around;
    this.page = page;
    this.t = new Translation(around, region.entry.instructions[0]!);
    this.legacy = around.u8[region.entry.instructions[0]!.record + RECORD_MODE] !== 2;
  }

  function(entry: Block): FunctionBuilder {
    const first = entry.instructions[0]!;
    const bound = this.graph.longestPath(entry);
    return this.t.body(first, bound, first.record | LEFT_BEFORE_PLAIN, () => this.tree(entry));
  }

  /** `block` and everything it dominates. */
  private tree(block: Block): void {
    const { t, graph } = this;
    if (graph.isLoop(block) || graph.isMerge(block)) t.known = undefined;
    const merges = graph.mergesUnder(block).reverse();
    if (!graph.isLoop(block)) {
      this.within(block, merges);
      return;
    }
    t.f.loop((start) => {
      this.loops.set(block, start);
      const first = block.instructions[0]!;
      t.f.if(t.isShort(graph.longestPath(block)), () => t.leave(first.record | LEFT_BEFORE, t.at(first.offset)));
      this.within(block, merges);
    });
  }
  /** `block` with the merges that follow it, the last in order first. */
  private within(block: Block, merges: readonly Block[]): void {
    const [last, ...rest] = merges;
    if (last === undefined) {
      this.block(block);
      return;
    }
    this.t.f.block((end) => {
      this.merges.set(last, end);
      this.within(block, rest);
    });
    this.tree(last);
  }

  private block(block: Block): void {
    const { t } = this;
    const last = block.instructions.at(-1)!;
    const end: BlockEnd = {
      taken: () => this.aside(() => this.finish(block, block.taken, last, LEFT_TAKEN, last.relative)),
      indirect: (target) => this.indirect(block, target),
    };
    block.instructions.forEach((instruction, i) => {
      t.retired = i;
      t.f.recycle();
      const c = new CompileContext(t, instruction, this.around, end);
      const { meaning } = instruction.row;
      if (meaning.kind !== 'emit') throw new Error(`${instruction.row.text} has no emitter`);
      meaning.emit(c);
    });
    const flow = flowOf(last.row);
    if (flow === 'straight' || flow === 'conditional') {
      this.finish(block, block.next, last, LEFT_NEXT, last.length);
    }
  }
  /** Translates a way that does not come back to the code that follows. */
  private aside(inside: () => void): void {
    const { known } = this.t;
    inside();
    this.t.known = known;
  }

  /** Goes to `to`, or leaves along the link of `last`, `distance` bytes from its start. */
  private finish(from: Block, to: Block | undefined, last: Instruction, how: number, distance: number): void {
    const { t, graph } = this;
    t.count(from.instructions.length);
    if (to !== undefined && !graph.isCut(from, to)) {
      this.go(from, to);
      return;
    }
    const rip = t.at(last.offset + distance);
    // A branch ends where its size has room for; what follows an instruction is not truncated.
    const size = this.legacy && how === LEFT_TAKEN ? this.around.u8[last.record + RECORD_OPSIZE]! : 8;
    t.leave(last.record | how, zeroExtend(size, rip));
  }
  private go(from: Block, to: Block): void {
    const { t, graph } = this;
    if (graph.isBack(from, to)) t.f.br(this.loops.get(to)!);
    else if (graph.isMerge(to)) t.f.br(this.merges.get(to)!);
    else this.tree(to);
  }

  /** A return to one of the known places stays inside when a lookup would find this page there. */
  private indirect(from: Block, target: I64): void {
    const { t, graph } = this;
    const { f } = t;
    t.count(from.instructions.length);
    const to = f.i64(target);
    const places = from.returns.filter((b) => !graph.isCut(from, b));
    if (places.length !== 0 && (!this.legacy || t.segments.isCodeLinear())) {
      const page = f.i64(i64.and(to.get, i64.const(-4096)));
      const entry = f.i32(tlbEntry(to.get, t.tlbContext));
      const mapped = i32.and(
        i64.eq(i64.load(entry.get, TLB_BASE + TLB_CODE_TAG), page.get),
        i32.eq(i32.load(entry.get, TLB_BASE + TLB_PAGE), i32.const(this.page)),
      );
      f.if(i32.and(i64.eq(page.get, t.base.get), mapped), () => {
        for (const place of places) {
          const here = i64.eq(to.get, t.at(place.instructions[0]!.offset));
          f.if(here, () => this.aside(() => this.go(from, place)));
        }
      });
    }
    t.leave(STATUS_LEFT, to.get);
  }
}

/**
 * The function of a region, as a handler is: (record) -> status.
 * @param page host physical address of the region's page
 */
export function translateRegion(region: Region, page: number, around: Surroundings): FunctionBuilder {
  return new RegionTranslator(region, page, around).function(region.entry);
}
