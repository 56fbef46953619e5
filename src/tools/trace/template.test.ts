import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { schemas } from './events.ts';
import { TraceRecord } from './trace-record.ts';

/** A record whose text is `text`. */
function recordOf(text: string): TraceRecord {
  const record = new TraceRecord();
  record.bytes = new TextEncoder().encode(text);
  record.textEnd = record.bytes.length;
  return record;
}

describe('the spellings of events', () => {
  it('are read and written again as they were, whatever the numbers', () => {
    const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
    for (const schema of schemas) {
      schema.templates.forEach((template, spelling) => {
        fc.assert(
          fc.property(fc.array(fc.tuple(int32, int32), { minLength: 16, maxLength: 16 }), (words) => {
            const record = recordOf('word');
            schema.fields.forEach(({ kind }, field) => {
              // Decimal fields are counts: they have 31 bits.
              record.lo[field] = words[field]![0] >>> 1;
              record.hi[field] = 0;
              if (kind === 'word') record.to[field] = 4;
            });
            const text = template.write(record);
            const again = recordOf(text);
            expect(template.read(again)).toBe(true);
            expect(template.write(again)).toBe(text);
            expect(schema.read(recordOf(text))).toBe(true);
          }),
          { numRuns: 5 },
        );
        expect(spelling).toBeGreaterThanOrEqual(0);
      });
    }
  });

  it('keep all 64 bits of a hex number', () => {
    const schema = schemas.find((s) => s.name === 'kvm_page_fault')!;
    const text = 'vcpu 3 rip 0xffffffff81000000 address 0x00000000fee00000 error_code 0x8000000100000006';
    const record = recordOf(text);
    expect(schema.read(record)).toBe(true);
    const code = schema.field('error_code');
    expect([record.hi[code]! >>> 0, record.lo[code]]).toEqual([0x80000001, 6]);
    expect(schema.templates[0]!.write(record)).toBe(text);
  });

  it('are not read from a text that is cut off', () => {
    const schema = schemas.find((s) => s.name === 'kvm_page_fault')!;
    const text = 'vcpu 3 rip 0xa000 address 0x00000000fee00000 error_code 0x6';
    for (let end = 1; end < text.length - 2; end++) expect(schema.read(recordOf(text.slice(0, end)))).toBe(false);
  });
});
