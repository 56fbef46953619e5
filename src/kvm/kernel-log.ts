/** What the kernel would print: WARN_ON_ONCE, pr_warn_ratelimited, KVM_BUG_ON. One log a VM, which tests and tools read. */

export interface KernelLogEntry {
  readonly kind: 'warn' | 'pr_warn' | 'bug';
  /** Names the place; a `warn` is logged once a place. */
  readonly where: string;
  readonly message: string;
}

export class KernelLog {
  readonly entries: KernelLogEntry[] = [];
  /** Set by KVM_BUG_ON: every later ioctl on the VM fails with EIO. */
  vmBugged = false;
  private readonly warned = new Set<string>();

  /** @kvm bug.h WARN_ON_ONCE: answers the condition, logs the first time it holds at `where`. */
  warnOnOnce(condition: boolean, where: string, message: string): boolean {
    if (condition && !this.warned.has(where)) {
      this.warned.add(where);
      this.entries.push({ kind: 'warn', where, message });
    }
    return condition;
  }

  /** @kvm printk.h pr_warn_ratelimited: at most ten a place, as the kernel's default burst. */
  prWarnRatelimited(where: string, message: string): void {
    let n = 0;
    for (const e of this.entries) if (e.where === where) n++;
    if (n < 10) this.entries.push({ kind: 'pr_warn', where, message });
  }

  /** @kvm kvm_host.h KVM_BUG_ON: marks the VM dead when the condition holds. */
  kvmBugOn(condition: boolean, where: string, message: string): boolean {
    if (condition) {
      if (!this.vmBugged) this.entries.push({ kind: 'bug', where, message });
      this.vmBugged = true;
    }
    return condition;
  }

  /** Forgets everything, as if the kernel had just booted: what was warned of once is warned of again. */
  clear(): void {
    this.entries.length = 0;
    this.warned.clear();
    this.vmBugged = false;
  }
}
