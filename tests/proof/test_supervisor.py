"""Real processes that end, crash, hang, leave children behind and lose their parent."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import time
import unittest

from gpuprov.proof.supervisor import Supervisor

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def supervised(run: object, deadline_s: float = 20.0, count: int = 1) -> list:
    """Run *count* processes to their end; return all messages."""
    messages: list = []
    supervisor = Supervisor(run, messages.append, deadline_s)
    for index in range(count):
        supervisor.start(index)
    supervisor.wait()
    return messages


def is_running(pid: int) -> bool:
    """Say whether *pid* runs; a zombie that nobody reaps does not."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone_within(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until and is_running(pid):
        time.sleep(0.02)
    return not is_running(pid)


class Ends(unittest.TestCase):
    def test_messages_of_all_processes_arrive_in_order(self) -> None:
        def run(index: int, send: object) -> None:
            for number in range(300):
                send({"kind": "text", "text": "x" * 200, "process": index, "number": number})

        messages = supervised(run, count=3)
        for index in range(3):
            self.assertEqual([m["number"] for m in messages if m["process"] == index], list(range(300)))

    def test_a_message_may_start_another_process(self) -> None:
        seen = []

        def on_message(message: dict) -> None:
            seen.append(message["index"])
            if message["index"] == 0:
                supervisor.start(7)

        supervisor = Supervisor(lambda index, send: send({"kind": "x", "index": index}), on_message, 20.0)
        supervisor.start(0)
        supervisor.wait()
        self.assertEqual(seen, [0, 7])

    def test_what_a_library_prints_is_no_message(self) -> None:
        def run(index: int, send: object) -> None:
            os.write(1, b'{"kind": "text", "text": "a lie"}\n')
            send({"kind": "text", "text": "the truth"})

        self.assertEqual([m["text"] for m in supervised(run)], ["the truth"])

    def test_nan_arrives_as_text(self) -> None:
        messages = supervised(lambda index, send: send({"kind": "x", "value": [float("nan")]}))
        self.assertEqual(messages[0]["value"], ["nan"])


class EndsBadly(unittest.TestCase):
    def test_an_exception_is_unknown_with_its_last_line(self) -> None:
        def run(index: int, send: object) -> None:
            send({"kind": "stage", "text": "linear on cuda:3: training", "device": "cuda:3"})
            raise KeyError("a bug")

        (found,) = supervised(run)
        self.assertEqual((found["kind"], found["verdict"], found["device"]), ("check", "unknown", "cuda:3"))
        self.assertIn("exit code 1 (linear on cuda:3: training): KeyError: 'a bug'", found["reason"])

    def test_a_crash_is_a_fail_with_the_signal_and_what_it_did(self) -> None:
        def run(index: int, send: object) -> None:
            send({"kind": "stage", "text": "mlp on cuda:0: training", "device": "cuda:0"})
            faulthandler.disable()  # a test runner may have enabled it
            os.kill(os.getpid(), signal.SIGSEGV)

        (found,) = supervised(run)
        self.assertEqual((found["verdict"], found["action"]), ("fail", "reset GPU"))
        self.assertIn("was killed by SIGSEGV (mlp on cuda:0: training)", found["reason"])

    def test_killed_from_outside_says_nothing_about_the_device(self) -> None:
        (found,) = supervised(lambda index, send: os.kill(os.getpid(), signal.SIGKILL))
        self.assertEqual((found["verdict"], found["action"]), ("unknown", "none"))

    def test_one_that_crashes_leaves_the_others_alone(self) -> None:
        def run(index: int, send: object) -> None:
            if index == 1:
                faulthandler.disable()
                os.abort()
            time.sleep(0.3)
            send({"kind": "text", "text": f"{index} is well"})

        messages = supervised(run, count=3)
        texts = sorted(m["text"] for m in messages if m["kind"] == "text")
        self.assertEqual(texts, ["0 is well", "2 is well"])
        self.assertEqual([m["verdict"] for m in messages if m["kind"] == "check"], ["fail"])


class Hangs(unittest.TestCase):
    def test_killed_at_the_deadline_with_all_that_it_started(self) -> None:
        def run(index: int, send: object) -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            child = subprocess.Popen(["sleep", "600"])
            send({"kind": "stage", "text": "linear on cuda:0: training", "device": "cuda:0"})
            send({"kind": "text", "text": "before", "pids": [os.getpid(), child.pid]})
            child.wait()

        started = time.monotonic()
        kept, found = supervised(run, deadline_s=0.8)
        self.assertLess(time.monotonic() - started, 60.0)
        self.assertEqual((found["verdict"], found["action"], found["device"]), ("fail", "reset GPU", "cuda:0"))
        self.assertIn("did not end within 0.8 s (linear on cuda:0: training)", found["reason"])
        for pid in kept["pids"]:
            self.assertTrue(gone_within(pid, 30.0))

    def test_a_child_left_behind_with_our_pipes_does_not_hold_us(self) -> None:
        def run(index: int, send: object) -> None:
            child = subprocess.Popen(["sleep", "120"], start_new_session=True)
            send({"kind": "text", "text": "done"})
            child.returncode = 0  # it is left behind on purpose; so that Popen does not warn

        started = time.monotonic()
        self.assertEqual(len(supervised(run)), 1)
        self.assertLess(time.monotonic() - started, 60.0)

    def test_processes_die_with_a_supervisor_that_is_killed(self) -> None:
        code = (
            "import time\n"
            "from gpuprov.proof.supervisor import Supervisor\n"
            "import os\n"
            "def run(index, send):\n"
            "    send({'kind': 'pid', 'pid': os.getpid()})\n"
            "    time.sleep(600)\n"
            "s = Supervisor(run, lambda m: print(m['pid'], flush=True), 600.0)\n"
            "s.start(0)\n"
            "s.wait()\n"
        )
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as parent:
            pid = int(parent.stdout.readline())
            self.assertTrue(is_running(pid))
            parent.kill()
        self.assertTrue(gone_within(pid, 30.0))


if __name__ == "__main__":
    unittest.main()
