/** The operations of a scenario that are ioctls of the system, the VM or a vCPU. */
import { hex } from '../../arch/halves.ts';
import { EBADF } from '../../host/errno.ts';
import { type GuestMemfd, KvmError, type UserMemoryRegion2, type Vcpu } from '../../kvm/api/index.ts';
import { UnsupportedError } from '../input-error.ts';
import { fromErrno, OK, type OpResult } from './host-objects.ts';
import { attempt, MissingVcpuError, recordRegs, replaceRegs, replaceSregs, type ScenarioMachine } from './machine.ts';
import { leaveNested, nstate, saveRestore } from './nested-ops.ts';
import { prepareRun, type RunInput, recordRun } from './run-record.ts';
import { bigInt, bytesHex, hexBytes, int, type Op } from './scenario.ts';
import { INSTRUCTIONS_PER_SECOND } from './spinning-guest.ts';

/** An answer before trace and statistics are added. */
export interface OpAnswer extends OpResult {
  readonly regs?: { readonly [field: string]: unknown };
}

type Handler = (m: ScenarioMachine, op: Op) => OpAnswer;

/** Stands for the recorder's timer of two seconds: a step that has not returned after so many exits and instructions is looping. */
const EXITS_PER_SECOND = 2000;

const handlers: { readonly [op: string]: Handler } = {
  run: (m, op) => {
    const vcpu = m.vcpu(op);
    const seconds = op['timeout_ms'] === undefined ? int(op['timeout'], 2) : int(op['timeout_ms']) / 1000;
    prepareRun(vcpu.kvmRun, op as RunInput);
    let result: OpResult = OK;
    const refused = attempt(() => {
      const limits = {
        maxExits: Math.ceil(seconds * EXITS_PER_SECOND),
        maxInstructions: Math.ceil(seconds * INSTRUCTIONS_PER_SECOND),
      };
      const interrupt = (): void => vcpu.interrupt();
      const { ret, errno } = m.helper.during(seconds * 1000, interrupt, () => vcpu.run(limits));
      result = { ret, errno };
    });
    if (refused.ret !== 0) result = refused;
    const answer = { ...result, run: recordRun(vcpu.kvmRun) };
    // Once KVM has given the VM up, no ioctl reads its registers any more.
    return m.vm.state.log.vmBugged ? answer : { ...answer, regs: recordRegs(m) };
  },
  getregs: (m, op) => (m.vcpus.has(int(op['vcpu'])) ? { ...OK, regs: recordRegs(m) } : fromErrno(-9)),
  regs: (m, op) => replaceRegs(m.vcpu(op), op),
  sregs: (m, op) => replaceSregs(m.vcpu(op), op),
  vm: (m, op) => attempt(() => void m.otherVms.push(m.kvm.createVm(int(op['type'])))),
  vcpu: (m, op) => attempt(() => void m.vcpus.set(int(op['id']), m.vm.createVcpu(int(op['id'])))),
  cap: (m, op) => {
    const args = [bigInt(op['a0']), bigInt(op['a1'])];
    const on = op['vcpu'] === undefined ? m.vm : m.vcpu(op);
    return attempt(() => on.enableCap(int(op['cap']), int(op['flags']), args));
  },
  checkext: (m, op) => attempt(() => (op['sys'] ? m.kvm : m.vm).checkExtension(int(op['cap']))),
  irqchip: (m) => attempt(() => m.vm.createIrqchip()),
  tss_addr: (m, op) => attempt(() => m.vm.setTssAddr(bigInt(op['addr']))),
  identity_map: (m, op) => attempt(() => m.vm.setIdentityMapAddr(bigInt(op['addr']))),
  nr_mmu_pages: (m, op) => attempt(() => m.vm.setNrMmuPages(int(op['pages']))),
  slot: (m, op) => setSlot(m, op, 2),
  slot1: (m, op) => setSlot(m, op, 1),
  attr: (m, op) => {
    const range = { address: bigInt(op['gpa']), size: bigInt(op['size']) };
    const result = attempt(() =>
      m.vm.setMemoryAttributes({ ...range, attributes: bigInt(op['attrs']), flags: bigInt(op['flags']) }),
    );
    return { ...result, out: { gpa: hex(range.address), size: hex(range.size) } };
  },
  gmem: (m, op) =>
    attempt(
      () =>
        void m.gmems.set(
          int(op['id']),
          m.vm.createGuestMemfd({ size: bigInt(op['size']), flags: bigInt(op['flags']) }),
        ),
    ),
  punch: (m, op) => attempt(() => gmem(m, op).punchHole(bigInt(op['off']), bigInt(op['size']))),
  gfalloc: (m, op) => attempt(() => gmem(m, op).fallocate(int(op['mode'], 1), bigInt(op['off']), bigInt(op['size']))),
  gtruncate: (m, op) => attempt(() => gmem(m, op).ftruncate(bigInt(op['size']))),
  gmmap: (m, op) => attempt(() => gmem(m, op).mmap()),
  gread: (m, op) => attempt(() => gmem(m, op).pread()),
  gstat: (m, op) => {
    const { size, blocks } = gmem(m, op).stat();
    return { ...OK, out: { st_size: hex(size), st_blocks: blocks } };
  },
  gclose: (m, op) => attempt(() => gmem(m, op).close()),
  dirtylog: (m, op) => {
    let bitmap = new Uint8Array(Math.ceil(int(op['pages'], 64) / 64) * 8);
    const result = attempt(() => {
      bitmap = m.vm.getDirtyLog(int(op['slot'])).slice(0, bitmap.length);
    });
    return { ...result, out: { bitmap: bytesHex(bitmap) } };
  },
  clearlog: (m, op) =>
    attempt(() =>
      m.vm.clearDirtyLog({
        slot: int(op['slot']),
        firstPage: int(op['first']),
        numPages: int(op['pages']),
        bitmap: hexBytes(op['bitmap'] as string),
      }),
    ),
  ringread: (m, op) => {
    const entries = m.vcpu(op).dirtyRingEntries();
    return { ...OK, out: { entries: entries.map((e) => ({ slot: String(e.slot), offset: hex(e.offset) })) } };
  },
  ringreset: (m) => attempt(() => m.vm.resetDirtyRings()),
  prefault: (m, op) => {
    const r = m.vcpu(op).preFaultMemory({ gpa: int(op['gpa']), size: int(op['size']), flags: int(op['flags']) });
    return { ret: r.ret, errno: r.errno, out: { gpa: hex(r.gpa), size: hex(r.size) } };
  },
  translate: (m, op) => {
    const t = m.vcpu(op).translate(bigInt(op['gva']));
    return {
      ...OK,
      out: {
        physical_address: hex(t.physicalAddress),
        valid: Number(t.valid),
        writeable: Number(t.writeable),
        usermode: Number(t.usermode),
      },
    };
  },
  coalesce: (m, op) =>
    attempt(() => m.vm.registerCoalescedMmio({ addr: int(op['gpa']), size: int(op['size']), pio: int(op['pio']) })),
  coalread: (m) => {
    const { first, last, entries } = m.vm.coalescedRing();
    const recorded = entries.map((e) => ({
      phys_addr: hex(e.physAddr),
      len: String(e.len),
      pio: String(Number(e.pio)),
      data: bytesHex(e.data.subarray(0, e.len)),
    }));
    return { ...OK, out: { first, last, ...(recorded.length === 0 ? {} : { entries: recorded }) } };
  },
  ioeventfd: (m, op) =>
    attempt(() =>
      m.vm.ioeventfd({
        eventfd: m.event(op['ev']),
        addr: bigInt(op['gpa']),
        len: int(op['len']),
        datamatch: bigInt(op['match']),
        flags: int(op['flags']),
      }),
    ),
  evread: (m, op) => {
    const count = m.event(op['ev']).read();
    return { ...(count === 0n ? fromErrno(-11) : OK), out: { count: Number(count) } };
  },
  msr: (m, op) => attempt(() => m.vcpu(op).setMsrs([{ index: int(op['index']), data: bigInt(op['data']) }])),
  getmsr: (m, op) => {
    const entries = [{ index: int(op['index']), data: 0n }];
    const result = attempt(() => m.vcpu(op).getMsrs(entries));
    return { ...result, out: { data: hex(entries[0]!.data) } };
  },
  events: (m, op) => {
    const e = m.vcpu(op).getVcpuEvents();
    return {
      ...OK,
      out: {
        exc_injected: Number(e.exception.injected),
        exc_pending: Number(e.exception.pending),
        exc_nr: e.exception.nr,
        exc_has_error: Number(e.exception.hasErrorCode),
        exc_error: hex(e.exception.errorCode),
        exc_has_payload: Number(e.exceptionHasPayload),
        exc_payload: hex(e.exceptionPayload),
        triple_fault: Number(e.tripleFault.pending),
      },
    };
  },
  events2: (m, op) => {
    let e: ReturnType<Vcpu['getVcpuEvents']> | undefined;
    const result = attempt(() => {
      e = m.vcpu(op).getVcpuEvents();
    });
    return {
      ...result,
      out: {
        exc_injected: Number(e?.exception.injected ?? 0),
        exc_pending: Number(e?.exception.pending ?? 0),
        exc_nr: e?.exception.nr ?? 0,
        exc_has_error: Number(e?.exception.hasErrorCode ?? 0),
        exc_error: hex(e?.exception.errorCode ?? 0),
        smm: Number(e?.smi.smm ?? 0),
        smi_pending: Number(e?.smi.pending ?? 0),
        smm_inside_nmi: Number(e?.smi.smmInsideNmi ?? 0),
        latched_init: Number(e?.smi.latchedInit ?? 0),
        int_injected: Number(e?.interrupt.injected ?? 0),
        int_nr: e?.interrupt.nr ?? 0,
        nmi_pending: e?.nmi.pending ?? 0,
        nmi_injected: Number(e?.nmi.injected ?? 0),
        nmi_masked: Number(e?.nmi.masked ?? 0),
        triple_fault: Number(e?.tripleFault.pending ?? 0),
        evflags: hex(e?.flags ?? 0),
      },
    };
  },
  smi: (m, op) => attempt(() => m.vcpu(op).smi()),
  nmi: (m, op) => attempt(() => m.vcpu(op).nmi()),
  interrupt: (m, op) => attempt(() => m.vcpu(op).injectInterrupt(int(op['irq']))),
  getmpstate: (m, op) => ({ ...OK, out: { mp_state: m.vcpu(op).getMpState() } }),
  mpstate: (m, op) => attempt(() => m.vcpu(op).setMpState(int(op['state']))),
  lapic: (m, op) => {
    let page = new Uint8Array(1024);
    const result = attempt(() => {
      page = m.vcpu(op).getLapic().slice();
    });
    const reg = new DataView(page.buffer, page.byteOffset).getUint32(int(op['off']), true);
    return { ...result, out: { reg: `0x${reg.toString(16).padStart(8, '0')}` } };
  },
  guestdebug: (m, op) => attempt(() => m.vcpu(op).setGuestDebug({ control: int(op['control']) })),
  later: (m, op) => m.helper.later(int(op['delay']), () => runOp(m, { ...op, op: op['what'] as string })),
  join: (m) => m.helper.join(),
  sleep: () => OK,
  nstate,
  leavenested: leaveNested,
  saverestore: saveRestore,
};

