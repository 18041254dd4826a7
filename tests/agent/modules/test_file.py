"""The module `file`, on real files."""

from __future__ import annotations

import os
import subprocess
import unittest

from tests.support.module_calls import ModuleCase, isolated


class DirectoryTest(ModuleCase):
    def test_parents_get_the_attributes_too(self) -> None:
        self.twice("file", {"path": self.path("a/b/c"), "state": "directory", "mode": "0750"})
        self.assertEqual([self.mode(name) for name in ("a", "a/b", "a/b/c")], ["0750"] * 3)

    def test_default_mode_is_independent_of_the_umask(self) -> None:
        old = os.umask(0o077)
        try:
            self.twice("file", {"path": self.path("d"), "state": "directory"})
        finally:
            os.umask(old)
        self.assertEqual(self.mode("d"), "0755")

    def test_a_file_in_the_way(self) -> None:
        self.write("f", "")
        said = self.fails("not-a-directory", "file", {"path": self.path("f"), "state": "directory"})
        self.assertIn("is not a directory", said)
        self.fails("not-a-directory", "file", {"path": self.path("f/below"), "state": "directory"})

    def test_recurse_leaves_link_targets_alone(self) -> None:
        os.makedirs(self.path("d/sub"))
        self.write("d/sub/x", "", 0o600)
        self.write("outside", "", 0o600)
        os.symlink(self.path("outside"), self.path("d/link"))
        self.twice("file", {"path": self.path("d"), "state": "directory", "recurse": True, "mode": "u=rwX,g=rX,o="})
        self.assertEqual(
            [self.mode(name) for name in ("d", "d/sub", "d/sub/x", "outside")], ["0750", "0750", "0640", "0600"]
        )

    def test_recurse_needs_a_directory(self) -> None:
        self.write("f", "")
        done = self.call("file", {"path": self.path("f"), "recurse": True})
        self.assertIn("recurse needs state: directory", done["msg"])


class FileTest(ModuleCase):
    def test_state_is_what_is_there(self) -> None:
        self.write("f", "text", 0o600)
        self.twice("file", {"path": self.path("f"), "mode": "0640"})
        self.assertEqual(self.read("f"), "text")

    def test_file_does_not_make_one(self) -> None:
        said = self.fails("file-missing", "file", {"path": self.path("f"), "state": "file"})
        self.assertIn("does not exist", said)

    def test_touch_makes_and_touches(self) -> None:
        args = {"path": self.path("f"), "state": "touch", "mode": "0600"}
        self.assertEqual(self.call("file", args)["outcome"], "changed")
        os.utime(self.path("f"), (1, 1))
        self.assertEqual(self.call("file", args)["outcome"], "changed")
        self.assertGreater(os.stat(self.path("f")).st_mtime, 1000)

    def test_touch_with_preserved_times_is_idempotent(self) -> None:
        args = {"path": self.path("f"), "state": "touch", "access_time": "preserve", "modification_time": "preserve"}
        self.twice("file", args)

    def test_touch_with_a_time(self) -> None:
        args = {
            "path": self.path("f"),
            "state": "touch",
            "modification_time": "202001020304.05",
            "access_time": "preserve",
        }
        self.call("file", args)
        self.assertEqual(self.call("file", args)["outcome"], "ok")
        done = subprocess.run(["date", "-r", self.path("f"), "+%Y%m%d%H%M.%S"], stdout=subprocess.PIPE, check=True)
        self.assertEqual(done.stdout.decode().strip(), "202001020304.05")

    def test_return_keys_are_there_when_somebody_reads_them(self) -> None:
        self.write("f", "four", 0o640)
        result = self.call("file", {"path": self.path("f")}, registered=True)["result"]
        self.assertEqual((result["mode"], result["size"], result["state"]), ("0640", 4, "file"))
        self.assertNotIn("owner", self.call("file", {"path": self.path("f")})["result"])

    def test_diff_shows_the_mode(self) -> None:
        self.write("f", "", 0o600)
        diff = self.call("file", {"path": self.path("f"), "mode": "0644"}, check=True, diff=True)["diff"]
        self.assertEqual((diff[0]["before"], diff[0]["after"]), ("mode: 0600\n", "mode: 0644\n"))


class LinkTest(ModuleCase):
    def test_link(self) -> None:
        self.write("target", "")
        done = self.twice("file", {"path": self.path("l"), "src": self.path("target"), "state": "link"})
        self.assertEqual(os.readlink(self.path("l")), self.path("target"))
        self.assertEqual((done["result"]["dest"], done["result"]["src"]), (self.path("l"), self.path("target")))

    def test_relative_target_stays_relative(self) -> None:
        self.write("target", "")
        self.twice("file", {"path": self.path("l"), "src": "target", "state": "link"})
        self.assertEqual(os.readlink(self.path("l")), "target")

    def test_another_target(self) -> None:
        self.write("new", "")
        os.symlink("/nowhere", self.path("l"))
        self.twice("file", {"path": self.path("l"), "src": self.path("new"), "state": "link"})
        self.assertEqual(os.readlink(self.path("l")), self.path("new"))

    def test_missing_target(self) -> None:
        args = {"path": self.path("l"), "src": self.path("none"), "state": "link"}
        self.fails("target-missing", "file", args)
        self.twice("file", dict(args, force=True))

    def test_missing_target_that_an_earlier_task_would_make(self) -> None:
        args = {"path": self.path("l"), "src": self.path("none"), "state": "link"}
        self.pending.add(self.path("none"))
        self.assertEqual(self.call("file", args, check=True)["outcome"], "changed")
        self.pending.clear()
        self.pending.add("task p1.t1")
        self.assertEqual(self.call("file", args, check=True)["outcome"], "unknown")

    def test_files_and_folders_are_replaced_only_by_force(self) -> None:
        self.write("f", "precious")
        os.mkdir(self.path("d"))
        self.write("target", "")
        for name, code in (("f", "is-a-file"), ("d", "is-a-directory")):
            self.fails(code, "file", {"path": self.path(name), "src": self.path("target"), "state": "link"})
        self.assertEqual(self.read("f"), "precious")
        self.twice("file", {"path": self.path("d"), "src": self.path("target"), "state": "link", "force": True})

    def test_a_full_folder_is_never_replaced(self) -> None:
        os.mkdir(self.path("d"))
        self.write("d/precious", "")
        self.write("target", "")
        args = {"path": self.path("d"), "src": self.path("target"), "state": "link", "force": True}
        self.fails("is-a-directory", "file", args)
        self.assertTrue(os.path.exists(self.path("d/precious")))

    def test_hard_link(self) -> None:
        self.write("source", "x")
        self.twice("file", {"path": self.path("h"), "src": self.path("source"), "state": "hard"})
        self.assertTrue(os.path.samefile(self.path("h"), self.path("source")))

    def test_follow(self) -> None:
        self.write("target", "", 0o600)
        os.symlink(self.path("target"), self.path("l"))
        self.twice("file", {"path": self.path("l"), "mode": "0640"})
        self.assertEqual(self.mode("target"), "0640")
        self.assertTrue(os.path.islink(self.path("l")))


class AbsentTest(ModuleCase):
    def test_file_link_and_tree(self) -> None:
        os.makedirs(self.path("d/sub/deep"))
        self.write("d/sub/f", "", 0o400)
        self.write("outside", "precious")
        os.symlink(self.folder, self.path("d/sub/up"))
        self.twice("file", {"path": self.path("d"), "state": "absent"})
        self.assertFalse(os.path.lexists(self.path("d")))
        self.assertEqual(self.read("outside"), "precious")
        os.symlink(self.path("outside"), self.path("l"))
        self.twice("file", {"path": self.path("l"), "state": "absent"})
        self.assertEqual(self.read("outside"), "precious")

    def test_below_a_file_there_is_nothing(self) -> None:
        self.write("f", "")
        self.assertEqual(self.call("file", {"path": self.path("f/x"), "state": "absent"})["outcome"], "ok")

    def test_root_is_refused(self) -> None:
        self.assertIn("refusing", self.call("file", {"path": "/", "state": "absent"})["msg"])

    @isolated()
    def test_a_mount_point_inside(self) -> None:
        os.makedirs(self.path("d/mnt"))
        subprocess.run(["mount", "-t", "tmpfs", "test", self.path("d/mnt")], check=True)
        self.fails("busy", "file", {"path": self.path("d"), "state": "absent"})
        subprocess.run(["umount", self.path("d/mnt")], check=True)


class EarlierTest(ModuleCase):
    def test_a_path_that_an_earlier_task_would_change_is_unknown(self) -> None:
        self.write("f", "", 0o644)
        args = {"path": self.path("f"), "mode": "0600"}
        self.assertEqual(self.call("file", args, check=True)["outcome"], "changed")
        self.assertEqual(self.call("file", args, check=True)["outcome"], "unknown")


if __name__ == "__main__":
    unittest.main()
