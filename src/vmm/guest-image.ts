/** The committed images of the guests that the tools run. */
import { readFileSync } from 'node:fs';

/** Bytes of `guests/name`; the caller's own copy. */
export function guestImage(name: string): Uint8Array {
  return readFileSync(new URL(`../../guests/${name}`, import.meta.url));
}