/** Runs one operation. @throws UnsupportedError */
export function runOp(machine: ScenarioMachine, op: Op): OpAnswer {
  const onHost = machine.host.run(op);
  const handler = handlers[op.op];
  if (onHost === null && handler === undefined) throw new UnsupportedError(`the operation "${op.op}"`);
  const answer = onHost ?? answerOf(() => handler!(machine, op));
  const signals = machine.host.signals();
  return Object.keys(signals).length === 0 ? answer : { ...answer, out: { ...answer.out, ...signals } };
}

/** The answer of a handler, or the errno that it threw. */
function answerOf(handle: () => OpAnswer): OpAnswer {
  try {
    return handle();
  } catch (error) {
    if (error instanceof KvmError) return fromErrno(-error.code);
    if (error instanceof MissingVcpuError) return { ret: null, errno: null };
    throw error;
  }
}

function gmem(m: ScenarioMachine, op: Op): GuestMemfd {
  const file = m.gmems.get(int(op['gmem']));
  if (file === undefined) throw new KvmError(EBADF, op.op, 'a guest_memfd that could not be created');
  return file;
}

/** What the slot names as its guest_memfd: one of ours, the file of a memory object, or a raw descriptor number. */
function descriptor(m: ScenarioMachine, op: Op): UserMemoryRegion2['guestMemfd'] {
  if (op['gmem'] !== undefined) return m.gmems.get(int(op['gmem'])) ?? -1;
  if (op['gfd_mem'] !== undefined) return m.host.file(op['gfd_mem']) ?? undefined;
  return op['gfd'] === undefined ? undefined : int(op['gfd']);
}

function setSlot(m: ScenarioMachine, op: Op, version: 1 | 2): OpAnswer {
  const region = {
    slot: int(op['slot']),
    flags: int(op['flags']),
    guestPhysAddr: bigInt(op['gpa']),
    memorySize: bigInt(op['size']),
    userspaceAddr:
      op['hva'] !== undefined ? bigInt(op['hva']) : op['mem'] === undefined ? 0 : m.host.hva(op['mem'], op['off']),
  };
  if (version === 1) return attempt(() => m.vm.setUserMemoryRegion(region));
  const fd = descriptor(m, op);
  return attempt(() =>
    m.vm.setUserMemoryRegion2({
      ...region,
      ...(fd === undefined ? {} : { guestMemfd: fd }),
      guestMemfdOffset: bigInt(op['goff']),
      pad1: int(op['pad1']),
    }),
  );
}
