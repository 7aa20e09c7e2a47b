/*
 * Signals that a kernel raises (a compiler's trap, an address that is not there) or that a timer raises when it runs too
 * long: they end the launch instead of the process.
 */
#pragma once
#include <csetjmp>
#include <csignal>
#include <ctime>
#include <sys/types.h>
#include <ucontext.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
#endif

namespace emulator {

static sigjmp_buf escape;
static volatile sig_atomic_t running = 0, caught_signal = 0;
static void *volatile caught_address, *volatile caught_at;
static char trap_stack[65536];

static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGUSR2};
constexpr int SIGNAL_COUNT = sizeof SIGNALS / sizeof *SIGNALS;
static struct sigaction previous[SIGNAL_COUNT];

static void on_signal(int number, siginfo_t *info, void *raw) {
  if (!running) {
    signal(number, SIG_DFL);
    return;
  }
  caught_signal = number;
  caught_address = number == SIGUSR2 ? nullptr : info->si_addr;
  caught_at = nullptr;
#if defined(__x86_64__) && defined(__linux__)
  caught_at = (void *)((ucontext_t *)raw)->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__) && defined(__linux__)
  caught_at = (void *)((ucontext_t *)raw)->uc_mcontext.pc;
#endif
  (void)raw;
  siglongjmp(escape, 1);
}

/* Signals of this thread while kernels run on it, on a stack of their own. */
struct SignalGuard {
  stack_t old_stack;
  timer_t timer;
  bool timed = false;
  explicit SignalGuard(double seconds) {
    stack_t stack = {};
    stack.ss_sp = trap_stack;
    stack.ss_size = sizeof trap_stack;
    sigaltstack(&stack, &old_stack);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < SIGNAL_COUNT; i++) sigaction(SIGNALS[i], &action, &previous[i]);
#ifdef __linux__
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGUSR2;
    event.sigev_notify_thread_id = (int)syscall(SYS_gettid);
    itimerspec limit = {};
    limit.it_value.tv_sec = (time_t)seconds;
    limit.it_value.tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9);
    timed = seconds > 0 && timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &limit, nullptr) == 0;
#endif
  }
  ~SignalGuard() {
#ifdef __linux__
    if (timed) timer_delete(timer);
#endif
    for (int i = 0; i < SIGNAL_COUNT; i++) sigaction(SIGNALS[i], &previous[i], nullptr);
    sigaltstack(&old_stack, nullptr);
  }
};

}  // namespace emulator
