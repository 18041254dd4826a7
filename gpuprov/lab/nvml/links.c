/* NVLink, the fabric, and how GPUs reach each other. */
#include "nvml.h"

/* Return the key of one value of a link. */
static int link_key(const struct gpu *gpu, unsigned int link, const char *name, char key[64])
{
    int code = usable(gpu);
    if (code == SUCCESS && link >= MOST_LINKS)
        code = INVALID_ARGUMENT;
    snprintf(key, 64, "link.%u.%s", link, name);
    return code;
}

static int link_uint(const struct gpu *gpu, unsigned int link, const char *name, unsigned int *out)
{
    char key[64];
    int code = link_key(gpu, link, name, key);
    return code ? code : answer_uint(gpu, key, out);
}

API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t gpu, unsigned int link, unsigned int *out)
{
    return link_uint(gpu, link, "state", out);
}

API nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t gpu, unsigned int link, unsigned int *out)
{
    return link_uint(gpu, link, "version", out);
}

API nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t gpu, unsigned int link, unsigned int *out)
{
    return link_uint(gpu, link, "remote_type", out);
}

API nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t gpu, unsigned int link, unsigned int counter,
                                                 unsigned long long *out)
{
    static const char *const names[] = {"errors.replay", "errors.recovery", "errors.crc_flit", "errors.crc_data",
                                        "errors.ecc_data"};
    char key[64];
    if (counter >= sizeof names / sizeof *names)
        return INVALID_ARGUMENT;
    int code = link_key(gpu, link, names[counter], key);
    return code ? code : answer_ulong(gpu, key, out);
}

API nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t gpu, unsigned int link, nvmlPciInfo_t *pci)
{
    char key[64], value[VALUE_BYTES];
    int code = link_key(gpu, link, "remote", key);
    if (code == SUCCESS)
        code = look_gpu(gpu, key, value);
    return code ? code : read_address(value, pci);
}

struct fabric { unsigned char cluster[16]; unsigned int status; uint32_t clique; unsigned char state; };
struct fabric_v {
    unsigned int version;
    unsigned char cluster[16];
    unsigned int status;
    uint32_t clique;
    unsigned char state;
    uint32_t health;
    unsigned char summary; /* from version 3 on */
};

/* Return a number that may be left out of the profile. */
static int optional(const struct gpu *gpu, const char *key, unsigned int *out)
{
    int code = answer_uint(gpu, key, out);
    if (code != NOT_SUPPORTED)
        return code;
    *out = 0;
    return SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t gpu, struct fabric *out)
{
    unsigned int state, clique;
    int code = answer_uint(gpu, "fabric", &state);
    if (code)
        return code;
    memset(out, 0, sizeof *out);
    out->state = (unsigned char)state;
    code = optional(gpu, "fabric.status", &out->status);
    if (code == SUCCESS)
        code = optional(gpu, "fabric.clique", &clique);
    out->clique = code ? 0 : clique;
    return code;
}

API nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t gpu, struct fabric_v *out)
{
    struct fabric plain;
    if (out->version != 0x02000024 && out->version != 0x03000028)
        return ARGUMENT_VERSION_MISMATCH;
    int code = nvmlDeviceGetGpuFabricInfo(gpu, &plain);
    if (code)
        return code;
    memcpy(out->cluster, plain.cluster, sizeof plain.cluster);
    out->status = plain.status;
    out->clique = plain.clique;
    out->state = plain.state;
    code = optional(gpu, "fabric.health", &out->health);
    if (out->version == 0x03000028)
        out->summary = 0; /* not supported */
    return code;
}

/* A pair has one set of values, kept with the lower number. */
static int peer_uint(const struct gpu *one, const struct gpu *other, const char *name, unsigned int *out)
{
    char key[64];
    int code = usable(one) ? usable(one) : usable(other);
    if (code)
        return code;
    const struct gpu *low = one->number < other->number ? one : other, *high = low == one ? other : one;
    snprintf(key, sizeof key, "peer.%d.%s", high->number, name);
    return answer_uint(low, key, out);
}

API nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t one, nvmlDevice_t other, unsigned int *out)
{
    if (one == other && usable(one) == SUCCESS) {
        *out = 0;
        return SUCCESS;
    }
    return peer_uint(one, other, "ancestor", out);
}

API nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t one, nvmlDevice_t other, unsigned int index, unsigned int *out)
{
    static const char *const names[] = {"p2p.read", "p2p.write", "p2p.nvlink", "p2p.atomics", "p2p.pci"};
    return index < sizeof names / sizeof *names ? peer_uint(one, other, names[index], out) : INVALID_ARGUMENT;
}
