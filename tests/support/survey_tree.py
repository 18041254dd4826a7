"""Root folders of hosts that are not here: files, links and what programs would say; the survey reads them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent.process import Finished
from gpuprov.agent.survey import survey
from gpuprov.agent.survey_host import Host
from gpuprov.agent.system import System

EFI = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
PCI = "/sys/bus/pci/devices/"


class Told(System):
    """Programs of another host: name -> what they print, or a function of their arguments that returns it.

    A number is an exit status, an exception is raised.
    """

    def __init__(self, programs):
        super().__init__()
        self.programs = programs
        self.ran = []

    def run(self, argv, timeout_s=None, on_line=None, **_):
        name = os.path.basename(argv[0])
        self.ran.append(list(argv))
        assert name in self.programs, "the survey runs %s, of which the test says nothing" % argv
        said = self.programs[name]
        said = said(argv[1:]) if callable(said) else said
        if isinstance(said, Exception):
            raise said
        rc, out = (said, "") if isinstance(said, int) else (0, said)
        for line in out.splitlines() if on_line else ():
            on_line("stdout", line)
        return Finished(rc, out, "", 0.0, rc == -9, 0)


class Tree:
    """A root folder that is filled piece by piece."""

    def __init__(self, case):
        self.root = tempfile.mkdtemp(prefix="gpuprov-survey-")
        case.addCleanup(shutil.rmtree, self.root)
        self.system = Told({})
        self.folder("/sys/bus")
        self.folder("/sys/module")
        self.folder("/sys/firmware/memmap")
        self.put("/proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")

    def put(self, path, data="", mode=0o644):
        full = self.root + path
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        os.chmod(full, mode)
        return self

    def folder(self, path):
        os.makedirs(self.root + path, exist_ok=True)
        return self

    def link(self, path, target):
        os.makedirs(os.path.dirname(self.root + path), exist_ok=True)
        os.symlink(target, self.root + path)
        return self

    def program(self, path, said):
        """Have a program that prints *said* (see Told)."""
        self.put(path, "#!/bin/false\n", 0o755)
        self.system.programs[os.path.basename(path)] = said
        return self

    def pci(self, address, vendor, device, kind, subsystem="10de:0000", driver=None, vpd=None, config=None):
        top = PCI + address
        values = {"vendor": vendor, "device": device, "class": kind}
        values["subsystem_vendor"], values["subsystem_device"] = subsystem.split(":")
        for name, value in values.items():
            self.put("%s/%s" % (top, name), "0x%s\n" % value)
        self.put(top + "/config", config if config is not None else bytes(256))
        if driver:
            self.link(top + "/driver", "../../../bus/pci/drivers/" + driver)
        if vpd is not None:
            self.put(top + "/vpd", vpd)
        return self

    def kernel(self, release, headers=False, image=True):
        self.folder("/lib/modules/%s/kernel" % release)
        if image:
            self.put("/boot/vmlinuz-" + release, "MZ")
        if headers:
            self.put("/usr/src/linux-headers-%s/Makefile" % release)
            self.put("/usr/src/linux-headers-%s/include/generated/autoconf.h" % release)
            self.link("/lib/modules/%s/build" % release, "/usr/src/linux-headers-" + release)
        return self

    def debian(self, *packages):
        """Have dpkg with packages: (name, version, status, maintainer), shortened from the right."""
        self.program("/usr/bin/apt-get", 1).program("/usr/bin/apt-config", 'APT::Architecture "amd64";\n')
        text = ""
        rest = ("1.0", "install ok installed", "D <d@debian.org>")
        form = "Package: %s\nVersion: %s\nStatus: %s\nPriority: optional\nMaintainer: %s\nArchitecture: amd64\n"
        for package in packages:
            text += form % (*package, *rest[len(package) - 1 :])
            text += "Conffiles:\n /etc/x 1\nDescription: x\n Version: not this\n\n"
        return self.put("/var/lib/dpkg/status", text)

    def rpm(self, *packages):
        """Have rpm with packages: (name, epoch, version-release, vendor)."""
        lines = ["%s\t%s\t%s\tx86_64\t%s" % package for package in packages]
        self.folder("/var/lib/rpm").put("/usr/bin/dnf", "", 0o755)
        return self.program("/usr/bin/rpm", "\n".join(lines) + "\n")

    def module(self, path, version, license_name, signer=""):
        """Have a kernel module on the disk, for the one modinfo that is asked."""
        self.put(path, "ELF")
        known = self.__dict__.setdefault("known_modules", {})
        known[self.root + path] = (version, license_name, signer)

        def modinfo(paths):
            form = "filename:       %s\nversion:        %s\nlicense:        %s\nalias:          char-major-195-*\n%s"
            lines = [form % (p, *known[p][:2], "signer:  %s\n" % known[p][2] if known[p][2] else "") for p in paths]
            return "".join(lines)

        return self.program("/usr/sbin/modinfo", modinfo)

    def loaded(self, name, version="", refcnt="0"):
        self.put("/sys/module/%s/refcnt" % name, refcnt + "\n")
        return self.put("/sys/module/%s/version" % name, version + "\n") if version else self

    def process(self, pid, comm, files=(), cmdline=()):
        self.put("/proc/%d/comm" % pid, comm + "\n").put("/proc/%d/cmdline" % pid, "\0".join(cmdline))
        self.folder("/proc/%d/fd" % pid)
        for number, path in enumerate(files):
            self.link("/proc/%d/fd/%d" % (pid, number), path)
        return self

    def host(self):
        return Host(self.system, self.root)

    def survey(self):
        return survey(self.system, self.root)
