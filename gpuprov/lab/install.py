"""OpenSSH's server for the lab, and for the lab only: it never listens on the machine itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpuprov.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PACKAGE = "openssh-server"
#: Which package has what booted hosts need.
_BOOTED_PACKAGES = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
_SSHD = "/usr/sbin/sshd"
_UNITS = ("ssh.service", "ssh.socket")
_UNIT_FOLDER = "/etc/systemd/system"
#: What Debian's maintainer scripts ask before they start a service; 101 says no.
_POLICY = "/usr/sbin/policy-rc.d"
_KEPT = f"{_POLICY}.before-gpuprov-lab"
_REFUSE = "#!/bin/sh\n# From `gpuprov lab prepare`, while it installs: packages start no service.\nexit 101\n"
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
}


def install_openssh_server() -> list[str]:
    """Install OpenSSH's server unless it is there; return sentences that say what was done.

    The service is masked first and no package starts anything meanwhile, so no moment and no
    reboot has an sshd on the machine's own addresses. Blocking: minutes on a slow network.
    Raises LabError.
    """
    if os.path.exists(_SSHD):
        _allow_service_starts()
        return ["OpenSSH's server is already installed; nothing was changed"]
    if shutil.which("apt-get") is None:
        raise LabError(
            "OpenSSH's server is missing, and there is no apt-get to install it with",
            hint=f"install the package that has {_SSHD}, and keep its service from starting",
        )
    if os.geteuid() != 0:
        raise LabError("installing OpenSSH's server needs root", hint="sudo gpuprov lab prepare")
    masked = _mask()
    with _no_service_starts():
        if _apt("install", "--yes", "--no-install-recommends", _PACKAGE):
            _apt("update", check=True)  # an image without package lists
            _apt("install", "--yes", "--no-install-recommends", _PACKAGE, check=True)
    said = [f"installed {_PACKAGE}; it was not started and does not listen on this machine"]
    if masked:
        units = " ".join(masked)
        said.append(f"masked {units}, so that no reboot starts it; systemctl unmask {units} undoes that")
    if shutil.which("systemctl") is None and shutil.which("update-rc.d"):
        subprocess.run(["update-rc.d", "ssh", "disable"], env=_ENVIRONMENT, check=False, capture_output=True)
        said.append("disabled its start-up script; update-rc.d ssh enable undoes that")
    return said


def install_for_booted_hosts(suite: str, say: Callable[[str], None]) -> list[str]:
    """Install what booted hosts need beside it and make their root; return sentences on what was done.

    Blocking: minutes on a slow network. Raises LabError.
    """
    from gpuprov.lab.checks import which
    from gpuprov.lab.debian import PROGRAMS, base_root, check_suite, make_base_root

    check_suite(suite)
    if os.geteuid() != 0:
        raise LabError("preparing booted hosts needs root", hint="sudo gpuprov lab prepare --booted")
    missing = sorted({_BOOTED_PACKAGES[program] for program in PROGRAMS if which(program) is None})
    said = []
    if missing:
        if shutil.which("apt-get") is None:
            raise LabError(
                f"{' and '.join(missing)} are missing, and there is no apt-get to install them with",
                hint="booted hosts are made with Debian's tools, on Debian or a system like it",
            )
        with _no_service_starts():
            _apt("update", check=True)
            _apt("install", "--yes", "--no-install-recommends", *missing, check=True)
        said.append(f"installed {' '.join(missing)}")
    made = os.path.isdir(base_root(suite))
    make_base_root(suite, say)
    said.append(f"the Debian {suite} root of booted hosts is in {base_root(suite)}" + (" already" if made else ""))
    return said


def _mask() -> list[str]:
    """Mask the units that are not there yet, as `systemctl mask` would; return their names."""
    os.makedirs(_UNIT_FOLDER, exist_ok=True)
    masked = []
    for unit in _UNITS:
        path = os.path.join(_UNIT_FOLDER, unit)
        if not os.path.lexists(path):
            os.symlink("/dev/null", path)
            masked.append(unit)
    return masked


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Have policy-rc.d refuse every start; put back the machine's own afterwards."""
    _allow_service_starts()
    if os.path.lexists(_POLICY):
        os.rename(_POLICY, _KEPT)
    with open(_POLICY, "w", encoding="ascii") as f:
        f.write(_REFUSE)
    os.chmod(_POLICY, 0o755)  # noqa: S103 - a program
    try:
        yield
    finally:
        _allow_service_starts()


def _allow_service_starts() -> None:
    """Take our policy-rc.d away and put back the machine's own; nothing to do if it is not ours."""
    try:
        with open(_POLICY, encoding="utf-8", errors="replace") as f:
            if f.read() == _REFUSE:
                os.unlink(_POLICY)
    except FileNotFoundError:
        pass
    if os.path.lexists(_KEPT) and not os.path.lexists(_POLICY):
        os.rename(_KEPT, _POLICY)


def _apt(*words: str, check: bool = False) -> int:
    """Run apt-get; return its exit code. With *check*, raise LabError when it is not 0."""
    argv = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *words]
    try:
        done = subprocess.run(
            argv,
            check=False,
            env={**os.environ, **_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except OSError as error:
        raise LabError(f"apt-get could not be run: {error.strerror}") from error
    if check and done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise LabError(f"apt-get {words[0]} failed: {' '.join(errors) or f'exit code {done.returncode}'}")
    return done.returncode
