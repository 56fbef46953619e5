/** Findings about faults: loops, pages that go and come back, conversions to and fro, huge pages that are broken. */
import { schemaOf } from './events.ts';
import { DID_FAIL_EMULATION, DID_FAULT_EXIT, DID_MAP, type FollowedFault } from './fault-follower.ts';
import { Evidence, type Finding } from './finding.ts';
import { getsOn } from './outcome.ts';
import { type Counted, TopCounter } from './top-counter.ts';
import { hexOf, type TraceRecord } from './trace-record.ts';

const REGION = 512;
/** The same fault so often, with nothing between, is a loop. */
const LOOP = 8;
/** Conversions of one gfn to and fro. */
const PING_PONG = 4;
/** Refaults of one 2M region after a zap. */
const REFAULTS = 8;
const MEMORY_FAULTS = 4;

const changed = schemaOf('kvm_tdp_mmu_spte_changed');
const hypercall = schemaOf('kvm_hypercall');
const split = schemaOf('kvm_mmu_split_huge_page');
const F = {
  gfn: changed.field('gfn'),
  level: changed.field('level'),
  old: changed.field('old'),
  next: changed.field('new'),
  nr: hypercall.field('nr'),
  a0: hypercall.field('a0'),
  a2: hypercall.field('a2'),
  splitGfn: split.field('gfn'),
};

/** KVM's own bit for an entry that is neither empty nor MMIO (@kvm spte.h SPTE_MMU_PRESENT_MASK), and the page size bit. */
const SPTE_MMU_PRESENT = 1 << 11;
const SPTE_LARGE = 1 << 7;
const KVM_HC_MAP_GPA_RANGE = 12;
const MAP_GPA_RANGE_ENCRYPTED = 1 << 4;

class Place implements Counted {
  readonly gfn: number;
  count = 0;
  readonly evidence = new Evidence();
  /** The last thing that was asked for: 1 private, 0 shared, -1 nothing yet. */
  state = -1;
  flips = 0;
  /** Line of the last zap that nothing has followed yet, 0 for none. */
  zappedAt = 0;

  constructor(gfn: number) {
    this.gfn = gfn;
  }
}

interface Loop {
  vcpu: number;
  ripLo: number;
  ripHi: number;
  gfn: number;
  codeLo: number;
  codeHi: number;
  run: number;
  readonly lines: number[];
}

interface FoundLoop {
  readonly vcpu: number;
  readonly rip: string;
  readonly gfn: number;
  readonly code: string;
  readonly times: number;
  readonly lines: readonly number[];
}

export class FaultFindings {
  private readonly loops = new Map<number, Loop>();
  private readonly foundLoops: FoundLoop[] = [];
  private readonly zapped = new TopCounter((gfn) => new Place(gfn));
  private readonly refaults = new TopCounter((region) => new Place(region * REGION));
  private readonly conversions = new TopCounter((gfn) => new Place(gfn));
  private readonly memoryFaults = new TopCounter((gfn) => new Place(gfn));
  private readonly broken = new TopCounter((region) => new Place(region * REGION));
  private readonly failures = new Evidence();

  /* HOT */
  event(record: TraceRecord, line: number): void {
    switch (record.event) {
      case changed:
        this.spteChanged(record, line);
        return;
      case hypercall:
        if (record.lo[F.nr] === KVM_HC_MAP_GPA_RANGE) this.converted(record, line);
        return;
      case split:
        this.broke(record.num(F.splitGfn), line);
        return;
      default:
    }
  }

  private spteChanged(record: TraceRecord, line: number): void {
    const old = record.lo[F.old]!;
    const next = record.lo[F.next]!;
    if ((old & SPTE_MMU_PRESENT) === 0) return;
    const level = record.lo[F.level]!;
    const gfn = record.num(F.gfn);
    if ((next & SPTE_MMU_PRESENT) === 0) {
      if (level === 1 || (old & SPTE_LARGE) !== 0)
        this.zapped.add(level === 1 ? gfn : gfn - (gfn % REGION)).zappedAt = line;
    } else if (level > 1 && (old & SPTE_LARGE) !== 0 && (next & SPTE_LARGE) === 0) this.broke(gfn, line);
  }

