/** Where the lookup of a private page writes its answer; made once and used again. */
export class GmemPfn {
  pfn = -1;
  /** log2 of the pages that may be mapped together. */
  maxOrder = 0;
}
