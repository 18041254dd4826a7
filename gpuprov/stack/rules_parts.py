"""What torch, the toolkit, libraries and the fabric manager have to keep. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.stack.candidates import UNTOLD, switches_untold
from gpuprov.stack.draft import Draft, Violation, broken, doubtful
from gpuprov.stack.versions import is_version, key, major, older, series

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpuprov.stack.model import Gpu, HostFacts
    from gpuprov.stack.tables import Tables

_GLIBC = "2.28"  # manylinux_2_28: torch 2.7 and newer
_GLIBC_OLD = "2.17"


def of_torch(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:
    """Release and variant exist; Python and glibc fit the wheel."""
    if not draft.torch:
        return
    row = tables.rows("torch").get(draft.torch)
    if row is None:
        said = f"the tables know no torch {draft.torch}; the newest is {tables.blocks['freshness']['newest_torch']}"
        yield broken("torch_unknown", "torch", draft.torch, "a known release", said)
        return
    if draft.variant != "cpu" and draft.variant not in row["variants"]:
        has = ", ".join([*row["variants"], "cpu"])
        said = f"torch {draft.torch} has no variant {draft.variant}; it has {has}"
        yield broken("torch_unknown", "torch_variant", draft.variant, has, said)
    if not draft.python:
        has = ", ".join(series(version) for version, _ in host.pythons or ()) or "none that is known"
        said = f"torch {draft.torch} needs Python {_range(row['py'])}, and the host has {has}"
        yield broken("torch_python", "python", has, _range(row["py"]), said)
    elif series(draft.python) not in row["py"]:
        said = f"torch {draft.torch} needs Python {_range(row['py'])}, not {series(draft.python)}"
        yield broken("torch_python", "python", series(draft.python), _range(row["py"]), said)
    needed = _glibc_of(draft)
    if host.glibc is not None and older(host.glibc, needed):
        said = f"the wheels of torch {draft.torch} need glibc {needed} or newer, and the host has {host.glibc}"
        yield broken("torch_glibc", "torch", host.glibc, f"{needed} or newer", said)


def _range(pythons: list[str]) -> str:
    plain = [version for version in pythons if not version.endswith("t")]
    return f"{plain[0]} to {plain[-1]}" if len(plain) > 1 else plain[0]


def _glibc_of(draft: Draft) -> str:
    numbers = key(draft.torch)[:2]
    return _GLIBC if numbers >= (2, 7) or (numbers == (2, 6) and draft.variant == "cu126") else _GLIBC_OLD


def of_variant(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:
    """The wheel has code for every GPU, and the driver is new enough for its CUDA."""
    if not draft.torch or draft.variant == "cpu":
        return
    if not host.gpus:
        said = f"torch {draft.variant} needs CUDA packages of several GB, and the host has no NVIDIA GPU"
        yield broken("torch_no_gpu", "torch_variant", draft.variant, "cpu", said)
        return
    variant = (tables.rows("torch").get(draft.torch) or {}).get("variants", {}).get(draft.variant)
    if variant is None:
        return
    for gpu in {g.device: g for g in host.gpus}.values():
        yield from _code_for(draft, gpu, variant, host, tables)
    tag = tables.blocks["torch"]["cu_tags"].get(draft.variant)
    if tag is None:
        said = f"it is not known which driver {draft.variant} needs"
        yield broken("torch_driver", "torch_variant", draft.variant, "a variant in the tables", said)
    else:
        yield from _driver_for(draft, host, str(tag["driver_floor"]))
    if variant.get("status") in ("experimental", "unofficial_extra") or variant.get("conf") == "low":
        said = f"torch {draft.torch} {draft.variant} is {str(variant['status']).replace('_', ' ')}"
        yield doubtful("torch_unknown", "torch_variant", draft.variant, "a stable variant", said)


def _driver_for(draft: Draft, host: HostFacts, floor: str) -> Iterator[Violation]:
    """The driver of the stack, or the one that is there when the stack has none, has to be new enough."""
    driver = draft.driver or host.driver
    if driver is None:
        said = f"torch {draft.torch} {draft.variant} needs driver {floor} or newer, and the host has none that is known"
        make = doubtful if host.container else broken  # its driver may come with the next start
        yield make("torch_driver", "driver", "none", f"{floor} or newer", said)
    elif older(driver, floor):
        said = f"torch {draft.torch} {draft.variant} needs driver {floor} or newer, not {driver}"
        yield broken("torch_driver", "driver", driver, f"{floor} or newer", said + _compat_words(host))


def _compat_words(host: HostFacts) -> str:
    if all(gpu.segment == "datacenter" for gpu in host.gpus):
        return ""
    return "; NVIDIA's cuda-compat packages are for data-centre GPUs only"


def _code_for(
    draft: Draft, gpu: Gpu, variant: Mapping[str, Any], host: HostFacts, tables: Tables
) -> Iterator[Violation]:
    row = tables.arch(gpu.cc or "") or {}
    codes = variant.get("arch_aarch64" if host.arch == "aarch64" else "arch")
    if gpu.cc is None or codes is None:
        said = f"it is not known whether torch {draft.torch} {draft.variant} has code for {gpu.name}"
        yield broken("torch_arch", "torch", gpu.cc, "known", said)
        return
    unverified = "torch_first" in row and row["torch_first"] is None
    if unverified or not runs(gpu.cc, codes):
        has = ", ".join("sm_" + code.replace(".", "") for code in codes)
        why = "no release is known to have verified code" if unverified else f"its code is for {has}"
        said = f"torch {draft.torch} {draft.variant} has no code for {gpu.name} (sm_{gpu.cc.replace('.', '')}): {why}"
        yield broken("torch_arch", "torch", gpu.cc, ", ".join(codes), said)


def runs(cc: str, codes: list[str]) -> bool:
    """Say whether code for one of *codes* runs on compute capability *cc*: same major, minor not above."""
    wanted, minor = key(cc)[0], key(cc)[1]
    return any(key(code)[0] == wanted and key(code)[1] <= minor for code in codes)


def of_toolkit(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:
    """The toolkit exists, has code for a GPU of the host, runs on the driver, and the system has it."""
    if not draft.cuda:
        return
    row = tables.rows("toolkits").get(draft.cuda)
    if row is None:
        said = f"the tables know no CUDA toolkit {draft.cuda}"
        yield broken("toolkit_unknown", "cuda", draft.cuda, "a known release", said)
        return
    floor = str(row["driver_min_run"])
    if draft.driver and older(draft.driver, floor):
        said = f"CUDA {major(draft.cuda)}.x needs driver {floor} or newer, not {draft.driver}"
        yield broken("minor_compat", "driver", draft.driver, f"{floor} or newer", said)
    yield from _toolkit_gpus(draft, host, tables)
    yield from _toolkit_system(draft, host, tables)
    yield from _toolkit_compiler(draft, host, tables, row.get("gcc_max"))
    branch = tables.branch(draft.branch)
    if branch is not None and older(str(branch["cuda_max"]), series(draft.cuda)):
        said = (
            f"driver {draft.driver} is made for CUDA {branch['cuda_max']}: PTX of CUDA {draft.cuda} does not run on it"
        )
        yield doubtful("ptx_jit", "cuda", draft.cuda, str(branch["cuda_max"]), said)


def _toolkit_gpus(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:
    usable, ends = False, []
    for gpu in {g.device: g for g in host.gpus}.values():
        row = tables.arch(gpu.cc or "") or {}
        first, last = row.get("toolkit_first"), row.get("toolkit_last")
        fits = first is not None and not older(series(draft.cuda), str(first))
        usable = usable or (fits and (last is None or not older(str(last), series(draft.cuda))))
        ends.append(f"{gpu.name}: {first or 'unknown'} to {last or 'today'}")
    if host.gpus and not usable:
        old = any(gpu.cc is not None and older(gpu.cc, "7.5") for gpu in host.gpus) and major(draft.cuda) >= 13
        said = f"CUDA {draft.cuda} has no code for the host's GPUs ({'; '.join(ends)})"
        yield broken("cuda13_old_gpu" if old else "toolkit_arch", "cuda", draft.cuda, "; ".join(ends), said)


def _toolkit_compiler(draft: Draft, host: HostFacts, tables: Tables, limit: int | None) -> Iterator[Violation]:
    """Its nvcc has to take the host's gcc; up to which one it goes has to be known."""
    if limit is None:
        said = f"up to which gcc nvcc of CUDA {draft.cuda} goes is not known; an overlay (--tables) can say gcc_max"
        yield broken("toolkit_gcc", "cuda", draft.cuda, "a toolkit whose limit is known", said)
        return
    if host.gcc is None:
        if not host.imagined:
            said = f"whether the host has a gcc is not known, and nvcc of CUDA {draft.cuda} needs gcc {limit} or older"
            yield doubtful("toolkit_gcc", "cuda", "unknown", f"gcc {limit} or older", said)
        return
    if major(host.gcc) <= limit:
        return
    said = f"nvcc of CUDA {draft.cuda} takes gcc {limit} or older, and the host has {host.gcc}"
    way = f"NVCC_CCBIN=/usr/bin/g++-{limit} names an older one"
    carried = (tables.distribution(host.os_id, host.os_version) or {}).get("toolkit") or {}
    if draft.kind == "distribution" and carried.get("gcc") is not None and major(str(carried["gcc"])) <= limit:
        yield doubtful("toolkit_gcc", "cuda", host.gcc, f"gcc {limit} or older", f"{said}: {way}, which is there too")
    else:
        more = "where one is installed, and an overlay (--tables) with a higher gcc_max says so"
        yield broken("toolkit_gcc", "cuda", host.gcc, f"gcc {limit} or older", f"{said}; {way}, {more}")


