"""The modules `lineinfile` and `blockinfile`."""

from __future__ import annotations

import os
import unittest

from tests.support.module_calls import ModuleCase

#: (file, arguments, file afterwards), by Ansible's documentation of the module and its behaviour.
LINES = [
    ("", {"line": "a"}, "a\n"),
    ("a\n", {"line": "b"}, "a\nb\n"),
    ("a", {"line": "b"}, "a\nb\n"),
    ("#X=0\nY=1\n", {"regexp": "^#*X=", "line": "X=1"}, "X=1\nY=1\n"),
    ("X=1\nX=2\n", {"regexp": "^X=", "line": "X=3"}, "X=1\nX=3\n"),
    ("X=1\nX=2\n", {"regexp": "^X=", "line": "X=3", "firstmatch": True}, "X=3\nX=2\n"),
    ("a\nb\n", {"line": "n", "insertafter": "^a"}, "a\nn\nb\n"),
    ("a\na\nb\n", {"line": "n", "insertafter": "^a", "firstmatch": True}, "a\nn\na\nb\n"),
    ("a\nb\n", {"line": "n", "insertbefore": "^b"}, "a\nn\nb\n"),
    ("a\nb\n", {"line": "n", "insertbefore": "BOF"}, "n\na\nb\n"),
    ("a\nb\n", {"line": "n", "insertafter": "EOF"}, "a\nb\nn\n"),
    ("a\nb\n", {"line": "n", "insertafter": "^none"}, "a\nb\nn\n"),
    ("a\nk=1\n", {"regexp": "^k=", "line": "k=2", "insertafter": "^a"}, "a\nk=2\n"),
    ("PATH=/bin\n", {"regexp": r"^(PATH=)(.*)$", "line": r"\1/usr/bin", "backrefs": True}, "PATH=/usr/bin\n"),
    ("x ssl y\n", {"search_string": "ssl", "line": "tls"}, "tls\n"),
    ("a\r\nb\r\n", {"regexp": "^a", "line": "c"}, "c\nb\r\n"),
    ("k=1", {"regexp": "^k=", "line": "k=2"}, "k=2\n"),
    ("a\nb", {"line": "b"}, "a\nb\n"),
]


class LineTest(ModuleCase):
    def test_present(self) -> None:
        for number, (before, args, after) in enumerate(LINES):
            with self.subTest(before=before, args=args):
                path = self.write("f%d" % number, before)
                self.twice("lineinfile", dict(args, path=path))
                self.assertEqual(self.read("f%d" % number), after)

    def test_nothing_to_do(self) -> None:
        path = self.write("f", "X=1\nY=2\n")
        for args in (
            {"regexp": "^X=", "line": "X=1"},
            {"line": "Y=2"},
            {"line": "Y=2", "insertbefore": "^X"},
            {"regexp": "^Z=(.*)", "line": r"Z=\1", "backrefs": True},
            {"line": "none", "state": "absent"},
        ):
            with self.subTest(args=args):
                self.assertEqual(self.call("lineinfile", dict(args, path=path))["outcome"], "ok")

    def test_absent(self) -> None:
        self.write("f", "a\nb\na\nc\n")
        done = self.twice("lineinfile", {"path": self.path("f"), "line": "a", "state": "absent"})
        self.assertEqual((self.read("f"), done["result"]["msg"]), ("b\nc\n", "2 line(s) removed"))
        self.twice("lineinfile", {"path": self.path("f"), "regexp": "^c", "state": "absent"})
        self.assertEqual(self.read("f"), "b\n")
        self.assertEqual(
            self.call("lineinfile", {"path": self.path("x"), "line": "a", "state": "absent"})["outcome"], "ok"
        )

    def test_messages(self) -> None:
        path = self.write("f", "a=1\n")
        self.assertEqual(self.call("lineinfile", {"path": path, "line": "b"})["result"]["msg"], "line added")
        replaced = self.call("lineinfile", {"path": path, "regexp": "^a", "line": "a=2"})
        self.assertEqual(replaced["result"]["msg"], "line replaced")

    def test_a_missing_file(self) -> None:
        self.fails("file-missing", "lineinfile", {"path": self.path("f"), "line": "a"})
        self.twice("lineinfile", {"path": self.path("d/f"), "line": "a", "create": True, "mode": "0600"})
        self.assertEqual((self.read("d/f"), self.mode("d/f"), self.mode("d")), ("a\n", "0600", "0755"))

    def test_attributes_and_links_are_kept(self) -> None:
        self.write("real", "a\n", 0o640)
        os.chown(self.path("real"), 54321, 54322)
        os.symlink("real", self.path("f"))
        self.twice("lineinfile", {"path": self.path("f"), "line": "b"})
        found = os.stat(self.path("real"))
        self.assertTrue(os.path.islink(self.path("f")))
        self.assertEqual((self.mode("real"), found.st_uid, found.st_gid), ("0640", 54321, 54322))

    def test_backup(self) -> None:
        self.write("f", "a\n")
        backup = self.call("lineinfile", {"path": self.path("f"), "line": "b", "backup": True})["result"]["backup"]
        self.assertEqual(self.read(backup), "a\n")

    def test_a_validator_that_refuses_leaves_the_file(self) -> None:
        self.write("f", "a\n")
        said = self.fails(
            "validate-failed",
            "lineinfile",
            {
                "path": self.path("f"),
                "line": "bad",
                "validate": "sh -c '! grep bad \"$1\" || { echo no bad >&2; exit 1; }' sh %s",
            },
        )
        self.assertIn("no bad", said)
        self.assertEqual(self.read("f"), "a\n")
        self.assertEqual([name for name in os.listdir(self.folder) if name != "f"], [])

    def test_validate_needs_its_placeholder(self) -> None:
        path = self.write("f", "")
        done = self.call("lineinfile", {"path": path, "line": "x", "validate": "true"})
        self.assertIn("%s", done["msg"])

    def test_a_task_that_is_never_done_says_so(self) -> None:
        path = self.write("f", "opts=a\n")
        args = {"path": path, "regexp": r"^(opts=.*)$", "line": r"\1 b", "backrefs": True}
        done = self.call("lineinfile", args)
        self.assertEqual(done["outcome"], "changed")
        self.assertIn("every run will change", done["result"]["warnings"][0])

    def test_bytes_that_are_no_text_survive(self) -> None:
        self.write("f", b"\xff\xfe\na\n")
        self.call("lineinfile", {"path": self.path("f"), "line": "b"})
        with open(self.path("f"), "rb") as f:
            self.assertEqual(f.read(), b"\xff\xfe\na\nb\n")

    def test_bad_patterns_are_named(self) -> None:
        path = self.write("f", "")
        self.assertIn("regexp", self.call("lineinfile", {"path": path, "regexp": "(", "line": "x"})["msg"])
        self.assertIn("insertafter", self.call("lineinfile", {"path": path, "insertafter": "(", "line": "x"})["msg"])

    def test_a_link_to_nowhere_is_made(self) -> None:
        os.symlink(self.path("real"), self.path("f"))
        self.twice("lineinfile", {"path": self.path("f"), "line": "a", "create": True})
        self.assertEqual(self.read("real"), "a\n")


