import { expect, test } from 'vitest';
import { makeGuest, mov } from './guest.testing.ts';

const HLT = 0xf4;
const VMMCALL = [0x0f, 0x01, 0xd9];

test('an unknown hypercall answers -ENOSYS', () => {
  const { vcpu, texts } = makeGuest([...mov(0, 77), ...VMMCALL, HLT]);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rax).toBe(BigInt(-1000 >>> 0));
  expect(texts('kvm_hypercall')).toEqual(['nr 0x4d a0 0x0 a1 0x0 a2 0x600 a3 0x0']);
  expect(vcpu.stats()['hypercalls']).toBe(1);
});

test('KVM_HC_MAP_GPA_RANGE goes to userspace once the capability is on', () => {
  const code = [...mov(3, 0x5000), ...mov(1, 2), ...mov(2, 0x10), ...mov(0, 12), ...VMMCALL, HLT];
  const off = makeGuest(code);
  expect(off.vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(off.vcpu.getRegs().rax).toBe(BigInt(-1000 >>> 0));
  const { vm, vcpu } = makeGuest(code);
  vm.enableCap(201, 0, [1 << 12]);
  const exit = vcpu.run().exit;
  expect(exit).toMatchObject({ reason: 'hypercall', nr: 12, flags: 0 });
  if (exit?.reason === 'hypercall') expect(exit.args.slice(0, 3)).toEqual([0x5000n, 2n, 0x10n]);
  vcpu.kvmRun.hypercall.setRet(5, 0);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.getRegs().rax).toBe(5n);
});

test('CPUID shows what KVM_SET_CPUID2 gave, and nothing for other leaves', () => {
  const { vcpu } = makeGuest([...mov(0, 0x40000000), 0x0f, 0xa2, HLT]);
  vcpu.run();
  expect(vcpu.getRegs()).toMatchObject({ rax: 0x40000001n, rbx: 0x4b4d564bn, rcx: 0x564b4d56n, rdx: 0x4dn });
});

test('CPUID cannot change after the vCPU has run', () => {
  const { kvm, vcpu } = makeGuest([HLT]);
  const entries = kvm.getSupportedCpuid();
  vcpu.run();
  vcpu.setCpuid2(entries);
  entries[0]!.ebx ^= 1;
  expect(() => vcpu.setCpuid2(entries)).toThrow('EINVAL');
});

test('WRMSR and RDMSR of the guest; an unknown MSR is #GP', () => {
  // mov ecx,PAT; mov eax,..; mov edx,..; wrmsr; rdmsr; hlt
  const known = makeGuest([...mov(1, 0x277), ...mov(0, 0x06060606), ...mov(2, 0), 0x0f, 0x30, 0x0f, 0x32, HLT]);
  known.vcpu.run();
  expect(known.vcpu.getRegs()).toMatchObject({ rax: 0x06060606n, rdx: 0n, rsi: 0n });
  const unknown = makeGuest([...mov(1, 0xdead), 0x0f, 0x32, HLT]);
  unknown.vcpu.run();
  expect(unknown.vcpu.getRegs().rsi).toBe(13n);
});

test('KVM_SET_MSRS and KVM_GET_MSRS count what worked', () => {
  const { vcpu } = makeGuest([HLT]);
  const star = { index: 0xc0000081, data: 0x123456789abcdef0n };
  expect(vcpu.setMsrs([star, { index: 0x277, data: 0x0202020202020202n }, star])).toBe(1);
  const back = { index: 0xc0000081, data: 0n };
  expect(vcpu.getMsrs([back, { index: 0xdead, data: 0n }])).toBe(1);
  expect(back.data).toBe(star.data);
});

test('EFER.SVME is for guests whose CPUID has SVM', () => {
  const { vcpu } = makeGuest([HLT]);
  const withSvm = vcpu.getCpuid2();
  vcpu.setCpuid2(withSvm.map((e) => (e.function === 0x80000001 ? { ...e, ecx: e.ecx & ~4 } : e)));
  const sregs = vcpu.getSregs();
  sregs.efer |= 0x1000n;
  expect(() => vcpu.setSregs(sregs)).toThrow('EINVAL');
  vcpu.setCpuid2(withSvm);
  vcpu.setSregs(sregs);
  expect(vcpu.getSregs().efer & 0x1000n).toBe(0x1000n);
});

test('an instruction that cannot be emulated ends in an internal error with its bytes', () => {
  // fild dword [0xd0000000] is none of the emulator's; sgdt would be.
  const { vcpu } = makeGuest([0x0f, 0xae, 0x25, 0, 0, 0, 0xd0, HLT]);
  const exit = vcpu.run().exit;
  if (exit?.reason === 'internal-error') {
    expect(exit.suberror).toBe(1);
    expect(vcpu.kvmRun.emulationFailure.flags & 1).toBe(1);
    expect([...vcpu.kvmRun.emulationFailure.insnBytes.subarray(0, 7)]).toEqual([0x0f, 0xae, 0x25, 0, 0, 0, 0xd0]);
    expect(vcpu.stats()['insn_emulation_fail']).toBe(1);
  } else {
    // Without XSAVE in CR4 the processor answers #UD before there is an access.
    expect(vcpu.getRegs().rsi).toBe(6n);
  }
});

test('KVM_TRANSLATE without paging is the identity', () => {
  const { vcpu } = makeGuest([HLT]);
  expect(vcpu.translate(0x1234)).toEqual({ physicalAddress: 0x1234n, valid: true, writeable: true, usermode: false });
});

test('the keys that the guest wrote with WRPKRU are known after the exit', () => {
  // mov eax,cr4; or eax,PKE; mov cr4,eax; xor ecx,ecx; xor edx,edx; mov eax,8; wrpkru; hlt
  const pke = [0x0f, 0x20, 0xe0, 0x0d, 0, 0, 0x40, 0, 0x0f, 0x22, 0xe0];
  const { vcpu } = makeGuest([...pke, 0x31, 0xc9, 0x31, 0xd2, ...mov(0, 8), 0x0f, 0x01, 0xef, HLT]);
  expect(vcpu.run().exit).toEqual({ reason: 'hlt' });
  expect(vcpu.state.pkru).toBe(8);
});

test('KVM_HC_KICK_CPU ends the halt of a vCPU', () => {
  // kick; hlt; mov edi,1; loop
  const kick = [...mov(0, 5), ...mov(1, 0), ...VMMCALL, 0x89, 0xc3, HLT, ...mov(7, 1), 0xeb, 0xfe];
  const { vcpu } = makeGuest(kick, { irqchip: true });
  expect(vcpu.run({ maxInstructions: 10_000 }).errno).toBe('EINTR');
  expect(vcpu.getRegs()).toMatchObject({ rbx: 0n, rdi: 1n });
});
