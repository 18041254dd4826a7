"""Members and hub as processes of their own: real slow and dead links between namespaces, ports that are taken."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.namespaces import NEEDS_NAMESPACES, mesh
from tests.support.torch_env import torch_python

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.namespaces import Mesh

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PORTS = [27101, 27102, 27103]


def together(addresses: list[str], prefix: Any = lambda at: [], **more: Any) -> dict[str, dict[str, Any]]:
    """Run the proof with one member per address; return what each found, by name and device, and its lines as ""."""
    names = [f"gpu{at + 1:02}" for at in range(len(addresses))]
    shared = {"token": "t", "hosts": names, "hub": names[0], "hub_address": addresses[0], "ports": PORTS, "join_s": 40}
    running = []
    for at, (name, address) in enumerate(zip(names, addresses, strict=True)):
        words = [*prefix(at), torch_python(), "-m", "gpuprov.proof.fabric", "--json"]
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        process = subprocess.Popen(words, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(json.dumps({**shared, "host": name, "address": address, **more}))
        process.stdin.close()
        process.stdin = None
        running.append(process)
    found = {}
    for name, process in zip(names, running, strict=True):
        lines = [json.loads(line) for line in process.communicate(timeout=200)[0].splitlines()]
        checks = {f"{c['name']} {c['device']}".strip(): c for c in lines if c["kind"] == "check"}
        found[name] = {**checks, "": " ".join(line.get("text", "") for line in lines)}
    return found


def in_mesh(net: Mesh, count: int, **more: Any) -> dict[str, dict[str, Any]]:
    return together([net.address(at) for at in range(count)], net.inside, **more)


def verdicts(found: dict[str, dict[str, Any]], name: str) -> list[str]:
    return [own[name]["verdict"] for own in found.values()]


@pytest.mark.slow
@NEEDS_NAMESPACES
def test_a_slow_link_is_named_at_both_ends() -> None:
    with mesh(4) as net:
        net.slow(1, 3, "50mbit")
        found = in_mesh(net, 4, parts=["pairs"], bytes_of={"cpu": 1 << 20})
    assert verdicts(found, "fabric.links") == ["pass", "fail", "pass", "fail"]
    assert "link gpu02 - gpu04: this pair alone reaches" in found["gpu02"]["fabric.links"]["reason"]
    assert found["gpu02"]["fabric.links"]["data"]["blamed"] == ["gpu02", "gpu04"]
    assert "pairs again" in found["gpu02"]["fabric.pair link to gpu04"]["data"]["round"]


@pytest.mark.slow
@NEEDS_NAMESPACES
def test_a_slow_host_is_named_and_its_partners_are_not() -> None:
    with mesh(4) as net:
        for other in (0, 1, 3):
            net.slow(2, other, "50mbit")
        found = in_mesh(net, 4, parts=["pairs"], bytes_of={"cpu": 1 << 20})
    assert verdicts(found, "fabric.links") == ["pass", "pass", "fail", "pass"]
    own = found["gpu03"]["fabric.links"]
    assert (own["action"], own["data"]["blamed"]) == ("isolate", ["gpu03"])
    assert "host gpu03: all its pairs reach" in own["reason"]


@pytest.mark.slow
@NEEDS_NAMESPACES
def test_a_dead_link_is_named_and_the_rest_is_proved() -> None:
    with mesh(3) as net:
        net.cut(1, 2)
        found = in_mesh(net, 3, parts=["pairs", "collectives"], round_s=8, bytes_of={"cpu": 1 << 18})
    assert verdicts(found, "fabric.links") == ["pass", "fail", "fail"]
    assert "link gpu02 - gpu03: this pair alone fails" in found["gpu02"]["fabric.links"]["reason"]
    assert found["gpu01"]["fabric.allreduce 2 hosts"]["verdict"] == "pass"
    assert found["gpu03"]["fabric.rest"]["verdict"] == "unknown"


@pytest.mark.slow
def test_ports_that_are_taken_are_told_and_others_used(tmp_path: Path) -> None:
    """One port belongs to a service that says nothing, one to somebody who speaks HTTP, on the hub's own address."""
    addresses = ["127.0.3.1", "127.0.3.2"]
    with socket.create_server((addresses[0], PORTS[0])), socket.create_server((addresses[0], PORTS[1])) as talker:
        threading.Thread(target=talk, args=(talker,), daemon=True).start()
        found = together(addresses, parts=["pairs"])
    assert verdicts(found, "fabric.links") == ["pass", "pass"]
    for port in PORTS[:2]:
        assert f"hub: port {port} of 127.0.3.1: Address already in use" in found["gpu01"][""]
    assert f"at 127.0.3.1 port {PORTS[2]}" in found["gpu01"][""]


def talk(server: socket.socket) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.slow
def test_a_host_to_which_nobody_comes_measures_nothing_and_does_not_pass() -> None:
    found = together(["127.0.3.1"], hosts=["gpu01", "gpu02"], join_s=12, parts=["pairs"])
    assert found["gpu01"]["fabric.join"]["verdict"] == "unknown"
    assert found["gpu01"]["fabric.join"]["reason"] == "nobody else came: gpu02"
