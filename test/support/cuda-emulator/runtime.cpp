/*
 * Runs emulated kernels: blocks one after another, the threads of a block as fibers that run until they meet a barrier or
 * a collective. Warps and lanes run in descending order, or in a random one with a seed. What a device would answer with
 * wrong numbers or a hang is an error here: collectives that lanes of a warp do not meet in, barriers that not all
 * threads come to, shared memory that is read before it was written (poisoned with NaN), writes beside device memory,
 * misaligned accesses and indices beyond an array (the compiler's traps).
 */
#include "fibers.h"
#include "runtime.h"
#include "traps.h"
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <string>
#include <vector>

using namespace emulator;

namespace {

constexpr int MAX_THREADS = 1024;
constexpr size_t MAX_SHARED = 227 * 1024, SHARED_GUARD = 4096;
constexpr int MAX_COPIES = 256;

struct Copy { void *to; const void *from; bool valid; int group; };

struct Fiber {
  Stack stack;
  EmuIndex index;
  int kind, site;
  unsigned mask;
  void *operands;
  /* Asynchronous copies that have not been done yet, and the number of groups committed. */
  int copies, groups;
  Copy pending[MAX_COPIES];
};

/* A bit for each lane. */
struct Warp { unsigned ready, in_collective, in_barrier, exited; };

Fiber *fibers;
char *stacks, *dynamic_memory;
Warp warps[32];
Stack main_stack;
EmuContext context;
int threads, warp_count, current, waiting, exited, barrier_site, barrier_votes, barrier_result;
uint64_t random_state;
bool shuffled;
unsigned copy_count;
EmuModule *module;
const EmuEntry *entry;
void **kernel_arguments;
size_t dynamic_bytes;

unsigned draw(unsigned below) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (unsigned)((random_state >> 32) % below);
}

std::string place(int site) {
  char text[64];
  bool prelude = site > EMU_PRELUDE_LINES;
  snprintf(text, sizeof text, "line %d of the %s", prelude ? site - EMU_PRELUDE_LINES : site, prelude ? "prelude" : "source");
  return text;
}

std::string who(int thread) {
  char text[128];
  snprintf(text, sizeof text, "kernel %s, block (%u, %u, %u), thread %d", entry->name, context.block.x, context.block.y,
           context.block.z, thread);
  return text;
}

const char *name_of(int kind) {
  static const char *const names[] = {"__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync",
    "__ballot_sync", "mma16816", "mma16816", "ldmatrix2", "ldmatrix4", "ldmatrix2_transposed", "ldmatrix4_transposed"};
  return names[kind];
}

void switch_to(int next) {
  int self = current;
  if (next == self) return;
  current = next;
  context.thread = fibers[next].index;
  switch_stack(fibers[self].stack, fibers[next].stack);
}

/* Gives up the launch; the fibers are left as they are. */
[[noreturn]] void abandon() {
  switch_stack(fibers[current].stack, main_stack);
  __builtin_unreachable();
}

/* Nobody can run: says what each kind of waiting thread waits for. */
[[noreturn]] void deadlock() {
  std::string text;
  int shown = 0;
  for (int t = 0; t < threads && shown < 4; t++) {
    Warp &warp = warps[t >> 5];
    unsigned bit = 1u << (t & 31);
    if (warp.exited & bit) continue;
    bool first = t % 32 == 0 || warps[t >> 5].exited >> (t % 32 - 1) & 1;
    Fiber &own = fibers[t], &before = fibers[t ? t - 1 : 0];
    bool barrier = warp.in_barrier & bit;
    if (!first && own.site == before.site && barrier == (bool)(warp.in_barrier & bit >> 1)) continue;
    char line[256];
    const char *what = barrier ? "__syncthreads" : name_of(own.kind);
    snprintf(line, sizeof line, "\n  thread %d waits in %s (%s)", t, what, place(own.site).c_str());
    text += line;
    shown++;
  }
  fail("%s: deadlock, %d of %d threads wait at __syncthreads and %d have exited%s", who(current).c_str(), waiting, threads,
       exited, text.c_str());
  abandon();
}

