/**
 * How many faults a second: a guest touches fresh memory page by page, every touch a TLB miss, two walks, an exit, the fault path, a new
 * 4K mapping and a resume. Then the same faults given to the fault path directly, with no processor.
 */
import v8 from 'node:v8';
import { PFERR_GUEST_FINAL_HI, PFERR_USER, PFERR_WRITE } from '../../arch/error-code.ts';
import { hiOf, loOf } from '../../arch/halves.ts';
import type { CpuVendor } from '../../cpu/profile.ts';
import { hardwareProfile } from '../../cpu/profiles/index.ts';
import { Kvm, type Vcpu, type Vm } from '../../kvm/api/index.ts';
import { mmuPageFault } from '../../kvm/mmu/page-fault.ts';
import { mmuReload } from '../../kvm/mmu/roots.ts';
import { KVM_X86_SNP_VM } from '../../kvm/vm-type.ts';
import { hardwareFor, SILICON_SNP } from '../choices.ts';
import { InputError } from '../input-error.ts';

/** What `softkvm bench faults --json` prints. */
export interface FaultBench {
  readonly version: 1;
  readonly mib: number;
  readonly hardware: string;
  readonly faults: number;
  readonly seconds: number;
  /** Processor time of all threads in the same span: less than `seconds` means that the machine was busy with something else. */
  readonly cpuSeconds: number;
  /** End to end. */
  readonly faultsPerSecond: number;
  readonly nsPerFault: number;
  /** The processor's share: from one entry to the exit. */
  readonly nsHardware: number;
  /** KVM's share. */
  readonly nsKvm: number;
  /** The fault path alone. */
  readonly barePerSecond: number;
  readonly nsBare: number;
  /** JavaScript heap that grew in steady state, by fault: of the round in which the compiler left least. */
  readonly bytesPerFault: number;
  /** The same guest under shadow paging, end to end; `ratio` is its time for a fault over that with nested paging. */
  readonly shadow: { readonly faultsPerSecond: number; readonly nsPerFault: number; readonly ratio: number };
  /** The same guest on a machine with SEV-SNP, end to end; `ratio` is its time for a fault with the reverse map's checks over that without. */
  readonly snp: { readonly faultsPerSecond: number; readonly nsPerFault: number; readonly ratio: number };
}

/** Of at most 64 MiB each. */
const WARM_ROUNDS = 3;
const MIB = 1024 * 1024;
const PAGE = 4096;
/** Every run takes memory of its own out of a machine below 4 GiB. */
const MAX_MIB = 1536;
/** Up to this much there is room for three rounds, of which the fastest counts: what disturbs a round only adds to it. */
const ROUNDS_MIB = 512;
/** Where the memory that is touched begins. */
const DATA_GPA = 0x4000_0000;
const CODE = 0xa000;
const PML4 = 0x10000;
const RET_RESUME = 1;

interface Rig {
  readonly vm: Vm;
  readonly vcpu: Vcpu;
}

/** `onPhase` hears what begins. @throws InputError */
export function benchFaults(
  mib: number,
  profile: string | undefined,
  onPhase: (phase: string) => void = () => {},
  cpu?: CpuVendor,
): FaultBench {
  const hardware = hardwareFor(cpu, profile);
  if (mib > MAX_MIB) throw new InputError(`--mib ${mib}: expected at most ${MAX_MIB}`);
  const faults = (mib * MIB) / PAGE;
  const warm = Math.min(mib, 64);
  const rounds = mib <= ROUNDS_MIB ? 3 : 1;
  const kvm = new Kvm({
    hardware,
    hostMemory: Math.ceil((2 * rounds * mib + (2 * WARM_ROUNDS + 1) * warm) * 1.02 + 128) * MIB,
  });
  onPhase('taking memory');
  // Memory that the operating system has still to provide would be its faults, not ours.
  kvm.machine.memory.commit();
  onPhase('warming up');
  // Compiled code is what is measured. The compiler works in the background, and revises what it assumed too early.
  for (let i = 0; i < WARM_ROUNDS; i++) {
    endToEnd(kvm, warm);
    bare(kvm, warm);
  }
  onPhase('running the guest');
  const wholes = Array.from({ length: rounds }, () => endToEnd(kvm, mib));
  const whole = fastest(wholes);
  const share = hardwareShare(kvm, warm);
  onPhase('driving the bare fault path');
  const path = fastest(Array.from({ length: rounds }, () => bare(kvm, mib)));
  const nsPerFault = (whole.seconds * 1e9) / faults;
  onPhase('running the guest under shadow paging');
  const nsShadow = shadowPaging(warm, hardware);
  onPhase('running the guest with a reverse map');
  const snp = reverseMap(warm);
  return {
    version: 1,
    mib,
    hardware: whole.hardware,
    faults,
    seconds: whole.seconds,
    cpuSeconds: whole.cpuSeconds,
    faultsPerSecond: faults / whole.seconds,
    nsPerFault,
    nsHardware: nsPerFault * share,
    nsKvm: nsPerFault * (1 - share),
    barePerSecond: faults / path.seconds,
    nsBare: (path.seconds * 1e9) / faults,
    bytesPerFault: Math.max(0, Math.min(...wholes.map((w) => w.heapBytes))) / faults,
    shadow: { faultsPerSecond: 1e9 / nsShadow, nsPerFault: nsShadow, ratio: nsShadow / nsPerFault },
    snp: { faultsPerSecond: 1e9 / snp.ns, nsPerFault: snp.ns, ratio: snp.ratio },
  };
}

