"""The modules `user` and `group`, with the real programs on a private copy of /etc and /home."""

from __future__ import annotations

import grp
import os
import pwd
import unittest

from tests.support.module_calls import ModuleCase, isolated


class AccountCase(ModuleCase):
    def snapshot(self) -> tuple:
        files = []
        for name in ("passwd", "group", "shadow", "gshadow"):
            with open("/etc/" + name) as f:
                files.append(f.read())
        return tuple(files), sorted(os.listdir("/home"))

    def once(self, action: str, args: dict) -> dict:
        """Check mode changes nothing, a run changes, a second one does not."""
        before = self.snapshot()
        done = self.call(action, args, check=True, diff=True)
        self.assertEqual(done["outcome"], "changed", done)
        self.assertEqual(self.snapshot(), before)
        self.pending.clear()
        done = self.call(action, args)
        self.assertEqual(done["outcome"], "changed", done)
        after = self.snapshot()
        self.assertEqual(self.call(action, args)["outcome"], "ok")
        self.assertEqual(self.snapshot(), after)
        return done


class GroupTest(AccountCase):
    @isolated("/etc", "/home")
    def test_make_change_remove(self) -> None:
        done = self.once("group", {"name": "gpuops", "gid": 42100})
        self.assertEqual(done["result"]["gid"], 42100)
        self.assertEqual(grp.getgrnam("gpuops").gr_gid, 42100)
        self.once("group", {"name": "gpuops", "gid": 42101})
        self.assertEqual(grp.getgrnam("gpuops").gr_gid, 42101)
        self.assertEqual(self.call("group", {"name": "gpuops"})["outcome"], "ok")
        self.once("group", {"name": "gpuops", "state": "absent"})
        with self.assertRaises(KeyError):
            grp.getgrnam("gpuops")

    @isolated("/etc", "/home")
    def test_system_and_local(self) -> None:
        self.once("group", {"name": "gpusys", "system": True, "local": True})
        self.assertLess(grp.getgrnam("gpusys").gr_gid, 1000)

    @isolated("/etc", "/home")
    def test_a_number_in_use(self) -> None:
        said = self.fails("account-failed", "group", {"name": "gpuops", "gid": 0})
        self.assertIn("groupadd", said)
        self.assertIn("0", said)
        self.once("group", {"name": "gpuops", "gid": 0, "non_unique": True})