class BlockTest(ModuleCase):
    BLOCK = "# BEGIN ANSIBLE MANAGED BLOCK\n%s# END ANSIBLE MANAGED BLOCK\n"

    def test_insert_change_remove(self) -> None:
        path = self.write("f", "a\nb")
        self.twice("blockinfile", {"path": path, "block": "x\ny"})
        self.assertEqual(self.read("f"), "a\nb\n" + self.BLOCK % "x\ny\n")
        self.twice("blockinfile", {"path": path, "block": "z\n"})
        self.assertEqual(self.read("f"), "a\nb\n" + self.BLOCK % "z\n")
        self.twice("blockinfile", {"path": path, "state": "absent"})
        self.assertEqual(self.read("f"), "a\nb\n")

    def test_places(self) -> None:
        for number, (args, after) in enumerate(
            [
                ({"insertafter": "^a"}, "a\n%sb\n"),
                ({"insertbefore": "^b"}, "a\n%sb\n"),
                ({"insertbefore": "BOF"}, "%sa\nb\n"),
                ({"insertafter": "EOF"}, "a\nb\n%s"),
            ]
        ):
            path = self.write("f%d" % number, "a\nb\n")
            self.twice("blockinfile", dict(args, path=path, block="x"))
            self.assertEqual(self.read("f%d" % number), after % (self.BLOCK % "x\n"))

    def test_markers(self) -> None:
        path = self.write("f", "")
        args = {"path": path, "block": "x", "marker": "<!-- {mark} one -->", "marker_begin": "from", "marker_end": "to"}
        self.twice("blockinfile", args)
        self.assertEqual(self.read("f"), "<!-- from one -->\nx\n<!-- to one -->\n")
        self.assertIn("{mark}", self.call("blockinfile", {"path": path, "block": "x", "marker": "#"})["msg"])

    def test_newlines_around(self) -> None:
        path = self.write("f", "a\nb\n")
        args = {"path": path, "block": "x", "insertafter": "^a", "append_newline": True, "prepend_newline": True}
        self.twice("blockinfile", args)
        self.assertEqual(self.read("f"), "a\n\n" + self.BLOCK % "x\n" + "\nb\n")


if __name__ == "__main__":
    unittest.main()
