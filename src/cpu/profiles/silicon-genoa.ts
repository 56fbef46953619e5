/**
 * A fourth-generation EPYC (family 25, model 17) as the manuals describe it: on top of the first generation's, linear addresses of 57
 * bits and physical ones of 52, PCIDs, INVPCID and RDPID. Its host runs with five levels, so nested tables have five as well.
 */
import type { HardwareProfile } from '../profile.ts';
import { bits } from './cpuid-table.ts';
import { epycCpuid } from './epyc.ts';
import { siliconEpyc } from './silicon-epyc.ts';

export const siliconGenoa: HardwareProfile = {
  ...siliconEpyc,
  name: 'silicon-genoa',
  maxPhyAddr: 52,
  la57: true,
  pcid: true,
  cpuid: epycCpuid({
    signature: 0x00a10f11,
    maxPhyAddr: 52,
    linearBits: 57,
    asids: 32768,
    // NPT, NRIPS, VmcbClean, FlushByAsid, DecodeAssists, PauseFilter, VGIF, SVME address check
    svmFeatures: bits(0, 3, 5, 6, 7, 10, 16, 28),
    // SSE3 PCLMULQDQ SSSE3 FMA PCID SSE4.1 SSE4.2 AES AVX F16C
    features: bits(0, 1, 9, 12, 17, 19, 20, 25, 28, 29),
    // INVPCID CLWB
    features7b: bits(10, 24),
    // LA57 RDPID
    features7c: bits(16, 22),
    // WBNOINVD
    features8: bits(9),
    avx: true,
    brand: 'AMD EPYC 9554 64-Core Processor',
  }),
};
