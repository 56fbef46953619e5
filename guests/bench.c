/*
 * The benchmark guest: parts that `softkvm bench cpu` times, in softkvm and in other emulators. A part is announced on the serial port by
 * its letter, and its end by a dot and a checksum; whoever runs the guest reads the clock.
 */
#include "bench.h"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long word;

#define SERIAL 0x3f8
#define SIEVE ((u8 *)0x800000)
#define SIEVE_SIZE (1u << 20)
#define NUMBERS ((u32 *)0xa00000)
#define NUMBER_COUNT 16384
#define SOURCE ((word *)0xc00000)
#define TARGET ((word *)0xd00000)
#define COPY_BYTES (256u << 10)
#define DEVICE ((volatile u32 *)0xd0000000)
#define TOUCHES 64

extern volatile u32 rounds[];
extern volatile word window[];
extern u8 page_root[];
void system_calls(word count);

static inline void out8(u16 port, u8 v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline u8 in8(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline void load_root(void) { __asm__ volatile("mov %0, %%cr3" : : "r"(page_root) : "memory"); }

static void put(char c)
{
	while (!(in8(SERIAL + 5) & 0x20))
		;
	out8(SERIAL, (u8)c);
}

static u32 integer_mix(u32 n)
{
	u32 a = 1, b = 0x9e3779b9, c = 0;

	for (n *= 10000; n; n--) {
		a = a * 1664525 + 1013904223;
		b ^= a >> 7;
		b = b << 5 | b >> 27;
		c += b & 0xff;
		if (a & 0x10000)
			c ^= a;
		else
			b += c >> 3;
	}
	return a ^ b ^ c;
}

static u32 sieve(u32 n)
{
	u32 count = 0;

	for (; n; n--) {
		count = 0;
		for (u32 i = 0; i < SIEVE_SIZE / 4; i++)
			((volatile u32 *)SIEVE)[i] = 0;
		for (u32 i = 2; i < SIEVE_SIZE; i++) {
			if (SIEVE[i])
				continue;
			count++;
			for (u32 j = i + i; j < SIEVE_SIZE; j += i)
				SIEVE[j] = 1;
		}
	}
	return count;
}

static void sort(u32 *a, int low, int high)
{
	while (low < high) {
		u32 pivot = a[(low + high) / 2];
		int i = low, j = high;

		while (i <= j) {
			while (a[i] < pivot)
				i++;
			while (a[j] > pivot)
				j--;
			if (i <= j) {
				u32 kept = a[i];

				a[i++] = a[j];
				a[j--] = kept;
			}
		}
		if (j - low < high - i) {
			sort(a, low, j);
			low = i;
		} else {
			sort(a, i, high);
			high = j;
		}
	}
}

static u32 quicksort(u32 n)
{
	u32 seed = 12345, sum = 0;

	for (; n; n--) {
		for (int i = 0; i < NUMBER_COUNT; i++)
			NUMBERS[i] = seed = seed * 1664525 + 1013904223;
		sort(NUMBERS, 0, NUMBER_COUNT - 1);
		for (int i = 1; i < NUMBER_COUNT; i++)
			if (NUMBERS[i - 1] > NUMBERS[i])
				return 0;
		sum += NUMBERS[NUMBER_COUNT / 2];
	}
	return sum;
}

static u32 copy_words(u32 n)
{
	for (; n; n--) {
		SOURCE[n & 1023] = n;
		for (u32 i = 0; i < COPY_BYTES / sizeof(word); i++)
			((volatile word *)TARGET)[i] = SOURCE[i];
	}
	return (u32)TARGET[1];
}

static u32 copy_string(u32 n)
{
	for (; n; n--) {
		word *to = TARGET, *from = SOURCE;
		word count = COPY_BYTES / 4;

		SOURCE[n & 1023] = n;
		__asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
	}
	return (u32)TARGET[1];
}

static u32 page_faults(u32 n)
{
	u32 i = 0;

	for (; n; n--) {
		volatile u32 *page = (u32 *)((word)WINDOW + i * 4096);

		*page = n;
		window[i] = 0;
		__asm__ volatile("invlpg (%0)" : : "r"(page) : "memory");
		i = (i + 1) & 511;
	}
	return *(u32 *)WINDOW_FRAMES;
}

static u32 reloads(u32 n)
{
	u32 sum = 0;

	for (u32 i = 0; i < TOUCHES; i++)
		window[i] = WINDOW_FRAMES + i * 4096 + 3;
	for (; n; n--) {
		load_root();
		for (u32 i = 0; i < TOUCHES; i++)
			sum += *(volatile u32 *)((word)WINDOW + i * 4096);
	}
	for (u32 i = 0; i < TOUCHES; i++)
		window[i] = 0;
	load_root();
	return sum & 1;
}

static u32 port_writes(u32 n)
{
	for (; n; n--)
		out8(0x80, (u8)n);
	return 0;
}

static u32 device_reads(u32 n)
{
	for (; n; n--)
		(void)*DEVICE;
	return 0;
}

static u32 user_calls(u32 n)
{
	system_calls(n);
	return n;
}

/* The mask of the first interrupt controller: a device that hypervisors have in the kernel. */
static u32 controller_reads(u32 n)
{
	u32 sum = 0;

	for (; n; n--)
		sum |= in8(0x21);
	return sum >> 8;
}

static u32 identifications(u32 n)
{
	u32 most = 0;

	for (; n; n--) {
		u32 a = 0, b, c = 0, d;

		__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
		most |= a;
	}
	return most >> 16;
}

static u32 (*const parts[PARTS])(u32) = {
	integer_mix, sieve, quicksort, copy_words, copy_string, page_faults, reloads, port_writes, device_reads, user_calls,
	controller_reads, identifications,
};

void bench_main(void)
{
	/* Eight bits a character. */
	out8(SERIAL + 3, 3);
	for (u32 i = 0; i < PARTS; i++) {
		u32 n = rounds[i + 2];
		u32 sum;

		if (!n)
			continue;
		put((char)('A' + i));
		sum = parts[i](n);
		put('.');
		for (int shift = 28; shift >= 0; shift -= 4)
			put("0123456789abcdef"[sum >> shift & 15]);
	}
	put('!');
	while (!(in8(SERIAL + 5) & 0x40))
		;
	/* However the machine is turned off: QEMU's and softkvm's test device, Bochs. */
	out8(0xf4, 0);
	for (const char *s = "Shutdown"; *s; s++)
		out8(0x8900, (u8)*s);
	for (;;)
		__asm__ volatile("hlt");
}
