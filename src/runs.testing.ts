/**
 * How much of what tests try by chance is tried. `.ci/run` sets SOFTKVM_THOROUGH=1 and has all of it; `npm test` has a part, so that it stays
 * short. For tests.
 */
export const thorough = process.env['SOFTKVM_THOROUGH'] === '1';

/** `all` runs, or a third of them. */
export function runs(all: number): number {
  return thorough ? all : Math.ceil(all / 3);
}
