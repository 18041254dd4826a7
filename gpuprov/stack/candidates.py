"""What could be taken for each part, the preferred one first. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprov.stack.draft import Draft
from gpuprov.stack.model import AUTO, LATEST, NONE
from gpuprov.stack.rules_driver import opens
from gpuprov.stack.versions import is_version, key, major, older, series, within

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpuprov.stack.model import HostFacts, Want
    from gpuprov.stack.tables import Tables

#: Variants of torch that are taken unasked, best first.
_STATUS = ("default", "stable", "legacy")
#: Stands for the version of a fabric manager of which it could not be told whether it is needed.
UNTOLD = "?"
#: Managed Pythons that are preferred where torch takes several: neither the newest nor the oldest.
_MANAGED = ("3.12", "3.13", "3.11", "3.14", "3.10", "3.9")


#: Wishes for packages beside the driver.
_MORE = ("cuda", "cudnn", "nccl", "dcgm", "container_toolkit")


def drivers(want: Want, host: HostFacts, tables: Tables) -> Iterator[Draft]:
    """Yield drafts with a driver, or one without where none belongs."""
    more = any(getattr(want, name) not in ("", NONE) for name in _MORE)
    cpu = want.torch == NONE or want.torch_variant == "cpu"
    alone = cpu and want.driver == NONE and all(getattr(want, name) in ("", NONE) for name in _MORE[:4])
    for draft in _drivers(want, host, tables):
        fabric_packages = bool(fabric(want, host, draft))
        yield draft.having(more=more or fabric_packages, alone=alone and not fabric_packages)


def _drivers(want: Want, host: HostFacts, tables: Tables) -> Iterator[Draft]:
    if want.driver == NONE or (not host.gpus and want.driver in ("", AUTO)):
        yield Draft(**_repository(want, host, tables)[0])
        return
    if want.driver == "" and host.driver is not None:
        place = _repository(want, host, tables)[0]
        if want.repository in ("", AUTO) and host.driver_origin == "distribution":
            place = {"kind": "distribution", "repository": "distribution"}
        yield Draft(driver=host.driver, flavour=_kept_flavour(want, host, tables), kept=True, **place)
        return
    for place in _repository(want, host, tables):
        for version in _versions(want, host, tables, place["kind"]):
            for flavour in _flavours(want, host, tables):
                exact = _of_distribution(version, flavour, want, host, tables) if place["kind"] != "nvidia" else version
                yield Draft(driver=exact, flavour=flavour, exact="." in want.driver, **place)


def _repository(want: Want, host: HostFacts, tables: Tables) -> list[dict[str, Any]]:
    row = tables.system(host.os_id, host.os_version) or {}
    own = {"kind": "nvidia", "repository": str(row.get("repo", ""))}
    if want.repository == "distribution":
        return [{"kind": "distribution", "repository": "distribution"}]
    if want.repository in ("", AUTO, "nvidia"):
        return [own]
    return [{"kind": "nvidia", "repository": want.repository}]


def _versions(want: Want, host: HostFacts, tables: Tables, kind: str) -> list[str]:
    rows = [row for row in tables.rows("driver_branches") if row.get("last_seen")]
    if want.driver == LATEST:
        return [str(tables.blocks["freshness"]["newest_driver"])]
    if want.driver in ("", AUTO):
        carried = tables.distribution(host.os_id, host.os_version) if kind != "nvidia" else None
        if carried is not None:
            return [str(carried["driver"]["newest"])]
        first = recommended(host, tables)
        rest = [r for r in rows if r["status"] == "supported" and r["branch"] != first]
        rest.sort(key=lambda r: (r["type"] is None, -r["branch"]))
        return [str(r["last_seen"]) for r in [*(r for r in rows if r["branch"] == first), *rest]]
    if "." in want.driver:
        return [want.driver]
    row = tables.branch(int(want.driver)) or {}
    return [str(row.get("last_seen") or want.driver)]


def recommended(host: HostFacts, tables: Tables) -> int:
    """Return the branch that the tables recommend for these GPUs."""
    choice: Mapping[str, Any] = tables.blocks["driver_branches"]["default_choice"]
    if any(gpu.arch == "rubin" for gpu in host.gpus):
        return int(choice["rubin"])
    if any(gpu.cc is not None and older(gpu.cc, "7.5") for gpu in host.gpus):
        return int(choice["any_gpu_cc_below_7_5"])
    return int(choice["turing_or_newer_general"])


def _flavours(want: Want, host: HostFacts, tables: Tables) -> tuple[str, ...]:
    if want.flavour not in ("", AUTO):
        return (want.flavour,)
    if any(opens(gpu, tables) == "impossible" for gpu in host.gpus):
        return ("proprietary",)
    if any(opens(gpu, tables) == "required" for gpu in host.gpus):
        return ("open",)
    if want.repository == "distribution":  # its open modules may be older than all that belongs to them
        return ("proprietary", "open")
    return ("open", "proprietary")


def _kept_flavour(want: Want, host: HostFacts, tables: Tables) -> str:
    return host.driver_flavour or _flavours(want, host, tables)[0]


def _of_distribution(version: str, flavour: str, want: Want, host: HostFacts, tables: Tables) -> str:
    """Return the archive's version of a branch in this flavour; an exact wish stays as it is."""
    carried = tables.distribution(host.os_id, host.os_version)
    if carried is None or "." in want.driver:
        return version
    found = carried["driver"].get(flavour)
    return str(found) if found is not None and major(str(found)) == major(version) else version


