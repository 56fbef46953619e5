/*
 * A guest of SEV-SNP: it validates memory, shares some of it, and runs into each check of the reverse map on purpose. What it prints goes out by
 * the GHCB, the page that it shares with its hypervisor for that.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define PAGE 0x1000ul
#define C_BIT (1ul << 51)
#define MSR_GHCB 0xc0010130
#define MSR_SEV 0xc0010131
#define SERIAL 0x3f8
#define DEBUG_EXIT 0xf4
#define HPET 0xfed00000ul

/* Pages of the window: none of them is part of the launch. */
#define WINDOW 0x400000ul
#define GHCB_AT (WINDOW + 0 * PAGE)
#define LAZY (WINDOW + 1 * PAGE)
#define DATA (WINDOW + 2 * PAGE)
#define SHARED_0 (WINDOW + 3 * PAGE)
#define SHARED_1 (WINDOW + 4 * PAGE)
#define MIXED (WINDOW + 5 * PAGE)
#define VMSA_0 (WINDOW + 6 * PAGE)
#define VMSA_1 (WINDOW + 7 * PAGE)
#define CLOSED (WINDOW + 8 * PAGE)
/* Mapped by an entry of 2 MiB. */
#define LARGE 0x600000ul

extern u64 window[512];
extern char communication[], other_exception[], level_start[], level_stack_top[], image_start[], image_end[];

struct registers {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	u64 error, rip, cs, rflags, rsp, ss;
};

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;
	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return lo | (u64)hi << 32;
}

static inline void wrmsr(u32 msr, u64 v)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

static inline void vmgexit(void) { __asm__ volatile("rep; vmmcall" : : : "memory"); }
static inline u64 read64(u64 at) { u64 v; __asm__ volatile("movq (%1), %0" : "=r"(v) : "r"(at) : "memory"); return v; }
static inline void write64(u64 at, u64 v) { __asm__ volatile("movq %0, (%1)" : : "r"(v), "r"(at) : "memory"); }
static inline void invlpg(u64 at) { __asm__ volatile("invlpg (%0)" : : "r"(at) : "memory"); }

/* Result of the last PVALIDATE: whether it found the page as it was to be. */
static int unchanged;

static u32 pvalidate(u64 at, u32 size, u32 on)
{
	u32 result;
	u8 carry;

	__asm__ volatile(".byte 0xf2, 0x0f, 0x01, 0xff\n\tsetc %1"
			 : "=a"(result), "=q"(carry) : "a"(at), "c"(size), "d"(on) : "memory", "cc");
	unchanged = carry;
	return result;
}

static u32 rmpadjust(u64 at, u64 size, u64 attributes)
{
	u32 result;

	__asm__ volatile(".byte 0xf3, 0x0f, 0x01, 0xfe" : "=a"(result) : "a"(at), "c"(size), "d"(attributes) : "memory", "cc");
	return result;
}

/* The GHCB. */

static void field(u32 offset, u64 v)
{
	u64 bitmap = GHCB_AT + 0x3f0 + (offset >> 9) * 8;

	write64(GHCB_AT + offset, v);
	write64(bitmap, read64(bitmap) | 1ul << ((offset >> 3) & 63));
}

/* An event of the GHCB: low half of SW_EXITINFO1, 0 when it was understood. */
static u32 event(u64 code, u64 info1, u64 info2)
{
	field(0x390, code);
	field(0x398, info1);
	field(0x3a0, info2);
	wrmsr(MSR_GHCB, GHCB_AT);
	vmgexit();
	return (u32)read64(GHCB_AT + 0x398);
}

static u64 msr_request(u64 request)
{
	wrmsr(MSR_GHCB, request);
	vmgexit();
	return rdmsr(MSR_GHCB);
}

static void out8(u16 port, u8 v)
{
	field(0x1f8, v);
	event(0x7b, (u64)port << 16 | 1 << 4, 0);
}

static void print(const char *s)
{
	for (; *s; s++)
		out8(SERIAL, (u8)*s);
}