def _toolkit_system(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:
    if host.os_id is None:
        return
    name = f"{host.os_id} {host.os_version or '?'}"
    row = tables.system(host.os_id, host.os_version)
    if row is None:  # of_system says so
        return
    if draft.kind == "distribution":
        carried = (tables.distribution(host.os_id, host.os_version) or {}).get("toolkit")
        if carried is None or carried["series"] != series(draft.cuda):
            has = f"CUDA {carried['series']}" if carried else "no toolkit that is known"
            said = f"the archive of {name} has {has}, not CUDA {draft.cuda}"
            yield broken("os_toolkit", "cuda", draft.cuda, has, said)
        return
    first, last = row.get("toolkit_first"), row.get("toolkit_last")
    if first is None:
        said = f"with which toolkit repository {row['repo']} begins is not known"
        yield broken("os_toolkit", "cuda", draft.cuda, "a first toolkit in the tables", said)
    elif older(series(draft.cuda), str(first)):
        said = f"repository {row['repo']} begins with CUDA {first}, {draft.cuda} is older"
        yield broken("os_toolkit", "cuda", draft.cuda, f"{first} or newer", said)
    if last is not None and older(str(last), series(draft.cuda)):
        said = f"repository {row['repo']} ends with CUDA {last}, {draft.cuda} is newer"
        yield broken("os_toolkit", "cuda", draft.cuda, f"{last} or older", said)


def of_libraries(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:
    """The version of cuDNN fits the oldest GPU; both libraries belong to the CUDA major version."""
    last = str(tables.blocks["cudnn"]["last_for_maxwell_pascal_volta"])
    old = next((g for g in host.gpus if g.cc is not None and older(g.cc, "7.5")), None)
    if draft.cudnn and old is not None and is_version(draft.cudnn) and older(f"{last}.999", draft.cudnn):
        said = f"cuDNN {last} is the last for {old.name}, {draft.cudnn} is newer"
        yield broken("cuda13_old_gpu", "cudnn", draft.cudnn, f"{last} or older", said)
    for part, text in (("cudnn", draft.cudnn), ("nccl", draft.nccl)):
        if text and not is_version(text):
            said = f"no {part} is known for CUDA {text.removeprefix('?') or 'without a version'}"
            yield broken("library_unknown", part, text, "a version in the tables", said)


def of_fabric(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:  # noqa: ARG001
    """The fabric manager is there exactly where NVSwitches are, and equals the driver."""
    switches = bool(host.nvswitches or host.nvlink5)
    if draft.fabricmanager and draft.fabricmanager != UNTOLD and not switches and not switches_untold(host):
        said = "the host has no NVSwitch, and without one the service of fabric manager fails"
        yield broken("fm_absent", "fabricmanager", draft.fabricmanager, "none", said)
    if not draft.driver:
        return
    if draft.fabricmanager == UNTOLD or (not draft.fabricmanager and not switches and switches_untold(host)):
        said = "whether the host has NVSwitches could not be told (root can), and with them fabric manager has to run"
        needed = "gpuprov_stack: {fabricmanager: none}, or its version"
        yield (broken if draft.fabricmanager else doubtful)("fm_needed", "fabricmanager", "unknown", needed, said)
    elif switches and not draft.fabricmanager:
        said = (
            "the host has NVSwitches, and without fabric manager CUDA ends with error 802 (system not yet initialized)"
        )
        yield broken("fm_needed", "fabricmanager", "none", draft.driver, said)
    elif draft.fabricmanager and draft.fabricmanager != draft.driver:
        said = f"fabric manager {draft.fabricmanager} does not start with driver {draft.driver}: they must be equal"
        yield broken("fm_exact", "fabricmanager", draft.fabricmanager, draft.driver, said)


TORCH_RULES = (of_torch, of_variant)
TOOLKIT_RULES = (of_toolkit, of_libraries)
FABRIC_RULES = (of_fabric,)
