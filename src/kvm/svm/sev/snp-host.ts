/**
 * SNP on the host: the reverse map and the firmware, switched on when the first SNP guest is made (silicon does it at boot), and RMPUPDATE as the
 * kernel uses it (@kvm arch/x86/virt/svm/sev.c).
 */
import { RMP_FAIL_OVERLAP } from '../../../arch/rmp.ts';
import type { Processor } from '../../../cpu/processor.ts';
import { EFAULT, ENOMEM } from '../../../host/errno.ts';
import type { HostMachine } from '../../../host/machine.ts';
import type { VmState } from '../../vm-state.ts';
import { allocContiguous } from '../contiguous-pages.ts';

/** ASIDs of guests with encrypted state, one bit each in use. */
interface SnpHost {
  readonly asids: Set<number>;
}

const hosts = new WeakMap<HostMachine, SnpHost>();

/** The machine's SNP, switched on; -ENOMEM when there is no room for the reverse map. @kvm virt/svm/sev.c snp_rmptable_init */
export function snpHost(vm: VmState): SnpHost | number {
  const known = hosts.get(vm.host);
  if (known !== undefined) return known;
  const snp = vm.processor.snp!;
  const count = Math.ceil(snp.rmpBytes / 4096);
  const pfn = allocRun(vm, count);
  if (pfn < 0) return -ENOMEM;
  snp.enable(pfn * 4096);
  const made = { asids: new Set<number>() };
  hosts.set(vm.host, made);
  return made;
}

/** Neighbouring frames beyond what a few small pages give: from huge ones that lie next to each other. */
function allocRun(vm: VmState, count: number): number {
  const { pages } = vm.host;
  if (count <= 16) return allocContiguous(pages, count);
  const got: number[] = [];
  let first = -1;
  while (first < 0) {
    const pfn = pages.allocHuge();
    if (pfn < 0) break;
    got.push(pfn);
    got.sort((a, b) => a - b);
    const needed = Math.ceil(count / 512);
    for (let i = 0; i + needed <= got.length && first < 0; i++) {
      if (got[i + needed - 1]! - got[i]! === (needed - 1) * 512) first = got[i]!;
    }
  }
  for (const pfn of got) {
    if (first >= 0 && pfn >= first && pfn < first + count) vm.memory.u8.fill(0, pfn * 4096, (pfn + 512) * 4096);
    else pages.put(pfn, 512);
  }
  return first;
}

type Snp = NonNullable<Processor['snp']>;
type RmpState = Parameters<Snp['rmpupdate']>[1];

export const firmwareOf = (vm: VmState): Snp['firmware'] => vm.processor.snp!.firmware;
const rmpOf = (vm: VmState): NonNullable<Snp['rmp']> => vm.processor.snp!.rmp!;

/** RMPUPDATE: 0 or -EFAULT. @kvm virt/svm/sev.c rmpupdate */
export function rmpupdate(vm: VmState, pfn: number, state: RmpState): number {
  const result = vm.processor.snp!.rmpupdate(pfn, state);
  if (result === 0) return 0;
  const level = state.large ? 2 : 1;
  const why = result === RMP_FAIL_OVERLAP ? ' (overlap)' : '';
  vm.log.prWarnRatelimited(
    'rmpupdate',
    `RMPUPDATE failed for PFN ${pfn.toString(16)}, pg_level: ${level}, ret: ${result}${why}`,
  );
  return -EFAULT;
}

/** The page becomes the guest's. @kvm virt/svm/sev.c rmp_make_private */
export function rmpMakePrivate(
  vm: VmState,
  pfn: number,
  gfn: number,
  large: boolean,
  asid: number,
  immutable: boolean,
): number {
  return rmpupdate(vm, pfn, { assigned: true, asid, gfn, large, immutable });
}

/** The page becomes the host's. @kvm virt/svm/sev.c rmp_make_shared */
export function rmpMakeShared(vm: VmState, pfn: number, large: boolean): number {
  return rmpupdate(vm, pfn, { assigned: false, asid: 0, gfn: 0, large, immutable: false });
}

/** @kvm virt/svm/sev.c snp_lookup_rmpentry */
export function rmpAssigned(vm: VmState, pfn: number): boolean {
  return rmpOf(vm).assigned(pfn);
}
/** 2 when the entry stands for 2 MiB, else 1. */
export function rmpLevel(vm: VmState, pfn: number): number {
  return rmpOf(vm).large(pfn) ? 2 : 1;
}

/** @kvm sev.c snp_rmptable_psmash */
export function rmpSmash(vm: VmState, pfn: number): number {
  return vm.processor.snp!.psmash(pfn - (pfn % 512));
}

/** Takes a page back that the firmware may hold, and makes it the host's. @kvm sev.c snp_page_reclaim */
export function snpPageReclaim(vm: VmState, pfn: number): number {
  const status = firmwareOf(vm).pageReclaim(pfn);
  if (status !== 0) {
    vm.log.prWarnRatelimited('snp_page_reclaim', `cannot reclaim frame ${pfn.toString(16)}: firmware status ${status}`);
    return -EFAULT;
  }
  return rmpMakeShared(vm, pfn, false);
}
