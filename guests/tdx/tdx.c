/*
 * A guest for TDX: what a TD does with its memory and its host. It runs from its reset vector, with no firmware, and says by its serial
 * port what it found.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, RIP };

/* TDCALL leaves, TDG.VP.VMCALL subfunctions, statuses. */
#define TDG_VP_VMCALL 0
#define TDG_VP_INFO 1
#define TDG_VP_VEINFO_GET 3
#define TDG_MR_REPORT 4
#define TDG_MEM_PAGE_ACCEPT 6
#define CALL_CPUID 10
#define CALL_IO 30
#define CALL_RDMSR 31
#define CALL_MMIO 48
#define CALL_MAP_GPA 0x10001
#define CALL_FATAL 0x10003
#define VE_EPT_VIOLATION 48

#define SHARED_BIT (1ul << 47)
/* Where the page tables map shared memory. */
#define SHARED_WINDOW (512ul << 30)
#define HPET 0xfed00000ul

void tdcall(u64 *registers);
void ve_entry(void);
void fault_entry(void);

static u64 idt[2 * 32];
static u8 report[1024] __attribute__((aligned(1024)));
static u8 report_data[64] __attribute__((aligned(64)));
static volatile u32 exceptions;
static volatile u64 ve_gpa;

static u64 vmcall(u64 function, u64 a, u64 b, u64 c, u64 d, u64 *out) {
  u64 r[16] = {0};
  r[RAX] = TDG_VP_VMCALL;
  r[RCX] = 0xfc00;
  r[R11] = function;
  r[R12] = a;
  r[R13] = b;
  r[R14] = c;
  r[R15] = d;
  tdcall(r);
  if (out) *out = r[R11];
  return r[RAX] ? r[RAX] : r[R10];
}

static void put(char c) { vmcall(CALL_IO, 1, 1, 0x3f8, (u8)c, 0); }

static void print(const char *text) {
  while (*text) put(*text++);
}

static void print_hex(u64 value) {
  int shift = 60;
  while (shift > 0 && !(value >> shift)) shift -= 4;
  for (; shift >= 0; shift -= 4) put("0123456789abcdef"[(value >> shift) & 15]);
}

static void line(const char *text, u64 value) {
  print(text);
  print(" 0x");
  print_hex(value);
  print("\n");
}

static void fatal(const char *text) {
  print(text);
  print("\n");
  vmcall(CALL_FATAL, 1, 0, 0, 0, 0);
  for (;;) {
  }
}

void on_fault(void) { fatal("an exception that nobody expects"); }

static u64 accept(u64 gpa) {
  u64 r[16] = {0};
  r[RAX] = TDG_MEM_PAGE_ACCEPT;
  r[RCX] = gpa;
  tdcall(r);
  return r[RAX];
}

/* MOV between EAX and memory, which is all that this guest does to devices: two bytes and no prefix. */
static void mmio(u64 *registers, u64 gpa) {
  u8 *code = (u8 *)registers[RIP];
  int reg = (code[1] >> 3) & 7;
  u64 value = 0;
  if (code[0] == 0x8b) {
    if (vmcall(CALL_MMIO, 4, 0, gpa, 0, &value)) fatal("MMIO read refused");
    registers[reg] = (u32)value;
  } else if (code[0] == 0x89) {
    if (vmcall(CALL_MMIO, 4, 1, gpa, (u32)registers[reg], 0)) fatal("MMIO write refused");
  } else {
    fatal("an instruction on a device that is no MOV");
  }
  registers[RIP] += 2;
}

void on_ve(u64 *registers) {
  u64 r[16] = {0};
  u64 value;
  exceptions++;
  r[RAX] = TDG_VP_VEINFO_GET;
  tdcall(r);
  if (r[RAX]) fatal("#VE without information");
  switch (r[RCX]) {
  case VE_EPT_VIOLATION:
    ve_gpa = r[R9];
    if (r[R9] & SHARED_BIT) {
      mmio(registers, r[R9]);
    } else if (accept(r[R9] & ~0xffful)) {
      fatal("a page cannot be accepted");
    }
    return;
  case CALL_CPUID: {
    u64 c[16] = {0};
    c[RCX] = 0xfc00;
    c[R11] = CALL_CPUID;
    c[R12] = registers[RAX];
    c[R13] = registers[RCX];
    tdcall(c);
    registers[RAX] = c[R12];
    registers[RBX] = c[R13];
    registers[RCX] = c[R14];
    registers[RDX] = c[R15];
    break;
  }
  case CALL_IO:
    if (r[RDX] & 8) {
      vmcall(CALL_IO, (r[RDX] & 7) + 1, 0, r[RDX] >> 16, 0, &value);
      registers[RAX] = value;
    } else {
      vmcall(CALL_IO, (r[RDX] & 7) + 1, 1, r[RDX] >> 16, registers[RAX], 0);
    }
    break;
  case CALL_RDMSR:
    if (vmcall(CALL_RDMSR, registers[RCX], 0, 0, 0, &value)) fatal("RDMSR refused");
    registers[RAX] = (u32)value;
    registers[RDX] = value >> 32;
    break;
  default:
    fatal("#VE for something else");
  }
  registers[RIP] += (u32)r[R10];
}

