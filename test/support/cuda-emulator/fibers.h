/*
 * Fibers: stacks of their own on one system thread. A switch is a few instructions on x86-64, swapcontext elsewhere (or
 * with EMU_UCONTEXT).
 */
#pragma once
#include <cstddef>
#include <cstdint>
#include <sys/mman.h>
#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
#define EMU_FAST_SWITCH 1
#else
#include <ucontext.h>
#endif

namespace emulator {

constexpr size_t STACK_BYTES = 256 * 1024;
constexpr size_t GUARD_PAGE = 16 * 1024;

#ifdef EMU_FAST_SWITCH

extern "C" void emu_switch(void **from, void *to);
/* Keeps what a function call has to keep: six registers and the stack pointer. */
asm(R"(
  .text
  .p2align 4
  .hidden emu_switch
  .globl emu_switch
  .type emu_switch, @function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emu_switch, .-emu_switch
)");

struct Stack {
  void *at = nullptr;
  void start(char *top, void (*entry)()) {
    uint64_t *cells = (uint64_t *)((uintptr_t)top & ~(uintptr_t)15) - 8;
    for (int i = 0; i < 6; i++) cells[i] = 0;
    cells[6] = (uint64_t)entry;
    cells[7] = 0;
    at = cells;
  }
};
inline void switch_stack(Stack &from, Stack &to) { emu_switch(&from.at, to.at); }

#else

struct Stack {
  ucontext_t context;
  void start(char *top, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = top - STACK_BYTES / 2;
    context.uc_stack.ss_size = STACK_BYTES / 2;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
};
inline void switch_stack(Stack &from, Stack &to) { swapcontext(&from.context, &to.context); }

#endif

/* Room for the stacks of a block's threads, each with a page below it that traps. */
inline char *map_stacks(int count) {
  size_t bytes = (size_t)count * (STACK_BYTES + GUARD_PAGE);
  void *base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  for (int i = 0; i < count; i++) mprotect((char *)base + (size_t)i * (STACK_BYTES + GUARD_PAGE), GUARD_PAGE, PROT_NONE);
  return (char *)base;
}
/* Tops are staggered, or all stacks would compete for the same cache sets. */
inline char *stack_top(char *stacks, int index) {
  return stacks + (size_t)(index + 1) * (STACK_BYTES + GUARD_PAGE) - (size_t)(index % 61) * 320;
}

}  // namespace emulator
