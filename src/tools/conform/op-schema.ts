/** The operations that scenarios are made of and the arguments of each: definition for the validator and for the reader. */

export type ArgumentKind = 'int' | 'string' | 'hex';

/** Arguments by name; a trailing `?` marks an optional one. */
type ArgumentSpec = { readonly [argument: string]: ArgumentKind };

const place = { mem: 'int', off: 'int' } as const;
const range = { mem: 'int', off: 'int', size: 'int' } as const;
const registers: ArgumentSpec = Object.fromEntries(
  ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp', 'rip', 'rflags', ...[8, 9, 10, 11, 12, 13, 14, 15].map((n) => `r${n}`)].map(
    (name) => [`${name}?`, 'int' as const],
  ),
);

export const OPS: { readonly [op: string]: ArgumentSpec } = {
  // The VM and its vCPUs.
  run: {
    'vcpu?': 'int',
    'mmio_data?': 'hex',
    'io_data?': 'hex',
    'hc_ret?': 'int',
    'immediate?': 'int',
    'timeout?': 'int',
    'timeout_ms?': 'int',
  },
  vm: { type: 'int' },
  vcpu: { id: 'int' },
  cap: { cap: 'int', 'a0?': 'int', 'a1?': 'int', 'flags?': 'int', 'vcpu?': 'int' },
  checkext: { cap: 'int', 'sys?': 'int' },
  irqchip: {},
  tss_addr: { addr: 'int' },
  identity_map: { addr: 'int' },
  nr_mmu_pages: { pages: 'int' },
  // Guest memory.
  slot: {
    slot: 'int',
    flags: 'int',
    gpa: 'int',
    size: 'int',
    'mem?': 'int',
    'off?': 'int',
    'gmem?': 'int',
    'goff?': 'int',
    'hva?': 'int',
    'gfd?': 'int',
    'gfd_mem?': 'int',
    'pad1?': 'int',
  },
  slot1: { slot: 'int', flags: 'int', gpa: 'int', size: 'int', 'mem?': 'int', 'off?': 'int', 'gmem?': 'int', 'hva?': 'int' },
  attr: { gpa: 'int', size: 'int', attrs: 'int', 'flags?': 'int' },
  gmem: { id: 'int', size: 'int', 'flags?': 'int' },
  punch: { gmem: 'int', off: 'int', size: 'int' },
  gfalloc: { gmem: 'int', off: 'int', size: 'int', 'mode?': 'int' },
  gtruncate: { gmem: 'int', size: 'int' },
  gmmap: { gmem: 'int' },
  gread: { gmem: 'int' },
  gstat: { gmem: 'int' },
  gclose: { gmem: 'int' },
  dirtylog: { slot: 'int', 'pages?': 'int' },
  clearlog: { slot: 'int', first: 'int', pages: 'int', bitmap: 'hex' },
  ringread: { 'vcpu?': 'int' },
  ringreset: {},
  prefault: { gpa: 'int', size: 'int', 'flags?': 'int', 'vcpu?': 'int' },
  translate: { gva: 'int', 'vcpu?': 'int' },
  coalesce: { gpa: 'int', size: 'int', 'pio?': 'int' },
  coalread: {},
  ioeventfd: { ev: 'int', gpa: 'int', len: 'int', 'match?': 'int', 'flags?': 'int' },
  evread: { ev: 'int' },
  // vCPU state.
  regs: { 'vcpu?': 'int', ...registers },
  sregs: { 'vcpu?': 'int' },
  getregs: { 'vcpu?': 'int' },
  msr: { index: 'int', data: 'int', 'vcpu?': 'int' },
  getmsr: { index: 'int', 'vcpu?': 'int' },
  events: { 'vcpu?': 'int' },
  events2: { 'vcpu?': 'int' },
  mpstate: { 'vcpu?': 'int', state: 'int' },
  getmpstate: { 'vcpu?': 'int' },
  lapic: { off: 'int', 'vcpu?': 'int' },
  guestdebug: { control: 'int', 'vcpu?': 'int' },
  // The VMM's own memory.
  mem: { id: 'int', size: 'int', kind: 'string', 'align?': 'int', 'prot?': 'string' },
  mprotect: { ...range, prot: 'string' },
  munmap: range,
  remap: { ...range, 'prot?': 'string' },
  madvise: { ...range, advice: 'string' },
  ftruncate: { mem: 'int', size: 'int' },
  poke: { ...place, hex: 'hex' },
  peek: { ...place, len: 'int' },
  residency: place,
  idlemark: place,
  idleread: place,
  pagestate: place,
  fork: {},
  uffd: range,
  uffdmiss: range,
  uffdread: { 'mem?': 'int' },
  uffdcopy: { ...place, 'hex?': 'hex', 'zero?': 'int', 'dontwake?': 'int' },
  uffdwake: { ...place },
  uffdunreg: range,
  // Nested guests, interrupts, helpers in time.
  nstate: { 'size?': 'int', 'vcpu?': 'int' },
  leavenested: { 'vcpu?': 'int' },
  saverestore: { 'vcpu?': 'int' },
  smi: { 'vcpu?': 'int' },
  nmi: { 'vcpu?': 'int' },
  interrupt: { 'vcpu?': 'int', 'irq?': 'int' },
  later: { what: 'string', 'delay?': 'int', 'mem?': 'int', 'off?': 'int', 'size?': 'int', 'hex?': 'hex', 'zero?': 'int' },
  join: {},
  sleep: { ms: 'int' },
};
