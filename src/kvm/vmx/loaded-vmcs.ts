/** A VMCS that KVM runs a guest with (@kvm vmcs.h struct loaded_vmcs). */
export class LoadedVmcs {
  /** Frames of the VMCS and of its MSR bitmap, -1 for none. */
  pfn = -1;
  msrBitmapPfn = -1;
  /** It has been entered since it was cleared. */
  launched = false;
}
