/** Ends a `switch` over a closed set: the type check fails when a member has no case, and a value from outside throws. */
export function unreachable(value: never): never {
  throw new Error(`unexpected ${String(value)}`);
}
