"""What a driver has to keep: GPUs, kernel modules' flavour, system, kernel, firmware. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gpuprov.stack.draft import Draft, Violation, broken, doubtful
from gpuprov.stack.versions import is_version, key, older

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpuprov.stack.model import Gpu, HostFacts
    from gpuprov.stack.tables import Tables

#: Of these, a list without the GPU is proof that the driver does not know it; of older ones the lists had gaps.
_LISTED_WELL = ("hopper", "blackwell", "rubin")
#: The first branches of whose builds the lists of GPUs were not all published.
_LISTS_END = 590


def of_gpus(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:
    """Every GPU has to be known to the driver."""
    if not draft.driver:
        return
    for gpu in dict.fromkeys(g.device for g in host.gpus):
        one = next(g for g in host.gpus if g.device == gpu)
        row = tables.arch(one.cc or "")
        if row is not None:
            yield from _branch_range(draft, one, row)
            yield from _first_builds(draft, one)


def _branch_range(draft: Draft, gpu: Gpu, row: Mapping[str, Any]) -> Iterator[Violation]:
    last, first = row.get("driver_last"), row.get("driver_first")
    if last is not None and draft.branch > last:
        said = f"{gpu.name} ({row['arch']}) is supported up to driver branch {last}, not by {draft.driver}"
        yield broken("driver_old_gpu", "driver", draft.driver, f"branch {last} or older", said)
    if first is None and "driver_first" in row:
        said = f"it is not known which driver is the first for {gpu.name}"
        yield broken("driver_new_gpu", "driver", draft.driver, "a first driver in the tables", said)
    elif first is not None and older(draft.driver, str(first)):
        said = f"{gpu.name} needs driver {first} or newer, not {draft.driver}"
        yield broken("driver_new_gpu", "driver", draft.driver, f"{first} or newer", said)


def _first_builds(draft: Draft, gpu: Gpu) -> Iterator[Violation]:
    """The lists of GPUs that the open modules' releases carry."""
    strict = gpu.arch in _LISTED_WELL
    first = gpu.open_first.get(draft.branch)
    if gpu.min_branch is not None and draft.branch < gpu.min_branch and strict:
        needed = gpu.open_first.get(gpu.min_branch, str(gpu.min_branch))
        said = f"{gpu.name} ({gpu.device}) is first listed in driver {needed}, and not in branch {draft.branch}"
        yield broken("driver_new_gpu", "driver", draft.driver, f"{needed} or newer", said)
    elif first is not None and older(draft.driver, first):
        said = f"{gpu.name} ({gpu.device}) is first listed in driver {first}, {draft.driver} is older"
        yield (broken if strict else doubtful)("driver_new_gpu", "driver", draft.driver, f"{first} or newer", said)
    elif draft.branch in gpu.absent_in:
        said = f"{gpu.name} ({gpu.device}) is in no published list of branch {draft.branch}"
        refuses = strict and draft.branch < _LISTS_END
        yield (broken if refuses else doubtful)(
            "driver_new_gpu", "driver", draft.driver, "a branch that lists it", said
        )


