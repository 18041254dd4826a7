"""The rules of a set of packages, as values: what fits, what is chosen, what is refused, and in which words."""

from __future__ import annotations

import os
import shutil
import tempfile
import unittest

from gpuprov.agent.modules import package_record
from gpuprov.agent.modules.apt_query import _STEP, _relations
from gpuprov.agent.modules.base import ModuleError, ProbeError
from gpuprov.agent.modules.dnf_query import _steps
from gpuprov.agent.modules.version_rules import Planned, judge
from gpuprov.agent.modules.version_set import (
    Candidate,
    Meta,
    Refusal,
    Step,
    Wanted,
    choose,
    is_driver,
    matches,
    parse_wanted,
    refuse,
    upstream,
)
from gpuprov.agent.system import System

ARGS = {"absent": [], "family": [], "allow_downgrade": True, "brings": []}


class VersionTest(unittest.TestCase):
    def test_patterns(self) -> None:
        for version, pattern in (
            ("580.178.04-1ubuntu1", "580.178.04-*"),
            ("580.178.04-1ubuntu1", "580.178.04-1ubuntu1"),
            ("1:4.5.2-1", "4.5.2-*"),
            ("1:4.5.2-1", "1:4.5.2-1"),
            ("3:580.178.04-1.el9", "580.*"),
            ("2.32.3-1+cuda13.0", "2.32.3-1+cuda13.0"),
        ):
            self.assertTrue(matches(version, pattern), (version, pattern))
        for version, pattern in (
            ("580.95.05-1", "580.178.04-*"),
            ("2:4.5.2-1", "1:4.5.2-*"),
            ("580.178.041-1", "580.178.04-*"),
        ):
            self.assertFalse(matches(version, pattern), (version, pattern))

    def test_upstream(self) -> None:
        self.assertEqual([upstream(one) for one in ("1:4.5.2-1", "580.95.05-0ubuntu0.24.04.2")], ["4.5.2", "580.95.05"])

    def test_what_belongs_to_the_driver(self) -> None:
        ours = ["nvidia-dkms-580-open", "libnvidia-compute-580", "cuda-drivers", "kmod-nvidia-open-dkms", "libcuda1"]
        others = [
            "nvidia-container-toolkit",
            "libnvidia-container1",
            "nvidia-cuda-toolkit",
            "cuda-toolkit-13-0",
            "libnccl2",
        ]
        self.assertEqual([is_driver(one) for one in ours + others], [True] * 5 + [False] * 5)

    def test_wanted(self) -> None:
        found = parse_wanted([{"name": "a", "version": "1-*"}, "b=2", "c"])
        self.assertEqual([(one.name, one.version) for one in found], [("a", "1-*"), ("b", "2"), ("c", "")])
        with self.assertRaises(ModuleError) as raised:
            parse_wanted(["a b", {"nmae": "x"}, "x=1", "x=2"])
        self.assertEqual(raised.exception.message.count("is no package with a version"), 2)
        self.assertIn("x is wanted as 1 and as 2", raised.exception.message)


class ChoiceTest(unittest.TestCase):
    def refusal(self, wanted: Wanted, *offered: Candidate) -> Refusal:
        choice = choose(wanted, list(offered))
        self.assertIsInstance(choice, Refusal)
        return choice

    def test_the_newest_that_fits(self) -> None:
        offered = [Candidate("590.1-1"), Candidate("580.178.04-1"), Candidate("580.95.05-1")]
        self.assertEqual(choose(Wanted("nvidia-open", "580.*"), offered).version, "580.178.04-1")
        self.assertEqual(choose(Wanted("nvidia-open"), offered).version, "590.1-1")

    def test_why_not(self) -> None:
        wanted = Wanted("nvidia-utils-570-server", "570.*")
        self.assertEqual(self.refusal(wanted).rule, "package-unknown")
        self.assertEqual(self.refusal(wanted, Candidate("570.1-1", usable=False)).rule, "pinned-away")
        self.assertEqual(self.refusal(wanted, Candidate("580.95.05-1")).rule, "package-stub")
        many = [Candidate("570.%d-1" % number) for number in range(20, 10, -1)]
        said = self.refusal(Wanted("nvidia-utils-570-server", "570.211-*"), *many)
        self.assertEqual(said.rule, "version-vanished")
        self.assertIn("which offer 570.20-1, 570.19-1, 570.18-1, 570.17-1, 570.16-1, 570.15-1 and 4 more", said.message)

    def test_all_at_once(self) -> None:
        refusals = [Refusal("a", "p%d" % number, "", "", "p%d is wrong" % number, "mend it") for number in range(5)]
        with self.assertRaises(ModuleError) as raised:
            refuse(refusals)
        self.assertEqual(raised.exception.message.count("is wrong"), 3)
        self.assertIn("and 2 more like it", raised.exception.message)
        self.assertEqual((raised.exception.hint, len(raised.exception.result["refusals"])), ("mend it", 5))
        refuse([])


