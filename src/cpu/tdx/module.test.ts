import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { R8, R9, R10, R11, R12, RAX, RCX, RDX, RSI } from '../../arch/registers.ts';
import * as T from '../../arch/tdx.ts';
import {
  EXIT_REASON_EPT_VIOLATION,
  EXIT_REASON_TDCALL,
  EXIT_REASON_TRIPLE_FAULT,
} from '../../arch/vmx-exit-reasons.ts';
import { PhysicalMemory } from '../../host/physical-memory.ts';
import { Processor } from '../processor.ts';
import { siliconSkylake } from '../profiles/silicon-skylake.ts';
import { BareTd, HKID, SHARED_WINDOW, tdcall } from './bare-td.testing.ts';
import { PT_EPT, PT_NDA, PT_REG, PT_TDR } from './pamt.ts';
import { SEPT_BLOCKED, SEPT_FREE, SEPT_PENDING, SEPT_PENDING_BLOCKED, SEPT_PRESENT } from './secure-ept.ts';

const OK = T.TDX_SUCCESS;
const { OPERAND_ID_RCX: RCX_ID, OPERAND_ID_RDX: RDX_ID, OPERAND_ID_R8: R8_ID } = T;
/** A VMCALL that shows the host R10 to R12, RAX moved to R12 first. */
const SHOW = [0x49, 0x89, 0xc4, ...tdcall(T.TDG_VP_VMCALL, { [RCX]: 0x1c00, [R10]: 0, [R11]: 0x10 })];
const LOW_PAGE = 0x5000;

function stateOf(td: BareTd, gpa: number): number {
  td.ok(T.TDH_MEM_SEPT_RD, gpa, td.tdr);
  return td.args.rdx >>> 8;
}

