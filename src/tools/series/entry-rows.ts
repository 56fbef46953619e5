/** Rows about the way into the fault path and the error code: 1, 4, 6, 7, 9. */
import type { Demonstration } from './demonstration.ts';
import { machineCase } from './machine-case.ts';

/** Bits of the code's upper half. */
const FINAL = 1 << 0;
const ENC = 1 << 2;
const IMPLICIT = 1 << 16;
const PRIVATE = 1 << 17;
/** Of the lower half. */
const WRITE = 0x6;
const PROTECTED_WRITE = 0x7;
const RESERVED = 0xd;
/** What KVM makes of an EPT misconfiguration: RSVD without P. */
const MISCONFIG = 0x8;

export const entryRows: readonly Demonstration[] = [
  {
    row: 1,
    differs: 'private fault that ends in emulation: memory-fault exit; before: the emulator ran on private memory',
    purpose:
      "KVM's emulator reads and writes through the VMM's mapping, which is not the guest's private memory: such an access must go to userspace rather than be emulated on the wrong page.",
    cases: [
      machineCase({
        setting:
          "The guest writes, privately, to the gfn of KVM's APIC access page. APIC virtualization is inhibited, so the page is to be emulated.",
        input: { vmType: 'sw-protected', slot: 'apic-inhibited', attribute: 'private', errorLo: WRITE, errorHi: FINAL },
        holds: (o) => o.verdict === 'EFAULT' && o.exit?.isPrivate === true && o.emulated === null,
      }),
    ],
    equality: null,
  },
  {
    row: 4,
    differs: 'all 64 bits of the code reach the stages; before: bits 63:32 were lost, ENC with them',
    purpose:
      'What hardware says above bit 31 (ENC, GUEST_FINAL), and what KVM itself puts there, has to arrive where privacy is decided.',
    cases: [
      machineCase({
        setting:
          'An SEV guest writes to a page that dirty logging has write-protected. The processor reports GUEST_FINAL and ENC, bits 32 and 34.',
        input: { vmType: 'sev', spte: 'write-protected', errorLo: PROTECTED_WRITE, errorHi: FINAL | ENC },
        holds: (o) => o.fields?.errorCode === 'as reported',
      }),
    ],
    equality: null,
  },
  {
    row: 6,
    differs: "synthetic bits looked for in AMD's #NPF handler only; before: in every fault that entered the MMU",
    purpose:
      'Only AMD hands KVM a 64-bit code from hardware; an EPT violation has its code made by KVM, which must be free to put its own flags into it.',
    cases: [
      machineCase({
        setting: 'AMD: the #NPF carries bit 48, IMPLICIT_ACCESS, which KVM keeps for itself and hardware never sets.',
        input: { hardware: 'npt', errorLo: WRITE, errorHi: FINAL | IMPLICIT },
        holds: (o) => logged(o.log, 'npf_interception'),
      }),
      machineCase({
        setting:
          "Intel: KVM's own EPT-violation handler hands in a code with a flag of KVM's, which is no collision with hardware.",
        input: { hardware: 'ept', errorLo: WRITE, errorHi: FINAL | IMPLICIT },
        holds: (o) => o.log.length === 0,
      }),
    ],
    equality: null,
  },
  {
    row: 7,
    differs: 'PRIVATE_ACCESS in the code says that a fault is private; before: the attribute, looked up midway',
    purpose:
      'SNP and TDX know from the access itself whether it is private; with one flag in the code every vendor tells the MMU the same way, and privacy cannot change on the way.',
    cases: [
      machineCase({
        setting:
          'The gfn had no slot and left an MMIO entry, which is older than the slots now; then it was made private. The guest reads the device: a reserved-bit fault.',
        input: {
          vmType: 'sw-protected',
          slot: 'none',
          attribute: 'private',
          spte: 'mmio-stale',
          errorLo: RESERVED,
          errorHi: FINAL,
        },
        holds: (o) => o.verdict === 'EFAULT' && o.exit?.isPrivate === false && o.fields?.isPrivate === false,
      }),
      machineCase({
        setting: 'An ordinary first write to private memory: the same answer, but now the code itself says so.',
        input: { vmType: 'sw-protected', slot: 'gmem', attribute: 'private', errorLo: WRITE, errorHi: FINAL },
        holds: (o) => o.ret === 'RET_PF_FIXED' && o.fields?.errorCode === 'as reported with PRIVATE_ACCESS',
      }),
    ],
    equality: null,
  },
  {
    row: 9,
    differs: 'RSVD and private: WARN, bare EFAULT, nothing cached; before: ordinary MMIO',
    purpose:
      'Private memory is never MMIO: such a fault means that KVM is broken, and emulating it, or filling the MMIO cache with it, could corrupt data. A bare EFAULT says that nothing can be repaired.',
    cases: [
      machineCase({
        setting:
          'KVM hands in a misconfiguration on a private access, as the EPT handler of a confidential VM would: an MMIO entry stands at the private gfn.',
        input: {
          hardware: 'ept',
          vmType: 'sw-protected',
          slot: 'none',
          attribute: 'private',
          spte: 'mmio',
          errorLo: MISCONFIG,
          errorHi: PRIVATE,
        },
        holds: (o) => o.verdict === 'EFAULT' && o.exit === null && logged(o.log, 'kvm_mmu_page_fault'),
      }),
    ],
    equality: null,
  },
];

function logged(log: readonly string[], where: string): boolean {
  return log.some((line) => line.startsWith(`${where}:`));
}
