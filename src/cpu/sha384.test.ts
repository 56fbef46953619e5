import { createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import { Sha384 } from './sha384.ts';

it('is what the platform computes, for every length around the block, in pieces of any size', () => {
  const data = Uint8Array.from({ length: 1000 }, (_, i) => (i * 131 + (i >> 3)) & 255);
  for (const length of [0, 1, 55, 111, 112, 113, 127, 128, 129, 239, 240, 241, 256, 1000]) {
    const hash = new Sha384();
    for (let at = 0; at < length; at += 37) hash.update(data.subarray(at, Math.min(at + 37, length)));
    const wanted = createHash('sha384').update(data.subarray(0, length)).digest('hex');
    expect(Buffer.from(hash.digest()).toString('hex'), `${length} bytes`).toBe(wanted);
  }
});

it('a copy goes on by itself', () => {
  const hash = new Sha384();
  hash.update(Uint8Array.of(1, 2, 3));
  const copy = hash.clone();
  copy.update(Uint8Array.of(4));
  expect(Buffer.from(hash.digest()).toString('hex')).toBe(
    createHash('sha384')
      .update(Uint8Array.of(1, 2, 3))
      .digest('hex'),
  );
});