  private broke(gfn: number, line: number): void {
    this.broken.add(Math.floor(gfn / REGION)).evidence.add(line);
  }

  private converted(record: TraceRecord, line: number): void {
    const place = this.conversions.add(Math.floor(record.num(F.a0) / 4096));
    const state = (record.lo[F.a2]! & MAP_GPA_RANGE_ENCRYPTED) === 0 ? 0 : 1;
    if (place.state !== -1 && place.state !== state) place.flips++;
    place.state = state;
    place.evidence.add(line);
  }

  /* HOT */
  fault(fault: FollowedFault): void {
    const { did, gfn, line } = fault;
    this.follow(fault);
    if ((did & DID_FAIL_EMULATION) !== 0) this.failures.add(line);
    if ((did & DID_FAULT_EXIT) !== 0) this.memoryFaults.add(gfn).evidence.add(line);
    if ((did & DID_MAP) !== 0 && this.wasZapped(gfn, fault.threadSince))
      this.refaults.add(Math.floor(gfn / REGION)).evidence.add(line);
  }

  /** A thread that came later is another VM's, whose frames have the same numbers. */
  private wasZapped(gfn: number, since: number): boolean {
    const place = this.zapped.get(gfn) ?? this.zapped.get(gfn - (gfn % REGION));
    if (place === undefined || place.zappedAt <= since) return false;
    place.zappedAt = 0;
    return true;
  }

  private follow(fault: FollowedFault): void {
    let loop = this.loops.get(fault.vcpu);
    if (loop === undefined) {
      loop = { vcpu: fault.vcpu, ripLo: 0, ripHi: 0, gfn: -1, codeLo: 0, codeHi: 0, run: 0, lines: [] };
      this.loops.set(fault.vcpu, loop);
    }
    const same =
      loop.gfn === fault.gfn &&
      loop.ripLo === fault.ripLo &&
      loop.ripHi === fault.ripHi &&
      loop.codeLo === fault.codeLo &&
      loop.codeHi === fault.codeHi;
    if (!same || getsOn(fault.did)) this.endLoop(loop);
    if (getsOn(fault.did)) return;
    loop.gfn = fault.gfn;
    loop.ripLo = fault.ripLo;
    loop.ripHi = fault.ripHi;
    loop.codeLo = fault.codeLo;
    loop.codeHi = fault.codeHi;
    if (loop.run++ < 5) loop.lines.push(fault.line);
  }

  private endLoop(loop: Loop): void {
    if (loop.run >= LOOP) {
      const { vcpu, gfn, run, lines } = loop;
      const rip = hexOf(loop.ripLo, loop.ripHi);
      this.foundLoops.push({ vcpu, rip, gfn, code: hexOf(loop.codeLo, loop.codeHi), times: run, lines: [...lines] });
      // the longest ones are enough
      this.foundLoops.sort((a, b) => b.times - a.times).splice(16);
    }
    loop.gfn = -1;
    loop.run = 0;
    loop.lines.length = 0;
  }

  /** The findings, when the trace is over. */
  all(): Finding[] {
    for (const loop of this.loops.values()) this.endLoop(loop);
    return [
      ...this.foundLoops.map(loopFinding),
      ...this.memoryFaultFindings(),
      ...this.pingPongFindings(),
      ...this.refaultFindings(),
      ...this.brokenFindings(),
      ...this.failureFindings(),
    ];
  }

