/**
 * QEMU 7.2 emulating an EPYC with `-cpu EPYC,+svm,+npt,+pku,+smap,+smep,+umip`: the machine on which the recorded scenarios were made.
 * SVM with nested paging and hardly anything else; the quirks are QEMU's.
 */
import { type HardwareProfile, NO_VMX } from '../profile.ts';
import { bits } from './cpuid-table.ts';
import { epycCpuid, NAPLES } from './epyc.ts';

export const qemuTcgEpyc: HardwareProfile = {
  name: 'qemu-tcg-epyc',
  vendor: 'amd',
  maxPhyAddr: 40,
  nrips: false,
  decodeAssists: false,
  flushByAsid: false,
  vgif: false,
  svmAddressErratum: true,
  lmswSelective: false,
  asids: 16,
  tlbFlushedAtEntry: true,
  walkCaches: false,
  alignmentChecks: false,
  rsvdWithoutP: true,
  paePdpteRsvd: false,
  paePdpteAccessed: true,
  idtErrorAsQemu: true,
  int3AsInterrupt: true,
  rmwFaultsAsRead: true,
  pushaUpwards: true,
  maskMoveReachesAll: false,
  readsHighWordFirst: false,
  realModePushesFirst: false,
  busyTssHasNoIoMap: true,
  segmentChecks: false,
  resumeFlagReach: 32,
  ioAddressSize: false,
  cacheHintsFault: false,
  vmx: NO_VMX,
  l1tf: false,
  gbPages: true,
  la57: false,
  smep: true,
  smap: true,
  umip: true,
  pku: true,
  fsgsbase: true,
  pcid: false,
  // NPT; SSE3 PCLMULQDQ SSSE3 SSE4.1 SSE4.2 AES
  cpuid: epycCpuid({
    ...NAPLES,
    maxPhyAddr: 40,
    asids: 16,
    svmFeatures: bits(0),
    brand: 'AMD EPYC Processor',
    features: bits(0, 1, 9, 19, 20, 25),
    avx: false,
  }),
};
