/**
 * The launch of an SNP guest: all of RAM private, and in it what the image and the VMM's tables are made of, measured by the firmware. The other
 * pages the guest has to validate.
 */
import type { Vm } from '../kvm/api/vm.ts';
import {
  KVM_SEV_INIT2,
  KVM_SEV_SNP_LAUNCH_FINISH,
  KVM_SEV_SNP_LAUNCH_START,
  KVM_SEV_SNP_LAUNCH_UPDATE,
  type SnpLaunchUpdate,
} from '../kvm/svm/sev/launch.ts';
import { firmwareOf } from '../kvm/svm/sev/snp-host.ts';
import type { Board } from './board.ts';

/** SMT may be on; the bit that must be set; any version of the firmware. */
const POLICY = 0x30000;
const PAGE = 4096;
const MIB = 1024 * 1024;

/** Types of pages (the firmware's numbers). */
const NORMAL = 1;
const ZERO = 3;
const SECRETS = 5;
const CPUID = 6;

/** Where the guest finds its secrets and the CPUID table, as OVMF has them. */
export const SNP_SECRETS_GPA = 0x80d000;
export const SNP_CPUID_GPA = 0x80e000;

/** Right after KVM_CREATE_VM, before there are vCPUs. @throws KvmError */
export function initSnp(vm: Vm): void {
  vm.memoryEncryptOp({ id: KVM_SEV_INIT2, data: {} });
}

/** The table of the CPUID page: the first vCPU's leaves, as far as the processor has them itself. */
function cpuidPage(board: Board): Uint8Array {
  const page = new Uint8Array(PAGE);
  const view = new DataView(page.buffer);
  const known = new Set(board.kvm.profile.cpuid.map((e) => e.leaf));
  const entries = board.vcpu.getCpuid2().filter((e) => known.has(e.function));
  view.setUint32(0, Math.min(entries.length, 64), true);
  for (const [i, e] of entries.slice(0, 64).entries()) {
    const at = 16 + 48 * i;
    for (const [n, word] of [e.function, e.index].entries()) view.setUint32(at + 4 * n, word, true);
    for (const [n, word] of [e.eax, e.ebx, e.ecx, e.edx].entries()) view.setUint32(at + 24 + 4 * n, word, true);
  }
  return page;
}

/** Pages that are part of the launch, by their number: those of the image, and what else the VMM wrote into the first MiB. */
function launchPages(board: Board, segments: readonly { gpa: number; size: number }[]): number[] {
  const pages = new Set<number>();
  for (const { gpa, size } of segments) {
    for (let page = Math.floor(gpa / PAGE); page * PAGE < gpa + size; page++) pages.add(page);
  }
  for (let page = 0; page < MIB / PAGE; page++) {
    if (board.readMemory(page * PAGE, PAGE).some((byte) => byte !== 0)) pages.add(page);
  }
  return [...pages].sort((a, b) => a - b);
}

/** Launches what was loaded into the board's memory. @throws KvmError with what KVM or the firmware refuses */
export function launchSnp(board: Board, segments: readonly { gpa: number; size: number }[], memoryBytes: number): void {
  const { vm } = board;
  board.convertAll(true);
  vm.memoryEncryptOp({ id: KVM_SEV_SNP_LAUNCH_START, data: { policy: POLICY } });
  const add = (gpa: number, type: number): void => {
    const data: SnpLaunchUpdate = { gfnStart: gpa / PAGE, uaddr: board.hostAddress(gpa), len: PAGE, type };
    vm.memoryEncryptOp({ id: KVM_SEV_SNP_LAUNCH_UPDATE, data });
  };
  for (const page of launchPages(board, segments)) {
    const empty = board.readMemory(page * PAGE, PAGE).every((byte) => byte === 0);
    add(page * PAGE, empty ? ZERO : NORMAL);
  }
  if (memoryBytes > SNP_CPUID_GPA + PAGE) {
    add(SNP_SECRETS_GPA, SECRETS);
    board.writeMemory(SNP_CPUID_GPA, cpuidPage(board));
    add(SNP_CPUID_GPA, CPUID);
  }
  vm.memoryEncryptOp({ id: KVM_SEV_SNP_LAUNCH_FINISH, data: {} });
}

/** The launch digest in hexadecimal, as an attestation report would have it; null of another VM. */
export function launchMeasurement(vm: Vm): string | null {
  const { sev } = vm.state;
  if (sev === null || sev.context < 0) return null;
  const digest = firmwareOf(vm.state).measurement(sev.context);
  return digest === null ? null : [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