describe('building a TD', () => {
  it('needs hardware that has TDX, and VMX operation', () => {
    const plain = new Processor(new PhysicalMemory(64 * 1024 * 1024), siliconSkylake);
    expect(T.tdxCode(plain.tdx.seamcall(T.TDH_SYS_INIT, { rcx: 0, rdx: 0, r8: 0, r9: 0 }))).toBe(
      T.TDX_SEAMCALL_VMFAILINVALID,
    );
    const td = new BareTd();
    expect(td.call(T.TDH_MNG_CREATE, td.tdr, HKID)).toEqual([T.TDX_SYS_NOT_READY, 0]);
    td.processor.vmx.vmxoff();
    expect(td.call(T.TDH_SYS_INIT, 0)[0]).toBe(T.TDX_SEAMCALL_VMFAILINVALID);
  });

  it('goes in one order', () => {
    const td = new BareTd();
    td.ok(T.TDH_SYS_INIT, 0);
    expect(td.call(T.TDH_MNG_KEY_CONFIG, td.tdr)).toEqual([T.TDX_PAGE_METADATA_INCORRECT, RCX_ID]);
    expect(td.call(T.TDH_MNG_CREATE, td.tdr, 3)).toEqual([T.TDX_OPERAND_INVALID, RDX_ID]);
    td.ok(T.TDH_MNG_CREATE, td.tdr, HKID);
    expect(td.call(T.TDH_MNG_CREATE, td.tdr, HKID + 1)).toEqual([T.TDX_PAGE_METADATA_INCORRECT, RCX_ID]);
    expect(td.call(T.TDH_MNG_CREATE, td.page(), HKID)).toEqual([T.TDX_HKID_NOT_FREE, RDX_ID]);
    expect(td.call(T.TDH_MNG_ADDCX, td.page(), td.tdr)).toEqual([T.TDX_TD_KEYS_NOT_CONFIGURED, RDX_ID]);
    td.ok(T.TDH_MNG_KEY_CONFIG, td.tdr);
    expect(td.call(T.TDH_MNG_KEY_CONFIG, td.tdr)).toEqual([T.TDX_KEY_CONFIGURED, RCX_ID]);
    expect(td.call(T.TDH_MNG_INIT, td.tdr, td.params)).toEqual([T.TDX_TDCS_NOT_ALLOCATED, RCX_ID]);
    for (let i = 0; i < T.TDCX_PAGES; i++) td.ok(T.TDH_MNG_ADDCX, td.page(), td.tdr);
    expect(td.call(T.TDH_MNG_ADDCX, td.page(), td.tdr)).toEqual([T.TDX_TDCX_NUM_INCORRECT, T.OPERAND_ID_TDR]);
    expect(td.call(T.TDH_VP_CREATE, td.tdvpr, td.tdr)).toEqual([T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE]);
    td.ok(T.TDH_MNG_INIT, td.tdr, td.params);
    td.vcpu();
    expect(td.call(T.TDH_VP_INIT, td.tdvpr)).toEqual([T.TDX_VCPU_STATE_INCORRECT, RCX_ID]);
    expect(td.enter()).toEqual([T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE]);
  });

  it.each([
    [T.TD_PARAMS_ATTRIBUTES, T.TD_ATTR_DEBUG, T.OPERAND_ID_ATTRIBUTES],
    [T.TD_PARAMS_XFAM, 1, T.OPERAND_ID_XFAM],
    [T.TD_PARAMS_MAX_VCPUS, 0, T.OPERAND_ID_MAX_VCPUS],
    [T.TD_PARAMS_EPTP_CONTROLS, 0x26, T.OPERAND_ID_EPTP_CONTROLS],
    [T.TD_PARAMS_CONFIG_FLAGS, T.TDX_CONFIG_FLAGS_MAX_GPAW, T.OPERAND_ID_EXEC_CONTROLS],
  ])('names the parameter at %i that cannot be', (at, value, operand) => {
    const td = new BareTd();
    td.memory.i32[(td.params + at) >> 2] = value;
    td.ok(T.TDH_SYS_INIT, 0);
    td.ok(T.TDH_MNG_CREATE, td.tdr, HKID);
    td.ok(T.TDH_MNG_KEY_CONFIG, td.tdr);
    for (let i = 0; i < T.TDCX_PAGES; i++) td.ok(T.TDH_MNG_ADDCX, td.page(), td.tdr);
    expect(td.call(T.TDH_MNG_INIT, td.tdr, td.params)).toEqual([T.TDX_OPERAND_INVALID, operand]);
  });

  it('measures what is added: names, addresses and contents', () => {
    const td = new BareTd().create();
    const source = td.page();
    td.memory.u8.fill(0x5a, source, source + 4096);
    td.tables(LOW_PAGE / 4096);
    td.ok(T.TDH_MEM_PAGE_ADD, LOW_PAGE, td.tdr, td.page(), source);
    for (let at = 0; at < 4096; at += 256) td.ok(T.TDH_MR_EXTEND, LOW_PAGE + at, td.tdr);
    td.ok(T.TDH_MR_FINALIZE, td.tdr);
    const hash = createHash('sha384');
    const event = (name: string, gpa: number): Buffer => {
      const block = Buffer.alloc(128);
      block.write(name);
      block.writeUInt32LE(gpa, 16);
      return block;
    };
    hash.update(event('MEM.PAGE.ADD', LOW_PAGE));
    for (let at = 0; at < 4096; at += 256)
      hash.update(event('MR.EXTEND', LOW_PAGE + at)).update(Buffer.alloc(256, 0x5a));
    const mrtd = td.module.tds.get(td.tdr / 4096)!.mrtd!;
    expect(Buffer.from(mrtd).toString('hex')).toBe(hash.digest('hex'));
    expect(td.call(T.TDH_MR_EXTEND, LOW_PAGE, td.tdr)).toEqual([T.TDX_OP_STATE_INCORRECT, T.OPERAND_ID_OP_STATE]);
    expect(td.call(T.TDH_MEM_PAGE_ADD, 0x6000, td.tdr, td.page(), source)[0]).toBe(T.TDX_OP_STATE_INCORRECT);
  });

  it('knows whose every page is, and the host reads zeros of it', () => {
    const td = new BareTd().create().vcpu();
    const source = td.page();
    const page = td.page();
    td.memory.u8.fill(0x77, source, source + 4096);
    td.tables(LOW_PAGE / 4096);
    expect(td.call(T.TDH_MEM_PAGE_ADD, LOW_PAGE, td.tdr, td.tdr, source)).toEqual([
      T.TDX_PAGE_METADATA_INCORRECT,
      R8_ID,
    ]);
    td.ok(T.TDH_MEM_PAGE_ADD, LOW_PAGE, td.tdr, page, source);
    expect([...td.module.readAsHost(page, 2)]).toEqual([0, 0]);
    expect([...td.module.readAsHost(source, 2)]).toEqual([0x77, 0x77]);
    td.ok(T.TDH_PHYMEM_PAGE_RDMD, page);
    expect([td.args.rcx, td.args.rdx]).toEqual([PT_REG, td.tdr]);
    td.ok(T.TDH_PHYMEM_PAGE_RDMD, source);
    expect(td.args.rcx).toBe(PT_NDA);
    expect(td.call(T.TDH_PHYMEM_PAGE_RECLAIM, page)).toEqual([T.TDX_LIFECYCLE_STATE_INCORRECT, T.OPERAND_ID_TDR]);
  });
});

describe('the secure EPT', () => {
  it('is walked level by level', () => {
    const td = new BareTd().create();
    expect(td.call(T.TDH_MEM_PAGE_ADD, LOW_PAGE, td.tdr, td.page(), td.page())).toEqual([
      T.TDX_EPT_WALK_FAILED,
      RCX_ID,
    ]);
    expect(td.args.rdx).toBe(3 | (SEPT_FREE << 8));
    expect(td.call(T.TDH_MEM_SEPT_ADD, LOW_PAGE + 1, td.tdr, td.page())).toEqual([T.TDX_OPERAND_INVALID, RCX_ID]);
    expect(td.call(T.TDH_MEM_SEPT_ADD, 2 ** 47 + 3, td.tdr, td.page())).toEqual([T.TDX_OPERAND_INVALID, RCX_ID]);
    td.tables(LOW_PAGE / 4096);
    expect(td.call(T.TDH_MEM_SEPT_ADD, 1, td.tdr, td.page())).toEqual([T.TDX_EPT_ENTRY_STATE_INCORRECT, RCX_ID]);
    td.ok(T.TDH_PHYMEM_PAGE_RDMD, Math.floor(td.args.rcx / 4096) * 4096);
    expect(td.args.rcx).toBe(PT_EPT);
    expect(stateOf(td, LOW_PAGE)).toBe(SEPT_FREE);
  });

  it('gives pages up only after BLOCK, TRACK and REMOVE, in that order', () => {
    const td = new BareTd().create().vcpu().boot([]);
    const page = td.page();
    td.tables(LOW_PAGE / 4096);
    td.ok(T.TDH_MEM_PAGE_AUG, LOW_PAGE, td.tdr, page);
    expect(stateOf(td, LOW_PAGE)).toBe(SEPT_PENDING);
    expect(td.call(T.TDH_MEM_PAGE_AUG, LOW_PAGE, td.tdr, td.page())[0]).toBe(T.TDX_EPT_ENTRY_STATE_INCORRECT);
    expect(td.call(T.TDH_MEM_PAGE_REMOVE, LOW_PAGE, td.tdr)).toEqual([T.TDX_GPA_RANGE_NOT_BLOCKED, RCX_ID]);
    td.ok(T.TDH_MEM_RANGE_BLOCK, LOW_PAGE, td.tdr);
    expect(stateOf(td, LOW_PAGE)).toBe(SEPT_PENDING_BLOCKED);
    expect(td.call(T.TDH_MEM_RANGE_BLOCK, LOW_PAGE, td.tdr)[0]).toBe(T.TDX_GPA_RANGE_ALREADY_BLOCKED);
    expect(td.call(T.TDH_MEM_PAGE_REMOVE, LOW_PAGE, td.tdr)).toEqual([T.TDX_TLB_TRACKING_NOT_DONE, RCX_ID]);
    td.ok(T.TDH_MEM_TRACK, td.tdr);
    td.ok(T.TDH_MEM_PAGE_REMOVE, LOW_PAGE, td.tdr);
    expect(stateOf(td, LOW_PAGE)).toBe(SEPT_FREE);
    td.ok(T.TDH_PHYMEM_PAGE_RDMD, page);
    expect(td.args.rcx).toBe(PT_NDA);
  });

  it('a table goes when it is empty and was blocked; a block can be taken back', () => {
    const td = new BareTd().create().vcpu().boot([]);
    td.tables(LOW_PAGE / 4096);
    td.ok(T.TDH_MEM_PAGE_AUG, LOW_PAGE, td.tdr, td.page());
    expect(td.call(T.TDH_MEM_SEPT_REMOVE, 1, td.tdr)[0]).toBe(T.TDX_GPA_RANGE_NOT_BLOCKED);
    td.ok(T.TDH_MEM_RANGE_BLOCK, 1, td.tdr);
    expect(stateOf(td, 1)).toBe(SEPT_BLOCKED);
    expect(td.call(T.TDH_MEM_RANGE_UNBLOCK, 1, td.tdr)).toEqual([T.TDX_TLB_TRACKING_NOT_DONE, T.OPERAND_ID_SEPT]);
    td.ok(T.TDH_MEM_TRACK, td.tdr);
    expect(td.call(T.TDH_MEM_SEPT_REMOVE, 1, td.tdr)).toEqual([T.TDX_EPT_PAGE_NOT_FREE, RCX_ID]);
    td.ok(T.TDH_MEM_RANGE_UNBLOCK, 1, td.tdr);
    expect(stateOf(td, 1)).toBe(SEPT_PRESENT);
    td.ok(T.TDH_MEM_RANGE_BLOCK, LOW_PAGE, td.tdr);
    td.ok(T.TDH_MEM_TRACK, td.tdr);
    td.ok(T.TDH_MEM_PAGE_REMOVE, LOW_PAGE, td.tdr);
    td.ok(T.TDH_MEM_RANGE_BLOCK, 1, td.tdr);
    td.ok(T.TDH_MEM_TRACK, td.tdr);
    td.ok(T.TDH_MEM_SEPT_REMOVE, 1, td.tdr);
  });
});

