/** Which engine executes guests: interpretation alone, or with compilation of what is hot. */
export interface Engine {
  /** Transfers to an instruction before what begins with it is compiled; 0: never. */
  readonly compileAfter: number;
}
export const INTERPRETER: Engine = { compileAfter: 0 };
export const COMPILED: Engine = { compileAfter: 1000 };

let chosen: Engine = INTERPRETER;
/** The engine of processors that are made without one. */
export const defaultEngine = (): Engine => chosen;
export function setDefaultEngine(engine: Engine): void {
  chosen = engine;
}
