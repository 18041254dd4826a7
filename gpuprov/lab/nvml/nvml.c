/* A libnvidia-ml.so.1 without a GPU: start and end, the driver's versions, handles. */
#include "nvml.h"

#include <stdatomic.h>

/* What tells this library from a driver's: no value of its comes from hardware. */
API const char gpuprov_simulated_nvml[] = "simulated GPUs of a gpuprov lab host";

static struct gpu gpus[MOST_GPUS];
static atomic_int users;

API nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    char value[VALUE_BYTES];
    (void)flags;
    if (!profile_readable())
        return DRIVER_NOT_LOADED;
    int code = look("system", value);
    if (code != SUCCESS && code != NOT_SUPPORTED)
        return code;
    for (int number = 0; number < MOST_GPUS; number++)
        gpus[number].number = number;
    users++;
    return SUCCESS;
}

API nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

API nvmlReturn_t nvmlShutdown(void)
{
    if (users == 0)
        return UNINITIALIZED;
    users--;
    return SUCCESS;
}

API const char *nvmlErrorString(nvmlReturn_t code) { return error_text(code); }

int usable(const struct gpu *gpu)
{
    if (users == 0)
        return UNINITIALIZED;
    return gpu >= gpus && gpu < gpus + MOST_GPUS ? SUCCESS : INVALID_ARGUMENT;
}

static int system_text(const char *key, char *text, unsigned int room)
{
    return users == 0 ? UNINITIALIZED : look_text(NULL, key, text, room);
}

API nvmlReturn_t nvmlSystemGetDriverVersion(char *text, unsigned int room)
{
    return system_text("system.driver", text, room);
}

API nvmlReturn_t nvmlSystemGetNVMLVersion(char *text, unsigned int room)
{
    return system_text("system.nvml", text, room);
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    char text[32];
    int code = system_text("system.cuda", text, sizeof text);
    if (code == SUCCESS && sscanf(text, "%d", version) != 1)
        return UNKNOWN;
    return code;
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    int numbers[MOST_GPUS];
    if (users == 0)
        return UNINITIALIZED;
    *count = (unsigned int)gpus_present(numbers);
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetCount(unsigned int *count) { return nvmlDeviceGetCount_v2(count); }

/* A GPU that is lost as a whole gives no handle: it says how it is lost. */
static int give(int number, nvmlDevice_t *gpu)
{
    char key[32], value[VALUE_BYTES];
    snprintf(key, sizeof key, "gpu.%d", number);
    int code = look(key, value);
    if (code != SUCCESS && code != NOT_SUPPORTED)
        return code;
    *gpu = &gpus[number];
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *gpu)
{
    int numbers[MOST_GPUS];
    if (users == 0)
        return UNINITIALIZED;
    return index < gpus_present(numbers) ? give(numbers[index], gpu) : INVALID_ARGUMENT;
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *gpu)
{
    return nvmlDeviceGetHandleByIndex_v2(index, gpu);
}

API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t gpu, unsigned int *index)
{
    int numbers[MOST_GPUS], code = usable(gpu);
    size_t count = code ? 0 : gpus_present(numbers);
    for (size_t i = 0; i < count; i++)
        if (numbers[i] == gpu->number) {
            *index = (unsigned int)i;
            return SUCCESS;
        }
    return code ? code : NOT_FOUND;
}

static int same_text(const char *wanted, const char *has) { return strcmp(wanted, has) == 0; }

static int same_address(const char *wanted, const char *has)
{
    nvmlPciInfo_t one, other;
    return read_address(wanted, &one) == SUCCESS && read_address(has, &other) == SUCCESS &&
           one.domain == other.domain && one.bus == other.bus && one.device == other.device;
}

static int find_by(const char *key, const char *wanted, int (*same)(const char *, const char *), nvmlDevice_t *gpu)
{
    int numbers[MOST_GPUS];
    if (users == 0)
        return UNINITIALIZED;
    if (!wanted)
        return INVALID_ARGUMENT;
    size_t count = gpus_present(numbers);
    for (size_t i = 0; i < count; i++) {
        char full[64], value[VALUE_BYTES];
        snprintf(full, sizeof full, "gpu.%d.%s", numbers[i], key); /* also of a GPU that is lost */
        if (look(full, value) == SUCCESS && same(wanted, value))
            return give(numbers[i], gpu);
    }
    return NOT_FOUND;
}

API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *gpu)
{
    return find_by("uuid", uuid, same_text, gpu);
}

API nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *gpu)
{
    return find_by("serial", serial, same_text, gpu);
}

API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *address, nvmlDevice_t *gpu)
{
    return find_by("pci.address", address, same_address, gpu);
}

API nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *address, nvmlDevice_t *gpu)
{
    return nvmlDeviceGetHandleByPciBusId_v2(address, gpu);
}

int read_address(const char *text, nvmlPciInfo_t *pci)
{
    unsigned int function = 0;
    memset(pci, 0, sizeof *pci);
    if (sscanf(text, "%x:%x:%x.%x", &pci->domain, &pci->bus, &pci->device, &function) < 3) {
        pci->domain = 0;
        if (sscanf(text, "%x:%x.%x", &pci->bus, &pci->device, &function) < 2)
            return UNKNOWN;
    }
    if (pci->domain > 0xffff || pci->bus > 0xff || pci->device > 0x1f)
        return UNKNOWN;
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", pci->domain, pci->bus, pci->device);
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xffff, pci->bus & 0xff,
             pci->device & 0x1f);
    return SUCCESS;
}

int answer_ulong(const struct gpu *gpu, const char *key, unsigned long long *out)
{
    int code = usable(gpu);
    return code ? code : !out ? INVALID_ARGUMENT : look_number(gpu, key, out);
}

int answer_uint(const struct gpu *gpu, const char *key, unsigned int *out)
{
    unsigned long long number;
    int code = answer_ulong(gpu, key, &number);
    if (code == SUCCESS)
        *out = (unsigned int)number;
    return code;
}

int answer_pair(const struct gpu *gpu, const char *key, unsigned int *one, unsigned int *two)
{
    unsigned long long numbers[2];
    size_t count;
    int code = usable(gpu);
    if (code == SUCCESS)
        code = look_numbers(gpu, key, numbers, 2, &count);
    if (code)
        return code;
    if (count != 2)
        return UNKNOWN;
    *one = (unsigned int)numbers[0];
    *two = (unsigned int)numbers[1];
    return SUCCESS;
}
