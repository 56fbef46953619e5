/*
 * Start of the SNP guest: from multiboot's 32-bit mode, in which every access is encrypted, to 64-bit mode with an identity map that has the
 * C-bit. Then vectors, of which #VC returns, and main.
 */
#define C_BIT_HI 0x80000
#define FLAGS 0x03
#define LARGE 0x83

	.code32
	.section .text.start, "ax"
	.globl start
	.balign 4
	.long	0x1badb002, 0, -0x1badb002
start:
	cli
	cld
	lgdt	gdt_pointer
	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$stack_top, %esp
	movl	$(pdpt + FLAGS), pml4
	movl	$C_BIT_HI, pml4 + 4
	mov	$(pd + FLAGS), %eax
	mov	$pdpt, %edi
	mov	$4, %ecx
1:	mov	%eax, (%edi)
	movl	$C_BIT_HI, 4(%edi)
	add	$0x1000, %eax
	add	$8, %edi
	loop	1b
/* Memory is private, what is above 3 GiB is devices. */
	mov	$LARGE, %eax
	mov	$pd, %edi
	mov	$2048, %ecx
1:	mov	%eax, (%edi)
	cmp	$513, %ecx
	jb	2f
	movl	$C_BIT_HI, 4(%edi)
2:	add	$0x200000, %eax
	add	$8, %edi
	loop	1b
/* One table of small pages, for memory whose state changes. */
	mov	$(0x400000 + FLAGS), %eax
	mov	$window, %edi
	mov	$512, %ecx
1:	mov	%eax, (%edi)
	movl	$C_BIT_HI, 4(%edi)
	add	$0x1000, %eax
	add	$8, %edi
	loop	1b
	movl	$(window + FLAGS), pd + 16
	movl	$C_BIT_HI, pd + 20
	mov	$0x20, %eax
	mov	%eax, %cr4
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	$0x80000011, %eax
	mov	%eax, %cr0
	ljmp	$8, $start64

	.code64
	.text
start64:
	lea	stack_top(%rip), %rsp
	xor	%ebp, %ebp
	call	set_vectors
	call	main
1:	hlt
	jmp	1b

/* All registers on the stack: #VC's handler reads and changes them. */
	.globl communication
communication:
	push	%rax
	push	%rbx
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rbp
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, %rdi
	call	handle_communication
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rbp
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rbx
	pop	%rax
	add	$8, %rsp
	iretq

/* Any other exception is the end. */
	.globl other_exception
other_exception:
	mov	(%rsp), %rdi
	mov	8(%rsp), %rsi
	and	$-16, %rsp
	call	unexpected

/* Where the VMSA of the other level starts. */
	.globl level_start
level_start:
	call	level_main
1:	hlt
	jmp	1b

	.section .rodata
	.balign 8
	.globl gdt
gdt:	.quad	0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
	.word	23
	.long	gdt

	.bss
	.balign 4096
	.globl window
pml4:	.skip	4096
pdpt:	.skip	4096
pd:	.skip	4 * 4096
window:	.skip	4096
	.skip	8192
stack_top:
	.skip	8192
	.globl level_stack_top
level_stack_top:
