"""Survey: installed packages of NVIDIA's, holds, what is half-configured, and what upgrades by itself.

dpkg's database is read, which takes 10 ms for some thousand packages; rpm's has no readable form, so rpm is
asked once for all of its packages.
"""

from __future__ import annotations

import re

from gpuprov.agent.survey_host import Host, Untold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATUS, UPDATES = "/var/lib/dpkg/status", "/var/lib/dpkg/updates"
RPM_FOLDERS = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
#: All that could matter to a driver, a toolkit or a proof.
_NVIDIA = re.compile(
    r"nvidia|^cuda-|^cudnn|^libcu(da|dnn|blas|fft|rand|solver|sparse|file|pti|obj|inj|sparselt|tensor)|^libnccl"
    r"|^libnv(jpeg|jitlink|vm|sdm|optix|cuvid|infer|fatbin|ml)|^libnpp|^nvlsm|^nvlink5|^nsight|^gds-|^gdrdrv|^libgdrapi"
    r"|^infiniband-diags|^libibumad|^dkms$"  # not its own, but its fabric and its modules need them
    r"|^datacenter-gpu-manager|^dcgm|^libnvlink"
)
_FIELD = re.compile(r"^(Package|Status|Architecture|Version|Maintainer): (.*)$", re.MULTILINE)
#: States in which a package works; the trigger states only wait for somebody else's script.
_WORKING = ("installed", "triggers-pending", "triggers-awaited")
_ABSENT = ("not-installed", "config-files")
_RPM_FORMAT = "%{NAME}\\t%{EPOCHNUM}\\t%{VERSION}-%{RELEASE}\\t%{ARCH}\\t%{VENDOR}\\n"
_TIMERS = "/etc/systemd/system"


class Package:
    """One package: state is dpkg's word for it ("installed" for rpm), held that it shall stay as it is."""

    __slots__ = ("arch", "held", "maker", "name", "state", "version")

    def __init__(self, name: str, arch: str, version: str, state: str, held: bool, maker: str) -> None:
        self.name = name
        self.arch = arch
        self.version = version
        self.state = state
        self.held = held
        self.maker = maker

    @property
    def works(self) -> bool:
        """It is installed completely."""
        return self.state in _WORKING

    @property
    def there(self) -> bool:
        """It is installed, if only by halves."""
        return self.state not in _ABSENT


def family(host: Host) -> str:
    """Return "apt", "dnf" or "zypper": who manages the packages of this host. Raises Untold."""
    if host.exists(STATUS) and (host.which("apt-get") or not host.which("rpm")):
        return "apt"
    if any(host.exists(folder) for folder in RPM_FOLDERS):
        return "zypper" if host.which("zypper") else "dnf"
    raise Untold("the host has neither dpkg's nor rpm's database")


def every(host: Host) -> list[Package]:
    """Return all packages that the host's package manager knows of; read once. Raises Untold."""
    if "packages" not in host.kept:
        host.kept["packages"] = _dpkg(host) if family(host) == "apt" else _rpm(host)
    packages: list[Package] = host.kept["packages"]
    return packages


def packages(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - one signature for all parts
    """Return {"packages": name -> version of all installed packages of NVIDIA's}."""
    return {"packages": {p.name: p.version for p in every(host) if p.there and _NVIDIA.search(p.name)}}


def holds(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Return {"holds": names of packages, or for rpm the patterns, that stay as they are}."""
    kind = family(host)
    if kind == "apt":
        return {"holds": sorted({p.name for p in every(host) if p.held})}
    if kind == "zypper":
        return {"holds": re.findall(r"^solvable_name: (.+)$", host.text("/etc/zypp/locks"), re.MULTILINE)}
    lines = host.text("/etc/dnf/plugins/versionlock.list").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    patterns += re.findall(r"^name\s*=\s*[\"'](.+)[\"']", host.text("/etc/dnf/versionlock.toml"), re.MULTILINE)
    return {"holds": patterns}


def broken(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Return {"dpkg_broken": names, "dpkg_interrupted"}; nothing on a host without dpkg."""
    if family(host) != "apt":
        return {}
    names = sorted({p.name for p in every(host) if p.there and not p.works})
    return {"dpkg_broken": names, "dpkg_interrupted": any(name.isdigit() for name in host.names(UPDATES))}


def unattended(host: Host, found: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    """Return {"unattended_upgrades": {"installed", "enabled", "program"}}."""
    kind = family(host)
    program = {"apt": "unattended-upgrades", "dnf": "dnf-automatic", "zypper": "transactional-update"}[kind]
    installed = any(p.works and p.name in (program, "dnf5-plugin-automatic") for p in every(host))
    if kind == "apt":
        cron = not host.exists("/run/systemd/system") and host.exists("/etc/cron.daily/apt-compat")
        enabled = _apt_periodic(host) and (cron or _runs(host, "apt-daily-upgrade"))
    else:
        enabled = _runs(host, program)
    return {"unattended_upgrades": {"installed": installed, "enabled": installed and enabled, "program": program}}


def _apt_periodic(host: Host) -> bool:
    settings = apt_settings(host)
    every_days = settings.get("APT::Periodic::Unattended-Upgrade", "0")
    return settings.get("APT::Periodic::Enable", "1") != "0" and every_days not in ("", "0")


def _runs(host: Host, timer: str) -> bool:
    """Say whether a timer of systemd's whose name begins so is enabled, and not masked."""
    names = [name for name in host.names(_TIMERS + "/timers.target.wants") if name.startswith(timer)]
    return any(host.link("%s/%s" % (_TIMERS, name)) != "/dev/null" for name in names)


def apt_settings(host: Host) -> dict[str, str]:
    """Return all settings of apt, from apt itself: it alone knows all the ways to spell them. Raises Untold."""
    if "apt" not in host.kept:
        program = host.which("apt-config")
        if not program:
            raise Untold("the host has no apt-config")
        done = host.run([program, "dump"])
        if done.rc != 0:
            raise Untold("apt-config: %s" % done.last_line)
        host.kept["apt"] = dict(re.findall(r'^(\S+) "(.*)";$', done.out, re.MULTILINE))
    settings: dict[str, str] = host.kept["apt"]
    return settings


def _dpkg(host: Host) -> list[Package]:
    """Return dpkg's packages; what an interrupted dpkg has written beside its database is newer."""
    text = host.text(STATUS)
    for name in host.names(UPDATES):
        if name.isdigit():
            text += "\n\n" + host.text("%s/%s" % (UPDATES, name))
    known: dict[tuple[str, str], Package] = {}
    for stanza in text.split("\n\n"):
        fields = dict(_FIELD.findall(stanza))
        if "Package" not in fields:
            continue
        want, _, state = [*fields.get("Status", "unknown ok not-installed").split(), "", "", ""][:3]
        arch = fields.get("Architecture", "")
        known[fields["Package"], arch] = Package(
            fields["Package"], arch, fields.get("Version", ""), state, want == "hold", fields.get("Maintainer", "")
        )
    return list(known.values())


def _rpm(host: Host) -> list[Package]:
    program = host.which("rpm")
    if not program:
        raise Untold("the host has no rpm")
    lines: list[str] = []
    # what is kept of a program's output is bounded, and a host may have thousands of packages
    try:
        done = host.system.run(
            [program, "-qa", "--qf", _RPM_FORMAT], timeout_s=20.0, on_line=lambda _, line: lines.append(line)
        )
    except OSError as error:
        raise Untold("cannot run rpm: %s" % error.strerror) from None
    if done.timed_out or done.rc != 0:
        raise Untold("rpm: %s" % (done.last_line or done.why))
    found = []
    for words in (line.split("\t") for line in lines if line.count("\t") == 4):
        name, epoch, version, arch, maker = words
        found.append(Package(name, arch, version if epoch == "0" else epoch + ":" + version, "installed", False, maker))
    return found
