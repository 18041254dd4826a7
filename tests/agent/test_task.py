"""One task, as Ansible documents it: results, failures, retries, loops; with templates where Jinja2 is."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.support.engine_case import EngineCase, task


class TaskCase(EngineCase):
    def registered(self, *nodes: dict, **plan: object) -> dict:
        """Run *nodes*; return everything that is registered."""
        self.ran = self.engine(list(nodes), **plan)
        self.ended = self.ran.run()
        return self.ran._tasks.context.final

    def sh(self, number: int, text: str, **more: object) -> dict:
        return task(number, "shell", {"_raw_params": text}, **more)


class Results(TaskCase):
    def test_every_result_has_changed_and_failed(self) -> None:
        r = self.registered(
            self.sh(1, "echo out; echo err >&2", register="ran"),
            self.sh(2, "exit 3", register="bad", ignore_errors=True),
            self.sh(3, "true", register="left", skip="when: x is false"),
            task(4, "ping", {}, register="same"),
        )
        seen = {name: (r[name]["changed"], r[name]["failed"], r[name].get("skipped", False)) for name in r}
        self.assertEqual(
            seen,
            {
                "ran": (True, False, False),
                "bad": (True, True, False),
                "left": (False, False, True),
                "same": (False, False, False),
            },
        )
        self.assertEqual((r["ran"]["stdout_lines"], r["bad"]["rc"]), (["out"], 3))
        self.assertEqual(r["left"]["skip_reason"], "when: x is false")

    def test_lines_are_not_written_twice(self) -> None:
        self.registered(self.sh(1, "echo out", register="r"))
        written = self.events()[-1]["result"]
        self.assertEqual(written["stdout"], "out")
        self.assertNotIn("stdout_lines", written)

    def test_changed_when_and_failed_when_decided_before_the_run(self) -> None:
        r = self.registered(
            self.sh(1, "exit 3", register="a", failed_when=False),
            self.sh(2, "exit 3", register="b", failed_when=False, changed_when=False),
            self.sh(3, "true", register="c", failed_when=True, ignore_errors=True),
            self.sh(4, "true", register="d", changed_when=True, skip="no"),
        )
        self.assertEqual(self.outcomes(), {"p1.t1": "changed", "p1.t2": "ok", "p1.t3": "ignored", "p1.t4": "skipped"})
        self.assertEqual([r[n]["failed"] for n in "abc"], [False, False, True])
        self.assertNotIn("msg", self.events()[1])

    def test_a_failed_loop_goes_through_all_its_passes(self) -> None:
        items = [{"item": n, "args": {"_raw_params": "exit %d" % n}} for n in (0, 4, 0, 5)]
        self.registered(task(1, "shell", {}, items=items, register="r"), self.append(2, "never"))
        whole = self.events()[-1]
        self.assertEqual((whole["outcome"], whole["msg"]), ("failed", "exit code 4"))
        self.assertEqual([r["rc"] for r in self.ran._tasks.context.final["r"]["results"]], [0, 4, 0, 5])

    def test_an_ignored_failure_in_a_loop(self) -> None:
        items = [{"item": n, "args": {"_raw_params": "exit %d" % n}} for n in (4, 0)]
        self.registered(task(1, "shell", {}, items=items, ignore_errors=True), self.append(2, "on"))
        self.assertEqual(self.outcomes(), {"p1.t1": "ignored", "p1.t2": "changed"})

    def test_a_loop_over_nothing_and_one_whose_passes_are_all_skipped(self) -> None:
        r = self.registered(
            task(1, "shell", {}, items=[], register="a"),
            task(2, "shell", {}, items=[{"item": 1, "skip": "no"}], register="b"),
        )
        self.assertEqual([r[n]["skipped"] for n in "ab"], [True, True])
        self.assertEqual((r["a"]["results"], r["b"]["results"][0]["skip_reason"]), ([], "no"))

    def test_retries_without_until_go_on_to_the_first_success(self) -> None:
        text = "echo x >> %s; test $(wc -l < %s) = 3" % (self.path("log"), self.path("log"))
        r = self.registered(self.sh(1, text, retries=5, delay_s=0, register="r"))
        self.assertEqual((r["r"]["attempts"], self.outcomes()["p1.t1"]), (3, "changed"))
        r = self.registered(self.sh(1, "false", retries=2, delay_s=0, register="r"))
        self.assertEqual((r["r"]["attempts"], r["r"]["failed"], r["r"]["rc"]), (3, True, 1))

    def test_a_loop_of_ten_thousand_passes_is_quick_and_keeps_little(self) -> None:
        items = [{"item": n, "skip": "no"} for n in range(10_000)]
        started = time.process_time()
        self.registered(task(1, "shell", {}, items=items))
        self.assertLess(time.process_time() - started, 5)
        self.assertLess(len(json.dumps(self.events()[-1])), 1000)

    def test_no_log_is_known_to_the_run_and_to_nobody_else(self) -> None:
        items = [{"item": "hidden-item", "args": {"_raw_params": "echo hidden-out; exit 3"}}]
        r = self.registered(task(1, "shell", {}, items=items, register="r", no_log=True, ignore_errors=True))
        self.assertEqual(r["r"]["results"][0]["stdout"], "hidden-out")
        self.assertNotIn("hidden-", json.dumps(self.events()))

    def test_a_task_for_a_user_who_is_not_there(self) -> None:
        self.registered(self.sh(1, "id", become=True, become_user="nosuchuser"))
        fault = self.events()[-1]["fault"]
        self.assertEqual(fault["code"], "become")
        self.assertIn("nosuchuser", fault["message"])


@unittest.skipUnless(
    importlib.util.find_spec("jinja2"), "no Jinja2: hosts get it as a layer (tests/fleet/test_layers.py)"
)
class Templates(TaskCase):
    def test_until(self) -> None:
        text = "echo x >> %s; wc -l < %s" % (self.path("log"), self.path("log"))
        r = self.registered(self.sh(1, text, until=["r.stdout == '2'"], retries=5, delay_s=0, register="r"))
        self.assertEqual((r["r"]["attempts"], r["r"]["failed"]), (2, False))
        r = self.registered(self.sh(1, "echo no", until=["r.stdout == 'yes'"], retries=2, delay_s=0, register="r"))
        self.assertEqual((r["r"]["attempts"], r["r"]["failed"]), (3, True))
        self.assertIn("3 attempts", self.events()[-1]["msg"])

    def test_until_in_a_loop_counts_for_every_pass(self) -> None:
        items = [
            {"item": n, "args": {"_raw_params": "echo x >> {0}{1}; wc -l < {0}{1}".format(self.path("log"), n)}}
            for n in (1, 2)
        ]
        node = task(1, "shell", {}, items=items, until=["r.stdout | int >= item"], retries=3, delay_s=0, register="r")
        r = self.registered(node)
        self.assertEqual([one["attempts"] for one in r["r"]["results"]], [1, 2])

    def test_failed_when_sees_the_result_and_what_changed_when_made_of_it(self) -> None:
        node = self.sh(
            1, "echo warn", changed_when=["'new' in r.stdout"], failed_when=["r.rc != 0 or r.changed"], register="r"
        )
        self.registered(node)
        self.assertEqual(self.outcomes(), {"p1.t1": "ok"})

    def test_failed_when_and_changed_when_do_not_look_at_a_skipped_task(self) -> None:
        conditions = {"failed_when": ["r.stdout == 'x'"], "changed_when": ["r.stdout == 'x'"]}
        self.registered(self.sh(1, "echo x", when=["1 == 2"], register="r", **conditions))
        self.assertEqual(self.outcomes(), {"p1.t1": "skipped"})

    def test_a_loop_over_a_skipped_result_is_skipped_when_the_condition_says_so(self) -> None:
        nodes = [
            self.sh(1, "true", skip="no", register="r"),
            task(
                2,
                "shell",
                {"_raw_params": "{{ item }}"},
                loop="{{ r.stdout_lines }}",
                defer=["args"],
                when=["r is not skipped"],
            ),
        ]
        self.registered(*nodes)
        self.assertEqual(self.outcomes(), {"p1.t1": "skipped", "p1.t2": "skipped"})
        del nodes[1]["when"]
        self.registered(*nodes)
        self.assertEqual(self.outcomes()["p1.t2"], "failed")

    def test_set_fact_in_a_loop_builds_on_the_pass_before(self) -> None:
        args = {"all": "{{ all | default([]) + [item] }}"}
        known = self.registered(task(1, "set_fact", args, items=[{"item": n} for n in (1, 2, 3)], defer=["args"]))
        self.assertEqual(known["all"], [1, 2, 3])
        events = self.events()[:2]  # interrupted after two passes
        again = self.engine(
            [task(1, "set_fact", args, items=[{"item": n} for n in (1, 2, 3)], defer=["args"])], (), tuple(events)
        )
        again.run()
        self.assertEqual(again._tasks.context.final["all"], [1, 2, 3])

    def test_labels_and_the_index_of_a_deferred_loop(self) -> None:
        node = task(
            2,
            "debug",
            {"msg": "{{ n }}"},
            loop="{{ r.stdout_lines }}",
            defer=["args"],
            index_var="n",
            label="{{ n }}={{ item }}",
        )
        self.registered(self.sh(1, "printf 'a\\nb\\n'", register="r"), node)
        self.assertEqual([e["item"] for e in self.events() if "item" in e], ["0=a", "1=b"])

    def test_a_result_that_is_no_json_is_still_an_event(self) -> None:
        node = task(1, "set_fact", {"when": "{{ '2026-01-01' | to_datetime('%Y-%m-%d') }}"}, defer=["args"])
        known = self.registered(node)
        self.assertEqual(self.ended, "ok")
        self.assertIn("2026-01-01", str(known["when"]))

    def test_a_masked_secret_never_ends_up_in_a_file(self) -> None:
        node = task(2, "copy", {"content": "{{ r.stdout }}", "dest": self.path("file"), "mode": "0600"}, defer=["args"])
        done = {
            "kind": "TaskFinished",
            "id": "p1.t1",
            "outcome": "changed",
            "result": {"stdout": "x ********"},
            "seq": 1,
        }
        engine = self.engine([self.sh(1, "true", register="r"), node], (), (done,))
        self.assertEqual(engine.run(), "failed")
        self.assertEqual(self.events()[-1]["fault"]["code"], "secrets-missing")
        self.assertFalse(os.path.exists(self.path("file")))

    def test_a_result_that_no_log_kept_from_the_journal_is_named_when_it_is_missed(self) -> None:
        node = task(2, "debug", {"msg": "{{ r.stdout }}"}, defer=["args"])
        done = {"kind": "TaskFinished", "id": "p1.t1", "outcome": "changed", "result": {"censored": "x"}, "seq": 1}
        engine = self.engine([self.sh(1, "true", register="r", no_log=True), node], (), (done,))
        self.assertEqual(engine.run(), "failed")
        self.assertIn("no_log", self.events()[-1]["fault"]["hint"])

    def test_what_a_rescue_may_read(self) -> None:
        fails = self.sh(1, "echo because >&2; exit 4")
        says = task(
            2, "debug", {"msg": "{{ ansible_failed_task.name }}: {{ ansible_failed_result.rc }}"}, defer=["args"]
        )
        self.registered({"kind": "block", "id": "p1.b", "name": "", "block": [fails], "rescue": [says]})
        self.assertEqual([e for e in self.events() if e.get("id") == "p1.t2"][-1]["result"]["msg"], "task 1: 4")


if __name__ == "__main__":
    unittest.main()
