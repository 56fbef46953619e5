/*
 * Asynchronous page faults: a guest larger than the memory that its host lets it keep. While a page is on its way from the swap device
 * the guest works on something else; each of its pages is checked when it has come.
 */
#include "guest.h"

#define MSR_ASYNC_PF_EN 0x4b564d02
#define MSR_ASYNC_PF_INT 0x4b564d06
#define MSR_ASYNC_PF_ACK 0x4b564d07
#define ENABLED 1
#define SEND_ALWAYS 2
#define AS_INTERRUPT 8
#define READY_VECTOR 0xf3
#define PAGE_NOT_PRESENT 1
#define WAKE_ALL 0xffffffffu

#define DATA 0x02000000ul
#define PAGES 768ul

static struct { volatile u32 flags, token; u8 pad[56]; } area __attribute__((aligned(64)));

/* Tokens of pages that the guest was told of and that have not come. */
static u32 waiting[64];
static u64 told, ready, wakeups, work, most;
/* The page that is being looked at. */
static volatile u64 current;

static int is_waiting(u32 token)
{
	for (int i = 0; i < 64; i++)
		if (waiting[i] == token)
			return 1;
	return 0;
}

static void replace(u32 from, u32 to)
{
	for (int i = 0; i < 64; i++) {
		if (waiting[i] != from)
			continue;
		waiting[i] = to;
		return;
	}
	expect("a token that nobody waits for", from, to);
}

static void page_ready(void)
{
	u32 token = area.token;

	area.token = 0;
	wrmsr(MSR_ASYNC_PF_ACK, 1);
	write32(APIC + 0xb0, 0);
	if (token == WAKE_ALL) {
		wakeups++;
		return;
	}
	expect("a page is ready twice", is_waiting(token), 1);
	replace(token, 0);
	ready++;
}

static void page_not_present(void)
{
	u32 token = (u32)read_cr2();
	u64 depth = 0;

	area.flags = 0;
	expect("token 0", token == 0, 0);
	expect("a token twice", is_waiting(token), 0);
	replace(0, token);
	told++;
	for (int i = 0; i < 64; i++)
		depth += waiting[i] != 0;
	if (depth > most)
		most = depth;
	/* Something else: another page, which may be away as well; now and then the same page again, which is on its way already. */
	sti();
	if (told % 16 == 0)
		read64(DATA + (current + 350) % PAGES * PAGE);
	if (told % 64 == 7)
		read64(DATA + current * PAGE);
	cli();
	while (is_waiting(token)) {
		work++;
		wait_for_interrupt();
	}
}

void trap(struct frame *f)
{
	if (f->vector == READY_VECTOR)
		page_ready();
	else if (f->vector == 14 && area.flags == PAGE_NOT_PRESENT)
		page_not_present();
	else
		unexpected(f);
}

static u64 value(u64 page) { return page * 0x9e3779b97f4a7c15ul + 1; }

static void fill(void)
{
	for (u64 n = 0; n < PAGES; n++) {
		current = n;
		write64(DATA + n * PAGE + 8 * (n & 511), value(n));
	}
}

static void check(u64 step)
{
	for (u64 i = 0, n = 0; i < PAGES; i++, n = (n + step) % PAGES) {
		current = n;
		expect("a page's contents", read64(DATA + n * PAGE + 8 * (n & 511)), value(n));
	}
}

int main(void)
{
	u32 ebx, ecx, edx;

	print("asynchronous page faults\n");
	if (!(cpuid(0x40000001, &ebx, &ecx, &edx) & (1u << 14))) {
		print("not offered\n");
		return 3;
	}
	write32(APIC + 0xf0, 0x1ff);
	sti();
	fill();
	check(7);
	cli();
	say("before they are on, told of pages", told);
	expect("pages told of", told, 0);

	wrmsr(MSR_ASYNC_PF_INT, READY_VECTOR);
	wrmsr(MSR_ASYNC_PF_EN, (u64)&area | ENABLED | SEND_ALWAYS | AS_INTERRUPT);
	sti();
	expect("wake-ups of all", wakeups, 1);
	check(7);
	fill();
	check(1);
	check(1531);
	cli();
	expect("pages that have not come", told - ready, 0);
	print("told of pages that are away, and all have come: ");
	print(told ? "yes\n" : "none were\n");
	expect("work done meanwhile", told == 0 || work > 0, 1);
	expect("several pages waited for at a time", told == 0 || most > 1, 1);

	/* With interrupts off nothing could be done meanwhile: each page is waited for. */
	u64 before = told;
	check(7);
	expect("told of pages with interrupts off", told, before);

	/* At CPL 0 the guest is not told unless it asks for it: the vCPU halts. */
	wrmsr(MSR_ASYNC_PF_EN, (u64)&area | ENABLED | AS_INTERRUPT);
	sti();
	check(5);
	expect("told of pages at CPL 0", told, before);
	wrmsr(MSR_ASYNC_PF_EN, 0);
	check(11);
	expect("told of pages after they are off", told, before);
	expect("wake-ups of all, again", wakeups, 2);
	say("wake-ups of all", wakeups);
	print("every page was what it should be\n");
	return 0;
}