class RuleTest(unittest.TestCase):
    def rules(
        self, steps: list, wanted: list, metas: dict | None = None, held: tuple = (), **args: object
    ) -> list[str]:
        after = {step.name: step.new for step in steps}
        sources = {step.name: step.source for step in steps if step.new}
        planned = Planned(steps, after, metas or {}, held, sources)
        return [one.rule for one in judge(planned, wanted, {**ARGS, **args})]

    def test_others_are_left_alone(self) -> None:
        wanted = [Wanted("nvidia-open", "580.*")]
        good = Step("install", "nvidia-open", "", "580.1-1")
        for step, rule in (
            (Step("remove", "slurm", "1"), "would-remove"),
            (Step("downgrade", "libc6", "2", "1"), "downgrade"),
            (Step("upgrade", "libc6", "1", "2"), "packages-held"),
        ):
            self.assertEqual(
                self.rules([good, step], wanted, held=("libc6",) if rule == "packages-held" else ()), [rule]
            )
            self.assertEqual(self.rules([good, step], wanted, held=("libc6",), family=["libc6", "slurm"]), [])
        self.assertEqual(self.rules([good, Step("upgrade", "libc6", "1", "2")], wanted), [])

    def test_versions(self) -> None:
        self.assertEqual(self.rules([Step("install", "a", "", "2")], [Wanted("a", "1")]), ["version-other"])
        down = [Step("downgrade", "a", "2", "1")]
        self.assertEqual(self.rules(down, [Wanted("a", "1")]), [])
        self.assertEqual(self.rules(down, [Wanted("a", "1")], allow_downgrade=False), ["downgrade"])

    def test_content(self) -> None:
        steps = [Step("install", "cuda-drivers", "", "615.71.09-1")]
        wanted = [Wanted("cuda-drivers", "615.*")]
        self.assertEqual(self.rules(steps, wanted, {"cuda-drivers": Meta((), 20)}), ["package-empty"])
        self.assertEqual(self.rules(steps, wanted, {"cuda-drivers": Meta((), 4096)}), [])
        self.assertEqual(self.rules(steps, wanted, {"cuda-drivers": Meta([("libc6", "")], 20)}), [])
        pin = [Step("install", "nvidia-driver-pinning-580", "", "580.1-1")]
        metas = {"nvidia-driver-pinning-580": Meta((), 4)}
        self.assertEqual(self.rules(pin, [Wanted("nvidia-driver-pinning-580", "580.*")], metas), [])

    def test_origins(self) -> None:
        steps = [Step("install", "nvidia-utils-580", "", "1", "NVIDIA CUDA:stable")]
        steps.append(Step("install", "nvidia-fabricmanager", "", "1", "Ubuntu:24.04/noble-updates"))
        self.assertEqual(self.rules(steps, []), ["origins-mixed"])
        steps[1].source = "cuda-rhel9"
        self.assertEqual(self.rules(steps, []), [])
        steps[0].source, steps[1].source = "Debian:12.5/stable", "Debian-Security:12/stable-security"
        self.assertEqual(self.rules(steps, []), [])


class TextTest(unittest.TestCase):
    """What apt and dnf print, in shapes that the local repositories do not give."""

    def test_steps_of_apt(self) -> None:
        text = "Inst libfoo [1.0] (2.0 Debian:12.5/stable, Debian-Security:12/x [amd64]) [bar:amd64 ]\nRemv old [3]\n"
        text += "Inst new (1:2 NVIDIA CUDA:stable [all])\nConf new (1:2 NVIDIA CUDA:stable [all])\nPurg gone [1]\n"
        found = [(action, name, old, new) for action, name, old, new, _ in _STEP.findall(text)]
        self.assertEqual(found[0], ("Inst", "libfoo", "1.0", "2.0"))
        self.assertEqual([one[0] for one in found], ["Inst", "Remv", "Inst", "Conf", "Purg"])

    def test_relations_of_apt(self) -> None:
        text = "libc6 (>= 2.36), nvidia-a (= 580.1-1), x:any | y, z (<< 3)"
        self.assertEqual(list(_relations(text)), [("libc6", ""), ("nvidia-a", "580.1-1"), ("x", ""), ("z", "")])

    def test_rows_of_dnf(self) -> None:
        text = """Dependencies resolved.
==========
 Package            Arch    Version       Repository   Size
==========
Installing:
 a-package-with-a-name-that-takes-a-whole-line-of-the-table
                    x86_64  3:580.1-1.el9 cuda-rhel9   12 M
     replacing  old.x86_64 1-1
Removing dependent packages:
 b                  noarch  1.0-1         @cuda        3.2 k
Enabling module streams:
 nvidia-driver              580-open

Transaction Summary
"""
        found = [(one.action, one.name, one.old, one.new) for one in _steps(text)]
        name = "a-package-with-a-name-that-takes-a-whole-line-of-the-table"
        self.assertEqual(found, [("install", name, "", "3:580.1-1.el9"), ("remove", "b", "1.0-1", "")])


class RecordTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.old, package_record.PATH = package_record.PATH, os.path.join(self.folder, "gpuprov/record.json")
        self.addCleanup(setattr, package_record, "PATH", self.old)

    def test_there_and_gone(self) -> None:
        system = System()
        self.assertIsNone(package_record.interrupted(system))
        package_record.begin(system, ["b", "a"], {"a": "1"})
        left = package_record.interrupted(system)
        self.assertEqual((left.holds, left.before), (["a", "b"], {"a": "1"}))
        package_record.end()
        self.assertIsNone(package_record.interrupted(system))

    def test_damaged(self) -> None:
        os.makedirs(os.path.dirname(package_record.PATH))
        for text in ("", "[]", '{"holds": 3, "before": {}}', "null"):
            System().replace(package_record.PATH, data=text.encode())
            with self.subTest(text=text), self.assertRaises(ProbeError):
                package_record.interrupted(System())


if __name__ == "__main__":
    unittest.main()