def of_flavour(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:
    """One flavour of kernel modules has to serve all GPUs, and the branch has to have it."""
    if not draft.driver:
        return
    old = [g.name for g in host.gpus if opens(g, tables) == "impossible"]
    new = [g.name for g in host.gpus if opens(g, tables) == "required"]
    if old and new:
        said = f"{old[0]} needs proprietary kernel modules and {new[0]} needs open ones, and a host has one kind"
        yield broken("mixed_impossible", "flavour", f"{old[0]} and {new[0]}", "one of them", said)
    elif new and draft.flavour == "proprietary":
        said = f"{new[0]} works with open kernel modules only"
        yield broken("open_required", "flavour", "proprietary", "open", said)
    elif old and draft.flavour == "open":
        said = f"open kernel modules do not support {old[0]}, which is older than Turing"
        yield broken("open_impossible", "flavour", "open", "proprietary", said)
    row = tables.branch(draft.branch) or {}
    if draft.flavour == "proprietary" and row.get("proprietary") is False:
        said = f"branch {draft.branch} has no proprietary kernel modules; its metapackage cuda-drivers installs nothing"
        yield broken("r615_no_proprietary", "flavour", "proprietary", "open, or branch 610 or older", said)
    if draft.flavour == "open" and row.get("open") is False:
        said = f"branch {draft.branch} has no open kernel modules"
        yield broken("open_impossible", "flavour", "open", "proprietary", said)


def opens(gpu: Gpu, tables: Tables) -> str:
    """Return "required", "preferred" or "impossible": how a GPU stands to open kernel modules."""
    if gpu.fabric == "grace_coherent":
        return "required"
    row = tables.arch(gpu.cc or "") or {}
    return str(row.get("open_modules", "preferred"))


def of_branch(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:  # noqa: ARG001
    """The branch has to exist; one whose time is over is said to be."""
    if not draft.driver:
        return
    row = tables.branch(draft.branch)
    if row is None:
        known = ", ".join(str(r["branch"]) for r in tables.rows("driver_branches") if r["status"] == "supported")
        said = f"the tables know no driver branch {draft.branch}; supported ones are {known}"
        yield broken("driver_unknown", "driver", draft.driver, "a known branch", said)
    elif not is_version(draft.driver) or "." not in draft.driver:
        said = f"the tables know no build of branch {draft.branch}: name the exact version"
        yield broken("driver_unknown", "driver", draft.driver, "an exact version", said)
    elif row["status"] == "eol":
        said = f"driver branch {draft.branch} gets no more updates (ended: {row['eol']})"
        yield doubtful("eol_branch", "driver", draft.branch, "a supported branch", said)


def of_installed(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:  # noqa: ARG001
    """A driver that is there must not be mixed with one from elsewhere."""
    if not draft.driver or draft.kept:
        return
    if host.driver_by == "runfile":
        said = "the driver was installed by NVIDIA's .run file, which packages must not be mixed with"
        yield broken("runfile_conflict", "driver", "runfile", "nvidia-uninstall first", said)
    elif host.driver_origin not in (None, draft.kind):
        names = {"nvidia": "NVIDIA's repository", "distribution": "the distribution's archive"}
        origin = names.get(host.driver_origin, "NVIDIA's repository and the distribution's archive")
        said = f"the driver that is installed is from {origin}, and packages from {names[draft.kind]} must not be mixed"
        needed = "the installed packages removed first (gpuprov remove)"
        if host.driver_origin in names:
            needed = f"gpuprov_stack: {{repository: {host.driver_origin}}}, or {needed}"
        yield broken("repo_mix", "repository", host.driver_origin, needed, said)


def of_system(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:
    """The system's repository has to be its own, and carry the branch."""
    if not draft.packaged:
        return
    row = tables.system(host.os_id, host.os_version)
    name = f"{host.os_id} {host.os_version or '?'}"
    if host.container and draft.driver and not draft.kept:
        said = "the host is a container: its driver is that of the machine that it runs on"
        yield broken("os_kind", "driver", "container", "the machine itself, or gpuprov_stack: {driver: none}", said)
    wrong = _system(row, name, host, tables)
    if wrong is not None:
        yield wrong
        return
    if row is None:
        return
    if draft.kind == "nvidia":
        yield from _nvidia_repository(draft, host, tables, row, name)
    if draft.driver and not draft.kept:
        yield from (_carried(draft, row) if draft.kind == "nvidia" else _distribution(draft, host, tables, name))


def _system(row: Mapping[str, Any] | None, name: str, host: HostFacts, tables: Tables) -> Violation | None:
    """Return what is wrong with a system that packages are to be installed on."""
    if host.os_id is None:
        said = "which system the host has could not be told"
        return None if host.imagined else broken("os_unknown", "host", "unknown", "a system in the tables", said)
    if row is None:
        said = f"{name} is not in the tables, so nothing is known of packages for it"
        return broken("os_unknown", "host", name, "a system in the tables", said)
    if row.get("supported") is False:
        said = f"{name} is past its support, so that no driver, toolkit or library is installed on it"
    elif not row.get("family"):
        said = f"gpuprov has no procedure for packages of {name}: it installs no driver, toolkit or library there"
    else:
        return None
    systems = {f"{one['id']} {one['ver']}": one for one in tables.rows("os")}
    able = ", ".join(text for text, one in systems.items() if one.get("supported") is not False and one.get("family"))
    return broken("os_unsupported", "host", name, f"one of {able}", said)


def _nvidia_repository(
    draft: Draft, host: HostFacts, tables: Tables, row: Mapping[str, Any], name: str
) -> Iterator[Violation]:
    if draft.repository != row["repo"]:
        said = f"repository {draft.repository} is not that of {name}, which is {row['repo']}"
        yield broken("repo_system", "repository", draft.repository, row["repo"], said)
    arches = row.get("arches")
    if arches is None:
        arm = row["repo"] in tables.blocks["os"]["sbsa_supported_13_0"]
        arches = ["x86_64", "aarch64"] if arm else ["x86_64"]
    if host.arch not in arches:
        has = " and ".join(arches)
        found = host.arch or "one that could not be told"
        said = f"repository {row['repo']} is known to have packages for {has}, and the host's processor is {found}"
        yield broken("os_arch", "repository", found, has, said)


def _carried(draft: Draft, row: Mapping[str, Any]) -> Iterator[Violation]:
    """The repository has to carry the branch, as far as is known."""
    first, last = row.get("driver_first"), row.get("driver_max_known")
    if first is not None and draft.branch < first:
        said = f"repository {row['repo']} begins with branch {first}, as far as is known; {draft.branch} is older"
        yield broken("os_driver", "driver", draft.branch, f"branch {first} or newer", said)
    if last is not None and draft.branch > last:
        said = f"repository {row['repo']} ends with branch {last}, as far as is known; {draft.branch} is newer"
        yield broken("os_driver", "driver", draft.branch, f"branch {last} or older", said)


def _distribution(draft: Draft, host: HostFacts, tables: Tables, name: str) -> Iterator[Violation]:
    if host.os_id == "ubuntu":
        row = tables.branch(draft.branch)
        if row is not None and row["status"] == "eol":
            said = f"Ubuntu's packages of branch {draft.branch} are empty and install another branch instead"
            yield broken("ubuntu_570_stub", "driver", draft.branch, "a branch that is supported", said)
        elif not draft.exact:
            said = f"which build of branch {draft.branch} the archive of {name} has is not in the tables"
            yield broken("driver_unknown", "driver", draft.branch, "an exact version: gpuprov_stack.driver", said)
        return
    carried = tables.distribution(host.os_id, host.os_version)
    if carried is None:
        said = f"nothing is known of drivers in the archive of {name}"
        yield broken("os_driver", "repository", "distribution", "nvidia", said)
    elif draft.driver != carried["driver"].get(draft.flavour):
        has = ", ".join(f"{carried['driver'][f]} ({f})" for f in ("proprietary", "open") if carried["driver"].get(f))
        said = f"the archive of {name} has driver {has}, not {draft.driver} ({draft.flavour})"
        yield broken("os_driver", "driver", draft.driver, has, said)
    elif draft.driver != carried["driver"].get("newest"):
        said = f"the archive of {name} has {draft.flavour} kernel modules {draft.driver}, and all else is newer there"
        needed = carried["driver"].get("newest")
        yield doubtful("os_driver", "flavour", draft.driver, needed, f"{said}: the host's simulation decides")


def of_kernel(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:
    """The modules have to build for the kernel that boots next."""
    if not draft.driver or draft.kept or host.kernel is None:
        return
    found = re.match(r"\d+(?:\.\d+)*", host.kernel)
    if found is None:
        return
    for row in tables.rows("kernel_build_floor"):
        yield from _kernel_row(draft, found.group(), row)


def _kernel_row(draft: Draft, kernel: str, row: Mapping[str, Any]) -> Iterator[Violation]:
    since = str(row["kernel_ge"])
    if row.get("branch") is None:
        if older(kernel, since):
            said = f"kernel {kernel} is older than {since}, which drivers need at least"
            yield broken("kernel_driver", "driver", kernel, f"{since} or newer", said)
        return
    if row["branch"] != draft.branch or older(kernel, since):
        return
    fixed, fails = row.get("ok_from"), _versions(row.get("fails"))
    if fixed is not None and older(draft.driver, str(fixed)):
        said = f"driver {draft.driver} does not build for kernel {kernel}; {fixed} does"
        yield broken("kernel_driver", "driver", draft.driver, f"{fixed} or newer", said)
    elif fixed is None and (not fails or key(draft.driver) <= max(map(key, fails))):
        said = f"driver {draft.driver} does not build for kernel {kernel}, and no build of its branch is known to"
        yield broken("kernel_driver", "driver", draft.driver, "another branch, or an older kernel", said)


def _versions(fails: Any) -> list[str]:
    """Return the exact versions in a row's words; none when the whole branch fails ("575.x")."""
    texts = fails if isinstance(fails, list) else [fails]
    found = [re.match(r"\d+\.\d+(?:\.\d+)?(?=\s|$)", str(text)) for text in texts]
    return [one.group() for one in found if one]


def of_firmware(draft: Draft, host: HostFacts, tables: Tables) -> Iterator[Violation]:  # noqa: ARG001
    """With secure boot, modules built on the host load only when its key is enrolled."""
    if not draft.driver or draft.kept or (host.os_id == "ubuntu" and draft.kind == "distribution"):
        return  # Canonical signs its modules
    if host.secure_boot and not host.key_enrolled:
        state = "not enrolled" if host.key_enrolled is False else "not known to be enrolled"
        said = f"secure boot is on and the key that signs modules built on this host is {state}"
        needed = "the key enrolled by a person at the console (mokutil --import), or signed modules"
        yield broken("secure_boot", "driver", f"secure boot, key {state}", needed, said)
    elif host.secure_boot is None and not host.imagined:
        said = "whether secure boot is on could not be told; with it, modules built on the host may not load"
        yield doubtful("secure_boot", "driver", "unknown", "known", said)


RULES = (of_system, of_gpus, of_flavour, of_branch, of_installed, of_kernel, of_firmware)
