"""What the resolver takes and gives: Want, HostFacts; Stack or Refusal. Frozen values, with their JSON.

None means "not known" in HostFacts and "not part of it" in Stack; the two never meet.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The words that stand for a choice instead of naming one.
AUTO, LATEST, NONE = "auto", "latest", "none"


@dataclass(frozen=True, slots=True)
class Want:
    """What an admin wants; "" is no wish.

    `auto` is the newest that fits, `latest` the newest release or a refusal, `none` nothing. Without a wish
    a driver that is installed stays if it fits, CUDA, cuDNN, NCCL, DCGM and the container toolkit are not
    installed, torch is the newest that fits the host's own Pythons.
    """

    driver: str = ""
    flavour: str = ""
    cuda: str = ""
    torch: str = ""
    torch_variant: str = ""
    python: str = ""
    cudnn: str = ""
    nccl: str = ""
    fabricmanager: str = ""
    dcgm: str = ""
    container_toolkit: str = ""
    repository: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the wishes that there are."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU by its PCI device id. cc is the compute capability; None where the tables do not say."""

    device: str
    name: str
    arch: str | None = None
    cc: str | None = None
    segment: str = "unknown"
    fabric: str = ""
    min_branch: int | None = None
    open_first: Mapping[int, str] = field(default_factory=dict, hash=False)
    absent_in: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What choosing needs of a host. None: could not be told.

    unknown_gpus are PCI ids that the tables do not have ("": it could not be told which GPUs there are). refused_as
    names a kind of system that gpuprov does not provision ("WSL"); container: its kernel is another's, so that it
    can have no driver of its own. pythons are versions with their paths. driver is the version of the driver
    that is installed or loaded, driver_by "package" or "runfile", driver_origin "nvidia" or "distribution" when
    its packages are from there. nvswitches and nvlink5 count NVSwitches and the
    bridges that manage NVLink-5 switches.
    imagined: a machine that one only thinks of, so that what was not said of it is left open.
    """

    gpus: tuple[Gpu, ...] = ()
    unknown_gpus: tuple[str, ...] = ()
    os_id: str | None = None
    os_version: str | None = None
    arch: str | None = None
    kernel: str | None = None
    gcc: str | None = None
    glibc: str | None = None
    pythons: tuple[tuple[str, str], ...] | None = None
    secure_boot: bool | None = None
    key_enrolled: bool | None = None
    driver: str | None = None
    driver_by: str | None = None
    driver_flavour: str | None = None
    driver_origin: str | None = None
    nvswitches: int | None = 0
    nvlink5: int | None = 0
    refused_as: str = ""
    container: bool = False
    imagined: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a part is as it is. rule names a rule of the tables, or the wish that decided."""

    part: str
    choice: str
    because: str
    rule: str


@dataclass(frozen=True, slots=True)
class Package:
    """A package and its version in the package manager's spelling, maybe with `*` at its end; "" is any."""

    name: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is installed as packages of one version. services are units that belong to it."""

    version: str
    packages: tuple[Package, ...] = ()
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Driver:
    """The kernel driver and its libraries.

    pin are packages (with *) that may only come in this version; conflicts must not be there beside it;
    module_stream is dnf's stream.
    """

    version: str
    branch: int
    flavour: str
    packages: tuple[Package, ...] = ()
    pin: tuple[Package, ...] = ()
    conflicts: tuple[str, ...] = ()
    module_stream: str = ""


@dataclass(frozen=True, slots=True)
class Torch:
    """torch, what belongs to it, and the index that has this variant ("" for none in particular)."""

    version: str
    variant: str
    torchvision: str | None = None
    torchaudio: str | None = None
    index: str | None = None


@dataclass(frozen=True, slots=True)
class Python:
    """The interpreter of the torch environment. path is None when it is fetched (managed)."""

    version: str
    path: str | None = None
    managed: bool = False


@dataclass(frozen=True, slots=True)
class Repository:
    """Where packages come from. kind is "nvidia" or "distribution", family "apt" or "dnf"."""

    name: str
    kind: str
    family: str
    url: str = ""
    key_url: str = ""
    key_fingerprint: str = ""
    components: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stack:
    """The versions for one host. tables is the date of the tables; host the short form of what it is for."""

    driver: Driver | None = None
    cuda: Part | None = None
    cudnn: Part | None = None
    nccl: Part | None = None
    fabricmanager: Part | None = None
    dcgm: Part | None = None
    container_toolkit: Part | None = None
    torch: Torch | None = None
    python: Python | None = None
    repository: Repository | None = None
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()
    tables: str = ""
    host: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as playbooks and reports see it."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


@dataclass(frozen=True, slots=True)
class Alternative:
    """A wish that the resolver has found to be possible, its stack, and both in words."""

    want: Want
    stack: Stack
    say: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing fits. rule names the rule; found and needed are the values that contradict each other."""

    rule: str
    found: str
    needed: str
    message: str
    tables: str
    alternatives: tuple[Alternative, ...] = ()
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as reports see it."""
        own = {name: getattr(self, name) for name in ("rule", "found", "needed", "message", "tables", "source")}
        others = [{"want": a.want.to_json(), "stack": a.stack.to_json(), "say": a.say} for a in self.alternatives]
        return {**own, "alternatives": others}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
