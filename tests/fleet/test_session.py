"""The bootstrap, over a real shell and a real interpreter: what travels, what is kept, what goes wrong."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from gpuprov import bundle
from gpuprov.agent.lock import holder
from gpuprov.errors import AgentError, RefusedError, SessionLost, UsageError
from gpuprov.fleet import session as module
from gpuprov.fleet.session import Timeouts
from gpuprov.wire.frames import PREFIX, encode
from tests.support.agent_process import plan, task
from tests.support.interpreters import interpreters
from tests.support.local_session import Odd, marker_of, run_plan, session, start

if TYPE_CHECKING:
    from pathlib import Path

OWN = sys.executable
OTHERS = [path for version, path in sorted(interpreters().items()) if version != sys.version_info[:2]]
PING = [task(1, "ping", {})]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


def settled(home: Path) -> None:
    """Wait until the last runner has tidied up and compiled what it will."""
    deadline = time.monotonic() + 30
    while (holder(str(home))[1] or _runners(home)) and time.monotonic() < deadline:
        time.sleep(0.02)


def _runners(home: Path) -> bool:
    """Say whether a process still has a file below *home* open."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if any(os.readlink(f"/proc/{pid}/fd/{fd}").startswith(str(home)) for fd in os.listdir(f"/proc/{pid}/fd")):
                return True
        except OSError:
            continue
    return False


def test_byte_code_travels_once(home):
    for number, least in ((1, 100_000), (2, 0)):
        found, odd = start(home, OWN)
        assert least <= odd.sent < max(20_000, 8 * least), number
        events = run_plan(found, plan(f"r{number}", PING))
        assert events[-1]["outcome"] == "ok"
    settled(home)
    assert sorted(p.name for p in (home / "bundle").iterdir()) == [bundle.byte_code().digest + ".code"]


def test_damaged_byte_code_is_replaced(home):
    start(home, OWN)[0].close()
    (kept,) = (home / "bundle").iterdir()
    intact = kept.read_bytes()
    for damaged in (b"", intact[:-1], intact[:5000] + b"!" + intact[5001:]):
        kept.write_bytes(damaged)
        found, odd = start(home, OWN)
        found.close()
        assert odd.sent > 100_000
        assert kept.read_bytes() == intact


def test_a_code_that_arrives_damaged_is_never_run(home, monkeypatch):
    other = bundle.byte_code().data + b"!"
    monkeypatch.setattr(bundle, "packed_byte_code", lambda: __import__("zlib").compress(other))
    with pytest.raises(AgentError, match="arrived damaged"):
        start(home, OWN)
    assert list((home / "bundle").iterdir()) == []


@pytest.mark.skipif(not OTHERS, reason="no other Python on this machine")
def test_another_python_compiles_its_own_and_uses_it(home):
    python = OTHERS[0]
    found, odd = start(home, python)
    assert odd.sent > 50_000
    assert run_plan(found, plan("r1", PING))[-1]["outcome"] == "ok"
    settled(home)
    source = home / "bundle" / f"{bundle.layer('agent').sha256}.zip"
    code = next(p for p in (home / "bundle").iterdir() if p.suffix == ".code")
    source.write_bytes(b"no zip")  # who looks at it now would ask for it again
    found, odd = start(home, python)
    assert odd.sent < 20_000
    assert run_plan(found, plan("r2", PING))[-1]["outcome"] == "ok"
    code.write_bytes(code.read_bytes()[:-1])  # a power cut
    found, odd = start(home, python)
    assert odd.sent > 50_000
    assert run_plan(found, plan("r3", PING))[-1]["outcome"] == "ok"


def test_noise_before_the_marker(home):
    odd = Odd(change=lambda command: f"printf 'welcome\\n\\377\\0{'x' * 3000}'; " + command)
    start(home, OWN, odd)[0].close()


def test_a_marker_that_somebody_repeats_is_not_ours(home):
    """A forced command that logs what was asked for has the marker in the middle of a line."""
    odd = Odd(change=lambda command: f"echo 'asked: {marker_of(command)}; thanks'; " + command)
    start(home, OWN, odd)[0].close()


@pytest.mark.parametrize("piece", [1, 7])
def test_everything_in_tiny_pieces(home, piece):
    found, _ = start(home, OWN, Odd(piece=piece))
    assert found.hello["facts"]["boot_id"]
    found.close()


def test_a_flood(home):
    with pytest.raises(AgentError, match="more than 64 KiB"):
        start(home, OWN, Odd(change=lambda _: "yes noise"))


def test_silence(home):
    quiet = session(
        home, OWN, Odd(change=lambda _: "echo only this >&2; sleep 5"), Timeouts(first_byte_s=0.5, boot_s=1)
    )
    with pytest.raises(AgentError, match="then said nothing: only this"):
        quiet.start()
    quiet.close()


def test_a_command_that_ends(home):
    with pytest.raises(AgentError, match="status 3 before the agent spoke: go away") as caught:
        start(home, OWN, Odd(change=lambda _: "echo go away; exit 3"))
    assert "forced command" in caught.value.hint


def test_no_python(home):
    with pytest.raises(AgentError, match="no Python on the host: /nowhere/python3 is not there"):
        start(home, "/nowhere/python3")


def test_nonsense_instead_of_an_agent(home):
    odd = Odd(change=lambda command: f"echo {marker_of(command)}; head -c 100 /dev/zero | tr '\\0' '\\377'; sleep 1")
    with pytest.raises(AgentError, match="nonsense"):
        start(home, OWN, odd)


