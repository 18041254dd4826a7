"""The engine against real files and processes: order, failure, blocks, handlers, once means once."""

from __future__ import annotations

import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent.engine import Stopped
from gpuprov.agent.journal import Journal
from tests.support.engine_case import EngineCase, task


class Order(EngineCase):
    def test_tasks_run_in_order_and_are_counted(self) -> None:
        engine = self.engine([self.append(1, "a"), self.append(2, "b", changed_when=False)])
        self.assertEqual(engine.run(), "ok")
        self.assertEqual(self.text("log"), "a\nb\n")
        self.assertEqual(self.outcomes(), {"p1.t1": "changed", "p1.t2": "ok"})
        self.assertEqual(engine.counts, {"changed": 1, "ok": 1})

    def test_a_failure_ends_the_plan(self) -> None:
        engine = self.engine([task(1, "command", {"_raw_params": "false"}), self.append(2, "never")])
        self.assertEqual(engine.run(), "failed")
        self.assertEqual(self.text("log"), "")
        self.assertEqual(self.outcomes(), {"p1.t1": "failed"})

    def test_an_ignored_failure_does_not(self) -> None:
        engine = self.engine([task(1, "command", {"_raw_params": "false"}, ignore_errors=True), self.append(2, "on")])
        self.assertEqual(engine.run(), "ok")
        self.assertEqual(self.text("log"), "on\n")
        self.assertEqual(self.outcomes(), {"p1.t1": "ignored", "p1.t2": "changed"})

    def test_a_decided_skip_says_why(self) -> None:
        engine = self.engine([self.append(1, "x", skip="no NVIDIA GPU (PCI 10de)")])
        engine.run()
        finished = self.events()[-1]
        self.assertEqual((finished["outcome"], finished["skip"]), ("skipped", "no NVIDIA GPU (PCI 10de)"))
        self.assertEqual(self.text("log"), "")

    def test_a_loop_reports_every_pass_and_the_whole(self) -> None:
        items = [{"item": w, "args": {"_raw_params": "echo %s >> %s" % (w, self.path("log"))}} for w in "ab"]
        items.append({"item": "c", "skip": "when: item != 'c' is false"})
        engine = self.engine([task(1, "shell", {}, items=items)])
        engine.run()
        finished = [e for e in self.events() if e["kind"] == "TaskFinished"]
        self.assertEqual([e.get("item") for e in finished], ["a", "b", "c", None])
        self.assertEqual([e["outcome"] for e in finished], ["changed", "changed", "skipped", "changed"])
        self.assertEqual(self.text("log"), "a\nb\n")

    def test_stop_is_heard_between_two_tasks(self) -> None:
        stop = os.path.join(self.run_folder, "stop")
        engine = self.engine([task(1, "command", {"argv": ["touch", stop]}), self.append(2, "never")])
        with self.assertRaises(Stopped):
            engine.run()
        self.assertEqual(self.text("log"), "")
        self.assertEqual(self.outcomes(), {"p1.t1": "changed"})


