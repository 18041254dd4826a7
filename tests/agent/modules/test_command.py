"""The modules `command` and `shell`, with real processes."""

from __future__ import annotations

import os
import shlex
import unittest

from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.modules.command import expand, split
from tests.support.module_calls import LOG, ModuleCase


class SplitTest(unittest.TestCase):
    def test_as_a_shell_splits(self) -> None:
        for text in (
            "uname -r",
            "  a   b\t\nc ",
            "python3 -c 'import platform; print(platform.python_version())'",
            'echo "a b" c\\ d',
            r'echo "a \" b" "\n" \x',
            "a'b c'd\"e f\"g",
            "''",
            'x="y z" "" end',
            r"echo 'it'\''s'",
            "--format='{{.Names}}' #no-comment",
            'echo "$HOME" \\$HOME',
        ):
            with self.subTest(text=text):
                self.assertEqual(split(text), shlex.split(text, comments=False))

    def test_open_quotes(self) -> None:
        for text in ("echo 'a", 'echo "a', "echo a\\"):
            with self.subTest(text=text), self.assertRaises(ModuleError) as caught:
                split(text)
            self.assertIn("not closed", caught.exception.message)

    def test_expansion(self) -> None:
        env = {"A": "x y", "B": ""}
        for word, wanted in (("$A", "x y"), ("${A}-z", "x y-z"), ("$B", ""), ("$NONE", "$NONE"), ("a$", "a$")):
            self.assertEqual(expand(word, env), wanted)
        self.assertEqual(expand("~/x", env), os.path.expanduser("~/x"))


class CommandTest(ModuleCase):
    def test_result(self) -> None:
        done = self.call("command", {"_raw_params": "printf 'a\\nb\\n'"}, registered=True)
        result = done["result"]
        self.assertEqual(done["outcome"], "changed")
        self.assertEqual((result["rc"], result["stdout"], result["stdout_lines"]), (0, "a\nb", ["a", "b"]))
        self.assertEqual(result["cmd"], ["printf", "a\\nb\\n"])
        self.assertRegex(result["delta"], r"^0:00:\d\d\.\d{6}$")
        self.assertRegex(result["start"], r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}$")

    def test_failure_says_why_and_keeps_the_output(self) -> None:
        done = self.call("shell", {"_raw_params": "echo out; echo reason >&2; exit 3"})
        self.assertEqual((done["outcome"], done["msg"]), ("failed", "exit code 3: reason"))
        self.assertEqual((done["result"]["rc"], done["result"]["stdout"]), (3, "out"))
        self.assertEqual(done["result"]["msg"], "non-zero return code")

    def test_a_signal(self) -> None:
        done = self.call("shell", {"_raw_params": "kill -9 $$"})
        self.assertEqual((done["msg"], done["result"]["rc"]), ("killed by SIGKILL", -9))

    def test_a_missing_program(self) -> None:
        self.assertIn("no-such-program", self.fails("program-missing", "command", {"_raw_params": "no-such-program"}))
        self.write("f", "", 0o644)
        self.fails("program-denied", "command", {"_raw_params": self.path("f")})
        self.write("g", "no program", 0o755)
        self.assertIn("interpreter", self.call("command", {"_raw_params": self.path("g")})["fault"]["hint"])

    def test_argv_and_expansion(self) -> None:
        done = self.call("command", {"argv": ["echo", "a  b", "$X"]}, env={"X": "1 2"})
        self.assertEqual(done["result"]["stdout"], "a  b 1 2")
        done = self.call("command", {"argv": ["echo", "$X"], "expand_argument_vars": False}, env={"X": "1"})
        self.assertEqual(done["result"]["stdout"], "$X")

    def test_no_shell(self) -> None:
        done = self.call("command", {"_raw_params": "echo a | cat > %s" % self.path("f")})
        self.assertEqual(done["result"]["stdout"], "a | cat > %s" % self.path("f"))

    def test_chdir_creates_removes(self) -> None:
        self.write("there", "")
        done = self.call("command", {"_raw_params": "pwd", "chdir": self.folder})
        self.assertEqual(done["result"]["stdout"], self.folder)
        for args in (
            {"creates": self.path("there")},
            {"creates": self.path("th*re")},
            {"creates": "there", "chdir": self.folder},
            {"removes": self.path("none")},
        ):
            done = self.call("command", dict(args, _raw_params="false"))
            self.assertEqual((done["outcome"], done["result"]["rc"]), ("ok", 0), args)
        done = self.call(
            "command", {"_raw_params": "true", "creates": self.path("none"), "removes": self.path("there")}
        )
        self.assertEqual(done["outcome"], "changed")
        missing = self.call("command", {"_raw_params": "true", "chdir": self.path("none")})
        self.assertIn(self.path("none"), missing["msg"])

    def test_stdin(self) -> None:
        self.assertEqual(self.call("command", {"_raw_params": "wc -c", "stdin": "abc"})["result"]["stdout"], "4")
        args = {"_raw_params": "wc -c", "stdin": "abc", "stdin_add_newline": False}
        self.assertEqual(self.call("command", args)["result"]["stdout"], "3")

    def test_ends_are_kept_on_request(self) -> None:
        args = {"_raw_params": "printf 'a\\n\\n'", "strip_empty_ends": False}
        self.assertEqual(self.call("command", args)["result"]["stdout"], "a\n\n")

    def test_check_mode_runs_nothing(self) -> None:
        done = self.call("shell", {"_raw_params": "touch " + self.path("f")}, check=True)
        self.assertEqual((done["outcome"], os.path.exists(self.path("f"))), ("skipped", False))
        done = self.call("command", {"_raw_params": "false", "creates": "/"}, check=True)
        self.assertEqual(done["outcome"], "ok")

    def test_output_is_live(self) -> None:
        self.call("shell", {"_raw_params": "echo one; echo two >&2"})
        self.assertEqual(sorted(LOG), [("stderr", "two"), ("stdout", "one")])

    def test_nothing_to_run(self) -> None:
        for action in ("command", "shell"):
            self.assertIn("no command", self.call(action, {"_raw_params": " "})["msg"])

    def test_invalid_text_and_a_flood(self) -> None:
        done = self.call("shell", {"_raw_params": r"printf '\377'; head -c 100000000 /dev/zero | tr '\0' x; echo end"})
        self.assertLess(len(done["result"]["stdout"]), 600000)
        self.assertTrue(done["result"]["stdout"].startswith("\\xff"))
        self.assertTrue(done["result"]["stdout"].endswith("end"))


class ShellTest(ModuleCase):
    def test_shell(self) -> None:
        done = self.call("shell", {"_raw_params": "echo $((1+1)) | cat; echo $X"}, env={"X": "y"})
        self.assertEqual((done["result"]["stdout"], done["result"]["cmd"]), ("2\ny", "echo $((1+1)) | cat; echo $X"))

    def test_executable(self) -> None:
        args = {"cmd": "echo ${BASH_VERSION:+bash}", "executable": "/bin/bash"}
        self.assertEqual(self.call("shell", args)["result"]["stdout"], "bash")


if __name__ == "__main__":
    unittest.main()
