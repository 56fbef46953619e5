/** Names of SVM's exit codes as the kernel's trace prints them (@kvm uapi/asm/svm.h SVM_EXIT_REASONS). */
import * as V from '../../arch/vmcb.ts';

const names = new Map<number, string>([
  [V.SVM_EXIT_INTR, 'interrupt'],
  [V.SVM_EXIT_NMI, 'nmi'],
  [V.SVM_EXIT_SMI, 'smi'],
  [V.SVM_EXIT_INIT, 'init'],
  [V.SVM_EXIT_VINTR, 'vintr'],
  [V.SVM_EXIT_CR0_SEL_WRITE, 'cr0_sel_write'],
  [V.SVM_EXIT_IDTR_READ, 'read_idtr'],
  [V.SVM_EXIT_GDTR_READ, 'read_gdtr'],
  [V.SVM_EXIT_LDTR_READ, 'read_ldtr'],
  [V.SVM_EXIT_TR_READ, 'read_rt'],
  [V.SVM_EXIT_IDTR_WRITE, 'write_idtr'],
  [V.SVM_EXIT_GDTR_WRITE, 'write_gdtr'],
  [V.SVM_EXIT_LDTR_WRITE, 'write_ldtr'],
  [V.SVM_EXIT_TR_WRITE, 'write_rt'],
  [V.SVM_EXIT_RDTSC, 'rdtsc'],
  [V.SVM_EXIT_RDPMC, 'rdpmc'],
  [V.SVM_EXIT_PUSHF, 'pushf'],
  [V.SVM_EXIT_POPF, 'popf'],
  [V.SVM_EXIT_CPUID, 'cpuid'],
  [V.SVM_EXIT_RSM, 'rsm'],
  [V.SVM_EXIT_IRET, 'iret'],
  [V.SVM_EXIT_SWINT, 'swint'],
  [V.SVM_EXIT_INVD, 'invd'],
  [V.SVM_EXIT_PAUSE, 'pause'],
  [V.SVM_EXIT_HLT, 'hlt'],
  [V.SVM_EXIT_INVLPG, 'invlpg'],
  [V.SVM_EXIT_INVLPGA, 'invlpga'],
  [V.SVM_EXIT_IOIO, 'io'],
  [V.SVM_EXIT_MSR, 'msr'],
  [V.SVM_EXIT_TASK_SWITCH, 'task_switch'],
  [V.SVM_EXIT_FERR_FREEZE, 'ferr_freeze'],
  [V.SVM_EXIT_SHUTDOWN, 'shutdown'],
  [V.SVM_EXIT_VMRUN, 'vmrun'],
  [V.SVM_EXIT_VMMCALL, 'hypercall'],
  [V.SVM_EXIT_VMLOAD, 'vmload'],
  [V.SVM_EXIT_VMSAVE, 'vmsave'],
  [V.SVM_EXIT_STGI, 'stgi'],
  [V.SVM_EXIT_CLGI, 'clgi'],
  [V.SVM_EXIT_SKINIT, 'skinit'],
  [V.SVM_EXIT_RDTSCP, 'rdtscp'],
  [V.SVM_EXIT_ICEBP, 'icebp'],
  [V.SVM_EXIT_INVPCID, 'invpcid'],
  [V.SVM_EXIT_WBINVD, 'wbinvd'],
  [V.SVM_EXIT_MONITOR, 'monitor'],
  [V.SVM_EXIT_MWAIT, 'mwait'],
  [V.SVM_EXIT_XSETBV, 'xsetbv'],
  [V.SVM_EXIT_EFER_WRITE_TRAP, 'write_efer_trap'],
  [V.SVM_EXIT_NPF, 'npf'],
  [V.SVM_EXIT_ERR, 'invalid_guest_state'],
]);
for (const cr of [0, 2, 3, 4, 8]) {
  names.set(V.SVM_EXIT_READ_CR0 + cr, `read_cr${cr}`);
  names.set(V.SVM_EXIT_WRITE_CR0 + cr, `write_cr${cr}`);
}
for (let dr = 0; dr < 8; dr++) {
  names.set(V.SVM_EXIT_READ_DR0 + dr, `read_dr${dr}`);
  names.set(V.SVM_EXIT_WRITE_DR0 + dr, `write_dr${dr}`);
}
const exceptions: [number, string][] = [
  [0, 'DE'],
  [1, 'DB'],
  [3, 'BP'],
  [4, 'OF'],
  [5, 'BR'],
  [6, 'UD'],
  [7, 'NM'],
  [8, 'DF'],
  [10, 'TS'],
  [11, 'NP'],
  [12, 'SS'],
  [13, 'GP'],
  [14, 'PF'],
  [16, 'MF'],
  [17, 'AC'],
  [18, 'MC'],
  [19, 'XF'],
];
for (const [vector, name] of exceptions) names.set(V.SVM_EXIT_EXCP_BASE + vector, `${name} excp`);

/** Name of exit code `code` (its low half); hex when the kernel has no name for it. */
export function svmExitReasonName(code: number): string {
  return names.get(code) ?? `0x${(code >>> 0).toString(16)}`;
}
