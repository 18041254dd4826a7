/* What the files that answer NVML's functions share. Layouts and numbers are those of NVML's interface. */
#ifndef GPUPROV_NVML_H
#define GPUPROV_NVML_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "profile.h"

#define API __attribute__((visibility("default")))

typedef int nvmlReturn_t;
typedef struct gpu *nvmlDevice_t;

typedef struct {
    char busIdLegacy[16];
    unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

/* SUCCESS when the library is initialised and *gpu* is a handle of its. */
int usable(const struct gpu *gpu);
/* Fill in a PCI address given as text. */
int read_address(const char *text, nvmlPciInfo_t *pci);

/* Functions that answer one number, two numbers or a text under a key that is fixed. */
#define UINT(function, key) \
    API nvmlReturn_t function(nvmlDevice_t gpu, unsigned int *out) { return answer_uint(gpu, key, out); }
#define ULONG(function, key) \
    API nvmlReturn_t function(nvmlDevice_t gpu, unsigned long long *out) { return answer_ulong(gpu, key, out); }
#define PAIR(function, key) \
    API nvmlReturn_t function(nvmlDevice_t gpu, unsigned int *one, unsigned int *two) \
    { return answer_pair(gpu, key, one, two); }
#define TEXT(function, key) \
    API nvmlReturn_t function(nvmlDevice_t gpu, char *text, unsigned int room) \
    { int code = usable(gpu); return code ? code : look_text(gpu, key, text, room); }

int answer_uint(const struct gpu *gpu, const char *key, unsigned int *out);
int answer_ulong(const struct gpu *gpu, const char *key, unsigned long long *out);
int answer_pair(const struct gpu *gpu, const char *key, unsigned int *one, unsigned int *two);

#endif
