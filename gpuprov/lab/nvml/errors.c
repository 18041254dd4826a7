/* NVML's errors: the names that profiles use (nvidia-ml-py's, without its prefix), codes and texts. */
#include <string.h>

#include "errors.h"
#include "profile.h"

static const struct { int code; const char *name, *text; } errors[] = {
    {0, "Success", "Success"},
    {1, "Uninitialized", "Uninitialized"},
    {2, "InvalidArgument", "Invalid Argument"},
    {3, "NotSupported", "Not Supported"},
    {4, "NoPermission", "Insufficient Permissions"},
    {5, "AlreadyInitialized", "Already Initialized"},
    {6, "NotFound", "Not Found"},
    {7, "InsufficientSize", "Insufficient Size"},
    {8, "InsufficientPower", "Insufficient External Power"},
    {9, "DriverNotLoaded", "Driver Not Loaded"},
    {10, "Timeout", "Timeout"},
    {11, "IrqIssue", "Interrupt Request Issue"},
    {12, "LibraryNotFound", "NVML Shared Library Not Found"},
    {13, "FunctionNotFound", "Function Not Found"},
    {14, "CorruptedInforom", "Corrupted infoROM"},
    {15, "GpuIsLost", "GPU is lost"},
    {16, "ResetRequired", "GPU requires reset"},
    {17, "OperatingSystem", "GPU access blocked by the operating system"},
    {18, "LibRmVersionMismatch", "Driver/library version mismatch"},
    {18, "DriverLibraryMismatch", "Driver/library version mismatch"},
    {19, "InUse", "In use by another client"},
    {20, "Memory", "Insufficient Memory"},
    {21, "NoData", "No data"},
    {22, "VgpuEccNotSupported", "Not supported with vGPU ECC enabled"},
    {23, "InsufficientResources", "Insufficient Resources"},
    {24, "FreqNotSupported", "Frequency Not Supported"},
    {25, "ArgumentVersionMismatch", "Argument Version Mismatch"},
    {26, "Deprecated", "Deprecated"},
    {27, "NotReady", "Not Ready"},
    {28, "GpuNotFound", "GPU Not Found"},
    {29, "InvalidState", "Invalid State"},
    {999, "Unknown", "Unknown Error"},
};

int error_code(const char *name)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (strcmp(errors[i].name, name) == 0)
            return errors[i].code;
    return UNKNOWN;
}

const char *error_text(int code)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code)
            return errors[i].text;
    return "Unknown Error";
}
