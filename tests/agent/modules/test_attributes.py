"""Modes, owners, paths."""

from __future__ import annotations

import os
import subprocess
import unittest

from gpuprov.agent.modules import attributes
from gpuprov.agent.modules.base import ModuleError
from tests.support.module_calls import ModuleCase


class ModeTest(ModuleCase):
    def test_symbolic_modes_are_those_of_chmod(self) -> None:
        """Compared with the chmod program, under the usual umask."""
        clauses = ["u+x", "g=rw", "o=", "a+r", "+x", "-w", "u=rwx,g=rX,o=rX", "ug+rw,o-r", "g=u", "o+t", "u+s", "g+s"]
        clauses += ["a-x,a+X", "u-x,g+w", "=r", "u=rw,go=r", "o=g", "g-s", "+X"]
        self.compare(clauses, (0o644, 0o755, 0o600, 0o4755, 0o2750, 0o000), False)

    def test_symbolic_modes_of_folders(self) -> None:
        self.compare(["g+w", "u=rwX,go=rX", "a-x,a+X", "g=rx", "o-rx"], (0o755, 0o2775, 0o700), True)

    def compare(self, clauses: list, starts: tuple, directory: bool) -> None:
        cases = [(start, clause) for start in starts for clause in clauses]
        script = ["umask 022; cd '%s'" % self.folder]
        for number, (start, clause) in enumerate(cases):
            script.append(
                "%s %d; chmod %04o %d; chmod %s %d"
                % ("mkdir" if directory else ">", number, start, number, clause, number)
            )
        subprocess.run(["sh", "-ec", "\n".join(script)], check=True)
        for number, (start, clause) in enumerate(cases):
            expected = self.mode(str(number))
            self.assertEqual("%04o" % attributes.parse_mode(clause, start, directory), expected, (clause, start))

    def test_octal(self) -> None:
        for text, mode in (("0644", 0o644), ("644", 0o644), ("0o755", 0o755), ("1777", 0o1777), ("04755", 0o4755)):
            self.assertEqual(attributes.parse_mode(text, 0, False), mode)

    def test_nonsense_is_named(self) -> None:
        for text in ("rw-r--r--", "u+z", "0988", "u", "+", ""):
            with self.subTest(text):
                if text == "+":
                    self.assertEqual(attributes.parse_mode(text, 0o644, False), 0o644)  # as chmod has it
                    continue
                with self.assertRaises(ModuleError) as caught:
                    attributes.parse_mode(text, 0o644, False)
                self.assertIn(repr(text), caught.exception.message)


class PathTest(unittest.TestCase):
    def test_home_and_variables(self) -> None:
        self.assertEqual(attributes.path("~/x"), os.path.expanduser("~/x"))
        self.assertEqual(attributes.path("$HOME/x"), os.environ["HOME"].rstrip("/") + "/x")

    def test_spelling(self) -> None:
        self.assertEqual(attributes.path("/a//b/./c"), "/a/b/c")
        self.assertEqual(attributes.path("/a/"), "/a/")
        self.assertEqual(attributes.path("/"), "/")
        self.assertEqual(attributes.path("/a/../b"), "/a/../b")  # a may be a link

    def test_relative_is_refused(self) -> None:
        with self.assertRaises(ModuleError) as caught:
            attributes.path("etc/motd")
        self.assertIn("not absolute", caught.exception.message)


class OwnerTest(ModuleCase):
    def test_unknown_owner_and_group(self) -> None:
        self.write("f", "")
        said = self.fails("user-unknown", "file", {"path": self.path("f"), "owner": "no-such-user"})
        self.assertIn("no-such-user", said)
        self.fails("group-unknown", "file", {"path": self.path("f"), "group": "no-such-group"})

    def test_unknown_owner_after_an_earlier_unmade_change(self) -> None:
        self.write("f", "")
        args = {"path": self.path("f"), "owner": "no-such-user"}
        self.pending.add("user no-such-user")
        self.assertEqual(self.call("file", args, check=True)["outcome"], "changed")
        self.pending.clear()
        self.pending.add("task p1.t1")
        self.assertEqual(self.call("file", args, check=True)["outcome"], "unknown")
        self.pending.clear()
        self.assertEqual(self.call("file", args, check=True)["outcome"], "failed")

    def test_numbers_are_names_enough(self) -> None:
        self.write("f", "")
        self.twice("file", {"path": self.path("f"), "owner": "54321", "group": "54322"})
        found = os.stat(self.path("f"))
        self.assertEqual((found.st_uid, found.st_gid), (54321, 54322))

    def test_set_id_bits_survive_a_new_owner(self) -> None:
        self.write("f", "", 0o755)
        self.twice("file", {"path": self.path("f"), "owner": "54321", "mode": "4755"})
        self.assertEqual(self.mode("f"), "4755")


if __name__ == "__main__":
    unittest.main()
