/** softkvm: KVM's userspace API over an emulated machine. */
export type { CpuidEntry, HardwareProfile } from './cpu/profile.ts';
export type { AddressSpace, MemoryKind, MmapOptions } from './host/address-space.ts';
export { HostMachine } from './host/machine.ts';
export * from './kvm/api/index.ts';
export * from './kvm/api/revisions.ts';
export { KVM_MEMORY_ATTRIBUTE_PRIVATE } from './kvm/attributes.ts';
export { KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY } from './kvm/memslots/memslot.ts';
export { defaultParams, type KvmParams } from './kvm/params.ts';
export { KVM_X86_DEFAULT_VM, KVM_X86_SNP_VM, KVM_X86_SW_PROTECTED_VM, KVM_X86_TDX_VM } from './kvm/vm-type.ts';
