/**
 * What the explorer explores: a few actors that take atomic steps on one state. The explorer knows nothing else; in particular it
 * knows nothing of KVM, whose model is one of several.
 */

/** Resources that a step may read and write: bit i is the model's resource i (a lock, a counter, a page-table entry, ...). */
export interface Footprint {
  reads: number;
  writes: number;
}

export interface Actor {
  readonly name: string;
  /** Column of the schedule table in which its steps stand. */
  readonly cpu: string;
}

/** At most 31 actors. Everything is a function of the captured words: what they do not contain, the model must not remember. */
export interface Model {
  readonly actors: readonly Actor[];
  /** Words of a captured state; fixed for the model. */
  readonly stateWords: number;
  /** Writes the state: equal states give equal words. HOT */
  capture(into: Int32Array, at: number): void;
  /** HOT */
  restore(from: Int32Array, at: number): void;
  /**
   * Where the state differs from that of the last `restore` or `rewind`, after one step: the numbers of the words, ascending, into `list`,
   * the words into `values`; how many. Absent: everything is captured and compared. HOT
   */
  changes?(list: Int32Array, values: Int32Array): number;
  /** Goes back to the state of the last `restore`, after one step and `changes`. HOT */
  rewind?(): void;
  /** Bit i: actor i has a next step and may take it now. HOT */
  enabled(): number;
  /** Bit i: actor i has not finished. An actor that has finished stays so. HOT */
  unfinished(): number;
  /** How many ways the next step of an enabled actor can go (usually 1). HOT */
  choices(actor: number): number;
  /** Takes the actor's next step. HOT */
  step(actor: number, choice: number): void;
  /** 0, or the number of the violated invariant, from 1. HOT */
  violation(): number;
  /**
   * What the actor's next step, whichever way it goes, may read and write, with what decides whether it is enabled and how many choices it has.
   * The actor's own program counter and local variables are no resource unless others, or an invariant, look at them. HOT
   */
  footprint(actor: number, out: Footprint): void;
  /**
   * The same for everything that the actor may still do from now until it finishes, the next step included. Without it a step can only be put
   * ahead of the others when it touches no resource at all. HOT
   */
  restFootprint?(actor: number, out: Footprint): void;
  /** Resources that the invariants look at: a step that writes one of them is never put ahead of the others. All, when absent. */
  readonly observed?: number;
  /** What the actor's next step is called. */
  stageName(actor: number): string;
  violationText(n: number): string;
  /** The state in words, one fact a line; lines keep their place from one state to the next where they can. */
  describe(): readonly string[];
  /** Invariant n + 1 in words. Never empty. */
  readonly invariants: readonly string[];
  /** Steps are followed closely from now on, so that `explain` can tell about them. */
  follow?(): void;
  /** Words for the fault that the actor was in last (for --explain), stage by stage; none: it had no fault. */
  explain?(actor: number): readonly string[];
}

/** A model in another thread, process or machine: what it takes to make it again. Plain JSON. */
export interface ModelSpec {
  /** Name of a scene that comes with the project, or the path of a scene file. */
  readonly scene: string;
  /** Revision of the fault path; absent: the scene's own. */
  readonly revision?: string;
  /** Module parameters, as `kvm.mmio_caching: '0'`. */
  readonly params?: Readonly<Record<string, string>>;
}

/** A module that makes models, for another thread: it exports `makeModel`. */
export interface ModelMaker {
  makeModel(spec: ModelSpec): Model | Promise<Model>;
}
