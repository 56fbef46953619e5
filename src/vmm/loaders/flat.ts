/** A flat binary: loaded at 1000:0000 and started there in real mode, as kvmtool does. */
import { ImageError } from '../image-error.ts';
import type { BootImage, LoadOptions } from './boot-image.ts';

const SEGMENT = 0x1000;
const STACK = 0x8000;
const ROOM = 0x9_0000;

export function loadFlat(bytes: Uint8Array, options: LoadOptions): BootImage {
  if (bytes.length === 0) throw new ImageError(options.file, 'empty file');
  if (bytes.length > ROOM) {
    throw new ImageError(
      options.file,
      `flat binary of ${bytes.length} bytes, expected at most ${ROOM}; or a format that is not known`,
    );
  }
  return {
    format: 'flat',
    segments: [{ gpa: SEGMENT * 16, bytes, size: bytes.length }],
    entry: { mode: 'real', segment: SEGMENT, ip: 0, sp: STACK },
  };
}
