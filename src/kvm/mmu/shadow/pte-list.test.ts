import { describe, expect, it } from 'vitest';
import { PteLists } from './pte-list.ts';

describe('sets of entries', () => {
  it('are nothing, one entry, or a list', () => {
    const lists = new PteLists();
    let head = 0;
    expect(lists.entries(head)).toEqual([]);
    for (const sptep of [2, 4, 6]) head = lists.add(head, sptep);
    expect(lists.count(head)).toBe(3);
    expect([...lists.entries(head)].sort()).toEqual([2, 4, 6]);
    head = lists.remove(head, 2);
    expect([...lists.entries(head)].sort()).toEqual([4, 6]);
    head = lists.remove(head, 6);
    expect(head).toBe(4);
    expect(lists.first(head)).toBe(4);
    expect(lists.remove(head, 4)).toBe(0);
  });

  it('use a list again that was given back', () => {
    const lists = new PteLists();
    const first = lists.add(lists.add(0, 2), 4);
    lists.drop(first);
    expect(lists.add(lists.add(0, 6), 8)).toBe(first);
    expect(lists.count(first)).toBe(2);
  });

  it('refuse to lose what they do not hold', () => {
    const lists = new PteLists();
    expect(() => lists.remove(0, 2)).toThrow(/not in its list/);
    expect(() => lists.remove(2, 4)).toThrow(/not in its list/);
  });
});