int pick() {
  int start = shuffled ? (int)draw((unsigned)warp_count) : current >> 5;
  for (int i = 0; i < warp_count; i++) {
    int w = start - i < 0 ? start - i + warp_count : start - i;
    unsigned ready = warps[w].ready;
    if (!ready) continue;
    if (!shuffled) return 32 * w + 31 - std::countl_zero(ready);
    for (unsigned skip = draw((unsigned)std::popcount(ready)); skip > 0; skip--) ready &= ready - 1;
    return 32 * w + std::countr_zero(ready);
  }
  deadlock();
}

bool in_shared(const void *p) {
  const char *at = (const char *)p;
  if (at >= module->shared_begin && at + 16 <= module->shared_end) return true;
  return at >= dynamic_memory && at + 16 <= dynamic_memory + dynamic_bytes;
}

void collective(int kind, int site, unsigned mask, void *operands) {
  Warp &warp = warps[current >> 5];
  int first = current & ~31;
  unsigned bit = 1u << (current & 31);
  Fiber &own = fibers[current];
  own.kind = kind, own.site = site, own.mask = mask, own.operands = operands;
  if (!(mask & bit)) {
    fail("%s: %s (%s) with a mask 0x%08x that lacks the caller", who(current).c_str(), name_of(kind), place(site).c_str(), mask);
    abandon();
  }
  if (mask & warp.exited) {
    fail("%s: %s (%s) names lanes that have exited (mask 0x%08x, exited 0x%08x)", who(current).c_str(), name_of(kind),
         place(site).c_str(), mask, warp.exited);
    abandon();
  }
  warp.ready &= ~bit;
  warp.in_collective |= bit;
  if ((warp.in_collective & mask) != mask) {
    switch_to(pick());
    return;
  }
  void *all[32];
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    int lane = std::countr_zero(rest);
    Fiber &other = fibers[first + lane];
    if (other.kind != kind || other.mask != mask || other.site != site) {
      fail("%s: lanes of a warp meet in different collectives: %s (%s, mask 0x%08x), but thread %d in %s (%s, mask 0x%08x)",
           who(current).c_str(), name_of(kind), place(site).c_str(), mask, first + lane, name_of(other.kind),
           place(other.site).c_str(), other.mask);
      abandon();
    }
    all[lane] = other.operands;
  }
  if (const char *problem = perform(kind, mask, all, in_shared)) {
    fail("%s (%s): %s", who(current).c_str(), place(site).c_str(), problem);
    abandon();
  }
  warp.in_collective &= ~mask;
  warp.ready |= mask;
  if (shuffled) switch_to(pick());
}

void release_barrier() {
  for (int w = 0; w < warp_count; w++) {
    warps[w].ready |= warps[w].in_barrier;
    warps[w].in_barrier = 0;
  }
  barrier_result = barrier_votes;
  barrier_votes = 0;
  waiting = 0;
}

int barrier(int site, int predicate) {
  Warp &warp = warps[current >> 5];
  unsigned bit = 1u << (current & 31);
  if (waiting > 0 && barrier_site != site) {
    fail("%s: threads meet in different __syncthreads: %s and %s", who(current).c_str(), place(barrier_site).c_str(),
         place(site).c_str());
    abandon();
  }
  barrier_site = fibers[current].site = site;
  barrier_votes += predicate != 0;
  warp.ready &= ~bit;
  warp.in_barrier |= bit;
  waiting++;
  if (waiting + exited == threads) {
    release_barrier();
    if (shuffled) switch_to(pick());
  } else {
    switch_to(pick());
  }
  return barrier_result;
}

void do_copy(const Copy &copy) {
  if (copy.valid) memcpy(copy.to, copy.from, 16);
  else memset(copy.to, 0, 16);
}

/* Every other copy (by a fixed disorder) is done at once, the rest as late as the kernel waits for it: both a missing
   wait and a buffer that is filled while it is still being read show. */