@pytest.mark.parametrize(
    "hello",
    [
        {"t": "hello", "protocol": 99, "facts": {}},
        {"t": "hello", "protocol": 1},
        {"t": "hello", "protocol": 1, "facts": {}, "trouble": ["x"]},
        {"t": "beat"},
    ],
)
def test_an_agent_that_is_none_of_ours(home, hello):
    said = "".join(f"\\{byte:03o}" for byte in encode(hello))
    odd = Odd(change=lambda command: f"echo {marker_of(command)}; printf '{said}'; sleep 1")
    with pytest.raises(AgentError) as caught:
        start(home, OWN, odd)
    assert caught.value.reference == "protocol"


def test_a_host_cannot_make_us_hold_much(home):
    huge = PREFIX.pack(module.MAX_HEADER_BYTES + 1, 0)
    said = "".join(f"\\{byte:03o}" for byte in huge)
    odd = Odd(change=lambda command: f"echo {marker_of(command)}; printf '{said}'; sleep 1")
    with pytest.raises(AgentError, match="the limits are"):
        start(home, OWN, odd)


def test_a_host_that_never_stops_talking_lets_others_be_heard(home):
    found, _ = start(home, OWN)
    frame = encode({"t": "event", "text": "x" * 60_000})
    fed = iter(lambda: frame, b"")
    found.channel.recv = lambda limit: next(fed)  # type: ignore[method-assign]
    assert len(list(found.frames())) == module.MOST_READS
    del found.channel.recv
    found.close()


def test_an_agent_that_dies_says_why(home):
    found, _ = start(home, OWN)
    found.send({"t": "dance"})
    frames = (header for _ in range(100) if found.channel.wait(10) for header, _, _ in found.frames())
    assert next(frames)["message"] == "unknown frame 'dance'"
    with pytest.raises(SessionLost):
        next(frames)
    found.close()


def test_a_file_that_shrinks_while_it_is_sent(home, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(bytes(1_000_000))
    monkeypatch.setattr(module, "CHUNK_BYTES", 600_000)
    pieces = module._pieces(str(path))
    assert next(pieces) == (bytes(600_000), False)
    path.write_bytes(bytes(10))
    with pytest.raises(AgentError, match="became shorter"):
        list(pieces)


@pytest.mark.parametrize("size", [0, 1, 599, 600, 601, 1200])
def test_files_in_pieces(tmp_path, monkeypatch, size):
    monkeypatch.setattr(module, "CHUNK_BYTES", 600)
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    for source in (data, str(tmp_path / "file")):
        pieces = list(module._pieces(source))
        assert b"".join(piece for piece, _ in pieces) == data
        assert [last for _, last in pieces] == [False] * (len(pieces) - 1) + [True]


class TestStateFolder:
    def test_it_is_made_and_private(self, home):
        start(home, OWN)[0].close()
        assert [oct(path.stat().st_mode & 0o777) for path in (home, home / "bundle")] == ["0o700", "0o700"]

    def test_one_that_others_use_is_left_alone(self, tmp_path):
        (tmp_path / "theirs").write_text("x")
        tmp_path.chmod(0o755)
        with pytest.raises(RefusedError, match="open to others and has files in it"):
            start(tmp_path, OWN)
        assert oct(tmp_path.stat().st_mode & 0o777) == "0o755"

    def test_one_that_is_a_file(self, tmp_path):
        (tmp_path / "state").write_text("x")
        with pytest.raises(RefusedError, match="cannot use the agent's folder"):
            start(tmp_path / "state", OWN)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root must care who could replace its code")
    def test_root_takes_none_that_somebody_else_could_replace(self, tmp_path):
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        os.chown(theirs, 65534, 65534)
        with pytest.raises(RefusedError, match="others may write"):
            start(theirs / "state", OWN)
        os.chown(theirs, 0, 0)
        theirs.chmod(0o777)
        with pytest.raises(RefusedError, match="others may write"):
            start(theirs / "state", OWN)
        (tmp_path / "link").symlink_to(theirs)
        with pytest.raises(RefusedError, match="others may write"):
            start(tmp_path / "link" / "state", OWN)
        theirs.chmod(0o1777)  # as /tmp is: nobody replaces what is not theirs
        start(theirs / "state", OWN)[0].close()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a folder of somebody else's")
    def test_one_of_another_user(self, home):
        home.mkdir(0o700)
        os.chown(home, 65534, 65534)
        with pytest.raises(RefusedError, match="not a folder owned by uid 0"):
            start(home, OWN)


@pytest.mark.parametrize("setting", ["/usr/bin/env python3", "env python3"])
def test_an_interpreter_as_ansible_users_write_it(home, setting):
    start(home, setting)[0].close()


@pytest.mark.parametrize(
    "setting", ["/opt/my python/bin/python3", "python3; reboot", "'python3'", "~root/python", "$(x)"]
)
def test_an_interpreter_that_is_no_path(home, setting):
    with pytest.raises(UsageError, match="not the path of a program"):
        start(home, setting)


def test_the_loader_is_one_line_that_every_shell_takes():
    command = bundle.loader_command("gpuprov-0123456789abcdef", None, "prompt:")
    assert "\n" not in command
    assert command.count("'") == 2
    assert not set("!") & set(command)
    json.dumps(command)
