/* Answers that are lists: pages, rows, processes, fields. */
#include <stdlib.h>

#include "nvml.h"

API nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t gpu, unsigned int *corrected, unsigned int *uncorrected,
                                           unsigned int *pending, unsigned int *failed)
{
    unsigned long long numbers[4];
    size_t count;
    int code = usable(gpu);
    if (code == SUCCESS)
        code = look_numbers(gpu, "remapped", numbers, 4, &count);
    if (code)
        return code;
    if (count != 4)
        return UNKNOWN;
    *corrected = (unsigned int)numbers[0];
    *uncorrected = (unsigned int)numbers[1];
    *pending = numbers[2] != 0;
    *failed = numbers[3] != 0;
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t gpu, unsigned int cause, unsigned int *count,
                                           unsigned long long *addresses)
{
    unsigned long long numbers[256];
    size_t found;
    int code = usable(gpu);
    if (code == SUCCESS)
        code = cause > 1 ? INVALID_ARGUMENT
                         : look_numbers(gpu, cause ? "retired.double_bit" : "retired.single_bit", numbers, 256, &found);
    if (code)
        return code;
    unsigned int room = *count;
    *count = (unsigned int)found;
    if (room < found || (found && !addresses))
        return INSUFFICIENT_SIZE;
    for (size_t i = 0; i < found; i++)
        addresses[i] = numbers[i];
    return SUCCESS;
}

struct process { unsigned int pid; unsigned long long memory; unsigned int gpu_instance, compute_instance; };

/* The value is words PID:BYTES; without bytes the memory is not available. */
static int processes(const struct gpu *gpu, const char *key, unsigned int *count, struct process *out)
{
    char value[VALUE_BYTES], *rest = NULL;
    unsigned int room = count ? *count : 0, found = 0;
    int code = usable(gpu);
    if (code == SUCCESS)
        code = count ? look_gpu(gpu, key, value) : INVALID_ARGUMENT;
    if (code)
        return code;
    for (char *word = strtok_r(value, " ,", &rest); word; word = strtok_r(NULL, " ,", &rest), found++) {
        char *end;
        struct process one = {(unsigned int)strtoul(word, &end, 10), ~0ULL, ~0U, ~0U};
        if (*end == ':')
            one.memory = strtoull(end + 1, NULL, 10);
        if (out && found < room)
            out[found] = one;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define PROCESSES(function, key) \
    API nvmlReturn_t function(nvmlDevice_t gpu, unsigned int *count, struct process *out) \
    { return processes(gpu, key, count, out); }

PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "processes.compute")
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "processes.compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, "processes.graphics")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, "processes.graphics")
PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, "processes.mps")

API nvmlReturn_t nvmlDeviceValidateInforom(nvmlDevice_t gpu)
{
    char value[VALUE_BYTES];
    int code = usable(gpu);
    return code ? code : look_gpu(gpu, "inforom", value);
}

struct field {
    uint32_t id, scope;
    int64_t timestamp, latency;
    uint32_t type, code;
    union { double real; unsigned int uint; unsigned long long ulong; } value;
};

/* The fields that have a key of their own; of all others it is field.NUMBER. */
static const struct { uint32_t id; const char *key; } fields[] = {
    {82, "temperature.memory"},
    {194, "temperature.slowdown_tlimit"},
    {230, "recovery_action"},
};

API nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t gpu, int count, struct field *values)
{
    int code = usable(gpu);
    if (code || count < 0)
        return code ? code : INVALID_ARGUMENT;
    for (int i = 0; i < count; i++) {
        char key[64];
        snprintf(key, sizeof key, "field.%u", values[i].id);
        for (size_t j = 0; j < sizeof fields / sizeof *fields; j++)
            if (fields[j].id == values[i].id)
                snprintf(key, sizeof key, "%s", fields[j].key);
        values[i].value.ulong = 0;
        values[i].code = (uint32_t)answer_uint(gpu, key, &values[i].value.uint);
        values[i].type = values[i].value.uint > 0x7fffffff ? 5 : 1; /* nvmlValueType_t: a signed or an unsigned int */
        values[i].timestamp = values[i].latency = 0;
    }
    return SUCCESS;
}