describe('a TD', () => {
  it('starts at the reset vector, shows the host what it wants, and gets answers', () => {
    const td = new BareTd()
      .create()
      .vcpu()
      .boot([
        // The reset vector's RCX and RSI.
        0x49,
        0x89,
        0xcb,
        0x49,
        0x89,
        0xf4,
        ...tdcall(T.TDG_VP_VMCALL, { [RCX]: 0x1c00, [R10]: 5 }),
        // What came back, plus one.
        0x49,
        0xff,
        0xc3,
        0x4d,
        0x89,
        0xdc,
        0xbe,
        99,
        0,
        0,
        0,
        ...tdcall(T.TDG_VP_VMCALL, { [RCX]: 0x1000 }),
      ]); // prettier-ignore
    expect(td.enter()).toEqual([OK, EXIT_REASON_TDCALL]);
    expect([RCX, R10, R11, R12].map((n) => td.gpr(n))).toEqual([0x1c00, 5, 0x1234, 0]);
    td.gprs[2 * R11] = 41;
    expect(td.enter()).toEqual([OK, EXIT_REASON_TDCALL]);
    expect([R11, R12, RSI].map((n) => td.gpr(n))).toEqual([0, 42, 0]);
  });

  it('asks the module: who it is, and wrongly', () => {
    const td = new BareTd()
      .create()
      .vcpu()
      .boot([
        ...tdcall(T.TDG_VP_INFO),
        // R10 and R11 are the width and the attributes.
        0x49,
        0x89,
        0xca,
        0x49,
        0x89,
        0xd3,
        0x4d,
        0x89,
        0xc4,
        ...tdcall(T.TDG_VP_VMCALL, { [RCX]: 0x1c00 }),
        ...tdcall(77),
        ...SHOW,
        ...tdcall(T.TDG_VP_VEINFO_GET),
        ...SHOW,
        ...tdcall(T.TDG_VP_VMCALL, { [RCX]: 0x10 }),
        ...SHOW,
      ]); // prettier-ignore
    td.enter();
    expect([R10, R11, R12].map((n) => td.gpr(n))).toEqual([48, T.TD_ATTR_SEPT_VE_DISABLE, 2 ** 32 + 1]);
    td.enter();
    expect(td.gpr(R12)).toBe(T.TDX_OPERAND_INVALID * 2 ** 32);
    td.enter();
    expect(td.gpr(R12)).toBe(T.TDX_NO_VALID_VE_INFO * 2 ** 32);
    td.enter();
    expect(td.gpr(R12)).toBe(T.TDX_OPERAND_INVALID * 2 ** 32 + RCX_ID);
  });

  it('touches private memory: absent, pending, accepted; blocked, it leaves again', () => {
    const touch = [0xc6, 0x04, 0x25, 0x34, 0x50, 0, 0, 7];
    const accept = tdcall(T.TDG_MEM_PAGE_ACCEPT, { [RCX]: LOW_PAGE });
    const td = new BareTd()
      .create()
      .vcpu()
      .boot([...accept, ...SHOW, ...accept, ...SHOW, ...touch, ...SHOW, ...touch]);
    const page = td.page();
    td.memory.u8.fill(0xee, page, page + 4096);
    expect(td.enter()).toEqual([OK, EXIT_REASON_EPT_VIOLATION]);
    expect([td.gpr(R8), td.gpr(RDX)]).toEqual([LOW_PAGE, T.EXT_EXIT_QUAL_ACCEPT]);
    td.tables(LOW_PAGE / 4096);
    td.ok(T.TDH_MEM_PAGE_AUG, LOW_PAGE, td.tdr, page);
    td.enter();
    expect(td.gpr(R12)).toBe(0);
    expect(td.memory.u8[page + 0x34]).toBe(0);
    td.enter();
    expect(td.gpr(R12)).toBe(T.TDX_PAGE_ALREADY_ACCEPTED * 2 ** 32 + RCX_ID);
    expect(td.enter()).toEqual([OK, EXIT_REASON_TDCALL]);
    expect(td.memory.u8[page + 0x34]).toBe(7);
    td.ok(T.TDH_MEM_RANGE_BLOCK, LOW_PAGE, td.tdr);
    td.ok(T.TDH_MEM_TRACK, td.tdr);
    expect(td.enter()).toEqual([OK, EXIT_REASON_EPT_VIOLATION]);
    expect([td.gpr(R8), td.gpr(RDX), td.gpr(RCX) & 7]).toEqual([LOW_PAGE, 0, 2]);
  });

  it('keeps a blocked translation until the epoch changes, as TLBs do', () => {
    const touch = [0xc6, 0x04, 0x25, 0x34, 0x50, 0, 0, 7];
    const accept = tdcall(T.TDG_MEM_PAGE_ACCEPT, { [RCX]: LOW_PAGE });
    const td = new BareTd()
      .create()
      .vcpu()
      .boot([...accept, ...touch, ...SHOW, ...touch, ...SHOW, ...touch]);
    td.tables(LOW_PAGE / 4096);
    td.ok(T.TDH_MEM_PAGE_AUG, LOW_PAGE, td.tdr, td.page());
    expect(td.enter()).toEqual([OK, EXIT_REASON_TDCALL]);
    td.ok(T.TDH_MEM_RANGE_BLOCK, LOW_PAGE, td.tdr);
    expect(td.enter()).toEqual([OK, EXIT_REASON_TDCALL]);
    td.ok(T.TDH_MEM_TRACK, td.tdr);
    expect(td.enter()).toEqual([OK, EXIT_REASON_EPT_VIOLATION]);
  });

  it('leaves for a page that it has not accepted; or takes #VE, when it was made so', () => {
    const touch = [0xc6, 0x04, 0x25, 0x34, 0x50, 0, 0, 7];
    const td = new BareTd().create().vcpu().boot(touch);
    td.tables(LOW_PAGE / 4096);
    td.ok(T.TDH_MEM_PAGE_AUG, LOW_PAGE, td.tdr, td.page());
    expect(td.enter()).toEqual([OK, EXIT_REASON_EPT_VIOLATION]);
    expect([td.gpr(R8), td.gpr(RDX)]).toEqual([LOW_PAGE, T.EXT_EXIT_QUAL_PENDING]);
    const other = new BareTd();
    other.memory.i32[other.params >> 2] = 0;
    other.create().vcpu().boot(touch);
    other.tables(LOW_PAGE / 4096);
    other.ok(T.TDH_MEM_PAGE_AUG, LOW_PAGE, other.tdr, other.page());
    // #VE without an interrupt table.
    expect(other.enter()).toEqual([T.TDX_NON_RECOVERABLE_VCPU, EXIT_REASON_TRIPLE_FAULT]);
    expect(other.module.vcpus.get(other.tdvpr / 4096)!.ve).toMatchObject({
      valid: true,
      reason: EXIT_REASON_EPT_VIOLATION,
      gpaLo: LOW_PAGE + 0x34,
      length: touch.length,
    });
    expect(other.enter()).toEqual([T.TDX_VCPU_STATE_INCORRECT, RCX_ID]);
  });

  it('reaches shared memory through the host’s tables, by the shared bit', () => {
    // mov rcx, window + 0x5000; mov rax, [rcx]
    const address = SHARED_WINDOW + LOW_PAGE;
    const load = [
      0x48,
      0xb9,
      ...[0, 1, 2, 3, 4, 5, 6, 7].map((i) => Math.floor(address / 256 ** i) % 256),
      0x48,
      0x8b,
      1,
    ];
    const td = new BareTd()
      .create()
      .vcpu()
      .boot([...load, ...SHOW]);
    expect(td.enter()).toEqual([OK, EXIT_REASON_EPT_VIOLATION]);
    expect(td.gpr(R8)).toBe(2 ** 47 + LOW_PAGE);
    const [root, l3, l2, l1, page] = [td.page(), td.page(), td.page(), td.page(), td.page()];
    const { i32 } = td.memory;
    for (const [table, index, next] of [
      [root, 256, l3],
      [l3, 0, l2],
      [l2, 0, l1],
    ] as const) {
      i32[(table >> 2) + 2 * index] = next | 7;
    }
    i32[(l1 >> 2) + 2 * 5] = page | 0x37;
    i32[page >> 2] = 0x600d;
    td.ok(T.TDH_VP_WR, td.tdvpr, 0x203c, root);
    expect(td.enter()).toEqual([OK, EXIT_REASON_TDCALL]);
    expect(td.gpr(R12)).toBe(0x600d);
  });

  it('its registers are not the host’s, and a capture goes on where it was', () => {
    const td = new BareTd()
      .create()
      .vcpu()
      .boot([...tdcall(T.TDG_VP_INFO), ...SHOW, ...SHOW]);
    td.processor.xmm[3] = 9;
    td.processor.gpr[2 * RAX] = 5;
    const state = td.processor.capture();
    td.enter();
    expect([td.processor.xmm[3], td.processor.gpr[2 * R9]]).toEqual([9, 0]);
    td.processor.restore(state);
    expect(td.enter()).toEqual([OK, EXIT_REASON_TDCALL]);
  });
});

