/* Entry in 64-bit mode with an identity map: own stack, own exception vectors, then main. */
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

/* One stub a vector: makes the stack alike with and without an error code. */
	.altmacro
	.macro stub n
	.balign 16
stub_\n:
	.if \n == 8 || (\n >= 10 && \n <= 14) || \n == 17 || \n == 21 || \n == 29 || \n == 30
	.else
	push	$0
	.endif
	push	$\n
	jmp	caught
	.endm

	.text
	.balign 16
	.globl stubs
stubs:
	.set i, 0
	.rept 32
	stub %i
	.set i, i + 1
	.endr

caught:
	mov	(%rsp), %rdi
	mov	8(%rsp), %rsi
	mov	16(%rsp), %rdx
	mov	%cr2, %rcx
	and	$-16, %rsp
	call	exception
1:	hlt
	jmp	1b

	.bss
	.balign 16
	.skip	16384
stack_top:
