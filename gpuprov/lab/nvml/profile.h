/* The profile: what the simulated GPUs answer, as lines "KEY VALUE" of a text file. */
#ifndef GPUPROV_PROFILE_H
#define GPUPROV_PROFILE_H

#include <stddef.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999
};
enum { MOST_GPUS = 64, MOST_LINKS = 36, VALUE_BYTES = 8192 };

/* A handle of NVML's is the address of one of these. */
struct gpu { int number; };

/* Of all functions: 0, or the error that the profile has instead of a value ("!GpuIsLost").
 * A key that the profile lacks is NOT_SUPPORTED; for "!HANG" they never return. */
int look(const char *key, char value[VALUE_BYTES]);
int look_gpu(const struct gpu *gpu, const char *key, char value[VALUE_BYTES]);
int look_number(const struct gpu *gpu, const char *key, unsigned long long *number);
int look_numbers(const struct gpu *gpu, const char *key, unsigned long long *numbers, size_t room, size_t *count);
int look_text(const struct gpu *gpu, const char *key, char *text, unsigned int room);

/* Whether the profile can be read at all, and the GPUs in it that are not "!Missing". */
int profile_readable(void);
size_t gpus_present(int numbers[MOST_GPUS]);

const char *error_text(int code);

#endif
