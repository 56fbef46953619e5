import { createCipheriv, createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { sha384 } from '../sha384.ts';
import { Aes128 } from './aes.ts';

const words = (bytes: Uint8Array): Int32Array => new Int32Array(Uint8Array.from(bytes).buffer);
const bytesOf = (w: Int32Array): Uint8Array => new Uint8Array(w.slice().buffer);

describe('ciphers and digests are the standards', () => {
  it('AES-128 both ways', () => {
    for (let seed = 0; seed < 4; seed++) {
      const key = Uint8Array.from({ length: 16 }, (_, i) => (i * 37 + seed * 101) & 255);
      const plain = Uint8Array.from({ length: 16 }, (_, i) => (i * 83 + seed * 59 + 7) & 255);
      const cipher = createCipheriv('aes-128-ecb', key, null).setAutoPadding(false);
      const expected = Uint8Array.from(Buffer.concat([cipher.update(plain), cipher.final()]));
      const ours = new Aes128(words(key));
      ours.block.set(words(plain));
      ours.encrypt();
      expect(bytesOf(ours.block)).toEqual(expected);
      ours.decrypt();
      expect(bytesOf(ours.block)).toEqual(plain);
    }
  });

  it('SHA-384', () => {
    for (const length of [0, 1, 111, 112, 127, 128, 4096]) {
      const data = Uint8Array.from({ length }, (_, i) => (i * 7 + length) & 255);
      expect(Buffer.from(sha384(data)).toString('hex')).toBe(createHash('sha384').update(data).digest('hex'));
    }
  });
});
