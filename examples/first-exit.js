// A guest of one instruction, and every trace event on the way to its exit.
import { Kvm } from 'softkvm';

const kvm = new Kvm();
const vm = kvm.createVm();
const hva = kvm.mm.mmap({ size: 0x1000, kind: 'anon' });
kvm.mm.write(hva + 0xff0, Uint8Array.of(0xf4)); // hlt, where an x86 processor starts
vm.setUserMemoryRegion({ slot: 0, guestPhysAddr: 0xfffff000, memorySize: 0x1000, userspaceAddr: hva });
vm.onTrace((event) => console.log(event.event, event.fields));
const vcpu = vm.createVcpu(0);
vcpu.setCpuid2(kvm.getSupportedCpuid());
console.log(vcpu.run().exit); // { reason: 'hlt' }