class Handlers(EngineCase):
    def test_a_notified_handler_runs_once_at_the_end_of_the_play(self) -> None:
        handler = dict(self.append(9, "handler"), name="restart it", listen=["topic"])
        nodes = [self.append(1, "a", notify=["restart it"]), self.append(2, "b", notify=["topic"])]
        self.engine(nodes, (handler,)).run()
        self.assertEqual(self.text("log"), "a\nb\nhandler\n")

    def test_an_unchanged_task_notifies_nobody(self) -> None:
        handler = dict(self.append(9, "handler"), name="h")
        self.engine([self.append(1, "a", notify=["h"], changed_when=False)], (handler,)).run()
        self.assertEqual(self.text("log"), "a\n")

    def test_a_handler_may_notify_a_later_one_and_an_earlier_one_waits_for_the_next_flush(self) -> None:
        handlers = tuple(
            dict(self.append(n, name), name=name, notify=notify)
            for n, name, notify in ((7, "first", []), (8, "second", ["third", "first"]), (9, "third", []))
        )
        nodes = [self.append(1, "a", notify=["second"]), task(2, "meta", {"_raw_params": "flush_handlers"})]
        self.engine([*nodes, self.append(3, "b")], handlers).run()
        self.assertEqual(self.text("log"), "a\nsecond\nthird\nb\nfirst\n")

    def test_of_handlers_with_one_name_the_last_runs_and_of_listeners_all(self) -> None:
        handlers = (
            dict(self.append(6, "one"), name="h", listen=["topic"]),
            dict(self.append(7, "two"), name="h"),
            dict(self.append(8, "three"), name="x", listen=["topic"]),
        )
        self.engine([self.append(1, "a", notify=["h"])], handlers).run()
        self.assertEqual(self.text("log"), "a\ntwo\n")
        self.engine([self.append(2, "b", notify=["topic"])], handlers).run()
        self.assertEqual(self.text("log"), "a\ntwo\nb\none\nthree\n")

    def test_what_was_notified_in_one_play_does_not_reach_the_next(self) -> None:
        handler = dict(self.append(9, "handler"), name="h")
        notifier = dict(self.append(8, "later"), name="later", notify=["h"])
        plays = [
            {"id": "p1", "name": "", "nodes": [self.append(1, "a", notify=["later"])], "handlers": [handler, notifier]},
            {"id": "p2", "name": "", "nodes": [self.append(2, "b")], "handlers": [handler]},
        ]
        self.engine([], plays=plays).run()
        self.assertEqual(self.text("log"), "a\nlater\nb\n")

    def test_after_a_failure_they_run_only_when_forced(self) -> None:
        handler = dict(self.append(9, "handler"), name="h")
        nodes = [self.append(1, "a", notify=["h"]), task(2, "command", {"_raw_params": "false"})]
        for force, log in ((False, "a\n"), (True, "a\na\nhandler\n")):
            play = {"id": "p1", "name": "", "nodes": nodes, "handlers": [handler], "force_handlers": force}
            self.assertEqual(self.engine([], plays=[play]).run(), "failed")
            self.assertEqual(self.text("log"), log)

    def test_flush_handlers_runs_them_early(self) -> None:
        handler = dict(self.append(9, "handler"), name="h")
        nodes = [self.append(1, "a", notify=["h"]), task(2, "meta", {"_raw_params": "flush_handlers"})]
        self.engine([*nodes, self.append(3, "b")], (handler,)).run()
        self.assertEqual(self.text("log"), "a\nhandler\nb\n")


class Blocks(EngineCase):
    def block(self, *parts: list) -> dict:
        names = ("block", "rescue", "always")
        return dict(zip(names, parts), kind="block", id="p1.b", name="")

    def test_rescue_takes_care_of_a_failure_and_always_runs(self) -> None:
        fails = task(1, "command", {"_raw_params": "false"})
        engine = self.engine([self.block([fails], [self.append(2, "rescue")], [self.append(3, "always")])])
        self.assertEqual(engine.run(), "ok")
        self.assertEqual(self.text("log"), "rescue\nalways\n")
        self.assertEqual(engine.counts["rescued"], 1)

    def test_without_rescue_always_runs_and_the_failure_stays(self) -> None:
        fails = task(1, "command", {"_raw_params": "false"})
        engine = self.engine([self.block([fails], [], [self.append(3, "always")]), self.append(4, "never")])
        self.assertEqual(engine.run(), "failed")
        self.assertEqual(self.text("log"), "always\n")

    def test_a_failure_in_rescue_or_always_counts(self) -> None:
        fails = [task(n, "command", {"_raw_params": "false"}) for n in (1, 2, 3)]
        engine = self.engine([self.block(fails[:1], fails[1:2], [self.append(4, "always")])])
        self.assertEqual(engine.run(), "failed")
        self.assertEqual(self.text("log"), "always\n")
        self.assertEqual(self.engine([self.block([self.append(5, "ok")], [], fails[2:])]).run(), "failed")

    def test_blocks_in_blocks(self) -> None:
        fails = task(1, "command", {"_raw_params": "false"})
        inner = dict(self.block([fails], [], [self.append(2, "inner always")]), id="p1.inner")
        engine = self.engine([self.block([inner, self.append(3, "never")], [self.append(4, "rescue")])])
        self.assertEqual(engine.run(), "ok")
        self.assertEqual(self.text("log"), "inner always\nrescue\n")


