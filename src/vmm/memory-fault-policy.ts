/**
 * What a VMM does about KVM_EXIT_MEMORY_FAULT.
 *
 * `convert`: the guest touched memory as private that is shared, or the other way round, so the attribute follows the access. Where the
 * attribute says the same as the access already, the conversion the access stands for was done and does not help: a private page in a
 * slot without guest_memfd, or where there is no slot at all. Such a page can only work as shared, so it becomes shared. A fault that
 * comes back unchanged right after a conversion of its page will come back for ever, and ends the run, as the API's documentation asks
 * of userspace.
 *
 * `stop`: every memory fault ends the run.
 *
 * @kvm Documentation/virt/kvm/api.rst KVM_EXIT_MEMORY_FAULT
 */
import type { PageRanges } from './page-ranges.ts';

export type MemoryFaultMode = 'convert' | 'stop';

export interface MemoryFault {
  readonly gpa: number;
  readonly size: number;
  /** KVM_MEMORY_EXIT_FLAG_PRIVATE */
  readonly isPrivate: boolean;
}

/** What to do: set the attribute of a range and resume, or stop for a reason. */
export type MemoryFaultAnswer =
  | { readonly action: 'convert'; readonly gpa: number; readonly size: number; readonly toPrivate: boolean }
  | { readonly action: 'stop'; readonly reason: string };

const LIMIT = 3;

export class MemoryFaultPolicy {
  readonly mode: MemoryFaultMode;
  private lastKey = '';
  private repeats = 0;
  private lastProgress = -1;
  /** Conversions made because of faults. */
  conversions = 0;

  constructor(mode: MemoryFaultMode) {
    this.mode = mode;
  }

  /**
   * @param privatePages the attributes as they are.
   * @param canBePrivate whether the VM has private memory at all.
   * @param progress any number that grows when the guest gets on (other exits seen so far).
   */
  answer(fault: MemoryFault, privatePages: PageRanges, canBePrivate: boolean, progress: number): MemoryFaultAnswer {
    const kind = fault.isPrivate ? 'private' : 'shared';
    const where = `${kind} access to gpa 0x${fault.gpa.toString(16)} (size 0x${fault.size.toString(16)})`;
    if (this.mode === 'stop') return { action: 'stop', reason: where };
    if (!canBePrivate) return { action: 'stop', reason: `${where}: this VM type has no private memory to convert` };
    const key = `${fault.gpa}/${fault.size}/${kind}`;
    this.repeats = key === this.lastKey && progress === this.lastProgress ? this.repeats + 1 : 1;
    this.lastKey = key;
    this.lastProgress = progress;
    if (this.repeats >= LIMIT)
      return { action: 'stop', reason: `${where} came back ${this.repeats - 1} times after conversion` };
    const now = privatePages.has(fault.gpa);
    this.conversions++;
    return {
      action: 'convert',
      gpa: fault.gpa,
      size: fault.size,
      toPrivate: now === fault.isPrivate ? !now : fault.isPrivate,
    };
  }
}
