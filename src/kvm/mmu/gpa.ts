/** The one place where guest physical addresses and frames turn into each other. Both are numbers; shifts would cut them at 32 bits. */

/** @kvm kvm_host.h gpa_to_gfn. HOT */
export function gpaToGfn(gpa: number): number {
  return Math.floor(gpa / 4096);
}

/** gfn of a gpa in halves. @kvm kvm_host.h gpa_to_gfn. HOT */
export function gpaHalvesToGfn(lo: number, hi: number): number {
  return hi === 0 ? lo >>> 12 : (hi >>> 0) * 0x100000 + (lo >>> 12);
}

/** @kvm kvm_host.h gfn_to_gpa. HOT */
export function gfnToGpa(gfn: number): number {
  return gfn * 4096;
}