class OnceMeansOnce(EngineCase):
    """After a crash: what finished is not run again, what was interrupted is told apart."""

    def interrupted(self, nodes: list, handlers: tuple, keep: int) -> list:
        """Run the whole plan, and return its first *keep* events, as a crash would have left them."""
        self.engine(nodes, handlers).run()
        events = self.events()[:keep]
        os.unlink(os.path.join(self.run_folder, "journal"))
        os.unlink(self.path("log"))
        return events

    def test_in_the_middle_of_handlers_the_rest_of_them_run(self) -> None:
        handlers = tuple(dict(self.append(n, name), name=name) for n, name in ((8, "h1"), (9, "h2")))
        nodes = [self.append(1, "a", notify=["h1", "h2"])]
        events = self.interrupted(nodes, handlers, 4)  # a and h1: each started and finished
        self.assertEqual(self.engine(nodes, handlers, tuple(events)).run(), "ok")
        self.assertEqual(self.text("log"), "h2\n")

    def test_a_handler_of_two_flushes_runs_the_second_time(self) -> None:
        handler = dict(self.append(9, "handler"), name="h")
        flush = task(2, "meta", {"_raw_params": "flush_handlers"})
        nodes = [self.append(1, "a", notify=["h"]), flush, self.append(3, "b", notify=["h"]), self.append(4, "c")]
        events = self.interrupted(nodes, (handler,), 6)  # a, handler, b
        self.assertEqual(self.engine(nodes, (handler,), tuple(events)).run(), "ok")
        self.assertEqual(self.text("log"), "c\nhandler\n")

    def test_in_the_middle_of_a_rescue(self) -> None:
        fails = task(1, "command", {"_raw_params": "false"})
        block = {"kind": "block", "id": "p1.b", "name": "", "block": [fails]}
        block.update(rescue=[self.append(2, "r1"), self.append(3, "r2")], always=[self.append(4, "always")])
        events = self.interrupted([block], (), 4)  # the failure and r1
        engine = self.engine([block], (), tuple(events))
        self.assertEqual(engine.run(), "ok")
        self.assertEqual(self.text("log"), "r2\nalways\n")
        self.assertEqual(engine.counts, {"failed": 0, "changed": 3, "rescued": 1})
        self.assertEqual([e["kind"] for e in self.events()].count("Rescued"), 1)

    def test_in_always_after_a_rescue_nothing_is_rescued_twice(self) -> None:
        fails = task(1, "command", {"_raw_params": "false"})
        block = {"kind": "block", "id": "p1.b", "name": "", "block": [fails]}
        block.update(rescue=[self.append(2, "r1")], always=[self.append(4, "always")])
        events = self.interrupted([block], (), 5)  # the failure, r1, Rescued
        self.assertEqual(events[-1]["kind"], "Rescued")
        self.engine([block], (), tuple(events)).run()
        self.assertEqual(self.text("log"), "always\n")
        self.assertNotIn("Rescued", [e["kind"] for e in self.events()])

    def test_in_the_middle_of_a_loop_its_passes_are_not_repeated(self) -> None:
        items = [{"item": w, "args": {"_raw_params": "echo %s >> %s" % (w, self.path("log"))}} for w in "abc"]
        nodes = [task(1, "shell", {}, items=items, register="r")]
        events = self.interrupted(nodes, (), 3)  # a, and b has started
        engine = self.engine(nodes, (), tuple(events))
        self.assertEqual(engine.run(), "lost")
        self.assertEqual(self.text("log"), "c\n")
        self.assertEqual(self.outcomes(), {"p1.t1": "lost"})
        results = engine._tasks.context.final["r"]["results"]
        self.assertEqual([(r["item"], r["changed"]) for r in results], [("a", True), ("b", False), ("c", True)])

    def test_a_loop_that_was_finished_is_registered_as_it_was(self) -> None:
        items = [
            {"item": {"n": n}, "args": {"_raw_params": "echo %d >> %s; echo %d" % (n, self.path("log"), n)}}
            for n in (1, 2)
        ]
        nodes = [task(1, "shell", {}, items=items, register="r"), self.append(2, "b")]
        whole = self.engine(nodes)
        whole.run()
        before = whole._tasks.context.final["r"]
        events = self.events()[:5]
        self.assertEqual(events[-1]["kind"], "TaskFinished")
        self.assertNotIn("results", events[-1]["result"])  # the passes have written theirs
        engine = self.engine(nodes, (), tuple(events))
        engine.run()
        self.assertEqual(engine._tasks.context.final["r"], before)

    def test_without_space_for_events_the_plan_stops_before_the_next_task(self) -> None:
        always = {"kind": "block", "id": "p1.b", "name": "", "block": [self.append(1, "a"), self.append(2, "never")]}
        always["always"] = [self.append(3, "never")]
        engine = self.engine([always])
        engine.journal.low = True
        self.assertEqual(engine.run(), "failed")
        self.assertEqual(self.text("log"), "")
        event = self.events()[-1]
        self.assertEqual((event["id"], event["fault"]["code"]), ("p1.t1", "disk-full"))
        self.assertIn("no space is left", event["msg"])

    def test_finished_tasks_are_not_run_again_and_their_handlers_are_kept(self) -> None:
        nodes = [self.append(1, "a", notify=["h"]), self.append(2, "b")]
        handler = dict(self.append(9, "handler"), name="h")
        done = {"kind": "TaskFinished", "id": "p1.t1", "outcome": "changed", "result": {"changed": True}, "seq": 1}
        self.engine(nodes, (handler,), (done,)).run()
        self.assertEqual(self.text("log"), "b\nhandler\n")

    def test_an_interrupted_action_is_lost_and_never_run_again(self) -> None:
        started = {"kind": "TaskStarted", "id": "p1.t1", "at": 1.0, "seq": 1}
        engine = self.engine([self.append(1, "a"), self.append(2, "never")], (), (started,))
        self.assertEqual(engine.run(), "lost")
        self.assertEqual(self.text("log"), "")
        self.assertEqual(self.outcomes(), {"p1.t1": "lost"})

    def test_an_interrupted_state_task_is_probed_again(self) -> None:
        node = task(1, "copy", {"content": "x\n", "dest": self.path("file"), "mode": "0600"})
        started = {"kind": "TaskStarted", "id": "p1.t1", "at": 1.0, "seq": 1}
        self.assertEqual(self.engine([node], (), (started,)).run(), "ok")
        self.assertEqual(self.text("file"), "x\n")
        self.assertEqual(self.outcomes(), {"p1.t1": "changed"})

    def test_an_action_is_in_the_journal_before_it_runs(self) -> None:
        journal = os.path.join(self.run_folder, "journal")
        copy = "cp %s %s" % (journal, self.path("seen"))
        self.engine([task(1, "command", {"_raw_params": copy})]).run()
        self.assertIn('"kind":"TaskStarted"', self.text("seen"))

    def test_a_probe_that_finds_nothing_to_do_writes_no_start(self) -> None:
        node = task(1, "copy", {"content": "x\n", "dest": self.path("file"), "mode": "0600"})
        self.engine([node]).run()
        before = len(self.events())
        self.assertEqual(self.outcomes(), {"p1.t1": "changed"})
        other = dict(node, id="p1.t2")
        engine = self.engine([other])
        engine.journal.seq = before
        engine.run()
        self.assertEqual([e["kind"] for e in self.events()[before:]], ["TaskFinished"])
        self.assertEqual(self.outcomes()["p1.t2"], "ok")