/** Nanoseconds of a fault with KVM's shadow of the guest's tables, on a machine of its own. */
function shadowPaging(mib: number, hardware: string): number {
  const runs = 2 * WARM_ROUNDS;
  const kvm = new Kvm({
    hardware,
    hostMemory: Math.ceil(runs * mib * 1.02 + 128) * MIB,
    params: hardwareProfile(hardware).vendor === 'amd' ? { npt: false } : { ept: false },
  });
  kvm.machine.memory.commit();
  const best = fastest(Array.from({ length: runs }, () => endToEnd(kvm, mib)));
  return (best.seconds * 1e9) / ((mib * MIB) / PAGE);
}

/** Nanoseconds of a fault with the reverse map's checks, and over those of one without, of rounds that take turns on one machine. */
function reverseMap(mib: number): { readonly ns: number; readonly ratio: number } {
  const runs = 2 * WARM_ROUNDS;
  const kvm = new Kvm({ hardware: SILICON_SNP, hostMemory: Math.ceil(2 * runs * mib * 1.02 + 128) * MIB });
  kvm.machine.memory.commit();
  // Making an SNP guest switches the checks on.
  kvm.createVm(KVM_X86_SNP_VM).close();
  const snp = kvm.processor.snp!;
  const base = snp.rmpBase;
  const without: Round[] = [];
  const checked: Round[] = [];
  for (let i = 0; i < runs; i++) {
    // In turns, and each of them first in every other pair: what comes second finds a warmer machine.
    for (const on of i % 2 === 0 ? [false, true] : [true, false]) {
      if (on) snp.enable(base);
      else snp.disable();
      (on ? checked : without).push(endToEnd(kvm, mib));
    }
  }
  const seconds = fastest(checked).seconds;
  return { ns: (seconds * 1e9) / ((mib * MIB) / PAGE), ratio: seconds / fastest(without).seconds };
}

interface Round {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly heapBytes: number;
  readonly hardware: string;
}

function fastest<T extends { readonly seconds: number }>(rounds: readonly T[]): T {
  return rounds.reduce((best, round) => (round.seconds < best.seconds ? round : best));
}

function endToEnd(kvm: Kvm, mib: number): Round {
  const { vm, vcpu } = makeRig(kvm, mib);
  let seconds = 0;
  let cpuSeconds = 0;
  const heapBytes = allocatedBy(() => {
    const cpu = process.cpuUsage();
    const start = performance.now();
    runToHalt(vcpu);
    seconds = (performance.now() - start) / 1000;
    const used = process.cpuUsage(cpu);
    cpuSeconds = (used.user + used.system) / 1e6;
  });
  const name = vm.state.profile.name;
  vm.close();
  return { seconds, cpuSeconds, heapBytes, hardware: name };
}

/** The part of the time that is spent between VMRUN and #VMEXIT, or VM entry and exit, measured in a run of its own. */
function hardwareShare(kvm: Kvm, mib: number): number {
  const { vm, vcpu } = makeRig(kvm, mib);
  const processor = vm.state.processor;
  let inside = 0;
  if (vm.state.profile.vendor === 'amd') {
    const vmrun = processor.vmrun.bind(processor);
    processor.vmrun = (vmcb: number) => {
      const start = performance.now();
      vmrun(vmcb);
      inside += performance.now() - start;
    };
  } else {
    const enter = processor.vmx.enter.bind(processor.vmx);
    processor.vmx.enter = (launch: boolean) => {
      const start = performance.now();
      const result = enter(launch);
      inside += performance.now() - start;
      return result;
    };
  }
  const clock = clockCost();
  const start = performance.now();
  runToHalt(vcpu);
  const total = performance.now() - start;
  const exits = (mib * MIB) / PAGE;
  vm.close();
  // Each exit reads the clock twice: about one reading falls inside the measured part, one outside.
  return Math.min(1, Math.max(0, (inside - exits * clock) / (total - 2 * exits * clock)));
}

