/** A TD built by SEAMCALLs alone, without a hypervisor: for tests of the module and of what runs in it. */
import { expect } from 'vitest';
import * as T from '../../arch/tdx.ts';
import { VMCS_REVISION } from '../../arch/vmcs.ts';
import { PhysicalMemory } from '../../host/physical-memory.ts';
import { Processor } from '../processor.ts';
import { siliconSapphireRapids } from '../profiles/silicon-sapphire-rapids.ts';

export const HKID = 33;
/** Where the TD's code, in 64-bit mode, begins; its tables lie in the pages below. */
export const CODE64 = 0xfffff040;
/** The linear address that maps the shared half of the guest's memory. */
export const SHARED_WINDOW = 2 ** 39;
const FIRST_PAGE = 0xffffc;
const PAGES = 0x3200000;

/** Four pages: page tables, and code that turns on paging and goes on at CODE64. */
export function firmware(code: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(4 * 4096);
  const view = new DataView(bytes.buffer);
  const base = FIRST_PAGE * 4096;
  const entry = (page: number, i: number, lo: number, hi = 0): void => {
    view.setUint32(page * 4096 + i * 8, lo, true);
    view.setUint32(page * 4096 + i * 8 + 4, hi, true);
  };
  entry(0, 0, base + 0x1003);
  entry(0, 1, base + 0x2003);
  for (let i = 0; i < 4; i++) {
    entry(1, i, i * 0x40000000 + 0x83);
    entry(2, i, i * 0x40000000 + 0x83, 1 << 15);
  }
  // lgdt [0xffffffa0]; mov eax, cr4; or eax, 0x20; mov cr4, eax; mov eax, 0xffffc000; mov cr3, eax;
  // mov eax, cr0; or eax, 0x80000000; mov cr0, eax; ljmp 8:0xfffff040
  bytes.set(
    [
      0x0f, 0x01, 0x15, 0xa0, 0xff, 0xff, 0xff, 0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, 0xb8, 0, 0xc0,
      0xff, 0xff, 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xc0, 0x0d, 0, 0, 0, 0x80, 0x0f, 0x22, 0xc0, 0xea, 0x40, 0xf0, 0xff,
      0xff, 8, 0,
    ],
    0x3000,
  );
  bytes.set(code, 0x3040);
  bytes.set([0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0], 0x3f88);
  bytes.set([15, 0, 0x80, 0xff, 0xff, 0xff], 0x3fa0);
  bytes.set([0xe9, 0x0b, 0xf0, 0xff, 0xff], 0x3ff0);
  return bytes;
}

export class BareTd {
  readonly memory = new PhysicalMemory(64 * 1024 * 1024);
  readonly processor = new Processor(this.memory, siliconSapphireRapids);
  readonly module = this.processor.tdx;
  readonly args = { rcx: 0, rdx: 0, r8: 0, r9: 0 };
  readonly gprs = new Int32Array(32);
  /** Next page that nobody has. */
  private next = PAGES;
  readonly tdr = this.page();
  readonly tdvpr = this.page();
  readonly params = this.page();

  constructor() {
    const vmxon = this.page();
    this.memory.i32[vmxon >> 2] = VMCS_REVISION;
    this.processor.vmx.vmxon(vmxon);
    const view = new DataView(this.memory.memory.buffer, this.params, 1024);
    view.setInt32(T.TD_PARAMS_ATTRIBUTES, T.TD_ATTR_SEPT_VE_DISABLE, true);
    view.setInt32(T.TD_PARAMS_XFAM, 3, true);
    view.setUint16(T.TD_PARAMS_MAX_VCPUS, 1, true);
    view.setInt32(T.TD_PARAMS_EPTP_CONTROLS, 0x1e, true);
    view.setUint16(T.TD_PARAMS_TSC_FREQUENCY, 40, true);
    view.setUint32(T.TD_PARAMS_CPUID, 0xd, true);
  }

