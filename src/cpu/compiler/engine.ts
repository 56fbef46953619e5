/** Which engine executes guests: interpretation alone, or with compilation of what is hot. */
export interface Engine {
  /** Transfers to an instruction before what begins with it is compiled; 0: never. */
  readonly compileAfter: number;
}
export const INTERPRETER: Engine = { compileAfter: 0 };
export const COMPILED: Engine = { compileAfter: 1000 };

/** Compiles whatever is executed: for comparing the engines. */
export const COMPILED_AT_ONCE: Engine = { compileAfter: 1 };

/** The engines by name. */
export const ENGINES = {
  interpreter: INTERPRETER,
  compiled: COMPILED,
  'compiled-at-once': COMPILED_AT_ONCE,
} as const;
export type EngineName = keyof typeof ENGINES;

let chosen: Engine = INTERPRETER;
/** The engine of processors that are made without one. */
export const defaultEngine = (): Engine => chosen;
export function setDefaultEngine(engine: Engine): void {
  chosen = engine;
}
