/* Inside the runtime: errors, device memory and the collectives' arithmetic. */
#pragma once
#include "abi.h"
#include <cstddef>
#include <cstdint>

namespace emulator {

/* Keeps the message for emu_error. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* What went wrong since the last call, or null. */
bool failed();

/* Whether bytes lie in one piece of device memory; fails naming `what` otherwise. */
bool check_range(const void *begin, size_t bytes, const char *what);
/* Whether nothing has been written beside the pieces of device memory; fails otherwise. */
bool check_guards(const char *after);

float decode(const void *p, size_t index, int element);
void encode(void *p, size_t index, int element, float x);

/* Does a collective for all lanes of the mask; an error text or null. `in_shared` says whether 16 bytes are shared memory. */
const char *perform(int kind, unsigned mask, void *const *operands, bool (*in_shared)(const void *));

}  // namespace emulator
