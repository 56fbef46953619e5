import { expect, it } from 'vitest';
import { linux612, stages } from './revisions.ts';

it('offers the stages of the newest revision, in their order and under their names', () => {
  expect(Object.values(stages)).toEqual(linux612.stages);
  for (const [key, stage] of Object.entries(stages))
    expect(key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)).toBe(stage.name);
});
