"""OpenSSH's server gets installed and never listens: tried on a lab host, with its real apt.

The package is a stand-in of the same name in a repository on the host's disk, whose script
starts the service as Debian's does, through invoke-rc.d. Nothing is downloaded.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from gpuprov.errors import LabError
from gpuprov.lab import install
from tests.support.lab import NEEDS_LAB, lab_of, run_on

pytestmark = NEEDS_LAB

PACKAGE = r"""
set -e
mkdir -p /repo/pkg/DEBIAN /repo/pkg/usr/sbin /repo/pkg/etc/init.d
cp /usr/sbin/sshd /repo/pkg/usr/sbin/sshd  # the host itself goes on needing one
cp -a /usr/lib/openssh /repo/openssh  # and newer ones the programs that they start for each connection
dpkg --remove --force-all openssh-server 2>/dev/null
mkdir -p /usr/lib/openssh
cp -a /repo/openssh/. /usr/lib/openssh/
rm -rf /usr/sbin/sshd /etc/systemd/system/ssh* /etc/rc?.d/???ssh
printf 'Package: openssh-server\nVersion: 9:9\nArchitecture: all\nMaintainer: x <x@localhost>\nDescription: x\n' \
    >/repo/pkg/DEBIAN/control
cat >/repo/pkg/etc/init.d/ssh <<'END'
#!/bin/sh
### BEGIN INIT INFO
# Provides: sshd
# Required-Start:
# Required-Stop:
# Default-Start: 2 3 4 5
# Default-Stop:
### END INIT INFO
echo started >/started
END
printf '#!/bin/sh\nset -e\nupdate-rc.d ssh defaults\ninvoke-rc.d ssh start\n' >/repo/pkg/DEBIAN/postinst
chmod 755 /repo/pkg/DEBIAN/postinst /repo/pkg/etc/init.d/ssh /repo/pkg/usr/sbin/sshd
cd /repo
dpkg-deb -b --root-owner-group pkg openssh-server.deb >/dev/null
{ cat pkg/DEBIAN/control; echo "Filename: ./openssh-server.deb"; echo "Size: $(stat -c %s openssh-server.deb)"
  echo "SHA256: $(sha256sum openssh-server.deb | cut -d' ' -f1)"; } >Packages
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/*
echo 'deb [trusted=yes] file:/repo ./' >/etc/apt/sources.list
rm -f /usr/sbin/runlevel
printf '#!/bin/sh\necho N 2\n' >/usr/sbin/runlevel  # invoke-rc.d starts nothing when it knows of none
chmod 755 /usr/sbin/runlevel
POLICY
mkdir -p /code && tar -x -C /code
"""
PREPARE = "cd /code && python3 -m gpuprov lab prepare"
OUTCOME = "ls /started /usr/sbin/policy-rc.d*; readlink /etc/systemd/system/ssh.service /etc/systemd/system/ssh.socket"
MASKED = ["/dev/null", "/dev/null"]


@pytest.fixture
def bare(request):
    """A lab host without OpenSSH's server, with its own policy-rc.d or none, and the code."""
    with lab_of(1) as lab:
        repository = Path(__file__).parents[2]
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name in ("__init__.py", "__main__.py", "errors.py", "source.py", "cli", "lab"):
                archive.add(repository / "gpuprov" / name, f"gpuprov/{name}", filter=without_caches)
        argv = ["ssh", "-F", lab.layout.path("ssh_config"), "gpu01", PACKAGE.replace("POLICY", request.param)]
        done = subprocess.run(argv, input=packed.getvalue(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        yield lab


def without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry


@pytest.mark.parametrize("bare", ["rm -f /usr/sbin/policy-rc.d"], indirect=True)
def test_it_is_installed_masked_and_not_started(bare):
    done = run_on(bare, "gpu01", PREPARE)
    assert done.returncode == 0, done.stderr
    assert "installed openssh-server; it was not started" in done.stdout
    assert "masked ssh.service ssh.socket" in done.stdout
    assert run_on(bare, "gpu01", OUTCOME).stdout.split() == MASKED
    again = run_on(bare, "gpu01", PREPARE)
    assert again.stdout == "OpenSSH's server is already installed; nothing was changed\n"


@pytest.mark.parametrize("bare", ["printf '#!/bin/sh\\nexit 0\\n' >/usr/sbin/policy-rc.d"], indirect=True)
def test_a_policy_that_lets_services_start_is_set_aside_and_put_back(bare):
    assert run_on(bare, "gpu01", PREPARE).returncode == 0
    assert run_on(bare, "gpu01", OUTCOME).stdout.split() == ["/usr/sbin/policy-rc.d", *MASKED]
    assert run_on(bare, "gpu01", "cat /usr/sbin/policy-rc.d").stdout == "#!/bin/sh\nexit 0\n"


@pytest.mark.parametrize("bare", ["rm -f /usr/sbin/policy-rc.d"], indirect=True)
def test_without_our_care_the_service_would_have_started(bare):
    """The stand-in package is one that starts its service: else the tests above say nothing."""
    run_on(bare, "gpu01", "apt-get update -qq; apt-get install -y -qq openssh-server")
    assert run_on(bare, "gpu01", "cat /started").stdout == "started\n"


@pytest.mark.parametrize("bare", ["rm /repo/openssh-server.deb"], indirect=True)
def test_when_apt_fails_its_error_is_told_and_services_may_start_again(bare):
    before = run_on(bare, "gpu01", "sha256sum /usr/sbin/policy-rc.d").stdout
    done = run_on(bare, "gpu01", PREPARE)
    assert done.returncode == 1
    assert "error[lab]: apt-get install failed: E:" in done.stderr
    assert run_on(bare, "gpu01", "sha256sum /usr/sbin/policy-rc.d*").stdout == before


def test_a_killed_installation_is_cleaned_up_after(tmp_path, monkeypatch):
    policy, kept, sshd = tmp_path / "policy-rc.d", tmp_path / "kept", tmp_path / "sshd"
    monkeypatch.setattr(install, "_POLICY", str(policy))
    monkeypatch.setattr(install, "_KEPT", str(kept))
    monkeypatch.setattr(install, "_SSHD", str(sshd))
    sshd.touch()
    policy.write_text(install._REFUSE)
    kept.write_text("the machine's own")
    assert "already installed" in install.install_openssh_server()[0]
    assert policy.read_text() == "the machine's own"
    assert not kept.exists()
    install.install_openssh_server()
    assert policy.read_text() == "the machine's own"


def test_without_apt_the_remedy_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "_SSHD", str(tmp_path / "sshd"))
    monkeypatch.setattr(install.shutil, "which", lambda _: None)
    with pytest.raises(LabError, match="no apt-get"):
        install.install_openssh_server()
