"""Real hosts for tests: a lab in a temporary folder, always taken down.

    from tests.support.lab import lab_of, NEEDS_LAB, run_on

    pytestmark = NEEDS_LAB

    @pytest.fixture(scope="session")
    def lab():
        with lab_of(2) as lab:
            yield lab

Addresses and ports need no care: every lab takes a block of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpuprov.errors import LabError
from gpuprov.lab import HostOptions, Lab
from gpuprov.lab.checks import which
from gpuprov.lab.debian import PROGRAMS, archives, base_root
from gpuprov.lab.supervisor import users_available

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_READY = os.geteuid() == 0 and shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") is not None


#: `pytestmark` of a file whose tests start real sshd hosts.
NEEDS_LAB = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not _READY, reason="a lab needs root and sshd: sudo gpuprov lab prepare, then run the tests as root"
    ),
]


def _why_no_booted_hosts() -> str:
    """Return why this machine cannot have booted hosts, or ""."""
    if os.geteuid() != 0:
        return "booted hosts need root: run the tests as root"
    missing = [program for program in PROGRAMS if which(program) is None]
    if missing:
        return f"booted hosts need {', '.join(missing)}: sudo gpuprov lab prepare --booted"
    if not os.path.isdir(base_root("bookworm")):
        try:
            archives()
        except LabError as error:
            return str(error)
    return "" if users_available() else "booted hosts need user namespaces, and this machine gives out none"


_REASON = _why_no_booted_hosts()
#: `pytestmark` of a file whose tests start booted hosts.
NEEDS_BOOTED = [pytest.mark.lab, pytest.mark.skipif(bool(_REASON), reason=_REASON or "booted hosts are to be had")]


@contextmanager
def lab_of(
    hosts: int,
    options: Mapping[str, HostOptions] | None = None,
    *,
    booted: str = "",
    user_namespaces: bool = True,
) -> Iterator[Lab]:
    """Run a lab of *hosts* hosts until the block ends."""
    with tempfile.TemporaryDirectory(prefix="gpuprov-lab-") as folder:
        lab = Lab(Path(folder, "state"))
        try:
            lab.up(hosts, options=options, booted=booted, user_namespaces=user_namespaces)
            yield lab
        finally:
            lab.down()


def run_on(lab: Lab, name: str, command: str, *, user: str = "root", stdin: str = "", timeout_s: float = 60):
    """Run *command* on a host through the ssh client; return the CompletedProcess (text)."""
    argv = ["ssh", "-F", lab.layout.path("ssh_config"), "-o", f"User={user}", "-o", "LogLevel=ERROR", name, command]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
