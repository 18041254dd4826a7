"""The modules `copy` and `template`, on real files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import unittest

from gpuprov.agent.modules import load
from gpuprov.agent.system import System
from tests.support.module_calls import ModuleCase


class InlineTest(ModuleCase):
    def test_content(self) -> None:
        done = self.twice("copy", {"content": "héllo\n", "dest": self.path("f")}, registered=True)
        self.assertEqual((self.read("f"), self.mode("f")), ("héllo\n", "0644"))
        self.assertEqual(done["result"]["checksum"], hashlib.sha1("héllo\n".encode()).hexdigest())
        self.assertEqual((done["result"]["dest"], done["result"]["size"]), (self.path("f"), 7))

    def test_content_of_the_same_size(self) -> None:
        self.write("f", "old")
        self.twice("copy", {"content": "new", "dest": self.path("f")})
        self.assertEqual(self.read("f"), "new")

    def test_structures_become_json(self) -> None:
        self.twice("copy", {"content": {"a": [1]}, "dest": self.path("f")})
        self.assertEqual(json.loads(self.read("f")), {"a": [1]})

    def test_empty_content(self) -> None:
        self.twice("copy", {"content": "", "dest": self.path("f")})
        self.assertEqual(self.read("f"), "")

    def test_mode_only(self) -> None:
        self.write("f", "x", 0o600)
        inode = os.stat(self.path("f")).st_ino
        self.twice("copy", {"content": "x", "dest": self.path("f"), "mode": "u=rw,g=r,o="})
        self.assertEqual((self.mode("f"), os.stat(self.path("f")).st_ino), ("0640", inode))

    def test_owner_and_mode_of_what_is_replaced_are_kept(self) -> None:
        self.write("f", "old", 0o640)
        os.chown(self.path("f"), 54321, 54322)
        self.twice("copy", {"content": "new!", "dest": self.path("f")})
        found = os.stat(self.path("f"))
        self.assertEqual((self.mode("f"), found.st_uid, found.st_gid), ("0640", 54321, 54322))

    def test_new_files_do_not_depend_on_the_umask(self) -> None:
        old = os.umask(0o077)
        try:
            self.twice("copy", {"content": "x", "dest": self.path("f")})
        finally:
            os.umask(old)
        self.assertEqual(self.mode("f"), "0644")

    def test_a_folder_needs_a_name(self) -> None:
        self.fails("is-a-directory", "copy", {"content": "x", "dest": self.folder})

    def test_missing_folder(self) -> None:
        args = {"content": "x", "dest": self.path("none/f")}
        said = self.fails("directory-missing", "copy", args)
        self.assertIn(self.path("none"), said)
        self.pending.add(self.path("none"))
        self.assertEqual(self.call("copy", args, check=True)["outcome"], "changed")
        self.pending.clear()
        self.pending.add("task p1.t1")
        self.assertEqual(self.call("copy", args, check=True)["outcome"], "unknown")

    def test_force_no_leaves_a_file_alone(self) -> None:
        self.write("f", "mine", 0o600)
        args = {"content": "x", "dest": self.path("f"), "force": False, "mode": "0644"}
        self.assertEqual(self.call("copy", args)["outcome"], "ok")
        self.assertEqual((self.read("f"), self.mode("f")), ("mine", "0600"))

    def test_backup(self) -> None:
        self.write("f", "old", 0o600)
        backup = self.call("copy", {"content": "new", "dest": self.path("f"), "backup": True})["result"]["backup_file"]
        self.assertEqual((self.read(backup), os.stat(backup).st_mode & 0o7777), ("old", 0o600))

    def test_links_are_replaced_or_followed(self) -> None:
        self.write("real", "old")
        os.symlink("real", self.path("l"))
        self.twice("copy", {"content": "new", "dest": self.path("l"), "follow": True})
        self.assertEqual((self.read("real"), os.path.islink(self.path("l"))), ("new", True))
        self.twice("copy", {"content": "own", "dest": self.path("l")})
        self.assertEqual((self.read("real"), self.read("l"), os.path.islink(self.path("l"))), ("new", "own", False))

    def test_a_validator_sees_the_new_content(self) -> None:
        self.write("f", "good\n")
        args = {"dest": self.path("f"), "validate": "grep -q good %s"}
        self.fails("validate-failed", "copy", dict(args, content="bad\n"))
        self.assertEqual(self.read("f"), "good\n")
        self.twice("copy", dict(args, content="good enough\n"))
        said = self.call("copy", dict(args, content="x", validate="no-such-program %s"))["msg"]
        self.assertIn("no-such-program", said)

    def test_diff(self) -> None:
        self.write("f", "a\n", 0o600)
        diff = self.call("copy", {"content": "b\n", "dest": self.path("f"), "mode": "0644"}, check=True, diff=True)[
            "diff"
        ]
        self.assertEqual((diff[0]["before"], diff[0]["after"]), ("a\n", "b\n"))
        self.assertEqual((diff[1]["before"], diff[1]["after"]), ("mode: 0600\n", "mode: 0644\n"))

    def test_diff_of_binary_and_long_files(self) -> None:
        self.write("f", b"\0\1")
        self.write("g", "x" * 70000)
        args = {"content": "b\n"}
        diff = self.call("copy", dict(args, dest=self.path("f")), check=True, diff=True)["diff"]
        self.assertEqual(diff[0]["before"], "(binary, 2 bytes)\n")
        diff = self.call("copy", dict(args, dest=self.path("g")), check=True, diff=True)["diff"]
        self.assertIn("70000 bytes, not shown", diff[0]["before"])

    def test_access_control_lists_survive(self) -> None:
        self.write("f", "old")
        try:
            os.setxattr(self.path("f"), "user.mark", b"kept")
        except OSError as error:
            self.fail("the test's folder needs extended attributes: %s" % error)
        self.call("copy", {"content": "new", "dest": self.path("f")})
        self.assertEqual(os.getxattr(self.path("f"), "user.mark"), b"kept")


class TravelledTest(ModuleCase):
    def test_blob(self) -> None:
        blob = self.blob(b"\0data" * 1000)
        self.twice("copy", {"src": "/c/tool", "dest": self.path("f"), "mode": "0755", "_blob": blob})
        self.assertEqual((os.path.getsize(self.path("f")), self.mode("f")), (5000, "0755"))

    def test_into_a_folder(self) -> None:
        os.mkdir(self.path("d"))
        blob = self.blob(b"x")
        self.twice("copy", {"src": "/c/tool", "dest": self.path("d"), "_blob": blob})
        self.twice("copy", {"src": "/c/tool", "dest": self.path("new/er") + "/", "_blob": blob})
        self.assertEqual((self.read("d/tool"), self.read("new/er/tool")), ("x", "x"))

    def test_preserved_mode(self) -> None:
        blob = self.blob(b"x", mode=0o751)
        self.twice("copy", {"src": "/c/tool", "dest": self.path("f"), "mode": "preserve", "_blob": blob})
        self.assertEqual(self.mode("f"), "0751")

    def test_checksum(self) -> None:
        blob = self.blob(b"x")
        args = {"src": "/c/x", "dest": self.path("f"), "_blob": blob}
        self.fails("checksum-mismatch", "copy", dict(args, checksum="0" * 40))
        self.assertFalse(os.path.exists(self.path("f")))
        self.twice("copy", dict(args, checksum=hashlib.sha1(b"x").hexdigest()))

    def test_only_what_differs_has_to_travel(self) -> None:
        needs = load("copy").needs
        blob = self.blob(b"x" * 100)
        args = {"src": "/c/x", "dest": self.path("f"), "_blob": blob}
        self.assertEqual(needs(args, System()), [blob["sha256"]])
        self.write("f", b"x" * 100)
        self.assertEqual(needs(args, System()), [])
        self.write("f", b"y" * 100)
        self.assertEqual(needs(args, System()), [blob["sha256"]])
        self.assertEqual(needs(dict(args, force=False), System()), [])
        self.assertEqual(load("template").needs({"dest": self.path("f"), "content": "x"}, System()), [])

    def test_a_file_that_changed_since_it_was_read_is_read_again(self) -> None:
        blob = self.blob(b"x" * 100)
        args = {"src": "/c/x", "dest": self.path("f"), "_blob": blob}
        self.call("copy", args)
        self.assertEqual(self.call("copy", args)["outcome"], "ok")
        with open(self.path("f"), "r+b") as f:
            f.write(b"y")
        os.utime(self.path("f"), (1, 1))
        self.assertEqual(self.call("copy", args)["outcome"], "changed")

    def test_what_did_not_travel_is_said(self) -> None:
        args = {"src": "/c/x", "dest": self.path("f"), "_blob": {"sha256": "0" * 64, "size": 3}}
        done = self.call("copy", args, blob=_gone)
        self.assertEqual(done["fault"]["code"], "file-missing")

    def test_template(self) -> None:
        done = self.twice("template", {"src": "x.j2", "dest": self.path("f"), "content": "a\n", "mode": "0600"})
        self.assertEqual((self.read("f"), self.mode("f"), done["result"]["src"]), ("a\n", "0600", "x.j2"))
        os.mkdir(self.path("d"))
        self.twice("template", {"src": "/t/x.j2", "dest": self.path("d"), "content": "a\n"})
        self.assertEqual(self.read("d/x.j2"), "a\n")


def _gone(sha256: str) -> str:
    from gpuprov.agent.modules.base import ModuleError

    raise ModuleError("gone", code="file-missing")


class TreeTest(ModuleCase):
    def tree_args(self, **more: object) -> dict:
        one, two = self.blob(b"one", mode=0o755), self.blob(b"two", mode=0o600)
        entries = [
            {"path": "sub", "dir": True},
            dict(one, path="a"),
            dict(two, path="sub/b"),
            {"path": "none", "dir": True},
        ]
        return dict({"src": "/c/tree/", "dest": self.path("d"), "_tree": entries}, **more)

    def test_tree(self) -> None:
        self.twice("copy", self.tree_args())
        self.assertEqual((self.read("d/a"), self.read("d/sub/b"), self.mode("d/a")), ("one", "two", "0644"))
        self.assertTrue(os.path.isdir(self.path("d/none")))

    def test_modes(self) -> None:
        self.twice("copy", self.tree_args(mode="preserve", directory_mode="0700"))
        self.assertEqual(
            [self.mode(name) for name in ("d", "d/sub", "d/a", "d/sub/b")], ["0700", "0700", "0755", "0600"]
        )

    def test_one_file_differs(self) -> None:
        self.call("copy", self.tree_args())
        self.write("d/a", "eno")
        args = self.tree_args()
        self.assertEqual(load("copy").needs(args, System()), [hashlib.sha256(b"one").hexdigest()])
        diff = self.call("copy", args, check=True, diff=True)["diff"]
        self.assertEqual([(part["before"], part["after"]) for part in diff], [("eno", "one")])
        self.pending.clear()
        self.twice("copy", args)

    def test_remote_tree(self) -> None:
        os.makedirs(self.path("src/sub"))
        self.write("src/sub/f", "x", 0o640)
        self.twice("copy", {"src": self.path("src"), "dest": self.path("d"), "remote_src": True, "mode": "preserve"})
        self.assertEqual((self.read("d/src/sub/f"), self.mode("d/src/sub/f")), ("x", "0640"))
        self.twice("copy", {"src": self.path("src") + "/", "dest": self.path("e"), "remote_src": True})
        self.assertEqual(self.read("e/sub/f"), "x")


class RemoteTest(ModuleCase):
    def test_remote_file(self) -> None:
        self.write("src", "x" * 3000)
        self.twice("copy", {"src": self.path("src"), "dest": self.path("f"), "remote_src": True})
        self.write("f", "y" * 3000)
        self.twice("copy", {"src": self.path("src"), "dest": self.path("f"), "remote_src": True})
        self.assertEqual(self.read("f"), "x" * 3000)

    def test_missing_source(self) -> None:
        args = {"src": self.path("none"), "dest": self.path("f"), "remote_src": True}
        self.fails("file-missing", "copy", args)
        self.pending.add("task p1.t1")
        self.assertEqual(self.call("copy", args, check=True)["outcome"], "unknown")

    def test_a_full_disk_leaves_the_old_file(self) -> None:
        """/dev/full is what a full disk looks like; the replacement is beside the file, so a small tmpfs is used."""
        python = (
            "import sys; sys.path.insert(0, '%s')\n"
            "from gpuprov.agent.system import System\n"
            "try: System().replace('%s/f', data=b'x' * 200000)\n"
            "except OSError as e: print(e.strerror)\n" % (os.getcwd(), self.folder)
        )
        script = 'mount -t tmpfs -o size=64k t "$1" && echo old > "$1/f" && python3 -c "$2" && cat "$1/f" && ls -A "$1"'
        words = ["unshare", "-m", "sh", "-c", script, "sh", self.folder, python]
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
        self.assertEqual(done.stdout.decode(), "No space left on device\nold\nf\n")


if __name__ == "__main__":
    unittest.main()
