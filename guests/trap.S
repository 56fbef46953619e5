/* Entry in 64-bit mode with an identity map, and exceptions and interrupts that return: trap(frame) in C. */
	.section .text.start, "ax"
	.globl start
start:
	cli
	cld
	lea	stack_top(%rip), %rsp
	xor	%ebp, %ebp
	call	set_vectors
	call	main
	mov	%eax, %edi
	call	end

	.altmacro
	.macro stub n
	.balign 16
	.if \n == 8 || (\n >= 10 && \n <= 14) || \n == 17 || \n == 21 || \n == 29 || \n == 30
	.else
	pushq	$0
	.endif
	pushq	$\n
	jmp	caught
	.endm

	.text
	.balign 16
	.globl stubs
stubs:
	.set i, 0
	.rept 256
	stub %i
	.set i, i + 1
	.endr

caught:
	push	%rax
	push	%rcx
	push	%rdx
	push	%rbx
	push	%rbp
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, %rdi
	mov	%rsp, %rbp
	and	$-16, %rsp
	cld
	call	trap
	mov	%rbp, %rsp
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rbp
	pop	%rbx
	pop	%rdx
	pop	%rcx
	pop	%rax
	add	$16, %rsp
	iretq

	.bss
	.balign 16
	.skip	65536
	.globl stack_top
stack_top:
