"""What a host forgets after a run, and what it keeps."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent import tidy


class Tidy(unittest.TestCase):
    def setUp(self) -> None:
        self.home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.home)
        for name in ("blobs", "bundle", "runs/now"):
            os.makedirs(os.path.join(self.home, name))

    def make(self, name: str, age_s: float = 0.0) -> str:
        path = os.path.join(self.home, name)
        with open(path, "w"):
            pass
        os.utime(path, (time.time() - age_s,) * 2)
        return path

    def tidy(self, plan: dict, succeeded: bool = True) -> None:
        tidy.tidy(self.home, plan, os.path.join(self.home, "runs/now"), succeeded, ["used"])

    def test_files_of_a_plan_that_succeeded_go(self) -> None:
        mine, other = self.make("blobs/mine"), self.make("blobs/other")
        self.tidy({"blobs": {"mine": 1, "never-sent": 1}})
        self.assertEqual((os.path.exists(mine), os.path.exists(other)), (False, True))

    def test_files_of_a_plan_that_failed_stay_for_the_next_try(self) -> None:
        mine = self.make("blobs/mine")
        self.tidy({"blobs": {"mine": 1}}, succeeded=False)
        self.assertTrue(os.path.exists(mine))

    def test_old_versions_of_the_agent_go_but_not_the_one_in_use(self) -> None:
        old, used = self.make("bundle/old.zip", 9 * tidy.KEEP_S), self.make("bundle/used.zip", 9 * tidy.KEEP_S)
        self.tidy({})
        self.assertEqual((os.path.exists(old), os.path.exists(used)), (False, True))

    def test_the_newest_runs_stay(self) -> None:
        for number in range(tidy.KEEP_RUNS + 5):
            folder = os.path.join(self.home, "runs", "r%02d" % number)
            os.makedirs(os.path.join(folder, "below"))
            os.utime(folder, (time.time() - 1000 + number,) * 2)
        self.tidy({})
        left = sorted(os.listdir(os.path.join(self.home, "runs")))
        self.assertEqual(len(left), tidy.KEEP_RUNS)
        self.assertIn("now", left)
        self.assertNotIn("r00", left)


if __name__ == "__main__":
    unittest.main()
