"""A real front and its runner, over pipes: start, find again, take over, survive, refuse."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent.lock import holder
from tests.support.agent_process import Agent, kill, plan, shell, task, wait_gone


class LaunchCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.home = self.path("home")
        os.mkdir(self.home, 0o700)
        os.mkdir(self.path("home/bundle"))
        self.addCleanup(self.settle)

    def settle(self) -> None:
        """Wait until the runner has tidied up: it does so after it told of the end."""
        deadline = time.monotonic() + 30
        while holder(self.home)[1] and time.monotonic() < deadline:
            time.sleep(0.01)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def agent(self) -> Agent:
        agent = Agent(self.home)
        self.addCleanup(agent.close)
        return agent

    def log(self) -> str:
        try:
            with open(self.path("log")) as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def append(self, number: int, word: str, **more: object) -> dict:
        return shell(number, "echo %s >> %s" % (word, self.path("log")), **more)

    def slow(self, number: int, word: str, seconds: float = 1.0) -> dict:
        return shell(number, "echo %s-begins >> %s; sleep %s" % (word, self.path("log"), seconds))

    def logged(self, text: str) -> None:
        """Wait until the log has *text*."""
        deadline = time.monotonic() + 60
        while text not in self.log() and time.monotonic() < deadline:
            time.sleep(0.01)

    def end_command(self, word: str) -> None:
        """End a slow command that has outlived its runner."""
        subprocess.run(["pkill", "-f", "echo %s-begins >> %s" % (word, self.folder)], check=False)

    def start(self, run: str, nodes: list, agent: Agent | None = None, **more: object) -> Agent:
        agent = agent or self.agent()
        header = {key: more.pop(key) for key in ("layers", "force", "owner") if key in more}
        agent.send(dict(header, t="plan", plan=plan(run, nodes, **more)))
        return agent

    def attach(self, run: str, **more: object) -> Agent:
        agent = self.agent()
        agent.send(dict({"t": "attach", "run": run, "after": 0}, **more))
        return agent

    def run_to_end(self, run: str, nodes: list, **more: object) -> list:
        return self.start(run, nodes, **more).rest()


def kinds(events: list) -> list:
    return [event.get("kind", event["t"]) for event in events]


def pid_of(events: list) -> int:
    return next(event["pid"] for event in events if event.get("kind") == "RunStarted")


class Start(LaunchCase):
    def test_a_plan_runs_and_its_events_come(self) -> None:
        events = self.run_to_end("r1", [self.append(1, "a")])
        self.assertEqual(kinds(events), ["RunStarted", "TaskStarted", "TaskFinished", "RunFinished"])
        self.assertEqual([e["seq"] for e in events], [1, 2, 3, 4])
        self.assertEqual((events[-1]["outcome"], events[-1]["counts"]), ("ok", {"changed": 1}))
        self.settle()
        self.assertEqual(holder(self.home)[0], {})

    def test_two_runs_at_once(self) -> None:
        first = self.start("r1", [self.slow(1, "one")], owner="ann")
        first.until("TaskStarted")
        second = self.start("r2", [self.append(1, "two")], force=True)
        fault = second.next()
        self.assertEqual((fault["code"], fault["t"]), ("locked", "fault"))
        self.assertIn("run r1 of ann", fault["message"])
        self.assertEqual(kinds(first.rest())[-1], "RunFinished")
        self.assertEqual(self.log(), "one-begins\n")

    def test_one_run_right_after_another(self) -> None:
        for number in range(4):
            events = self.run_to_end("r%d" % number, [task(1, "ping", {})])
            self.assertEqual(kinds(events)[-1], "RunFinished")

    def test_the_runner_keeps_nothing_of_its_front(self) -> None:
        agent = self.start("r1", [self.slow(1, "one", 2)])
        pid = pid_of(agent.until("TaskStarted"))
        links = {os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)}
        pipes = {"pipe:[%d]" % os.fstat(end.fileno()).st_ino for end in (agent.process.stdin, agent.process.stdout)}
        self.assertEqual(pipes & links, set())
        self.assertEqual(os.getsid(pid), pid)
        agent.process.kill()
        agent.process.wait()
        self.assertEqual(agent.process.stdout.read()[-1:], b"")  # at once: nobody else holds the pipe
        self.assertFalse(wait_gone(pid, 0.2))

    def test_commands_inherit_three_descriptors(self) -> None:
        events = self.run_to_end("r1", [shell(1, "ls /proc/$$/fd", register="r")])
        self.assertEqual(events[-2]["result"]["stdout"].split(), ["0", "1", "2"])

    def test_a_daemon_of_a_task_does_not_keep_the_run(self) -> None:
        started = time.monotonic()
        events = self.run_to_end("r1", [shell(1, "sleep 60 & echo started"), self.append(2, "after")])
        self.assertEqual(kinds(events)[-1], "RunFinished")
        self.assertLess(time.monotonic() - started, 30)

    def test_a_term_signal_stops_it_after_the_task(self) -> None:
        agent = self.start("r1", [self.slow(1, "one"), self.append(2, "never")])
        os.kill(pid_of(agent.until("TaskStarted")), 15)
        events = agent.rest()
        self.assertEqual(kinds(events)[-2:], ["TaskFinished", "RunStopped"])
        self.assertIn("SIGTERM", events[-1]["why"])
        self.assertEqual(self.log(), "one-begins\n")
        self.assertEqual(kinds(self.attach("r1", go_on=True).rest())[-1], "RunFinished")
        self.assertEqual(self.log(), "one-begins\nnever\n")

    def test_stop_lets_the_task_and_all_its_passes_end(self) -> None:
        loop = dict(self.slow(1, "one", 0.2), items=[{"item": n} for n in range(3)])
        agent = self.start("r1", [loop, self.append(2, "never")])
        agent.until("TaskStarted")
        agent.send({"t": "stop"})
        self.assertEqual(kinds(agent.rest())[-1], "RunStopped")
        self.assertEqual(self.log(), "one-begins\n" * 3)
        self.settle()
        self.assertEqual(holder(self.home)[0], {})


class Again(LaunchCase):
    def test_a_follower_gets_what_it_has_not_seen(self) -> None:
        agent = self.start("r1", [self.slow(1, "one"), self.append(2, "two")])
        agent.until("TaskStarted")
        agent.kill()
        events = self.attach("r1", after=2).rest()
        self.assertEqual([e["seq"] for e in events], list(range(3, 3 + len(events))))
        self.assertEqual(kinds(events)[-1], "RunFinished")
        self.assertEqual(kinds(self.attach("r1").rest())[0], "RunStarted")  # and once more, from the start
        self.assertEqual(self.log(), "one-begins\ntwo\n")

    def test_two_followers(self) -> None:
        agent = self.start("r1", [self.slow(1, "one")])
        agent.until("TaskStarted")
        other = self.attach("r1")
        expected = ["RunStarted", "TaskStarted", "TaskFinished", "RunFinished"]
        self.assertEqual((kinds(other.rest()), kinds(agent.rest())), (expected, expected[2:]))

    def test_a_journal_of_many_megabytes_comes_whole(self) -> None:
        nodes = [shell(n, "head -c 200000 /dev/zero | tr '\\0' x", register="r%d" % n) for n in range(30)]
        first = self.run_to_end("r1", nodes)
        again = self.attach("r1").rest()
        self.assertEqual(again, first)
        self.assertGreater(os.path.getsize(self.path("home/runs/r1/journal")), 5_000_000)

    def test_a_killed_runner_is_told_and_gone_on_with(self) -> None:
        agent = self.start("r1", [self.append(1, "one"), self.slow(2, "two", 30), self.append(3, "three")])
        events = agent.until("TaskStarted") + agent.until("TaskStarted")
        self.logged("two-begins")
        kill(pid_of(events))
        self.assertEqual(agent.rest()[-1]["t"], "gone")
        blocked = self.start("r2", [self.append(1, "other")]).next()
        self.assertEqual(blocked["code"], "interrupted-run")
        events = self.attach("r1", after=events[-1]["seq"]).rest()
        self.assertEqual(kinds(events), ["Resumed", "TaskFinished", "RunFinished"])
        self.assertEqual(events[1]["outcome"], "lost")
        self.assertEqual(self.log(), "one\ntwo-begins\n")
        self.end_command("two")

    def test_events_that_a_power_cut_took_are_not_numbered_again(self) -> None:
        events = self.run_to_end("r1", [self.append(1, "one"), self.append(2, "two")])
        self.assertEqual(kinds(events)[:3], ["RunStarted", "TaskStarted", "TaskFinished"])
        with open(self.path("home/runs/r1/journal"), "r+b") as f:  # only what was synced is there again
            lines = f.readlines()
            f.seek(0)
            f.write(b"".join(lines[:2]) + lines[2][:20])
            f.truncate()
        events = self.attach("r1", after=3).rest()
        self.assertEqual([(e["seq"], e["kind"]) for e in events[:2]], [(4, "Resumed"), (5, "TaskFinished")])
        self.assertEqual(events[1]["outcome"], "lost")
        self.assertEqual(self.log(), "one\ntwo\n")

    def test_a_plan_that_a_power_cut_took_goes_on_when_it_is_sent_again(self) -> None:
        nodes = [self.append(1, "one"), self.slow(2, "two", 30)]
        agent = self.start("r1", nodes)
        events = agent.until("TaskStarted") + agent.until("TaskStarted")
        self.logged("two-begins")
        kill(pid_of(events))
        agent.rest()
        self.end_command("two")
        open(self.path("home/runs/r1/plan.json"), "w").close()
        agent = self.attach("r1", after=3)
        self.assertEqual(agent.next()["code"], "run-unknown")
        events = self.start("r1", nodes, agent).rest()
        self.assertEqual([e["outcome"] for e in events if e.get("kind") == "TaskFinished"], ["changed", "lost"])
        self.assertEqual(self.log(), "one\ntwo-begins\n")

    def test_an_unknown_run(self) -> None:
        self.assertEqual(self.attach("r9").next()["code"], "run-unknown")

    def test_unlock_frees_an_interrupted_run_and_not_a_living_one(self) -> None:
        agent = self.start("r1", [self.slow(1, "one", 30)])
        pid = pid_of(agent.until("TaskStarted"))
        other = self.agent()
        other.send({"t": "unlock"})
        self.assertEqual(other.next()["code"], "locked")
        self.logged("one-begins")
        kill(pid)
        self.end_command("one")
        other = self.agent()
        other.send({"t": "unlock"})
        self.assertEqual(other.next()["t"], "unlocked")
        self.settle()
        self.assertEqual(holder(self.home), ({}, False))


class Files(LaunchCase):
    data = os.urandom(300_000)
    sha256 = hashlib.sha256(data).hexdigest()

    def copy(self) -> dict:
        args = {"_blob": {"sha256": self.sha256, "size": len(self.data)}, "dest": self.path("big"), "mode": "0600"}
        return task(1, "copy", args, files=[self.sha256])

    def asked(self, run: str = "r1") -> Agent:
        agent = self.start(run, [self.copy(), self.append(2, "after")], blobs={self.sha256: len(self.data)})
        asked = agent.next()
        self.assertEqual((asked["t"], asked.get("need")), ("files", [self.sha256]))
        return agent

    def send(self, agent: Agent, data: bytes = data) -> None:
        agent.send({"t": "blob", "sha256": self.sha256, "last": False}, data[:100_000])
        agent.send({"t": "blob", "sha256": self.sha256, "last": True}, data[100_000:])

    def test_they_are_asked_for_once_and_dropped_after_success(self) -> None:
        agent = self.asked()
        self.send(agent)
        self.assertEqual(agent.rest()[-1]["outcome"], "ok")
        with open(self.path("big"), "rb") as f:
            self.assertEqual(f.read(), self.data)
        self.settle()
        self.assertEqual(os.listdir(self.path("home/blobs")), [])
        events = self.run_to_end("r2", [self.copy()], blobs={self.sha256: len(self.data)})
        self.assertEqual(kinds(events), ["RunStarted", "TaskFinished", "RunFinished"])

    def test_damaged_ones_are_refused_and_leave_nothing(self) -> None:
        agent = self.asked()
        self.send(agent, self.data[:-1] + bytes([self.data[-1] ^ 1]))
        fault = agent.next()
        self.assertIn("damaged", fault["message"])
        self.assertEqual(os.listdir(self.path("home/blobs")), [])
        self.settle()
        self.assertEqual(holder(self.home), ({}, False))

    def test_one_that_a_power_cut_emptied_is_asked_for_again(self) -> None:
        os.mkdir(self.path("home/blobs"))
        open(os.path.join(self.home, "blobs", self.sha256), "w").close()
        self.send(self.asked())

    def test_a_controller_that_leaves_while_sending_holds_nothing(self) -> None:
        agent = self.asked()
        agent.send({"t": "blob", "sha256": self.sha256, "last": False}, self.data[:1000])
        agent.close()
        self.settle()
        self.assertEqual(holder(self.home), ({}, False))
        self.assertEqual(os.listdir(self.path("home/blobs")), [])
        self.send(self.asked("r2"))

    def test_a_front_that_waits_on_a_dead_connection_gives_way_to_its_own_run(self) -> None:
        stuck = self.asked()
        agent = self.asked()
        self.assertEqual(stuck.process.wait(5), -9)
        self.send(agent)
        self.assertEqual(agent.rest()[-1]["outcome"], "ok")

    def test_stop_while_files_are_on_their_way(self) -> None:
        agent = self.asked()
        agent.send({"t": "blob", "sha256": self.sha256, "last": False}, self.data[:1000])
        agent.send({"t": "stop"})
        self.assertEqual(kinds(agent.rest()), ["RunStopped"])
        self.settle()
        self.assertEqual(holder(self.home), ({}, False))
        agent = self.attach("r1", go_on=True, after=1)
        self.assertEqual(agent.next()["need"], [self.sha256])
        self.send(agent)
        self.assertEqual(agent.rest()[-1]["outcome"], "ok")
        self.assertEqual(self.log(), "after\n")

    def test_what_cannot_fit_is_refused_before_it_is_sent(self) -> None:
        args = {"_blob": {"sha256": self.sha256, "size": 1 << 60}, "dest": self.path("big")}
        agent = self.start("r1", [task(1, "copy", args, files=[self.sha256])], blobs={self.sha256: 1 << 60})
        fault = agent.next()
        self.assertEqual(fault["code"], "disk")
        self.assertIn("do not fit", fault["message"])

    def test_nonsense_instead_of_a_file(self) -> None:
        agent = self.asked()
        agent.send({"t": "blob", "sha256": "0" * 64, "last": True}, b"x")
        self.assertEqual(agent.next()["code"], "protocol")


class Secrets(LaunchCase):
    SECRET = "hunter2-and-more"

    def interrupted(self) -> dict:
        """Leave a run in its first task; the second writes a file with a secret."""
        write = task(2, "copy", {"content": "password=%s\n" % self.SECRET, "dest": self.path("file"), "mode": "0600"})
        agent = self.start("r1", [dict(self.slow(1, "one", 30), ignore_errors=True), write], secrets=[self.SECRET])
        events = agent.until("TaskStarted")
        self.logged("one-begins")
        kill(pid_of(events))
        self.end_command("one")
        journal = self.path("home/runs/r1/journal")
        with open(journal, "ab") as f:  # it had ended, and was not important
            event = {"t": "event", "seq": 3, "at": 1.0, "kind": "TaskFinished", "id": "p1.t1", "outcome": "ok"}
            f.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
        return {"after": events[-1]["seq"]}

    def test_they_are_nowhere_on_disk(self) -> None:
        self.run_to_end("r1", [shell(1, "echo '%s'; sleep 0.3" % self.SECRET)], secrets=[self.SECRET])
        found = subprocess.run(["grep", "-r", self.SECRET, self.home], stdout=subprocess.PIPE, check=False)
        self.assertEqual(found.stdout, b"")

    def test_a_run_that_goes_on_without_them_is_refused_and_stays_interrupted(self) -> None:
        more = self.interrupted()
        fault = self.attach("r1", **more).next()
        self.assertEqual(fault["code"], "secrets-missing")
        self.assertIn("1 secret", fault["message"])
        self.assertFalse(os.path.exists(self.path("file")))
        self.settle()
        self.assertEqual(holder(self.home)[0]["run"], "r1")

    def test_with_them_it_writes_what_was_meant(self) -> None:
        more = self.interrupted()
        events = self.attach("r1", secrets=["another", self.SECRET], **more).rest()
        self.assertEqual(events[-1]["outcome"], "ok")
        with open(self.path("file")) as f:
            self.assertEqual(f.read(), "password=%s\n" % self.SECRET)


class Nonsense(LaunchCase):
    def test_an_unknown_frame_and_one_that_is_none(self) -> None:
        agent = self.agent()
        agent.send({"t": "dance"})
        self.assertIn("unknown frame 'dance'", agent.next()["message"])
        agent = self.agent()
        os.write(agent.process.stdin.fileno(), b"\xff" * 64)
        fault = agent.next()
        self.assertEqual(fault["code"], "protocol")
        self.assertIn("announces", fault["message"])


if __name__ == "__main__":
    unittest.main()
