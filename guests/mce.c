/* A memory error of the host: a page fails while the guest has it, and the machine check says which. Run with --poison 0x2000000@500. */
#include "guest.h"

#define MCG_CAP 0x179
#define MCG_STATUS 0x17a
#define BANK 9u
#define MC_STATUS(n) (0x401 + 4 * (n))
#define MC_ADDR(n) (0x402 + 4 * (n))
#define LOST 0x02000000ul
#define VALID (1ul << 63)
#define UNCORRECTED (1ul << 61)
#define HAS_ADDRESS (1ul << 58)
#define ACTION_REQUIRED (1ul << 55)
#define IN_PROGRESS 4ul

static volatile u64 checks, address;

/* Three bytes, which the handler steps over. */
static u64 load(u64 at)
{
	u64 v;

	__asm__ volatile("movq (%%rdi), %%rax" : "=a"(v) : "D"(at) : "memory");
	return v;
}

void trap(struct frame *f)
{
	u64 status;

	if (f->vector != 18)
		unexpected(f);
	expect("a machine check in progress", rdmsr(MCG_STATUS) & IN_PROGRESS, IN_PROGRESS);
	status = rdmsr(MC_STATUS(BANK));
	expect("the bank's status", status & (VALID | UNCORRECTED | HAS_ADDRESS | ACTION_REQUIRED),
	       VALID | UNCORRECTED | HAS_ADDRESS | ACTION_REQUIRED);
	address = rdmsr(MC_ADDR(BANK));
	checks++;
	wrmsr(MC_STATUS(BANK), 0);
	wrmsr(MCG_STATUS, 0);
	f->rip += 3;
}

int main(void)
{
	u64 cr4;

	print("a memory error of the host\n");
	expect("banks", (rdmsr(MCG_CAP) & 0xff) > BANK, 1);
	__asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
	__asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | 0x40));
	for (u64 n = 0; n < 16; n++)
		write64(LOST + n * PAGE, n + 1);
	for (u64 n = 0; n < 20000000 && !checks; n++)
		load(LOST + 8 * (n & 511));
	if (!checks) {
		print("no page failed\n");
		return 3;
	}
	expect("machine checks", checks, 1);
	expect("the address", address & ~0xffful, LOST);
	/* The page is lost, its neighbours are not. */
	load(LOST + 0x123);
	expect("machine checks after another load", checks, 2);
	for (u64 n = 1; n < 16; n++)
		expect("another page", load(LOST + n * PAGE), n + 1);
	expect("machine checks at the end", checks, 2);
	print("the page that failed is done without\n");
	return 0;
}
