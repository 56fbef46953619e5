/*
 * Start of the benchmark guests, 32-bit and 64-bit: a multiboot image without ELF, so that every emulator with a multiboot loader takes
 * it. Paging with an identity map, one window of 4 KiB pages, a page-fault handler, and a way to user mode and back.
 */
#include "bench.h"

#define PHYS_FLAGS 0x07
#define LARGE_FLAGS 0x87

	.code32
	.section .text.start, "ax"
	.globl start
	.balign 4
header:
	.long	0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
	.long	header, header, image_end, bss_end, start
/* What whoever loads the image puts here: rounds of each part, 0 to leave it out. */
	.globl rounds
rounds:
	.ascii	"softkvmB"
	.skip	4 * PARTS

start:
	cli
	cld
	lgdt	gdt_pointer
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$stack_top, %esp
#ifdef __x86_64__
	movl	$(pdpt + PHYS_FLAGS), pml4
	mov	$pd, %eax
	or	$PHYS_FLAGS, %eax
	mov	$pdpt, %edi
	mov	$4, %ecx
1:	mov	%eax, (%edi)
	add	$0x1000, %eax
	add	$8, %edi
	loop	1b
	mov	$LARGE_FLAGS, %eax
	mov	$pd, %edi
	mov	$2048, %ecx
1:	mov	%eax, (%edi)
	add	$0x200000, %eax
	add	$8, %edi
	loop	1b
	movl	$(window + PHYS_FLAGS), pd + 8 * (WINDOW >> 21)
	mov	$0x30, %eax
	mov	%eax, %cr4
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x101, %eax
	wrmsr
	mov	$0x80000011, %eax
	mov	%eax, %cr0
	ljmp	$8, $start64

	.code64
start64:
	mov	$page_fault, %eax
	mov	%ax, idt + 16 * 14
	movw	$8, idt + 16 * 14 + 2
	movw	$0x8e00, idt + 16 * 14 + 4
	shr	$16, %eax
	mov	%ax, idt + 16 * 14 + 6
	lidt	idt_pointer
	mov	$0xc0000081, %ecx
	xor	%eax, %eax
	mov	$0x00180008, %edx
	wrmsr
	mov	$0xc0000082, %ecx
	mov	$system_call, %eax
	xor	%edx, %edx
	wrmsr
	mov	$0xc0000084, %ecx
	xor	%eax, %eax
	wrmsr
	call	bench_main
1:	hlt
	jmp	1b

page_fault:
	push	%rax
	push	%rcx
	mov	%cr2, %rcx
	mov	%ecx, %eax
	shr	$12, %ecx
	and	$511, %ecx
	and	$0x1ff000, %eax
	add	$(WINDOW_FRAMES + 3), %eax
	mov	%rax, window(, %rcx, 8)
	pop	%rcx
	pop	%rax
	add	$8, %rsp
	iretq

/* void system_calls(count): so many from user mode. */
	.globl system_calls
system_calls:
	push	%rbx
	mov	%edi, %ebx
	mov	$user, %ecx
	mov	$2, %r11d
	sysretq
user:
	xor	%eax, %eax
	syscall
	dec	%ebx
	jnz	user
	mov	$1, %eax
	syscall
system_call:
	test	%eax, %eax
	jnz	1f
	sysretq
1:	pop	%rbx
	ret
#else
	mov	$LARGE_FLAGS, %eax
	mov	$pd, %edi
	mov	$1024, %ecx
1:	mov	%eax, (%edi)
	add	$0x400000, %eax
	add	$4, %edi
	loop	1b
	movl	$(window + PHYS_FLAGS), pd + 4 * (WINDOW >> 22)
	mov	$0x10, %eax
	mov	%eax, %cr4
	mov	$pd, %eax
	mov	%eax, %cr3
	mov	$0x80000011, %eax
	mov	%eax, %cr0
	ljmp	$8, $1f
1:	mov	$page_fault, %eax
	mov	%ax, idt + 8 * 14
	movw	$8, idt + 8 * 14 + 2
	movw	$0x8e00, idt + 8 * 14 + 4
	shr	$16, %eax
	mov	%ax, idt + 8 * 14 + 6
	lidt	idt_pointer
	mov	$0x174, %ecx
	mov	$8, %eax
	xor	%edx, %edx
	wrmsr
	mov	$0x176, %ecx
	mov	$system_call, %eax
	wrmsr
	call	bench_main
1:	hlt
	jmp	1b

page_fault:
	push	%eax
	push	%ecx
	mov	%cr2, %ecx
	mov	%ecx, %eax
	shr	$12, %ecx
	and	$1023, %ecx
	and	$0x3ff000, %eax
	add	$(WINDOW_FRAMES + 3), %eax
	mov	%eax, window(, %ecx, 4)
	pop	%ecx
	pop	%eax
	add	$4, %esp
	iret

	.globl system_calls
system_calls:
	push	%ebx
	mov	8(%esp), %ebx
	mov	$0x175, %ecx
	mov	%esp, %eax
	xor	%edx, %edx
	wrmsr
	mov	$user, %edx
	mov	%esp, %ecx
	sysexit
user:
	xor	%eax, %eax
	mov	$1f, %edx
	mov	%esp, %ecx
	sysenter
1:	dec	%ebx
	jnz	user
	mov	$1, %eax
	sysenter
system_call:
	test	%eax, %eax
	jnz	1f
	sysexit
1:	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	pop	%ebx
	ret
#endif

	.balign 8
gdt:
	.quad	0
#ifdef __x86_64__
	.quad	0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
#else
	.quad	0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff
#endif
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt, 0
idt_pointer:
	.word	16 * 32 - 1
	.long	idt, 0

	.bss
	.balign 4096
	.globl window, page_root
#ifdef __x86_64__
page_root:
pml4:	.skip	4096
pdpt:	.skip	4096
pd:	.skip	4096 * 4
#else
page_root:
pd:	.skip	4096
#endif
window:	.skip	4096
idt:	.skip	16 * 32
	.skip	65536
stack_top:
