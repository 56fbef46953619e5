/*
 * The tour: one guest that takes every class of fault there is between it and its host, and says so on the serial port.
 * Each part announces its class, does its accesses, and checks what it read.
 */
#include "machine.h"

static inline void out8(u16 port, u8 v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline void out32(u16 port, u32 v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline u8 in8(u16 port) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline u32 in32(u16 port) { u32 v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }

static inline u64 read64(u64 at) { u64 v; __asm__ volatile("movq (%1), %0" : "=r"(v) : "r"(at) : "memory"); return v; }
static inline void write64(u64 at, u64 v) { __asm__ volatile("movq %0, (%1)" : : "r"(v), "r"(at) : "memory"); }
static inline u32 read32(u64 at) { u32 v; __asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(at) : "memory"); return v; }
static inline void write32(u64 at, u32 v) { __asm__ volatile("movl %0, (%1)" : : "r"(v), "r"(at) : "memory"); }

static void put(char c)
{
	while (!(in8(SERIAL + 5) & 0x20))
		;
	out8(SERIAL, (u8)c);
}

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

void exception(u64 vector, u64 error, u64 rip, u64 cr2)
{
	print("EXCEPTION ");
	print_number(vector);
	print(" error ");
	print_hex(error);
	print(" at ");
	print_hex(rip);
	print(" address ");
	print_hex(cr2);
	print("\n");
	end(2);
}

struct gate { u16 low; u16 selector; u16 flags; u16 mid; u32 high; u32 zero; } __attribute__((packed));
static struct gate idt[32] __attribute__((aligned(16)));
extern const char stubs[];

void set_vectors(void)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) idtr = { sizeof(idt) - 1, (u64)idt };
	u16 cs;

	__asm__ volatile("mov %%cs, %0" : "=r"(cs));
	for (int i = 0; i < 32; i++) {
		u64 at = (u64)stubs + (u64)i * 16;
		idt[i] = (struct gate){ (u16)at, cs, 0x8e00, (u16)(at >> 16), (u32)(at >> 32), 0 };
	}
	__asm__ volatile("lidt %0" : : "m"(idtr));
}

static void class_of_faults(u32 n) { out32(PORT_CLASS, n); }

static u32 command(u32 what)
{
	out32(PORT_COMMAND, what);
	return in32(PORT_COMMAND);
}

static u64 map_gpa_range(u64 gpa, u64 pages, u64 attributes)
{
	u64 ret = HC_MAP_GPA_RANGE;

	__asm__ volatile("vmmcall" : "+a"(ret) : "b"(gpa), "c"(pages), "d"(attributes) : "memory");
	return ret;
}

static void demand_paging(void)
{
	u64 sum = 0;

	print("1. demand paging: 64 MiB, one page after the other\n");
	class_of_faults(CLASS_DEMAND);
	for (u64 at = DEMAND_BASE; at < DEMAND_BASE + DEMAND_SIZE; at += PAGE)
		write64(at, at);
	class_of_faults(CLASS_NONE);
	for (u64 at = DEMAND_BASE; at < DEMAND_BASE + DEMAND_SIZE; at += PAGE)
		sum += read64(at) - at;
	expect("sum of 64 MiB", sum, 0);
}

static void huge_pages(void)
{
	print("2. huge pages: 4 MiB in two mappings\n");
	class_of_faults(CLASS_HUGE);
	for (u64 at = HUGE_BASE; at < HUGE_BASE + HUGE_SIZE; at += PAGE)
		write64(at, ~at);
	class_of_faults(CLASS_NONE);

	print("3. dirty logging splits them: 16 pages written\n");
	class_of_faults(CLASS_SPLIT);
	expect("log on", command(COMMAND_LOG_ON), 0);
	for (u64 i = 0; i < 16; i++)
		write64(HUGE_BASE + i * 32 * PAGE, i);
	u32 dirty = command(COMMAND_DIRTY_PAGES);
	expect("log off", command(COMMAND_LOG_OFF), 0);
	class_of_faults(CLASS_NONE);
	print("   dirty pages in the log: ");
	print_number(dirty);
	print("\n");
	expect("dirty pages", dirty, 16);
}

static void device(void)
{
	u64 second = DEVICE_BASE + PAGE;

	print("4. a device: the first accesses make MMIO entries\n");
	class_of_faults(CLASS_MMIO_NEW);
	write32(DEVICE_BASE + 8, 0x1234);
	expect("device register", read32(DEVICE_BASE + 8), 0x1234);
	write32(second + 8, 0x5678);
	expect("second page", read32(second + 8), 0x5678);

	print("5. and the next ones find them\n");
	class_of_faults(CLASS_MMIO_AGAIN);
	for (u32 i = 0; i < 8; i++) {
		write32(DEVICE_BASE + 8, i);
		write32(second + 8, i + 100);
	}
	expect("device register", read32(DEVICE_BASE + 8), 7);
	expect("second page", read32(second + 8), 107);

	print("6. until the slots change: they are stale\n");
	class_of_faults(CLASS_MMIO_STALE);
	expect("change of slots", command(COMMAND_CHANGE_SLOTS), 0);
	expect("device register", read32(DEVICE_BASE + 8), 7);
	expect("second page", read32(second + 8), 107);
	class_of_faults(CLASS_NONE);
}

static void read_only(void)
{
	print("7. a read-only slot: reads are memory, writes leave to the VMM\n");
	class_of_faults(CLASS_READ_ONLY);
	expect("rom", read64(READ_ONLY_BASE), 0x6d6f72);
	write64(READ_ONLY_BASE, 0xbad);
	expect("rom", read64(READ_ONLY_BASE), 0x6d6f72);
	class_of_faults(CLASS_NONE);
}

static void conversions(void)
{
	print("8. shared to private and back\n");
	class_of_faults(CLASS_CONVERSION);
	write64(PRIVATE_BASE, 0x5a5a);
	expect("conversion", map_gpa_range(PRIVATE_BASE, 16, MAP_GPA_PRIVATE), 0);
	expect("fresh private page", read64(PRIVATE_BASE), 0);
	write64(PRIVATE_BASE, 0xa5a5);
	expect("private page", read64(PRIVATE_BASE), 0xa5a5);
	expect("conversion", map_gpa_range(PRIVATE_BASE, 16, MAP_GPA_SHARED), 0);
	expect("shared page", read64(PRIVATE_BASE), 0x5a5a);

	print("9. private memory where the slot has none: a memory fault, converted and resumed\n");
	class_of_faults(CLASS_MISMATCH);
	write64(PLAIN_BASE, 0x11);
	expect("conversion", map_gpa_range(PLAIN_BASE, 1, MAP_GPA_PRIVATE), 0);
	write64(PLAIN_BASE + 8, 0x22);
	expect("plain page", read64(PLAIN_BASE), 0x11);
	expect("plain page", read64(PLAIN_BASE + 8), 0x22);
	class_of_faults(CLASS_NONE);
}

int main(void)
{
	print("softkvm demo guest\n");
	demand_paging();
	if (in32(PORT_COMMAND) == 0xffffffff) {
		print("no tour devices on this machine: the rest is for `softkvm demo`\n");
		return 0;
	}
	huge_pages();
	device();
	read_only();
	conversions();
	print("all faults accounted for\n");
	return 0;
}