  private memoryFaultFindings(): Finding[] {
    return this.memoryFaults
      .top(3)
      .filter((p) => p.count >= MEMORY_FAULTS)
      .map((p) => ({
        kind: 'memory-faults',
        title: `${p.count} memory-fault exits at gfn ${frame(p.gfn)}`,
        cause:
          'KVM_RUN returned EFAULT with KVM_EXIT_MEMORY_FAULT again and again for the same page: the VMM resumes without removing what is in the way.',
        advice:
          'Look at flags of the exit: with KVM_MEMORY_EXIT_FLAG_PRIVATE the guest wants the page private, without it shared. Convert it (KVM_SET_MEMORY_ATTRIBUTES), give the slot a guest_memfd, or stop the guest.',
        lines: p.evidence.lines,
        count: p.count,
      }));
  }

  private pingPongFindings(): Finding[] {
    return this.conversions
      .top(3, (p) => p.flips)
      .filter((p) => p.flips >= PING_PONG)
      .map((p) => ({
        kind: 'conversion-ping-pong',
        title: `gfn ${frame(p.gfn)} was converted between shared and private ${p.flips} times`,
        cause:
          'The guest shares a buffer for each use and takes it back, as drivers do that bounce every request by itself. Each conversion zaps the range, and huge pages in it.',
        advice:
          'Let the guest keep a pool of shared memory (swiotlb), aligned to 2M so that conversions break no huge page.',
        lines: p.evidence.lines,
        count: p.flips,
      }));
  }

  private refaultFindings(): Finding[] {
    return this.refaults
      .top(3)
      .filter((p) => p.count >= REFAULTS)
      .map((p) => ({
        kind: 'refault-after-zap',
        title: `${p.count} faults in the 2M at gfn ${frame(p.gfn)} only bring back what was zapped`,
        cause:
          'Entries went away (an MMU notifier: KSM, NUMA balancing, compaction, madvise; a memslot or attribute change; dirty logging) and the guest used the pages again at once.',
        advice:
          'Look for kvm_unmap_hva_range, kvm_mmu_zap_all_fast or memslot changes before the lines named; turn off NUMA balancing or KSM for the VMM, or keep its memory from being moved (mlock, hugetlb).',
        lines: p.evidence.lines,
        count: p.count,
      }));
  }

  private brokenFindings(): Finding[] {
    const places = this.broken.top(3);
    const count = [...this.broken.values()].reduce((sum, p) => sum + p.count, 0);
    if (count === 0) return [];
    return [
      {
        kind: 'huge-pages-broken',
        title: `${count} huge mappings were broken into smaller ones, first at gfn ${frame(places[0]!.gfn)}`,
        cause:
          'Dirty logging by page, an executable huge page under nx_huge_pages, or an attribute that differs within 2M.',
        advice:
          'Where it is not a migration under way: keep attributes and slots aligned to 2M; with nx_huge_pages the NX recovery worker brings them back.',
        lines: places.flatMap((p) => p.evidence.lines).slice(0, 5),
        count,
      },
    ];
  }

  private failureFindings(): Finding[] {
    const { failures } = this;
    if (failures.count === 0) return [];
    return [
      {
        kind: 'emulation-failures',
        title: `${failures.count} instructions could not be emulated`,
        cause:
          "The guest uses an instruction on MMIO or read-only memory that KVM's emulator does not have (AVX, AES and so on).",
        advice: 'The bytes are in kvm_emulate_insn; KVM_CAP_EXIT_ON_EMULATION_FAILURE gives them to the VMM.',
        lines: failures.lines,
        count: failures.count,
      },
    ];
  }
}

function loopFinding(loop: FoundLoop): Finding {
  return {
    kind: 'fault-loop',
    title: `vCPU ${loop.vcpu} took the same fault ${loop.times} times: RIP ${loop.rip}, gfn ${frame(loop.gfn)}, error code ${loop.code}`,
    cause:
      'Nothing that KVM did let the instruction go on: the entry it makes is not what the access needs, is zapped before the guest gets to it, or the fault is not one of a missing entry.',
    advice: `softkvm decode ${loop.code} says what the hardware wants; softkvm explain --trace-line with the line says which check decides.`,
    lines: loop.lines,
    count: loop.times,
  };
}

function frame(gfn: number): string {
  return `0x${gfn.toString(16)}`;
}
