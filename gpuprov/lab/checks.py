"""What a lab cannot have, said before anything is touched."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from gpuprov.errors import LabError
from gpuprov.lab.layout import MAX_HOSTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpuprov.lab.options import HostOptions


def with_booted(names: Sequence[str], options: Mapping[str, HostOptions], booted: str) -> Mapping[str, HostOptions]:
    """Return *options* with those of a booted host for every host that has none."""
    if not booted:
        return options
    from gpuprov.lab.options import HostOptions

    return {**dict.fromkeys(names, HostOptions(booted=booted)), **options}


def check(names: Sequence[str], options: Mapping[str, HostOptions], port: int) -> None:
    """Raise LabError for what cannot be had; nothing has been touched yet."""
    need_root("up")
    if not 1 <= len(names) <= MAX_HOSTS:
        raise LabError(f"a lab has 1 to {MAX_HOSTS} hosts, not {len(names)}")
    if port and not 1024 <= port < 65536:
        raise LabError(f"a lab cannot use port {port}: 1024 to 65535 are allowed")
    for name, wanted in options.items():
        if name not in names:
            raise LabError(f"options for {name}, which is not one of the hosts {names[0]} to {names[-1]}")
        if wanted.booted:
            _booted(name, wanted)
            continue
        missing = [program for program in wanted.programs() if which(program) is None]
        if missing:
            raise LabError(
                f"the options of {name} need {', '.join(missing)}, which this machine does not have",
                hint=f"apt-get install {' '.join(os.path.basename(program) for program in missing)}",
            )
    needed = [("ssh-keygen", "openssh-client")]
    if not all(name in options and options[name].booted for name in names):
        needed.insert(0, ("sshd", "openssh-server"))
    for program, package in needed:
        if which(program) is None:
            raise LabError(f"{program} is not installed", hint=f"sudo gpuprov lab prepare installs {package}")


def _booted(name: str, wanted: HostOptions) -> None:
    """Raise LabError for what a booted host cannot have, or this machine cannot give."""
    from gpuprov.lab.debian import PROGRAMS, base_root, check_suite

    check_suite(wanted.booted)
    if wanted.not_for_booted():
        raise LabError(f"{name} is a booted host, which has no option {', '.join(wanted.not_for_booted())}")
    made = os.path.isdir(base_root(wanted.booted))
    missing = [
        program for program, only_once in PROGRAMS.items() if which(program) is None and not (made and only_once)
    ]
    if missing:
        raise LabError(
            f"booted hosts need {', '.join(missing)}, which this machine does not have",
            hint="sudo gpuprov lab prepare --booted installs it",
        )


def which(program: str) -> str | None:
    """Return the path of *program*, which may be one that only root has on its PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin")


def need_root(action: str) -> None:
    """Raise LabError for a user who is not root."""
    if os.geteuid() != 0:
        raise LabError("a lab needs root: it makes namespaces and mounts", hint=f"sudo gpuprov lab {action}")
