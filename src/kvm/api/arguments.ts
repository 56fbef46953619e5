/** 64-bit arguments of ioctls, which callers may give as numbers. */

/** A 64-bit argument as the kernel sees it: modulo 2^64. */
export function u64(value: number | bigint): bigint {
  return BigInt.asUintN(64, BigInt(value));
}
