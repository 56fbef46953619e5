/** The error of a failed ioctl. */
import { errnoName } from '../../host/errno.ts';

export class KvmError extends Error {
  /** Name of the errno: `EINVAL`. */
  readonly errno: string;
  /** Its number: 22. */
  readonly code: number;
  /** The operation, named after its ioctl, and what it was given. */
  readonly operation: string;
  /** The argument at fault, when the call knows it. */
  readonly argument: string | null;

  /** @param code the errno, positive or negative */
  constructor(code: number, operation: string, argument: string | null = null) {
    const name = errnoName(code);
    super(argument === null ? `${operation}: ${name}` : `${operation}: ${name} (${argument})`);
    this.name = 'KvmError';
    this.errno = name;
    this.code = Math.abs(code);
    this.operation = operation;
    this.argument = argument;
  }
}

/** `result`, unless it is a negative errno. @throws KvmError */
export function check(result: number, operation: string, argument: string | null = null): number {
  if (result < 0) throw new KvmError(result, operation, argument);
  return result;
}

/** A 64-bit argument as the kernel sees it: modulo 2^64. */
export function u64(value: number | bigint): bigint {
  return BigInt.asUintN(64, BigInt(value));
}

/** `0x` and hex digits. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}
