/** What a vCPU's TLB holds for a gfn, in one word: these bits, and the frame above them. */
export const TLB_VALID = 1;
export const TLB_WRITE = 2;
export const TLB_EXEC = 4;
export const TLB_PFN_SHIFT = 4;

/** Frame of a TLB word. */
export function tlbFrame(word: number): number {
  return word >>> TLB_PFN_SHIFT;
}