def torches(want: Want, host: HostFacts, tables: Tables) -> Iterator[dict[str, Any]]:
    """Yield torch, variant and Python as parts of a draft; nothing is yielded when none is wanted."""
    if want.torch == NONE:
        return
    releases = tables.rows("torch")
    if want.torch == LATEST:
        versions = [str(tables.blocks["freshness"]["newest_torch"])]
    elif want.torch in ("", AUTO):
        versions = tables.newest_first("torch")
    else:
        versions = [v for v in tables.newest_first("torch") if within(v, want.torch)] or [want.torch]
    for version in versions:
        row = releases.get(version, {})
        python = _python(want, host, row)
        variants = _variants(want, host, row)
        for variant in variants if python["python"] else variants[:1]:  # without a Python none of them fits
            yield {"torch": version, "variant": variant, **python}


def _variants(want: Want, host: HostFacts, row: Mapping[str, Any]) -> list[str]:
    if want.torch_variant not in ("", AUTO):
        return [want.torch_variant]
    if not host.gpus:
        return ["cpu"]
    known = [(name, one.get("status")) for name, one in row.get("variants", {}).items()]
    # Who names a release gets what upstream calls experimental where nothing else serves the GPU, with a warning.
    taken = _STATUS if want.torch in ("", AUTO, LATEST) else (*_STATUS, "experimental")
    found = [name for status in taken for name, has in known if has == status]
    return found or [name for name, _ in known] or ["cpu"]


def _python(want: Want, host: HostFacts, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the newest of the host's own that fits, else a managed one where that is allowed, else none."""
    takes = row.get("py", [])
    named = want.python not in ("", AUTO)
    best = ("", "")
    for version, path in host.pythons or ():
        fits = within(version, want.python) if named else series(version) in takes
        if fits and (not best[0] or key(version) > key(best[0])):
            best = (version, path)
    if best[0]:
        return {"python": best[0], "python_path": best[1], "managed": False}
    managed = ""
    if named:
        managed = want.python
    elif want.python == AUTO or (host.imagined and host.pythons is None):
        managed = next((version for version in _MANAGED if version in takes), "")
    return {"python": managed, "python_path": "", "managed": bool(managed)}


def toolkits(want: Want, host: HostFacts, draft: Draft, tables: Tables) -> list[str]:
    """Return the toolkits to try; [""] for none."""
    if want.cuda in ("", NONE):
        return [""]
    releases = tables.newest_first("toolkits")
    if want.cuda == LATEST:
        return [str(tables.blocks["freshness"]["newest_toolkit"])]
    if want.cuda == AUTO:
        carried = (tables.distribution(host.os_id, host.os_version) or {}).get("toolkit")
        if draft.kind == "distribution" and carried is not None:
            return [v for v in releases if series(v) == carried["series"]][:1]
        return releases
    return [v for v in releases if within(v, want.cuda)][:1] or [want.cuda]


def library(part: str, wish: str, draft: Draft, host: HostFacts, tables: Tables) -> str:
    """Return the version of cuDNN or NCCL; "" for none, a word with ? where nothing is known."""
    if wish in ("", NONE):
        return ""
    if is_version(wish):
        return wish
    cuda = cuda_major(draft, tables)
    old = any(gpu.cc is not None and older(gpu.cc, "7.5") for gpu in host.gpus)
    if part == "cudnn" and old and wish != LATEST:
        return str(tables.blocks["cudnn"]["last_for_maxwell_pascal_volta"])
    found = tables.blocks[part]["newest"].get(f"cu{cuda}")
    return str(found) if found else f"?{cuda}"


def cuda_major(draft: Draft, tables: Tables) -> int:
    """Return the CUDA major version that libraries are for: the toolkit's, else the driver's; 0 when unknown."""
    if draft.cuda:
        return major(draft.cuda)
    row = tables.branch(draft.branch) if draft.driver else None
    return major(str(row["cuda_max"])) if row is not None else 0


def fabric(want: Want, host: HostFacts, draft: Draft) -> str:
    """Return the fabric manager's version; "" for none, UNTOLD when it could not be told whether one is needed."""
    if want.fabricmanager not in ("", AUTO, NONE):
        return want.fabricmanager
    if want.fabricmanager == NONE or not draft.driver:
        return ""
    if host.nvswitches or host.nvlink5:
        return draft.driver
    return UNTOLD if switches_untold(host) else ""


def switches_untold(host: HostFacts) -> bool:
    """Say whether the host has GPUs of a kind that sits on NVSwitches, and it could not be told whether it does."""
    kinds = {major(gpu.cc) for gpu in host.gpus if gpu.cc is not None and gpu.fabric == "nvswitch_possible"}
    return (host.nvswitches is None and bool(kinds & {7, 8, 9})) or (host.nvlink5 is None and bool(kinds & {10}))


def addition(part: str, wish: str, tables: Tables) -> str:
    """Return the version of DCGM ("4" for the newest 4.x) or the container toolkit; "" for none."""
    if wish in ("", NONE):
        return ""
    if is_version(wish):
        return wish
    if part == "container_toolkit":
        return str(tables.blocks["packages"]["container_toolkit"]["version_seen"]).partition("-")[0]
    return "4"
