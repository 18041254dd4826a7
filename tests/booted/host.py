"""One booted host under proof: what is asked of it through ssh, and a transcript of all of it.

Nothing here knows gpuprov's roles: what they did is found out as an admin would, with the host's
own dpkg, apt-mark, dkms, modinfo, lsinitramfs and nvcc.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.support.lab import run_on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpuprov.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
#: Lines of output that the transcript keeps of a step.
_KEPT = 12


@dataclass
class Transcript:
    """What was done, in the order of the doing, as a page that a person reads."""

    path: Path
    lines: list[str] = field(default_factory=list)

    def hide(self, text: str) -> str:
        """Return *text* without the names of this machine's mirror, kernel and folders."""
        text = re.sub(r"https?://[^/\s]+", "http://MIRROR", text)
        return text.replace(os.uname().release, "LAB-KERNEL").replace(str(ROOT), ".")

    def chapter(self, title: str) -> None:
        """Begin a part of the story."""
        self._add(f"\n## {title}\n")

    def step(self, command: str, done: subprocess.CompletedProcess[str], seconds: float) -> None:
        """Keep a command, how long it took, how it ended and the end of what it said."""
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        cut = [f"... {len(said) - _KEPT} lines"] if len(said) > _KEPT else []
        shown = "\n".join(f"    {self.hide(line)[:200]}" for line in [*cut, *said[-_KEPT:]])
        words = " ".join(self.hide(command).split())
        words = words if len(words) < 300 else f"{words[:300]} ..."
        self._add(f"    $ {words}\n{shown}\n    [exit {done.returncode}, {seconds:.0f} s]\n")

    def note(self, text: str) -> None:
        """Keep a finding."""
        self._add(f"{text}\n")

    def _add(self, text: str) -> None:
        self.lines.append(text)
        self.path.write_text("\n".join(self.lines))


class Host:
    """A booted lab host, and gpuprov run on it as a person would."""

    def __init__(self, lab: Lab, name: str, transcript: Transcript) -> None:
        self.lab = lab
        self.name = name
        self.transcript = transcript

    def try_(self, command: str, timeout_s: float = 3600) -> subprocess.CompletedProcess[str]:
        """Run *command* on the host, whatever comes of it."""
        started = time.monotonic()
        done = run_on(self.lab, self.name, command, timeout_s=timeout_s)
        self.transcript.step(command, done, time.monotonic() - started)
        return done

    def do(self, command: str, timeout_s: float = 3600) -> str:
        """Run *command* on the host; return its output. It must succeed."""
        done = self.try_(command, timeout_s)
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}{done.stdout[-2000:]}"
        return done.stdout

    def ask(self, command: str) -> str:
        """Return what *command* says, without a line in the transcript."""
        return run_on(self.lab, self.name, command).stdout

    def gpuprov(self, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run gpuprov on this machine with the inventory in *folder*."""
        env = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
        started = time.monotonic()
        argv = [sys.executable, "-m", "gpuprov", *words]
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=3600, check=False)
        shown = [word.replace(f"{folder}/", "") for word in words]
        self.transcript.step(f"gpuprov {' '.join(shown)}", done, time.monotonic() - started)
        return done

    def inventory(self, folder: Path, **variables: object) -> Path:
        """Write an inventory of this host with *variables*; return its path."""
        path = folder / "inventory.yaml"
        values = json.loads(json.dumps({**self.lab.connection(self.name), **variables}))
        path.write_text(yaml.safe_dump({"all": {"hosts": {self.name: values}}}))
        return path

    def packages(self) -> dict[str, str]:
        """Return every package that dpkg knows, with its state and version: what a removal has to give back."""
        said = self.ask("dpkg-query -W -f '${Package}:${Architecture} ${db:Status-Abbrev}${Version}\\n'")
        return dict(line.split(" ", 1) for line in said.splitlines())

    def files(self) -> set[str]:
        """Return the paths where a driver leaves its traces."""
        places = "/etc /boot /usr/src /usr/lib/modules /var/lib/dkms /usr/lib/nvidia /usr/lib/cuda"
        return set(self.ask(f"find {places} -xdev 2>/dev/null").splitlines())

    def kernel_to_boot(self) -> str:
        """Return the release of the installed kernel that the next boot of a server would take."""
        return self.ask("readlink /vmlinuz").strip().partition("vmlinuz-")[2]

    def module(self, kernel: str, *names: str) -> dict[str, str]:
        """Return version and license of the first of *names* that is there for *kernel*."""
        for name in names:
            said = self.ask(
                f"modinfo -k {kernel} -F version {name} && modinfo -k {kernel} -F license {name}"
            ).splitlines()
            if len(said) == 2:
                return {"name": name, "version": said[0], "license": said[1]}
        return {}

    def initramfs(self, kernel: str) -> str:
        """Return what nouveau's blacklist in the initramfs of *kernel* says."""
        folder = "$(mktemp -d)"
        return self.ask(
            f"cd {folder} && unmkinitramfs /boot/initrd.img-{kernel} . && grep -rhE '^blacklist' --include='*.conf' ."
        )

    def reboot(self) -> None:
        """Reboot it through its systemd, and wait for another boot."""
        boot_id = "cat /proc/sys/kernel/random/boot_id"
        before = self.ask(boot_id)
        assert before
        self.try_("systemctl reboot")
        deadline = time.monotonic() + 180
        while self.ask(boot_id) in ("", before):
            assert time.monotonic() < deadline, "the host did not come back"
            time.sleep(0.5)
        self.transcript.note(f"boot id before {before.strip()}, after {self.ask(boot_id).strip()}")


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return a line for each package that is not as it was."""
    names: Iterable[str] = sorted(before.keys() | after.keys())
    return [
        f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in names
        if before.get(name) != after.get(name)
    ]
