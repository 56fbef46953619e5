/*
 * System management mode as firmware uses it: a handler in ordinary memory moves SMBASE into SMRAM and puts the real handler there; from
 * then on SMIs run code that nothing outside of SMM can see, and RSM comes back with all registers as they were.
 */
#include "guest.h"

#define APM_CONTROL 0xb2
#define APM_STATUS 0xb3
#define SMI_ENABLE 0x630
#define SMI_STATUS 0x634
#define APMC_AND_GLOBAL 0x21u
#define DEFAULT_ENTRY 0x38000ul
#define SMRAM 0xa0000ul
#define SMRAM_ENTRY (SMRAM + 0x8000)
/* Words that the handlers leave in ordinary memory. */
#define MAILBOX 0x9f000ul
#define SECRET 0x53454352
#define ROUNDS 50u

/*
 * SMM starts as real mode does, at SMBASE + 0x8000, with limits of 4 GiB. The saved state is at SMBASE + 0xfe00: SMBASE at 0xff00, RIP at
 * 0xff78, RAX at 0xfff8.
 */
__asm__(
	".code16\n"
	"relocate:\n"
	"	cld\n"
	"	movl	$handler, %esi\n"
	"	movl	$0xa8000, %edi\n"
	"	movl	$handler_end - handler, %ecx\n"
	"	addr32 rep movsb\n"
	"	movl	$0x53454352, %eax\n"
	"	movl	$0xa9004, %edi\n"
	"	addr32 movl %eax, (%edi)\n"
	"	movl	$0xa0000, %eax\n"
	"	movl	$0x3ff00, %edi\n"
	"	addr32 movl %eax, (%edi)\n"
	"	rsm\n"
	"relocate_end:\n"
	"handler:\n"
	/* How often: in SMRAM, and told to the outside with the secret, the saved RIP and CR0 in SMM. */
	"	movl	$0xa9000, %esi\n"
	"	addr32 incl (%esi)\n"
	"	addr32 movl (%esi), %eax\n"
	"	movl	$0x9f000, %edi\n"
	"	addr32 movl %eax, (%edi)\n"
	"	addr32 movl 4(%esi), %eax\n"
	"	addr32 movl %eax, 4(%edi)\n"
	"	movl	$0xaff78, %esi\n"
	"	addr32 movl (%esi), %eax\n"
	"	addr32 movl %eax, 8(%edi)\n"
	"	movl	%cr0, %eax\n"
	"	addr32 movl %eax, 12(%edi)\n"
	"	inb	$0xb3, %al\n"
	"	addr32 movb %al, 16(%edi)\n"
	/* An SMI in SMM waits for RSM. */
	"	cmpb	$0x55, %al\n"
	"	jne	1f\n"
	"	movb	$0x66, %al\n"
	"	outb	%al, $0xb3\n"
	"	outb	%al, $0xb2\n"
	"	addr32 incl 20(%edi)\n"
	/* RAX comes back changed: an answer. */
	"1:	movl	$0x600d600d, %eax\n"
	"	movl	$0xafff8, %edi\n"
	"	addr32 movl %eax, (%edi)\n"
	"	rsm\n"
	"handler_end:\n"
	".code64\n");

extern u8 relocate[], relocate_end[], handler_end[];

void trap(struct frame *f)
{
	unexpected(f);
}

struct state { u64 cr0, cr3, cr4, efer, gs, flags, sp; u16 cs, ds, ss, tr; };

static struct state now(void)
{
	struct state s;

	__asm__ volatile("mov %%cr0, %0" : "=r"(s.cr0));
	__asm__ volatile("mov %%cr3, %0" : "=r"(s.cr3));
	__asm__ volatile("mov %%cr4, %0" : "=r"(s.cr4));
	__asm__ volatile("pushfq; pop %0" : "=r"(s.flags) : : "memory");
	__asm__ volatile("mov %%cs, %0" : "=r"(s.cs));
	__asm__ volatile("mov %%ds, %0" : "=r"(s.ds));
	__asm__ volatile("mov %%ss, %0" : "=r"(s.ss));
	__asm__ volatile("str %0" : "=r"(s.tr));
	s.efer = rdmsr(0xc0000080);
	s.gs = rdmsr(0xc0000101);
	return s;
}

