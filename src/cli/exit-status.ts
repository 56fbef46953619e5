/** Exit statuses of every command (docs/exit-status.md). What a guest chooses itself is always odd: (value << 1) | 1. */
export const EXIT_OK = 0;
/** What was asked for does not hold: a scenario failed, a guest ended in an error. */
export const EXIT_FAILED = 1;
/** Bad usage or bad input. */
export const EXIT_USAGE = 2;
/** Ctrl-C ended it before it had an answer. */
export const EXIT_INTERRUPTED = 130;
/** Nobody reads the output any more. */
export const EXIT_PIPE = 141;
