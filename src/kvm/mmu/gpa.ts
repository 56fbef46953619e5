/** The one place where guest physical addresses and frames turn into each other. Both are numbers; shifts would cut them at 32 bits. */

/** @kvm kvm_host.h gpa_to_gfn. HOT */
export function gpaToGfn(gpa: number): number {
  return Math.floor(gpa / 4096);
}

/** @kvm kvm_host.h gfn_to_gpa. HOT */
export function gfnToGpa(gfn: number): number {
  return gfn * 4096;
}