/** Milliseconds that one reading of the clock takes. */
function clockCost(): number {
  const n = 200_000;
  const start = performance.now();
  for (let i = 0; i < n; i++) performance.now();
  return (performance.now() - start) / n;
}

function bare(kvm: Kvm, mib: number): { seconds: number } {
  const { vm, vcpu } = makeRig(kvm, mib);
  const state = vcpu.state;
  if (mmuReload(state) < 0) throw new Error('no root for the bare fault path');
  const end = DATA_GPA + mib * MIB;
  const start = performance.now();
  for (let gpa = DATA_GPA; gpa < end; gpa += PAGE) {
    const result = mmuPageFault(state, loOf(gpa), hiOf(gpa), PFERR_WRITE | PFERR_USER, PFERR_GUEST_FINAL_HI);
    if (result !== RET_RESUME) throw new Error(`the bare fault path answered ${result} at 0x${gpa.toString(16)}`);
  }
  const seconds = (performance.now() - start) / 1000;
  vm.close();
  return { seconds };
}

function runToHalt(vcpu: Vcpu): void {
  const { ret, errno, exit } = vcpu.run();
  if (ret !== 0 || exit?.reason !== 'hlt')
    throw new Error(`the guest ended with ${errno ?? exit?.reason}, expected hlt`);
}

/** A 64-bit guest whose tables map the first 4 GiB with 2 MiB pages, at a loop over the data. */
function makeRig(kvm: Kvm, mib: number): Rig {
  const vm = kvm.createVm(0);
  const low = kvm.mm.mmap({ size: 2 * MIB, kind: 'anon' });
  const data = kvm.mm.mmap({ size: mib * MIB, kind: 'anon' });
  vm.setUserMemoryRegion({ slot: 0, flags: 0, guestPhysAddr: 0, memorySize: 2 * MIB, userspaceAddr: low });
  vm.setUserMemoryRegion({ slot: 1, flags: 0, guestPhysAddr: DATA_GPA, memorySize: mib * MIB, userspaceAddr: data });
  kvm.mm.write(low + CODE, guestCode(DATA_GPA, DATA_GPA + mib * MIB));
  kvm.mm.write(low + PML4, words([0x11023n]));
  kvm.mm.write(low + 0x11000, words(Array.from({ length: 4 }, (_, i) => 0x12023n + BigInt(i) * 0x1000n)));
  kvm.mm.write(low + 0x12000, words(Array.from({ length: 2048 }, (_, i) => 0xe3n + BigInt(i) * 0x200000n)));
  const vcpu = vm.createVcpu(0);
  vcpu.setCpuid2(kvm.getSupportedCpuid());
  const sregs = vcpu.getSregs();
  const flat = { base: 0n, limit: 0xffffffff, present: 1, s: 1, g: 1, dpl: 0, avl: 0, unusable: 0 };
  Object.assign(sregs.cs, flat, { selector: 8, type: 11, l: 1, db: 0 });
  for (const segment of [sregs.ds, sregs.es, sregs.ss])
    Object.assign(segment, flat, { selector: 16, type: 3, l: 0, db: 1 });
  Object.assign(sregs, { cr0: 0x80010033n, cr3: BigInt(PML4), cr4: 0x620n, efer: 0xd01n });
  vcpu.setSregs(sregs);
  vcpu.setRegs({ ...vcpu.getRegs(), rip: BigInt(CODE), rflags: 2n });
  return { vm, vcpu };
}

/** mov ebx,start; mov ecx,end; 1: mov [rbx],eax; add rbx,4096; cmp rbx,rcx; jb 1b; hlt */
function guestCode(start: number, end: number): Uint8Array {
  const code = new Uint8Array(64);
  const view = new DataView(code.buffer);
  code.set([0xbb], 0);
  view.setUint32(1, start, true);
  code.set([0xb9], 5);
  view.setUint32(6, end, true);
  code.set([0x89, 0x03, 0x48, 0x81, 0xc3, 0x00, 0x10, 0x00, 0x00, 0x48, 0x39, 0xcb, 0x72, 0xf2, 0xf4], 10);
  return code;
}

function words(values: readonly bigint[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values).buffer);
}

/** Bytes of JavaScript heap that `run` allocates, whatever is collected meanwhile. */
function allocatedBy(run: () => void): number {
  const collections = new v8.GCProfiler();
  collections.start();
  const before = process.memoryUsage().heapUsed;
  run();
  let bytes = process.memoryUsage().heapUsed - before;
  for (const { beforeGC, afterGC } of collections.stop().statistics) {
    bytes += beforeGC.heapStatistics.usedHeapSize - afterGC.heapStatistics.usedHeapSize;
  }
  return bytes;
}
