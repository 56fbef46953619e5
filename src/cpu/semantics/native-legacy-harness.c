/*
 * Runs instruction sequences in 16-bit or 32-bit protected mode on the host processor: segments of compatibility mode, made by
 * modify_ldt. The argument is 16 or 32. stdin and stdout are as native-harness.c has them, for the eight registers that there are.
 * 32-bit code has flat segments; 16-bit code has its code segment at the code and the others at the data, with limits of 0xffff.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <unistd.h>

#define DATA 0x200000UL
#define STATE 0x300000UL
#define CODE 0x400000UL
#define ALTERNATE 0x500000UL

struct state {
  uint8_t fx[512];
  uint64_t gpr[16];
  uint64_t flags;
  uint64_t rsp;
  uint32_t offset;
  uint16_t cs;
  uint16_t ds;
  uint64_t unused;
  uint8_t upper[256];
};
static struct state *const state = (struct state *)STATE;
static sigjmp_buf out;
static int32_t ended[2];

void enter(void);
void leave(void);
/* Offsets are those of struct state: registers 0x200, flags 0x280, rsp 0x288, far pointer 0x290, data segment 0x296, upper halves 0x2a0. */
#define UPPER(n) " vinsertf128 $1, 0x3002a0+16*" #n ", %ymm" #n ", %ymm" #n "\n"
#define LOWER(n) " vextractf128 $1, %ymm" #n ", 0x3002a0+16*" #n "\n"
#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7)
__asm__(
    ".text\n"
    "enter:\n push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp, 0x300288\n fxrstor64 0x300000\n"
    EACH(UPPER)
    " push 0x300280\n popfq\n"
    " mov 0x300200, %eax\n mov 0x300208, %ecx\n mov 0x300210, %edx\n mov 0x300218, %ebx\n"
    " mov 0x300228, %ebp\n mov 0x300230, %esi\n mov 0x300238, %edi\n"
    " mov 0x300296, %ds\n mov 0x300296, %es\n mov 0x300296, %ss\n mov 0x300220, %esp\n"
    " ljmp *0x300290\n"
    "leave:\n"
    " mov %eax, 0x300200\n mov %ecx, 0x300208\n mov %edx, 0x300210\n mov %ebx, 0x300218\n"
    " mov %ebp, 0x300228\n mov %esi, 0x300230\n mov %edi, 0x300238\n"
    " mov $0x2b, %eax\n mov %eax, %ss\n"
    " mov 0x300288, %rsp\n pushfq\n pop 0x300280\n cld\n fxsave64 0x300000\n fninit\n"
    EACH(LOWER)
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n");

static void on_signal(int number, siginfo_t *info, void *context) {
  static const int order[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI};
  ucontext_t *u = context;
  (void)number;
  (void)info;
  for (int i = 0; i < 8; i++) state->gpr[i] = (uint32_t)u->uc_mcontext.gregs[order[i]];
  state->flags = u->uc_mcontext.gregs[REG_EFL];
  memcpy(state->fx, u->uc_mcontext.fpregs, 512);
  memcpy(state->upper, (uint8_t *)u->uc_mcontext.fpregs + 576, 256);
  ended[0] = u->uc_mcontext.gregs[REG_TRAPNO];
  ended[1] = (uint32_t)u->uc_mcontext.gregs[REG_RIP] - state->offset;
  siglongjmp(out, 1);
}

static void segment(int number, unsigned base, int contents) {
  struct user_desc d = {.entry_number = number, .base_addr = base, .limit = 0xffff, .contents = contents, .useable = 1};
  if (syscall(SYS_modify_ldt, 1, &d, sizeof d) != 0) exit(2);
}

int main(int argc, char **argv) {
  int wide = argc < 2 || atoi(argv[1]) != 16;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  mmap((void *)DATA, 0x2000, PROT_READ | PROT_WRITE, flags, -1, 0);
  mmap((void *)STATE, 0x1000, PROT_READ | PROT_WRITE, flags, -1, 0);
  mmap((void *)CODE, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0);
  mmap((void *)ALTERNATE, 0x40000, PROT_READ | PROT_WRITE, flags, -1, 0);
  stack_t stack = {.ss_sp = (void *)ALTERNATE, .ss_size = 0x40000};
  sigaltstack(&stack, 0);
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  sigaction(SIGFPE, &action, 0);
  sigaction(SIGSEGV, &action, 0);
  sigaction(SIGILL, &action, 0);
  sigaction(SIGBUS, &action, 0);
  sigaction(SIGTRAP, &action, 0);
  segment(0, CODE, 2);
  segment(1, DATA, 0);
  static uint8_t code[256], buffer[512 + 128 + 8 + 512 + 256];
  while (fread(code, 1, 256, stdin) == 256 && fread(buffer, 1, sizeof buffer, stdin) == sizeof buffer) {
    uint8_t *c = (uint8_t *)CODE;
    int n = code[0];
    memcpy(c, code + 1, n);
    /* A far jump back to 64-bit code. */
    if (!wide) c[n++] = 0x66;
    c[n++] = 0xea;
    uint32_t back = (uint32_t)(uintptr_t)leave;
    memcpy(c + n, &back, 4);
    memcpy(c + n + 4, "\x33", 2);
    memcpy((void *)STATE, buffer, 512 + 128 + 8);
    memset((void *)DATA, 0, 0x2000);
    memcpy((void *)DATA, buffer + 648, 512);
    memcpy(state->upper, buffer + 648 + 512, 256);
    state->offset = wide ? CODE : 0;
    state->cs = wide ? 0x23 : 7;
    state->ds = wide ? 0x2b : 15;
    ended[0] = -1;
    ended[1] = 0;
    if (!sigsetjmp(out, 1)) enter();
    __asm__ volatile("cld");
    fwrite((void *)STATE, 1, 648, stdout);
    fwrite((void *)DATA, 1, 512, stdout);
    fwrite(ended, 1, 8, stdout);
    fwrite(state->upper, 1, 256, stdout);
  }
  return 0;
}
