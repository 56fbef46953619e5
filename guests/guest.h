/* What the guests share that run on `softkvm run`'s PC: ports, the serial line, traps that return, MSRs. */
#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define SERIAL 0x3f8
#define DEBUG_EXIT 0xf4
#define PAGE 0x1000ul
#define APIC 0xfee00000ul

struct frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	u64 vector, error, rip, cs, flags, rsp, ss;
};

static inline void out8(u16 port, u8 v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline void out32(u16 port, u32 v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline u8 in8(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline u32 in32(u16 port) { u32 v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline u64 read64(u64 at) { u64 v; __asm__ volatile("movq (%1), %0" : "=r"(v) : "r"(at) : "memory"); return v; }
static inline void write64(u64 at, u64 v) { __asm__ volatile("movq %0, (%1)" : : "r"(v), "r"(at) : "memory"); }
static inline u32 read32(u64 at) { u32 v; __asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(at) : "memory"); return v; }
static inline void write32(u64 at, u32 v) { __asm__ volatile("movl %0, (%1)" : : "r"(v), "r"(at) : "memory"); }
static inline void cli(void) { __asm__ volatile("cli" : : : "memory"); }
static inline void sti(void) { __asm__ volatile("sti; nop" : : : "memory"); }
static inline void wait_for_interrupt(void) { __asm__ volatile("sti; hlt; cli" : : : "memory"); }
static inline u64 read_cr2(void) { u64 v; __asm__ volatile("mov %%cr2, %0" : "=r"(v)); return v; }

static inline void wrmsr(u32 index, u64 v)
{
	__asm__ volatile("wrmsr" : : "c"(index), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

static inline u64 rdmsr(u32 index)
{
	u32 lo, hi;

	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(index));
	return ((u64)hi << 32) | lo;
}

static inline u32 cpuid(u32 leaf, u32 *ebx, u32 *ecx, u32 *edx)
{
	u32 eax;

	__asm__ volatile("cpuid" : "=a"(eax), "=b"(*ebx), "=c"(*ecx), "=d"(*edx) : "a"(leaf), "c"(0));
	return eax;
}

static void put(char c) { out8(SERIAL, (u8)c); }

static void print(const char *s)
{
	for (; *s; s++)
		put(*s);
}

static void print_number(u64 v)
{
	char digits[24];
	int n = 0;

	do {
		digits[n++] = (char)('0' + v % 10);
		v /= 10;
	} while (v);
	while (n)
		put(digits[--n]);
}

static void print_hex(u64 v)
{
	int shift = 60;

	print("0x");
	while (shift > 0 && !(v >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		put("0123456789abcdef"[(v >> shift) & 15]);
}

/* "what: number" */
__attribute__((unused)) static void say(const char *what, u64 number)
{
	print(what);
	print(": ");
	print_number(number);
	print("\n");
}

void end(int value)
{
	out8(DEBUG_EXIT, (u8)value);
	for (;;)
		__asm__ volatile("hlt");
}

static void expect(const char *what, u64 got, u64 wanted)
{
	if (got == wanted)
		return;
	print("FAILED: ");
	print(what);
	print(": ");
	print_hex(got);
	print(", expected ");
	print_hex(wanted);
	print("\n");
	end(1);
}

static void unexpected(const struct frame *f)
{
	print("EXCEPTION ");
	print_number(f->vector);
	print(" error ");
	print_hex(f->error);
	print(" at ");
	print_hex(f->rip);
	print(" address ");
	print_hex(read_cr2());
	print("\n");
	end(2);
}

struct gate { u16 low; u16 selector; u16 flags; u16 mid; u32 high; u32 zero; } __attribute__((packed));
static struct gate idt[256] __attribute__((aligned(16)));
extern u8 stubs[];

void set_vectors(void)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) table = { sizeof(idt) - 1, (u64)idt };
	u16 selector;

	__asm__ volatile("mov %%cs, %0" : "=r"(selector));
	for (int n = 0; n < 256; n++) {
		u64 at = (u64)stubs + 16 * (u64)n;

		idt[n] = (struct gate){ (u16)at, selector, 0x8e00, (u16)(at >> 16), (u32)(at >> 32), 0 };
	}
	__asm__ volatile("lidt %0" : : "m"(table));
}
#endif