static void set_gate(int vector, void (*handler)(void)) {
  u64 at = (u64)handler;
  idt[2 * vector] = (at & 0xffff) | (8ul << 16) | (0x8eul << 40) | ((at >> 16 & 0xffff) << 48);
  idt[2 * vector + 1] = at >> 32;
}

static void cpuid(u32 leaf, u32 *out) {
  __asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(0));
}

static void print_text(const u32 *words, int n) {
  for (int i = 0; i < n; i++)
    for (int b = 0; b < 4; b++)
      if ((char)(words[i] >> (8 * b))) put((char)(words[i] >> (8 * b)));
}

static u32 device_read(u64 address) {
  u32 value;
  __asm__ volatile(".byte 0x8b, 0x01" : "=a"(value) : "c"(SHARED_WINDOW + address) : "memory");
  return value;
}

static void device_write(u64 address, u32 value) {
  __asm__ volatile(".byte 0x89, 0x01" : : "a"(value), "c"(SHARED_WINDOW + address) : "memory");
}

static volatile u32 *private_page(u64 gpa) { return (volatile u32 *)gpa; }
static volatile u32 *shared_page(u64 gpa) { return (volatile u32 *)(SHARED_WINDOW + gpa); }

/* What the processor and the module say. */
static void identify(void) {
  u32 c[4];
  u64 r[16] = {0};
  cpuid(0x21, c);
  u32 name[3] = {c[1], c[3], c[2]};
  print("cpuid 0x21: ");
  print_text(name, 3);
  print("\n");
  r[RAX] = TDG_VP_INFO;
  tdcall(r);
  line("guest address width", r[RCX]);
  line("attributes", r[RDX]);
  cpuid(0x40000000, c);
  print("cpuid 0x40000000, by #VE: ");
  print_text(c + 1, 3);
  print("\n");
}

/* Private memory: accepted, touched before it is accepted, accepted twice. */
static void private_memory(void) {
  u64 gpa = 0x200000;
  line("accept", accept(gpa));
  private_page(gpa)[0] = 0x11111111;
  line("a private page holds", private_page(gpa)[0]);
  line("accept it again", accept(gpa));
  line("accept at a shared address", accept(gpa | SHARED_BIT));
  u32 before = exceptions;
  private_page(gpa + 0x1000)[1] = 0x22222222;
  line("a page touched before it was accepted: #VE", exceptions - before);
  line("at", ve_gpa);
  line("it holds", private_page(gpa + 0x1000)[1]);
}

/* A page is shared with the host, and taken back. */
static void conversion(void) {
  u64 gpa = 0x200000;
  line("MapGPA to shared", vmcall(CALL_MAP_GPA, gpa | SHARED_BIT, 0x1000, 0, 0, 0));
  line("the shared page holds", shared_page(gpa)[0]);
  shared_page(gpa)[0] = 0x600d600d;
  line("and then", shared_page(gpa)[0]);
  line("MapGPA to private", vmcall(CALL_MAP_GPA, gpa, 0x1000, 0, 0, 0));
  line("accept", accept(gpa));
  line("the private page holds", private_page(gpa)[0]);
  line("MapGPA of half a page", vmcall(CALL_MAP_GPA, gpa + 0x800, 0x1000, 0, 0, 0));
}

/* Devices and privileged instructions, by #VE. */
static void devices(void) {
  u32 before = exceptions;
  u32 lo, hi;
  line("HPET capabilities", device_read(HPET));
  device_write(HPET + 0x10, 1);
  line("HPET enabled", device_read(HPET + 0x10));
  __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(0x1b));
  line("APIC base", ((u64)hi << 32) | lo);
  for (const char *text = "written with OUT\n"; *text; text++)
    __asm__ volatile("outb %0, %1" : : "a"(*text), "d"((unsigned short)0x3f8));
  line("#VE so far", exceptions - before);
  line("MMIO of private memory", vmcall(CALL_MMIO, 4, 0, HPET, 0, 0));
}

/* Who the TD is, for others to verify. */
static void measurement(void) {
  u64 r[16] = {0};
  r[RAX] = TDG_MR_REPORT;
  r[RCX] = (u64)report;
  r[RDX] = (u64)report_data;
  tdcall(r);
  line("report", r[RAX]);
  print("MRTD ");
  for (int i = 0; i < 48; i++) {
    put("0123456789abcdef"[report[528 + i] >> 4]);
    put("0123456789abcdef"[report[528 + i] & 15]);
  }
  print("\n");
}

void guest_main(u64 memory) {
  struct {
    unsigned short limit;
    u64 base;
  } __attribute__((packed)) idtr = {sizeof(idt) - 1, (u64)idt};
  for (int i = 0; i < 32; i++) set_gate(i, i == 20 ? ve_entry : fault_entry);
  __asm__ volatile("lidt %0" : : "m"(idtr));
  print("a TD of ");
  print_hex(memory >> 20);
  print(" MiB (hex)\n");
  identify();
  private_memory();
  conversion();
  devices();
  measurement();
  print("done\n");
  vmcall(CALL_IO, 2, 1, 0x604, 0x2000, 0);
}
