/* A libnvidia-ml.so.1 for tests of `gpuprov top`: as many GPUs as /etc/watched-gpus says, on a host without any.

   /etc/watched-hang: nvmlDeviceGetTemperature never returns; /etc/watched-lost: GPU 1 is lost;
   /etc/watched-old: driver and library differ. Values: utilization 90 + index, 10 GiB of 80, 40 C, 300.5 W of 700. */
#include <stdio.h>
#include <unistd.h>

typedef unsigned int u32;
typedef unsigned long long u64;
const int gpuprov_simulated_nvml = 1;

static int there(const char *path) { return access(path, F_OK) == 0; }
static u32 of(void *device) { return (u32)((u64)device - 1); }

int nvmlInit_v2(void) { return there("/etc/watched-old") ? 18 : 0; }
int nvmlDeviceGetCount_v2(u32 *count)
{
    FILE *f = fopen("/etc/watched-gpus", "r");
    *count = 0;
    if (f) { if (fscanf(f, "%u", count) != 1) *count = 0; fclose(f); }
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(u32 index, void **device)
{
    if (index == 1 && there("/etc/watched-lost")) return 15;
    *device = (void *)(u64)(index + 1);
    return 0;
}
int nvmlDeviceGetName(void *device, char *name, u32 length) { snprintf(name, length, "NVIDIA H100 80GB HBM3"); return 0; }
int nvmlDeviceGetUtilizationRates(void *device, u32 *rates) { rates[0] = 90 + of(device); rates[1] = 5; return 0; }
int nvmlDeviceGetMemoryInfo(void *device, u64 *memory)
{
    memory[0] = 80ULL << 30; memory[1] = 70ULL << 30; memory[2] = 10ULL << 30;
    return 0;
}
int nvmlDeviceGetTemperature(void *device, u32 sensor, u32 *value)
{
    while (there("/etc/watched-hang")) sleep(1);
    *value = 40;
    return 0;
}
int nvmlDeviceGetPowerUsage(void *device, u32 *value) { *value = 300500; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *device, u32 *value) { *value = 700000; return 0; }
int nvmlDeviceGetTotalEccErrors(void *device, u32 kind, u32 when, u64 *value) { return 3; /* not supported */ }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, u64 *value)
{
    *value = of(device) == 0 && there("/etc/watched-brake") ? 0x80 : 0x1;
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, u32 *count, void *infos)
{
    struct { u32 pid; u64 memory; u32 gi, ci; } *found = infos;
    *count = of(device) == 0;
    if (*count) { found->pid = 1; found->memory = 9ULL << 30; }
    return 0;
}
