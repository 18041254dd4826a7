"""What can be asked of one lab host: odd users, odd shells, odd disks. Frozen values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

#: What a booted host can be asked for beside its suite.
BOOTED_TOO = ("booted", "users", "banner", "force_command", "files", "sshd_config", "boot_delay_s", "returns")


@dataclass(frozen=True)
class User:
    """A login user beside root; it has the lab's key.

    sudo is "" (none), "free" (no password asked) or "password". password is plain text and
    set only when given.
    """

    name: str
    shell: str = "/bin/bash"
    sudo: str = ""
    password: str = ""


@dataclass(frozen=True)
class HostOptions:
    """How one lab host differs from a plain one. Fixed when the host is first started.

    banner is sent before authentication; profile_noise is printed to stdout by every shell
    start-up file. force_command replaces whatever a client asks for. read_only are folders
    (such as "/usr"), hidden are files or folders that the host does not see. journal_kib gives
    /var/lib/gpuprov a file system of that size. python is the full path of the only Python the
    host has, "none" for no Python at all. seed is a folder copied over the root before the
    first start, files (path -> text) are written after it. sshd_config lines go first, so they win.
    pam lets logins through PAM, which reads /etc/environment among others.
    booted is the name of a Debian suite, for a host that boots it with systemd as its process 1; only
    BOOTED_TOO of the other options go with it.
    gpus names the simulated GPUs that the host shows, whose files are in the lab's folder (gpus.py sets it).
    boot_delay_s passes between a reboot and the new sshd; returns=False stays away.
    """

    users: tuple[User, ...] = ()
    banner: str = ""
    profile_noise: str = ""
    force_command: str = ""
    noexec_tmp: bool = False
    read_only: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    journal_kib: int = 0
    python: str = ""
    files: dict[str, str] = field(default_factory=dict)
    seed: str = ""
    sshd_config: tuple[str, ...] = ()
    pam: bool = False
    booted: str = ""
    gpus: str = ""
    boot_delay_s: float = 0.2
    returns: bool = True

    def not_for_booted(self) -> list[str]:
        """Return the options that are set although the host is a booted one, which does without."""
        plain = HostOptions()
        names = [item.name for item in fields(self) if item.name not in BOOTED_TOO]
        return [name for name in names if self.booted and getattr(self, name) != getattr(plain, name)]

    def programs(self) -> list[str]:
        """Return the programs that the machine must have for these options."""
        wanted = {user.shell for user in self.users}
        if any(user.sudo for user in self.users):
            wanted.add("sudo")
        if self.python not in ("", "none"):
            wanted.add(self.python)
        return sorted(wanted)

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> HostOptions:
        """Return the options that `to_json` (through JSON text) was made from."""
        lists = {name: tuple(data[name]) for name in ("read_only", "hidden", "sshd_config")}
        return cls(**{**data, **lists, "users": tuple(User(**user) for user in data["users"])})