class UserTest(AccountCase):
    @isolated("/etc", "/home")
    def test_make_change_remove(self) -> None:
        self.call("group", {"name": "gpuops", "gid": 42100})
        args = {"name": "gpuops", "uid": 42100, "group": "gpuops", "shell": "/bin/bash", "home": "/home/gpuops"}
        done = self.once("user", args)
        entry = pwd.getpwnam("gpuops")
        self.assertEqual((entry.pw_uid, entry.pw_gid, entry.pw_shell), (42100, 42100, "/bin/bash"))
        self.assertEqual(done["result"]["home"], "/home/gpuops")
        self.assertTrue(os.path.isfile("/home/gpuops/.bashrc"))
        self.once("user", dict(args, shell="/bin/sh", comment="GPU operations"))
        entry = pwd.getpwnam("gpuops")
        self.assertEqual((entry.pw_shell, entry.pw_gecos, entry.pw_uid), ("/bin/sh", "GPU operations", 42100))
        self.once("user", {"name": "gpuops", "state": "absent", "remove": True})
        self.assertFalse(os.path.exists("/home/gpuops"))

    @isolated("/etc", "/home")
    def test_groups(self) -> None:
        for name in ("one", "two", "three"):
            self.call("group", {"name": name})
        self.once("user", {"name": "gpuops", "groups": ["one", "two"]})
        self.assertEqual(self.call("user", {"name": "gpuops", "groups": "one", "append": True})["outcome"], "ok")
        self.once("user", {"name": "gpuops", "groups": "three", "append": True})
        self.assertEqual(self.member_of("gpuops"), ["one", "three", "two"])
        self.once("user", {"name": "gpuops", "groups": ["two"]})
        self.assertEqual(self.member_of("gpuops"), ["two"])
        self.once("user", {"name": "gpuops", "groups": ""})
        self.assertEqual(self.member_of("gpuops"), [])
        self.fails("group-unknown", "user", {"name": "gpuops", "groups": ["no-such-group"]})
        self.fails("group-unknown", "user", {"name": "gpunew", "group": "no-such-group"})

    def member_of(self, name: str) -> list:
        return sorted(group.gr_name for group in grp.getgrall() if name in group.gr_mem)

    @isolated("/etc", "/home")
    def test_a_group_of_that_name_is_there(self) -> None:
        self.call("group", {"name": "gpuops", "gid": 42100})
        self.once("user", {"name": "gpuops", "create_home": False})
        self.assertFalse(os.path.exists("/home/gpuops"))

    @isolated("/etc", "/home")
    def test_a_missing_home_is_made(self) -> None:
        self.call("user", {"name": "gpuops", "create_home": False})
        self.once("user", {"name": "gpuops"})
        found = os.stat("/home/gpuops/.profile")
        self.assertEqual(found.st_uid, pwd.getpwnam("gpuops").pw_uid)
        self.assertEqual(self.call("user", {"name": "gpuops", "create_home": False})["outcome"], "ok")

    @isolated("/etc", "/home")
    def test_home_moves(self) -> None:
        self.call("user", {"name": "gpuops"})
        self.once("user", {"name": "gpuops", "home": "/home/elsewhere", "move_home": True})
        self.assertTrue(os.path.isfile("/home/elsewhere/.bashrc"))
        self.assertFalse(os.path.exists("/home/gpuops"))

    @isolated("/etc", "/home")
    def test_password_and_lock(self) -> None:
        first, second = "$6$salt$" + "a" * 86, "$6$salt$" + "b" * 86
        done = self.call("user", {"name": "gpuops", "password": first}, diff=True, check=True)
        self.assertNotIn(first, str(done))
        self.pending.clear()
        self.once("user", {"name": "gpuops", "password": first})
        self.assertEqual(self.shadow("gpuops")[1], first)
        kept = {"name": "gpuops", "password": second, "update_password": "on_create"}
        self.assertEqual(self.call("user", kept)["outcome"], "ok")
        self.once("user", {"name": "gpuops", "password": second})
        self.once("user", {"name": "gpuops", "password_lock": True})
        self.assertEqual(self.shadow("gpuops")[1], "!" + second)
        self.assertEqual(self.call("user", {"name": "gpuops", "password": second})["outcome"], "ok")
        self.once("user", {"name": "gpuops", "password_lock": False})
        self.assertEqual(self.shadow("gpuops")[1], second)

    def shadow(self, name: str) -> list:
        with open("/etc/shadow") as f:
            return next(line.strip().split(":") for line in f if line.startswith(name + ":"))

    @isolated("/etc", "/home")
    def test_expires(self) -> None:
        self.once("user", {"name": "gpuops", "expires": 1893456000})  # 2030-01-01
        self.assertEqual(self.shadow("gpuops")[7], str(1893456000 // 86400))
        self.once("user", {"name": "gpuops", "expires": -1})
        self.assertEqual(self.shadow("gpuops")[7], "")

    @isolated("/etc", "/home")
    def test_a_number_in_use(self) -> None:
        said = self.fails("account-failed", "user", {"name": "gpuops", "uid": 0})
        self.assertIn("UID 0", said)

    @isolated("/etc", "/home")
    def test_check_mode_knows_what_earlier_tasks_would_make(self) -> None:
        self.assertEqual(self.call("group", {"name": "gpuops"}, check=True)["outcome"], "changed")
        user = {"name": "gpuops", "group": "gpuops"}
        self.assertEqual(self.call("user", user, check=True)["outcome"], "changed")
        self.write("f", "")
        owned = {"path": self.path("f"), "owner": "gpuops", "group": "gpuops"}
        self.assertEqual(self.call("file", owned, check=True)["outcome"], "changed")


if __name__ == "__main__":
    unittest.main()
