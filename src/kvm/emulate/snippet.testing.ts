/** One instruction on a flat machine, with what tests look at afterwards. */
import { RBX, RIP, RSP } from '../../arch/registers.ts';
import { FlatMachine, type Outcome } from './flat-machine.testing.ts';

const MEMORY = 0x1_0000;
export const CODE = 0x1000;
export const DATA = 0x4000;
export const STACK = 0x8000;
export const DEVICE = 0xd000_0000;

export type Setup = (machine: FlatMachine) => void;

/** A machine with `code` (hex) at CODE, a stack, and RBX at DATA. */
export function machineWith(code: string, setup: Setup = () => {}): FlatMachine {
  const machine = new FlatMachine(MEMORY);
  machine.setReg(RSP, BigInt(STACK));
  machine.setReg(RBX, BigInt(DATA));
  machine.setReg(RIP, BigInt(CODE));
  machine.memory.set(Buffer.from(code.replaceAll(' ', ''), 'hex'), CODE);
  setup(machine);
  return machine;
}

export function run(code: string, setup?: Setup): { machine: FlatMachine; outcome: Outcome } {
  const machine = machineWith(code, setup);
  return { machine, outcome: machine.step() };
}

export function put(machine: FlatMachine, address: number, hex: string): void {
  machine.memory.set(Buffer.from(hex.replaceAll(' ', ''), 'hex'), address);
}

export function get(machine: FlatMachine, address: number, bytes: number): string {
  return Buffer.from(machine.memory.subarray(address, address + bytes)).toString('hex');
}

/** Data accesses only. */
export function accesses(machine: FlatMachine): string[] {
  return machine.log.filter((line) => !line.startsWith('fetch'));
}
