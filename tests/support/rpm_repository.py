"""A dnf repository made here: small packages of any names, versions and dependencies, with module streams.

All new packages are built by one rpmbuild run; the index is createrepo_c's and modifyrepo_c's.
"""

from __future__ import annotations

import os
import subprocess

_HEAD = """Name: gpuprov-build
Version: 1
Release: 1
Summary: made for tests
License: none
BuildArch: noarch
%description
made for tests
"""
_PACKAGE = """%package -n {name}
Version: {version}
Release: {release}
{epoch}Summary: made for tests
{fields}
%description -n {name}
made for tests
{scripts}
%files -n {name}
/usr/share/gpuprov-test/{name}
"""
_STREAM = """---
document: modulemd
version: 2
data:
  name: {name}
  stream: "{stream}"
  version: {number}
  context: "00000000"
  arch: noarch
  summary: made for tests
  description: made for tests
  license:
    module: [none]
  profiles:
    default:
      rpms: [{first}]
  artifacts:
    rpms:
{artifacts}
...
"""


class RpmRepository:
    """One repository below *folder*."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._new: list[str] = []
        self._sizes_kb: dict[str, int] = {}
        self._streams: list[str] = []
        os.makedirs(folder, exist_ok=True)

    def add(
        self,
        name: str,
        version: str,
        *,
        requires: str = "",
        more: str = "",
        post: str = "",
        size_kb: int = 80,
    ) -> str:
        """Put "[epoch:]version-release" of a package in; return its NEVRA. Built by publish."""
        epoch, _, rest = version.rpartition(":")
        number, _, release = rest.partition("-")
        fields = "".join("Requires: %s\n" % one.strip() for one in requires.split(",") if one.strip())
        self._new.append(
            _PACKAGE.format(
                name=name,
                version=number,
                release=release,
                epoch="Epoch: %s\n" % epoch if epoch else "",
                fields=fields + more,
                scripts="%%post -n %s\n%s" % (name, post) if post else "",
            )
        )
        self._sizes_kb[name] = size_kb
        return "%s-%s:%s.noarch" % (name, epoch or "0", rest)

    def stream(self, name: str, stream: str, nevras: list[str], number: int = 1) -> None:
        """Say that packages belong to a module stream."""
        artifacts = "\n".join("    - " + nevra for nevra in nevras)
        first = nevras[0].rsplit("-", 2)[0]
        words = {"name": name, "stream": stream, "number": number, "first": first, "artifacts": artifacts}
        self._streams.append(_STREAM.format(**words))

    def remove(self, name: str, version: str) -> None:
        """Let a version vanish; publish makes it known."""
        os.unlink(os.path.join(self.folder, "noarch", "%s-%s.noarch.rpm" % (name, version.rpartition(":")[2])))

    def publish(self) -> None:
        """Build what is new, and write the index."""
        if self._new:
            self._build()
        subprocess.run(["createrepo_c", "-q", self.folder], check=True)
        if self._streams:
            path = os.path.join(self.folder, "modules.yaml")
            with open(path, "w") as f:
                f.write("".join(self._streams))
            words = ["modifyrepo_c", "--mdtype=modules", path, os.path.join(self.folder, "repodata")]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _build(self) -> None:
        """Build the new packages; versions of one name need runs of their own."""
        rounds: list[dict[str, str]] = []
        for text in self._new:
            name = text.split("\n", 1)[0]
            free = next((one for one in rounds if name not in one), None)
            if free is None:
                rounds.append(free := {})
            free[name] = text
        root = self.folder + ".build"
        for texts in rounds:
            os.makedirs(root, exist_ok=True)
            install = ["%install", "mkdir -p %{buildroot}/usr/share/gpuprov-test"]
            for line in texts:
                name = line.split()[-1]
                install.append("truncate -s %dK %%{buildroot}/usr/share/gpuprov-test/%s" % (self._sizes_kb[name], name))
            spec = os.path.join(root, "build.spec")
            with open(spec, "w") as f:
                f.write(_HEAD + "".join(texts.values()) + "\n".join(install) + "\n")
            words = ["rpmbuild", "-bb", "--define", "_topdir " + root, "--define", "_rpmdir " + self.folder, spec]
            done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            if done.returncode != 0:
                raise AssertionError(done.stdout.decode()[-2000:])
        self._new = []


def bare_host() -> None:
    """Let rpm and dnf know no package and no source. Only in a private view of /etc and /var."""
    subprocess.run(["mount", "-t", "tmpfs", "var-lib-rpm", "/var/lib/rpm"], check=False) if os.path.isdir(
        "/var/lib/rpm"
    ) else None
    os.makedirs("/etc/rpm", exist_ok=True)
    with open("/etc/rpm/macros", "w") as f:
        f.write("%_dbpath /var/lib/rpm\n")
    os.makedirs("/etc/yum.repos.d", exist_ok=True)
    remains = "/var/lib/rpm/* /etc/yum.repos.d/* /var/cache/dnf /var/lib/dnf /etc/dnf/modules.d/* /var/lib/gpuprov"
    subprocess.run("rm -rf %s; rpm --initdb" % remains, shell=True, check=True)
    for path, text in (
        ("/etc/dnf/vars/releasever", "9"),
        ("/etc/dnf/plugins/local.conf", "[main]\nenabled=0\n"),  # Debian's default, without its repository
        ("/etc/dnf/plugins/versionlock.list", ""),
        (
            "/etc/dnf/dnf.conf",
            "[main]\nmodule_platform_id=platform:el9\nmetadata_expire=1\nclean_requirements_on_remove=False\n",
        ),
    ):
        with open(path, "w") as f:
            f.write(text)
