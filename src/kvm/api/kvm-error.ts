/** The error of a failed ioctl. */
import { errnoName } from '../../host/errno.ts';

/** A failed ioctl: the name of the errno, its number, and the argument at fault where one is known. */
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
