"""Tasks of another user: the agent's code and the task's files lie where only root may look."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent.modules.base import ModuleError
from gpuprov.agent.perform import Performer
from tests.support.agent_process import REPO
from tests.support.engine_case import EngineCase, task

SCRIPT = """
import json, sys
sys.path.insert(0, {bundle!r})
import gpuprov.agent.perform
from gpuprov.agent.modules import arguments, base, load
from gpuprov.agent.privileges import perform_as
from gpuprov.agent.system import System, new_sha256

new_sha256()  # this interpreter itself may lie in a folder that only root may enter
assert gpuprov.__file__.startswith({bundle!r})
file = load("copy")
args, wrong = arguments.check(file.SPEC, json.loads(sys.argv[1]))
assert not wrong
call = base.Call(args, System(), blob=lambda sha256: {blob!r})
print(json.dumps(perform_as("nobody", lambda: file.MODULE(call), call, lambda: None)))
"""


class OtherUserTest(unittest.TestCase):
    def setUp(self) -> None:
        self.private = tempfile.mkdtemp()
        self.open = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.private)
        self.addCleanup(shutil.rmtree, self.open)
        os.chmod(self.open, 0o777)
        self.bundle, self.blob = os.path.join(self.private, "b.zip"), os.path.join(self.private, "blob")
        with zipfile.ZipFile(self.bundle, "w") as archive:
            for folder in ("gpuprov", "gpuprov/wire", "gpuprov/agent", "gpuprov/agent/modules"):
                for name in os.listdir(os.path.join(REPO, folder)):
                    if name.endswith(".py"):
                        archive.write(os.path.join(REPO, folder, name), "%s/%s" % (folder, name))
        with open(self.blob, "w") as f:
            f.write("from the controller")
        os.chmod(self.blob, 0o600)

    def copy(self, args: str) -> str:
        script = SCRIPT.format(bundle=self.bundle, blob=self.blob)
        words = [sys.executable, "-I", "-c", script, args]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.stdout.decode()

    def test_code_that_is_loaded_late(self) -> None:
        source = os.path.join(self.open, "from")
        os.mkdir(source)
        with open(os.path.join(source, "f"), "w") as f:
            f.write("x")
        said = self.copy('{"src": "%s/", "dest": "%s/to", "remote_src": true}' % (source, self.open))
        self.assertIn('"outcome": "changed"', said)
        self.assertNotEqual(os.stat(os.path.join(self.open, "to/f")).st_uid, 0)

    def test_files_that_travelled(self) -> None:
        digest = hashlib.sha256(b"from the controller").hexdigest()
        said = self.copy('{"src": "f", "dest": "%s/f", "_blob": {"sha256": "%s", "size": 19}}' % (self.open, digest))
        self.assertIn('"outcome": "changed"', said)
        with open(os.path.join(self.open, "f")) as f:
            self.assertEqual(f.read(), "from the controller")

    def test_rights_are_gone(self) -> None:
        said = self.copy('{"content": "x", "dest": "%s/f"}' % self.private)
        self.assertIn('"outcome": "failed"', said)
        self.assertEqual(sorted(os.listdir(self.private)), ["b.zip", "blob"])


class Rights(EngineCase):
    """What is left of root in a task of another user: nothing."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("only root can become somebody else")
        os.chmod(self.folder, 0o777)

    def run_as_nobody(self, *nodes: dict, **plan: object) -> dict:
        """Run tasks as nobody; return the last finished event."""
        self.engine([dict(node, become=True, become_user="nobody") for node in nodes], **plan).run()
        return self.events()[-1]

    def said(self, text: str) -> str:
        return str(self.run_as_nobody(task(1, "shell", {"_raw_params": text}))["result"]["stdout"])

    def test_ids_groups_and_saved_ids(self) -> None:
        entry = pwd.getpwnam("nobody")
        status = self.said("cat /proc/$PPID/status; id -G")
        ids = {line.split(":")[0]: line.split()[1:] for line in status.splitlines() if ":" in line}
        self.assertEqual((set(ids["Uid"]), set(ids["Gid"])), ({str(entry.pw_uid)}, {str(entry.pw_gid)}))
        self.assertEqual((ids["CapPrm"], ids["CapEff"]), (["0" * 16], ["0" * 16]))
        self.assertEqual(ids["Groups"], status.splitlines()[-1].split())
        self.assertNotIn("0", ids["Groups"])

    def test_environment_folder_and_mask(self) -> None:
        os.environ.update(TMPDIR="/root/tmp", SUDO_USER="ann", XDG_RUNTIME_DIR="/run/user/0")
        for name in ("TMPDIR", "SUDO_USER", "XDG_RUNTIME_DIR"):
            self.addCleanup(os.environ.pop, name, None)
        found = self.said("env; umask; pwd")
        for name in ("TMPDIR", "SUDO_USER", "XDG_RUNTIME_DIR", "/root/tmp"):
            self.assertNotIn(name, found)
        for line in ("USER=nobody", "LOGNAME=nobody", "HOME=" + pwd.getpwnam("nobody").pw_dir, "0022"):
            self.assertIn(line, found.splitlines())

    def test_the_runners_descriptors_stay_behind(self) -> None:
        links = self.said("ls -l /proc/$PPID/fd 2>&1")
        self.assertNotIn("journal", links)
        self.assertNotIn("current", links)

    def test_a_state_that_is_there_already_writes_no_start(self) -> None:
        node = task(1, "copy", {"content": "x", "dest": self.path("file"), "mode": "0600"})
        self.run_as_nobody(node)
        self.assertEqual([e["kind"] for e in self.events()], ["TaskStarted", "TaskFinished"])
        self.assertEqual(os.stat(self.path("file")).st_uid, pwd.getpwnam("nobody").pw_uid)
        self.assertEqual(self.run_as_nobody(dict(node, id="p1.t2"))["outcome"], "ok")
        self.assertEqual([e["kind"] for e in self.events()][2:], ["TaskFinished"])

    def test_an_action_is_in_the_journal_before_it_runs(self) -> None:
        os.chmod(self.run_folder, 0o755)
        journal = os.path.join(self.run_folder, "journal")
        os.mknod(journal, 0o644)
        self.run_as_nobody(task(1, "command", {"_raw_params": "cp %s %s" % (journal, self.path("seen"))}))
        self.assertIn('"kind":"TaskStarted"', self.text("seen"))

    def test_check_mode_remembers_what_it_would_have_made(self) -> None:
        nodes = [
            task(1, "file", {"path": self.path("dir"), "state": "directory"}),
            task(2, "copy", {"content": "x", "dest": self.path("dir/file")}),
        ]
        self.run_as_nobody(*nodes, check=True)
        self.assertIn(self.outcomes()["p1.t2"], ("changed", "unknown"))

    def test_a_child_that_is_killed_fails_its_task_only(self) -> None:
        event = self.run_as_nobody(task(1, "shell", {"_raw_params": "kill -9 $PPID; sleep 5"}))
        self.assertEqual((event["outcome"], event["fault"]["code"]), ("failed", "become"))

    def test_who_is_not_root_becomes_nobody_else(self) -> None:
        pid = os.fork()
        if pid == 0:
            os.setresuid(65534, 65534, 65534)
            os._exit(0 if _refused() else 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)


def _refused() -> bool:
    performer = Performer({}, None, None, {"home": "", "layers": {}}, None)
    try:
        performer._other_user({"action": "shell", "become": True, "become_user": "daemon"})
    except ModuleError as error:
        return "cannot become daemon: the agent runs as nobody" in error.message
    return False


if __name__ == "__main__":
    unittest.main()
