import { expect, test } from 'vitest';
import { i32, i64, sleb, T_I32, T_I64 } from './code.ts';
import { call } from './function.ts';
import { ModuleBuilder } from './module.ts';

test('signed LEB128', () => {
  expect([0, 63, 64, -1, -64, -65, 128, -(2 ** 63)].map(sleb)).toEqual([
    [0],
    [63],
    [0xc0, 0],
    [0x7f],
    [0x40],
    [0xbf, 0x7f],
    [0x80, 1],
    [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f],
  ]); // prettier-ignore
});

test('a module with memory, loop, switch, call and table', () => {
  const m = new ModuleBuilder();
  const log = m.import('log', [T_I32], []);
  const sum = m.function([T_I32], [T_I64], (f) => {
    const n = f.param32(0);
    const total = f.i64();
    f.loop((again) => {
      f.do(total.set(i64.add(total.get, i64.extendU(n.get))));
      f.do(n.set(i32.sub(n.get, i32.const(1))));
      f.brIf(again, n.get);
    });
    f.do(i64.store(i32.const(8), 0, total.get));
    f.do(total.get);
  });
  m.export('sum', sum);
  const name = m.function([T_I32], [T_I32], (f) => {
    f.switch(f.param32(0).get, [() => f.return(i32.const(10)), () => f.do(call(log, i32.const(5)))], () =>
      f.return(i32.const(30)),
    );
    f.do(i32.const(20));
  });
  m.export('name', name);
  m.tableEntry(name);
  const memory = new WebAssembly.Memory({ initial: 1 });
  const logged: number[] = [];
  const env = { memory, log: (x: number) => logged.push(x) };
  const e = new WebAssembly.Instance(new WebAssembly.Module(m.finish()), { env }).exports as Record<
    string,
    (x: number) => unknown
  >;
  expect(e['sum']!(10)).toBe(55n);
  expect(new Int32Array(memory.buffer)[2]).toBe(55);
  expect([0, 1, 2, 7].map((x) => e['name']!(x))).toEqual([10, 20, 30, 30]);
  expect(logged).toEqual([5]);
});
