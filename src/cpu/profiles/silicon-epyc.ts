/** An EPYC as the manuals describe it: every assist that the processor model has, a TLB that outlives exits, faults with P. */
import { type HardwareProfile, NO_VMX } from '../profile.ts';
import { bits } from './cpuid-table.ts';
import { epycCpuid, NAPLES } from './epyc.ts';

export const siliconEpyc: HardwareProfile = {
  name: 'silicon-epyc',
  vendor: 'amd',
  maxPhyAddr: 48,
  nrips: true,
  decodeAssists: true,
  flushByAsid: true,
  vgif: true,
  asids: 32768,
  tlbFlushedAtEntry: false,
  walkCaches: true,
  alignmentChecks: true,
  rsvdWithoutP: false,
  paePdpteRsvd: true,
  idtErrorAsQemu: false,
  int3AsInterrupt: false,
  rmwFaultsAsRead: false,
  pushaUpwards: false,
  maskMoveReachesAll: false,
  readsHighWordFirst: false,
  realModePushesFirst: true,
  busyTssHasNoIoMap: false,
  segmentChecks: true,
  resumeFlagReach: 1,
  ioAddressSize: true,
  cacheHintsFault: true,
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
  // NPT, NRIPS, VmcbClean, FlushByAsid, DecodeAssists, PauseFilter, VGIF, SVME address check
  cpuid: epycCpuid({
    ...NAPLES,
    maxPhyAddr: 48,
    asids: 32768,
    svmFeatures: bits(0, 3, 5, 6, 7, 10, 16, 28),
    // SSE3 PCLMULQDQ SSSE3 FMA SSE4.1 SSE4.2 AES AVX F16C
    features: bits(0, 1, 9, 12, 19, 20, 25, 28, 29),
    avx: true,
    brand: 'AMD EPYC 7551 32-Core Processor',
  }),
};
