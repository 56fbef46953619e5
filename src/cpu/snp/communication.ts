/** Which exits of a guest with encrypted state happen by themselves, and which the guest hears of by #VC and decides on (@apm 15.35.4). */
import { MC_VECTOR } from '../../arch/exceptions.ts';
import {
  SVM_EXIT_EFER_WRITE_TRAP,
  SVM_EXIT_ERR,
  SVM_EXIT_EXCP_BASE,
  SVM_EXIT_HLT,
  SVM_EXIT_INIT,
  SVM_EXIT_INTR,
  SVM_EXIT_NMI,
  SVM_EXIT_NPF,
  SVM_EXIT_PAUSE,
  SVM_EXIT_SHUTDOWN,
  SVM_EXIT_SMI,
  SVM_EXIT_VINTR,
  SVM_EXIT_VMGEXIT,
} from '../../arch/vmcb.ts';

/** Exits with this code are automatic; of nested page faults those that hit a reserved bit, which stands for MMIO, are not. */
export function isAutomaticExit(code: number): boolean {
  switch (code) {
    case SVM_EXIT_ERR:
    case SVM_EXIT_EXCP_BASE + MC_VECTOR:
    case SVM_EXIT_INTR:
    case SVM_EXIT_NMI:
    case SVM_EXIT_SMI:
    case SVM_EXIT_INIT:
    case SVM_EXIT_VINTR:
    case SVM_EXIT_PAUSE:
    case SVM_EXIT_HLT:
    case SVM_EXIT_SHUTDOWN:
    case SVM_EXIT_EFER_WRITE_TRAP:
    case SVM_EXIT_NPF:
    case SVM_EXIT_VMGEXIT:
      return true;
    default:
      return false;
  }
}