void copy_async(void *to, const void *from, bool valid, int site) {
  Fiber &own = fibers[current];
  const char *problem = nullptr;
  bool aligned = (uintptr_t)to % 16 == 0 && (!valid || (uintptr_t)from % 16 == 0);
  if (!aligned) problem = "copy_async16 needs addresses aligned to 16 bytes";
  else if (!in_shared(to)) problem = "copy_async16 writes memory that is not shared memory";
  if (problem) {
    fail("%s (%s): %s", who(current).c_str(), place(site).c_str(), problem);
    abandon();
  }
  Copy copy = {to, from, valid, own.groups};
  bool late = ((copy_count++ * 2654435761u) >> 16) & 1;
  if (late && own.copies < MAX_COPIES) own.pending[own.copies++] = copy;
  else do_copy(copy);
}

void copy_commit() { fibers[current].groups++; }

void copy_wait(int pending) {
  Fiber &own = fibers[current];
  int kept = 0;
  for (int i = 0; i < own.copies; i++) {
    if (own.pending[i].group < own.groups - pending && own.pending[i].group < own.groups) do_copy(own.pending[i]);
    else own.pending[kept++] = own.pending[i];
  }
  own.copies = kept;
}

void fiber_main() {
  entry->call(kernel_arguments);
  Fiber &own = fibers[current];
  Warp &warp = warps[current >> 5];
  unsigned bit = 1u << (current & 31);
  for (int i = 0; i < own.copies; i++) do_copy(own.pending[i]);
  warp.ready &= ~bit;
  warp.exited |= bit;
  exited++;
  for (unsigned rest = warp.in_collective; rest; rest &= rest - 1) {
    Fiber &other = fibers[(current & ~31) + std::countr_zero(rest)];
    if (!(other.mask & bit)) continue;
    fail("%s: exits while other lanes wait for it in %s (%s)", who(current).c_str(), name_of(other.kind),
         place(other.site).c_str());
    abandon();
  }
  if (exited == threads) abandon();
  if (waiting > 0 && waiting + exited == threads) release_barrier();
  switch_to(pick());
  __builtin_unreachable();
}

void run_block() {
  memset(dynamic_memory, 0xff, dynamic_bytes + SHARED_GUARD);
  if (module->shared_begin) memset(module->shared_begin, 0xff, (size_t)(module->shared_end - module->shared_begin));
  memset(warps, 0, sizeof warps);
  waiting = exited = barrier_votes = 0;
  for (int t = 0; t < threads; t++) {
    Fiber &fiber = fibers[t];
    fiber.copies = fiber.groups = 0;
    fiber.index = {(unsigned)t, 0, 0};
    fiber.stack.start(stack_top(stacks, t), fiber_main);
    warps[t >> 5].ready |= 1u << (t & 31);
  }
  current = threads - 1;
  current = pick();
  context.thread = fibers[current].index;
  switch_stack(main_stack, fibers[current].stack);
  for (size_t i = 0; i < SHARED_GUARD; i++) {
    if (dynamic_memory[dynamic_bytes + i] == (char)0xff) continue;
    fail("%s: writes beyond its %zu bytes of dynamic shared memory", who(0).c_str(), dynamic_bytes);
    break;
  }
}

/* Says what a trap was; `[file+offset]` at the end is for addr2line. */
void explain_signal() {
  const char *what = "an illegal instruction (the compiler's trap: a misaligned access, or an index beyond an array)";
  char *address = (char *)caught_address;
  if (caught_signal == SIGUSR2) what = "does not end within the time limit";
  if (caught_signal == SIGFPE) what = "an arithmetic trap (integer division by zero)";
  if (caught_signal == SIGBUS || caught_signal == SIGSEGV) {
    what = "an access to an address that is not there";
    size_t all = (size_t)MAX_THREADS * (STACK_BYTES + GUARD_PAGE);
    if (address >= stacks && address < stacks + all) what = "a thread's stack overflows";
  }
  Dl_info info;
  char at[1024] = "";
  if (caught_at && dladdr(caught_at, &info) && info.dli_fname) {
    snprintf(at, sizeof at, " [%s+0x%zx]", info.dli_fname, (size_t)((char *)caught_at - (char *)info.dli_fbase));
  }
  if (caught_signal == SIGSEGV || caught_signal == SIGBUS) fail("%s: %s (%p)%s", who(current).c_str(), what, address, at);
  else fail("%s: %s%s", who(current).c_str(), what, at);
}

