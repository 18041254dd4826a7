/* What one GPU says of itself. */
#include <stdlib.h>

#include "nvml.h"

TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")
TEXT(nvmlDeviceGetBoardPartNumber, "board_part")
UINT(nvmlDeviceGetMinorNumber, "minor")
PAIR(nvmlDeviceGetCudaComputeCapability, "compute_capability")
UINT(nvmlDeviceGetPersistenceMode, "persistence")
UINT(nvmlDeviceGetComputeMode, "compute_mode")
PAIR(nvmlDeviceGetMigMode, "mig")
PAIR(nvmlDeviceGetEccMode, "ecc_mode")
UINT(nvmlDeviceGetPowerUsage, "power")
UINT(nvmlDeviceGetPowerManagementLimit, "power.limit")
UINT(nvmlDeviceGetPowerManagementDefaultLimit, "power.default")
UINT(nvmlDeviceGetEnforcedPowerLimit, "power.enforced")
ULONG(nvmlDeviceGetTotalEnergyConsumption, "energy")
ULONG(nvmlDeviceGetCurrentClocksThrottleReasons, "throttle")
ULONG(nvmlDeviceGetCurrentClocksEventReasons, "throttle")
UINT(nvmlDeviceGetPerformanceState, "pstate")
UINT(nvmlDeviceGetFanSpeed, "fan")
UINT(nvmlDeviceGetCurrPcieLinkGeneration, "pcie.generation")
UINT(nvmlDeviceGetMaxPcieLinkGeneration, "pcie.generation_max")
UINT(nvmlDeviceGetCurrPcieLinkWidth, "pcie.width")
UINT(nvmlDeviceGetMaxPcieLinkWidth, "pcie.width_max")
UINT(nvmlDeviceGetPcieReplayCounter, "pcie.replays")
UINT(nvmlDeviceGetRetiredPagesPendingStatus, "retired.pending")

/* The caller's buffer has 64 bytes. */
API nvmlReturn_t nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t gpu, char *version)
{
    int code = usable(gpu);
    return code ? code : look_text(gpu, "gsp_firmware", version, 64);
}

API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t gpu, nvmlPciInfo_t *pci)
{
    char value[VALUE_BYTES];
    int code = usable(gpu);
    if (code == SUCCESS)
        code = look_gpu(gpu, "pci.address", value);
    if (code == SUCCESS)
        code = read_address(value, pci);
    if (code == SUCCESS)
        code = answer_uint(gpu, "pci.device", &pci->pciDeviceId);
    return code ? code : answer_uint(gpu, "pci.subsystem", &pci->pciSubSystemId);
}

struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned int version; unsigned long long total, reserved, free, used; };
struct bar1 { unsigned long long total, free, used; };
struct utilization { unsigned int gpu, memory; };

API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t gpu, struct memory *out)
{
    int code = answer_ulong(gpu, "memory.total", &out->total);
    if (code == SUCCESS)
        code = answer_ulong(gpu, "memory.free", &out->free);
    return code ? code : answer_ulong(gpu, "memory.used", &out->used);
}

API nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t gpu, struct memory_v2 *out)
{
    struct memory all;
    if (out->version != (0x02000000 | sizeof *out))
        return ARGUMENT_VERSION_MISMATCH;
    int code = nvmlDeviceGetMemoryInfo(gpu, &all);
    if (code)
        return code;
    out->total = all.total;
    out->free = all.free;
    out->used = all.used;
    code = answer_ulong(gpu, "memory.reserved", &out->reserved);
    if (code == NOT_SUPPORTED)
        out->reserved = 0;
    return code == NOT_SUPPORTED ? SUCCESS : code;
}

API nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t gpu, struct bar1 *out)
{
    int code = answer_ulong(gpu, "bar1.total", &out->total);
    if (code == SUCCESS)
        code = answer_ulong(gpu, "bar1.used", &out->used);
    out->free = code == SUCCESS ? out->total - out->used : 0;
    return code;
}

API nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t gpu, struct utilization *out)
{
    int code = answer_uint(gpu, "utilization.gpu", &out->gpu);
    return code ? code : answer_uint(gpu, "utilization.memory", &out->memory);
}

/* Answer the key *names*[*which*], after a prefix. */
static int answer_named(const struct gpu *gpu, const char *prefix, const char *const *names, size_t count,
                        unsigned int which, unsigned int *out)
{
    char key[64];
    if (which >= count)
        return INVALID_ARGUMENT;
    if (!names[which])
        return NOT_SUPPORTED;
    snprintf(key, sizeof key, "%s%s", prefix, names[which]);
    return answer_uint(gpu, key, out);
}

API nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t gpu, unsigned int sensor, unsigned int *out)
{
    return sensor ? INVALID_ARGUMENT : answer_uint(gpu, "temperature", out);
}