class CheckMode(EngineCase):
    def test_nothing_is_written_and_commands_are_not_run(self) -> None:
        nodes = [task(1, "copy", {"content": "x", "dest": self.path("file"), "mode": "0600"}), self.append(2, "a")]
        engine = self.engine(nodes, check=True)
        self.assertEqual(engine.run(), "ok")
        self.assertEqual(self.outcomes(), {"p1.t1": "changed", "p1.t2": "skipped"})
        self.assertEqual(sorted(os.listdir(self.folder)), ["runs"])


class Secrets(EngineCase):
    def test_a_secret_is_scrubbed_in_every_spelling(self) -> None:
        import base64

        secret = "s3cr3t pass/word"
        journal = Journal(os.path.join(self.run_folder, "scrubbed"), [secret])
        forms = [secret, base64.b64encode(secret.encode()).decode(), "s3cr3t%20pass%2Fword", "'%s'" % secret]
        journal.write("TaskOutput", text=" | ".join(forms))
        with open(journal.path) as f:
            text = f.read()
        os.close(journal._fd)
        for form in forms:
            self.assertNotIn(form, text)
        self.assertIn("********", text)

    def test_no_log_hides_result_output_and_message(self) -> None:
        node = task(1, "shell", {"_raw_params": "echo hidden-word; exit 3"}, no_log=True)
        self.engine([node]).run()
        self.assertNotIn("hidden-word", json.dumps(self.events()))
        self.assertIn("censored", self.events()[-1]["result"])


if __name__ == "__main__":
    unittest.main()
