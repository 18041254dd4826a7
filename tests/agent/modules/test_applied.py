"""The module `gpuprov_applied`, with the real dpkg on a private copy of this machine's /var and /usr."""

from __future__ import annotations

import json
import os
import subprocess

from gpuprov.agent.modules import gpuprov_applied
from gpuprov.agent.modules.package_list import all_packages
from gpuprov.agent.system import System
from tests.support.module_calls import ModuleCase, isolated

FOLDERS = ("/var", "/usr", "/etc")
A = {"driver": {"version": "580.178.04"}, "torch": {"version": "2.14.1"}, "reasons": ["because"], "host": {"gpus": 8}}
B = {"driver": {"version": "595.91.07"}, "torch": {"version": "2.14.1"}}


class AppliedTest(ModuleCase):
    def forget(self) -> None:
        if os.path.exists(gpuprov_applied.PATH):
            os.unlink(gpuprov_applied.PATH)

    def record(self) -> dict:
        with open(gpuprov_applied.PATH, encoding="utf-8") as f:
            return json.load(f)

    def deb(self, name: str, version: str) -> None:
        """Make and install a package without content."""
        folder = self.path(f"{name}-{version}")
        os.makedirs(folder + "/DEBIAN")
        with open(folder + "/DEBIAN/control", "w", encoding="utf-8") as f:
            f.write(f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x\nDescription: x\n")
        subprocess.run(["dpkg-deb", "--build", folder, folder + ".deb"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(
            ["dpkg", "-i", folder + ".deb"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def begun(self, run: str = "r1") -> dict:
        return self.call("gpuprov_applied", {"state": "begun", "run": run})

    def applied(self, stack: dict, run: str = "r1", **more: object) -> dict:
        return self.call("gpuprov_applied", dict({"stack": stack, "run": run}, **more))

    @isolated(*FOLDERS)
    def test_what_came_with_the_stack_is_known_afterwards(self) -> None:
        self.forget()
        self.deb("gpuprov-mine", "1")
        self.assertEqual(self.begun()["outcome"], "ok")
        self.deb("gpuprov-driver", "580")
        self.deb("gpuprov-mine", "2")
        done = self.applied(A, files=["/etc/b", "/etc/a"])
        self.assertEqual((done["outcome"], done["result"]["previous"]), ("changed", None))
        record = self.record()
        self.assertEqual((record["added"], record["changed"]), (["gpuprov-driver"], {"gpuprov-mine": "1"}))
        self.assertEqual(record["applied"][0]["stack"], {"driver": A["driver"], "torch": A["torch"]})
        self.assertEqual(record["applied"][0]["files"], ["/etc/a", "/etc/b"])
        self.assertEqual(os.stat(gpuprov_applied.PATH).st_mode & 0o777, 0o600)

    @isolated(*FOLDERS)
    def test_a_second_run_changes_nothing(self) -> None:
        self.forget()
        self.begun()
        self.applied(A)
        before = self.record()
        self.assertEqual(self.begun("r2")["outcome"], "ok")
        self.assertEqual(self.applied(dict(A, reasons=["another"]), "r2")["outcome"], "ok")
        self.assertEqual(self.record(), before)

    @isolated(*FOLDERS)
    def test_what_a_person_installs_between_runs_is_not_ours(self) -> None:
        self.forget()
        self.begun()
        self.deb("gpuprov-driver", "580")
        self.applied(A)
        self.deb("gpuprov-editor", "1")
        self.begun("r2")
        self.deb("gpuprov-toolkit", "13")
        self.applied(B, "r2")
        self.assertEqual(self.record()["added"], ["gpuprov-driver", "gpuprov-toolkit"])
        subprocess.run(["dpkg", "--purge", "gpuprov-driver"], check=True, stdout=subprocess.DEVNULL)
        self.begun("r3")
        self.applied(B, "r3")
        self.assertEqual(self.record()["added"], ["gpuprov-toolkit"])

    @isolated(*FOLDERS)
    def test_what_an_interrupted_run_installed_is_ours_too(self) -> None:
        self.forget()
        self.begun()
        self.deb("gpuprov-driver", "580")
        self.begun("r2")
        self.deb("gpuprov-toolkit", "13")
        self.applied(A, "r2")
        self.assertEqual(self.record()["added"], ["gpuprov-driver", "gpuprov-toolkit"])

    @isolated(*FOLDERS)
    def test_stacks_are_remembered_in_order_and_not_without_end(self) -> None:
        self.forget()
        for number in range(gpuprov_applied.KEPT + 3):
            done = self.applied({"n": number}, f"r{number}")
        self.assertEqual(done["result"]["previous"], {"n": gpuprov_applied.KEPT + 1})
        runs = [entry["run"] for entry in self.record()["applied"]]
        self.assertEqual((len(runs), runs[-1]), (gpuprov_applied.KEPT, f"r{gpuprov_applied.KEPT + 2}"))

    @isolated(*FOLDERS)
    def test_check_mode_writes_nothing_and_absent_forgets(self) -> None:
        self.forget()
        self.assertEqual(self.call("gpuprov_applied", {"stack": A}, check=True)["outcome"], "changed")
        self.assertFalse(os.path.exists(gpuprov_applied.PATH))
        self.applied(A)
        self.assertEqual(self.call("gpuprov_applied", {"state": "absent"})["outcome"], "changed")
        self.assertEqual(self.call("gpuprov_applied", {"state": "absent"})["outcome"], "ok")

    @isolated(*FOLDERS)
    def test_a_damaged_or_newer_record_is_never_taken_for_none(self) -> None:
        os.makedirs(os.path.dirname(gpuprov_applied.PATH), exist_ok=True)
        for text, said in (("{", "is damaged"), ('{"schema": 99}', "another version of gpuprov"), ("[]", "another")):
            with open(gpuprov_applied.PATH, "w", encoding="utf-8") as f:
                f.write(text)
            done = self.applied(A)
            self.assertEqual(done["outcome"], "failed")
            self.assertIn(said, done["msg"])

    @isolated(*FOLDERS)
    def test_info_tells_what_is_ours_also_of_an_interrupted_run(self) -> None:
        self.forget()
        nothing = self.call("gpuprov_applied_info", {})["result"]
        self.assertEqual((nothing["recorded"], nothing["packages"], nothing["stack"]), (False, [], None))
        self.deb("gpuprov-mine", "1")
        self.begun()
        self.deb("gpuprov-driver", "580")
        self.deb("gpuprov-mine", "2")
        self.applied(A, files=["/etc/a"])
        self.begun("r2")
        self.deb("gpuprov-toolkit", "13")
        found = self.call("gpuprov_applied_info", {}, check=True)["result"]
        self.assertEqual(found["packages"], ["gpuprov-driver", "gpuprov-toolkit"])
        self.assertEqual((found["changed_packages"], found["files"]), ({"gpuprov-mine": "1"}, ["/etc/a"]))

    def test_applied_needs_a_stack(self) -> None:
        self.assertIn("needs stack", self.fails("argument-missing", "gpuprov_applied", {}))

    def test_the_list_is_what_dpkg_says(self) -> None:
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${db:Status-Status} ${binary:Package} ${Version}\n"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        said = [line.split() for line in done.stdout.splitlines() if line.startswith("installed ")]
        native = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True)
        suffix = ":" + native.stdout.strip()
        wanted = {name[: -len(suffix)] if name.endswith(suffix) else name: version for _, name, version in said}
        self.assertEqual(all_packages(System()), wanted)
