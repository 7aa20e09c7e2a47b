/*
 * What the emulator's runtime (runtime.cpp) and an emulated kernel (emulator.h, compiled into a library of its own) say to
 * each other. No headers are needed.
 */
#pragma once

struct EmuIndex { unsigned x, y, z; };

/* A place in the kernel's text: its line; lines of the prelude are counted from here. */
enum { EMU_PRELUDE_LINES = 500000 };

/* Collectives of a warp: all lanes of the mask arrive with the same kind, the last one does the work for all. */
enum EmuCollective {
  EMU_SYNC,
  EMU_SHUFFLE,
  EMU_SHUFFLE_UP,
  EMU_SHUFFLE_DOWN,
  EMU_SHUFFLE_XOR,
  EMU_BALLOT,
  EMU_MMA_BF16,
  EMU_MMA_F16,
  EMU_LDMATRIX2,
  EMU_LDMATRIX4,
  EMU_LDMATRIX2_TRANSPOSED,
  EMU_LDMATRIX4_TRANSPOSED
};

/* One lane's operands. Shuffles: value, lane (or delta or mask), width. Ballots: value. */
struct EmuShuffle { unsigned long long value; int lane, width; unsigned long long result; };
struct EmuProduct { float *d; const unsigned *a, *b; };
struct EmuMatrix { unsigned *registers; const void *row; };

/* `thread` is that of the thread that runs; the runtime changes it whenever it switches. */
struct EmuContext {
  EmuIndex thread, block, block_size, grid;
  void (*collective)(int kind, int site, unsigned mask, void *operands);
  /* Returns how many threads came with a predicate other than 0. */
  int (*barrier)(int site, int predicate);
  void (*copy_async)(void *to, const void *from, bool valid, int site);
  void (*copy_commit)();
  void (*copy_wait)(int pending);
};

/* What a kernel library exports as `emu_module`. */
struct EmuEntry {
  const char *name;
  void (*call)(void **arguments);
  /* A letter for each parameter: p 8 bytes, i 4 bytes integer, f float. */
  const char *parameters;
};
struct EmuModule {
  EmuContext **context;
  /* Where the kernel's `extern __shared__` array lies. */
  char **dynamic_shared;
  const EmuEntry *entries;
  int entry_count;
  char *shared_begin, *shared_end;
};