it('the end: keys are freed when no vCPU and no cache holds anything, then pages, the TDR last', () => {
  const td = new BareTd().create().vcpu().boot([]);
  const reclaim = (pfn: number): [number, number] => td.call(T.TDH_PHYMEM_PAGE_RECLAIM, pfn * 4096);
  expect(td.call(T.TDH_MNG_VPFLUSHDONE, td.tdr)).toEqual([T.TDX_FLUSHVP_NOT_DONE, 0]);
  td.ok(T.TDH_VP_FLUSH, td.tdvpr);
  expect(td.call(T.TDH_VP_FLUSH, td.tdvpr)).toEqual([T.TDX_VCPU_NOT_ASSOCIATED, RCX_ID]);
  expect(td.call(T.TDH_MNG_KEY_FREEID, td.tdr)).toEqual([T.TDX_LIFECYCLE_STATE_INCORRECT, RCX_ID]);
  td.ok(T.TDH_MNG_VPFLUSHDONE, td.tdr);
  expect(td.call(T.TDH_MNG_KEY_FREEID, td.tdr)).toEqual([T.TDX_WBCACHE_NOT_COMPLETE, 0]);
  td.ok(T.TDH_PHYMEM_CACHE_WB, 0);
  expect(td.call(T.TDH_PHYMEM_CACHE_WB, 0)[0]).toBe(T.TDX_NO_HKID_READY_TO_WBCACHE);
  td.ok(T.TDH_MNG_KEY_FREEID, td.tdr);
  expect(reclaim(td.tdr / 4096)).toEqual([T.TDX_TD_ASSOCIATED_PAGES_EXIST, RCX_ID]);
  const { type } = td.module.pamt;
  for (let pfn = 0; pfn < type.length; pfn++) {
    if (type[pfn] !== PT_NDA && type[pfn] !== PT_TDR) expect(reclaim(pfn)[0]).toBe(OK);
  }
  expect(reclaim(td.tdr / 4096)[0]).toBe(OK);
  expect(reclaim(td.tdr / 4096)[0]).toBe(T.TDX_PAGE_METADATA_INCORRECT);
});
