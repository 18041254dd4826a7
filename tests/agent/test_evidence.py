"""Evidence from real programs: what they say, what they cannot say, and programs that never end."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import unittest
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from gpuprov.agent import evidence
from gpuprov.agent.system import System

DKMS = """\
nvidia-current/535.309.01, 6.1.0-28-amd64, x86_64: installed
zfs/2.1.11: added
"""


class EvidenceTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        path = mock.patch.dict(os.environ, {"PATH": self.folder + ":" + os.environ["PATH"], "HOME": self.folder})
        path.start()
        self.addCleanup(path.stop)
        self.system = System()

    def program(self, name: str, script: str) -> str:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write("#!/bin/sh\n" + script)
        os.chmod(path, 0o755)
        return path

    def test_every_source_answers_on_a_real_host(self) -> None:
        found = evidence.gather(self.system, self.folder)
        for name, one in found.items():
            self.assertTrue("lines" in one or one.get("error"), (name, one))
        self.assertIn("PATH", found["environment"]["variables"])
        self.assertEqual(set(found["libraries"]["known"]), set(evidence.LIBRARIES))
        self.assertEqual(found["torch"]["python"], None)
        json.dumps(found)

    def test_the_kernels_lines_about_gpus_only(self) -> None:
        self.program("dmesg", "echo '[1.0] NVRM: Xid (PCI:0000:01:00): 79, x'; echo '[1.1] usb 1-1: new device'")
        self.assertEqual(evidence.kernel(self.system)["lines"], ["[1.0] NVRM: Xid (PCI:0000:01:00): 79, x"])

    def test_a_kernel_log_that_may_not_be_read_is_not_an_empty_one(self) -> None:
        self.program("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
        self.program("journalctl", "exit 1")
        with self.assertRaisesRegex(evidence.Untold, "Operation not permitted"):
            evidence.kernel(self.system)

    def test_the_journal_is_asked_when_dmesg_is_not_allowed(self) -> None:
        self.program("dmesg", "exit 1")
        self.program("journalctl", "echo '2026-11-25T08:00:00+0000 gpu kernel: NVRM: loading'")
        self.assertEqual(len(evidence.kernel(self.system)["lines"]), 1)

    def test_dkms(self) -> None:
        self.program("dkms", "cat <<'X'\n%sX\n" % DKMS)
        self.assertEqual(evidence.dkms(self.system)["lines"], [DKMS.splitlines()[0]])

    def test_nvidia_smi_that_fails_says_why(self) -> None:
        self.program("nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
        found = evidence.nvidia_smi(self.system)
        self.assertEqual(found, {"lines": ["Failed to initialize NVML: Driver/library version mismatch"], "rc": 18})

    def test_a_program_that_hangs_is_evidence_and_is_not_waited_for(self) -> None:
        self.program("nvidia-smi", "exec sleep 600")
        with mock.patch.object(evidence, "PROGRAM_S", 0.3):
            found = evidence.nvidia_smi(self.system)
        self.assertEqual(found["lines"], ["nvidia-smi: no answer within 0 s"])

    def test_a_source_that_cannot_be_ended_is_left_behind(self) -> None:
        """A process that waits inside the driver takes no signal; here its source just never returns."""
        hangs = {"nvidia_smi": lambda system: time.sleep(600), "PROGRAM_S": 3.0, "MARGIN_S": 0.1}
        with mock.patch.multiple(evidence, **hangs):
            found = evidence.gather(self.system, self.folder)
        self.assertEqual(found["nvidia_smi"]["lines"], ["nvidia_smi: no answer in time"])
        self.assertIn("known", found["libraries"])

    def test_a_source_that_dies_has_no_answer(self) -> None:
        with mock.patch.multiple(evidence, kernel=lambda system: os._exit(9)):
            found = evidence.gather(self.system, self.folder)
        self.assertEqual(found["kernel"], {"error": "it ended without an answer"})

    def test_secrets_of_the_environment_stay_there(self) -> None:
        with open(os.path.join(self.folder, ".profile"), "w") as f:
            f.write("export NCCL_DEBUG=INFO CUDA_VISIBLE_DEVICES= MY_TOKEN=s3cret https_proxy=http://u:pw@proxy\n")
        found = evidence.environment(self.system)["variables"]
        self.assertEqual((found["NCCL_DEBUG"], found["CUDA_VISIBLE_DEVICES"]), ("INFO", ""))
        self.assertNotIn("s3cret", json.dumps(found))
        self.assertNotIn("proxy", json.dumps(found))

    def test_torch_says_what_it_is(self) -> None:
        self.program("bin/python", 'exec "%s" "$@"\n' % sys.executable)
        os.makedirs(os.path.join(self.folder, "torch"))
        with open(os.path.join(self.folder, "torch", "__init__.py"), "w") as f:
            f.write(
                "import warnings\n"
                "__version__ = '2.14.1+cu130'\n"
                "class version: cuda = '13.0'\n"
                "class cuda:\n"
                "    @staticmethod\n"
                "    def is_available():\n"
                "        warnings.warn('CUDA initialization: Error 802: system not yet initialized')\n"
                "        return False\n"
            )
        with mock.patch.dict(os.environ, {"PYTHONPATH": self.folder}), mock.patch.object(
            System, "environment", lambda self, extra=None: dict(os.environ, **(extra or {}))
        ):
            found = evidence.torch(self.system, self.folder)
        self.assertEqual((found["version"], found["cuda"], found["available"]), ("2.14.1+cu130", "13.0", False))
        self.assertEqual(found["lines"], ["CUDA initialization: Error 802: system not yet initialized"])

    def test_torch_that_does_not_load_shows_its_error(self) -> None:
        self.program("bin/python", "echo \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1")
        found = evidence.torch(self.system, self.folder)
        self.assertEqual(found["lines"], ["ModuleNotFoundError: No module named 'torch'"])
        self.assertNotIn("version", found)

    def test_floods_are_bounded(self) -> None:
        self.program(
            "dmesg", "i=0; while [ $i -lt 3000 ]; do echo \"[$i] NVRM: $(printf '%0900d' $i)\"; i=$((i+1)); done"
        )
        lines = evidence.kernel(self.system)["lines"]
        self.assertEqual(len(lines), evidence.LINES)
        self.assertEqual(max(map(len, lines)), evidence.LINE_CHARS)


if __name__ == "__main__":
    unittest.main()
