"""A lab host reboots as a machine does: new boot id, empty /tmp and /run, the same disk."""

from __future__ import annotations

import time

import pytest

from gpuprov.errors import LabError
from gpuprov.lab import HostOptions
from tests.support.lab import NEEDS_LAB, lab_of, run_on

pytestmark = NEEDS_LAB
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


@pytest.fixture(scope="module")
def own():
    with lab_of(1) as lab:
        yield lab


def boot_id_after_reboot(lab, old: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        new = run_on(lab, "gpu01", BOOT_ID).stdout
        if new and new != old:
            return new
        time.sleep(0.1)
    raise AssertionError("the host did not come back")


@pytest.mark.parametrize(
    "command",
    [
        "reboot",
        "/sbin/shutdown -r now",
        "reboot -f",
        "python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x01234567)'",
    ],
)
def test_a_reboot_keeps_the_disk_and_nothing_else(own, command):
    old = run_on(own, "gpu01", BOOT_ID).stdout
    assert old
    run_on(own, "gpu01", "echo kept | tee /etc/kept /root/kept /var/lib/gpuprov/kept; touch /tmp/lost /run/lost")
    run_on(own, "gpu01", command)
    new = boot_id_after_reboot(own, old)
    assert len(new) == len(old) == 37
    seen = run_on(own, "gpu01", "cat /etc/kept /root/kept /var/lib/gpuprov/kept; ls /tmp /run; hostname")
    assert seen.stdout.split()[:3] == ["kept"] * 3
    assert "lost" not in seen.stdout
    assert seen.stdout.endswith("gpu01\n")


def test_a_reboot_ends_every_process(own):
    old = run_on(own, "gpu01", BOOT_ID).stdout
    run_on(own, "gpu01", "trap '' TERM HUP; setsid nohup sleep 1000 >/dev/null 2>&1 </dev/null & sleep 0.1; reboot")
    boot_id_after_reboot(own, old)
    assert run_on(own, "gpu01", "pgrep sleep").stdout == ""


@pytest.mark.parametrize("command", ["poweroff", "shutdown -h now", "halt"])
def test_a_host_that_is_switched_off_stays_off_until_up(command):
    with lab_of(2) as lab:
        run_on(lab, "gpu01", f"touch /etc/kept; {command}")
        deadline = time.monotonic() + 60
        while lab.status()[0].pid and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)  # longer than a reboot takes
        assert [status.up for status in lab.status()] == [False, True]
        assert lab.ensure(2) is True
        assert run_on(lab, "gpu01", "ls /etc/kept").stdout == "/etc/kept\n"


def test_a_host_may_stay_away_after_a_reboot():
    options = {"gpu01": HostOptions(returns=False), "gpu02": HostOptions(boot_delay_s=1.5)}
    with lab_of(2, options) as lab:
        started = time.monotonic()
        for name in options:
            run_on(lab, name, "reboot")
        time.sleep(0.7)
        assert [status.up for status in lab.status()] == [False, False]
        while not lab.status()[1].up and time.monotonic() < started + 60:
            time.sleep(0.05)
        assert time.monotonic() - started >= 1.5
        assert [status.up for status in lab.status()] == [False, True]


def test_a_boot_id_cannot_be_forged_from_inside(own):
    before = run_on(own, "gpu01", BOOT_ID).stdout
    done = run_on(own, "gpu01", "echo x >/proc/sys/kernel/random/boot_id; umount /proc/sys/kernel/random/boot_id")
    assert done.returncode != 0
    assert run_on(own, "gpu01", BOOT_ID).stdout == before


def test_options_cannot_change_under_a_host(own):
    with pytest.raises(LabError, match="other options"):
        own.up(1, options={"gpu01": HostOptions(banner="x")})
    assert run_on(own, "gpu01", "true").returncode == 0
