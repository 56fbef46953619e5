/* Boot sector of a disk that holds a benchmark guest from its second sector on, for emulators without a multiboot loader. */
	.code16
	.section .text, "ax"
	.globl start
start:
	ljmp	$0, $1f
1:	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$0x7c00, %sp
	mov	$packet, %si
	mov	$0x42, %ah
	int	$0x13
	jc	failed
	in	$0x92, %al
	or	$2, %al
	out	%al, $0x92
	cli
	lgdt	gdt_pointer
	mov	%cr0, %eax
	or	$1, %al
	mov	%eax, %cr0
	ljmpl	$8, $2f
failed:
	mov	$'?', %al
	mov	$0x3f8, %dx
	out	%al, %dx
1:	hlt
	jmp	1b
	.code32
2:	mov	$0x10, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	cld
	mov	$0x10000, %esi
	mov	$0x100000, %edi
	mov	$(SECTORS * 512 / 4), %ecx
	rep	movsl
	jmp	*0x10001c
	.balign 8
gdt:	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
	.word	23
	.long	gdt
packet:	.byte	16, 0
	.word	SECTORS, 0, 0x1000
	.quad	1
	.org	510
	.word	0xaa55
