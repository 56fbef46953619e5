/** A small guest for tests: 2 MiB of RAM at 0 and one vCPU in flat 32-bit protected mode without paging, code at 0x1000. */
import { Kvm, type KvmOptions, type Vcpu, type Vm } from '../api/index.ts';
import type { TraceEvent } from '../trace/events.ts';

export const CODE = 0x1000;
export const STACK = 0x8000;
const RAM = 0x200000;
const HOST_MEMORY = 96 * 1024 * 1024;
const GDT = 0x500;
const IDT = 0x600;
/** Where exception handlers are: 16 bytes a vector, `mov esi, vector; hlt`. */
const HANDLERS = 0x2000;

export interface TestGuest {
  readonly kvm: Kvm;
  readonly vm: Vm;
  readonly vcpu: Vcpu;
  readonly hva: number;
  readonly events: TraceEvent[];
  /** Writes guest memory. */
  poke(gpa: number, bytes: readonly number[]): void;
  peek(gpa: number, length: number): number[];
  /** The texts of the events of one kind since the guest was made. */
  texts(event: string): string[];
}

function descriptor(access: number, flags: number): number[] {
  return [0xff, 0xff, 0, 0, 0, access, flags, 0];
}

/** @param code machine code at CODE @param options of the system; `irqchip` puts the interrupt chips into KVM */
export function makeGuest(
  code: readonly number[],
  options: KvmOptions & { readonly irqchip?: boolean } = {},
): TestGuest {
  const kvm = new Kvm({ hostMemory: HOST_MEMORY, ...options });
  const vm = kvm.createVm();
  if (options.irqchip === true) vm.createIrqchip();
  const events: TraceEvent[] = [];
  vm.onTrace((event) => {
    events.push(event);
  });
  const hva = kvm.mm.mmap({ kind: 'anon', size: RAM });
  vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0, memorySize: RAM, userspaceAddr: hva });
  const poke = (gpa: number, bytes: readonly number[]): void => {
    kvm.mm.write(hva + gpa, Uint8Array.from(bytes), 0, bytes.length);
  };
  const peek = (gpa: number, length: number): number[] => {
    const bytes = new Uint8Array(length);
    kvm.mm.read(hva + gpa, bytes, 0, length);
    return [...bytes];
  };
  poke(GDT, [...new Array(8).fill(0), ...descriptor(0x9b, 0xcf), ...descriptor(0x93, 0xcf)]);
  for (let vector = 0; vector < 32; vector++) {
    const at = HANDLERS + 16 * vector;
    poke(at, [0xbe, vector, 0, 0, 0, 0xf4]);
    poke(IDT + 8 * vector, [at & 0xff, at >> 8, 8, 0, 0, 0x8e, 0, 0]);
  }
  poke(CODE, code);
  const vcpu = vm.createVcpu(0);
  vcpu.setCpuid2(kvm.getSupportedCpuid());
  const sregs = vcpu.getSregs();
  const flat = { base: 0n, limit: 0xffffffff, present: 1, dpl: 0, db: 1, s: 1, l: 0, g: 1, avl: 0, unusable: 0 };
  sregs.cs = { ...flat, selector: 8, type: 11 };
  for (const name of ['ds', 'es', 'fs', 'gs', 'ss'] as const) sregs[name] = { ...flat, selector: 16, type: 3 };
  sregs.cr0 = 0x11n;
  sregs.gdt = { base: BigInt(GDT), limit: 23 };
  sregs.idt = { base: BigInt(IDT), limit: 255 };
  vcpu.setSregs(sregs);
  const regs = vcpu.getRegs();
  regs.rip = BigInt(CODE);
  regs.rsp = BigInt(STACK);
  regs.rflags = 2n;
  vcpu.setRegs(regs);
  const texts = (event: string): string[] =>
    events.filter((e) => e.event === event).map((e) => (e.fields as { text?: string }).text ?? '');
  return { kvm, vm, vcpu, hva, events, poke, peek, texts };
}

/** mov eax, imm32 and the like: `opcode` 0xb8 plus the register. */
export function mov(reg: number, value: number): number[] {
  return [0xb8 + reg, value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, (value >>> 24) & 0xff];
}