bool prepare() {
  if (fibers) return true;
  fibers = new Fiber[MAX_THREADS];
  stacks = map_stacks(MAX_THREADS);
  dynamic_memory = (char *)aligned_alloc(1024, MAX_SHARED + SHARED_GUARD + 1024);
  context.collective = collective;
  context.barrier = barrier;
  context.copy_async = copy_async;
  context.copy_commit = copy_commit;
  context.copy_wait = copy_wait;
  return stacks && dynamic_memory;
}

void run_grid() {
  if (sigsetjmp(escape, 1) != 0) {
    running = 0;
    explain_signal();
    return;
  }
  running = 1;
  for (unsigned z = 0; z < context.grid.z && !failed(); z++) {
    for (unsigned y = 0; y < context.grid.y && !failed(); y++) {
      for (unsigned x = 0; x < context.grid.x && !failed(); x++) {
        context.block = {x, y, z};
        run_block();
      }
    }
  }
  running = 0;
}

}  // namespace

extern "C" {

/* Loads a kernel library; null with an error. */
uint64_t emu_load(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  auto *found = library ? (EmuModule *)dlsym(library, "emu_module") : nullptr;
  if (!found) fail("cannot load a kernel library: %s", dlerror());
  return (uint64_t)found;
}

/* Parameters of an entry, a letter each (see EmuEntry); null when there is no such entry. */
const char *emu_parameters(uint64_t loaded, const char *name) {
  auto *found = (EmuModule *)loaded;
  for (int i = 0; i < found->entry_count; i++) {
    if (strcmp(found->entries[i].name, name) == 0) return found->entries[i].parameters;
  }
  return nullptr;
}

/* Arguments: 8 bytes each, little-endian. seed 0: the fixed order. 0 when all went well. */
int emu_launch(uint64_t loaded, const char *name, uint32_t x, uint32_t y, uint32_t z, uint32_t block, uint32_t shared_bytes,
               uint64_t *arguments, uint32_t count, uint32_t seed, double seconds) {
  module = (EmuModule *)loaded;
  entry = nullptr;
  for (int i = 0; i < module->entry_count; i++) {
    if (strcmp(module->entries[i].name, name) == 0) entry = &module->entries[i];
  }
  if (!entry) {
    fail("kernel %s is not in its source", name);
    return 1;
  }
  size_t static_bytes = (size_t)(module->shared_end - module->shared_begin);
  if (!x || !y || !z || x > 0x7fffffff || y > 65535 || z > 65535) fail("kernel %s: a grid of %u x %u x %u blocks", name, x, y, z);
  if (!block || block > MAX_THREADS || block % 32) fail("kernel %s: a block of %u threads", name, block);
  /* Several entries do not share their arrays on a device, but their sizes are not told apart here. */
  if (module->entry_count > 1) static_bytes = 0;
  if (static_bytes > 48 * 1024) fail("kernel %s: %zu bytes of static shared memory", name, static_bytes);
  if (shared_bytes + static_bytes > MAX_SHARED) {
    fail("kernel %s: %zu bytes of shared memory", name, shared_bytes + static_bytes);
  }
  if (!prepare()) fail("the emulator got no memory for its stacks");
  if (failed()) return 1;
  std::vector<void *> pointers;
  for (uint32_t i = 0; i < count; i++) pointers.push_back(arguments + i);
  kernel_arguments = pointers.data();
  dynamic_bytes = shared_bytes;
  threads = (int)block;
  warp_count = threads / 32;
  context.block_size = {block, 1, 1};
  context.grid = {x, y, z};
  shuffled = seed != 0;
  random_state = 0x9e3779b97f4a7c15ull * (seed + 1);
  copy_count = seed;
  *module->context = &context;
  *module->dynamic_shared = dynamic_memory;
  {
    SignalGuard guard(seconds);
    run_grid();
  }
  if (!failed()) check_guards((std::string("kernel ") + name).c_str());
  return failed();
}
}