  /** A page of the host, by physical address. */
  page(): number {
    this.next += 4096;
    return this.next - 4096;
  }

  /** A status as [code, detail]. */
  call(leaf: number, rcx: number, rdx = 0, r8 = 0, r9 = 0): [number, number] {
    Object.assign(this.args, { rcx, rdx, r8, r9 });
    const status = this.module.seamcall(leaf, this.args);
    return [T.tdxCode(status), T.tdxDetail(status)];
  }

  ok(leaf: number, rcx: number, rdx = 0, r8 = 0, r9 = 0): void {
    expect(this.call(leaf, rcx, rdx, r8, r9), `leaf ${leaf}`).toEqual([T.TDX_SUCCESS, 0]);
  }

  /** Up to TDH.MNG.INIT. */
  create(): this {
    this.ok(T.TDH_SYS_INIT, 0);
    this.ok(T.TDH_MNG_CREATE, this.tdr, HKID);
    this.ok(T.TDH_MNG_KEY_CONFIG, this.tdr);
    for (let i = 0; i < T.TDCX_PAGES; i++) this.ok(T.TDH_MNG_ADDCX, this.page(), this.tdr);
    this.ok(T.TDH_MNG_INIT, this.tdr, this.params);
    return this;
  }

  /** A vCPU. */
  vcpu(): this {
    this.ok(T.TDH_VP_CREATE, this.tdvpr, this.tdr);
    for (let i = 0; i < T.TDVPX_PAGES; i++) this.ok(T.TDH_VP_ADDCX, this.page(), this.tdvpr);
    this.ok(T.TDH_VP_INIT, this.tdvpr, 0x1234, 7);
    return this;
  }

  /** Tables of the secure EPT down to `gfn`. */
  tables(gfn: number): void {
    for (const level of [3, 2, 1]) {
      const size = 512 ** level;
      const [code] = this.call(T.TDH_MEM_SEPT_ADD, Math.floor(gfn / size) * size * 4096 + level, this.tdr, this.page());
      expect([T.TDX_SUCCESS, T.TDX_EPT_ENTRY_STATE_INCORRECT]).toContain(code);
    }
  }

  /** Adds and measures the firmware with `code`, and finishes the build. */
  boot(code: readonly number[]): this {
    const source = this.page();
    const bytes = firmware(code);
    for (let i = 0; i < 4; i++) {
      const gfn = FIRST_PAGE + i;
      this.tables(gfn);
      this.memory.u8.set(bytes.subarray(i * 4096, (i + 1) * 4096), source);
      this.ok(T.TDH_MEM_PAGE_ADD, gfn * 4096, this.tdr, this.page(), source);
      for (let at = 0; at < 4096; at += 256) this.ok(T.TDH_MR_EXTEND, gfn * 4096 + at, this.tdr);
    }
    this.ok(T.TDH_MR_FINALIZE, this.tdr);
    return this;
  }

  /** TDH.VP.ENTER: code and exit reason. */
  enter(): [number, number] {
    this.processor.setBudget(10_000);
    const status = this.module.vpEnter(this.tdvpr, this.gprs);
    return [T.tdxCode(status), T.tdxDetail(status)];
  }

  /** General register `n` after an exit. */
  gpr(n: number): number {
    return (this.gprs[2 * n + 1]! >>> 0) * 0x1_0000_0000 + (this.gprs[2 * n]! >>> 0);
  }
}

/** Code: `mov r64, value` for each register by number, then TDCALL with `leaf` in RAX. */
export function tdcall(leaf: number, registers: { readonly [n: number]: number } = {}): number[] {
  const code: number[] = [];
  for (const [n, value] of Object.entries({ ...registers, 0: leaf })) {
    const register = Number(n);
    code.push(register < 8 ? 0x48 : 0x49, 0xb8 | (register & 7));
    for (let i = 0; i < 8; i++) code.push(Math.floor(value / 256 ** i) % 256);
  }
  return [...code, 0x66, 0x0f, 0x01, 0xcc];
}
