/* The machine that the demo VMM builds: where things are, and the ports by which the guest asks for more. */
#ifndef MACHINE_H
#define MACHINE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define SERIAL 0x3f8
#define DEBUG_EXIT 0xf4

/* Writing a class number here says what the next faults are for. */
#define PORT_CLASS 0xde0
/* Commands to the VMM; the answer is read from the same port. */
#define PORT_COMMAND 0xde4

#define COMMAND_LOG_ON 1
#define COMMAND_LOG_OFF 2
#define COMMAND_DIRTY_PAGES 3
#define COMMAND_CHANGE_SLOTS 4

#define CLASS_NONE 0
#define CLASS_DEMAND 1
#define CLASS_HUGE 2
#define CLASS_SPLIT 3
#define CLASS_MMIO_NEW 4
#define CLASS_MMIO_AGAIN 5
#define CLASS_MMIO_STALE 6
#define CLASS_READ_ONLY 7
#define CLASS_CONVERSION 8
#define CLASS_MISMATCH 9

#define DEMAND_BASE 0x02000000ul
#define DEMAND_SIZE 0x04000000ul
#define HUGE_BASE 0x10000000ul
#define HUGE_SIZE 0x00400000ul
#define READ_ONLY_BASE 0x11000000ul
#define PRIVATE_BASE 0x12000000ul
#define PLAIN_BASE 0x13000000ul
#define DEVICE_BASE 0xd0000000ul

#define PAGE 0x1000ul

/* Hypercall that asks the VMM to make pages private or shared. */
#define HC_MAP_GPA_RANGE 12
#define MAP_GPA_PRIVATE (1ul << 4)
#define MAP_GPA_SHARED 0ul

#endif
