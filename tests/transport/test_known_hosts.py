from __future__ import annotations

import base64
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from gpuprov.transport.known_hosts import HostKey, KnownHosts, KnownHostsFile, lookup_name

if TYPE_CHECKING:
    from pathlib import Path

ED = "ssh-ed25519"


def blob(number: int) -> bytes:
    return b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([number]) * 32


def text(names: str, number: int, marker: str = "") -> str:
    return f"{marker}{names} {ED} {base64.b64encode(blob(number)).decode()}\n"


def write(path: Path, *lines: str) -> KnownHostsFile:
    path.write_text("".join(lines))
    return KnownHostsFile(str(path))


def numbers(file: KnownHostsFile, name: str) -> list[int]:
    return [entry.key.blob[-1] for entry in file.lookup(name).keys]


@pytest.mark.parametrize(
    ("names", "host", "found"),
    [
        ("gpu01", "gpu01", True),
        ("gpu01,10.0.0.1", "10.0.0.1", True),
        ("GPU01", "gpu01", True),
        ("gpu0?", "gpu01", True),
        ("gpu0?", "gpu011", False),
        ("*.example.com", "a.b.example.com", True),
        ("*,!gpu01", "gpu01", False),
        ("*,!gpu01", "gpu02", True),
        ("!gpu01", "gpu02", False),
        ("[gpu01]:2222", "[gpu01]:2222", True),
        ("[gpu0*]:2222", "[gpu01]:2222", True),
        ("[gpu01]:2222", "gpu01", False),
        ("gpu01", "gpu0", False),
        ("fe80::1", "fe80::1", True),
    ],
)
def test_names_match_as_in_openssh(tmp_path: Path, names: str, host: str, found: bool) -> None:
    path = tmp_path / "known"
    assert bool(numbers(write(path, text(names, 1)), host)) is found
    keygen = subprocess.run(["ssh-keygen", "-F", host, "-f", str(path)], capture_output=True, check=False)
    assert (keygen.returncode == 0) is found


def test_markers_and_order(tmp_path: Path) -> None:
    file = write(
        tmp_path / "known",
        "# comment\n",
        "\n",
        text("gpu01", 1),
        text("gpu01", 2, "@revoked "),
        text("gpu*", 3),
        text("*", 4, "@cert-authority "),
    )
    found = file.lookup("gpu01")
    assert [e.key.blob[-1] for e in found.keys] == [1, 3]
    assert [e.line for e in found.revoked] == [4]
    assert [e.where for e in found.authorities] == [f"{tmp_path}/known:6"]


def test_bad_lines_are_told_and_skipped(tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_bytes(
        b"gpu01\n|1|xx ssh-ed25519 AAAA\n@what gpu01 ssh-ed25519 AAAA\n\xff\xfe bad ???\n" + text("gpu01", 1).encode()
    )
    file = KnownHostsFile(str(path))
    assert numbers(file, "gpu01") == [1]
    assert [clause.partition(" ")[0] for clause in file.bad_lines] == [f"{path}:{n}" for n in (1, 2, 3, 4)]


def test_a_missing_file_is_empty_and_an_unreadable_one_is_told(tmp_path: Path) -> None:
    assert KnownHostsFile(str(tmp_path / "none")).bad_lines == []
    (file,) = KnownHostsFile(str(tmp_path)).bad_lines
    assert "cannot be read (is a directory)" in file


def test_a_big_file_is_looked_up_quickly(tmp_path: Path) -> None:
    import time

    path = tmp_path / "known"
    path.write_text("".join(text(f"gpu{n:05},10.{n >> 8}.{n & 255}.1", n % 250) for n in range(20_000)))
    hosts = KnownHosts()
    hosts.lookup([str(path)], "gpu00000", 22)
    started = time.process_time()
    for number in range(1000):
        assert hosts.lookup([str(path)], f"gpu{number:05}", 22).keys
    assert time.process_time() - started < 0.2


def test_recording_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "known"
    hosts = KnownHosts()
    hosts.record(str(path), "GPU01", 22, [HostKey(ED, blob(1))])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o640)
    with path.open("ab") as f:
        f.write(b"# \xff no newline at the end")
    hosts.record(str(path), "gpu02", 2222, [HostKey(ED, blob(2))])
    assert (
        path.read_bytes()
        == (text("gpu01", 1) + "# ").encode() + b"\xff no newline at the end\n" + text("[gpu02]:2222", 2).encode()
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(path.parent) == ["known"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    KnownHosts().record(str(link), "gpu01", 22, [HostKey(ED, blob(1))])
    assert link.is_symlink()
    assert real.read_text() == text("gpu01", 1)


def test_forgetting_takes_only_the_host_and_the_type(tmp_path: Path) -> None:
    path = tmp_path / "known"
    path.write_text(
        text("gpu01,gpu02", 1)
        + text("gpu01", 2)
        + text("gpu01", 3, "@revoked ")
        + "gpu01 ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQ==\n"
        + text("gpu03", 4)
    )
    KnownHosts().forget_keys(str(path), "gpu01", 22, ["ssh-ed25519"])
    assert path.read_text() == (
        text("gpu02", 1)
        + text("gpu01", 3, "@revoked ")
        + "gpu01 ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQ==\n"
        + text("gpu03", 4)
    )


def test_lookup_name() -> None:
    assert lookup_name("GPU01", 22) == "gpu01"
    assert lookup_name("gpu01", 2222) == "[gpu01]:2222"