static void print_hex(u64 v)
{
	int shift = 60;

	print("0x");
	while (shift > 0 && !(v >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		out8(SERIAL, (u8)"0123456789abcdef"[(v >> shift) & 15]);
}

static void say(const char *what, u64 v)
{
	print(what);
	print_hex(v);
	print("\n");
}

static void end(u8 value)
{
	out8(DEBUG_EXIT, value);
	for (;;)
		__asm__ volatile("hlt");
}

/* Exceptions. */

static u32 vc_count[0x500];
static u64 last_not_validated;

void unexpected(u64 error, u64 rip)
{
	say("unexpected exception, error ", error);
	say("rip ", rip);
	end(1);
}

/* CPUID, MSRs, ports and devices by the GHCB; memory that was not validated is validated. */
void handle_communication(struct registers *r)
{
	u32 code = (u32)r->error;
	const u8 *insn = (const u8 *)r->rip;

	if (code < 0x500)
		vc_count[code]++;
	switch (code) {
	case 0x72:
		field(0x1f8, r->rax);
		field(0x308, r->rcx);
		field(0x3e8, 1);
		event(code, 0, 0);
		r->rax = read64(GHCB_AT + 0x1f8);
		r->rbx = read64(GHCB_AT + 0x318);
		r->rcx = read64(GHCB_AT + 0x308);
		r->rdx = read64(GHCB_AT + 0x310);
		r->rip += 2;
		return;
	case 0x7c:
		field(0x308, r->rcx);
		if (insn[1] == 0x30) {
			field(0x1f8, r->rax);
			field(0x310, r->rdx);
		}
		if (event(code, insn[1] == 0x30, 0) == 1)
			print("  the hypervisor says #GP\n");
		if (insn[1] == 0x32) {
			r->rax = (u32)read64(GHCB_AT + 0x1f8);
			r->rdx = (u32)read64(GHCB_AT + 0x310);
		}
		r->rip += 2;
		return;
	case 0x7b:
		/* in (%dx), %al and out %al, (%dx) */
		field(0x1f8, r->rax);
		event(code, (u64)(u16)r->rdx << 16 | 1 << 4 | (insn[0] == 0xec), 0);
		if (insn[0] == 0xec)
			r->rax = (r->rax & ~0xfful) | (read64(GHCB_AT + 0x1f8) & 0xff);
		r->rip += 1;
		return;
	case 0x400:
		/* mov (%rdx), %eax of a device */
		if (insn[0] != 0x8b || insn[1] != 0x02)
			break;
		field(0x3a8, GHCB_AT + 0x800);
		event(0x80000001, r->rdx, 4);
		r->rax = (u32)read64(GHCB_AT + 0x800);
		r->rip += 2;
		return;
	case 0x404: {
		u64 at;
		__asm__ volatile("mov %%cr2, %0" : "=r"(at));
		last_not_validated = at;
		pvalidate(at & ~(PAGE - 1), 0, 1);
		return;
	}
	}
	unexpected(r->error, r->rip);
}

static struct { u16 low, selector; u8 ist, type; u16 middle; u32 high, zero; } idt[32];

static void vector(int n, const char *to)
{
	u64 at = (u64)to;

	idt[n].low = (u16)at;
	idt[n].selector = 8;
	idt[n].type = 0x8e;
	idt[n].middle = (u16)(at >> 16);
	idt[n].high = (u32)(at >> 32);
}

void set_vectors(void)
{
	static struct { u16 limit; u64 base; } __attribute__((packed)) pointer;
	int n;

	for (n = 0; n < 32; n++)
		vector(n, other_exception);
	vector(29, communication);
	pointer.limit = sizeof(idt) - 1;
	pointer.base = (u64)idt;
	__asm__ volatile("lidt %0" : : "m"(pointer));
}

/* Page states. */

static void c_bit(u64 at, int on)
{
	u64 *entry = &window[(at - WINDOW) / PAGE];

	*entry = on ? *entry | C_BIT : *entry & ~C_BIT;
	invlpg(at);
}

static u64 state_by_msr(u64 at, u64 operation) { return msr_request(operation << 52 | (at & ~(PAGE - 1)) | 0x14); }

static u64 state_by_ghcb(u64 at, u32 pages, u64 operation)
{
	u32 n;

	write64(GHCB_AT + 0x800, (u64)(pages - 1) << 16);
	for (n = 0; n < pages; n++)
		write64(GHCB_AT + 0x808 + 8 * n, operation << 52 | (at + n * PAGE));
	field(0x3a8, GHCB_AT + 0x800);
	event(0x80000010, 0, 0);
	return read64(GHCB_AT + 0x3a0);
}

/* Another privilege level: the same vCPU goes on with a VMSA of the guest's own making. */

static volatile u64 level_step;
static volatile u32 level_results[4];
static u64 here[10];

static void segment(u64 at, u16 selector, u16 attributes)
{
	write64(at, selector | (u64)attributes << 16 | 0xffffffffull << 32);
	write64(at + 8, 0);
}

static void make_vmsa(u64 at, u8 vmpl, u64 rip, u64 rsp)
{
	u64 n, cr;
	struct { u16 limit; u64 base; } __attribute__((packed)) table;

	for (n = 0; n < PAGE; n += 8)
		write64(at + n, 0);
	segment(at + 0x10, 8, 0xa9b);
	segment(at + 0x00, 16, 0xc93);
	segment(at + 0x20, 16, 0xc93);
	segment(at + 0x30, 16, 0xc93);
	segment(at + 0x40, 16, 0xc93);
	segment(at + 0x50, 16, 0xc93);
	segment(at + 0x90, 0, 0x08b);
	segment(at + 0x70, 0, 0x082);
	__asm__ volatile("sgdt %0" : "=m"(table));
	write64(at + 0x60, (u64)table.limit << 32);
	write64(at + 0x68, table.base);
	__asm__ volatile("sidt %0" : "=m"(table));
	write64(at + 0x80, (u64)table.limit << 32);
	write64(at + 0x88, table.base);
	write64(at + 0xc8, (u64)vmpl << 16);
	write64(at + 0xd0, 0x1500);
	__asm__ volatile("mov %%cr4, %0" : "=r"(cr));
	write64(at + 0x148, cr);
	__asm__ volatile("mov %%cr3, %0" : "=r"(cr));
	write64(at + 0x150, cr);
	__asm__ volatile("mov %%cr0, %0" : "=r"(cr));
	write64(at + 0x158, cr);
	write64(at + 0x160, 0x400);
	write64(at + 0x168, 0xffff0ff0);
	write64(at + 0x170, 2);
	write64(at + 0x178, rip);
	write64(at + 0x1d8, rsp);
	write64(at + 0x268, 0x0007040600070406);
	write64(at + 0x3b0, 1);
	write64(at + 0x3e8, 1);
	write64(at + 0x408, 0x1f80);
	write64(at + 0x410, 0x37f);
}

/* Asks for this vCPU (0) to go on with that VMSA; with the present one nothing more is done. */
static u32 go_on_with(u64 vmsa)
{
	field(0x1f8, 1);
	return event(0x80000013, 1, vmsa);
}

void level_main(void)
{
	level_results[0] = pvalidate(CLOSED, 0, 1);
	level_results[1] = rmpadjust(DATA, 0, 2 | 1 << 8);
	level_results[2] = rmpadjust(DATA, 0, 1 | 1 << 8);
	level_results[3] = (u32)read64(DATA);
	level_step = 2;
	go_on_with(VMSA_0);
	for (;;)
		__asm__ volatile("hlt");
}

static void levels(void)
{
	u64 at;

	for (at = (u64)image_start; at < (u64)image_end; at += PAGE)
		rmpadjust(at, 0, 1 | 0x0f << 8);
	say("vmpl: rmpadjust gives level 1 a page: ", rmpadjust(DATA, 0, 1 | 0x03 << 8));
	say("vmpl: rmpadjust of its own level: ", rmpadjust(DATA, 0, 0 | 0x03 << 8));
	say("vmpl: rmpadjust of level 4, which there is not: ", rmpadjust(DATA, 0, 4 | 0x03 << 8));
	say("vmpl: rmpadjust of 2 MiB where there are 4 KiB: ", rmpadjust(LARGE, 1, 1));
	pvalidate(VMSA_0, 0, 1);
	pvalidate(VMSA_1, 0, 1);
	pvalidate(CLOSED, 0, 1);
	write64(DATA, 0x77);
	/* Level 0 comes back where this function goes on: by a longjmp of its own. */
	if (__builtin_setjmp((void **)here) == 0) {
		make_vmsa(VMSA_1, 1, (u64)level_start, (u64)level_stack_top);
		make_vmsa(VMSA_0, 0, here[1], here[2]);
		write64(VMSA_0 + 0x328, here[0]);
		if (rmpadjust(VMSA_0, 0, 1 | 1 << 16) || rmpadjust(VMSA_1, 0, 1 | 1 << 16))
			print("vmpl: the VMSAs cannot be made\n");
		level_step = 1;
		print("vmpl: to level 1, and back\n");
		go_on_with(VMSA_1);
		for (;;)
			__asm__ volatile("hlt");
	}
	say("vmpl: level 1 asked pvalidate: ", level_results[0]);
	say("vmpl: level 1 gave level 2 what it has: ", level_results[1]);
	say("vmpl: level 1 adjusted itself: ", level_results[2]);
	say("vmpl: level 1 read: ", level_results[3]);
}

int main(void)
{
	u64 info, features;
	u32 eax, ebx, ecx, edx;

	/* Before there is a GHCB: the MSR protocol. */
	info = msr_request(2);
	features = msr_request(0x80) >> 12;
	state_by_msr(GHCB_AT, 2);
	c_bit(GHCB_AT, 0);
	msr_request((GHCB_AT & ~(PAGE - 1)) | 0x12);

	print("SNP guest\n");
	say("C-bit position: ", info >> 24 & 0xff);
	say("GHCB protocol: ", info >> 48);
	say("hypervisor features: ", features);
	say("MSR SEV_STATUS: ", rdmsr(MSR_SEV));

	__asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(0x8000001f), "c"(0));
	say("cpuid by #VC: 8000001f ebx ", ebx);
	say("msr by #VC: TSC_AUX of nobody ", rdmsr(0xc0000103));
	rdmsr(0x12345);
	__asm__ volatile("movl (%%rdx), %%eax" : "=a"(eax) : "d"(HPET));
	say("mmio by #VC: HPET ", eax);

	/* Memory that nobody validated. */
	write64(LAZY, 0x1234);
	say("not validated: #VC at ", last_not_validated);
	say("not validated: now holds ", read64(LAZY));
	say("validate: ", pvalidate(DATA, 0, 1));
	say("validate: found so before: ", (u64)unchanged);
	say("validate again: ", pvalidate(DATA, 0, 1));
	say("validate again: found so before: ", (u64)unchanged);
	say("validate 2 MiB where there are 4 KiB: ", pvalidate(LARGE, 1, 1));
	say("validate with a size that there is not: ", pvalidate(DATA, 2, 1));

	/* Two pages become shared, by a list. */
	pvalidate(SHARED_0, 0, 1);
	pvalidate(SHARED_1, 0, 1);
	pvalidate(SHARED_0, 0, 0);
	pvalidate(SHARED_1, 0, 0);
	say("share two pages: ", state_by_ghcb(SHARED_0, 2, 2));
	c_bit(SHARED_0, 0);
	c_bit(SHARED_1, 0);
	write64(SHARED_0, 0x6572616873);
	write64(SHARED_1, read64(SHARED_0));
	say("shared page holds ", read64(SHARED_1));
	say("bad list: ", state_by_ghcb(SHARED_0, 254, 2) >> 32);

	/* With the wrong C-bit: a shared page as private, and a private one as shared. */
	c_bit(SHARED_1, 1);
	last_not_validated = 0;
	read64(SHARED_1);
	say("shared page read as private: converted, then #VC at ", last_not_validated);
	pvalidate(MIXED, 0, 1);
	write64(MIXED, 0x7465726365736d79);
	c_bit(MIXED, 0);
	say("private page read as shared is ciphertext: ", read64(MIXED) != 0x7465726365736d79);
	write64(MIXED, 1);
	say("private page written as shared: RMP fault, converted, holds ", read64(MIXED));

	levels();

	say("#VC taken: cpuid ", vc_count[0x72]);
	say("#VC taken: msr ", vc_count[0x7c]);
	say("#VC taken: mmio ", vc_count[0x400]);
	say("#VC taken: not validated ", vc_count[0x404]);
	print("done\n");
	end(0);
	return 0;
}
