"""How the ends of the fabric's connections know each other, and which interface leads to whom."""

from __future__ import annotations

import ipaddress
import random
import socket
import threading
import unittest

from gpuprov.proof.fabric import busy, lines, network, work
from gpuprov.proof.fabric.hub import Hub
from gpuprov.proof.fabric.lines import GoneError, Lines, greet
from gpuprov.proof.fabric.plan import Plan, PlanError

PLAN = {
    "token": "t",
    "host": "a",
    "address": "127.0.0.1",
    "hosts": ["a", "b"],
    "hub": "a",
    "hub_address": "127.0.0.1",
    "ports": [20001],
}


class Greeting(unittest.TestCase):
    def greeted(self, token: str, other: str) -> list:
        ours, theirs = (Lines(sock) for sock in socket.socketpair())
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        found: list = []

        def answer() -> None:
            try:
                greet(theirs, other, "hub", "member")
            except GoneError as error:
                found.append(str(error))

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            greet(ours, token, "member", "hub")
        except GoneError as error:
            found.append(str(error))
        thread.join()
        return found

    def test_the_same_token(self) -> None:
        self.assertEqual(self.greeted("one", "one"), [])

    def test_another_runs_token(self) -> None:
        self.assertEqual(self.greeted("one", "two"), ["the other end belongs to another run"] * 2)

    def test_a_reflection_of_our_own_words_is_no_proof(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)

        def echo() -> None:
            while data := theirs.recv(65536):
                theirs.sendall(data)

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        with self.assertRaisesRegex(GoneError, "belongs to another run"):
            greet(Lines(ours), "one", "member", "hub")

    def test_who_says_nothing_is_not_waited_for_long(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        before, lines.GREETING_S = lines.GREETING_S, 0.2
        self.addCleanup(setattr, lines, "GREETING_S", before)
        with self.assertRaisesRegex(GoneError, "nothing came in time"):
            greet(Lines(ours), "one", "member", "hub")

    def test_what_is_no_line_of_the_protocol(self) -> None:
        for sent in (b"HTTP/1.1 400 Bad Request\r\n", b"[1]\n", b"x" * (lines.MOST_BYTES + 70000)):
            ours, theirs = socket.socketpair()
            thread = threading.Thread(target=theirs.sendall, args=(sent,), daemon=True)
            thread.start()
            one = Lines(ours)
            with self.assertRaises(GoneError):
                one.one()
            one.close()
            thread.join()
            theirs.close()


class Network(unittest.TestCase):
    def test_the_narrowest_network_wins(self) -> None:
        nets = [("lo", "127.0.0.0/8"), ("eth0", "10.0.0.0/16"), ("ib0", "10.0.7.0/24"), ("eth1", "fd00::/64")]
        interfaces = [(name, ipaddress.ip_network(net)) for name, net in nets]
        for address, name in (("10.0.7.3", "ib0"), ("10.0.8.1", "eth0"), ("127.0.9.1", "lo"), ("fd00::5", "eth1")):
            self.assertEqual(network.pick(ipaddress.ip_address(address), interfaces), name)
        self.assertEqual(network.pick(ipaddress.ip_address("192.0.2.1"), interfaces), "")

    def test_this_machines_loopback(self) -> None:
        self.assertEqual(network.interface_of("127.0.9.1"), "lo")

    def test_an_address_of_ours_is_kept_and_another_replaced_by_the_routes(self) -> None:
        self.assertEqual(network.own_address("127.0.9.1", "127.0.0.1"), "127.0.9.1")
        self.assertEqual(network.own_address("192.0.2.1", "127.0.9.1"), "127.0.0.1")

    def test_a_port_that_is_taken_is_told_and_the_next_one_used(self) -> None:
        said: list = []
        with socket.create_server(("127.0.9.1", 0)) as taken:
            port = taken.getsockname()[1]
            free = next(n for n in range(port + 1, 65535) if n != port)
            with work.listening("127.0.9.1", [port, free], said.append) as listener:
                self.assertEqual(listener.getsockname(), ("127.0.9.1", free))
            with self.assertRaises(OSError):
                work.listening("127.0.9.1", [port], said.append)
        self.assertEqual(said[0], f"port {port} of 127.0.9.1: Address already in use")

    def test_ports_are_drawn_below_those_of_outgoing_connections(self) -> None:
        ports = network.drawn_ports(4, random.Random(1))
        self.assertEqual(len(set(ports)), 4)
        self.assertTrue(all(20000 <= port < 32000 for port in ports))


class Busy(unittest.TestCase):
    def reading(self, **values: object) -> dict:
        values = {"processes.graphics": [], **values}
        gpu = {"index": 3, "address": "", "values": values, "links": [], "peers": {}}
        return {"library": {}, "error": None, "count": 1, "gpus": [gpu]}

    def test_who_uses_a_gpu_is_said(self) -> None:
        self.assertEqual(busy.words(self.reading(**{"processes.compute": []})), "")
        used = self.reading(**{"processes.compute": [{"pid": 41, "memory": 1}]})
        self.assertEqual(busy.words(used), "in use: gpu:3 by process 41")
        held = self.reading(**{"processes.compute": [], "memory.used": 60 << 30, "memory.total": 80 << 30})
        self.assertEqual(busy.words(held), "in use: gpu:3 by somebody (memory)")

    def test_a_gpu_that_does_not_say_is_not_taken_for_idle(self) -> None:
        untold = self.reading(**{"processes.compute": {"error": "NoPermission"}})
        self.assertIn("gpu:3 perhaps: NVML does not tell its processes", busy.words(untold))
        drawn_on = self.reading(**{"processes.compute": [], "processes.graphics": [{"pid": 9, "memory": 1}]})
        self.assertEqual(busy.words(drawn_on), "in use: gpu:3 by process 9")

    def test_a_driver_that_does_not_say_is_not_taken_for_idle(self) -> None:
        broken = {"library": {}, "error": {"error": "DriverNotLoaded", "text": "no driver"}, "count": None, "gpus": []}
        self.assertIn("cannot say whether jobs use the GPUs (no driver)", busy.words(broken))

    def test_the_hub_does_not_measure_who_is_busy(self) -> None:
        plan = Plan({**PLAN, "hosts": ["a", "b"], "join_s": 20})
        listener = socket.create_server(("127.0.9.2", 0))
        where = listener.getsockname()
        thread = threading.Thread(target=Hub(plan, listener, lambda text: None).run)
        thread.start()
        members = {}
        for host, devices, kind in (("a", ["cuda:0"], "cuda 1 x H100"), ("b", [], "in use: gpu:0 by process 41")):
            members[host] = Lines(socket.create_connection(where))
            greet(members[host], "t", "member", "hub")
            members[host].send({"t": "hello", "host": host, "devices": devices, "kind": kind})
        said = {host: [] for host in members}
        for host, one in members.items():
            while not said[host] or said[host][-1]["t"] != "end":
                said[host].append(one.one())
            one.close()
        thread.join()
        checks = {host: [line["check"] for line in lines if line["t"] == "check"] for host, lines in said.items()}
        self.assertEqual(
            [(c["name"], c["verdict"]) for c in checks["b"]], [("fabric.join", "pass"), ("fabric.links", "skip")]
        )
        self.assertEqual(checks["b"][1]["reason"], "in use: gpu:0 by process 41")
        self.assertFalse([line for lines in said.values() for line in lines if line["t"] == "round"])
        self.assertEqual([c["name"] for c in checks["a"]], ["fabric.join", "fabric.links"])
        self.assertEqual(
            (checks["a"][1]["verdict"], checks["a"][1]["reason"]), ("skip", "nobody is left to measure with")
        )


class Plans(unittest.TestCase):
    def test_what_is_wrong_with_a_plan(self) -> None:
        self.assertEqual(Plan(PLAN).parts, ["pairs", "collectives", "ddp"])
        for change, text in (
            ({"token": None, "ports": "many"}, "not as it must be"),
            ({"host": "c"}, "c is not among"),
            ({"ports": []}, "no port"),
            ({"parts": ["pears"]}, "a part other than pairs"),
        ):
            with self.assertRaisesRegex(PlanError, text):
                Plan({**PLAN, **change})
        with self.assertRaisesRegex(PlanError, "has no hub"):
            Plan({key: value for key, value in PLAN.items() if key != "hub"})


if __name__ == "__main__":
    unittest.main()
