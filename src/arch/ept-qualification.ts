/**
 * Exit qualification of an EPT violation (@sdm table 28-7).
 *
 *  63 .. 17  16    15   14   13  12    11  10    9    8     7     6     5    4    3    2     1     0
 *  reserved ASYNC GPV  SSSP SSA  NMIU LXD LRW LUSER FINAL GLAV  EXUSR EX   WR   RD  FETCH WRITE READ
 */
import { type Flag, flag } from './flags.ts';

export const EPT_VIOLATION_READ = 1 << 0;
export const EPT_VIOLATION_WRITE = 1 << 1;
export const EPT_VIOLATION_FETCH = 1 << 2;
export const EPT_VIOLATION_PROT_READ = 1 << 3;
export const EPT_VIOLATION_PROT_WRITE = 1 << 4;
export const EPT_VIOLATION_PROT_EXEC = 1 << 5;
export const EPT_VIOLATION_PROT_USER_EXEC = 1 << 6;
export const EPT_VIOLATION_GVA_IS_VALID = 1 << 7;
export const EPT_VIOLATION_GVA_TRANSLATED = 1 << 8;
/** Advanced information: what the guest's own tables say of the linear address; meaningful with GVA_TRANSLATED. */
export const LINEAR_USER = 1 << 9;
export const LINEAR_WRITABLE = 1 << 10;
export const LINEAR_NX = 1 << 11;
/** The rights that the entries of the walk grant; all clear means that nothing was mapped. */
export const EPT_VIOLATION_PROT_MASK = EPT_VIOLATION_PROT_READ | EPT_VIOLATION_PROT_WRITE | EPT_VIOLATION_PROT_EXEC;

/** Every defined bit, in bit order: definition, printer and documentation in one. */
export const EPT_QUALIFICATION_FLAGS: readonly Flag[] = [
  flag('READ', 0, 'the access was a data read'),
  flag('WRITE', 1, 'the access was a data write (with READ: an accessed or dirty flag update, or a read-modify-write)'),
  flag('FETCH', 2, 'the access was an instruction fetch'),
  flag('PROT_READ', 3, 'the EPT entries allow reading'),
  flag('PROT_WRITE', 4, 'the EPT entries allow writing'),
  flag('PROT_EXEC', 5, 'the EPT entries allow fetching (in supervisor mode, with mode-based execute control)'),
  flag('PROT_USER_EXEC', 6, 'the EPT entries allow fetching in user mode (mode-based execute control only)'),
  flag('GVA_IS_VALID', 7, 'the guest linear-address field is valid'),
  flag('GVA_TRANSLATED', 8, "the fault was on the guest's final access; clear with GVA_IS_VALID: on its page tables"),
  flag('LINEAR_USER', 9, 'the linear address is a user-mode address (advanced information)'),
  flag('LINEAR_WRITE', 10, 'the linear address is writable in the guest tables (advanced information)'),
  flag('LINEAR_NX', 11, 'the linear address is execute-disable in the guest tables (advanced information)'),
  flag('NMI_UNBLOCK', 12, 'an IRET had just ended NMI blocking'),
  flag('SHADOW_STACK', 13, 'the access was a shadow-stack access'),
  flag('SUPERVISOR_SHADOW_STACK', 14, 'the EPT entries mark a supervisor shadow-stack page'),
  flag('GUEST_PAGING_VERIFY', 15, 'guest-paging verification failed'),
  flag('ASYNCHRONOUS', 16, 'the access was asynchronous to the instruction (trace output)'),
];
