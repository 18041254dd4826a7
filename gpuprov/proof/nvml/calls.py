"""What is asked of NVML, as data: one row per value. Pure.

A row is (key, kind, function, arguments, field). kind says how an answer becomes a value:

    plain   the answer itself: a number or text
    field   the attribute *field* of the structure that is answered
    list    a list: see reading.py for what is kept of an element
    value   a field of nvmlDeviceGetFieldValues: *function* is its name
    done    True when the call succeeds: it answers nothing else

An argument that is text is the name of a constant of pynvml's. Where a call fails, the value is
{"error": "NotSupported"}: the name of NVML's error without its prefix (NotSupported, GpuIsLost, Unknown, ...).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Tuple

    Row = Tuple[str, str, str, Tuple[Any, ...], str]

#: Of the library and the driver.
SYSTEM: tuple[Row, ...] = (
    ("driver", "plain", "nvmlSystemGetDriverVersion", (), ""),
    ("nvml", "plain", "nvmlSystemGetNVMLVersion", (), ""),
    ("cuda", "plain", "nvmlSystemGetCudaDriverVersion_v2", (), ""),
)


def _of(prefix: str, function: str, args: tuple[Any, ...], fields: str) -> tuple[Row, ...]:
    pairs = (text.partition("=") for text in fields.split())
    return tuple((prefix + key, "field", function, args, field or key) for key, _, field in pairs)


#: Of each GPU. Units: memory in bytes, clocks in MHz, power in mW, temperature in degrees C, energy in mJ.
GPU: tuple[Row, ...] = (
    ("name", "plain", "nvmlDeviceGetName", (), ""),
    ("uuid", "plain", "nvmlDeviceGetUUID", (), ""),
    ("serial", "plain", "nvmlDeviceGetSerial", (), ""),
    ("vbios", "plain", "nvmlDeviceGetVbiosVersion", (), ""),
    ("board_part", "plain", "nvmlDeviceGetBoardPartNumber", (), ""),
    ("minor", "plain", "nvmlDeviceGetMinorNumber", (), ""),
    ("gsp_firmware", "plain", "nvmlDeviceGetGspFirmwareVersion", (), ""),
    *_of("pci.", "nvmlDeviceGetPciInfo_v3", (), "address=busId device=pciDeviceId subsystem=pciSubSystemId"),
    ("compute_capability", "list", "nvmlDeviceGetCudaComputeCapability", (), ""),
    ("persistence", "plain", "nvmlDeviceGetPersistenceMode", (), ""),
    ("compute_mode", "plain", "nvmlDeviceGetComputeMode", (), ""),
    ("mig", "list", "nvmlDeviceGetMigMode", (), ""),
    ("ecc_mode", "list", "nvmlDeviceGetEccMode", (), ""),
    *_of("memory.", "nvmlDeviceGetMemoryInfo", (), "total free used"),
    *_of("bar1.", "nvmlDeviceGetBAR1MemoryInfo", (), "total=bar1Total used=bar1Used"),
    *_of("utilization.", "nvmlDeviceGetUtilizationRates", (), "gpu memory"),
    ("temperature", "plain", "nvmlDeviceGetTemperature", ("NVML_TEMPERATURE_GPU",), ""),
    (
        "temperature.slowdown",
        "plain",
        "nvmlDeviceGetTemperatureThreshold",
        ("NVML_TEMPERATURE_THRESHOLD_SLOWDOWN",),
        "",
    ),
    (
        "temperature.shutdown",
        "plain",
        "nvmlDeviceGetTemperatureThreshold",
        ("NVML_TEMPERATURE_THRESHOLD_SHUTDOWN",),
        "",
    ),
    (
        "temperature.memory_max",
        "plain",
        "nvmlDeviceGetTemperatureThreshold",
        ("NVML_TEMPERATURE_THRESHOLD_MEM_MAX",),
        "",
    ),
    ("power", "plain", "nvmlDeviceGetPowerUsage", (), ""),
    ("power.limit", "plain", "nvmlDeviceGetPowerManagementLimit", (), ""),
    ("power.default", "plain", "nvmlDeviceGetPowerManagementDefaultLimit", (), ""),
    ("power.enforced", "plain", "nvmlDeviceGetEnforcedPowerLimit", (), ""),
    ("energy", "plain", "nvmlDeviceGetTotalEnergyConsumption", (), ""),
    ("clock.sm", "plain", "nvmlDeviceGetClockInfo", ("NVML_CLOCK_SM",), ""),
    ("clock.memory", "plain", "nvmlDeviceGetClockInfo", ("NVML_CLOCK_MEM",), ""),
    ("clock.sm_max", "plain", "nvmlDeviceGetMaxClockInfo", ("NVML_CLOCK_SM",), ""),
    ("clock.memory_max", "plain", "nvmlDeviceGetMaxClockInfo", ("NVML_CLOCK_MEM",), ""),
    ("clock.sm_application", "plain", "nvmlDeviceGetApplicationsClock", ("NVML_CLOCK_SM",), ""),
    ("clock.sm_application_default", "plain", "nvmlDeviceGetDefaultApplicationsClock", ("NVML_CLOCK_SM",), ""),
    ("throttle", "plain", "nvmlDeviceGetCurrentClocksThrottleReasons", (), ""),
    *(
        (
            f"violation.{name}",
            "field",
            "nvmlDeviceGetViolationStatus",
            (f"NVML_PERF_POLICY_{name.upper()}",),
            "violationTime",
        )
        for name in ("power", "thermal", "reliability", "board_limit")
    ),
    ("pstate", "plain", "nvmlDeviceGetPerformanceState", (), ""),
    ("pcie.generation", "plain", "nvmlDeviceGetCurrPcieLinkGeneration", (), ""),
    ("pcie.generation_max", "plain", "nvmlDeviceGetMaxPcieLinkGeneration", (), ""),
    ("pcie.width", "plain", "nvmlDeviceGetCurrPcieLinkWidth", (), ""),
    ("pcie.width_max", "plain", "nvmlDeviceGetMaxPcieLinkWidth", (), ""),
    ("pcie.replays", "plain", "nvmlDeviceGetPcieReplayCounter", (), ""),
    *(
        (
            f"ecc.{when}.{kind}",
            "plain",
            "nvmlDeviceGetTotalEccErrors",
            (f"NVML_MEMORY_ERROR_TYPE_{kind.upper()}", f"NVML_{when.upper()}_ECC"),
            "",
        )
        for when in ("volatile", "aggregate")
        for kind in ("corrected", "uncorrected")
    ),
    *(
        (
            f"ecc.{when}.{where}.{kind}",
            "plain",
            "nvmlDeviceGetMemoryErrorCounter",
            (
                f"NVML_MEMORY_ERROR_TYPE_{kind.upper()}",
                f"NVML_{when.upper()}_ECC",
                f"NVML_MEMORY_LOCATION_{where.upper()}",
            ),
            "",
        )
        for when in ("volatile", "aggregate")
        for where in ("dram", "sram")
        for kind in ("corrected", "uncorrected")
    ),
    ("remapped", "list", "nvmlDeviceGetRemappedRows", (), ""),
    (
        "retired.single_bit",
        "list",
        "nvmlDeviceGetRetiredPages",
        ("NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS",),
        "",
    ),
    (
        "retired.double_bit",
        "list",
        "nvmlDeviceGetRetiredPages",
        ("NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR",),
        "",
    ),
    ("retired.pending", "plain", "nvmlDeviceGetRetiredPagesPendingStatus", (), ""),
    ("processes.compute", "list", "nvmlDeviceGetComputeRunningProcesses", (), ""),
    ("processes.graphics", "list", "nvmlDeviceGetGraphicsRunningProcesses", (), ""),
    ("fabric", "field", "nvmlDeviceGetGpuFabricInfo", (), "state"),
    ("fabric.status", "field", "nvmlDeviceGetGpuFabricInfo", (), "status"),
    ("recovery_action", "value", "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION", (), ""),
    ("temperature.margin", "plain", "nvmlDeviceGetMarginTemperature", (), ""),  # degrees left to the target, may be < 0
    ("temperature.slowdown_tlimit", "value", "NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT", (), ""),  # on the same scale
    ("temperature.memory", "value", "NVML_FI_DEV_MEMORY_TEMP", (), ""),
    ("inforom", "done", "nvmlDeviceValidateInforom", (), ""),
    ("ecc.sram.threshold_exceeded", "field", "nvmlDeviceGetSramEccErrorStatus", (), "bThresholdExceeded"),
)
#: Of each NVLink of each GPU, up to NVML_NVLINK_MAX_LINKS; a link that the GPU does not have says NotSupported.
LINK: tuple[Row, ...] = (
    ("state", "plain", "nvmlDeviceGetNvLinkState", (), ""),
    ("version", "plain", "nvmlDeviceGetNvLinkVersion", (), ""),
    *(
        (f"errors.{name}", "plain", "nvmlDeviceGetNvLinkErrorCounter", (f"NVML_NVLINK_ERROR_DL_{name.upper()}",), "")
        for name in ("replay", "recovery", "crc_flit", "crc_data")
    ),
)
#: Of each pair of GPUs. ancestor: nvmlGpuTopologyLevel_t; the others: nvmlGpuP2PStatus_t, 0 is fine.
PEER: tuple[Row, ...] = (
    ("ancestor", "plain", "nvmlDeviceGetTopologyCommonAncestor", (), ""),
    ("p2p.read", "plain", "nvmlDeviceGetP2PStatus", ("NVML_P2P_CAPS_INDEX_READ",), ""),
    ("p2p.nvlink", "plain", "nvmlDeviceGetP2PStatus", ("NVML_P2P_CAPS_INDEX_NVLINK",), ""),
)