struct temperature { unsigned int version, sensor; int temperature; };

API nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t gpu, struct temperature *out)
{
    if (out->version != (0x01000000 | sizeof *out))
        return ARGUMENT_VERSION_MISMATCH;
    return nvmlDeviceGetTemperature(gpu, out->sensor, (unsigned int *)&out->temperature);
}

struct margin { unsigned int version; int margin; };

/* Degrees below the GPU's target; above it they are negative. */
API nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t gpu, struct margin *out)
{
    if (out->version != (0x01000000 | sizeof *out))
        return ARGUMENT_VERSION_MISMATCH;
    return answer_uint(gpu, "temperature.margin", (unsigned int *)&out->margin);
}

API nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t gpu, unsigned int kind, unsigned int *out)
{
    static const char *const names[] = {"shutdown", "slowdown", "memory_max", "gpu_max", NULL, NULL, NULL, NULL};
    return answer_named(gpu, "temperature.", names, 8, kind, out);
}

static const char *const clocks[] = {"sm", "sm", "memory", "video"};

API nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t gpu, unsigned int kind, unsigned int *out)
{
    return answer_named(gpu, "clock.", clocks, 4, kind, out);
}

API nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t gpu, unsigned int kind, unsigned int *out)
{
    static const char *const names[] = {"sm_max", "sm_max", "memory_max", "video_max"};
    return answer_named(gpu, "clock.", names, 4, kind, out);
}

API nvmlReturn_t nvmlDeviceGetApplicationsClock(nvmlDevice_t gpu, unsigned int kind, unsigned int *out)
{
    static const char *const names[] = {"sm_application", "sm_application", "memory_application", NULL};
    return answer_named(gpu, "clock.", names, 4, kind, out);
}

API nvmlReturn_t nvmlDeviceGetDefaultApplicationsClock(nvmlDevice_t gpu, unsigned int kind, unsigned int *out)
{
    static const char *const names[] = {"sm_application_default", "sm_application_default",
                                        "memory_application_default", NULL};
    return answer_named(gpu, "clock.", names, 4, kind, out);
}

struct violation { unsigned long long referenceTime, violationTime; };

API nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t gpu, unsigned int policy, struct violation *out)
{
    static const char *const names[] = {"power", "thermal", "sync_boost", "board_limit", "low_utilization",
                                        "reliability"};
    char key[64];
    if (policy >= sizeof names / sizeof *names)
        return NOT_SUPPORTED;
    snprintf(key, sizeof key, "violation.%s", names[policy]);
    out->referenceTime = 0;
    return answer_ulong(gpu, key, &out->violationTime);
}

static const char *when(unsigned int counter) { return counter ? "aggregate" : "volatile"; }
static const char *how(unsigned int kind) { return kind ? "uncorrected" : "corrected"; }

API nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t gpu, unsigned int kind, unsigned int counter,
                                             unsigned long long *out)
{
    char key[64];
    if (kind > 1 || counter > 1)
        return INVALID_ARGUMENT;
    snprintf(key, sizeof key, "ecc.%s.%s", when(counter), how(kind));
    return answer_ulong(gpu, key, out);
}

API nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t gpu, unsigned int kind, unsigned int counter,
                                                 unsigned int location, unsigned long long *out)
{
    char key[64];
    const char *where = location == 2 ? "dram" : location == 7 ? "sram" : NULL;
    if (kind > 1 || counter > 1 || location > 7)
        return INVALID_ARGUMENT;
    if (!where)
        return NOT_SUPPORTED;
    snprintf(key, sizeof key, "ecc.%s.%s.%s", when(counter), where, how(kind));
    return answer_ulong(gpu, key, out);
}

struct sram_status {
    unsigned int version;
    unsigned long long aggregate_parity, aggregate_secded, aggregate_corrected, volatile_parity, volatile_secded,
        volatile_corrected, buckets[5];
    unsigned int threshold_exceeded;
};

API nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t gpu, struct sram_status *out)
{
    if (out->version != (0x01000000 | sizeof *out))
        return ARGUMENT_VERSION_MISMATCH;
    int code = answer_uint(gpu, "ecc.sram.threshold_exceeded", &out->threshold_exceeded);
    if (code == SUCCESS)
        code = answer_ulong(gpu, "ecc.aggregate.sram.uncorrected", &out->aggregate_secded);
    if (code == SUCCESS)
        code = answer_ulong(gpu, "ecc.aggregate.sram.corrected", &out->aggregate_corrected);
    if (code == SUCCESS)
        code = answer_ulong(gpu, "ecc.volatile.sram.uncorrected", &out->volatile_secded);
    return code ? code : answer_ulong(gpu, "ecc.volatile.sram.corrected", &out->volatile_corrected);
}
