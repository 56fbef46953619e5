/* The reset vector of a TD: protected mode without paging, EFER.LME set; RCX is what the host says (memory in bytes), RSI the vCPU's number. */
    .section .tables, "aw"
    .balign 4096
pml4:
    .quad pdpt_private + 3
    .quad pdpt_shared + 3
    .fill 510, 8, 0
/* The first 4 GiB twice: as private memory, and from 512 GiB on as shared memory, with bit 47 of the address set. */
pdpt_private:
    .quad 0x83, 0x40000083, 0x80000083, 0xc0000083
    .fill 508, 8, 0
pdpt_shared:
    .quad 0x800000000083, 0x800040000083, 0x800080000083, 0x8000c0000083
    .fill 508, 8, 0

    .section .text.start, "ax"
    .code32
start32:
    lgdtl gdtr
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    ljmp $8, $start64

    .code64
start64:
    test %esi, %esi
    jnz park
    mov $stack_top, %esp
    mov $stack_top, %eax
    mov %rcx, %rdi
    call guest_main
/* vCPUs that nobody needs: TDG.VP.VMCALL<Instruction.HLT>, for ever. */
park:
    xor %eax, %eax
    mov $0x1c00, %ecx
    xor %r10d, %r10d
    mov $12, %r11d
    xor %r12d, %r12d
    .byte 0x66, 0x0f, 0x01, 0xcc
    jmp park

/* tdcall(r): registers RAX, RCX, RDX and R8 to R15 from r[0..15] by their numbers, and back. */
    .globl tdcall
tdcall:
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    push %rdi
    mov %rdi, %rbx
    mov (%rbx), %rax
    mov 8(%rbx), %rcx
    mov 16(%rbx), %rdx
    mov 64(%rbx), %r8
    mov 72(%rbx), %r9
    mov 80(%rbx), %r10
    mov 88(%rbx), %r11
    mov 96(%rbx), %r12
    mov 104(%rbx), %r13
    mov 112(%rbx), %r14
    mov 120(%rbx), %r15
    .byte 0x66, 0x0f, 0x01, 0xcc
    pop %rdi
    mov %rax, (%rdi)
    mov %rcx, 8(%rdi)
    mov %rdx, 16(%rdi)
    mov %r8, 64(%rdi)
    mov %r9, 72(%rdi)
    mov %r10, 80(%rdi)
    mov %r11, 88(%rdi)
    mov %r12, 96(%rdi)
    mov %r13, 104(%rdi)
    mov %r14, 112(%rdi)
    mov %r15, 120(%rdi)
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    ret

/* #VE: general registers by their numbers, then RIP, CS, RFLAGS, RSP, SS. */
    .globl ve_entry
ve_entry:
    push %r15
    push %r14
    push %r13
    push %r12
    push %r11
    push %r10
    push %r9
    push %r8
    push %rdi
    push %rsi
    push %rbp
    push %rsp
    push %rbx
    push %rdx
    push %rcx
    push %rax
    mov %rsp, %rdi
    cld
    call on_ve
    pop %rax
    pop %rcx
    pop %rdx
    pop %rbx
    add $8, %rsp
    pop %rbp
    pop %rsi
    pop %rdi
    pop %r8
    pop %r9
    pop %r10
    pop %r11
    pop %r12
    pop %r13
    pop %r14
    pop %r15
    iretq

/* Any other exception: a vector that is none. */
    .globl fault_entry
fault_entry:
    call on_fault

    .section .rodata
    .balign 8
gdt:
    .quad 0, 0x00af9b000000ffff
gdtr:
    .word 15
    .long gdt

    .section .reset, "ax"
    .code32
    jmp start32
    .balign 16, 0x90

    .section .bss, "aw", @nobits
    .balign 16
    .skip 8192
stack_top:

    .section .note.GNU-stack, "", @progbits