static void same(const struct state *a, const struct state *b)
{
	expect("CR0 after RSM", b->cr0, a->cr0);
	expect("CR3 after RSM", b->cr3, a->cr3);
	expect("CR4 after RSM", b->cr4, a->cr4);
	expect("EFER after RSM", b->efer, a->efer);
	expect("GS base after RSM", b->gs, a->gs);
	expect("CS after RSM", b->cs, a->cs);
	expect("DS after RSM", b->ds, a->ds);
	expect("SS after RSM", b->ss, a->ss);
	expect("TR after RSM", b->tr, a->tr);
	expect("interrupt flag after RSM", b->flags & 0x200, a->flags & 0x200);
}

/* Raises an SMI; what the handler made of RAX, and where the instruction after the OUT is. */
static u64 smi(u8 command, u64 *next)
{
	u64 a = command;

	__asm__ volatile("lea 1f(%%rip), %1; outb %%al, $0xb2; 1:" : "+a"(a), "=&r"(*next) : : "memory");
	return a;
}

static void copy(u64 to, const u8 *from, u64 n)
{
	for (u64 i = 0; i < n; i++)
		((volatile u8 *)to)[i] = from[i];
}

int main(void)
{
	struct state before, after;
	u64 next;

	print("system management mode\n");
	if (in32(SMI_ENABLE) == 0xffffffff) {
		print("not offered\n");
		return 3;
	}
	copy(DEFAULT_ENTRY, relocate, (u64)(handler_end - relocate));
	/* The handler is copied from where it was linked; what is at 0xa8000 outside of SMM is this. */
	write64(SMRAM_ENTRY, 0x1122334455667788ul);
	write64(SMRAM + 0x9000, 0);
	expect("no SMI before SMI_EN allows it", smi(1, &next), 1);
	out32(SMI_ENABLE, APMC_AND_GLOBAL);
	expect("SMI_EN", in32(SMI_ENABLE), APMC_AND_GLOBAL);

	wrmsr(0xc0000101, 0x123456789000ul);
	before = now();
	expect("RAX after the first SMI", smi(1, &next), 1);
	after = now();
	same(&before, &after);
	expect("SMI_STS", in32(SMI_STATUS), 0x20);
	out32(SMI_STATUS, 0x20);
	expect("SMI_STS after it is cleared", in32(SMI_STATUS), 0);
	print("SMBASE is moved\n");

	for (u32 n = 1; n <= ROUNDS; n++) {
		out8(APM_STATUS, (u8)n);
		expect("RAX after an SMI", smi((u8)n, &next), 0x600d600d);
		expect("SMIs taken", read32(MAILBOX), n);
		expect("the secret in SMRAM", read32(MAILBOX + 4), SECRET);
		expect("RIP in the saved state", read32(MAILBOX + 8), next);
		expect("paging and protection in SMM", read32(MAILBOX + 12) & 0x80000001, 0);
		expect("the parameter in APM_STS", read32(MAILBOX + 16) & 0xff, n);
	}
	after = now();
	same(&before, &after);
	say("SMIs", read32(MAILBOX));

	write32(MAILBOX + 20, 0);
	out8(APM_STATUS, 0x55);
	smi(0, &next);
	expect("an SMI raised in SMM is taken after RSM", read32(MAILBOX), ROUNDS + 2);
	expect("and not before", read32(MAILBOX + 20), 1);

	expect("memory outside of SMM at SMRAM's place", read64(SMRAM_ENTRY), 0x1122334455667788ul);
	expect("the counter outside of SMM", read64(SMRAM + 0x9000), 0);
	print("SMRAM is not to be seen\n");
	return 0;
}
