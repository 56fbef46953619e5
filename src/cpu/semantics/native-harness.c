/*
 * Runs instruction sequences on the host processor. stdin: cases of CASE bytes; stdout: answers of ANSWER bytes.
 * A case: code (256 bytes, the first one its length), FXSAVE image (512), general registers (16 x 8), RFLAGS (8), data (512),
 * the upper halves of YMM0 to YMM15 (16 x 16). An answer: the same without code, and before the upper halves the vector that ended
 * it (-1: none) and the offset of that instruction (4 bytes each). Build it with -mavx for a processor that has AVX.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ucontext.h>

#define DATA 0x200000UL
#define STATE 0x300000UL
#define CODE 0x400000UL
#define ALTERNATE 0x500000UL

struct state {
  uint8_t fx[512];
  uint64_t gpr[16];
  uint64_t flags;
  uint64_t rsp;
  uint64_t code;
  uint64_t flags_after;
  uint8_t upper[256];
};
static struct state *const state = (struct state *)STATE;
static sigjmp_buf out;
static int32_t ended[2];

void enter(void);
void leave(void);
/* Offsets are those of struct state: registers 0x200, flags 0x280, rsp 0x288, code 0x290, upper halves 0x2a0. */
#ifdef __AVX__
#define UPPER(n) " vinsertf128 $1, 0x3002a0+16*" #n ", %ymm" #n ", %ymm" #n "\n"
#define LOWER(n) " vextractf128 $1, %ymm" #n ", 0x3002a0+16*" #n "\n"
#else
#define UPPER(n)
#define LOWER(n)
#endif
#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)
__asm__(
    ".text\n"
    "enter:\n push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp, 0x300288\n fxrstor64 0x300000\n"
    EACH(UPPER)
    " push 0x300280\n popfq\n"
    " mov 0x300200, %rax\n mov 0x300208, %rcx\n mov 0x300210, %rdx\n mov 0x300218, %rbx\n"
    " mov 0x300220, %rsp\n mov 0x300228, %rbp\n mov 0x300230, %rsi\n mov 0x300238, %rdi\n mov 0x300240, %r8\n"
    " mov 0x300248, %r9\n mov 0x300250, %r10\n mov 0x300258, %r11\n mov 0x300260, %r12\n"
    " mov 0x300268, %r13\n mov 0x300270, %r14\n mov 0x300278, %r15\n"
    " jmp *0x300290\n"
    "leave:\n"
    " mov %rax, 0x300200\n mov %rcx, 0x300208\n mov %rdx, 0x300210\n mov %rbx, 0x300218\n"
    " mov %rbp, 0x300228\n mov %rsi, 0x300230\n mov %rdi, 0x300238\n mov %r8, 0x300240\n"
    " mov %rsp, 0x300220\n mov %r9, 0x300248\n mov %r10, 0x300250\n mov %r11, 0x300258\n mov %r12, 0x300260\n"
    " mov %r13, 0x300268\n mov %r14, 0x300270\n mov %r15, 0x300278\n"
    " mov 0x300288, %rsp\n pushfq\n pop 0x300280\n cld\n fxsave64 0x300000\n fninit\n"
    EACH(LOWER)
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n");

static void on_signal(int number, siginfo_t *info, void *context) {
  static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  ucontext_t *u = context;
  (void)number;
  (void)info;
  for (int i = 0; i < 16; i++) state->gpr[i] = u->uc_mcontext.gregs[order[i]];
  state->flags = u->uc_mcontext.gregs[REG_EFL];
  memcpy(state->fx, u->uc_mcontext.fpregs, 512);
#ifdef __AVX__
  memcpy(state->upper, (uint8_t *)u->uc_mcontext.fpregs + 576, 256);
#endif
  ended[0] = u->uc_mcontext.gregs[REG_TRAPNO];
  ended[1] = u->uc_mcontext.gregs[REG_RIP] - CODE;
  siglongjmp(out, 1);
}

int main(void) {
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
  static uint8_t code[256], buffer[512 + 128 + 8 + 512 + 256];
  while (fread(code, 1, 256, stdin) == 256 && fread(buffer, 1, sizeof buffer, stdin) == sizeof buffer) {
    uint8_t *c = (uint8_t *)CODE;
    int n = code[0];
    memcpy(c, code + 1, n);
    memcpy(c + n, "\xff\x25\0\0\0\0", 6);
    *(void **)(c + n + 6) = (void *)leave;
    memcpy((void *)STATE, buffer, 512 + 128 + 8);
    memset((void *)DATA, 0, 0x2000);
    memcpy((void *)DATA, buffer + 648, 512);
    memcpy(state->upper, buffer + 648 + 512, 256);
    state->code = CODE;
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
